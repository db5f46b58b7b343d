"""From a batch to its outcome; the same for file jobs, pipelines of one's own and streams."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np

from modelbeam.models.base import LoadedModel
from modelbeam.models.turns import seconds_waited
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept, composed
from modelbeam.predicting.compare import marked
from modelbeam.predicting.counts import Calls
from modelbeam.predicting.failures import Failure, column_clash, moved
from modelbeam.predicting.predictor import predict
from modelbeam.predicting.renaming import Rename, new_names, of_member, twice_of
from modelbeam.predicting.several import Seen, all_rows


@dataclass(slots=True)
class Outcome:
    """What became of a batch; every record is among the predictions or the failures.

    Attributes:
        read: how many records the batch had.
        values: the predictions in order: dicts, or Arrow batches if ``table``.
        table: whether the values are Arrow batches.
        rows: the row of each prediction; ``None`` where every row has one.
        kept: what stands beside each prediction, or ``None``.
        failures: one for each other record.
        recovered: how many of the predicted records had failed once, and not when tried again.
        calls: how many records a model that takes many was given at once.
        parts: of several models the name and the outcome of each, whose rows and failures are those
            of the batch; ``values`` is empty then, and a sink puts them together as its format has
            them (:func:`.several.joined`).
    """

    read: int
    values: list[Any]
    table: bool
    rows: list[int] | None
    kept: Kept | None
    failures: list[Failure]
    recovered: int = 0
    calls: Calls = field(default_factory=Calls, compare=False)
    parts: tuple[tuple[str, Outcome], ...] = ()

    @property
    def predicted(self) -> int:
        """How many predictions there are."""
        return sum(map(len, self.values)) if self.table else len(self.values)


class Observer(Protocol):
    """What is told of a batch on its way."""

    def spent(self, stage: str, seconds: float) -> None:
        """So long went into ``decode``, ``predict`` or ``waiting`` for the model's turn."""

    def decoded(self, model: str, decoded: Decoded) -> None:
        """So much could be read for a model, which may change dicts afterwards."""


def outcome_of(
    batch: Batch,
    model: LoadedModel,
    keep: Keep,
    batch_size: int | None,
    rename: Rename = (),
    observer: Observer | None = None,
) -> Outcome:
    """Decode a batch as the model takes it, and predict.

    Args:
        batch: the records.
        model: loaded and ready.
        keep: which input columns stand beside the predictions.
        batch_size: records per call, or ``None`` for the model's best.
        rename: other names of predicted columns.
        observer: told on the way.
    """
    if model.members:
        return _of_several(batch, model, keep, batch_size, rename, observer)
    table = model.info.style == "table"
    clock = _Clock(observer)
    decoded = _decoded(batch, model)
    clock.spent("decode")
    if observer is not None:
        observer.decoded(model.info.name, decoded)
    if not len(decoded.records):
        return Outcome(decoded.read, [], table, None, None, decoded.failures)
    kept = batch.keep(keep, decoded.rows) if keep else None
    clock.start()
    made = predict(model, decoded.records, batch_size, lambda: batch.records().records)
    clock.spent("predict")
    failures = decoded.failures + [moved(failure, decoded.rows) for failure in made.failures]
    if kept is not None and made.rows is not None:
        kept = kept.take(made.rows)
    rows = composed(decoded.rows, made.rows)
    again, calls = made.recovered, made.calls
    outcome = Outcome(decoded.read, made.values, table, rows, kept, failures, again, calls)
    return _without_clashes(_renamed(outcome, rename))


class _Clock:
    """Tells an observer, if there is one, how long a stage took, and how long it waited in it."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.start()

    def start(self) -> None:
        if self._observer is not None:
            self._began, self._waited = time.perf_counter(), seconds_waited()

    def spent(self, stage: str) -> None:
        if self._observer is not None:
            waited = seconds_waited() - self._waited
            self._observer.spent(stage, time.perf_counter() - self._began - waited)
            self._observer.spent("waiting", waited)


def _of_several(
    batch: Batch,
    model: LoadedModel,
    keep: Keep,
    batch_size: int | None,
    rename: Rename,
    observer: Observer | None,
) -> Outcome:
    """What becomes of a batch with each of several models, and what is kept of it."""
    seen = Seen(batch, model)
    failures = list(seen.unrouted)
    parts: list[tuple[str, Outcome]] = []
    for member in model.members:
        name = member.info.name
        renamed = of_member(rename, name)
        part = outcome_of(seen.by(member), member, (), batch_size, renamed, observer)
        rows = part.rows
        if rows is None:
            rows = list(range(part.predicted))
        if model.compares:
            part = _marked(part)
        failures += [replace(failure, model=name) for failure in part.failures]
        parts.append((name, replace(part, rows=rows)))
    kept_rows = all_rows([part.rows or [] for _, part in parts])
    read = parts[0][1].read
    if model.info.route is not None:
        read = len(seen.unrouted) + sum(part.read for _, part in parts)
    return Outcome(
        read,
        [],
        False,
        kept_rows,
        batch.keep(keep, kept_rows) if keep and kept_rows else None,
        failures,
        sum(part.recovered for _, part in parts),
        parts=tuple(parts),
    )


def _marked(part: Outcome) -> Outcome:
    """Predictions as dicts in which NaN can be written."""
    values = part.values
    if part.table:
        values = [row for piece in part.values for row in piece.to_pylist()]
    return replace(part, values=[marked(value) for value in values], table=False)


def _decoded(batch: Batch, model: LoadedModel) -> Decoded:
    if model.info.style != "table":
        return batch.records()
    signature = model.info.signature
    # the schema's own code is the model's: it waits for its turn, for few records one by one
    if signature is None or not signature.exact:
        plain = None if signature is None else batch.plain_table(signature)
        if plain is not None:
            return plain
        return model.turns.use(batch.table, signature, model.validate)
    return batch.table(signature, lambda record: model.turns.use(model.validate, record))


def _renamed(outcome: Outcome, rename: Rename) -> Outcome:
    """The same with other names of what is predicted.

    A prediction that has a column by the new name already is a failure; where the columns are known
    before the run, it is refused instead.
    """
    names = dict(rename)
    if not names or not outcome.values:
        return outcome
    values: list[Any] = []
    good: list[int] = []
    failures: list[Failure] = []
    at = 0
    for one in outcome.values:
        size = len(one) if outcome.table else 1
        after = new_names(one.schema.names if outcome.table else one, names)
        name = twice_of(after)
        if name is not None:
            said = f"column '{name}' is predicted, and is the new name of another column"
            failures += [
                Failure(row, "encode", "ColumnClashError", said) for row in range(at, at + size)
            ]
        else:
            if outcome.table:
                values.append(one.rename_columns(after))
            else:
                values.append(dict(zip(after, one.values(), strict=True)))
            good += range(at, at + size)
        at += size
    if not failures:
        return replace(outcome, values=values)
    return replace(
        outcome,
        values=values,
        rows=composed(outcome.rows, good),
        kept=None if outcome.kept is None else outcome.kept.take(good),
        failures=outcome.failures + [moved(failure, outcome.rows) for failure in failures],
    )


def _without_clashes(outcome: Outcome) -> Outcome:
    """Predictions with a column that is kept of the input too are failures: one would hide it."""
    if outcome.kept is None:
        return outcome
    clashes: list[Failure] = []
    good: list[Sequence[int]] = []
    values: list[Any] = []
    at = 0
    pieces: list[Any] = outcome.values if outcome.table else [outcome.values]
    for piece in pieces:
        size = len(piece)
        kept = outcome.kept
        if outcome.table and size != len(outcome.kept):
            kept = kept.take(range(at, at + size))
        clashing = _clashes(kept, piece, outcome.table)
        if not clashing:
            good.append(range(at, at + size))
            values += [piece] if outcome.table else piece
            at += size
            continue
        clashes += [moved(failure, range(at, at + size)) for failure in clashing]
        lost = {failure.row for failure in clashing}
        fine = [row for row in range(size) if row not in lost]
        good.append([at + row for row in fine])
        if outcome.table:
            values.append(piece.take(np.array(fine, np.int64)))
        else:
            values += [piece[row] for row in fine]
        at += size
    if not clashes:
        return outcome
    failures = outcome.failures + [moved(failure, outcome.rows) for failure in clashes]
    places = list(chain.from_iterable(good))
    rows = composed(outcome.rows, places)
    kept = outcome.kept.take(places)
    return replace(outcome, values=values, rows=rows, kept=kept, failures=failures)


def _clashes(kept: Kept, piece: Any, table: bool) -> list[Failure]:
    """The predictions that have a column which is kept of the input too."""
    names = piece.schema.names if table else set().union(*piece)
    names = [name for name in names if isinstance(name, str)]  # others fail when encoded
    failures = []
    for row in kept.clashing(names):
        both = kept.names(row) & (set(names) if table else piece[row].keys())
        if both:
            failures.append(column_clash(row, min(both)))
    return failures
