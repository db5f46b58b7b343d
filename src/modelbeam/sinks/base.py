"""The seam behind which every sink of a job stands: attempt, commit, and what was committed.

Whatever the sink: an attempt at a split writes where nobody else does, or holds a transaction; its
commit is one step, after which the split is done, whole; an attempt that was not committed leaves
nothing that counts. So a split may be tried again, or by two at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources.splits import Split


class Manifest(Protocol):
    """What a committed attempt did with its split."""

    @property
    def counts(self) -> Counts:
        """Of its records."""


class Attempt(ABC):
    """One attempt at a split."""

    @abstractmethod
    def write(self, outcome: Outcome) -> tuple[int, list[Failure]]:
        """Write the predictions of a batch.

        Returns:
            How many were written, and a failure for each that the sink cannot hold, its ``row`` an
            index of the predictions; of several models with its model, and the row of the batch.
        """

    @abstractmethod
    def write_errors(self, lines: bytes) -> None:
        """Write whole error lines."""

    @abstractmethod
    def commit(self, counts: Counts, units: int, profile: bytes | None = None) -> Manifest:
        """Make the attempt the one that counts.

        Args:
            counts: of the records.
            units: how many lines or rows of its input the split covers.
            profile: what was collected for the report.

        Raises:
            ReconciliationError: the records written are not as many as were counted.
            OSError: it cannot be written.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Leave nothing behind, as far as possible."""


class Sink(ABC):
    """Where the predictions of a job go."""

    @abstractmethod
    def attempt(self, split: Split) -> Attempt:
        """Begin an attempt at a split."""

    def note_damaged(self, path: str) -> None:  # noqa: B027 - a sink may have no use for it
        """Note that an input cannot be read as it is, and will be another one when it is mended."""

    @abstractmethod
    def committed(self, split: Split) -> Manifest | None:
        """What was committed of a split, if it was of this job and of this state of its input."""
