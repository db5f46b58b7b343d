"""The doctor's question: does the model load with nothing around it but what would be sent?

An environment is made of links to the files that are installed here, for the distributions of the
list alone, and of the wheels, unpacked. It has exactly the versions that the workers get, takes a
fraction of a second, and needs no network; a virtual environment with the same contents takes tens
of seconds to install (docs/packaging.md has the figures).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from modelbeam.errors import PackageError
from modelbeam.job.description import ModelSpec
from modelbeam.machine import module_path
from modelbeam.models import kind_of
from modelbeam.package.build import Built
from modelbeam.package.installed import Closure, Environment, Installed
from modelbeam.package.items import LocalPackage, canonical
from modelbeam.package.listing import BEAM

TIMEOUT = 600
"""Seconds that a model may take to load."""

_LOAD = """\
import importlib, json, sys, traceback
sys.path[:0] = [sys.argv[1]]
module, name, file = sys.argv[2:5]
arguments, options, takes_options = json.load(sys.stdin)
said = {}
try:
    found = getattr(importlib.import_module(module), name)
    if file:
        from modelbeam.models import Options, Target
        more = [Options(**options)] if takes_options else []
        found(Target.parse(file), arguments, *more)
    elif isinstance(found, type):
        found(**arguments)
except BaseException as error:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if f.filename != "<string>" and "importlib" not in f.filename]
    said = {
        "type": type(error).__name__,
        "error": str(error),
        "missing": getattr(error, "name", None) if isinstance(error, ImportError) else None,
        "where": f"{inside[-1].filename}:{inside[-1].lineno}" if inside else None,
    }
print()
print(json.dumps(said))
"""


def clean_import(built: Built, model: ModelSpec | str | None = None) -> None:
    """Import the model and build it, with only the list's packages around.

    Args:
        built: the packages.
        model: which model, with the arguments of its constructor; by default the list's first.

    Raises:
        PackageError: a module is missing, or it raises; the message says which, and what to do.
    """
    spec = ModelSpec.parse(model) if model else ModelSpec(target=built.packages.targets[0])
    with tempfile.TemporaryDirectory(prefix="modelbeam-clean-") as name:
        directory = Path(name) / "packages"
        directory.mkdir()
        _fill(directory, built)
        said = _load(directory, spec)
    if said:
        raise PackageError(_message(spec, said, str(directory)))


def _fill(directory: Path, built: Built) -> None:
    environment = Environment(module_path())
    names = [r.name for r in built.packages.requirements if r.for_model]
    if built.packages.beam_for_model:
        names += _with_all_it_requires(environment, BEAM)
    shared = environment.shared_directories
    for name in dict.fromkeys(names):
        one = environment.find(name)
        if one is not None:
            _link(one, directory, shared)
    for_modelbeam = {
        canonical(item.name)
        for item in built.packages.items
        if isinstance(item, LocalPackage) and not item.for_model
    }
    for wheel in built.wheels:
        if canonical(wheel.name.split("-")[0]) not in for_modelbeam:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(directory)


def _with_all_it_requires(environment: Environment, name: str) -> list[str]:
    closure = Closure(environment, stop=frozenset())
    closure.add(name, "")
    return [one.name for one, _ in closure.found.values()]


def _link(one: Installed, directory: Path, shared: frozenset[str]) -> None:
    """Link the directories of a distribution, and file by file those that others have a part in."""
    names: dict[str, None] = {}
    for name in one.record:
        if name.startswith("../") or name.endswith(".pyc") or os.path.isabs(name):
            continue
        top = name.partition("/")[0]
        names[name if top in shared else top] = None
    for name in names:
        place = directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(one.root / name)


def _load(directory: Path, spec: ModelSpec) -> dict[str, Any]:
    # neither site-packages (-S) nor the working directory and PYTHONPATH (-I)
    python = [sys.executable, "-I", "-S", "-B", "-c", _LOAD, str(directory)]
    target = spec.target
    what = [target.module, target.attribute, ""]
    kind = kind_of(target)
    if target.form != "class":
        what = [*kind.load.split(":"), target.path]
    try:
        done = subprocess.run(
            [*python, *what],
            input=json.dumps(
                [spec.keywords(), spec.options.given(), bool(kind.options)]
            ),  # not an argument, which others may see
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return {"type": "TimeoutExpired", "error": f"it did not load in {TIMEOUT} s"}
    try:
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"type": "its process died", "error": last[0]}
    return said


def _message(spec: ModelSpec, said: dict[str, Any], directory: str) -> str:
    where = f" ({said['where'].replace(directory + '/', '')})" if said.get("where") else ""
    missing = said.get("missing")
    if said["type"] == "ModuleNotFoundError" and missing:
        return (
            f"--model {spec.target}: the workers would not have the module '{missing}'{where}. It "
            f"is installed here, but nothing that is sent requires it. Add it to the dependencies "
            f"in the pyproject.toml of the model's package, and install that again."
        )
    return (
        f"--model {spec.target} works here, and raises {said['type']} where there is nothing but "
        f"what the workers would have{where}: {said['error']}. 'modelbeam package' shows the list."
    )
