"""The failed records of an earlier run again: new predictions take their place among its rows.

Before the run it is written down for each split where the earlier run's rows are, and which of its
records had failed (:class:`Earlier`). A split is then read as ever; the model sees the failed
records only, and what is written is the earlier rows, as they are, with the new ones between them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelbeam import formats, storage
from modelbeam.errors import ReconciliationError
from modelbeam.formats.base import Wanted
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.predicting.batch import Batch, Kept
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure, Place
from modelbeam.predicting.outcome import Outcome
from modelbeam.sinks.base import Attempt, Manifest
from modelbeam.sources import source_of
from modelbeam.sources.splits import Split
from modelbeam.storage import join

_WHOLE = 1 << 62


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier run made of a split.

    Attributes:
        shard: the file that holds its rows; ``None`` if it has none.
        format: of that file, as ``--output-format`` has it.
        skip: how many rows of the file belong to splits before it.
        rows: how many belong to it; ``None`` for all.
        failed: for each piece the keys (see :func:`key_of`) of its records that failed.
    """

    shard: str | None
    format: str
    skip: int
    rows: int | None
    failed: list[list[int]]

    def write(self, directory: str, split: Split) -> None:
        """Write it down for whoever predicts the split."""
        content = json.dumps(asdict(self)).encode()
        storage.write_atomically(join(directory, f"{split.key}.json"), content)

    @classmethod
    def read(cls, directory: str, split: Split) -> Earlier:
        """Read what was written down."""
        return cls(**json.loads(storage.read_bytes(join(directory, f"{split.key}.json"))))


def key_of(place: dict[str, Any]) -> int:
    """What tells a record from others of its piece: its offset in the file, or its row."""
    return int(place["offset"] if "offset" in place else place["row"])


class Again:
    """The earlier rows of a split, taken in order.

    Args:
        earlier: what was written down.
        attempt: into which they and the new rows go.
    """

    def __init__(self, earlier: Earlier, attempt: Attempt) -> None:
        self.attempt = _Between(self, attempt)
        self._failed = [set(keys) for keys in earlier.failed]
        self._shard, self._left = earlier.shard, earlier.rows
        self._chunks = _rows_of(earlier)
        self._chunk: Kept | None = None
        self._at = 0

    def failed_rows(self, batch: Batch, piece: int) -> tuple[list[int], set[int]]:
        """The rows of all records of a batch in order, and of those that had failed."""
        decoded = batch.records()
        places = range(len(decoded.records)) if decoded.rows is None else decoded.rows
        rows = sorted([*places, *(failure.row for failure in decoded.failures)])
        known = self._failed[piece]
        return rows, {row for row in rows if key_of(_dict(batch.position(row))) in known}

    def take(self, count: int) -> Iterator[Kept]:
        """The next rows."""
        while count:
            if self._chunk is None or self._at == len(self._chunk):
                self._chunk, self._at = next(self._chunks, None), 0
                if self._chunk is None:
                    raise self._wrong()
                continue
            some = min(count, len(self._chunk) - self._at)
            yield self._chunk.take(range(self._at, self._at + some))
            self._at += some
            count -= some
            if self._left is not None:
                self._left -= some

    def end(self) -> None:
        """Make sure that all rows were taken.

        Raises:
            ReconciliationError: there are more.
        """
        if self._left is not None:
            more = self._left != 0
        else:
            more = self._chunk is not None and self._at < len(self._chunk)
            more = more or any(len(chunk) for chunk in self._chunks)
        if more:
            raise self._wrong()

    def _wrong(self) -> ReconciliationError:
        return ReconciliationError(
            f"The rows in {self._shard} are not those that the error lines leave: the output was "
            f"changed after the run. Nothing was published; run the job again with --overwrite."
        )


def _dict(place: Place) -> dict[str, Any]:
    return place._asdict()


def _rows_of(earlier: Earlier) -> Iterator[Kept]:
    """The rows of the file, as a reader of it keeps all columns."""
    if earlier.shard is None:
        return
    kind = formats.parse(earlier.format, "--output-format")
    source = source_of(earlier.shard)
    told = Reading(",", "utf-8", None) if kind.name == "csv" else AS_IT_SAYS
    info = storage.stat(earlier.shard)
    splits, _ = source.plan([info], _WHOLE, input_format=kind, earlier=None, reading=told)
    wanted = Wanted("record", longest=_WHOLE, keep="all")
    skip = earlier.skip
    for piece in (piece for split in splits for piece in split.pieces):
        for batch in source.reader(piece, wanted):
            kept = batch.keep("all", None)
            if skip < len(kept):
                yield kept.take(range(skip, len(kept))) if skip else kept
            skip = max(0, skip - len(kept))


class _Between(Attempt):
    """An attempt that writes the earlier rows of a batch around its new ones.

    Attributes:
        rows: the rows of the batch that the earlier run has predicted, in order.
    """

    def __init__(self, again: Again, attempt: Attempt) -> None:
        self._again, self._attempt = again, attempt
        self.rows: list[int] = []

    def write(self, outcome: Outcome) -> tuple[int, list[Failure]]:
        """Write new predictions, each in its place."""
        rows: Sequence[int] = outcome.rows or ()
        written, failures = 0, []
        at = done = 0
        while at < len(rows):
            before = done
            while done < len(self.rows) and self.rows[done] < rows[at]:
                done += 1
            self._write_earlier(done - before)
            stop = at + 1
            limit = self.rows[done] if done < len(self.rows) else None
            while stop < len(rows) and (limit is None or rows[stop] < limit):
                stop += 1
            count, refused = self._attempt.write(_part_of(outcome, at, stop))
            written += count
            failures += [replace(failure, row=at + failure.row) for failure in refused]
            at = stop
        self._write_earlier(len(self.rows) - done)
        return written, failures

    def _write_earlier(self, count: int) -> None:
        for kept in self._again.take(count):
            size = len(kept)
            empty = Outcome(size, [{} for _ in range(size)], False, None, kept, [])
            written, failures = self._attempt.write(empty)
            if written != size:
                raise ReconciliationError(
                    f"A row of the earlier run has no place in the output any more: "
                    f"{failures[0].error}. Nothing was published; run the job again with "
                    f"--overwrite."
                )

    def write_errors(self, lines: bytes) -> None:
        """Write error lines."""
        self._attempt.write_errors(lines)

    def commit(self, counts: Counts, units: int, profile: bytes | None = None) -> Manifest:
        """Commit the attempt."""
        return self._attempt.commit(counts, units, profile)

    def abandon(self) -> None:
        """Abandon the attempt."""
        self._attempt.abandon()


def _part_of(outcome: Outcome, start: int, stop: int) -> Outcome:
    """Some consecutive predictions."""
    kept = None if outcome.kept is None else outcome.kept.take(range(start, stop))
    if not outcome.table:
        return replace(outcome, values=outcome.values[start:stop], kept=kept)
    values, at = [], 0
    for piece in outcome.values:
        first, last = max(start - at, 0), min(stop - at, len(piece))
        if first < last:
            values.append(piece.slice(first, last - first))
        at += len(piece)
    return replace(outcome, values=values, kept=kept)
