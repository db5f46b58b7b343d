"""JSON Lines (also LDJSON, NDJSON), https://jsonlines.org.

======================= ==========================================================================
:mod:`.detect`          whether the first bytes of a file are JSON Lines
:mod:`.lines`           whole lines of a piece, in blocks
:mod:`.batch`           a block as the batch that models are given, and its reader
:mod:`.decode`          lines into dicts, by ``orjson``: the reference for what is valid
:mod:`.columns`         lines straight into columns, in C
:mod:`.encode`          predictions, and what is kept of the input, as lines
:mod:`.writer`          a file of them
======================= ==========================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted, Writer
from modelbeam.predicting.batch import Batch
from modelbeam.storage import FileInfo


class JsonLines(FileFormat):
    """One JSON object a line; a piece is the lines whose first byte is in a range of bytes."""

    name = "jsonl"

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """Ranges of bytes; a compressed file is one piece."""
        if compression is not None:
            return [Cut(0, None, file.size)]
        pieces = max(1, round(file.size / size))
        ends = [file.size * i // pieces for i in range(pieces + 1)]
        return [Cut(start, end, end - start) for start, end in itertools.pairwise(ends)]

    def problem(self, head: bytes, whole: bool) -> str | None:
        """JSON of another shape is told: an array, objects over several lines."""
        from modelbeam.formats.jsonl.detect import problem

        return problem(head, whole)

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        from modelbeam.formats.jsonl.batch import LinesReader

        return LinesReader(piece, wanted)

    def first(self, path: str, compression: str | None, records: int) -> Batch:
        """The first lines of a file."""
        from modelbeam.formats.jsonl.batch import LinesBatch
        from modelbeam.formats.jsonl.lines import first_block

        return LinesBatch(first_block(path, compression, records))

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Lines from the middle and near the end; a compressed file would have to be unpacked."""
        if piece.compression is not None:
            return
        for start in (piece.size // 2, piece.size - min(piece.size // 4, 64 << 10)):
            part = replace(piece, start=start, end=piece.size)
            yield from itertools.islice(self.reader(part, Wanted("record")), 1)

    def writer(self, handle: BinaryIO) -> Writer:
        """Write lines."""
        from modelbeam.formats.jsonl.writer import LinesWriter

        return LinesWriter(handle)
