"""What the tests call and read: the environment of a command, and lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelbeam.formats.base import Piece
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources.splits import Split

MODELS = Path(__file__).parent / "models"


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command that can import the test models."""
    path = os.pathsep.join(filter(None, [str(MODELS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **extra}


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def shards(directory: Path, kind: str = "predictions") -> list[dict[str, Any]]:
    """The objects of all shards of an output directory, in order."""
    return [row for path in sorted(directory.glob(f"{kind}-*")) for row in read_lines(path)]


def beside(names: Iterable[str]) -> list[str]:
    """Names in order, without those of what is only looked at: the profile and the report."""
    looked_at = ("profile.json", "report.html")
    return sorted(name for name in names if not name.endswith(looked_at))


def pip_install(source: Path, place: Path) -> Path:
    """Install a package of ``examples/`` from a copy, as its users would; returns where it is."""
    copy = place / "source" / source.name
    shutil.copytree(source, copy)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--disable-pip-version-check", "--target",
         str(place / "installed"), str(copy)],
        check=True,
    )  # fmt: skip
    return place / "installed"


def split_of(
    index: int,
    path: str,
    start: int = 0,
    end: int | None = None,
    size: int = 200,
    mtime_ns: int = 7,
    compression: str | None = None,
) -> Split:
    """A split of one piece of a file of lines."""
    part = (size if end is None else end) - start
    return Split(index, (Piece(path, start, end, size, mtime_ns, compression, "jsonl", part),))


def predictions_of(values: list[dict[str, Any]]) -> Outcome:
    """The outcome of a batch of which all records were predicted."""
    return Outcome(len(values), values, False, None, None, [])


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """Write records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
