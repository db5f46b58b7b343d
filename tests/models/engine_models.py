"""Models for tests on engines, where the workers are other processes than the submitting one."""

from __future__ import annotations

import os
import time
from typing import Any

from small_models import Doubler, TableDoubler


class BrokenOnWorkers(Doubler):
    """Loads where it is submitted, and not where ``ON_WORKERS`` is set."""

    def __init__(self) -> None:
        if os.environ.get("ON_WORKERS"):
            raise FileNotFoundError("the weights are not on this machine")


class Slow(Doubler):
    """Takes its time: as many seconds a record as ``RECORD_SECONDS`` says."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(float(os.environ.get("RECORD_SECONDS", "0.002")))
        return super().predict(data)


class SlowTable(TableDoubler):
    """The same with columns."""

    def predict_table(self, batch: Any) -> Any:
        """Double a batch."""
        time.sleep(len(batch) * float(os.environ.get("RECORD_SECONDS", "0.002")))
        return super().predict_table(batch)
