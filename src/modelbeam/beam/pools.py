"""What the steps of a local job hand their work to, by its name.

It imports no Beam, so that its processes can load the model while Beam is imported.
"""

from __future__ import annotations

from typing import Protocol

from modelbeam.job.task import Task
from modelbeam.sinks import Manifest
from modelbeam.sources.splits import Split


class Pool(Protocol):
    """Has splits predicted, counted and published: :class:`.coordinator.Coordinator`.

    Attributes:
        splits: all of the job, in order; the pipeline knows them by their place.
    """

    splits: list[Split]

    def wait_open(self) -> Task:
        """Wait until the model is loaded and everything checked; what every split is told."""

    def predict(self, split: Split) -> Manifest | None:
        """Have a split predicted and committed; ``None`` if its input is damaged."""

    def skip(self, split: Split, manifest: Manifest) -> None:
        """Count a split that an earlier run has done."""

    def stop(self, error: BaseException) -> None:
        """Note the first failure; no further split is begun."""

    def publish(self) -> None:
        """Publish; all splits are committed."""


pools: dict[str, Pool] = {}
"""Those that are not closed."""
