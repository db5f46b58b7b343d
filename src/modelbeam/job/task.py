"""What is said between the process that runs the pipeline and those that hold the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from modelbeam.formats import Format
from modelbeam.formats.layout import Layout
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Stage
from modelbeam.predicting.renaming import Rename
from modelbeam.profile.wants import Wants


@dataclass(frozen=True, slots=True)
class Task:
    """What is the same for every split of a job; plain data that crosses process boundaries.

    Attributes:
        state: the job's state directory.
        fingerprint: of the model and the settings; it goes into every manifest.
        output: format of the predictions.
        keep: ``all`` or the input columns that stand beside the predictions.
        batch_size: records a model call, or ``None`` for the model's best.
        max_record_size: bytes that a record may have.
        record_timeout: seconds that a record may take on an engine's worker, or ``None``.
        max_crashes: how many records may kill their process there, or run out of time.
        asked: what the source is told; see :meth:`.sources.base.Source.configure`.
        layout: the output's columns, where all of its records have the same.
        single: whether the output is one file.
        rename: other names of what is predicted.
    """

    state: str
    fingerprint: str
    output: Format
    keep: Literal["all"] | tuple[str, ...]
    batch_size: int | None
    max_record_size: int
    record_timeout: float | None = None
    max_crashes: int = 10
    asked: Any = None
    layout: Layout | None = None
    single: bool = False
    rename: Rename = ()
    largest: int | None = None
    """Bytes that a prediction may have, where its line becomes a message."""
    again: str | None = None
    """Where it stands what an earlier run made of each split, of which only failures are done."""
    profile: Wants | None = None
    """What is collected for the report."""
    formats: tuple[str, ...] = ()
    """All that the job reads and writes, so that what they need is imported in time."""


@dataclass(slots=True)
class Progress:
    """How far a split is.

    Attributes:
        counts: of the records so far.
        bytes: of the split's files (as they are stored) that are done.
        path: the file that is being worked on.
        offset: where the batch begins, in the format's own unit.
    """

    counts: Counts
    bytes: int = 0
    path: str = ""
    offset: int = 0


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of a file's first records.

    Attributes:
        read: how many there were.
        failed: how many of them have no prediction.
        predictions: the encoded predictions.
        failures: ``(line, stage, type, message)`` of each that failed; of several models the
            message begins with the model's name.
        misfits: what in the predictions is not as the model's output schema says, and of how many.
    """

    read: int
    failed: int
    predictions: bytes
    failures: list[tuple[int, Stage, str, str]]
    misfits: list[tuple[str, int]] = field(default_factory=list)


class Totals:
    """Sums over splits: records, bytes, splits done, and of these done by an earlier run.

    ``tasks`` is how many tasks an engine has at work, where it tells.
    """

    def __init__(self) -> None:
        self.tasks: int | None = None
        self.counts = Counts()
        self.bytes = 0
        self.splits = 0
        self.resumed = 0

    def add(self, counts: Counts, done: int) -> None:
        """Add a split's."""
        self.counts.add(counts, 0)
        self.bytes += done
        self.splits += 1

    def copy(self) -> Totals:
        """A copy that may be added to."""
        other = Totals()
        other.add(self.counts, self.bytes)
        other.splits, other.resumed = self.splits, self.resumed
        return other
