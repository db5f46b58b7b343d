"""Ray Data: two local CPUs, and a function over batches of columns.

A stateless function needs no CPUs of its own: a pool of two actors would hold both of them and
leave none to the task that reads. The model is loaded once in each of Ray's worker processes.
"""

from __future__ import annotations

import logging
import sys

import numpy as np
import ray
from iris_lr import COLUMNS, best_class, load


def predict(flowers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replace the measurements with the species."""
    model = load()
    rows = np.column_stack([flowers[name] for name in COLUMNS])
    return {"species": model.classes_[best_class(model, rows)]}


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species into the directory ``target``."""
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    flowers = ray.data.read_json(source, override_num_blocks=8)
    flowers.map_batches(predict, batch_size=100_000).write_json(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
