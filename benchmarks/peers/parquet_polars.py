"""Polars over Parquet: a lazy scan, the model on each batch that streams by, a streaming sink."""

from __future__ import annotations

import sys

import polars as pl
from scoring import FEATURES, load


def main(source: str, target: str, model: str = "xgboost") -> None:
    """Score the rows in ``source`` and write id and score into ``target``."""
    score = load(model)

    def scored(rows: pl.DataFrame) -> pl.DataFrame:
        made = score(rows.select(FEATURES).to_numpy(order="c"))
        return rows.select("id").with_columns(pl.Series("score", made, dtype=pl.Float32))

    schema = {"id": pl.Int64, "score": pl.Float32}
    rows = pl.scan_parquet(source).select("id", *FEATURES)
    rows.map_batches(scored, schema=schema, streamable=True).sink_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
