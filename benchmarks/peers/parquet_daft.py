"""Daft over Parquet: a class that loads the model once and scores batches of columns."""

from __future__ import annotations

import sys

import daft
import numpy as np
import pyarrow as pa
from scoring import FEATURES, load


@daft.cls
class Scorer:
    """The model, loaded once for each of Daft's workers."""

    def __init__(self, model: str) -> None:
        self.score = load(model)

    @daft.method.batch(return_dtype=daft.DataType.float32())
    def score_of(self, *columns: daft.Series) -> pa.Array:
        """The score of each row, from its features."""
        rows = np.column_stack([column.to_arrow().to_numpy() for column in columns])
        return pa.array(self.score(rows), pa.float32())


def main(source: str, target: str, model: str = "xgboost") -> None:
    """Score the rows in ``source`` and write id and score into the directory ``target``."""
    rows = daft.read_parquet(source)
    score = Scorer(model).score_of(*(daft.col(name) for name in FEATURES))
    rows.select("id", score.alias("score")).write_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
