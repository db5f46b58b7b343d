"""Commands that run on an engine, and the data that they predict."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from crashing import Command, manifests, wait_until

PATIENCE = 240
"""Seconds that a job on an engine may take here."""


def command(
    model: str, data: Path, output: Path, *flags: str, env: dict[str, str] | None = None
) -> Command:
    """Start ``modelbeam predict``."""
    own = [f"--model={model}", f"--input={data}", f"--output={output}"]
    return Command(*own, *flags, env=env or {})


def finish(started: Command) -> Command:
    """Wait for its end, whatever that is."""
    started.stdout, started.stderr = started.process.communicate(timeout=PATIENCE)
    return started


def run(model: str, data: Path, output: Path, *flags: str) -> Command:
    """Run such a command to its end."""
    with command(model, data, output, *flags) as started:
        return finish(started)


def wait_for_splits(output: Path, number: int) -> None:
    """Wait until that many splits are committed."""
    wait_until(lambda: len(manifests(output)) >= number, seconds=PATIENCE)


def numbered(path: Path, number: int) -> Path:
    """A file of so many records; ``n`` counts them, ``x`` is a quarter of it."""
    with path.open("w") as file:
        file.writelines(json.dumps({"n": n, "x": n / 4}) + "\n" for n in range(number))
    return path


def predicted(output: Path) -> list[float]:
    """The predictions for such a file, in order."""
    return [
        json.loads(line)["y"]
        for shard in sorted(output.glob("predictions-*"))
        for line in shard.read_bytes().splitlines()
    ]


def expected(number: int) -> list[float]:
    """What a doubler predicts for such a file."""
    return [n / 2 for n in range(number)]


def children(members: Callable[[], Sequence[int]], parent: int) -> list[int]:
    """The processes of a group without its first."""
    return [pid for pid in members() if pid != parent]


def kill(pid: int) -> None:
    """``kill -9``."""
    os.kill(pid, 9)
