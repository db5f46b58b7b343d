"""What failing records cost: one in a million of them, and all of a million."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness import Table

CASES = (
    ("none fails", "IrisTable", lambda line, _: line),
    (
        "one in a million is malformed",
        "IrisTable",
        lambda line, row: b"nope\n" if row == 0 else line,
    ),
    ("all but one are malformed", "IrisTable", lambda line, row: line if row == 0 else b"nope\n"),
    ("all but one have a wrong type", "IrisTable", lambda line, row: _text(line, row)),
    ("the model rejects all but one", "NearlyNothing", lambda line, row: _text(line, row)),
)


def _text(line: bytes, row: int) -> bytes:
    """The line with its first number as a string, except in the first row."""
    return line if row == 0 else line.replace(b": ", b': "', 1).replace(b",", b'",', 1)


def measure(source: Path, work: Path, runs: int, environment: Mapping[str, str]) -> Table:
    """Seconds of whole processes over a million lines, and what became of the records."""
    rows: Table = [["of 1,000,000 records", "model", "wall s", "predicted", "failed"]]
    with open(source, "rb") as handle:
        lines = handle.readlines()
    for name, model, change in CASES:
        path = work / "errors.jsonl"
        path.write_bytes(b"".join(change(line, row) for row, line in enumerate(lines)))
        taken = []
        for _ in range(runs):
            command = [sys.executable, "-m", "modelbeam", "predict", "-m", f"iris_lr:{model}"]
            command += ["-i", str(path), "-o", str(work / "errors-out"), "--overwrite", "-q"]
            started = time.perf_counter()
            done = subprocess.run(
                [*command, "--json"], env=environment, check=True, capture_output=True
            )
            taken.append(time.perf_counter() - started)
        counts = json.loads(done.stdout)["counts"]
        seconds = f"{statistics.median(taken):.2f}"
        rows.append([name, model, seconds, f"{counts['predicted']:,}", f"{counts['failed']:,}"])
    return rows
