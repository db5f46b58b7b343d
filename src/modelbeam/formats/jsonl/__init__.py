"""JSON Lines (also LDJSON, NDJSON), https://jsonlines.org.

======================= ==========================================================================
:mod:`.detect`          whether the first bytes of a file are JSON Lines
:mod:`.batch`           a block of lines as the batch that models are given
:mod:`.decode`          lines into dicts, by ``orjson``: the reference for what is valid
:mod:`.columns`         lines straight into columns, in C
:mod:`.values`          what each type becomes in JSON
:mod:`.table`           columns as lines, in C
:mod:`.texts`           texts that stand in one piece of memory
:mod:`.encode`          predictions, and what is kept of the input, as lines
:mod:`.writer`          a file of them
======================= ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from modelbeam.formats.base import Piece, Reader, Wanted, Writer
from modelbeam.formats.layout import Layout
from modelbeam.formats.lines import LineBlock, LinesFormat
from modelbeam.predicting.batch import Batch, Keep


class JsonLines(LinesFormat):
    """One JSON object a line."""

    name = "jsonl"

    def really(self, head: bytes, whole: bool) -> str:
        """One array is ``json``."""
        from modelbeam.formats.jsonl.detect import is_array

        return "json" if is_array(head, whole) else self.name

    def problem(self, head: bytes, whole: bool) -> str | None:
        """JSON of another shape is told: an array, objects over several lines."""
        from modelbeam.formats.jsonl.detect import problem

        return problem(head, whole)

    def batch(self, block: LineBlock, keep: Keep = ()) -> Batch:
        """The records of a block."""
        from modelbeam.formats.jsonl.batch import JsonBatch

        return JsonBatch(block, keep)

    def joined(self, pieces: Sequence[Piece], wanted: Wanted) -> Reader | None:
        """Read several small files as one."""
        from modelbeam.formats.joined import JoinedReader

        return JoinedReader(pieces, wanted, lambda block: self.batch(block, wanted.keep))

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write lines."""
        from modelbeam.formats.jsonl.writer import LinesWriter

        return LinesWriter(handle)
