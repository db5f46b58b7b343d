"""Polars: a lazy scan, the model on each batch of the streaming engine, a streaming sink."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import polars as pl
from iris_lr import COLUMNS, best_class, load


def main(source: str, target: str, output: str = "species") -> None:
    """Predict the flowers in ``source`` and write ``output`` for each to ``target``, in order.

    ``output`` is ``species``, ``probabilities`` (a list) or ``score`` (a float32).
    """
    model = load()
    names = pl.Series("species", model.classes_.astype(str))

    def species(flowers: pl.DataFrame) -> pl.DataFrame:
        return names.gather(best_class(model, flowers.to_numpy())).to_frame()

    def probabilities(flowers: pl.DataFrame) -> pl.DataFrame:
        made = model.predict_proba(flowers.to_numpy())
        kind = pl.Array(pl.Float64, made.shape[1])
        return pl.Series("probabilities", made, dtype=kind).to_frame()

    def score(flowers: pl.DataFrame) -> pl.DataFrame:
        made = model.predict_proba(flowers.to_numpy()).max(axis=1).astype(np.float32)
        return pl.Series("score", made).to_frame()

    outputs: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], pl.DataType]] = {
        "species": (species, pl.String()),
        "probabilities": (probabilities, pl.Array(pl.Float64, len(model.classes_))),
        "score": (score, pl.Float32()),
    }
    predict, kind = outputs[output]
    flowers = pl.scan_ndjson(source, schema=dict.fromkeys(COLUMNS, pl.Float64))
    made = flowers.map_batches(predict, schema={output: kind}, streamable=True)
    made.sink_ndjson(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
