"""Collecting that never fails a run: should it go wrong, there is nothing of that split."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from modelbeam.predicting.batch import Batch, Decoded
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.profile.packed import to_bytes
from modelbeam.profile.split import SplitProfile
from modelbeam.profile.wants import Wants


class Collector:
    """What a split's work tells of itself, from which its profile is made.

    Args:
        wants: how much is collected.

    Attributes:
        error: what went wrong, if anything did; then nothing more is collected.
    """

    def __init__(self, wants: Wants) -> None:
        self.error: Exception | None = None
        self._profile = SplitProfile(wants)

    def _try(self, collect: Callable[..., Any], *arguments: Any) -> Any:
        if self.error is not None:
            return None
        try:
            return collect(*arguments)
        except Exception as error:
            self.error = error
            return None

    def spent(self, stage: str, seconds: float) -> None:
        """So long went into a stage."""
        self._profile.spent(stage, seconds)

    def decoded(self, model: str, decoded: Decoded) -> None:
        """So much could be read for a model."""
        self._try(self._profile.decoded, model, decoded)

    def predicted(
        self, path: str, batch: Batch, model: str, outcome: Outcome, unwritten: list[Failure]
    ) -> None:
        """So much became of a batch; see :meth:`.split.SplitProfile.predicted`."""
        self._try(self._profile.predicted, path, batch, model, outcome, unwritten)

    def failed(self, path: str, failure: Failure, model: str, place: Any, original: Any) -> None:
        """A record failed."""
        self._try(self._profile.failed, path, failure, model, place, original)

    def done(self, records: int, failed: int, seconds: float) -> None:
        """A batch is done."""
        self._try(self._profile.done, records, failed, seconds)

    def to_bytes(self) -> bytes | None:
        """The profile as it is stored; ``None`` if there is none."""
        self._profile.pace.end = time.time()
        made: bytes | None = self._try(to_bytes, self._profile)
        return made
