"""Tables for the benchmarks: ``tables.py parquet ROWS FILE``, ``tables.py csv ROWS FILE``.

Parquet has an id and 28 columns of float32 (:mod:`scoring`); its row groups are those that pyarrow
makes by itself. CSV has the four measurements of a flower, with a header. ``tables.py rows FILE…``
prints how many rows files of Parquet have: the harness asks in a process of its own, since what it
imports itself would count as the memory of every process that it starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "iris_lr"))

from generate import TENTHS  # noqa: E402
from scoring import FEATURES, SEED, rows  # noqa: E402

ROWS_A_GROUP = 1 << 20
ROWS_A_BLOCK = 250_000


def write_parquet(count: int, path: Path) -> None:
    """Write so many rows."""
    random = np.random.default_rng(SEED + 1)
    schema = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in FEATURES)])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, count, ROWS_A_GROUP):
            size = min(ROWS_A_GROUP, count - start)
            columns = [pa.array(np.ascontiguousarray(one)) for one in rows(random, size).T]
            ids = pa.array(np.arange(start, start + size))
            writer.write_table(pa.table([ids, *columns], schema=schema), ROWS_A_GROUP)


def write_csv(count: int, path: Path) -> None:
    """Write so many flowers."""
    random = np.random.default_rng(SEED + 1)
    low, high = np.array(list(TENTHS.values())).T
    schema = pa.schema([(name, pa.float64()) for name in TENTHS])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, count, ROWS_A_BLOCK):
            size = min(ROWS_A_BLOCK, count - start)
            tenths = random.integers(low, high + 1, size=(size, len(TENTHS)))
            writer.write_table(pa.table([pa.array(one / 10) for one in tenths.T], schema=schema))


def count_rows(paths: list[str]) -> int:
    """The rows of files of Parquet, by their footers."""
    return sum(parquet.read_metadata(path).num_rows for path in paths)


def main(what: str, *arguments: str) -> None:
    """Write a file that is not there yet, or count."""
    if what == "rows":
        print(count_rows(list(arguments)))
        return
    count, path = int(arguments[0]), Path(arguments[1])
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"part-{path.name}")
    {"parquet": write_parquet, "csv": write_csv}[what](count, unfinished)
    unfinished.rename(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
