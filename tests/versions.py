"""The oldest and the newest Beam and Python: ``make versions``, or ``python tests/versions.py``.

The oldest Beam that ``pyproject.toml`` allows runs on the oldest Python that is allowed and found
here, the newest Beam on the newest Python. Each pair gets an environment in ``build/versions``, the
tests of what Beam keeps private, and the main job: alone, and through Beam's own job service.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "build" / "versions"
NEWEST_LOOKED_FOR = 15
"""Python 3.x that names on the path are tried up to."""

PACKAGES = ("-e", ".[dev]", "./examples/iris_model", "./examples/iris_ml_base")
JOB_SERVICE = ("--runner=PortableRunner", "--job_endpoint=embed")


class Python(NamedTuple):
    """An interpreter of this machine."""

    version: tuple[int, int, int]
    path: str

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


def allowed() -> tuple[tuple[int, int], str]:
    """The oldest Python and the oldest Beam of ``pyproject.toml``."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    python = re.search(r'^requires-python = ">=(\d+)\.(\d+)"', text, re.MULTILINE)
    beam = re.search(r'^  "apache-beam>=([\d.]+)"', text, re.MULTILINE)
    if python is None or beam is None:
        raise SystemExit("pyproject.toml names no oldest Python, or no oldest Beam")
    return (int(python[1]), int(python[2])), beam[1]


def candidates(oldest: int) -> Iterator[Path]:
    """Where interpreters may be: this one, the path, and where pyenv and uv keep theirs."""
    yield Path(sys.executable)
    for minor in range(oldest, NEWEST_LOOKED_FOR + 1):
        if found := shutil.which(f"python3.{minor}"):
            yield Path(found)
    for folder in (
        Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python")).expanduser(),
    ):
        yield from sorted(folder.glob("*/bin/python3"))


def pythons(oldest: tuple[int, int]) -> list[Python]:
    """The interpreters of this machine that are allowed, the oldest first."""
    found: dict[tuple[int, int, int], Python] = {}
    ask = "import sys; print(*sys.version_info[:3], sys.implementation.name)"
    for path in candidates(oldest[1]):
        try:
            done = subprocess.run([path, "-c", ask], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        words = done.stdout.split()
        if done.returncode == 0 and words[3:] == ["cpython"]:  # not a shim without a version
            version = (int(words[0]), int(words[1]), int(words[2]))
            if version[:2] >= oldest:
                found.setdefault(version, Python(version, str(path)))
    return [found[version] for version in sorted(found)]


def prepare(what: str, python: Python, beam: str) -> Path | None:
    """An environment with that Python and Beam; ``None`` if the packages cannot be had for it."""
    name = f"{what}-on-python{python.version[0]}.{python.version[1]}"
    interpreter = ENVIRONMENTS / name / "bin" / "python"
    if not interpreter.exists():
        subprocess.run([python.path, "-m", "venv", interpreter.parents[1]], check=True)
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", beam, *PACKAGES], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        print(f"  cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return None
    return interpreter


def version_of_beam(interpreter: Path) -> str:
    ask = "import importlib.metadata as m; print(m.version('apache-beam'))"
    done = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def job(interpreter: Path, *flags: str) -> list[dict[str, object]]:
    """The main job's predictions."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.jsonl"
        command = [interpreter, "-m", "modelbeam", "predict", "-q"]
        command += ["-m", "iris_model.iris_predict:IrisModel"]
        command += ["-i", "data/input.json", "-o", str(output), *flags]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
        return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def run(interpreter: Path) -> bool:
    """Run the tests and the job; returns whether all is well."""
    tests = ["tests/test_private.py", "tests/test_pipeline.py"]
    pytest = [interpreter, "-m", "pytest", "-q", "-o", "filterwarnings=", "--disable-warnings"]
    well = subprocess.run([*pytest, *tests], cwd=ROOT).returncode == 0
    here, there = job(interpreter), job(interpreter, *JOB_SERVICE)
    records = len((ROOT / "data" / "input.json").read_text("utf-8").splitlines())
    same = here == there and len(here) == records
    print(f"  the main job: {len(here)} predictions here, {len(there)} through a job service")
    return well and same


def main() -> int:
    oldest_python, oldest_beam = allowed()
    found = pythons(oldest_python)
    names = ", ".join(".".join(map(str, python.version)) for python in found)
    print(f"found: Python {names or 'none that is allowed'}")
    if not found:
        return 1
    if found[0].version[:2] != oldest_python:
        wanted = ".".join(map(str, oldest_python))
        print(f"NOT FOUND: Python {wanted}, the oldest that is allowed; the oldest here stands in")
    failed = False
    for what, beam, order in (
        ("oldest", f"apache-beam=={oldest_beam}.*", found),
        ("newest", f"apache-beam>={oldest_beam}", found[::-1]),
    ):
        for python in order:
            print(f"{what}: {beam} on {python}", flush=True)
            interpreter = prepare(what, python, beam)
            if interpreter is not None:
                print(f"  Beam {version_of_beam(interpreter)}", flush=True)
                failed |= not run(interpreter)
                break
        else:
            print(f"  NOT FOUND: a Python on which {beam} can be installed")
            failed = True
    print("all is well" if not failed else "something is wrong, see above")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
