"""What the tests share: models to run, and the command as a user would call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import MODELS, environment, read_lines, shards, write_lines  # noqa: F401

pytest_plugins = ["stores"]

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
