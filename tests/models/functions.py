"""Functions that tests name as models."""

from __future__ import annotations

import collections
import os
import typing
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

if typing.TYPE_CHECKING:
    import nothing_of_that_name as nn

Pair = collections.namedtuple("Pair", "y z")


class Point(BaseModel):
    x: float


def plain(record):
    return {"y": _number(record["x"]) * 2}


def annotated(record: dict[str, Any]) -> dict[str, float]:
    """Twice the number.

    And more words.
    """
    return {"y": _number(record["x"]) * 2}


def bare(record: dict) -> float:
    return float(_number(record["x"])) * 2


def pair(record: typing.Mapping[str, Any]) -> Pair:
    return Pair(_number(record["x"]) * 2, None)


def of_point(point: Point) -> dict[str, float]:
    return {"y": point.x * 2}


def listed(records: list[dict[str, Any]]) -> list[float]:
    return [_number(record["x"]) * 2.0 for record in records]


def generated(records: typing.Sequence[dict]):
    for record in records:
        yield {"y": _number(record["x"]) * 2.0}


def array(records: list) -> np.ndarray:
    return np.array([_number(record["x"]) * 2.0 for record in records])


def arrow_batch(batch: pa.RecordBatch) -> pa.Array:
    return pc.multiply(batch.column("x"), 2.0)


def arrow_table(table: pa.Table) -> pa.Table:
    return pa.table({"y": pc.multiply(table.column("x"), 2.0)})


def pandas_frame(frame: pd.DataFrame) -> pd.DataFrame:
    made = pd.DataFrame({"y": frame["x"].astype(float) * 2})
    made.index = made.index[::-1]
    return made


def pandas_series(frame: pd.DataFrame):
    return frame["x"].astype(float) * 2


def polars_frame(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(y=pl.col("x") * 2.0)


def columns(frame: pl.DataFrame) -> dict[str, Any]:
    return {"y": frame["x"] * 2.0, "z": ["a"] * len(frame)}


def unresolved(frame: pd.DataFrame, how: nn.How = None) -> Any:
    return frame["x"].astype(float) * (how or 2)


def scaled(record: dict, factor: float, offset: float = 0.0) -> float:
    return record["x"] * factor + offset


def nothing(record: dict) -> None:
    pass


def drops(frame: pd.DataFrame) -> Any:
    return frame[frame["x"] > 1]["x"]


def of_text(text: str) -> str:
    return text


def of_numbers(numbers: list[float]) -> list[float]:
    return numbers


async def later(record: dict) -> dict:
    return record


def make_estimator() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(pd.DataFrame({"x": [0.0, 1, 2]}), [0.0, 2, 4])


def make_named(slope: float) -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression().fit(np.array([[0.0], [1], [2]]), [0.0, slope, slope * 2])


def make_nothing() -> int:
    return 3


class Callable:
    """Twice the number, times a factor."""

    def __call__(self, record: dict) -> dict:
        return {"y": _number(record["x"]) * 2}


instance = Callable()


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value


def lenient(record: dict[str, Any]) -> float:
    return float(record["v"])


def strict(record: dict[str, Any]) -> float:
    value = float(record["v"])
    if value < 0:
        raise ValueError("negative")
    return 2 * value if value > 3 else value


def mendable(record: dict[str, Any]) -> float:
    x = float(record["x"])
    if x < 0 and (x == -1 or "MENDED" not in os.environ):
        raise ValueError("negative")
    return x


def picky(record: dict[str, Any]) -> float:
    x = float(record["x"])
    if x % 7 == 1:
        raise ValueError("one of those")
    return x
