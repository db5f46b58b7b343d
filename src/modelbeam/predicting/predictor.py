"""From a batch to predictions and failures; no record of it is ever lost or counted twice.

One function, :func:`call_in_batches`, finds the records of a failing batch, for every model that
takes batches: the batch is cut in halves until the failing records stand alone, and all others are
predicted. Where most records fail, halving would cost two calls a record, so it goes one by one.

Every call of the model waits for its turn (:mod:`modelbeam.models.turns`), and a record that failed
in the model is tried once more, alone in its process, before it counts as failed.
"""

from __future__ import annotations

import itertools
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import length_hint
from typing import Any

from modelbeam.errors import TooManyCrashesError
from modelbeam.models.base import Apart, LoadedModel, WrongNumberOfPredictionsError
from modelbeam.models.turns import (
    Turns,
    alone,
    coming,
    end_if_forked,
    forks,
    is_ctrl_c,
    watch,
)
from modelbeam.predicting.columns import Parts, in_order, validated
from modelbeam.predicting.counts import Calls, masked
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.memory import TooMuchMemoryError, free_memory, is_out_of_memory
from modelbeam.predicting.results import (
    Collected,
    NotAPredictionError,
    as_dict,
    copied,
    own,
    owned,
    read_only,
)

RECORDS_A_CALL = 4096
"""Records that a model taking lists of dicts gets in one call with ``--batch-size auto``."""

DENSE = 0.5
"""Recent share of failing records from which halving no longer pays."""

_RECENT = 0.9
_ONE_BY_ONE = 16

CONFIRMED_OF_A_KIND = 3
"""How many failures of a kind (type, and message without its values) are tried again in a batch."""

MODEL_ERRORS = BaseException
"""What a model may raise for a record without ending the job: everything but the user's Ctrl-C
(:func:`is_ctrl_c`), since extensions in Rust raise their panics outside of ``Exception``."""


@dataclass(slots=True)
class Predictions:
    """What became of a batch.

    Attributes:
        values: dicts (styles ``record`` and ``batch``) or Arrow batches (style ``table``), in the
            order of the records.
        rows: the record of each prediction, as an index into the batch; ``None`` for all in order.
        failures: one for each of the other records.
        recovered: how many of the predicted records had failed once, and not when tried again.
        calls: how many records a model that takes many was given at once.
    """

    values: list[Any]
    rows: list[int] | None
    failures: list[Failure]
    recovered: int = 0
    calls: Calls = field(default_factory=Calls, compare=False)


def predict(
    model: LoadedModel,
    records: Any,
    batch_size: int | None,
    fresh: Callable[[], list[dict[str, Any]]] | None = None,
) -> Predictions:
    """Call a model in its own style.

    Args:
        model: loaded and ready.
        records: a list of dicts, or a ``pyarrow.RecordBatch`` for style ``table``.
        batch_size: records per call, or ``None`` for the model's best.
        fresh: gives the dicts as they were before the model saw them, for what is tried again.
    """
    if model.apart is not None and model.info.style != "table":
        return _predict_apart(model.apart, records, batch_size)
    if model.info.style == "record":
        return predict_records(model, records, fresh)
    if model.info.style == "batch":
        return predict_batch(model, records, batch_size, fresh)
    return predict_table(model, records, batch_size)


def predict_records(
    model: LoadedModel,
    records: list[dict[str, Any]],
    fresh: Callable[[], list[dict[str, Any]]] | None = None,
) -> Predictions:
    """Call a model of style ``record``, once a record.

    It is called for records too that its schema rejects: what it raises then says more. What it
    predicts for one is not taken, as it is not from a model of another style.
    """
    rejected: list[Failure] = []
    if not model.validates_itself:
        rejected = model.turns.use(_rejected, model, records)
    made = _predict_records(model, records, fresh)
    return _without(made, rejected, len(records)) if rejected else made


def _rejected(model: LoadedModel, records: list[dict[str, Any]]) -> list[Failure]:
    """A failure for each record that the schema rejects for another reason than an integer.

    JSON writes 1.0 as 1 if whoever writes it pleases, and a model of records is given what stands
    there: that a schema wants a float is no reason to keep it away.
    """
    if model.validate_many(records) is not None:
        return []
    failures = validated(records, model.validate)[2]
    if not failures or model.info.signature is None:
        return failures
    floats = {column.name for column in model.info.signature.columns if column.kind == "float"}
    return [failure for failure in failures if not _floats_do(model, records[failure.row], floats)]


def _floats_do(model: LoadedModel, record: dict[str, Any], floats: set[str]) -> bool:
    """Whether the schema takes a record once its integers are floats where it wants these."""
    whole = [name for name in floats & record.keys() if type(record[name]) is int]
    if not whole:
        return False
    try:
        widened = {**record, **{name: float(record[name]) for name in whole}}
    except OverflowError:
        return False
    return not _validate(model, [widened])[2]


def _without(made: Predictions, rejected: list[Failure], count: int) -> Predictions:
    """The predictions without those of some records, which are failures instead."""
    rows = range(count) if made.rows is None else made.rows
    failed = {failure.row for failure in made.failures}
    failures = [*made.failures, *(one for one in rejected if one.row not in failed)]
    failures.sort(key=lambda failure: failure.row)
    lost = {failure.row for failure in failures}
    kept = [at for at, row in enumerate(rows) if row not in lost]
    values = [made.values[at] for at in kept]
    return Predictions(values, [rows[at] for at in kept], failures, made.recovered)


def _predict_records(
    model: LoadedModel,
    records: list[dict[str, Any]],
    fresh: Callable[[], list[dict[str, Any]]] | None,
) -> Predictions:
    predict = model.predict
    collected = Collected(model)
    failures: list[Failure] = []
    take = collected.take
    sure = True

    def call_all(start: int, stop: int) -> None:
        nonlocal sure
        since = forks()
        with coming(records[start:stop]) as left:
            while True:
                try:
                    for record in left:  # no more work a record than this: it is all that there is
                        take(predict(record))
                    break
                except MODEL_ERRORS as error:
                    end_if_forked(since)
                    if is_ctrl_c(error):
                        raise
                    row = stop - 1 - length_hint(left)
                    if row == len(collected.values) + len(failures):  # else it came between two
                        failures.append(Failure.of(row, "predict", error))
        end_if_forked(since)
        sure = collected.settle()

    watch(lambda: len(collected.values) + len(failures))
    first = 0 if Turns.called() else 1  # other threads wait for this one
    for start, stop in ((0, first), (first, len(records))):
        if start < stop:
            model.turns.predict(call_all, start, stop)
    if not sure:
        return _predict_records(model, records if fresh is None else fresh(), fresh)
    values = collected.values
    if not failures and collected.all_dicts:
        return Predictions(values, None, [])
    if not failures:
        return _as_dicts(model, values, None, [])
    failed = {failure.row for failure in failures}
    rows = [row for row in range(len(records)) if row not in failed]
    unchanged = records if fresh is None else fresh()
    failures, again = confirmed(model.turns, failures, lambda row: own(predict(unchanged[row])))
    if again:
        both = sorted([*zip(rows, values, strict=True), *again], key=lambda pair: pair[0])
        rows, values = [row for row, _ in both], [value for _, value in both]
    return _as_dicts(model, values, rows, failures, len(again))


def predict_batch(
    model: LoadedModel,
    records: list[dict[str, Any]],
    batch_size: int | None,
    fresh: Callable[[], list[dict[str, Any]]] | None = None,
) -> Predictions:
    """Call a model of style ``batch`` over records that are validated first.

    Once a call has failed, each further one is given copies: a model may change what it is given,
    and then fail.

    Args:
        model: whose ``predict_batch`` is called.
        records: one dict a record.
        batch_size: records per call, or ``None`` for some thousands.
        fresh: gives the records as they were before the model saw them.
    """
    valid, rows, failures = model.turns.use(_validate, model, records)
    unchanged: list[dict[str, Any]] | None = None

    def call(start: int, stop: int) -> list[Any]:
        nonlocal unchanged
        given = valid[start:stop] if unchanged is None else copied(unchanged[start:stop])
        try:
            made = model.predict_batch(given)
            if isinstance(made, (str, bytes, Mapping)):
                raise NotAPredictionError(f"predict_batch() returned a {type(made).__name__}")
            made = owned(made)
            _check_number(len(made), stop - start)
        except MODEL_ERRORS:
            if unchanged is None:
                unchanged = valid if fresh is None else _validate(model, fresh())[0]
            raise
        return made

    size = batch_size or RECORDS_A_CALL
    calls = Calls()
    pieces, failed, recovered = _call_and_confirm(model, call, len(valid), size, calls)
    values = [value for _, _, made in pieces for value in made]
    places = None if not failures and not failed else [rows[i] for i in _covered(pieces)]
    failures += [replace(failure, row=rows[failure.row]) for failure in failed]
    predictions = _as_dicts(model, values, places, failures, recovered)
    predictions.calls = calls
    return predictions


def predict_table(model: LoadedModel, batch: Any, batch_size: int | None) -> Predictions:
    """Call a model of style ``table``.

    Args:
        model: whose ``predict_table`` is called.
        batch: a ``pyarrow.RecordBatch`` of any number of rows, or several as ``Parts``.
        batch_size: rows per call, or ``None`` for the whole batch.
    """
    if isinstance(batch, Parts):
        return _predict_parts(model, batch, batch_size)
    batch = read_only(batch)
    if model.apart is not None:
        return _predict_apart(model.apart, batch, batch_size)

    def call(start: int, stop: int) -> Any:
        made = model.predict_table(batch.slice(start, stop - start))
        if not hasattr(made, "num_rows"):
            raise NotAPredictionError(
                f"predict_table() returned a {type(made).__name__}, not a pyarrow.RecordBatch"
            )
        names = made.schema.names
        if len(set(names)) < len(names):
            raise NotAPredictionError(f"predict_table() returned two columns of a name: {names}")
        _check_number(made.num_rows, stop - start)
        return _copied_table(made)

    count = batch.num_rows
    size = batch_size or max(count, 1)
    calls = Calls()
    pieces, failures, recovered = _call_and_confirm(model, call, count, size, calls)
    rows = _covered(pieces) if failures else None
    return Predictions([made for _, _, made in pieces], rows, failures, recovered, calls)


def _predict_apart(apart: Apart, records: Any, batch_size: int | None) -> Predictions:
    """Have a model in another process predict; a record that kills a fresh process is a failure.

    What a record's exception is to :func:`call_in_batches`, here a dead process is.
    """

    def call(start: int, stop: int) -> Predictions:
        size = stop - start
        part = records[start:stop] if isinstance(records, list) else records.slice(start, size)
        made: Predictions = apart(part, batch_size, size == 1)
        return made

    pieces, failures = call_in_batches(call, len(records), max(len(records), 1))
    values: list[Any] = []
    rows: list[int] = []
    recovered = 0
    calls = Calls()
    for start, stop, made in pieces:
        calls.add(made.calls)
        values += made.values
        rows += [start + row for row in (range(stop - start) if made.rows is None else made.rows)]
        failures += [replace(failure, row=start + failure.row) for failure in made.failures]
        recovered += made.recovered
    return Predictions(values, rows if failures else None, failures, recovered, calls)


def picklable(made: Predictions) -> Predictions:
    """Predictions that can go to another process; those that cannot are failures."""
    try:
        pickle.dumps(made)
    except Exception:
        rows = range(len(made.values)) if made.rows is None else made.rows
        values, kept, failures = [], [], list(made.failures)
        for row, value in zip(rows, made.values, strict=True):
            try:
                pickle.dumps(value)
                values.append(value)
                kept.append(row)
            except Exception as error:
                failures.append(Failure.of(row, "encode", error))
        return replace(made, values=values, rows=kept, failures=failures)
    return made


def _copied_table(made: Any) -> Any:
    """The same in memory of its own: the next call, perhaps from another thread, may reuse arrays.

    A block's worth takes a tenth of a millisecond.
    """
    import pyarrow as pa

    if isinstance(made, pa.Table):
        return pa.Table.from_batches(map(_copied_table, made.to_batches()), made.schema)
    if hasattr(made, "copy_to"):
        return made.copy_to(pa.default_cpu_memory_manager())
    stream = pa.BufferOutputStream()  # before pyarrow 18
    with pa.ipc.new_stream(stream, made.schema) as writer:
        writer.write_batch(made)
    return next(iter(pa.ipc.open_stream(stream.getvalue())))


def _call_and_confirm(
    model: LoadedModel, call: Callable[[int, int], Any], count: int, batch_size: int, calls: Calls
) -> tuple[list[tuple[int, int, Any]], list[Failure], int]:
    """``call_in_batches`` in the model's turn, its failures confirmed, and how many were not.

    What the model was given at once is added to ``calls``.
    """
    turns = model.turns

    def limited(start: int, stop: int) -> Any:
        if model.most is not None and stop - start > model.most:
            raise TooMuchMemoryError("a call with fewer records has run out of memory before")
        try:
            made = turns.predict(call, start, stop)
        except MODEL_ERRORS as error:
            if stop - start > 1 and is_out_of_memory(error):
                model.most = (stop - start) // 2
                calls.halved += 1
                free_memory()
            raise
        calls.add(Calls(min(stop - start, model.rows or stop)))
        return made

    size = min(batch_size, model.most or batch_size)
    pieces, failures = call_in_batches(limited, count, size)
    failures, again = confirmed(turns, failures, lambda row: call(row, row + 1))
    if again:
        pieces = sorted([*pieces, *((row, row + 1, made) for row, made in again)], key=_start)
    return pieces, failures, len(again)


def _start(piece: tuple[int, int, Any]) -> int:
    return piece[0]


def confirmed(
    turns: Turns, failures: list[Failure], again: Callable[[int], Any]
) -> tuple[list[Failure], list[tuple[int, Any]]]:
    """Try records that failed in a model once more, each by itself, alone in the process.

    Of each kind of failure (its type, and its message without numbers and quoted text) the first
    few are tried; if one of these is predicted now, failures of this batch are not to be trusted,
    and all the others are tried too.

    Args:
        turns: the model's.
        failures: of single records.
        again: predicts the record of a row or raises.

    Returns:
        The failures that are left, and row and prediction of each record that had failed for once.
    """
    if not failures:
        return failures, []
    kinds: dict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in failures:
        kinds[failure.type, masked(failure.error)].append(failure)
    first = [failure for kind in kinds.values() for failure in kind[:CONFIRMED_OF_A_KIND]]
    rest = [failure for kind in kinds.values() for failure in kind[CONFIRMED_OF_A_KIND:]]
    made: list[tuple[int, Any]] = []

    def try_all(some: list[Failure]) -> None:
        for failure in some:
            try:
                made.append((failure.row, again(failure.row)))
            except MODEL_ERRORS as error:
                if is_ctrl_c(error):
                    raise

    with alone():
        turns.predict(try_all, first)
        if made:
            turns.predict(try_all, rest)
    good = {row for row, _ in made}
    return [failure for failure in failures if failure.row not in good], made


def _predict_parts(model: LoadedModel, parts: Parts, batch_size: int | None) -> Predictions:
    """Call a model of style ``table`` for each of several batches; the results in order."""
    made: list[tuple[Any, list[int]]] = []
    failures: list[Failure] = []
    recovered = 0
    calls = Calls()
    for batch, places in zip(parts.batches, parts.rows, strict=True):
        done = predict_table(model, batch, batch_size)
        recovered += done.recovered
        calls.add(done.calls)
        failures += [replace(failure, row=places[failure.row]) for failure in done.failures]
        rows = iter(places if done.rows is None else [places[row] for row in done.rows])
        for piece in done.values:
            made.append((piece, list(itertools.islice(rows, piece.num_rows))))
    rows_made = sorted(row for _, rows in made for row in rows)
    rows_of = rows_made if failures else None
    return Predictions(in_order(made), rows_of, failures, recovered, calls)


def call_in_batches(
    call: Callable[[int, int], Any], count: int, batch_size: int
) -> tuple[list[tuple[int, int, Any]], list[Failure]]:
    """Call over ``count`` records in batches; cut a batch that fails until its culprits are alone.

    Args:
        call: given ``start, stop``, predicts those records or raises.
        count: how many records there are.
        batch_size: records per call, at most.

    Returns:
        ``(start, stop, result)`` of each call that went well, in order, and a failure for each
        record that failed on its own. Together they cover every record once.
    """
    pieces: list[tuple[int, int, Any]] = []
    failures: list[Failure] = []
    wrong: str | None = None  # what was said of the largest batch with a wrong number
    todo = [(s, min(s + batch_size, count)) for s in range(0, count, batch_size)][::-1]
    density = 0.0
    while todo:
        start, stop = todo.pop()
        size = stop - start
        if size > 1 and density > DENSE:
            middle = min(start + _ONE_BY_ONE, stop)
            if middle < stop:
                todo.append((middle, stop))
            todo.extend((row, row + 1) for row in range(middle - 1, start - 1, -1))
            continue
        try:
            made = call(start, stop)
        except MODEL_ERRORS as error:
            if is_ctrl_c(error) or isinstance(error, TooManyCrashesError):
                raise
            if isinstance(error, WrongNumberOfPredictionsError):
                wrong = wrong or str(error)
            if size > 1:  # also where it was too much at once: halves are tried, and kept to
                middle = start + size // 2
                todo += [(middle, stop), (start, middle)]
            else:
                failure = Failure.of(start, "predict", error)
                if wrong and isinstance(error, WrongNumberOfPredictionsError):
                    alone = "" if wrong == failure.error else f" (by itself, {failure.error})"
                    failure = replace(failure, error=wrong + alone)
                failures.append(failure)
                density = _RECENT * density + (1 - _RECENT)
        else:
            pieces.append((start, stop, made))
            density *= _RECENT ** min(size, 64)
    return pieces, failures


def _validate(
    model: LoadedModel, records: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[int], list[Failure]]:
    valid = model.validate_many(records)
    if valid is not None:
        return valid, list(range(len(records))), []
    return validated(records, model.validate)


def _check_number(made: int, wanted: int) -> None:
    if made != wanted:
        raise WrongNumberOfPredictionsError(
            f"the model returned {made} predictions for {wanted} records"
        )


def _covered(pieces: list[tuple[int, int, Any]]) -> list[int]:
    return [row for start, stop, _ in pieces for row in range(start, stop)]


def _as_dicts(
    model: LoadedModel,
    values: list[Any],
    rows: list[int] | None,
    failures: list[Failure],
    recovered: int = 0,
) -> Predictions:
    """Turn what models return (pydantic objects, dataclasses, mappings) into dicts."""
    if set(map(type, values)) <= {dict}:
        return Predictions(values, rows, failures, recovered)
    dicts, kept = [], []

    def convert() -> None:
        for row, value in zip(range(len(values)) if rows is None else rows, values, strict=True):
            try:
                dicts.append(as_dict(value))
                kept.append(row)
            except Exception as error:
                failures.append(Failure.of(row, "encode", error))

    model.turns.use(convert)  # what they return is made of their own code
    return Predictions(dicts, kept if failures else None, failures, recovered)
