"""Nasty models, again and again on a busy machine: the same bytes every time.

``make soak`` runs each 50 times beside two busy loops; otherwise it is once. See ``nasty_models``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import write_lines

RUNS = int(os.environ.get("MODELBEAM_SOAK_RUNS", "1"))
ROWS = 8_000

pytestmark = pytest.mark.timeout(300 + 30 * RUNS)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files, of which some records are negative: those fail alone."""
    directory = tmp_path_factory.mktemp("soak") / "in"
    directory.mkdir()
    for file in range(12):
        rows = ({"x": -1.0 if n % 1999 == 7 else n / 4} for n in range(ROWS))
        write_lines(directory / f"{file:02d}.jsonl", rows)
    return directory


@pytest.fixture(scope="module", autouse=True)
def busy() -> Iterator[None]:
    """Two loops that want a core each."""
    loops = []
    if RUNS > 1:
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def expected() -> bytes:
    """The predictions of all files."""
    rows = [n / 4 for n in range(ROWS) if n % 1999 != 7]
    return b"".join(b'{"y":%s}\n' % repr(2 * x).encode() for x in rows) * 12


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("Nasty", "threads"),
        ("Nasty", "processes"),
        ("Nasty", "engine"),
        ("NastyRecord", "threads"),
    ],
)
def test_the_bytes_are_the_same_every_time(
    model: str, mode: str, numbers: Path, tmp_path: Path, modelbeam: Any, request: Any
) -> None:
    flags = ["--workers=2", f"--worker-mode={mode}"]
    if mode == "engine":
        flags = request.getfixturevalue("engine").flags()
    for run in range(RUNS):
        output = tmp_path / f"out-{run}.jsonl"
        done = modelbeam(
            *["predict", f"--model=nasty_models:{model}", f"--input={numbers}"],
            *[f"--output={output}", "--no-progress", *flags],
        )
        assert done.returncode == 0, done.stderr
        assert output.read_bytes() == expected(), f"run {run}: {done.stderr}"
        assert len((tmp_path / f"out-{run}.errors.jsonl").read_bytes().splitlines()) == 48
        output.unlink()
