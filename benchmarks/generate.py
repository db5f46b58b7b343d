"""Write N flowers with measurements drawn from a fixed seed, as JSON Lines: generate.py N FILE."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

SEED = 150
ROWS_A_BLOCK = 250_000
# The smallest and the largest value of each column of the iris data, in tenths.
TENTHS = {
    "sepal_length": (43, 79),
    "sepal_width": (20, 44),
    "petal_length": (10, 69),
    "petal_width": (1, 25),
}
LINE = ("{" + ", ".join(f'"{name}": 0.0' for name in TENTHS) + "}\n").encode()


def generate(rows: int, path: Path) -> None:
    """Write ``rows`` lines to ``path``; a file that is there already with as many is kept.

    All lines are equally long, so a file's size tells its number of lines, and a block of lines
    is one matrix of bytes in which only the digits have to be filled in.
    """
    if path.exists() and path.stat().st_size == rows * len(LINE):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        for start in range(0, rows, ROWS_A_BLOCK):
            file.write(_block(random, min(ROWS_A_BLOCK, rows - start)))
    unfinished.rename(path)


def _block(random: np.random.Generator, rows: int) -> bytes:
    """The bytes of ``rows`` lines."""
    low, high = np.array(list(TENTHS.values())).T
    tenths = random.integers(low, high + 1, size=(rows, len(TENTHS)), dtype=np.uint8)
    template = np.frombuffer(LINE, dtype=np.uint8)
    units = np.flatnonzero(template == ord("0"))[::2]
    lines = np.tile(template, (rows, 1))
    lines[:, units] += tenths // 10
    lines[:, units + 2] += tenths % 10
    return lines.tobytes()


if __name__ == "__main__":
    generate(int(sys.argv[1]), Path(sys.argv[2]))
