"""A block of lines as the batch that models are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.formats.jsonl import columns
from modelbeam.formats.jsonl.decode import decode_records
from modelbeam.formats.jsonl.encode import selected
from modelbeam.formats.jsonl.lines import BLOCK_BYTES, BlockReader, LineBlock, LongLine
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept, composed
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.failures import (
    Failure,
    Position,
    moved,
    original_text,
    without_returns,
)

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
    """

    def __init__(self, piece: Piece, wanted: Wanted) -> None:
        self._piece, self._wanted = piece, wanted
        self._blocks = BlockReader(piece, wanted.longest, _FIRST_BLOCK[wanted.style])
        self._last: LineBlock | LongLine | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        for block in self._blocks:
            self._last = block
            self.units = block.line + (1 if isinstance(block, LongLine) else block.count)
            yield (
                LongLineBatch(block, self._wanted.longest)
                if isinstance(block, LongLine)
                else LinesBatch(block, self._wanted.keep)
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
    """The records of a block of lines.

    Args:
        block: the lines.
        keep: members that will be kept, whose places are noted while columns are decoded.
    """

    def __init__(self, block: LineBlock, keep: Keep = ()) -> None:
        self.block = block
        self._keep = () if keep == "all" else keep
        self._certain: columns.Columns | None = None

    def records(self) -> Decoded:
        """The records as dicts."""
        return decode_records(self.block)

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns; the reference looks only at lines that are not certain."""
        block, certain = self.block, None
        if signature is not None and signature.exact:
            certain = columns.decode(block, signature, self._keep)
            self._certain = certain if self._keep else None
        if certain is not None and not certain.doubtful:
            return Decoded(certain.batch, certain.rows, [])
        decoded = decode_records(block, certain.doubtful if certain else None)
        batch, fitting, failures = to_batch(decoded.records, signature, validate)
        rows = composed(decoded.rows, fitting)
        failures = decoded.failures + [moved(failure, decoded.rows) for failure in failures]
        if certain is not None:
            batch, rows = _merged(certain, batch, rows or [])
        return Decoded(batch, rows, failures)

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Members of the lines, their texts as they are."""
        if names != "all":
            return KeptText(self._cut(names, rows))
        lines = self.block.lines
        if rows is not None:
            lines = [lines[row] for row in rows]
        return KeptText([without_returns(line) for line in lines])

    def _cut(self, names: Sequence[str], rows: list[int] | None) -> list[bytes]:
        """Some members of some lines, cut out by the decoder in C where it is certain of them."""
        lines = self.block.lines
        certain = self._certain or columns.places_of(self.block, names)
        if certain is None or certain.places is None:
            chosen = lines if rows is None else [lines[row] for row in rows]
            return [selected(line, names) for line in chosen]
        made: list[bytes] = columns.cut(self.block, certain.places, names).to_pylist()
        if certain.rows == rows:
            return made
        by_line = dict(zip(certain.rows or range(len(made)), made, strict=True))
        return [
            by_line[row] if row in by_line else selected(lines[row], names)
            for row in (range(len(lines)) if rows is None else rows)
        ]

    def position(self, row: int) -> Position:
        """The line, from 1 in its piece, and its offset in the file."""
        return self.block.position(row)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The line."""
        return original_text(self.block.raw(row), parsed)


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
            f"the line has {line.length} bytes, more than --max-record-size ({longest}); "
            f"'record' is its beginning",
        )

    def records(self) -> Decoded:
        """No record, but its failure."""
        return Decoded([], [], [self._failure])

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Nothing."""
        return KeptText([])

    def position(self, row: int) -> Position:
        """The line, from 1 in its piece, and its offset in the file."""
        return Position(self._line.line + 1, self._line.offset)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """How long the line is, and its beginning."""
        head = _whole_characters(self._line.head)
        return {"record_bytes": self._line.length, **original_text(head, parsed)}


class KeptText(Kept):
    """What is kept of lines, as texts of JSON objects.

    Args:
        texts: one a record.
    """

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records."""
        return KeptText([self._texts[row] for row in rows])

    def names(self, row: int) -> set[str]:
        """The members that one record has."""
        return set(orjson.loads(self._texts[row]))

    def clashing(self, names: Sequence[str]) -> Sequence[int]:
        """The rows whose text holds one of the names, or an escape that may hide one."""
        tokens = [json.dumps(n, ensure_ascii=False).encode("utf-8", "replace") for n in names]
        return [
            row
            for row, text in enumerate(self._texts)
            if b"\\" in text or any(token in text for token in tokens)
        ]

    def texts(self) -> list[bytes]:
        """The texts."""
        return self._texts

    def dicts(self) -> list[dict[str, Any]]:
        """The texts, parsed."""
        return [orjson.loads(text) for text in self._texts]


def _merged(certain: columns.Columns, batch: Any, rows: list[int]) -> tuple[Any, list[int]]:
    """The rows of two batches in the order of their lines."""
    if not rows:
        return certain.batch, certain.rows or []
    import pyarrow as pa

    lines = np.array([*(certain.rows or []), *rows])
    order = np.argsort(lines, kind="stable")
    both = pa.Table.from_batches([certain.batch, batch.cast(certain.batch.schema)])
    return both.take(order).combine_chunks().to_batches()[0], lines[order].tolist()


def _whole_characters(head: bytes) -> bytes:
    """The beginning of a text without the character that was cut in two at its end."""
    for cut in range(min(4, len(head))):
        try:
            head[: len(head) - cut].decode("utf-8")
            return head[: len(head) - cut]
        except UnicodeDecodeError:
            continue
    return head
