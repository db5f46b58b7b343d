"""From a batch to predictions and failures; no record of it is ever lost or counted twice.

One function, :func:`call_in_batches`, finds the records of a failing batch, for every model that
takes batches: the batch is cut in halves until the failing records stand alone, and all others are
predicted. Where most records fail, halving would cost two calls a record, so it goes one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from modelbeam.models.base import LoadedModel
from modelbeam.predicting.columns import Parts, in_order, validated
from modelbeam.predicting.failures import Failure

RECORDS_A_CALL = 4096
"""Records that a model taking lists of dicts gets in one call with ``--batch-size auto``."""

DENSE = 0.5
"""Recent share of failing records from which halving no longer pays."""

_RECENT = 0.9
_ONE_BY_ONE = 16

MODEL_ERRORS = BaseException
"""What a model may raise for a record without ending the job: everything but the user's Ctrl-C,
since extensions in Rust raise their panics outside of ``Exception``."""


class WrongNumberOfPredictionsError(Exception):
    """A model returned more or fewer predictions than it was given records."""


class NotAPredictionError(Exception):
    """A model returned something that is not a prediction."""


@dataclass(slots=True)
class Predictions:
    """What became of a batch.

    Attributes:
        values: dicts (styles ``record`` and ``batch``) or Arrow batches (style ``table``), in the
            order of the records.
        rows: the record of each prediction, as an index into the batch; ``None`` for all in order.
        failures: one for each of the other records.
    """

    values: list[Any]
    rows: list[int] | None
    failures: list[Failure]


def predict(model: LoadedModel, records: Any, batch_size: int | None) -> Predictions:
    """Call a model in its own style.

    Args:
        model: loaded and ready.
        records: a list of dicts, or a ``pyarrow.RecordBatch`` for style ``table``.
        batch_size: records a call, or ``None`` for the model's best.
    """
    if model.info.style == "record":
        return predict_records(model, records)
    if model.info.style == "batch":
        return predict_batch(model, records, batch_size)
    return predict_table(model, records, batch_size)


def predict_records(model: LoadedModel, records: list[dict[str, Any]]) -> Predictions:
    """Call a model of style ``record``, once a record."""
    predict = model.predict
    values: list[Any] = []
    failures: list[Failure] = []
    append = values.append
    for row, record in enumerate(records):
        try:
            append(predict(record))
        except KeyboardInterrupt:
            raise
        except MODEL_ERRORS as error:
            failures.append(Failure.of(row, "predict", error))
    failed = {failure.row for failure in failures}
    rows = [row for row in range(len(records)) if row not in failed] if failed else None
    return _as_dicts(values, rows, failures)


def predict_batch(
    model: LoadedModel, records: list[dict[str, Any]], batch_size: int | None
) -> Predictions:
    """Call a model of style ``batch`` over records that are validated first.

    Args:
        model: whose ``predict_batch`` is called.
        records: one dict a record.
        batch_size: records a call, or ``None`` for some thousands.
    """
    valid, rows, failures = _validate(model, records)

    def call(start: int, stop: int) -> list[Any]:
        made = model.predict_batch(valid[start:stop])
        if isinstance(made, (str, bytes, Mapping)):
            raise NotAPredictionError(f"predict_batch() returned a {type(made).__name__}")
        made = list(made)
        _check_number(len(made), stop - start)
        return made

    pieces, failed = call_in_batches(call, len(valid), batch_size or RECORDS_A_CALL)
    values = [value for _, _, made in pieces for value in made]
    if not failures and not failed:
        return _as_dicts(values, None, [])
    failures += [replace(failure, row=rows[failure.row]) for failure in failed]
    return _as_dicts(values, [rows[i] for i in _covered(pieces)], failures)


def predict_table(model: LoadedModel, batch: Any, batch_size: int | None) -> Predictions:
    """Call a model of style ``table``.

    Args:
        model: whose ``predict_table`` is called.
        batch: a ``pyarrow.RecordBatch`` of any number of rows, or several as ``Parts``.
        batch_size: rows a call, or ``None`` for the whole batch.
    """
    if isinstance(batch, Parts):
        return _predict_parts(model, batch, batch_size)

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
        return made

    count = batch.num_rows
    pieces, failures = call_in_batches(call, count, batch_size or max(count, 1))
    rows = _covered(pieces) if failures else None
    return Predictions([made for _, _, made in pieces], rows, failures)


def _predict_parts(model: LoadedModel, parts: Parts, batch_size: int | None) -> Predictions:
    """Call a model of style ``table`` for each of several batches; the results in order."""
    made: list[tuple[Any, list[int]]] = []
    failures: list[Failure] = []
    for batch, places in zip(parts.batches, parts.rows, strict=True):
        done = predict_table(model, batch, batch_size)
        failures += [replace(failure, row=places[failure.row]) for failure in done.failures]
        rows = iter(places if done.rows is None else [places[row] for row in done.rows])
        for piece in done.values:
            made.append((piece, list(itertools.islice(rows, piece.num_rows))))
    rows_made = sorted(row for _, rows in made for row in rows)
    return Predictions(in_order(made), rows_made if failures else None, failures)


def call_in_batches(
    call: Callable[[int, int], Any], count: int, batch_size: int
) -> tuple[list[tuple[int, int, Any]], list[Failure]]:
    """Call over ``count`` records in batches; cut a batch that fails until its culprits are alone.

    Args:
        call: given ``start, stop``, predicts those records or raises.
        count: how many records there are.
        batch_size: records a call, at most.

    Returns:
        ``(start, stop, result)`` of each call that went well, in order, and a failure for each
        record that failed on its own. Together they cover every record once.
    """
    pieces: list[tuple[int, int, Any]] = []
    failures: list[Failure] = []
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
        except KeyboardInterrupt:
            raise
        except MODEL_ERRORS as error:
            if size > 1:
                middle = start + size // 2
                todo += [(middle, stop), (start, middle)]
            else:
                failures.append(Failure.of(start, "predict", error))
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


def _as_dicts(values: list[Any], rows: list[int] | None, failures: list[Failure]) -> Predictions:
    """Turn what models return (pydantic objects, dataclasses, mappings) into dicts."""
    if set(map(type, values)) <= {dict}:
        return Predictions(values, rows, failures)
    dicts, kept = [], []
    for row, value in zip(range(len(values)) if rows is None else rows, values, strict=True):
        try:
            dicts.append(as_dict(value))
            kept.append(row)
        except Exception as error:
            failures.append(Failure.of(row, "encode", error))
    return Predictions(dicts, kept if failures else None, failures)


def as_dict(value: Any) -> dict[str, Any]:
    """A prediction as a dict of what JSON can hold (enums by their values).

    Raises:
        NotAPredictionError: it is nothing like a dict.
    """
    if isinstance(value, dict):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "dict") and hasattr(value, "__fields__"):  # pydantic 1
        return dict(value.dict())
    raise NotAPredictionError(
        f"predict() returned a {type(value).__name__}; a prediction is a dict or a pydantic model"
    )
