"""Predictions as one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelbeam import formats, storage
from modelbeam.formats import compression
from modelbeam.formats.binary import created
from modelbeam.formats.jsonl.writer import LinesWriter
from modelbeam.storage import write_all

EMPTY = b"[]\n"
BEGIN, BETWEEN, END = b"[\n", b",\n", b"\n]\n"


class ArrayWriter(LinesWriter):
    """Writes each prediction as an element, a line each."""

    _begun = False

    def put(self, lines: Any) -> None:
        """Write lines as elements."""
        write_all(self._handle, BETWEEN if self._begun else BEGIN)
        self._begun = True
        write_all(self._handle, bytes(lines)[:-1].replace(b"\n", BETWEEN))

    def close(self) -> None:
        """Close the array."""
        write_all(self._handle, END if self._begun else EMPTY)


def join(parts: Sequence[str], target: str) -> None:
    """Put the elements of several arrays, which :class:`ArrayWriter` wrote, into one."""
    with created(target) as into:
        begun = False
        for part in parts:
            for number, piece in enumerate(_inside(part)):
                if number == 0:
                    write_all(into, BETWEEN if begun else BEGIN)
                write_all(into, piece)
                begun = True
        write_all(into, END if begun else EMPTY)


def _inside(part: str) -> Iterator[bytes]:
    """What stands between the brackets of a part, if anything does."""
    packed = formats.compression_of(part)
    with storage.open_read(part) as handle:
        stream = handle if packed is None else compression.decompressed(handle, packed)
        held = stream.read(len(EMPTY))
        if held == EMPTY:
            return
        held = held[len(BEGIN) :]
        while data := stream.read(1 << 20):
            held += data
            yield held[: -len(END)]
            held = held[-len(END) :]
