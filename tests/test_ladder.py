"""Imports form a ladder of rooms: a module imports from its own room and from those below it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import modelbeam

SOURCE = Path(modelbeam.__file__).parent

ROOMS = [
    "errors",
    "_version",
    "text",
    "machine",
    "streams",
    "explain",
    "report.page",
    "storage",
    "models",
    "predicting",
    "profile",
    "formats",
    "kafka",
    "sources",
    "sinks",
    "testing",
    "job",
    "package",
    "beam",
    "local",
    "engines",
    "notebook",
    "calls",
    "run",
    "retry",
    "report",
    "cli",
    "",
    "__main__",
]
"""Every room (a folder, or a file by itself), the lowest first; "" is the package's own.

What stands apart from the rest of its folder, lower, has a name with a dot.
"""

BEAM_AT_ONCE = {
    "modelbeam.beam.chain",
    "modelbeam.beam.in_pool",
    "modelbeam.beam.lanes",
    "modelbeam.beam.loading",
    "modelbeam.beam.on_worker",
    "modelbeam.beam.operation",
    "modelbeam.beam.predict",
    "modelbeam.beam.private",
    "modelbeam.beam.probe",
}
BEAM_WHEN_CALLED = {
    "modelbeam.engines.dataflow",
    "modelbeam.beam.options",
    "modelbeam.report.doctor",
    "modelbeam.storage.base",
    "modelbeam.storage.beam",
}

HEAVY = ["apache_beam", "numpy", "pandas", "polars", "pyarrow", "sklearn"]


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported(code: ast.AST, *, functions: bool = True) -> set[str]:
    """The full names that the code imports, inside functions too if they are asked for."""
    names: set[str] = set()
    nodes = [code]
    while nodes:
        node = nodes.pop()
        if functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else str(node.module))
    return names


def _uses_beam(names: set[str]) -> bool:
    return any(name.partition(".")[0] == "apache_beam" for name in names)


def _room(module: str) -> str:
    parts = module.split(".")[1:]
    inner = ".".join(parts[:2])
    return inner if inner in ROOMS else "".join(parts[:1])


def test_the_ladder_names_every_room_once():
    assert sorted(ROOMS) == sorted({_room(module) for module in MODULES})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_own_room_and_those_below(module):
    own = ROOMS.index(_room(module))
    found = {name for name in imported(_tree(module)) if name in MODULES}
    assert {name for name in found if ROOMS.index(_room(name)) > own} == set()


def test_no_modules_import_each_other_in_a_circle():
    left = {name: imported(_tree(name)) & MODULES.keys() - {name} for name in MODULES}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_beam_is_imported_only_where_it_may_be(module):
    tree = _tree(module)
    at_once = _uses_beam(imported(tree, functions=False))
    when_called = _uses_beam(imported(tree))
    assert at_once == (module in BEAM_AT_ONCE)
    assert when_called == (module in BEAM_AT_ONCE | BEAM_WHEN_CALLED)


@pytest.mark.parametrize(
    "code",
    [
        "import modelbeam",
        "import modelbeam; modelbeam.JobError",
        "from modelbeam.cli import run; run(['--help'])",
        "from modelbeam.cli import run; run(['predict', '--help'])",
        "from modelbeam.cli import run; run(['predikt'])",
    ],
)
def test_what_is_asked_most_is_answered_without_heavy_imports(code):
    ask = f"{code}\nimport sys, json; print(); print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded.isdisjoint(HEAVY)
    assert "modelbeam" in loaded


def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))
