"""Rows of Arrow as the batch that models are given, for formats whose files have typed columns."""

from __future__ import annotations

import copy
import datetime
import decimal
import io
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from modelbeam.errors import InputReadError
from modelbeam.formats.base import Piece, Reader, Wanted, Writer
from modelbeam.formats.binary import whole
from modelbeam.formats.jsonl.values import rows_of_column
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.layout import Layout, OutputColumn
from modelbeam.formats.lines import check_unchanged, reading
from modelbeam.formats.named import names_problem, nulls
from modelbeam.models.signature import Column, Kind, Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept
from modelbeam.predicting.outcome import Outcome


class RowPosition(NamedTuple):
    """The place of a row: its number, from 1."""

    row: int


class RowsBatch(Batch):
    """Rows of a file.

    Args:
        rows: a ``pyarrow.RecordBatch``.
        before: how many rows of the piece come before them.
        wanted: the columns that the model has and that are kept.
        whole: reads the same rows with all of their columns, if some were left out.
    """

    def __init__(
        self, rows: Any, before: int, wanted: Wanted, whole: Callable[[], Any] | None = None
    ) -> None:
        self._rows, self._before, self._whole = rows, before, whole
        self._signature = wanted.signature
        self._full: Any = None

    def records(self) -> Decoded:
        """The rows as dicts, of Python's own types."""
        columns = {
            name: _values(self._rows.column(at)) for at, name in enumerate(self._rows.schema.names)
        }
        columns.pop("", None)
        for column in self._signature.columns if self._signature else ():
            if column.name in columns:
                columns[column.name] = [as_kind(column, value) for value in columns[column.name]]
        for column in self._signature.null_without(columns) if self._signature else ():
            columns[column.name] = [None] * len(self._rows)
        names = list(columns)
        values = zip(*columns.values(), strict=True) if columns else [()] * len(self._rows)
        return Decoded([dict(zip(names, one, strict=True)) for one in values], None, [])

    def seen_by(self, signature: Signature | None) -> RowsBatch:
        """The same rows with values as another model's columns say."""
        other = copy.copy(self)
        other._signature = signature
        return other

    def names(self) -> list[str]:
        """The columns that were read."""
        return list(self._rows.schema.names)

    def count(self) -> int:
        """How many rows there are."""
        return int(self._rows.num_rows)

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The model's columns; where a type is another one, by way of dicts."""
        import pyarrow as pa

        if signature is not None and signature.exact:
            names = self._rows.schema.names
            missing = signature.null_without(names)
            arrays = [
                _typed(c, self._rows.column(names.index(c.name)))
                if c.name in names
                else nulls(c, len(self._rows))
                if c in missing
                else None
                for c in signature.columns
            ]
            if arrays and all(array is not None for array in arrays):
                columns = [column.name for column in signature.columns]
                return Decoded(pa.RecordBatch.from_arrays(arrays, names=columns), None, [])
        return super().table(signature, validate)

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some columns as they are."""
        there = self._rows.schema.names
        chosen = self._rows
        if names != "all":
            chosen = chosen.select([name for name in dict.fromkeys(names) if name in there])
        if rows is not None:
            chosen = chosen.take(np.array(rows, np.int64))
        return KeptTable(chosen)

    def position(self, row: int) -> RowPosition:
        """The row, from 1 in its piece."""
        return RowPosition(self._before + row + 1)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The row as an object, with all of its columns."""
        if self._whole is not None:
            found, self._whole = self._whole(), None
            if found is not None and len(found) == len(self._rows):
                self._full = found
        source = self._rows if self._full is None else self._full
        record = {}
        for at, name in enumerate(source.schema.names):
            record[name] = _plain(source.column(at).slice(row, 1))
        return {"record": record}


def normal(kind: Any) -> Any:
    """A type whose values are the same, and that Arrow can work with everywhere."""
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_run_end_encoded(kind) or (
        types.is_dictionary(kind) and types.is_nested(kind.value_type)
    ):
        return normal(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(normal(field.type)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        inner = kind.value_field.with_type(normal(kind.value_type))
        return pa.list_(inner) if types.is_list(kind) else pa.large_list(inner)
    if types.is_map(kind):
        items = kind.item_field.with_type(normal(kind.item_type))
        return pa.map_(kind.key_field.with_type(normal(kind.key_type)), items)
    return kind


def normalized(rows: Any) -> Any:
    """The same rows with :func:`normal` types."""
    import pyarrow as pa

    kinds = [normal(kind) for kind in rows.schema.types]
    if kinds == rows.schema.types:
        return rows
    columns = [
        column if column.type == kind else _made_normal(column, kind)
        for column, kind in zip(rows.columns, kinds, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _made_normal(column: Any, kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    elif pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:
        return pa.array(column.to_pylist(), kind)


Rows = tuple[Any, "Callable[[], Any] | None"]
"""Some rows, and what reads them with all of their columns, if some were left out."""


class RowsReader(Reader):
    """Reads rows of a file, only the columns that are needed.

    Args:
        piece: which of them.
        wanted: what of them.

    Attributes:
        what: the format, as people call it.
    """

    what: str

    def __init__(self, piece: Piece, wanted: Wanted) -> None:
        self._piece, self._wanted = piece, wanted
        self._done = self._row = 0

    @abstractmethod
    def _rows(self) -> Iterator[Rows]:
        """Yield rows in order; ``_done`` grows by the bytes that they take in the file."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        piece = self._piece
        with reading(piece):
            check_unchanged(piece)
        if not piece.size:
            return
        found = self._rows()
        while True:
            with whole(piece, self.what):  # not around the yield: others raise there
                rows, others = next(found, (None, None))
                if rows is None:
                    break
                rows.validate(full=True)  # what is damaged may end the process later
                rows = normalized(rows)
            self._row, self.units = self.units, self.units + rows.num_rows
            if rows.num_rows:
                yield RowsBatch(rows, self._row, self._wanted, others)
        with reading(piece):
            check_unchanged(piece)

    def _needed(self, names: list[str]) -> list[str] | None:
        """The columns that are read; ``None`` for all.

        Raises:
            InputReadError: which is meant is not known.
        """
        wanted = self._wanted
        if problem := names_problem(names, wanted.needed, wanted.keep):
            raise InputReadError(f"The input {self._piece.path} {problem}.")
        if wanted.columns is None or wanted.keep == "all":
            return None
        needed = {*wanted.columns, *wanted.keep}
        found = [name for name in names if name in needed]
        return found if found and len(found) < len(names) else None

    def progress(self) -> tuple[int, int]:
        """Bytes that are done, and the row where the last batch begins."""
        return self._done, self._row


def _plain(one: Any) -> Any:
    """The value of an array of one, as JSON has it; of a text that is not UTF-8, base64."""
    import pyarrow as pa

    try:
        return rows_of_column(one)[0]
    except UnicodeDecodeError:
        return rows_of_column(one.cast(pa.binary()))[0] if pa.types.is_string(one.type) else None


def _values(column: Any) -> list[Any]:
    """The values of a column as Python has them."""
    import pyarrow as pa

    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, ImportError):  # nanoseconds, a year beyond 9999
        return rows_of_column(column)
    if pa.types.is_map(column.type):
        return [None if value is None else dict(value) for value in values]
    return values


def as_kind(column: Column, value: Any) -> Any:
    """A number in the type that the schema says, where that is exact."""
    if column.kind == "float" and type(value) is int:
        return float(value) if _exact(value) else value
    if column.kind == "int" and type(value) is float and value.is_integer():
        return int(value)
    return value


def _exact(value: int) -> bool:
    return abs(value) <= 2**53 or (math.isfinite(float(value)) and int(float(value)) == value)


def _typed(column: Column, found: Any) -> Any | None:
    """A column in its model's type, if that loses nothing; else ``None``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = {"float": pa.float64(), "int": pa.int64(), "str": pa.string(), "bool": pa.bool_()}
    kind = kinds.get(column.kind)
    if kind is None or (found.null_count and not column.nullable):
        return None
    types = pa.types
    is_kind = {
        "float": types.is_floating(found.type) or types.is_integer(found.type),
        "int": types.is_integer(found.type),
        "bool": types.is_boolean(found.type),
        "str": types.is_string(found.type)
        or types.is_large_string(found.type)
        or (types.is_dictionary(found.type) and types.is_string(found.type.value_type)),
    }
    if not is_kind[column.kind]:
        return None
    if column.narrow and types.is_float32(found.type) and not column.bounded:
        return found
    try:
        made = found.cast(kind)
        if column.bounded and made.null_count < len(made):
            ends = pc.min_max(made).as_py()
            if column.problem(ends["min"]) or column.problem(ends["max"]):
                return None
    except pa.ArrowException:
        return None
    return made


def warm_up(style: str, writer: Callable[[BinaryIO, Layout], Writer]) -> bytes:
    """Take rows of all types every way that they may go, and write them.

    Args:
        style: what the model takes in one call.
        writer: makes a writer of the format.

    Returns:
        The file.
    """
    import pyarrow as pa

    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    columns = {
        "f": pa.array([0.5, 1.5]),
        "i": pa.array([1, None]),
        "s": pa.array(["a", None]),
        "b": pa.array([True, False]),
        "decimal": pa.array([decimal.Decimal("1.5"), None]),
        "zoned": pa.array([moment, None], pa.timestamp("us", "Europe/Paris")),
        "naive": pa.array([moment, None], pa.timestamp("ns")),
        "date": pa.array([moment.date(), None]),
        "time": pa.array([moment.time(), None]),
        "labels": pa.array(["a", "b"]).dictionary_encode(),
        "list": pa.array([[1.5], []]),
        "struct": pa.array([{"a": 1}, None]),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "binary": pa.array([b"a", None]),
    }
    rows = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    kinds: tuple[Kind, ...] = ("float", "int", "str", "bool")
    typed = [Column(kind[0], kind, nullable=True) for kind in kinds]
    batch = RowsBatch(rows, 0, Wanted(style, signature=Signature(tuple(typed), exact=True)))
    batch.records()
    if style == "table":
        for signature in (Signature((*typed, Column("z", "int", True)), exact=True), None):
            batch.table(signature, dict)
    batch.original(0, parsed=True)
    kept = batch.keep("all", [0, 1])
    kept.take([1, 0]).texts()
    layout = tuple(OutputColumn(name, column.type) for name, column in columns.items())
    made = io.BytesIO()
    into = writer(made, (*layout, OutputColumn("y", pa.float64()), OutputColumn("open")))
    values = [{"y": 1, "open": [1]}, {"y": 0.5, "open": "a"}]
    into.write(Outcome(2, values, False, None, kept, []))
    into.write(Outcome(2, [{"y": math.nan}, {"y": "a"}], False, None, kept, []))
    if style == "table":
        for y in ([0.5, 1.5], [math.nan, 1.5], [1, 2]):
            table = pa.RecordBatch.from_arrays([pa.array(y)], ["y"])
            into.write(Outcome(2, [table], True, None, kept, []))
    into.close()
    return made.getvalue()
