"""A block of lines as the batch that models are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from modelbeam.formats.jsonl import columns
from modelbeam.formats.jsonl.decode import decode_records
from modelbeam.formats.jsonl.encode import selected
from modelbeam.formats.jsonl.texts import Texts
from modelbeam.formats.lines import LineBlock, LinesBatch
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Decoded, Keep, Kept, composed
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.failures import moved, original_text


class JsonBatch(LinesBatch):
    """The records of a block of lines.

    Args:
        block: the lines.
        keep: members that will be kept, whose places are noted while columns are decoded.
    """

    def __init__(self, block: LineBlock, keep: Keep = ()) -> None:
        super().__init__(block)
        self._keep = () if keep == "all" else keep
        self._certain: columns.Columns | None = None
        self._signature: Signature | None = None

    def records(self) -> Decoded:
        """The records as dicts."""
        return decode_records(self.block)

    def count(self) -> int:
        """How many lines are not blank."""
        return sum(1 for line in self.block.lines if line.strip())

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns; the reference looks only at lines that are not certain."""
        certain = self._decode(signature)
        if certain is not None and not certain.doubtful:
            return Decoded(certain.batch, certain.rows, [])
        decoded = decode_records(self.block, certain.doubtful if certain else None)
        batch, fitting, failures = to_batch(decoded.records, signature, validate)
        rows = composed(decoded.rows, fitting)
        failures = decoded.failures + [moved(failure, decoded.rows) for failure in failures]
        if certain is not None:
            batch, rows = _merged(certain, batch, rows or [])
        return Decoded(batch, rows, failures)

    def plain_table(self, signature: Signature) -> Decoded | None:
        """The records as columns, if none of their lines is doubtful."""
        certain = self._decode(signature)
        if certain is None or certain.doubtful:
            return None
        return Decoded(certain.batch, certain.rows, [])

    def _decode(self, signature: Signature | None) -> columns.Columns | None:
        """What is certain of the lines; remembered."""
        if signature is None or not signature.decodable:
            return None
        if self._signature is not signature:
            self._certain = columns.decode(self.block, signature, self._keep)
            self._signature = signature
        return self._certain

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Members of the lines, their texts as they are."""
        if names != "all":
            return KeptText(self._cut(names, rows))
        texts = columns.lines(self.block)
        return KeptText(texts if rows is None else texts.take(rows))

    def _cut(self, names: Sequence[str], rows: list[int] | None) -> Sequence[bytes]:
        """Some members of some lines, cut out by the decoder in C where it is certain of them."""
        certain = self._certain if self._keep else None
        certain = certain or columns.places_of(self.block, names)
        if certain is None or certain.places is None:
            lines = self.block.lines
            chosen = lines if rows is None else [lines[row] for row in rows]
            return [selected(line, names) for line in chosen]
        made = columns.cut(self.block, certain.places, names)
        if certain.rows == rows:
            return made
        lines = self.block.lines
        by_line = dict(zip(certain.rows or range(len(made)), made, strict=True))
        return [
            by_line[row] if row in by_line else selected(lines[row], names)
            for row in (range(len(lines)) if rows is None else rows)
        ]

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The line."""
        if parsed:
            return original_text(self.block.one(row).strip(), parsed)
        return original_text(self.block.raw(row), parsed)


class KeptText(Kept):
    """What is kept of lines, as texts of JSON objects.

    Args:
        texts: one a record.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self._texts = Texts.of(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records."""
        return KeptText(self._texts.take(rows))

    def names(self, row: int) -> set[str]:
        """The members that one record has."""
        return set(orjson.loads(self._texts[row]))

    def clashing(self, names: Sequence[str]) -> Sequence[int]:
        """The rows whose text holds one of the names, or an escape that may hide one."""
        tokens = [json.dumps(n, ensure_ascii=False).encode("utf-8", "replace") for n in names]
        escaped = b"\\" in self._texts.data
        return self._texts.holding([*tokens, *(_HIDING if escaped else ())])

    def texts(self) -> Sequence[bytes]:
        """The texts."""
        return self._texts

    def dicts(self) -> list[dict[str, Any]]:
        """The texts, parsed."""
        return [orjson.loads(text) for text in self._texts]


_HIDING = (rb"\u", rb"\/")
"""Escapes of what may as well stand in a name without one."""


def _merged(certain: columns.Columns, batch: Any, rows: list[int]) -> tuple[Any, list[int]]:
    """The rows of two batches in the order of their lines."""
    if not rows:
        return certain.batch, certain.rows or []
    import pyarrow as pa

    lines = np.array([*(certain.rows or []), *rows])
    order = np.argsort(lines, kind="stable")
    both = pa.Table.from_batches([certain.batch, batch.cast(certain.batch.schema)])
    return both.take(order).combine_chunks().to_batches()[0], lines[order].tolist()
