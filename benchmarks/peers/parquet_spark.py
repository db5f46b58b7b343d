"""Spark over Parquet: a pandas function over Arrow batches, on two local cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from scoring import FEATURES, load


def main(source: str, target: str, model: str = "xgboost") -> None:
    """Score the rows in ``source`` and write id and score into the directory ``target``."""

    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        score = load(model)
        for rows in batches:
            made = score(rows[list(FEATURES)].to_numpy(np.float32))
            yield pd.DataFrame({"id": rows["id"], "score": np.asarray(made, np.float32)})

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    rows = spark.read.parquet(source).select("id", *FEATURES)
    rows.mapInPandas(predict, "id long, score float").write.parquet(target)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
