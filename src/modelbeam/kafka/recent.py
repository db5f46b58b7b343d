"""Some of the records that a lane has just predicted, on which a newer model is tried."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import orjson

from modelbeam.formats.jsonl.writer import LinesWriter
from modelbeam.kafka.batch import MessageBatch
from modelbeam.models.base import LoadedModel
from modelbeam.predicting.batch import Keep
from modelbeam.predicting.failures import moved
from modelbeam.predicting.fit import unfit_predictions
from modelbeam.predicting.outcome import outcome_of
from modelbeam.text import count

RECORDS = 100
"""How many are kept."""

LARGEST = 1 << 16
"""Bytes of a value; larger ones are not kept."""


class Pair(NamedTuple):
    """A message's value and its prediction's."""

    record: bytes
    prediction: bytes


def with_newer(
    pairs: tuple[Pair, ...],
    messages: Sequence[Any],
    failed: Iterable[int],
    predictions: list[bytes],
) -> tuple[Pair, ...]:
    """The last records, with those of a turn.

    Args:
        pairs: those of before.
        messages: of the turn.
        failed: the rows that have no prediction.
        predictions: of all others, in order.
    """
    without = set(failed)
    skipped = max(0, len(predictions) - RECORDS)  # the last ones count
    rows = islice((row for row in range(len(messages)) if row not in without), skipped, None)
    found = [
        Pair(value, prediction)
        for row, prediction in zip(rows, predictions[skipped:], strict=True)
        if len(value := messages[row].value()) <= LARGEST
    ]
    return (*pairs, *found)[-RECORDS:]


class _Value:
    """A message of which only the value matters."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value


def problem(
    pairs: Sequence[Pair],
    model: LoadedModel,
    keep: Keep,
    batch_size: int | None,
    schema: dict[str, Any] | None,
) -> str | None:
    """Why a newer model cannot go on where an older one has predicted these records.

    Args:
        pairs: what the older one has predicted.
        model: the newer one, loaded and ready.
        keep: columns that stand beside the predictions.
        batch_size: records per call, or ``None``.
        schema: the older one's output schema.
    """
    if not pairs:
        return None
    longest = max(len(pair.record) for pair in pairs)
    batch = MessageBatch([_Value(pair.record) for pair in pairs], longest, keep)
    outcome = outcome_of(batch, model, keep, batch_size)
    made, bare = io.BytesIO(), io.BytesIO()
    unwritten = LinesWriter(made).write(outcome)
    failures = outcome.failures + [moved(failure, outcome.rows) for failure in unwritten]
    if failures:
        first = min(failures, key=lambda failure: failure.row)
        return (
            f"of {count(len(pairs), 'record')} that the model before it has just predicted, "
            f"{len(failures)} failed, the first with {first.type}: {first.error}"
        )
    old = [orjson.loads(pair.prediction) for pair in pairs]
    why = unfit_predictions(old, _rows(made), None)
    if why is None and schema is not None:
        LinesWriter(bare).write(replace(outcome, kept=None))
        why = unfit_predictions([], _rows(bare), schema)
    return why


def _rows(lines: io.BytesIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in lines.getvalue().splitlines()]
