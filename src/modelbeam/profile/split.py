"""What is collected of one split, batch by batch, while it is predicted."""

from __future__ import annotations

import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from modelbeam.predicting.batch import Batch, Decoded
from modelbeam.predicting.columns import Parts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.profile.cells import (
    COLUMNS,
    DOUBLE,
    INTEGER,
    TEXT,
    Cell,
    Cells,
    cell,
    columns_of,
    flat,
    missing,
    of_arrow,
    of_cells,
    of_numbers,
    of_plain,
    together,
)
from modelbeam.profile.exact import Counted, is_text
from modelbeam.profile.failures import Failures, as_it_was, shown_record
from modelbeam.profile.odd import COLUMNS as ODD_COLUMNS
from modelbeam.profile.odd import SCORES, Odd
from modelbeam.profile.pace import Pace
from modelbeam.profile.sample import Level, taken
from modelbeam.profile.wants import Wants
from modelbeam.text import as_utf8


class Sampled:
    """The sampled records of one side of a model: numbers in the split, and columns.

    Attributes:
        dropped: how many columns were left out.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._chunks: list[tuple[Any, Any]] = []

    def add(self, numbers: Any, rows: Any) -> None:
        """Add records: for each a dict of cells, or arrays by the names of columns."""
        if len(numbers):
            self._chunks.append((numbers, rows))

    def thin(self, level: int) -> None:
        """Keep those of a level."""
        kept = []
        for numbers, rows in self._chunks:
            mask = taken(numbers, level)
            if mask.all():
                kept.append((numbers, rows))
            elif mask.any():
                places = np.flatnonzero(mask)
                if isinstance(rows, list):
                    rows = [rows[place] for place in places.tolist()]
                else:
                    rows = {name: column.take(places) for name, column in rows.items()}
                kept.append((numbers[places], rows))
        self._chunks = kept

    def columns(self) -> tuple[Any, dict[str, Cells]]:
        """The records' numbers, in order, and the cells of each column."""
        if not self._chunks:
            return np.empty(0, np.uint64), {}
        if all(isinstance(rows, list) for _, rows in self._chunks):  # then they are one
            numbers = np.concatenate([numbers for numbers, _ in self._chunks])
            rows = [row for _, some in self._chunks for row in some]
            self._chunks = [(numbers, _by_column(rows) or list(map(_cells_of, rows)))]
        sizes = [len(numbers) for numbers, _ in self._chunks]
        parts: dict[str, dict[int, Any]] = {}
        for at, (_, rows) in enumerate(self._chunks):
            for name, column in _columns_of(rows):
                if name in parts or len(parts) < COLUMNS:
                    parts.setdefault(name, {})[at] = column
                else:
                    self.dropped += 1
        numbers = np.concatenate([numbers for numbers, _ in self._chunks])
        order = None
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            numbers = numbers[order]
        made = {}
        for name, found in parts.items():
            cells = _joined(found, sizes)
            made[name] = cells if order is None else cells.take(order)
        return numbers, made


class _Later(dict[str, Any]):
    """A record of which the cells are made once it is known that it stays in the sample."""


_PLAIN = frozenset({float, int, bool, type(None)})


def _kept(record: Any) -> dict[str, Any]:
    """What is noted of a record: a copy where that is small and nobody's but ours, else cells."""
    if type(record) is not dict or len(record) > COLUMNS:
        return _row(record)
    for value in record.values():
        kind = type(value)
        if kind not in _PLAIN and (kind is not str or len(value) > TEXT):
            return _row(record)
    return _Later(record)


def _cells_of(row: Any) -> dict[str, Cell]:
    return _row(row) if type(row) is _Later else row


def _by_column(rows: list[Any]) -> dict[str, Cells] | None:
    """The columns of records that all have the same members; ``None`` if these do not."""
    names = tuple(rows[0])
    if {_Later} != set(map(type, rows)) or {names} != set(map(tuple, rows)):
        return None
    if not all(type(name) is str and len(name) <= TEXT for name in names):
        return None
    return {name: of_plain([row[name] for row in rows]) for name in names}


def _columns_of(rows: Any) -> Any:
    """The columns of a chunk."""
    if not isinstance(rows, list):
        yield from rows.items()
        return
    rows = list(map(_cells_of, rows))
    nothing: Cell = cell(None)
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        yield name, [row.get(name, nothing) for row in rows]


def _joined(found: dict[int, Any], sizes: list[int]) -> Cells:
    """One column of several chunks; it is missing in those that do not have it."""
    plain = [part for part in found.values() if isinstance(part, np.ndarray)]
    if len(plain) == len(sizes) and len({part.dtype for part in plain}) == 1:
        return of_numbers(np.concatenate(plain))
    cells = []
    for at, size in enumerate(sizes):
        part = found.get(at)
        if part is None:
            cells.append(missing(size))
        elif isinstance(part, Cells):
            cells.append(part)
        else:
            cells.append(of_cells(part) if isinstance(part, list) else of_arrow(part))
    return together(cells)


def _row(record: Any) -> dict[str, Cell]:
    """The cells of a dict."""
    if not isinstance(record, dict):
        return {}
    return {name: cell(value) for name, value in itertools.islice(flat(record), COLUMNS)}


class Side:
    """The inputs or the predictions of one model in a split.

    Args:
        values: whether it is counted how often each value is there.

    Attributes:
        records: how many there are.
    """

    def __init__(self, *, values: bool) -> None:
        self.records = 0
        self.sampled = Sampled()
        self.counted = Counted(values=values)

    def see_dicts(self, numbers: Any, records: list[Any]) -> None:
        """Take some of the records, as they are."""
        self.counted.drop()
        self.sampled.add(numbers, list(map(_kept, records)))

    def see_batch(self, batch: Any, numbers: Any, rows: Any) -> None:
        """Count an Arrow batch, and take some of its rows."""
        counted = self.counted.see(batch)
        if not len(rows):
            return
        taken_: dict[str, Any] = {}
        for name, column in columns_of(batch):
            if name not in taken_:
                plain = counted.get(name)
                taken_[name] = (column if plain is None else plain).take(rows)
        self.sampled.add(numbers, taken_)


class Member:
    """What is collected of one model in a split.

    Attributes:
        inputs, predictions: the columns.
        odd: the records that stand out.
        level: of the sample; its ``records`` are those that the model was given.
    """

    def __init__(self, wants: Wants) -> None:
        self.inputs, self.predictions = Side(values=False), Side(values=True)
        self.odd = Odd()
        self.level = Level(wants.rows)
        self._wants = wants
        self._sized = False
        self._first = 0
        self._rows: Any = None
        self._chosen: Any = None
        self._places: dict[int, tuple[str, Any, Any]] = {}

    def decoded(self, decoded: Decoded) -> None:
        """Take what was read of a batch, before the model sees it."""
        records, failures = decoded.records, decoded.failures
        self._size(records)
        before = self.level.level
        self._first = self.level.records
        rows: Any = decoded.rows
        self._rows = None
        if rows is not None or failures:
            good = np.arange(len(records)) if rows is None else np.asarray(rows, np.int64)
            bad = np.array([failure.row for failure in failures], np.int64)
            self._rows = np.sort(np.concatenate((good, bad)))
            rows = good
        self._chosen = self.level.grow(decoded.read)
        if self.level.level != before:
            self.inputs.sampled.thin(self.level.level)
            self.predictions.sampled.thin(self.level.level)
            self._thin_places()
        if isinstance(records, Parts):
            for batch, places in zip(records.batches, records.rows, strict=True):
                given = places if rows is None else [rows[place] for place in places]
                self._see(self.inputs, batch, np.asarray(given, np.int64))
        else:
            self._see(self.inputs, records, rows)

    def _thin_places(self) -> None:
        if self._places:
            numbers = np.array(list(self._places), np.uint64)
            kept = numbers[taken(numbers, self.level.level)].tolist()
            self._places = {number: self._places[number] for number in kept}

    def _size(self, records: Any) -> None:
        """Sample fewer where the first record has very many columns."""
        if self._sized or not len(records):
            return
        self._sized = True
        if isinstance(records, Parts):
            columns = records.batches[0].num_columns
        elif isinstance(records, list):
            columns = sum(1 for _ in itertools.islice(flat(records[0]), COLUMNS))
        else:
            columns = min(records.num_columns, COLUMNS)
        self.level.most = self._wants.rows_of(columns)

    def numbers_of(self, rows: Any) -> Any:
        """The numbers in the split of the records of a batch's rows."""
        places = rows if self._rows is None else np.searchsorted(self._rows, rows)
        return np.asarray(places, np.uint64) + np.uint64(self._first)

    def _see(self, side: Side, records: Any, rows: Any) -> None:
        """See records, each from a row of the batch; without rows they are all of it in order."""
        if rows is None:
            chosen = self._chosen
            numbers = chosen.astype(np.uint64) + np.uint64(self._first)
        else:
            every = self.numbers_of(rows)
            chosen = np.flatnonzero(taken(every, self.level.level))
            numbers = every[chosen]
        side.records += len(records)
        if isinstance(records, list):
            side.see_dicts(numbers, [records[at] for at in chosen.tolist()])
        else:
            side.see_batch(records, numbers, chosen)

    def predicted(self, part: Outcome, lost: Sequence[int], batch: Batch, path: str) -> None:
        """Take what became of the batch.

        Args:
            part: what this model made of it.
            lost: those of its predictions that could not be written, as their indices.
            batch: the records.
            path: their file.
        """
        rows = None if part.rows is None else np.asarray(part.rows, np.int64)
        at = 0
        piece: Any
        for piece in part.values if part.table else [part.values]:
            size = piece.num_rows if part.table else len(piece)
            whole = rows is None and size == self.level.records - self._first
            some = rows[at : at + size] if rows is not None else _Range(at, at + size)
            gone = [one - at for one in lost if at <= one < at + size]
            if gone:
                kept = np.delete(np.arange(size), gone)
                piece = piece.take(kept) if part.table else [piece[i] for i in kept.tolist()]
                some, whole = np.asarray(some)[kept], False
            at += size
            if not part.table:
                self._see(self.predictions, piece, None if whole else some)
                self._note_places(some, batch, path)
                continue
            for one in piece.to_batches() if hasattr(piece, "to_batches") else [piece]:
                here, some = some[: one.num_rows], some[one.num_rows :]
                one = self.predictions.counted.coded(one)
                self._see(self.predictions, one, None if whole and not len(some) else here)
                self._odd_table(one, here, batch, path)

    def _described(self, rows: Any, batch: Batch, path: str) -> Any:
        def described(index: int) -> dict[str, Any]:
            row = int(rows[index])
            place = batch.position(row)._asdict()
            wants = self._wants
            record = shown_record(batch.original(row, True), wants) if wants.examples else {}
            return {"source": as_utf8(batch.source(row) or path), **place, **record}

        return described

    def _odd_table(self, piece: Any, rows: Any, batch: Batch, path: str) -> None:
        """Look for odd predictions among the columns of a batch."""
        import pyarrow as pa

        at = _Lazy(lambda: self.numbers_of(rows))
        described = self._described(rows, batch, path)
        numbers = 0
        scores: list[tuple[str, Any]] = []
        for name, column in columns_of(piece):
            kind = column.type
            floating = pa.types.is_floating(kind)
            if floating or pa.types.is_integer(kind):
                if numbers == ODD_COLUMNS and not floating:
                    continue
                values = np.asarray(column.to_numpy(zero_copy_only=False), float)
                values = np.where(np.isfinite(values), values, math.nan)
                if floating and len(scores) <= SCORES:
                    scores.append((name, values))
                if numbers < ODD_COLUMNS:
                    numbers += 1
                    self._extremes(name, values, at, described)
            elif pa.types.is_dictionary(kind) and is_text(kind.value_type):
                self._classes(name, column, at, described)
        if len(scores) == 1:
            name, values = scores[0]
            self.odd.numbers("least certain", name, -np.abs(values - 0.5), values, at, described)
        elif 1 < len(scores) <= SCORES:
            best = np.max([values for _, values in scores], axis=0)
            total = np.sum([values for _, values in scores], axis=0)
            sizes = np.where(np.abs(total - 1) < 1e-3, -best, math.nan)
            self.odd.numbers("least certain", scores[0][0], sizes, best, at, described)

    def _extremes(self, name: str, values: Any, at: Any, described: Any) -> None:
        if name in self._wants.mask:
            return
        self.odd.numbers("highest", name, values, values, at, described)
        self.odd.numbers("lowest", name, -values, values, at, described)

    def _classes(self, name: str, column: Any, at: Any, described: Any) -> None:
        if name in self._wants.mask or self.odd.has_all(name):
            return
        noted = self.odd.classes.get(name, {})
        known = column.dictionary.to_pylist()
        new = [code for code, value in enumerate(known) if value not in noted]
        if not new:
            return
        indices = column.indices.fill_null(-1) if column.null_count else column.indices
        codes = indices.to_numpy(zero_copy_only=False)
        first = {}
        for code in new:
            place = int((codes == code).argmax()) if len(codes) else 0
            if len(codes) and codes[place] == code:
                first[known[code]] = place
        texts = sorted((value for value in first if isinstance(value, str)), key=first.__getitem__)
        self.odd.texts(name, texts, first.__getitem__, at, described)

    def _note_places(self, rows: Any, batch: Batch, path: str) -> None:
        """Note of sampled records what is told of them, should their predictions be odd."""
        numbers = self.numbers_of(rows)
        chosen = np.flatnonzero(taken(numbers, self.level.level))
        places = np.asarray(rows)[chosen].tolist()
        for number, row in zip(numbers[chosen].tolist(), places, strict=True):
            record: Any = {}
            if self._wants.examples:
                record = as_it_was(batch.original(row, True), self._wants)
            self._places[number] = batch.source(row) or path, batch.position(row), record

    def settle(self) -> None:
        """Look for odd predictions among dicts that are sampled, once it is known which are."""
        if not self._places:
            return
        numbers, columns = self.predictions.sampled.columns()

        def described(at: int) -> dict[str, Any]:
            source, place, record = self._places[int(numbers[at])]
            if isinstance(record, bytes):
                record = shown_record({"record": orjson.Fragment(record)}, self._wants)
            return {"source": as_utf8(source), **place._asdict(), **record}

        looked = 0
        for name, cells in columns.items():
            values = np.where(np.isin(cells.kinds, (INTEGER, DOUBLE)), cells.numbers, math.nan)
            if not np.isnan(values).all():
                if looked < ODD_COLUMNS:
                    looked += 1
                    self._extremes(name, values, numbers, described)
            elif name not in self._wants.mask:
                first: dict[str, int] = {}
                for at, text in enumerate(cells.texts):
                    if text is not None:
                        first.setdefault(text, at)
                self.odd.texts(name, first, first.__getitem__, numbers, described)


class _Range:
    """Rows one after the other, as an array that is made only when it is needed."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, int):
            return self._start + which
        if isinstance(which, slice):
            start, end, _ = which.indices(len(self))
            return _Range(self._start + start, self._start + max(start, end))
        return np.asarray(which) + self._start

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.arange(self._start, self._end, dtype=dtype)


class _Lazy:
    """An array that is made when one of its items is asked for."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._made: Any = None

    def __getitem__(self, index: int) -> Any:
        if self._made is None:
            self._made = self._make()
        return self._made[index]


class SplitProfile:
    """What is collected of a split.

    Args:
        wants: how much.

    Attributes:
        members: of each model, by its name.
        failures: by kind.
        pace: batches and times.
    """

    def __init__(self, wants: Wants) -> None:
        self.members: dict[str, Member] = {}
        self.failures = Failures(wants)
        thread = threading.current_thread().name
        worker = f"{socket.gethostname()} {os.getpid()} {thread}"
        self.pace = Pace(worker, time.time())
        self._wants = wants
        self._began = 0.0

    # What :func:`.outcome.outcome_of` tells.

    def spent(self, stage: str, seconds: float) -> None:
        """Note what time went into."""
        self.pace.spent(stage, seconds)

    def decoded(self, model: str, decoded: Decoded) -> None:
        """Take what was read for a model, before it sees it."""
        member = self.members.get(model)
        if member is None:
            member = self.members[model] = Member(self._wants)
        member.decoded(decoded)

    # What the split's attempt tells.

    def predicted(
        self, path: str, batch: Batch, model: str, outcome: Outcome, unwritten: list[Failure]
    ) -> None:
        """Take what became of a batch.

        Args:
            path: its file.
            batch: the records.
            model: the name of the only model.
            outcome: what was made of them.
            unwritten: the predictions that could not be written; of one model by their index, of
                several by the row of the batch.
        """
        if not outcome.parts:
            lost = [failure.row for failure in unwritten]
            self.members[model].predicted(outcome, lost, batch, path)
            return
        for name, part in outcome.parts:
            gone = {failure.row for failure in unwritten if failure.model == name}
            lost = [at for at, row in enumerate(part.rows or ()) if row in gone] if gone else []
            self.members[name].predicted(part, lost, batch, path)

    def failed(self, path: str, failure: Failure, model: str, place: Any, original: Any) -> None:
        """Take a failed record; see :meth:`.failures.Failures.add`."""
        member = self.members.get(failure.model or model)
        number = self.pace.read
        if member is not None:
            number = int(member.numbers_of(np.array([failure.row]))[0])
        self.failures.add(number, as_utf8(path), failure, model, place, original)

    def done(self, records: int, failed: int, seconds: float) -> None:
        """A batch is done."""
        self.pace.failed += failed
        self.pace.batch(records, seconds, time.time())
