"""The first records of a piece, for ``--limit``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modelbeam.formats.base import Reader
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept
from modelbeam.predicting.failures import Place


class LimitedReader(Reader):
    """Reads on only until there were so many records.

    Args:
        reader: of the piece.
        records: how many.
    """

    def __init__(self, reader: Reader, records: int) -> None:
        self._reader, self._left = reader, records

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order, the last one cut off."""
        for batch in self._reader:
            self.units = self._reader.units
            count = batch.count()
            yield batch if count <= self._left else FirstRecords(batch, self._left)
            self._left -= count
            if self._left <= 0:
                return

    def took(self, seconds: float) -> None:
        """Pass it on."""
        self._reader.took(seconds)

    def progress(self) -> tuple[int, int]:
        """That of the piece."""
        return self._reader.progress()


class FirstRecords(Batch):
    """Some records of a batch, those that come first.

    Args:
        batch: all of them.
        records: how many.
    """

    def __init__(self, batch: Batch, records: int) -> None:
        self._batch, self._records = batch, records

    def _cut(self, decoded: Decoded) -> Decoded:
        rows = decoded.rows
        rows = list(range(len(decoded.records))) if rows is None else rows
        every = sorted([*rows, *(failure.row for failure in decoded.failures)])
        if len(every) <= self._records:
            return decoded._replace(rows=rows)
        end = every[self._records]
        rows = [row for row in rows if row < end]
        failures = [failure for failure in decoded.failures if failure.row < end]
        return Decoded(decoded.records[: len(rows)], rows, failures)

    def count(self) -> int:
        """How many records there are."""
        return min(self._records, self._batch.count())

    def seen_by(self, signature: Signature | None) -> Batch:
        """The same for another model."""
        return FirstRecords(self._batch.seen_by(signature), self._records)

    def records(self) -> Decoded:
        """The records as dicts."""
        return self._cut(self._batch.records())

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns."""
        return self._cut(self._batch.table(signature, validate))

    def plain_table(self, signature: Signature) -> Decoded | None:
        """The records as columns, if no schema's code has to see them."""
        plain = self._batch.plain_table(signature)
        return None if plain is None else self._cut(plain)

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some columns of some rows."""
        return self._batch.keep(names, self.records().rows if rows is None else rows)

    def position(self, row: int) -> Place:
        """That of the whole batch."""
        return self._batch.position(row)

    def source(self, row: int) -> str | None:
        """The file that a record is in."""
        return self._batch.source(row)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """That of the whole batch."""
        return self._batch.original(row, parsed)
