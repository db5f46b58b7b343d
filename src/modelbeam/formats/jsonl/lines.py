"""JSON Lines (also LDJSON, NDJSON), https://jsonlines.org: reading, decoding and encoding.

A split is read in blocks of whole lines. ``orjson`` decodes a line into a dict and is the reference
for what is valid; :mod:`.jsonl_columns` decodes a block for models that take columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Piece
from modelbeam.predicting.failures import Position

BLOCK_BYTES = 2 << 20
"""Bytes of one block. Measured: 1 MiB pays more for each call, 4 MiB only takes more memory."""

LONG_LINE_HEAD = 1024
"""Bytes of an overlong line that its error line shows."""

_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class LineBlock:
    """Whole lines of one split.

    Attributes:
        data: the bytes; only the last line of a file may lack its newline.
        offset: where ``data`` starts in the (decompressed) file.
        line: how many lines of the split come before it.
        count: how many lines it has, blank ones included.
        marked: whether a byte-order mark stood before ``data``, and was left out.
    """

    data: bytes
    offset: int
    line: int
    count: int
    marked: bool = False
    _lines: list[bytes] | None = field(default=None, repr=False)
    _starts: Any = field(default=None, repr=False)

    @property
    def lines(self) -> list[bytes]:
        """Each line without its newline."""
        if self._lines is None:
            self._lines = self.data.split(b"\n")
            if not self._lines[-1]:
                self._lines.pop()
        return self._lines

    def position(self, row: int) -> Position:
        """Where the line is: from 1 in its split, and its offset in the file."""
        if self._starts is None:
            ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _NEWLINE)
            self._starts = np.concatenate(([0], ends + 1))
        offset = self.offset + int(self._starts[row])
        return Position(self.line + row + 1, 0 if self.marked and row == 0 else offset)

    def raw(self, row: int) -> bytes:
        """The record's original bytes, without the line's end."""
        return self.lines[row].removesuffix(b"\r")


class LongLine(NamedTuple):
    """A line that is longer than a record may be; only its beginning was kept.

    ``line`` counts from 0 in its split; ``length`` is in bytes, without the newline.
    """

    line: int
    offset: int
    length: int
    head: bytes


class BlockReader:
    """Iterates over the lines whose first byte is in a split, in blocks; memory stays bounded.

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
        with _reading(piece):
            _check_unchanged(piece)
            if not piece.size:
                return  # not even the frame of a compression
            handle = storage.open_read(piece.path, piece.end or piece.size)
        with handle:
            with _reading(piece):
                reader = _Reader(piece, handle)
            while True:
                with _reading(piece):  # not around the yield: what the caller raises is not ours
                    block = reader.next_block(self._longest, self.size)
                if block is None:
                    break
                yield block
        with _reading(piece):
            _check_unchanged(piece)


def first_block(path: str, compression_name: str | None, wanted: int) -> LineBlock:
    """The first lines of a file, as many as hold ``wanted`` records or fewer.

    Raises:
        InputReadError: the file cannot be read.
    """
    piece = Piece(path, 0, None, 0, 0, compression_name, "jsonl", 0)
    first = LineBlock(b"", 0, 0, 0)
    with _reading(piece):
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
def _reading(piece: Piece) -> Iterator[None]:
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
        raise InputReadError(
            f"The input {piece.path} cannot be read{damaged}: {error}. Mend it and run the same "
            f"command with --resume."
        ) from error


def _is_reading_error(error: Exception) -> bool:
    return isinstance(error, (OSError, EOFError, zlib.error)) or type(error).__name__ == "ZstdError"


def _check_unchanged(piece: Piece) -> None:
    now = storage.stat(piece.path)
    if (now.size, now.mtime_ns) != (piece.size, piece.mtime_ns):
        raise InputReadError(
            f"The input {piece.path} changed while the job ran ({piece.size} bytes when it was "
            f"planned, {now.size} now). Run again with --overwrite once it is complete."
        )


def count_lines(data: bytes) -> int:
    """How many newlines there are; three times as fast as ``bytes.count`` on short lines."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))


class _Reader:
    """Cuts what it reads of a split into blocks of whole lines."""

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
        """The next lines, or ``None`` after the last one that belongs to the split."""
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
        position, line = cast(int, self._position), self._line
        count = count_lines(data)
        count += not data.endswith(b"\n")
        self._position = position + len(data)
        self._line += count
        if position == 0 and data.startswith(_BOM):
            return LineBlock(data[len(_BOM) :], len(_BOM), line, count, marked=True)
        return LineBlock(data, position, line, count)

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
