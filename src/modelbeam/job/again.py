"""The failed records of an earlier run again: new predictions take their place among its rows.

Before the run it is written down for each split where the earlier run's rows are, and which of its
records had failed (:class:`Earlier`). A split is then read as ever; the model sees the failed
records only, and what is written is the earlier rows, as they are, with the new ones between them.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelbeam import formats, storage
from modelbeam.errors import ReconciliationError
from modelbeam.formats.base import Wanted
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.formats.several import without
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
        shards: the files that hold its rows, in order: for each the path, how many of its rows
            belong to splits before this one, and how many to it (``None`` for all the others).
        format: of these files, as ``--output-format`` has it.
        failed: for each piece the keys (see :func:`key_of`) of its records that failed.
        partly: those of them that have a row nevertheless, as one of several models has predicted
            them; a new row takes its place.
        by_line: whether the keys of records in lines are the lines of the piece, from 1, on which
            they begin, as the file was changed since.
    """

    shards: list[tuple[str, int, int | None]]
    format: str
    failed: list[list[int]]
    partly: list[list[int]]
    by_line: bool = False

    def write(self, directory: str, split: Split) -> None:
        """Write it down for whoever predicts the split."""
        content = json.dumps(asdict(self)).encode()
        storage.write_atomically(join(directory, f"{split.key}.json"), content)

    @classmethod
    def read(cls, directory: str, split: Split) -> Earlier:
        """Read what was written down."""
        return cls(**json.loads(storage.read_bytes(join(directory, f"{split.key}.json"))))


def key_of(place: dict[str, Any], by_line: bool = False) -> int:
    """What tells a record from others of its piece: its offset in the file, or its line or row."""
    if "offset" not in place:
        return int(place["row"])
    return int(place["line"] if by_line else place["offset"])


class Again:
    """The earlier rows of a split, taken in order.

    Args:
        earlier: what was written down.
        attempt: into which they and the new rows go.
    """

    def __init__(self, earlier: Earlier, attempt: Attempt) -> None:
        self.attempt = _Between(self, attempt)
        self._failed = [set(keys) for keys in earlier.failed]
        self._partly = [set(keys) for keys in earlier.partly]
        self._by_line = earlier.by_line
        self._where = " and ".join(path for path, _, _ in earlier.shards) or "the earlier output"
        self._chunks = _rows_of(earlier)
        self._chunk: Kept | None = None
        self._at = 0

    def choose(self, batch: Batch, piece: int) -> tuple[set[int], list[int]]:
        """Say which rows of a batch are to be predicted.

        Returns:
            Those whose records had failed, and those whose rows are kept as they are.
        """
        decoded = batch.records()
        places = range(len(decoded.records)) if decoded.rows is None else decoded.rows
        rows = sorted([*places, *(failure.row for failure in decoded.failures)])
        keys = {row: key_of(_dict(batch.position(row)), self._by_line) for row in rows}
        failed = {row for row in rows if keys[row] in self._failed[piece]}
        replaced = {row for row in failed if keys[row] in self._partly[piece]}
        kept = [row for row in rows if row not in failed]
        self.attempt.rows = sorted([*kept, *replaced])
        self.attempt.replaced = replaced
        return failed, kept

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

    def end(self) -> None:
        """Make sure that all rows were taken.

        Raises:
            ReconciliationError: there are more.
        """
        more = self._chunk is not None and self._at < len(self._chunk)
        if more or any(len(chunk) for chunk in self._chunks):
            raise self._wrong()

    def _wrong(self) -> ReconciliationError:
        return ReconciliationError(
            f"The rows in {self._where} are not those that the error lines leave: the output was "
            f"changed after the run. Nothing was published; run the job again with --overwrite."
        )


def _dict(place: Place) -> dict[str, Any]:
    return place._asdict()


def _rows_of(earlier: Earlier) -> Iterator[Kept]:
    """The rows of the files that belong to the split, as a reader of them keeps all columns."""
    kind = formats.parse(earlier.format, "--output-format")
    told = Reading(",", "utf-8", None) if kind.name == "csv" else AS_IT_SAYS
    wanted = Wanted("record", longest=_WHOLE, keep="all")
    for path, skip, rows in earlier.shards:
        stop = _WHOLE if rows is None else skip + rows
        source = source_of(path)
        info = storage.stat(path)
        splits, _ = source.plan([info], _WHOLE, input_format=kind, earlier=None, reading=told)
        at = 0
        for piece in (piece for split in splits for piece in split.pieces):
            for batch in source.reader(piece, wanted):
                kept = batch.keep("all", None)
                first, last = max(skip - at, 0), min(stop - at, len(kept))
                at += len(kept)
                if first < last:
                    yield kept.take(range(first, last))
                if at >= stop:
                    break
            if at >= stop:
                break


class _Between(Attempt):
    """An attempt that writes the earlier rows of a batch around its new ones.

    Attributes:
        rows: the rows of the batch that the earlier run has predicted, in order.
        replaced: those of them that are not kept.
    """

    def __init__(self, again: Again, attempt: Attempt) -> None:
        self._again, self._attempt = again, attempt
        self.rows: list[int] = []
        self.replaced: set[int] = set()

    def write(self, outcome: Outcome) -> tuple[int, list[Failure]]:
        """Write new predictions, each in its place."""
        rows: Sequence[int] = outcome.rows or ()
        written, failures = 0, []
        at = done = 0
        while at < len(rows):
            before = done
            while done < len(self.rows) and self.rows[done] <= rows[at]:
                done += 1
            self._write_earlier(self.rows[before:done])
            stop = at + 1
            limit = self.rows[done] if done < len(self.rows) else None
            while stop < len(rows) and (limit is None or rows[stop] < limit):
                stop += 1
            count, refused = self._attempt.write(_part_of(outcome, at, stop))
            written += count
            if outcome.parts:  # their failures name rows of the batch
                failures += refused
            else:
                failures += [replace(failure, row=at + failure.row) for failure in refused]
            at = stop
        self._write_earlier(self.rows[done:])
        return written, failures

    def _write_earlier(self, rows: Sequence[int]) -> None:
        """Write the next rows of the earlier run, but for those that are replaced."""
        for replaced, some in itertools.groupby(rows, self.replaced.__contains__):
            taken = self._again.take(len(list(some)))
            if replaced:
                collections.deque(taken, maxlen=0)
            else:
                self._write_kept(taken)

    def _write_kept(self, taken: Iterable[Kept]) -> None:
        for kept in taken:
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
    if outcome.parts:
        rows = (outcome.rows or [])[start:stop]
        chosen = set(rows)
        parts = tuple(
            (name, without(part, {n for n, row in enumerate(part.rows or ()) if row not in chosen}))
            for name, part in outcome.parts
        )
        return replace(outcome, rows=rows, kept=kept, parts=parts)
    if not outcome.table:
        return replace(outcome, values=outcome.values[start:stop], kept=kept)
    values, at = [], 0
    for piece in outcome.values:
        first, last = max(start - at, 0), min(stop - at, len(piece))
        if first < last:
            values.append(piece.slice(first, last - first))
        at += len(piece)
    return replace(outcome, values=values, kept=kept)
