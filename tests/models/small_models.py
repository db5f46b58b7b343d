"""Models for tests: each is small, needs no library but ``schema``, and does one thing."""

from __future__ import annotations

import os
import time
from typing import Any

import pyarrow as pa
from schema import Or, Schema


class Doubler:
    """Takes one record ``{"x": number, …}``; predicts ``{"y": 2 * x}``; rejects a negative x."""

    display_name = "Doubler"
    qualified_name = "doubler"
    description = "Doubles x."
    major_version = 1
    minor_version = 2
    input_schema = Schema({"x": float}, ignore_extra_keys=True)
    output_schema = Schema({"y": float})

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if data["x"] < 0:
            raise ValueError(f"x is negative: {data['x']}")
        return {"y": 2 * data["x"]}


class Trusting(Doubler):
    """Predicts whatever it is given."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """The value itself."""
        return {"y": data.get("x")}


class BatchDoubler(Doubler):
    """The same in lists; one bad record fails the whole call."""

    qualified_name = "batch_doubler"

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Double a list."""
        return [self.predict(record) for record in data]


class TableDoubler(Doubler):
    """The same in columns; one bad record fails the whole call."""

    qualified_name = "table_doubler"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        x = batch.column("x").to_numpy()
        if (x < 0).any():
            raise ValueError(f"x is negative: {x[x < 0][0]}")
        return pa.RecordBatch.from_arrays([pa.array(2 * x)], names=["y"])


class CallSize(TableDoubler):
    """Predicts of each record how many were in its call."""

    qualified_name = "call_size"
    output_schema = Schema({"records": int})

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The number of rows, for each."""
        return pa.RecordBatch.from_arrays([[batch.num_rows] * batch.num_rows], names=["records"])


class TextDoubler(Doubler):
    """Takes numbers that are text."""

    qualified_name = "text_doubler"
    input_schema = Schema({"x": str}, ignore_extra_keys=True)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        return super().predict({"x": float(data["x"])})


class Unsaid(Doubler):
    """Does not say what it predicts, and of records with n > 100 it is another column."""

    qualified_name = "unsaid"
    output_schema = None

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        other = "late" if data["n"] > 100 else "n"
        return {**super().predict(data), other: data["n"]}


class Monthly(Doubler):
    """Takes a number ``month`` as well, and predicts it."""

    qualified_name = "monthly"
    input_schema = Schema({"x": float, "month": int}, ignore_extra_keys=True)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Multiply one."""
        self.input_schema.validate(data)
        return {"y": data["x"] * data["month"]}


class TableMonthly(Monthly):
    """The same in columns."""

    qualified_name = "table_monthly"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Multiply two columns."""
        y = batch.column("x").to_numpy() * batch.column("month").to_numpy()
        return pa.RecordBatch.from_arrays([pa.array(y)], names=["y"])


class Strict(Doubler):
    """Takes x and nothing else."""

    qualified_name = "strict"
    input_schema = Schema({"x": float})

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        return super().predict(self.input_schema.validate(data))


class Slow(Doubler):
    """Takes ``SLOW_SECONDS`` for a record."""

    qualified_name = "slow"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(float(os.environ.get("SLOW_SECONDS", "0")))
        return super().predict(data)


class Unsaying(Doubler):
    """Does not say what it predicts."""

    qualified_name = "unsaying"
    output_schema = None


class AnyDoubler(Doubler):
    """Takes integers as well."""

    qualified_name = "any_doubler"
    input_schema = Schema({"x": Or(int, float)}, ignore_extra_keys=True)
