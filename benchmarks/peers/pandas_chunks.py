"""Pandas: a loop over chunks of lines."""

from __future__ import annotations

import sys

import pandas as pd
from iris_lr import COLUMNS, best_class, load

LINES_A_CHUNK = 20_000


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species to ``target``, in order."""
    model = load()
    with (
        pd.read_json(source, lines=True, chunksize=LINES_A_CHUNK) as chunks,
        open(target, "w") as output,
    ):
        for flowers in chunks:
            best = best_class(model, flowers[list(COLUMNS)].to_numpy())
            predictions = pd.DataFrame({"species": model.classes_[best]})
            predictions.to_json(output, orient="records", lines=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
