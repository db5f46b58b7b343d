"""The seam behind which every source of records stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from modelbeam import formats
from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.formats.partition import Partition
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.predicting.batch import Batch
from modelbeam.sources.splits import Split
from modelbeam.storage import FileInfo


class Found(NamedTuple):
    """What patterns name.

    Attributes:
        inputs: each once, in order.
        notes: sentences on what was left out, for people.
        partitions: for each path the columns that its directories say, with their values.
    """

    inputs: list[FileInfo]
    notes: list[str]
    partitions: dict[str, Partition]


class Opened(NamedTuple):
    """One or more pieces that are read.

    Attributes:
        pieces: more than one if they are read together.
        reader: of them.
        batches: what it yields; some may have been read already.
    """

    pieces: tuple[Piece, ...]
    reader: Reader
    batches: Iterable[Batch]


class Source(ABC):
    """Where records come from: what there is, how it is cut into splits, and reading them.

    An input (a file; a partition of a topic) is told by :class:`FileInfo`: a path or URL, a size,
    and a time that changes when its content does. Credentials are no part of any of them: a source
    takes them from the environment or from Beam's flags.

    Attributes:
        requires: distributions that workers need beside modelbeam's own.
    """

    requires: tuple[str, ...] = ()

    def configure(self, asked: Any) -> None:  # noqa: B027 - most sources are told enough by paths
        """Be told what a job says of its inputs beside where they are, in every process."""

    @abstractmethod
    def discover(
        self,
        patterns: Iterable[str],
        *,
        any_suffix: bool,
        excluded: Iterable[str],
        earlier: Sequence[FileInfo] | None = None,
    ) -> Found:
        """The inputs that patterns name.

        Args:
            patterns: as ``--input`` has them.
            any_suffix: whether the format is known, so that suffixes do not matter.
            excluded: what the job itself writes.
            earlier: the inputs of the run that is resumed, for sources where these do not change.

        Raises:
            RequestError: a pattern matches nothing, or one of ``excluded``.
        """

    @abstractmethod
    def plan(
        self,
        inputs: Sequence[FileInfo],
        split_size: int | None,
        *,
        input_format: formats.Format | None,
        earlier: Sequence[Split] | None,
        reading: Reading = AS_IT_SAYS,
        limit: int | None = None,
        partitions: Mapping[str, Partition] | None = None,
    ) -> tuple[list[Split], int]:
        """Cut inputs into splits.

        Args:
            inputs: in order.
            split_size: bytes per split, about; ``None`` for the source's own choice.
            input_format: of all inputs, if it was given.
            earlier: the plan of the run that is resumed: what did not change stays as it was cut.
            reading: how they are to be read, where they do not say it.
            partitions: as :meth:`discover` found them.
            limit: how many records are read, the first ones; no more is looked at than need be.

        Returns:
            The splits, and the size that they were cut by.
        """

    def open(
        self,
        pieces: Sequence[Piece],
        wanted: Wanted,
        joined: bool = True,  # noqa: ARG002 - a source may have nothing to join
    ) -> Generator[Opened, None, None]:
        """The pieces in order, each with its reader and its batches.

        Args:
            pieces: of one split.
            wanted: how they are read.
            joined: whether small ones may be read together.
        """
        for piece in pieces:
            reader = self.reader(piece, wanted)
            yield Opened((piece,), reader, reader)

    @abstractmethod
    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""

    @abstractmethod
    def first(self, piece: Piece, records: int, wanted: Wanted | None = None) -> Batch:
        """The first records of the input that a piece belongs to, so many or fewer."""

    def finished(self, inputs: Sequence[FileInfo]) -> None:  # noqa: B027 - files need nothing
        """Be told that all of these inputs are in an output that is published."""

    @abstractmethod
    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Some records from other places of the input, as far as these can be reached at once."""
