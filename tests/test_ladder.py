"""Imports form a ladder: each module imports only what stands below it in one list."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import modelbeam

SOURCE = Path(modelbeam.__file__).parent

LADDER = [
    "modelbeam.errors",
    "modelbeam._version",
    "modelbeam.storage.base",
    "modelbeam.storage.local",
    "modelbeam.storage.fetched",
    "modelbeam.storage.objects",
    "modelbeam.storage.s3",
    "modelbeam.storage.gcs",
    "modelbeam.storage.hdfs",
    "modelbeam.storage.beam",
    "modelbeam.storage",
    "modelbeam.compression",
    "modelbeam.spawn",
    "modelbeam.engines",
    "modelbeam.engines.java_options",
    "modelbeam.engines.options",
    "modelbeam.engines.causes",
    "modelbeam.engines.remote_job",
    "modelbeam.engines.portable",
    "modelbeam.engines.flink",
    "modelbeam.engines.spark",
    "modelbeam.engines.dataflow",
    "modelbeam.formats",
    "modelbeam.plan",
    "modelbeam.job",
    "modelbeam.failures",
    "modelbeam.models.signature",
    "modelbeam.models.base",
    "modelbeam.models",
    "modelbeam.models.mlmodel",
    "modelbeam.formats.jsonl",
    "modelbeam.formats.jsonl_columns",
    "modelbeam.predicting",
    "modelbeam.commit",
    "modelbeam.publish",
    "modelbeam.tasks",
    "modelbeam.split",
    "modelbeam.worker",
    "modelbeam.workers",
    "modelbeam.versions",
    "modelbeam.package",
    "modelbeam.package.items",
    "modelbeam.package.installed",
    "modelbeam.package.modules",
    "modelbeam.package.listing",
    "modelbeam.package.wheels",
    "modelbeam.package.build",
    "modelbeam.package.flags",
    "modelbeam.package.image",
    "modelbeam.package.clean",
    "modelbeam.staging",
    "modelbeam.pipeline",
    "modelbeam.result",
    "modelbeam.prepare",
    "modelbeam.local",
    "modelbeam.remote",
    "modelbeam.run",
    "modelbeam.doctor",
    "modelbeam.check",
    "modelbeam.progress",
    "modelbeam.cli",
    "modelbeam",
    "modelbeam.__main__",
]
"""Every module, the lowest first."""

BEAM_AT_ONCE = {"modelbeam.pipeline"}
BEAM_WHEN_CALLED = {
    "modelbeam.doctor",
    "modelbeam.engines.dataflow",
    "modelbeam.engines.options",
    "modelbeam.engines.portable",
    "modelbeam.engines.remote_job",
    "modelbeam.local",
    "modelbeam.remote",
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


def test_the_ladder_names_every_module_once():
    assert sorted(LADDER) == sorted(MODULES)


@pytest.mark.parametrize("module", LADDER)
def test_a_module_imports_only_what_is_below_it(module):
    below = LADDER[: LADDER.index(module)]
    own = {name for name in imported(_tree(module)) if name in MODULES}
    assert own <= set(below)


@pytest.mark.parametrize("module", LADDER)
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
