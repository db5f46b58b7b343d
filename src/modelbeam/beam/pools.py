"""What the steps of a local job hand their work to, by its name.

It imports no Beam, so that its processes can load the model while Beam is imported.
"""

from __future__ import annotations

from typing import Protocol

from modelbeam.sinks import Manifest
from modelbeam.sources.splits import Split


class Pool(Protocol):
    """Has splits predicted, counted and published: :class:`.coordinator.Coordinator`.

    Attributes:
        splits: all of the job, in order; the pipeline knows them by their place.
    """

    splits: list[Split]

    def predict(self, split: Split) -> Manifest | None:
        """Have a split predicted and committed, unless it is; ``None`` if its input is damaged."""

    def stop(self, error: BaseException) -> None:
        """Note the first failure; no further split is begun."""

    def publish(self) -> None:
        """Publish; all splits are committed."""


pools: dict[str, Pool] = {}
"""Those that are not closed."""
