"""Models that return, or raise, what a model should not: one oddity each."""

from __future__ import annotations

import enum
import math
import sys
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import BaseModel
from schema import Or, Schema
from small_models import BatchDoubler, Doubler, TableDoubler


class Colour(enum.Enum):
    """What an enum prediction is made of."""

    RED = "red"


class Prediction(BaseModel):
    """A prediction of the newer generation."""

    y: float
    colour: Colour = Colour.RED


@dataclass
class Point:
    """A prediction as a dataclass."""

    y: float
    colour: Colour = Colour.RED


RETURNED: dict[str, Any] = {
    "pydantic": Prediction(y=1.0),
    "dataclass": Point(y=1.0),
    "mapping": MappingProxyType({"y": 1.0, "colour": "red"}),
    "user dict": UserDict(y=1.0, colour="red"),
    "enum inside": {"y": 1.0, "colour": Colour.RED},
    "numpy": {"y": np.float64(1.0), "colour": np.str_("red")},
    "none": None,
    "list": [1.0],
    "str": "red",
    "number": 1.0,
    "enum": Colour.RED,
    "class": Point,
    "pydantic nan": Prediction(y=math.nan),
    "dataclass nan": Point(y=math.nan),
    "complex": {"y": 1j},
    "numpy key": {np.int64(1): 0.5},
    "surrogate key": {"\ud800": 0.5},
}


class Returns(Doubler):
    """Returns what the record names."""

    qualified_name = "returns"
    input_schema = Schema({"what": str}, ignore_extra_keys=True)

    def predict(self, data: dict[str, Any]) -> Any:
        """Look it up."""
        return RETURNED[data["what"]]


class BatchReturns(Returns):
    """The same in lists."""

    qualified_name = "batch_returns"

    def predict_batch(self, data: list[dict[str, Any]]) -> Any:
        """Look them up."""
        return [RETURNED[record["what"]] for record in data]


class Raises(Doubler):
    """Raises what the record names, or predicts if it names nothing."""

    qualified_name = "raises"
    input_schema = Schema({"what": str}, ignore_extra_keys=True)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Raise it."""
        what = data["what"]
        if what == "exit":
            sys.exit(3)
        if what == "panic":  # what a library written in Rust raises; it is no Exception
            raise pl.exceptions.PanicException("index out of bounds")
        if what == "surrogate":
            raise ValueError("not text: \ud800")
        if what == "mute":
            raise Mute
        if what == "long":
            raise ValueError("x" * 100_000)
        if what == "deep":
            return self.predict(data)
        if what == "memory":
            raise MemoryError
        return {"y": what}


class Mute(Exception):
    """An exception that cannot even say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


class BatchRaises(Raises):
    """The same in lists; one bad record fails the whole call."""

    qualified_name = "batch_raises"

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Raise it."""
        return [self.predict(record) for record in data]


class WrongNumber(BatchDoubler):
    """Leaves out the records with a negative x."""

    qualified_name = "wrong_number"

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Double some of them."""
        return [{"y": 2 * record["x"]} for record in data if record["x"] >= 0]


class WrongNumberOfRows(TableDoubler):
    """The same in columns."""

    qualified_name = "wrong_number_of_rows"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double some of them."""
        x = batch.column("x").to_numpy()
        return pa.RecordBatch.from_arrays([pa.array(2 * x[x >= 0])], names=["y"])


class Generates(BatchDoubler):
    """Returns a generator, which raises at a negative x."""

    qualified_name = "generates"

    def predict_batch(self, data: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Double them one by one."""
        return (self.predict(record) for record in data)


class TwiceTheSameColumn(TableDoubler):
    """Returns a table with two columns of one name."""

    qualified_name = "twice_the_same_column"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return x twice."""
        return pa.RecordBatch.from_arrays([batch.column("x")] * 2, names=["y", "y"])


class Anything(TableDoubler):
    """A table model whose schema says nothing of a column's type; returns the column's text."""

    qualified_name = "anything"
    input_schema = Schema({"x": object}, ignore_extra_keys=True)

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Show x."""
        shown = [repr(value) for value in batch.column("x").to_pylist()]
        return pa.RecordBatch.from_arrays([pa.array(shown)], names=["y"])


class Nullable(TableDoubler):
    """A table model whose x must be there and may be null."""

    qualified_name = "nullable"
    input_schema = Schema({"x": Or(float, None)}, ignore_extra_keys=True)

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return x."""
        return pa.RecordBatch.from_arrays([batch.column("x")], names=["y"])


class Label(TableDoubler):
    """Returns one dictionary-encoded column, as classifiers do."""

    qualified_name = "label"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Say whether x is even; a negative x raises."""
        doubled = super().predict_table(batch).column("y").to_numpy()
        index = pa.array((doubled / 2 % 2).astype(np.int32))
        labels = pa.DictionaryArray.from_arrays(index, pa.array(["even", "odd"]))
        return pa.RecordBatch.from_arrays([labels], names=["y"])
