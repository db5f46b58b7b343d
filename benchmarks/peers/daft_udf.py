"""Daft: a class that loads the model once and predicts batches of columns."""

from __future__ import annotations

import sys

import daft
import numpy as np
import pyarrow as pa
from iris_lr import COLUMNS, best_class, load


@daft.cls
class Classifier:
    """The model, loaded once for each of Daft's workers."""

    def __init__(self) -> None:
        self.model = load()
        self.species = pa.array(self.model.classes_.astype(str))

    @daft.method.batch(return_dtype=daft.DataType.string())
    def species_of(
        self, a: daft.Series, b: daft.Series, c: daft.Series, d: daft.Series
    ) -> pa.Array:
        """The species of each flower, from the four columns of measurements."""
        rows = np.column_stack([column.to_arrow() for column in (a, b, c, d)])
        return self.species.take(pa.array(best_class(self.model, rows)))


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species into the directory ``target``."""
    measurements = dict.fromkeys(COLUMNS, daft.DataType.float64())
    flowers = daft.read_json(source, infer_schema=False, schema=measurements)
    species = Classifier().species_of(*(daft.col(name) for name in COLUMNS))
    flowers.select(species.alias("species")).write_json(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
