"""What a model returned, as a record's own: safe from what the model does next.

A model may hand out the same dict, array or object from every call, filled again each time: what
it returned for one record would then be what it returned for the last. Copying every prediction
would cost a fast model of dicts a third of its speed. So:

- At first each prediction is copied before the next call.
- If the model is fast, and none of its predictions was in anybody else's hands (the reference
  counts of the dicts and of all that can change inside tell), it is trusted: copies stop.
- A trusted model's predictions are still looked at, all at once, after the last call of a batch. If
  one is in other hands after all, the batch is predicted again with copies, and copies stay.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import fractions
import functools
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from gc import get_referents
from sys import getrefcount
from typing import Any

from modelbeam.models.base import LoadedModel

FAST = 20e-6
"""Seconds a call below which copies are worth being saved."""

ENOUGH = 100
"""Calls in a batch that are needed for trust."""

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_IMMUTABLE = (
    *(str, int, float, complex, bool, bytes, type(None), range, uuid.UUID, enum.Enum),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(decimal.Decimal, fractions.Fraction),
)


class NotAPredictionError(Exception):
    """A model returned something that is not a prediction."""


def as_dict(value: Any) -> dict[str, Any]:
    """A prediction as a dict, with the names and values that the model's output schema has.

    Pydantic objects are written by alias and as JSON has them, which is what their schema in
    serialization mode says. It may share what can change with ``value``.

    Raises:
        NotAPredictionError: it is nothing like a dict.
    """
    if isinstance(value, dict):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)  # type: ignore[no-any-return]
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "dict") and hasattr(value, "__fields__"):  # pydantic 1
        return dict(value.dict(by_alias=True))
    raise NotAPredictionError(
        f"predict() returned a {type(value).__name__}; a prediction is a dict or a pydantic model"
    )


def own(value: Any) -> Any:
    """A prediction as a dict that shares nothing with the model; if it is none, as it is."""
    try:
        return copied(as_dict(value))
    except Exception:  # said when it is to be written
        return value


def copied(value: Any) -> Any:
    """A value that shares nothing with the given one that could be changed."""
    if type(value) in _ATOMS:
        return value
    if type(value) is dict:
        return {k: v if type(v) in _ATOMS else copied(v) for k, v in value.items()}
    if type(value) is list:
        return [v if type(v) in _ATOMS else copied(v) for v in value]
    try:
        return copy.deepcopy(value)
    except Exception:  # a lock, a client: nothing that a record's result could be changed by
        return value


def owned(made: Iterable[Any]) -> list[Any]:
    """The predictions of one call, safe from the next; a generator may reuse what it yields."""
    if type(made) is not list:
        return [own(value) for value in made]
    return list(made) if are_own(made) else [own(value) for value in made]


class Collected:
    """The predictions of a batch of single calls, safe from one another.

    Attributes:
        values: the predictions.
        take: called with what each call returned.
        all_dicts: whether the values are known to be dicts.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.values: list[Any] = []
        self.all_dicts = False
        self._model = model
        self._returned: list[Any] = []
        self._began = 0.0
        self.take: Callable[[Any], None] = self.values.append if model.trusted else self._take_copy

    def _take_copy(self, value: Any) -> None:
        if not self.values:
            self._began = time.perf_counter()  # the first call may import what it needs
        self.values.append(own(value))
        if self._model.trusted is None:
            self._returned.append(value)

    def settle(self) -> bool:
        """Say whether the values can be used; called in the same turn as the last call."""
        model = self._model
        if model.trusted:
            model.trusted = self.all_dicts = are_own(self.values)
            return self.all_dicts
        if model.trusted is None and len(self._returned) >= ENOUGH:
            seconds = time.perf_counter() - self._began
            if seconds < FAST * len(self._returned):
                model.trusted = are_own(self._returned)
            self._returned.clear()
        return True


def are_own(values: list[Any]) -> bool:
    """Whether nothing that can change in these dicts is in other hands than this list's.

    ``False`` also where that cannot be told. The usual case, dicts of plain values, costs 60 ns a
    dict.
    """
    if not values:
        return True
    if set(map(type, values)) != {dict} or sum(map(getrefcount, values)) != len(values) * _ALONE:
        return False
    inside: list[Any] = get_referents(*values)
    if set(map(type, inside)) <= _ATOMS:
        return True
    del inside
    return _all_alone(values)


def _all_alone(containers: Sequence[Any]) -> bool:
    """Whether all that can change inside of these, however deep, is referred to from there only."""
    while containers:
        holders, tuples, arrays = _inside(containers)
        for some in (holders, arrays):
            # each is referred to by what it is in and by this list
            if sum(map(getrefcount, some)) != len(some) * (_ALONE + 1):
                return False
        if not _have_memory_of_their_own(arrays):
            return False
        containers = holders + tuples
    return True


def _inside(containers: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """What is in these and can change: dicts and lists; tuples, whose items may; all else."""
    holders: list[Any] = []
    tuples: list[Any] = []
    others: list[Any] = []
    for container in containers:
        for value in container.values() if type(container) is dict else container:
            kind: Any = type(value)
            if kind is dict or kind is list:
                holders.append(value)
            elif kind is tuple:
                tuples.append(value)
            elif not _is_immutable(kind):
                others.append(value)
    return holders, tuples, others


def _have_memory_of_their_own(values: list[Any]) -> bool:
    """Whether these are arrays of plain numbers whose memory nothing else has or looks at.

    Views of an array that nobody else has are such ones: ``[{"p": row} for row in predict(…)]``.
    """
    numpy: Any = sys.modules.get("numpy")
    bases: dict[int, Any] = {}
    for value in values:
        if numpy is None or type(value) is not numpy.ndarray or value.dtype.hasobject:
            return False
        if value.base is not None:
            bases[id(value.base)] = value.base
        elif not value.flags.owndata:
            return False
    if not all(type(base) is numpy.ndarray and base.flags.owndata for base in bases.values()):
        return False
    views = Counter(id(value.base) for value in values)
    return all(getrefcount(bases[key]) == views[key] + _ALONE for key in bases)


@functools.cache
def _is_immutable(kind: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return not issubclass(kind, numpy.void)
    return issubclass(kind, _IMMUTABLE)


def _reference_count_alone() -> int:
    """What :func:`are_own` counts for a dict that only its list refers to; by Python's version."""
    values: list[Any] = [{}, {}]
    return sum(map(getrefcount, values)) // 2


_ALONE = _reference_count_alone()


def read_only(batch: Any) -> Any:
    """The same ``pyarrow.RecordBatch``, but whoever writes into its memory gets an exception.

    A model that wrote into its columns would change what is tried again after a failure. Plain
    columns are not copied, nested ones are.
    """
    import pyarrow as pa

    if not isinstance(batch, pa.RecordBatch):
        return batch
    if all(map(_is_plain, batch.schema.types)):
        columns = [
            pa.Array.from_buffers(
                column.type,
                len(column),
                [_locked(pa, buffer) for buffer in column.buffers()],
                column.null_count,
                column.offset,
            )
            for column in batch.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return next(iter(pa.ipc.open_stream(_locked(pa, stream.getvalue()))))


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    nested = kind.num_fields or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return not nested and not isinstance(kind, pa.BaseExtensionType)


def _locked(pa: Any, buffer: Any) -> Any:
    return buffer if buffer is None else pa.py_buffer(memoryview(buffer).toreadonly())
