"""The elements of an array, in blocks that look like lines of JSON Lines.

Only strings, brackets and commas are looked at: a comma on the array's own level separates two
elements, whatever these are. So a bad element is a bad record, and its neighbours are not; what
breaks the array itself (its end is missing, something follows it) is damage to the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from modelbeam import storage
from modelbeam.formats import compression
from modelbeam.formats.base import Piece
from modelbeam.formats.lines import (
    BLOCK_BYTES,
    LONG_LINE_HEAD,
    BlockCutter,
    BlockReader,
    LineBlock,
    LongLine,
    reading,
)
from modelbeam.predicting.failures import Position

_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NOTHING = b","
"""Stands for an element without any text, and is no JSON either."""


@dataclass(slots=True)
class ElementBlock(LineBlock):
    """Whole elements; ``data`` has each as a line, ``offset`` is that of ``text`` in the file.

    Attributes:
        text: as it stands in the file.
        stops: where each element ends in it; the next one begins a byte later.
    """

    text: bytes = field(kw_only=True)
    stops: Any = field(kw_only=True)
    _starts: Any = field(default=None, repr=False, kw_only=True)

    def _place(self, row: int) -> tuple[int, int]:
        """Where an element begins and ends, without the white space around it."""
        start = int(self.stops[row - 1]) + 1 if row else 0
        stop = int(self.stops[row])
        element = self.text[start:stop]
        start += len(element) - len(element.lstrip(_WHITE))
        return min(start, stop), start + len(element.strip(_WHITE))

    def position(self, row: int) -> Position:
        """Where the element begins: its line, and its offset in the file."""
        if self._starts is None:
            self._starts = np.flatnonzero(np.frombuffer(self.text, np.uint8) == 10)
        start, _ = self._place(row)
        before = int(np.searchsorted(self._starts, start))
        return Position(self.line + before + 1, self.offset + start)

    def raw(self, row: int) -> bytes:
        """The element as it stands in the file."""
        start, stop = self._place(row)
        return self.text[start:stop]


class ElementBlocks(BlockReader):
    """Iterates over the elements of a file, in blocks."""

    def _open(self, handle: BinaryIO) -> BlockCutter:
        return _Cutter(self._piece, handle)


class _Scan(NamedTuple):
    """What a look at some text found.

    Attributes:
        separators: the commas between elements; behind them the end of the array, if it is there.
        ended: whether it is.
        broken: whether the array is closed by another bracket than its own.
        inside: for each byte whether it is within a string.
        depth: how many brackets are open at the end; 1 on the array's own level.
        open: whether a string is open at the end.
    """

    separators: Any
    ended: bool
    broken: bool
    inside: Any
    depth: int
    open: bool


def scan(text: bytes, depth: int = 1, inside: bool = False) -> _Scan:
    """Find the separators in text that begins on some level, perhaps within a string."""
    plain = _ESCAPE.sub(b"__", text) if b"\\" in text else text
    array = np.frombuffer(plain, np.uint8)
    within = (np.cumsum(array == 0x22) + inside) & 1 == 1
    outside = ~within
    opens = ((array == 0x5B) | (array == 0x7B)) & outside
    closes = ((array == 0x5D) | (array == 0x7D)) & outside
    depths = depth + np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int64)
    separators = np.flatnonzero((array == 0x2C) & outside & (depths == 1))
    ends = np.flatnonzero(closes & (depths == 0))
    if not len(ends):
        last = (int(depths[-1]), bool(within[-1])) if len(text) else (depth, inside)
        return _Scan(separators, False, False, within, *last)
    end = int(ends[0])
    separators = separators[separators < end]
    if array[end] != 0x5D:
        return _Scan(separators, False, True, within, 0, False)
    return _Scan(np.append(separators, end), True, False, within, 0, False)


class _Cutter:
    """Cuts what it reads of a file into blocks of whole elements."""

    def __init__(self, piece: Piece, handle: BinaryIO) -> None:
        packed = piece.compression
        self._handle = handle if packed is None else compression.decompressed(handle, packed)
        self._back = b""
        self._offset = self._line = self._elements = 0
        self._begun = self._ended = False

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next elements, or ``None`` after the last one.

        Raises:
            OSError: the file is damaged.
        """
        if not self._begun and not self._begin():
            return None
        size = min(size, longest)
        text = b"" if self._ended else self._take(size)
        while not self._ended:
            found = scan(text)
            first = int(found.separators[0]) if len(found.separators) else len(text)
            if first > longest:
                return self._skim(text, size)
            if len(found.separators):
                block = self._block(text, found)
                if block is None:
                    break
                return block
            more = b"" if found.broken else self._take(max(size, len(text)))  # twice as much
            if not more:
                what = "closed by a }" if found.broken else "not closed"
                raise self._damaged(what, *self._place_of(text))
            text += more
        while text := self._take(64 << 10):
            if text.strip(_WHITE):
                raise OSError("damaged JSON: something follows the end of the array")
        return None

    def _begin(self) -> bool:
        """Go behind the opening bracket; say whether there is anything at all."""
        self._begun = True
        head = b""
        while not head.removeprefix(_BOM).strip(_WHITE) and (more := self._handle.read(4096)):
            head += more
        text = head.removeprefix(_BOM).lstrip(_WHITE)
        if not text:
            return False
        if not text.startswith(b"["):
            raise OSError("damaged JSON: it is no array, which begins with [")
        self._passed(head[: len(head) - len(text) + 1])
        self._back = text[1:]
        return True

    def _passed(self, text: bytes) -> None:
        self._offset += len(text)
        self._line += text.count(b"\n")

    def _take(self, size: int) -> bytes:
        if self._back:
            data, self._back = self._back[:size], self._back[size:]
            return data
        return self._handle.read(size)

    def _place_of(self, text: bytes) -> tuple[int, int]:
        """The line and the offset where what comes next begins."""
        blank = len(text) - len(text.lstrip(_WHITE))
        return self._line + text.count(b"\n", 0, blank) + 1, self._offset + blank

    def _damaged(self, what: str, line: int, offset: int) -> OSError:
        return OSError(
            f"damaged JSON: the array is {what}; the {self._elements} records before line {line} "
            f"(byte {offset}) are whole"
        )

    def _block(self, text: bytes, found: _Scan) -> LineBlock | None:
        stops = found.separators
        end = int(stops[-1])
        offset, line = self._offset, self._line
        self._ended = found.ended
        self._back = text[end + 1 :] + self._back
        self._passed(text[: end + 1])
        text = text[:end]
        if found.ended and len(stops) == 1 and not self._elements and not text.strip(_WHITE):
            return None  # an array without elements
        self._elements += len(stops)
        lines = np.frombuffer(text, np.uint8).copy()
        newlines = np.flatnonzero(lines == 10)
        lines[newlines] = np.where(found.inside[newlines], 1, 32)  # it is no JSON within a string
        lines[stops[:-1]] = 10
        data = lines.tobytes()
        blank = (lines == 32) | (lines == 9) | (lines == 13)
        filled = np.append(0, np.cumsum(~blank & (lines != 10)))[np.append(0, stops)]
        if (np.diff(filled) == 0).any():
            data = b"\n".join(one if one.strip() else _NOTHING for one in data.split(b"\n"))
        return ElementBlock(data + b"\n", offset, line, len(stops), text=text, stops=stops)

    def _skim(self, text: bytes, size: int) -> LongLine:
        """Read on to the end of an element that is too long, keeping only its beginning."""
        begun = text.lstrip(_WHITE)
        self._passed(text[: len(text) - len(begun)])
        long = LongLine(self._line, self._offset, 0, begun[:LONG_LINE_HEAD])
        chunk, depth, inside, passed, length = begun, 1, False, 0, 0
        while not len((found := scan(chunk, depth, inside)).separators):
            depth, inside = found.depth, found.open
            cut = len(chunk)
            if inside and (cut - len(chunk.rstrip(b"\\"))) % 2:
                cut -= 1  # what it escapes comes next
            if solid := len(chunk[:cut].rstrip(_WHITE)):
                length = passed + solid
            passed += cut
            self._passed(chunk[:cut])
            more = b"" if found.broken else self._take(size)
            if not more:
                what = "closed by a }" if found.broken else "not closed"
                raise self._damaged(what, long.line + 1, long.offset)
            chunk = chunk[cut:] + more
        stop = int(found.separators[0])
        self._ended = found.ended and len(found.separators) == 1
        self._back = chunk[stop + 1 :] + self._back
        self._passed(chunk[: stop + 1])
        self._elements += 1
        if solid := len(chunk[:stop].rstrip(_WHITE)):
            length = passed + solid
        return long._replace(length=length, head=long.head[:length])


def first_elements(path: str, packed: str | None, wanted: int) -> LineBlock:
    """The first elements of a file, so many or fewer.

    Raises:
        InputReadError: the file cannot be read.
    """
    piece = Piece(path, 0, None, 0, 0, packed, "json", 0)
    block = None
    with reading(piece):
        if storage.stat(path).size:
            with storage.open_read(path) as handle:
                block = _Cutter(piece, handle).next_block(BLOCK_BYTES, BLOCK_BYTES)
    if not isinstance(block, ElementBlock):
        return LineBlock(b"", 0, 0, 0)
    lines = block.lines[:wanted]
    return ElementBlock(
        b"".join(line + b"\n" for line in lines),
        block.offset,
        block.line,
        len(lines),
        text=block.text,
        stops=block.stops[:wanted],
    )
