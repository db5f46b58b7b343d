"""Polars, CSV to CSV: a lazy scan, the model on each batch that streams by, a streaming sink."""

from __future__ import annotations

import sys

import polars as pl
from iris_lr import COLUMNS, best_class, load


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species to ``target``, in order."""
    model = load()
    names = pl.Series("species", model.classes_.astype(str))

    def species(flowers: pl.DataFrame) -> pl.DataFrame:
        return names.gather(best_class(model, flowers.to_numpy())).to_frame()

    flowers = pl.scan_csv(source, schema=dict.fromkeys(COLUMNS, pl.Float64))
    made = flowers.map_batches(species, schema={"species": pl.String()}, streamable=True)
    made.sink_csv(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
