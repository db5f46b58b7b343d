"""What the tests share: models to run, input files, and the command as a user would call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODELS = HERE / "models"

sys.path.insert(0, str(MODELS))  # test models are imported as modules, here and in the workers


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command that can import the test models."""
    path = os.pathsep.join(filter(None, [str(MODELS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **extra}


@pytest.fixture
def modelbeam() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``modelbeam`` with arguments; returns the finished process with its output as text."""

    def call(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelbeam", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=settings.pop("timeout", 120),
            env=environment(**settings.pop("env", {})),
            **settings,
        )

    return call


def read_lines(path: Path | str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def shards(directory: Path, kind: str = "predictions") -> list[dict[str, Any]]:
    """The objects of all shards of an output directory, in order."""
    return [row for path in sorted(directory.glob(f"{kind}-*")) for row in read_lines(path)]


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """Write records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
