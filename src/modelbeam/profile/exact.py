"""What is counted of every value of a column, not of a sample: in Arrow's columns that is cheap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelbeam.profile.cells import TEXT, Coded, columns_of

COLUMNS = 64
"""Columns of a batch up to which each value is counted; wider ones are only sampled."""

VALUES = 256
"""Different values of a column that are counted one by one; of more, those of the sample are."""

FIRST = 4096
"""Values that tell at first whether there are too many different ones."""

FEW = 8
"""Codes that are counted one after the other."""

_TOGETHER = 4096
"""Rows of small batches that are counted together."""


@dataclass(slots=True)
class Exact:
    """One column.

    Attributes:
        count: how many values, those that are missing included.
        missing: how many are null.
        invalid: how many are NaN or infinite.
        zeros: how many are 0.
        low, high: the smallest and the largest number; ``None`` if there is none.
        values: how often each value is there; ``None`` if there are too many different ones, or if
            they are not counted.
    """

    count: int = 0
    missing: int = 0
    invalid: int = 0
    zeros: int = 0
    low: float | None = None
    high: float | None = None
    values: dict[str, int] | None = field(default_factory=dict)

    def to_list(self) -> list[Any]:
        """Its attributes in order."""
        counts = [self.count, self.missing, self.invalid, self.zeros]
        return [*counts, self.low, self.high, self.values]

    def add(self, other: Exact) -> None:
        """Add those of other records."""
        self.count += other.count
        self.missing += other.missing
        self.invalid += other.invalid
        self.zeros += other.zeros
        self._extend(other.low, other.high)
        if self.values is None or other.values is None:
            self.values = None
        else:
            self._add_values(other.values.items())

    def _extend(self, low: float | None, high: float | None) -> None:
        if low is not None and (self.low is None or low < self.low):
            self.low = low
        if high is not None and (self.high is None or high > self.high):
            self.high = high

    def _add_values(self, pairs: Any) -> None:
        values = self.values
        if values is None:
            return
        for value, count in pairs:
            values[value] = values.get(value, 0) + count
        if len(values) > VALUES:
            self.values = None

    def see(self, column: Any, sort: str) -> Any:
        """Count the values of an Arrow array.

        Args:
            column: the values.
            sort: of its type; see :func:`sort_of`.

        Returns:
            What its values can be taken from without Arrow, if none is null: of numbers an array,
            of codes :class:`.cells.Coded`.
        """
        self.count += len(column)
        nulls = column.null_count
        if nulls:
            self.missing += nulls
            column = column.drop_null()
        if sort in ("float", "int"):
            numbers = column.to_numpy(zero_copy_only=False)
            self._see_numbers(numbers)
            if sort == "int":
                self._see_values(column)
            else:
                self.values = None
            return None if nulls else numbers
        if sort == "values":
            self._see_values(column)
        elif sort == "codes":
            coded = Coded(
                column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
            )
            self._see_codes(coded)
            return None if nulls or None in coded.known else coded
        else:
            self.values = None
        return None

    def _see_numbers(self, numbers: Any) -> None:
        if not len(numbers):
            return
        low, high = float(numbers.min()), float(numbers.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(numbers)
            self.invalid += len(numbers) - int(np.count_nonzero(finite))
            numbers = numbers[finite]
            if not len(numbers):
                return
            low, high = float(numbers.min()), float(numbers.max())
        if low <= 0 <= high:
            self.zeros += int(np.count_nonzero(numbers == 0))
        self._extend(low, high)

    def _see_values(self, column: Any) -> None:
        at, size = 0, FIRST
        while self.values is not None and at < len(column):
            counted = column.slice(at, size).value_counts()
            values, counts = counted.field(0).to_pylist(), counted.field(1).to_pylist()
            self._add_values(zip(map(text_of, values), counts, strict=True))
            at, size = at + size, len(column)

    def _see_codes(self, coded: Coded) -> None:
        codes, known = coded.codes, coded.known
        if self.values is None or not len(codes):
            return
        if len(known) <= FEW:
            counts = [int(np.count_nonzero(codes == code)) for code in range(len(known))]
        else:
            counts = np.bincount(codes).tolist()
        found = [(text_of(known[code]), count) for code, count in enumerate(counts) if count]
        self._add_values(found)


def text_of(value: Any) -> str:
    """A value that is counted, as text."""
    if value is True or value is False:
        return "true" if value else "false"
    return str(value)[:TEXT]


def sort_of(kind: Any) -> str:
    """How values of an Arrow type are counted: ``float``, ``int``, ``values``, ``codes`` or not."""
    import pyarrow as pa

    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_integer(kind):
        return "int"
    if is_text(kind) or pa.types.is_boolean(kind):
        return "values"
    return "codes" if pa.types.is_dictionary(kind) and is_text(kind.value_type) else ""


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of strings."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


class Counted:
    """The columns of all records of one side of a model: its inputs, or its predictions.

    Args:
        values: whether it is counted how often each value is there.

    Attributes:
        columns: by name; ``None`` once a batch was too wide.
    """

    def __init__(self, *, values: bool) -> None:
        self.columns: dict[str, Exact] | None = {}
        self._values = values
        self._records = 0
        self._small: list[Any] = []
        self._rows = 0
        self._schema: Any = None
        self._sorts: list[tuple[str, str]] = []

    def see(self, batch: Any) -> dict[str, Any]:
        """Count an Arrow batch; small ones are put together first, since each call costs.

        Returns:
            Those of its columns by name whose values can be taken without Arrow; none if it was
            put aside.
        """
        if self.columns is None or not batch.num_rows:
            return {}
        if batch.num_columns > COLUMNS:
            self.drop()
            return {}
        if batch.num_rows >= _TOGETHER:
            return self._count(batch)
        if self._small and not self._small[0].schema.equals(batch.schema):
            self.settle()
        self._small.append(batch)
        self._rows += batch.num_rows
        if self._rows >= _TOGETHER:
            self.settle()
        return {}

    def coded(self, batch: Any) -> Any:
        """The same batch, strings of which there are few different ones as codes: once for all."""
        if self.columns is None or batch.num_columns > COLUMNS:
            return batch
        for at, name in enumerate(batch.schema.names):
            column = batch.column(at)
            if is_text(column.type) and self._few(name, column):
                batch = batch.set_column(at, name, column.dictionary_encode())
        return batch

    def _few(self, name: str, column: Any) -> bool:
        known = (self.columns or {}).get(name)
        if known is not None:
            return known.values is not None
        return len(column.slice(0, FIRST).unique()) <= VALUES

    def drop(self) -> None:
        """Count nothing more, and forget what was counted."""
        self.columns, self._small = None, []

    def settle(self) -> None:
        """Count what waits."""
        small, self._small, self._rows = self._small, [], 0
        if self.columns is None or not small:
            return
        import pyarrow as pa

        batch = small[0]
        if len(small) > 1:
            (batch,) = pa.Table.from_batches(small).combine_chunks().to_batches()
        self._count(batch)

    def _count(self, batch: Any) -> dict[str, Any]:
        if self.columns is None:
            return {}
        named = list(columns_of(batch))
        schema = batch.schema
        if self._schema is None or not self._schema.equals(schema):
            self._schema = schema
            self._sorts = [(name, sort_of(column.type)) for name, column in named]
        numbers: dict[str, Any] = {}
        seen: set[str] = set()
        for (name, sort), (_, column) in zip(self._sorts, named, strict=True):
            one = self.columns.get(name)
            if one is None:
                if len(self.columns) >= COLUMNS:
                    self.drop()
                    return {}
                values: dict[str, int] | None = {} if self._values else None
                one = Exact(self._records, self._records, values=values)
                self.columns[name] = one
            if name not in seen:
                seen.add(name)
                found = one.see(column, sort)
                if found is not None:
                    numbers[name] = found
        if len(seen) < len(self.columns):
            for name in self.columns.keys() - seen:
                self.columns[name].count += batch.num_rows
                self.columns[name].missing += batch.num_rows
        self._records += batch.num_rows
        return numbers
