"""What all formats of lines have in common: a record a line, read in blocks of whole lines.

A format is a subclass of :class:`LinesFormat` that makes batches of blocks, and writes.
"""

from __future__ import annotations

import itertools
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import numpy as np

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted
from modelbeam.predicting.batch import Batch, Decoded, Keep
from modelbeam.predicting.failures import Failure, Position, original_text
from modelbeam.storage import FileInfo

BLOCK_BYTES = 2 << 20
"""Bytes of one block. Measured: 1 MiB pays more for each call, 4 MiB only takes more memory."""

LONG_LINE_HEAD = 1024
"""Bytes of an overlong line that its error line shows."""

NEAR = 64
"""Lines of a block to which the way is shorter one by one."""

SHORT = 512
"""Bytes of which counting in NumPy costs more than it saves."""

_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class LineBlock:
    """Whole lines of one piece of a file.

    Attributes:
        data: the bytes; only the last line of a file may lack its newline.
        offset: where ``data`` starts in the (decompressed) file.
        line: how many lines of the piece come before it.
        count: how many lines it has, blank ones included.
        marked: whether a byte-order mark stood before ``data``, and was left out.
    """

    data: bytes
    offset: int
    line: int
    count: int
    marked: bool = False
    _lines: list[bytes] | None = field(default=None, repr=False)
    _begins: Any = field(default=None, repr=False)

    @property
    def lines(self) -> list[bytes]:
        """Each line without its newline."""
        if self._lines is None:
            self._lines = self.data.split(b"\n")
            if not self._lines[-1]:
                self._lines.pop()
        return self._lines

    def spans(self) -> tuple[Any, Any]:
        """Where each line begins in ``data``, and where it ends, its newline left out."""
        begins = self._all_begins()[: self.count]
        ends = np.append(self._begins[1:] - 1, len(self.data))[: self.count]
        return begins, ends

    def position(self, row: int) -> Position:
        """Where the line is: from 1 in its piece, and its offset in the file."""
        offset = self.offset + self._begin(row)
        return Position(self.line + row + 1, 0 if self.marked and row == 0 else offset)

    def source(self, row: int) -> str | None:
        """The file of a line, if the block has those of several."""
        return None

    def _begin(self, row: int) -> int:
        """Where a line begins in ``data``."""
        if self._begins is None and row < NEAR:
            start = 0
            for _ in range(row):
                start = self.data.index(b"\n", start) + 1
            return start
        return int(self._all_begins()[row])

    def _all_begins(self) -> Any:
        """Where the lines begin; one more than they are if the last has its newline."""
        if self._begins is None:
            ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _NEWLINE)
            self._begins = np.concatenate(([0], ends + 1))
        return self._begins

    def one(self, row: int) -> bytes:
        """The line without its newline; where they are not apart yet, it alone is cut out."""
        if self._lines is not None:
            return self._lines[row]
        start = self._begin(row)
        end = self.data.find(b"\n", start)
        return self.data[start : None if end < 0 else end]

    def raw(self, row: int) -> bytes:
        """The record's original bytes, without the line's end."""
        return self.one(row).removesuffix(b"\r")


class LongLine(NamedTuple):
    """A line that is longer than a record may be; only its beginning was kept.

    ``line`` counts from 0 in its piece; ``length`` is in bytes, without the newline; ``lines`` is
    more than one where a record may have several.
    """

    line: int
    offset: int
    length: int
    head: bytes
    lines: int = 1


class Blocks(Protocol):
    """Yields blocks of about so many bytes, which may be changed between two of them."""

    size: int

    def __iter__(self) -> Iterator[LineBlock | LongLine]:
        """Yield them in order."""


class BlockReader:
    """Iterates over the lines whose first byte is in a piece, in blocks; memory stays bounded.

    Args:
        piece: what to read.
        longest: bytes that a line may have; a longer one is skimmed over.
        size: bytes a block; may be changed between two blocks.

    Raises:
        InputReadError: the file vanished, has changed since the plan was made, cannot be read, or
            its compression is damaged.
    """

    def __init__(self, piece: Piece, longest: int, size: int = BLOCK_BYTES) -> None:
        self.size = size
        self._piece, self._longest = piece, longest

    def __iter__(self) -> Iterator[LineBlock | LongLine]:
        piece = self._piece
        with reading(piece):
            check_unchanged(piece)
            if not piece.size:
                return  # not even the frame of a compression
            handle = storage.open_read(piece.path, piece.end or piece.size)
        with handle, ExitStack() as stack:
            with reading(piece):
                reader = self._open(handle)
            if piece.compression is not None and piece.size > WORTH_A_THREAD:
                reader = stack.enter_context(closing(_Ahead(reader)))
            while True:
                with reading(piece):  # not around the yield: what the caller raises is not ours
                    block = reader.next_block(self._longest, self.size)
                if block is None:
                    break
                yield block
        with reading(piece):
            check_unchanged(piece)

    def _open(self, handle: BinaryIO) -> BlockCutter:
        return _Reader(self._piece, handle)


class BlockCutter(Protocol):
    """Cuts what it reads of a piece into blocks."""

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next lines, or ``None`` after the last one that belongs to the piece."""


WORTH_A_THREAD = 256 << 10
"""Bytes of a compressed file from which on its next block is unpacked while one is used."""


class _Ahead:
    """Makes one block more than was asked for, in a thread, while the last one is being used.

    So unpacking overlaps with decoding and predicting. Never more than one block waits. Its size is
    the one that the block before it was asked for with, so it does not depend on who is faster.
    """

    def __init__(self, cutter: BlockCutter) -> None:
        self._cutter = cutter
        self._thread = ThreadPoolExecutor(1, "unpacking")
        self._coming: Future[LineBlock | LongLine | None] | None = None

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next lines; what making them raised is raised here."""
        make = self._cutter.next_block
        block = (self._coming or self._thread.submit(make, longest, size)).result()
        if block is not None:
            self._coming = self._thread.submit(make, longest, size)
        return block

    def close(self) -> None:
        """Wait for the block that is being made, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def first_block(path: str, compression_name: str | None, wanted: int) -> LineBlock:
    """The first lines of a file, as many as hold ``wanted`` records or fewer.

    Raises:
        InputReadError: the file cannot be read.
    """
    piece = Piece(path, 0, None, 0, 0, compression_name, "jsonl", 0)
    first = LineBlock(b"", 0, 0, 0)
    with reading(piece):
        if storage.stat(path).size:
            with storage.open_read(path) as handle:
                reader = _Reader(piece, handle)
                for _ in range(2):  # a last line without a newline is a block of its own
                    block = reader.next_block(BLOCK_BYTES, BLOCK_BYTES)
                    if not isinstance(block, LineBlock):
                        break
                    first = replace(first, data=first.data + block.data) if first.data else block
    lines, records = 0, 0
    for line in first.lines:
        lines += 1
        records += bool(line.strip())
        if records == wanted:
            break
    return replace(first, data=b"\n".join(first.lines[:lines]), count=lines, _lines=None)


@contextmanager
def reading(piece: Piece) -> Iterator[None]:
    """Turn what reading may raise into one message that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputReadError(
            f"The input {piece.path} has vanished since the job was planned. Put it back and run "
            f"the same command with --resume."
        ) from None
    except Exception as error:
        if isinstance(error, InputReadError) or not _is_reading_error(error):
            raise
        damaged = f" ({piece.compression}: truncated or damaged)" if piece.compression else ""
        found = InputReadError(
            f"The input {piece.path} cannot be read{damaged}: {str(error).rstrip('.')}. Fix it and "
            f"run the same command with --resume."
        )
        found.damaged, found.path = True, piece.path
        raise found from error


def _is_reading_error(error: Exception) -> bool:
    return isinstance(error, (OSError, EOFError, zlib.error)) or type(error).__name__ == "ZstdError"


def check_unchanged(piece: Piece, now: FileInfo | None = None) -> None:
    """Raise :class:`InputReadError` if the file is not as it was when the plan was made.

    Args:
        piece: of the file.
        now: what the file is, if it was asked already.
    """
    if now is None:
        now = storage.stat(piece.path)
    if (now.size, now.mtime_ns) != (piece.size, piece.mtime_ns):
        raise InputReadError(
            f"The input {piece.path} changed while the job ran ({piece.size} bytes when it was "
            f"planned, {now.size} now). Run again with --overwrite once it is complete."
        )


def count_lines(data: bytes) -> int:
    """How many newlines there are; three times as fast as ``bytes.count`` on short lines."""
    if len(data) < SHORT and isinstance(data, bytes):
        return data.count(b"\n")
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))


def whole_block(data: bytes, offset: int = 0, line: int = 0) -> LineBlock:
    """Lines as a block; a byte-order mark at the beginning of the file is left out."""
    count = count_lines(data) + (bool(data) and not data.endswith(b"\n"))
    if offset == 0 and data.startswith(_BOM):
        return LineBlock(data[len(_BOM) :], len(_BOM), line, count, marked=True)
    return LineBlock(data, offset, line, count)


class _Reader:
    """Cuts what it reads of a piece into blocks of whole lines."""

    def __init__(self, piece: Piece, handle: BinaryIO) -> None:
        self._plain = piece.compression is None
        self._handle = (
            handle if self._plain else compression.decompressed(handle, str(piece.compression))
        )
        self._end = piece.end if self._plain else None
        self._position: int | None = piece.start
        self._line = 0
        self._back = b""
        if piece.start:
            self._position = self._seek_first_line(piece.start, cast(int, piece.end))

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next lines, or ``None`` after the last one that belongs to the piece."""
        size = min(size, longest)
        while self._position is not None and (self._end is None or self._position < self._end):
            data = self._back or self._handle.read(size)
            self._back = b""
            if not data:
                return None
            if len(data) > longest:  # then it is the first line that may be too long
                newline = data.find(b"\n")
                if newline > longest or newline < 0:
                    return self._skim(data, newline, size)
            cut = data.rfind(b"\n") + 1
            if self._end is not None and self._position + cut > self._end:
                cut = data.find(b"\n", self._end - 1 - self._position) + 1
            if cut == 0:
                more = self._handle.read(max(size, len(data)))  # twice as much each time
                if more:
                    self._back = data + more
                    continue
                cut = len(data)
            self._unread(data, cut)
            return self._block(data[:cut])
        return None

    def _block(self, data: bytes) -> LineBlock:
        block = whole_block(data, cast(int, self._position), self._line)
        self._position = cast(int, self._position) + len(data)
        self._line += block.count
        return block

    def _unread(self, data: bytes, cut: int) -> None:
        if cut == len(data):
            return
        if self._plain:
            self._handle.seek(cast(int, self._position) + cut)
        else:
            self._back = data[cut:]

    def _skim(self, data: bytes, newline: int, size: int) -> LongLine:
        """Read on to the end of a line that is too long, keeping only its beginning."""
        found = LongLine(self._line, cast(int, self._position), newline, data[:LONG_LINE_HEAD])
        length = 0
        while newline < 0:
            length += len(data)
            data = self._handle.read(size)
            if not data:
                break
            newline = data.find(b"\n")
        if newline >= 0:
            length += newline
            self._back = data[newline + 1 :]
        self._position = found.offset + length + 1
        self._line += 1
        return found._replace(length=length)

    def _seek_first_line(self, start: int, end: int) -> int | None:
        """Go to the first line that starts in ``[start, end)``; ``None`` if there is none."""
        position = start - 1
        self._handle.seek(position)
        while position < end - 1:
            chunk = self._handle.read(min(64 << 10, end - 1 - position))
            if not chunk:
                return None
            newline = chunk.find(b"\n")
            if newline >= 0:
                self._handle.seek(position + newline + 1)
                return position + newline + 1
            position += len(chunk)
        return None


RECORD_BLOCK = 256 << 10
"""Bytes that a block of records one by one has at most: its dicts then stay in the cache, which
is worth a third of the time of a fast model."""

LARGEST_BLOCK = 64 << 20
"""Bytes that a block may have to hold a large ``--batch-size``."""

_FIRST_BLOCK = {"record": 64 << 10, "batch": 256 << 10, "table": BLOCK_BYTES}


class LinesReader(Reader):
    """Reads the lines of a piece in batches.

    Args:
        piece: what to read.
        wanted: how.
        batch: makes a batch of a block.
        blocks: yields the blocks.
    """

    def __init__(
        self,
        piece: Piece,
        wanted: Wanted,
        batch: Callable[[LineBlock], Batch],
        blocks: Callable[[Piece, int, int], Blocks] = BlockReader,
    ) -> None:
        self._piece, self._wanted, self._batch = piece, wanted, batch
        self._blocks = blocks(piece, wanted.longest, _FIRST_BLOCK[wanted.style])
        self._last: LineBlock | LongLine | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        for block in self._blocks:
            self._last = block
            self.units = block.line + (block.lines if isinstance(block, LongLine) else block.count)
            yield (
                LongLineBatch(block, self._wanted.longest)
                if isinstance(block, LongLine)
                else self._batch(block)
            )

    def took(self, seconds: float) -> None:
        """Choose the next block's size.

        Records one by one: as much as takes a quarter of a second or so, for the sake of progress
        and of knowing where a crash was. Batches: enough for ``batch_size`` records; never by time,
        since what a model makes of a record may depend, in the last digits, on the batch around it.
        """
        block, size = self._last, self._blocks.size
        if not isinstance(block, LineBlock):
            return
        style, batch_size = self._wanted.style, self._wanted.batch_size
        if style == "record":
            if seconds < 0.125:
                size = min(size * 2, RECORD_BLOCK)
            elif seconds > 0.5:
                size = max(size // 2, 4 << 10)
        elif batch_size is not None and block.count:
            wanted = batch_size * len(block.data) // block.count
            size = min(max(wanted, _FIRST_BLOCK[style]), LARGEST_BLOCK)
        self._blocks.size = size

    def progress(self) -> tuple[int, int]:
        """Bytes done, and the offset of the last block."""
        if self._last is None:
            return 0, self._piece.start
        offset = self._last.offset
        return (0 if self._piece.compression else offset - self._piece.start), offset


class LinesBatch(Batch):
    """The records of a block of lines; a format says what a line holds.

    Args:
        block: the lines.
    """

    def __init__(self, block: LineBlock) -> None:
        self.block = block

    def position(self, row: int) -> Position:
        """The line, from 1 in its piece, and its offset in the file."""
        return self.block.position(row)

    def source(self, row: int) -> str | None:
        """The file, if the block has lines of several."""
        return self.block.source(row)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The line's text."""
        return original_text(self.block.raw(row), parsed=False)


class LongLineBatch(Batch):
    """One line that is longer than a record may be.

    Args:
        line: where it is, and its beginning.
        longest: bytes that a record may have.
    """

    def __init__(self, line: LongLine, longest: int) -> None:
        self._line = line
        self._failure = Failure(
            0,
            "decode",
            "RecordTooLongError",
            f"the {'line' if line.lines == 1 else 'record'} has {line.length} bytes, more than "
            f"--max-record-size ({longest}); 'record' is its beginning",
        )

    def records(self) -> Decoded:
        """No record, but its failure."""
        return Decoded([], [], [self._failure])

    def position(self, row: int) -> Position:
        """The line, from 1 in its piece, and its offset in the file."""
        return Position(self._line.line + 1, self._line.offset)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """How long the line is, and its beginning."""
        head = _whole_characters(self._line.head)
        return {"record_bytes": self._line.length, **original_text(head, parsed=False)}


def _whole_characters(head: bytes) -> bytes:
    """The beginning of a text without the character that was cut in two at its end."""
    for cut in range(min(4, len(head))):
        try:
            head[: len(head) - cut].decode("utf-8")
            return head[: len(head) - cut]
        except UnicodeDecodeError:
            continue
    return head


class LinesFormat(FileFormat):
    """A format with a record a line; a piece is the lines whose first byte is in a range of bytes.

    A subclass has a ``name``, makes batches and writes.
    """

    @abstractmethod
    def batch(self, block: LineBlock, keep: Keep = ()) -> Batch:
        """The records of a block.

        Args:
            block: the lines.
            keep: the columns that will be kept, for what can note them on the way.
        """

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """Ranges of bytes; a compressed file is one piece."""
        if compression is not None:
            return [Cut(0, None, file.size)]
        pieces = max(1, round(file.size / size))
        ends = [file.size * i // pieces for i in range(pieces + 1)]
        return [Cut(start, end, end - start) for start, end in itertools.pairwise(ends)]

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        return LinesReader(piece, wanted, lambda block: self.batch(block, wanted.keep))

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first lines of a file."""
        return self.batch(first_block(path, compression, records))

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Lines from the middle and near the end; a compressed file would have to be unpacked."""
        if piece.compression is not None:
            return
        for start in (piece.size // 2, piece.size - min(piece.size // 4, 64 << 10)):
            part = replace(piece, start=start, end=piece.size)
            yield from itertools.islice(self.reader(part, Wanted("record")), 1)
