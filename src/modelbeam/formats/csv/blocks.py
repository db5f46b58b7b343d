"""Blocks of whole records, and where a file may be cut between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

import numpy as np

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Cut, Piece
from modelbeam.formats.csv.dialect import Dialect, DialectError, dialect_of, read_head
from modelbeam.formats.csv.records import RETURN, Ends, record_ends, skim
from modelbeam.formats.lines import (
    BLOCK_BYTES,
    LONG_LINE_HEAD,
    BlockCutter,
    BlockReader,
    LineBlock,
    LongLine,
    reading,
)
from modelbeam.formats.reading import Reading
from modelbeam.predicting.failures import Position
from modelbeam.storage import FileInfo

SCANNED = 8 << 20
"""Bytes that are scanned at once for places to cut."""

LONGEST_SCANNED = 64 << 20
"""Where no record ends for so long, a file is cut no more."""


@dataclass(slots=True)
class RecordBlock(LineBlock):
    """Whole records of one piece of a file; ``count`` is their lines.

    Attributes:
        dialect: how the file is written.
        found: where the records end.
    """

    dialect: Dialect = field(kw_only=True)
    found: Ends = field(kw_only=True)
    _starts: Any = field(default=None, repr=False, kw_only=True)
    _bounds: Any = field(default=None, repr=False)

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Where each record begins and ends, its line's end not included."""
        if self._bounds is None:
            ends = self.found.ends
            if not len(ends) or ends[-1] < len(self.data):
                ends = np.append(ends, len(self.data) + 1)  # as if its line had an end
            starts = np.append(0, ends[:-1])
            stops = ends - 1
            data = np.frombuffer(self.data, np.uint8)
            if self.dialect.newline != RETURN and len(data):
                returned = (stops > starts) & (data[np.maximum(stops - 1, 0)] == RETURN)
                stops = stops - returned
            if len(self.dialect.names) + self.dialect.empty > 1:  # else it is a null
                there = stops > starts
                starts, stops = starts[there], stops[there]
            self._bounds = starts, stops
        bounds: tuple[Any, Any] = self._bounds
        return bounds

    def position(self, row: int) -> Position:
        """Where the record begins: its line, from 1 in its piece, and its offset in the file."""
        if self._starts is None:
            self._starts = np.flatnonzero(
                np.frombuffer(self.data, np.uint8) == self.dialect.newline
            )
        start = int(self.bounds[0][row])
        before = int(np.searchsorted(self._starts, start))
        return Position(self.line + before + 1, self.offset + start)

    def raw(self, row: int) -> bytes:
        """The record's original bytes, without its line's end."""
        starts, stops = self.bounds
        return self.data[int(starts[row]) : int(stops[row])]


class RecordBlocks(BlockReader):
    """Iterates over the records of a piece, in blocks."""

    def _open(self, handle: BinaryIO) -> BlockCutter:
        return _Cutter(self._piece, handle)


def opened_dialect(
    path: str, packed: str | None, told: Reading, handle: BinaryIO
) -> tuple[Dialect | None, bytes, bool, BinaryIO]:
    """Read how a file is written; also its beginning, and the stream that stands behind that.

    Raises:
        InputReadError: it is not certain.
    """
    stream = handle if packed is None else compression.decompressed(handle, packed)
    head, whole = read_head(stream)
    try:
        return dialect_of(head, whole, told), head, whole, stream
    except DialectError as error:
        raise InputReadError(f"The input {path} {error}.") from None


class _Cutter:
    """Cuts what it reads of a piece into blocks of whole records."""

    def __init__(self, piece: Piece, handle: BinaryIO) -> None:
        dialect, head, _, self._handle = opened_dialect(
            piece.path, piece.compression, piece.reading, handle
        )
        self._dialect = dialect
        self._end = piece.end if piece.compression is None else None
        self._line = 0
        self._back = b""
        self._position = 0
        if dialect is None:
            return
        if piece.start:
            self._position = piece.start
            self._handle.seek(piece.start)
        else:
            self._position, self._line = dialect.start, dialect.lines
            self._back = head[dialect.start :]

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next records, or ``None`` after the last one of the piece."""
        if self._dialect is None:
            return None
        size = min(size, longest)
        data = self._take(size)
        while True:
            left = None if self._end is None else self._end - self._position
            if left is not None and len(data) > left:
                data = data[:left]  # a piece ends where a record does
            if not data:
                return None
            found = record_ends(data, self._dialect.separator, self._dialect.newline)
            first = int(found.ends[0]) if len(found.ends) else -1
            if len(data) > longest and (first < 0 or first > longest + 1):
                return self._skim(data, size)
            if first >= 0:
                cut = int(found.ends[-1])
                self._back = data[cut:] + self._back
                return self._block(data[:cut], found)
            more = self._take(max(size, len(data)))  # twice as much each time
            if not more:
                return self._block(data, found)
            data += more

    def _take(self, size: int) -> bytes:
        if self._back:
            data, self._back = self._back[:size], self._back[size:]
            return data
        return self._handle.read(size)

    def _block(self, data: bytes, found: Ends) -> RecordBlock:
        dialect = cast(Dialect, self._dialect)
        count = data.count(dialect.newline) + (not data.endswith(bytes([dialect.newline])))
        block = RecordBlock(data, self._position, self._line, count, dialect=dialect, found=found)
        self._position += len(data)
        self._line += count
        return block

    def _skim(self, data: bytes, size: int) -> LongLine:
        dialect = cast(Dialect, self._dialect)

        def chunks() -> Iterator[bytes]:
            at, chunk = self._position, data
            while chunk:
                if self._end is not None:
                    chunk = chunk[: self._end - at]
                at += len(chunk)
                yield chunk
                chunk = self._take(size)

        length, taken, lines, rest = skim(chunks(), dialect.separator, dialect.newline)
        self._back = rest + self._back
        found = LongLine(self._line, self._position, length, data[:LONG_LINE_HEAD])
        self._position += taken
        self._line += lines
        return found._replace(lines=lines)


def first_records(path: str, packed: str | None, told: Reading, wanted: int) -> RecordBlock | None:
    """The first records of a file, so many or fewer; ``None`` if it has none.

    Raises:
        InputReadError: the file cannot be read.
    """
    piece = Piece(path, 0, None, 0, 0, packed, "csv", 0, told)
    with reading(piece):
        if not storage.stat(path).size:
            return None
        with storage.open_read(path) as handle:
            cutter = _Cutter(piece, handle)
            block = cutter.next_block(BLOCK_BYTES, BLOCK_BYTES)
    if not isinstance(block, RecordBlock):
        return None
    starts, stops = block.bounds
    return replace(block, _bounds=(starts[:wanted], stops[:wanted]))


def dialect_in(path: str, packed: str | None, told: Reading) -> Dialect | None:
    """How a file is written; ``None`` if there is nothing in it.

    Raises:
        InputReadError: it cannot be read, or that is not certain.
    """
    with reading(Piece(path, 0, None, 0, 0, packed, "csv", 0, told)):
        if not storage.stat(path).size:
            return None
        with storage.open_read(path) as handle:
            return opened_dialect(path, packed, told, handle)[0]


def cuts(file: FileInfo, size: int, told: Reading) -> Iterator[Cut]:
    """The pieces of about ``size`` bytes of a file that is not compressed, cut between records.

    It is read from its beginning for that, since nothing else tells where a record ends.
    """
    pieces = max(1, round(file.size / size))
    start = 0
    if pieces > 1 and not storage.is_url(file.path):
        # a file that cannot be read: its reader says why
        with suppress(OSError, InputReadError), storage.open_read(file.path) as handle:
            dialect, _, _, stream = opened_dialect(file.path, None, told, handle)
            if dialect is not None:
                stream.seek(dialect.start)
                targets = [file.size * number // pieces for number in range(1, pieces)]
                targets = [target for target in targets if target > dialect.start]
                for border in _borders(stream, dialect, targets):
                    if border < file.size:
                        yield Cut(start, border, border - start)
                        start = border
    yield Cut(start, file.size if start else None, file.size - start)


def _borders(stream: BinaryIO, dialect: Dialect, targets: list[int]) -> Iterator[int]:
    """The first end of a record at or after each target; each place once."""
    position, rest = dialect.start, b""
    while targets and len(rest) <= LONGEST_SCANNED:
        data = stream.read(SCANNED)
        if not data:
            break
        data = rest + data
        if b'"' not in data and position + len(data) < targets[0]:
            cut = data.rfind(bytes([dialect.newline])) + 1
        else:
            ends = record_ends(data, dialect.separator, dialect.newline).ends
            cut = int(ends[-1]) if len(ends) else 0
            while targets and targets[0] <= position + cut:
                border = position + int(ends[np.searchsorted(ends, targets[0] - position)])
                yield border
                targets = [target for target in targets if target > border]
        position, rest = position + cut, data[cut:]
