"""What the tests share: models to run, and the command as a user would call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import MODELS, environment, read_lines, shards, write_lines  # noqa: F401
from hypothesis import settings

pytest_plugins = ["stores"]

# The same examples every time, so that a change is judged by itself; `make soak` has new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False, print_blob=True)
settings.load_profile("new" if "MODELBEAM_SOAK_RUNS" in os.environ else "same")

sys.path.insert(0, str(MODELS))  # test models are imported as modules, here and in the workers


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


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A job service and external workers, each a process of its own; see :mod:`services`."""
    from services import Engine

    made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.stop()
