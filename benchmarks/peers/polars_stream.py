"""Polars: a lazy scan, the model on each batch of the streaming engine, a streaming sink."""

from __future__ import annotations

import sys

import polars as pl
from iris_lr import COLUMNS, best_class, load


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species to ``target``, in order."""
    model = load()
    species = pl.Series("species", model.classes_.astype(str))

    def predict(flowers: pl.DataFrame) -> pl.DataFrame:
        return species.gather(best_class(model, flowers.to_numpy())).to_frame()

    flowers = pl.scan_ndjson(source, schema=dict.fromkeys(COLUMNS, pl.Float64))
    flowers.map_batches(predict, schema={"species": pl.String}, streamable=True).sink_ndjson(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
