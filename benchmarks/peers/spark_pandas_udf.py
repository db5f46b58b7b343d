"""Spark: a given schema, and a pandas function over Arrow batches, on two local cores or a cluster.

The cluster is a third argument, ``spark://host:port``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pandas as pd
from iris_lr import COLUMNS, best_class, load
from pyspark.sql import SparkSession


def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Load the model once for each partition, then predict its batches."""
    model = load()
    for flowers in batches:
        best = best_class(model, flowers.to_numpy())
        yield pd.DataFrame({"species": model.classes_[best]})


def main(source: str, target: str, master: str = "local[2]") -> None:
    """Predict the flowers in ``source`` and write their species into the directory ``target``."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master)
    for name in ("PYTHONPATH", "IRIS_LR_MODEL"):  # for the workers of a cluster
        builder = builder.config(f"spark.executorEnv.{name}", os.environ[name])
    spark = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    flowers = spark.read.schema(", ".join(f"{name} double" for name in COLUMNS)).json(source)
    flowers.mapInPandas(predict, "species string").write.json(target)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
