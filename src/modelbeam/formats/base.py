"""The seam behind which every format stands: pieces, readers, writers, joining.

A format is a class of this kind in a module of its own and a line in :mod:`modelbeam.formats`, or
an entry point of the group ``modelbeam.formats`` in anybody's package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from modelbeam import storage
from modelbeam.errors import RequestError
from modelbeam.formats.layout import Layout
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Batch, Keep
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.storage import FileInfo


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one file that is read by itself.

    Attributes:
        path: the file.
        start, end: what part of it, in a unit of the format's own (bytes for lines, row groups …);
            an ``end`` of ``None`` is the file's.
        size: the whole file's size in bytes when the plan was made.
        mtime_ns: its modification time in nanoseconds when the plan was made.
        compression: ``gzip``, ``bzip2``, ``zstd`` or ``None``.
        format: the name of its format.
        bytes: how much of the file, as it is stored, this piece is.
        reading: how it is to be read, where the file does not say it.
        records: how many of its records are read; ``None`` for all.
        partition: columns that the directories of the file say, with their values.
    """

    path: str
    start: int
    end: int | None
    size: int
    mtime_ns: int
    compression: str | None
    format: str
    bytes: int
    reading: Reading = AS_IT_SAYS
    records: int | None = None
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.path} from {self.start}" if self.start else self.path


class Cut(NamedTuple):
    """Where a piece begins and ends, and how many bytes of the file it is; see :class:`Piece`."""

    start: int
    end: int | None
    bytes: int


class Wanted(NamedTuple):
    """What a reader is asked for.

    Attributes:
        style: what the model takes in one call; see :data:`modelbeam.models.base.Style`.
        batch_size: records a model call, or ``None`` for the model's best; a batch should hold so
            many, if that is not too much at once.
        longest: bytes that a record may have; a longer one is a failure.
        columns: the columns that the model needs, or ``None`` if it is not known: all of them.
        keep: those that are kept beside the predictions.
        signature: the model's columns with their types, for formats whose values have none.
    """

    style: str
    batch_size: int | None = None
    longest: int = 32 << 20
    columns: tuple[str, ...] | None = None
    keep: Keep = ()
    signature: Signature | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that the model names."""
        return tuple(c.name for c in self.signature.columns) if self.signature else ()


class Reader(ABC):
    """Iterates over the batches of a piece; memory does not grow with it.

    Raises:
        InputReadError: the file vanished, has changed since the plan was made, cannot be read, or
            is damaged.
    """

    units: int = 0
    """How many places of the source the batches so far cover: lines (blank ones too), or rows."""

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""

    def took(self, seconds: float) -> None:  # noqa: B027 - a format may do without
        """Be told how long the work on the last batch took, so as to choose the next one's size."""

    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """Bytes of the piece (as stored) that came before the last batch, and where that begins."""


class Writer(ABC):
    """Puts predictions, with what is kept beside them, into one file.

    Attributes:
        rows: how many records the bytes that were written hold, counted by what was written, not
            by what was asked for.
    """

    rows: int = 0

    @abstractmethod
    def write(self, outcome: Outcome) -> list[Failure]:
        """Write the predictions of a batch.

        Returns:
            A failure for each that the format cannot hold; its ``row`` an index of the predictions.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what belongs at the end; the file itself is closed by whoever opened it."""


class FileFormat(ABC):
    """A format of files."""

    name: str
    """As ``--input-format`` has it."""

    def told(self, reading: Reading) -> FileFormat:
        """The same, told how its files are to be read; for formats that can be told.

        Raises:
            RequestError: the format says it itself.
        """
        given = " and ".join(flag for flag, value in reading.flags.items() if value is not None)
        raise RequestError(f"{given}: only CSV is read so, and an input is of format {self.name}.")

    like: str | None = None
    """Another format whose files it reads as well."""

    @abstractmethod
    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Iterable[Cut]:
        """The pieces of about ``size`` bytes that make up a file; there is at least one.

        An iterator may look at the file as it goes: with ``--limit`` not all pieces are asked for.

        As little as possible is looked at: its name and size, a footer, or where records end if
        nothing else tells. A file that cannot be read is one piece; its reader says why.
        """

    def count(self, piece: Piece, most: int) -> int:
        """How many records a piece has, or ``most`` if it has more; reads no further than that.

        Raises:
            InputReadError: the file cannot be read.
        """
        found = 0
        for batch in self.reader(piece, Wanted("table")):
            found += batch.count()
            if found >= most:
                return most
        return found

    def problem(self, head: bytes, whole: bool) -> str | None:
        """Why a file that begins like this is certainly not of this format, and what to do.

        Args:
            head: its first bytes, decompressed.
            whole: whether that is all of it.

        Returns:
            The end of a sentence that begins with the file's name, in which ``FILE`` stands for
            that name; ``None`` if it may be of this format.
        """
        return None

    def really(self, head: bytes, whole: bool) -> str:
        """The name of the format that a file certainly has which is called one of this format.

        For formats that share a suffix; the arguments are those of :meth:`problem`.
        """
        return self.name

    @abstractmethod
    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""

    def joined(self, pieces: Sequence[Piece], wanted: Wanted) -> Reader | None:
        """Read several small files as if they were one, if the format can.

        Its batches hold records of several files, and say of each which one (:meth:`Batch.source`).

        Args:
            pieces: whole files that are not compressed and no longer than a record may be.
            wanted: how.
        """
        return None

    @abstractmethod
    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """A batch of the first records of a file, so many or fewer.

        Raises:
            InputReadError: the file cannot be read.
        """

    def warm_up(self, style: str) -> None:  # noqa: B027 - a format may need nothing
        """Import all that reading and writing can need in a model's process.

        Args:
            style: what the model takes in one call; see :data:`modelbeam.models.base.Style`.
        """

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Some records from other places of the file that a piece belongs to, if that is cheap."""
        yield from ()

    def columns(self, path: str, compression: str | None) -> Layout | None:
        """The columns that all records of a file have; ``None`` where each has its own.

        They are told as they stand in it, also where two have one name or one has none (``""``).

        Raises:
            InputReadError: the file cannot be read.
        """
        return None

    same_columns: bool = False
    """Whether all records of a file that is written have the same columns."""

    nests_models = False
    """Whether each of several models has a record of its own, though the columns are the same."""

    def layout_problem(self, layout: Layout) -> str | None:
        """Why these columns cannot be written, and what to do; the rest of a sentence."""
        return None

    @abstractmethod
    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write a file.

        Args:
            handle: where to.
            layout: the columns, for formats where all records have the same.
            part: of one file that will be joined, which part this is, from 0.
        """

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Make one file of its parts, given by path and size in bytes; by default end to end."""
        storage.concatenate(parts, target)
