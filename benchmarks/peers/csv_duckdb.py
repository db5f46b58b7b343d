"""DuckDB, CSV to CSV: one query, in which the model is a function over Arrow columns."""

from __future__ import annotations

import sys

import duckdb
import numpy as np
import pyarrow as pa
from iris_lr import COLUMNS, best_class, load


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species to ``target``, in order."""
    model = load()
    names = pa.array(model.classes_.astype(str))

    def species(
        a: pa.ChunkedArray, b: pa.ChunkedArray, c: pa.ChunkedArray, d: pa.ChunkedArray
    ) -> pa.Array:
        rows = np.column_stack([column.to_numpy() for column in (a, b, c, d)])
        return names.take(pa.array(best_class(model, rows)))

    connection = duckdb.connect()
    measurements = ["DOUBLE"] * len(COLUMNS)
    connection.create_function("species", species, measurements, "VARCHAR", type="arrow")
    types = dict.fromkeys(COLUMNS, "DOUBLE")
    connection.execute(
        f"COPY (SELECT species({', '.join(COLUMNS)}) AS species"
        f" FROM read_csv('{source}', header=true, columns={types}))"
        f" TO '{target}' (HEADER true)"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
