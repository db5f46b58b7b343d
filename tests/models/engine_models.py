"""Models for tests on engines, where the workers are other processes than the submitting one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from small_models import Doubler, TableDoubler


class BrokenOnWorkers(Doubler):
    """Loads where it is submitted, and not where ``ON_WORKERS`` is set."""

    def __init__(self) -> None:
        if os.environ.get("ON_WORKERS"):
            raise FileNotFoundError("the weights are not on this machine")


def take_time(records: int) -> None:
    """As many seconds a record as ``RECORD_SECONDS`` says; ``PROCESSES`` gets a file a process."""
    if folder := os.environ.get("PROCESSES"):
        Path(folder, f"process-{os.getpid()}").touch()
    time.sleep(records * float(os.environ.get("RECORD_SECONDS", "0.002")))


class Slow(Doubler):
    """Takes its time."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        take_time(1)
        return super().predict(data)


class SlowTable(TableDoubler):
    """The same with columns."""

    def predict_table(self, batch: Any) -> Any:
        """Double a batch."""
        take_time(len(batch))
        return super().predict_table(batch)


class Fatal(Doubler):
    """Kills its process at a record with ``"fatal": true``."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if data.get("fatal"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(data)
