"""pyarrow: a loop over batches of a Parquet file, each given to the model's own library.

``parquet_loop.py INPUT OUTPUT MODEL…``; with several models each has a column.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from scoring import FEATURES, load

ROWS_A_BATCH = 65_536


def main(source: str, target: str, *models: str) -> None:
    """Score the rows in ``source`` and write id and score into ``target``."""
    scores = [load(name) for name in models]
    names = ["score"] if len(scores) == 1 else [f"{name}.score" for name in models]
    schema = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in names)])
    with parquet.ParquetWriter(target, schema) as writer:
        file = parquet.ParquetFile(source)
        for batch in file.iter_batches(ROWS_A_BATCH, columns=["id", *FEATURES]):
            rows = np.column_stack([batch.column(name).to_numpy() for name in FEATURES])
            made = [pa.array(score(rows), pa.float32()) for score in scores]
            writer.write_batch(
                pa.RecordBatch.from_arrays([batch.column("id"), *made], schema=schema)
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
