"""JSON: one array of objects a file (RFC 8259).

======================= ==========================================================================
:mod:`.elements`        where elements of the array begin and end, in bounded memory
:mod:`.writer`          a file of predictions; several put together
======================= ==========================================================================

An element is decoded as a line of JSON Lines is (:mod:`modelbeam.formats.jsonl`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from modelbeam.formats.base import Cut, Piece, Reader, Wanted, Writer
from modelbeam.formats.layout import Layout
from modelbeam.formats.lines import LineBlock, LinesFormat, LinesReader
from modelbeam.predicting.batch import Batch, Keep
from modelbeam.storage import FileInfo


class Json(LinesFormat):
    """The elements of one array; a file is one piece, since nothing in it says where one ends."""

    name = "json"

    def problem(self, head: bytes, whole: bool) -> str | None:
        """What is no array is told."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not text or text.startswith(b"["):
            return None
        return "is not one JSON array, which begins with [; lines of objects are jsonl"

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """The whole file."""
        return [Cut(0, None, file.size)]

    def batch(self, block: LineBlock, keep: Keep = ()) -> Batch:
        """The records of a block."""
        from modelbeam.formats.jsonl.batch import JsonBatch

        return JsonBatch(block, keep)

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a file."""
        from modelbeam.formats.json.elements import ElementBlocks

        return LinesReader(
            piece, wanted, lambda block: self.batch(block, wanted.keep), ElementBlocks
        )

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first elements of a file."""
        from modelbeam.formats.json.elements import first_elements

        return self.batch(first_elements(path, compression, records))

    def warm_up(self, style: str) -> None:
        """Look for elements, and import the writer; elements are decoded as lines are."""
        from modelbeam.formats.json.elements import scan
        from modelbeam.formats.json.writer import BEGIN, END

        scan(BEGIN + b'"\\""' + END)

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Nothing: other places are found only from the beginning."""
        yield from ()

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write an array."""
        from modelbeam.formats.json.writer import ArrayWriter

        return ArrayWriter(handle)

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Put the elements of several arrays into one."""
        from modelbeam.formats.json.writer import join

        join([path for path, _ in parts], target)
