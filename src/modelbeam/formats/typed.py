"""What writers of typed columns share: each value in the type of its column, or a failure."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson

from modelbeam import storage
from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.encode import plain_rows
from modelbeam.formats.jsonl.values import rows_of_column
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.layout import Layout, UnknownColumnError, unknown
from modelbeam.predicting.batch import Kept
from modelbeam.predicting.failures import Failure, moved
from modelbeam.predicting.outcome import Outcome


class DoesNotFitError(ValueError):
    """A value that its column's type does not hold."""


class WholeWrites(io.RawIOBase):
    """A handle of which every write is whole."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        content = bytes(data)
        if not self._handle.closed:  # else it was abandoned, and Arrow ends the file all the same
            storage.write_all(self._handle, content)
        self._at += len(content)
        return len(content)


class TypedWriter(Writer):
    """Writes a row a prediction, with the columns of the layout in its order.

    Args:
        layout: the columns; one whose type is open holds texts.
        most_rows, most_bytes: after which :meth:`_write` is called with what has come together.
    """

    def __init__(self, layout: Layout, most_rows: int, most_bytes: int) -> None:
        import pyarrow as pa

        self._schema = pa.schema([(c.name, _text_if_open(c.type)) for c in layout])
        self._open = {column.name for column in layout if column.type is None}
        self._most = most_rows, most_bytes
        self._waiting: list[Any] = []
        self._rows_waiting = self._bytes_waiting = 0

    @abstractmethod
    def _write(self, table: Any) -> None:
        """Write a ``pyarrow.Table`` of the schema."""

    @abstractmethod
    def _end(self) -> None:
        """Write what belongs at the end."""

    def write(self, outcome: Outcome) -> list[Failure]:
        """Take the predictions of a batch; they are written when there are enough."""
        if outcome.table and (failures := self._write_columns(outcome)) is not None:
            return failures
        rows, good, failures = plain_rows(outcome)
        kept = None if outcome.kept is None else outcome.kept.take(good)
        fitting, misfits = self._fitting(rows, kept)
        failures += [moved(failure, good) for failure in misfits]
        if fitting:
            columns = self._kept_columns(kept, fitting) if kept is not None else {}
            for name in self._schema.names:
                if name not in columns:
                    found = [rows[at].get(name) for at in fitting]
                    columns[name] = self._array(name, found)
            self._add(columns, len(fitting))
        return failures

    def _fitting(
        self, rows: list[dict[str, Any]], kept: Kept | None
    ) -> tuple[list[int], list[Failure]]:
        """The rows whose values their columns hold, and a failure for each other one."""
        known = set(self._schema.names)
        by_record = None if kept is None or isinstance(kept, KeptTable) else kept.dicts()
        fixed = set(kept.table.schema.names) if isinstance(kept, KeptTable) else set()
        fitting, failures = [], []
        for at, row in enumerate(rows):
            whole = row if by_record is None else {**by_record[at], **row}
            other = next((name for name in (*fixed, *whole) if name not in known), None)
            if other is not None:
                said = unknown(other)
                failures.append(Failure(at, "encode", UnknownColumnError.__name__, said))
                continue
            problem = next(filter(None, (self._problem(n, v) for n, v in whole.items())), None)
            if problem is not None:
                failures.append(Failure(at, "encode", DoesNotFitError.__name__, problem))
            else:
                fitting.append(at)
        return fitting, failures

    def _problem(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, or ``None``."""
        import pyarrow as pa

        kind = self._schema.field(name).type
        plain = {float: pa.float64(), str: pa.string(), bool: pa.bool_()}
        if value is None or name in self._open or plain.get(type(value)) == kind:
            return None
        if type(value) is int and kind == pa.int64() and -(2**63) <= value < 2**63:
            return None
        try:
            [back] = self._array(name, [value]).to_pylist()
            if not _same(value, back):
                raise ValueError("some of it would be lost")
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            return f"column '{name}' is {kind} in the output, which does not hold this: {error}"
        return None

    def _array(self, name: str, values: list[Any]) -> Any:
        import pyarrow as pa

        kind = self._schema.field(name).type
        if name in self._open:
            values = [
                v if v is None or type(v) is str else orjson.dumps(v).decode() for v in values
            ]
        if pa.types.is_floating(kind):
            if any(type(value) is bool for value in values):
                raise TypeError("true and false are no numbers")
            values = [float(v) if type(v) is int and int(float(v)) == v else v for v in values]
        return pa.array(values, kind)

    def _kept_columns(self, kept: Kept, rows: Sequence[int]) -> dict[str, Any]:
        chosen = kept.take(rows)
        if not isinstance(chosen, KeptTable):
            dicts = chosen.dicts()
            names = {name for one in dicts for name in one}
            return {name: self._array(name, [one.get(name) for one in dicts]) for name in names}
        return {
            name: self._cast(name, chosen.table.column(name)) for name in chosen.table.schema.names
        }

    def _cast(self, name: str, column: Any) -> Any:

        kind = self._schema.field(name).type
        if column.type == kind:
            return column
        if name in self._open and not _plain(column.type):
            return self._array(name, rows_of_column(column))
        return column.cast(kind)

    def _write_columns(self, outcome: Outcome) -> list[Failure] | None:
        """Take columns as they are; ``None`` where that is not possible."""
        import pyarrow as pa

        known = set(self._schema.names)
        made = []
        failures: list[Failure] = []
        at = 0
        for piece in outcome.values:
            size = len(piece)
            kept = None if outcome.kept is None else outcome.kept.take(range(at, at + size))
            if kept is not None and not isinstance(kept, KeptTable):
                return None
            names = {*piece.schema.names, *(kept.table.schema.names if kept is not None else ())}
            if not names <= known or any(
                not _may_be_cast(piece.schema.field(name).type, self._schema.field(name).type)
                for name in piece.schema.names
            ):
                return None
            bad = _not_finite(piece)
            rows: Sequence[int] = range(size)
            failures += [
                Failure(at + row, "encode", "ValueError", f"{name} is NaN or infinite")
                for row, name in sorted(bad.items())
            ]
            if bad:
                rows = [row for row in rows if row not in bad]
                piece = piece.take(np.array(rows, np.int64))
            try:
                columns = {} if kept is None else self._kept_columns(kept, rows)
                for name in piece.schema.names:
                    columns[name] = self._cast(name, piece.column(name))
            except pa.ArrowException:
                return None
            made.append((columns, len(rows)))
            at += size
        for columns, count in made:
            self._add(columns, count)
        return failures

    def _add(self, columns: dict[str, Any], count: int) -> None:
        import pyarrow as pa

        if not count:
            return
        arrays = [
            columns[field.name] if field.name in columns else pa.nulls(count, field.type)
            for field in self._schema
        ]
        rows = pa.table(arrays, schema=self._schema)
        self._waiting.append(rows)
        self._rows_waiting += count
        self._bytes_waiting += rows.nbytes
        self.rows += count
        if self._rows_waiting >= self._most[0] or self._bytes_waiting >= self._most[1]:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._write(pa.concat_tables(self._waiting))
            self._waiting, self._rows_waiting, self._bytes_waiting = [], 0, 0

    def close(self) -> None:
        """Write the last rows, and what belongs at the end."""
        self._flush()
        self._end()


def _text_if_open(kind: Any) -> Any:
    import pyarrow as pa

    return pa.string() if kind is None else kind


def _plain(kind: Any) -> bool:
    """Whether Arrow makes the same text of values of a type as JSON has."""
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_null(kind)
        or (types.is_dictionary(kind) and types.is_string(kind.value_type))
    )


def _same(value: Any, back: Any) -> bool:
    """Whether a plain value is what was made of it; Arrow drops fractions and unknown members."""
    if isinstance(value, dict):
        if not isinstance(back, dict):  # a map
            back = dict(back)
        return value.keys() <= back.keys() and all(_same(value.get(n), v) for n, v in back.items())
    if isinstance(value, list):
        return len(value) == len(back) and all(map(_same, value, back))
    if isinstance(value, (int, float)) and isinstance(back, (int, float)):
        return value == back and isinstance(value, bool) == isinstance(back, bool)
    return True


def _may_be_cast(found: Any, kind: Any) -> bool:
    """Whether columns are of one type, or numbers of which one is the wider."""
    import pyarrow as pa

    types = pa.types
    if found == kind:
        return True
    if types.is_floating(found):
        return bool(types.is_floating(kind)) and found.bit_width <= kind.bit_width
    if types.is_integer(found):
        return bool(types.is_integer(kind) or types.is_float64(kind))
    if types.is_string(kind):
        labels = types.is_dictionary(found) and types.is_string(found.value_type)
        return bool(labels or types.is_large_string(found) or types.is_null(found))
    return bool(types.is_null(found))


def _not_finite(piece: Any) -> dict[int, str]:
    """The rows that hold NaN or infinity, and in which column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[int, str] = {}
    for at, field in enumerate(piece.schema):
        if pa.types.is_floating(field.type):
            column = piece.column(at)
            finite = pc.fill_null(pc.is_finite(column), True)
            if not pc.all(finite).as_py():
                for row in np.flatnonzero(~np.asarray(finite)).tolist():
                    found.setdefault(row, field.name)
    return found
