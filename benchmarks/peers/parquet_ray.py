"""Ray Data over Parquet: two local CPUs, and a function over batches of columns.

As in ``ray_data.py``, the function is stateless; each worker process loads the model once.
"""

from __future__ import annotations

import functools
import logging
import sys

import numpy as np
import ray
from scoring import FEATURES, load


def predict(rows: dict[str, np.ndarray], model: str) -> dict[str, np.ndarray]:
    """Replace the features with the score."""
    matrix = np.column_stack([rows[name] for name in FEATURES])
    return {"id": rows["id"], "score": np.asarray(load(model)(matrix), np.float32)}


def main(source: str, target: str, model: str = "xgboost") -> None:
    """Score the rows in ``source`` and write id and score into the directory ``target``."""
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_parquet(source, override_num_blocks=8)
    scored = functools.partial(predict, model=model)
    rows.map_batches(scored, batch_size=65_536).write_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
