"""The frame of an Avro file: its header, and blocks with a marker behind each."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

MAGIC = b"Obj\x01"
MARKER = 16
CHUNK = 256 << 10

LARGEST_HEADER = 64 << 20


class DamagedError(OSError):
    """The frame is not as it should be."""

    def __init__(self, message: str) -> None:
        super().__init__(f"damaged Avro: {message}")


class CutOffError(DamagedError):
    """There is less than there should be."""


class Header(NamedTuple):
    """What a file begins with.

    Attributes:
        schema: of its records.
        codec: of its blocks.
        marker: what stands behind each block.
        raw: the bytes of one that says the same.
    """

    schema: Any
    codec: str
    marker: bytes
    raw: bytes

    def without_times(self) -> Header:
        """The same, with times and dates as the numbers that they are."""
        schema = _without_times(self.schema)
        found = {b"avro.schema": json.dumps(schema).encode(), b"avro.codec": self.codec.encode()}
        return Header(schema, self.codec, self.marker, _header_of(found, self.marker))


def _without_times(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_times(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    times = "time" in str(schema.get("logicalType")) or schema.get("logicalType") == "date"
    return {
        name: value if name in ("default", "symbols") else _without_times(value)
        for name, value in schema.items()
        if not (times and name == "logicalType")
    }


class Block(NamedTuple):
    """Some records.

    Attributes:
        offset: where it begins in the file.
        records: how many.
        raw: the bytes of one that holds the same, the marker included.
    """

    offset: int
    records: int
    raw: bytes


class Frames:
    """Reads a file from its beginning.

    Args:
        handle: the file, decompressed.

    Raises:
        DamagedError: it has no header.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._data = b""
        self._at = 0
        self._before = 0
        self.header = self._header()

    @property
    def offset(self) -> int:
        """Where in the file what comes next begins."""
        return self._before + self._at

    def _more(self, size: int) -> bool:
        """Have so many bytes at hand, if there are."""
        while len(self._data) - self._at < size:
            wanted = max(CHUNK, min(size - (len(self._data) - self._at), 16 << 20))
            more = self._handle.read(wanted)
            if not more:
                return False
            self._before += self._at
            self._data, self._at = self._data[self._at :] + more, 0
        return True

    def _take(self, size: int) -> bytes:
        if size < 0 or not self._more(size):
            raise CutOffError(f"the file ends within what begins before byte {self.offset}")
        self._at += size
        return self._data[self._at - size : self._at]

    def _long(self) -> int:
        """A number in Avro's encoding of variable length."""
        value = shift = 0
        while True:
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            if shift > 63:
                raise DamagedError(f"there is no length at byte {self.offset}")

    def _header(self) -> Header:
        if not self._more(len(MAGIC)) or self._take(len(MAGIC)) != MAGIC:
            raise DamagedError("it does not begin with Obj and 1")
        found: dict[bytes, bytes] = {}
        while count := self._long():
            if count < 0:
                count = -count
                self._long()
            for _ in range(count):
                name = self._take(self._length())
                found[name] = self._take(self._length())
        marker = self._take(MARKER)
        try:
            schema = json.loads(found[b"avro.schema"])
            codec = found.get(b"avro.codec", b"null").decode()
        except (KeyError, ValueError) as error:
            raise DamagedError(f"its header holds no schema ({error})") from None
        return Header(schema, codec, marker, _header_of(found, marker))

    def _length(self) -> int:
        length = self._long()
        if not 0 <= length <= LARGEST_HEADER:
            raise DamagedError(f"there is no length at byte {self.offset}")
        return length

    def seek(self, start: int) -> bool:
        """Go to the first block that begins at ``start`` or behind it, by the marker before it."""
        if self.offset >= start:
            return True
        self._before = start - MARKER
        self._handle.seek(self._before)
        self._data, self._at = b"", 0
        while (found := self._data.find(self.header.marker)) < 0:
            keep = self._data[1 - MARKER :]
            more = self._handle.read(CHUNK)
            if not more:
                return False
            self._before += len(self._data) - len(keep)
            self._data = keep + more
        self._at = found + MARKER
        return True

    def blocks(self, end: int | None = None) -> Iterator[Block]:
        """Yield the blocks that begin before ``end``.

        Raises:
            DamagedError: a block is cut off, or its marker is another one.
        """
        while (end is None or self.offset < end) and self._more(1):
            offset = self.offset
            count, size = self._long(), self._long()
            if count < 0 or size < 0:
                raise DamagedError(f"the block at byte {offset} has no length")
            content = self._take(size)
            if self._take(MARKER) != self.header.marker:
                raise DamagedError(f"the marker behind the block at byte {offset} is another one")
            if count:
                raw = written_long(count) + written_long(size) + content + self.header.marker
                yield Block(offset, count, raw)


def written_long(value: int) -> bytes:
    """A number that is not negative in Avro's encoding of variable length."""
    value <<= 1
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _header_of(found: dict[bytes, bytes], marker: bytes) -> bytes:
    """A header that says the same."""
    members = b"".join(written_long(len(part)) + part for pair in found.items() for part in pair)
    return MAGIC + written_long(len(found)) + members + b"\x00" + marker


CODECS = {"snappy": "cramjam", "zstandard": "backports.zstd", "lz4": "lz4"}
"""Codecs that need a library of their own, which ``modelbeam[avro]`` brings."""

INSTALL = 'pip install "modelbeam[avro]"'


def problem(head: bytes) -> str | None:
    """Why a file that begins like this cannot be read."""
    from fastavro.read import BLOCK_READERS

    if head and not head.startswith(MAGIC):
        return "is not Avro, which begins with Obj and 1"
    try:
        header = Frames(io.BytesIO(head)).header
    except DamagedError:
        return None  # its reader says why, or the header goes on behind the first bytes
    if header.codec not in BLOCK_READERS:
        return f"has blocks of the codec {header.codec}, which is not known"
    if header.codec in CODECS and BLOCK_READERS[header.codec].__name__ == "missing":
        needed = CODECS[header.codec]
        return f"has blocks of the codec {header.codec}, which needs {needed}: {INSTALL}"
    if not _is_record(header.schema):
        return "holds no records: its schema is of another type"
    return None


def _is_record(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_is_record, schema))
    return isinstance(schema, dict) and schema.get("type") in ("record", "error")
