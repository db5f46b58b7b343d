"""Columns as the tensors that a model takes, for kinds whose inputs have types and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modelbeam.models import tabular
from modelbeam.models.signature import Column, Kind


def kind_of_dtype(dtype: Any) -> tuple[Any, Kind]:
    """A NumPy type as it is fed, and the kind of a column that holds its values."""
    found = np.dtype(dtype)
    if found.kind in "OUST":
        return np.object_, "str"
    kinds: dict[str, Kind] = {"f": "float", "i": "int", "u": "int", "b": "bool"}
    return found.type, kinds.get(found.kind, "any")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input that is a tensor.

    Attributes:
        name: of the input.
        dtype: NumPy's.
        kind: of a column that holds its values.
        rest: its dimensions but for the batch; ``None`` for one that is open.
        columns: the columns that it is made of; several for a matrix of named features.
    """

    name: str
    dtype: Any
    kind: Kind
    rest: tuple[int | None, ...]
    columns: tuple[str, ...]

    @property
    def lists(self) -> bool:
        """Whether a record's value is a list."""
        return len(self.columns) == 1 and self.rest not in ((), (1,))

    def make_columns(self, nulls: bool) -> list[Column]:
        """The columns that a record needs; ``nulls`` says whether a number may be null."""
        if self.lists:
            inner: Any = self.kind
            for _ in self.rest:
                inner = ("list", inner)
            return [Column(self.columns[0], "any", shape=inner)]
        if self.kind == "float":
            return [tabular.number(name, nulls, narrow=True) for name in self.columns]
        if self.kind == "int":
            ends = np.iinfo(self.dtype)
            small = ends.bits < 64 or ends.min == 0
            low = float(ends.min) if small else None
            high = float(ends.max) if ends.bits < 64 else None
            return [Column(name, "int", at_least=low, at_most=high) for name in self.columns]
        return [Column(name, self.kind) for name in self.columns]

    def fed(self, batch: Any) -> Any:
        """The tensor of some records."""
        rows = batch.num_rows
        if self.lists:
            return _nested(batch.column(self.columns[0]), self)
        shape = (rows, *([len(self.columns)] if self.rest else []))
        if len(self.columns) == 1:
            return _values(batch.column(self.columns[0]), self).reshape(shape)
        columns = [_values(batch.column(name), self) for name in self.columns]
        return tabular.by_rows(columns, rows, self.dtype)


def _values(column: Any, one: Tensor) -> Any:
    if one.kind == "str":
        return np.array(column.to_pylist(), np.object_)
    if one.kind == "float":
        with np.errstate(over="raise"):
            return tabular.floats(column, one.dtype)
    return column.to_numpy(zero_copy_only=False).astype(one.dtype, copy=False)


def _nested(column: Any, one: Tensor) -> Any:
    """Lists of one length as a tensor."""
    import pyarrow as pa

    sizes = [len(column)]
    for wanted in one.rest:
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            break
        lengths = np.diff(np.asarray(column.offsets))
        width = int(lengths[0]) if len(lengths) else wanted or 0
        if column.null_count or (lengths != width).any():
            raise ValueError(f"'{one.columns[0]}' has lists of several lengths, or null for one")
        if wanted is not None and width != wanted:
            raise ValueError(f"'{one.columns[0]}' must have {wanted} values, not {width}")
        sizes.append(width)
        column = column.flatten()
    if column.null_count:
        raise ValueError(f"'{one.columns[0]}' has null in a list")
    return _values(column, one).reshape(sizes)
