"""Values of any type as what is counted of them: a kind, a number, a text, a length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

import numpy as np

MISSING, INVALID, INTEGER, DOUBLE, STRING, BOOLEAN, TIMESTAMP, LIST, STRUCT, BYTES, OTHER = range(
    11
)

NAMES = {
    INTEGER: "integer",
    DOUBLE: "double",
    STRING: "string",
    BOOLEAN: "boolean",
    TIMESTAMP: "timestamp",
    LIST: "list",
    STRUCT: "struct",
    BYTES: "bytes",
    OTHER: "other",
}

TEXT = 200
"""Characters of a text that are kept."""

DEPTH = 3
"""How deep objects within records are taken apart; ``a.b`` is member ``b`` of ``a``."""

COLUMNS = 1000
"""Columns of which values are kept; of more, only how many there are."""


@dataclass(slots=True)
class Cells:
    """One column of some records.

    Attributes:
        kinds: of each value.
        numbers: of numbers the number, of times the seconds since 1970, of truth 0 or 1.
        texts: of strings the first characters; else ``None``.
        lengths: of strings, bytes and lists; else NaN.
    """

    kinds: Any
    numbers: Any
    texts: list[str | None]
    lengths: Any

    def take(self, which: Any) -> Cells:
        """Those of an array of booleans or indices."""
        if which.dtype == np.bool_:
            which = np.flatnonzero(which)
        texts = [self.texts[at] for at in which.tolist()]
        return Cells(self.kinds[which], self.numbers[which], texts, self.lengths[which])

    def __len__(self) -> int:
        return len(self.kinds)


def together(parts: Sequence[Cells]) -> Cells:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    return Cells(
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        [text for part in parts for text in part.texts],
        np.concatenate([part.lengths for part in parts]),
    )


def missing(count: int) -> Cells:
    """So many values that are not there."""
    nan = np.full(count, math.nan)
    return Cells(np.full(count, MISSING, np.uint8), nan, [None] * count, nan)


Cell = tuple[int, float, str | None, float]
"""Kind, number, text and length of one value."""

_NOTHING: Cell = (MISSING, math.nan, None, math.nan)


def of_values(values: Sequence[Any]) -> Cells:
    """The cells of Python values."""
    return of_cells([cell(value) for value in values])


def of_cells(cells: Sequence[Cell]) -> Cells:
    """Cells one by one as arrays."""
    if not cells:
        return missing(0)
    kinds, numbers, texts, lengths = zip(*cells, strict=True)
    return Cells(
        np.array(kinds, np.uint8), np.array(numbers, float), list(texts), np.array(lengths, float)
    )


def of_plain(values: list[Any]) -> Cells:
    """The same as :func:`of_values`, of Python's own types of which most lists have just one."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return of_numbers(np.array(values, np.float64))
    if kinds == {str}:
        lengths = np.array(list(map(len, values)), np.float64)
        nan = np.full(len(values), math.nan)
        return Cells(np.full(len(values), STRING, np.uint8), nan, list(map(_text, values)), lengths)
    return of_values(values)


def cell(value: Any) -> Cell:
    """The cell of one value; what it holds is copied."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool | np.bool_):
        return BOOLEAN, float(value), "true" if value else "false", math.nan
    if isinstance(value, int | np.integer):
        try:
            return INTEGER, float(value), None, math.nan
        except OverflowError:
            return DOUBLE, math.nan, None, math.nan
    if isinstance(value, float | np.floating | Decimal):
        number = math.nan if isinstance(value, Decimal) and value.is_nan() else float(value)
        return (DOUBLE if math.isfinite(number) else INVALID), number, None, math.nan
    if isinstance(value, str):
        return STRING, math.nan, _text(value), float(len(value))
    if isinstance(value, datetime):
        return TIMESTAMP, _seconds(value), None, math.nan
    if isinstance(value, date):
        return TIMESTAMP, _seconds(datetime(value.year, value.month, value.day)), None, math.nan
    if isinstance(value, bytes | bytearray | memoryview):
        return BYTES, math.nan, None, float(len(value))
    if isinstance(value, Mapping):
        return STRUCT, math.nan, None, math.nan
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        size = value.size if isinstance(value, np.ndarray) else len(value)
        return LIST, math.nan, None, float(size)
    return OTHER, math.nan, _text(str(value)) if isinstance(value, time) else None, math.nan


def _seconds(moment: datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()


def _text(text: str) -> str:
    """Its first characters; what no file can hold is replaced."""
    return text[:TEXT].encode("utf-8", "replace").decode()


def flat(record: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """The values of a record by name, those of objects within it too."""
    for key, value in record.items():
        name = f"{prefix}{key}"[:TEXT]
        if isinstance(value, Mapping) and value and depth < DEPTH:
            yield from flat(value, f"{name}.", depth + 1)
        else:
            yield name, value


def columns_of(batch: Any) -> Iterator[tuple[str, Any]]:
    """The columns of an Arrow batch by name, those of structs too; at most :data:`COLUMNS`."""
    every = _flat_columns("", batch.schema.names, batch.columns, 1)
    return itertools.islice(every, COLUMNS)


def _flat_columns(
    prefix: str, names: Sequence[str], columns: Sequence[Any], depth: int
) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    for key, column in zip(names, columns, strict=True):
        name = f"{prefix}{key}"[:TEXT]
        if pa.types.is_struct(column.type) and column.type.num_fields and depth < DEPTH:
            fields = [column.type.field(at).name for at in range(column.type.num_fields)]
            yield from _flat_columns(f"{name}.", fields, column.flatten(), depth + 1)
        else:
            yield name, column


def of_numbers(numbers: Any) -> Cells:
    """The cells of a NumPy array of numbers."""
    kinds = np.full(len(numbers), INTEGER if numbers.dtype.kind in "iu" else DOUBLE, np.uint8)
    numbers = numbers.astype(float)
    kinds[~np.isfinite(numbers)] = INVALID
    return Cells(kinds, numbers, [None] * len(numbers), np.full(len(numbers), math.nan))


@dataclass(slots=True)
class Coded:
    """Texts as codes of those that are known."""

    codes: Any
    known: list[str | None]

    def take(self, places: Any) -> Coded:
        """Some of them."""
        return Coded(self.codes[places], self.known)

    def cells(self) -> Cells:
        """Their cells."""
        size = len(self.codes)
        known = [cell(text) for text in self.known]
        lengths = np.array([each[3] for each in known], float)[self.codes]
        texts = [known[code][2] for code in self.codes.tolist()]
        return Cells(np.full(size, STRING, np.uint8), np.full(size, math.nan), texts, lengths)


def of_arrow(column: Any) -> Cells:
    """The cells of an Arrow array, of a NumPy array of numbers, or of codes."""
    if isinstance(column, np.ndarray):
        return of_numbers(column)
    if isinstance(column, Coded):
        return column.cells()
    import pyarrow as pa

    kind = column.type
    whole = pa.types.is_integer(kind)
    if not whole and not pa.types.is_floating(kind):
        return of_values(_python_values(column))
    numbers = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    kinds = np.full(len(numbers), INTEGER if whole else DOUBLE, np.uint8)
    kinds[~np.isfinite(numbers)] = INVALID
    if column.null_count:
        kinds[np.asarray(column.is_null())] = MISSING
    nan = np.full(len(numbers), math.nan)
    return Cells(kinds, numbers, [None] * len(numbers), nan)


def _python_values(column: Any) -> list[Any]:
    """Its values; of one that Python has no type for, nothing but that it is there."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, ArithmeticError):  # nanoseconds, year 20000
        values = [None if null else _There() for null in column.is_null().to_pylist()]
    return values


class _There:
    """A value that is there."""
