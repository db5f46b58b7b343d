"""``Predict``: a model in a pipeline of one's own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from modelbeam import models
from modelbeam.beam.loading import acquire
from modelbeam.beam.private import WindowedValue
from modelbeam.errors import RequestError
from modelbeam.formats.several import dicts_of
from modelbeam.job.description import ModelSpec, several_of, spec_of
from modelbeam.models.options import FLAGS
from modelbeam.models.turns import at_work
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.outcome import outcome_of


class Predict(beam.PTransform):
    """Predicts a collection of dicts, bounded or unbounded, in a pipeline of one's own.

    ``records | Predict("module:Class")`` has two outputs: ``.predictions`` (dicts; timestamps and
    windows are those of the records) and ``.failures`` (dicts with ``model``, ``stage``, ``type``,
    ``error`` and ``record``). The model is loaded on the workers, once a process.

    Args:
        model: ``[NAME=]module:Class``.
        keep: ``"all"``, or the names of columns of the record that stand before the prediction's;
            a column that is both kept and predicted makes the record a failure.
        batch_size: records per call at most, for a model that takes batches.
        arguments: keyword arguments for the class's constructor.
        models: instead of ``model`` several by their names, each a target or a mapping as the
            configuration file has it (``target``, ``arguments``, ``features`` …). A prediction is
            then ``{"a": {…}, "b": {…}}``, with ``None`` for a model that failed on the record.
        route: with several models the column that names the one that a record goes to.
        max_wait: seconds that a record may wait for others to fill its batch. Without it a batch
            is made of what comes in one bundle. The records of a batch are of one window; while
            they wait they are in the engine's state, so none is lost when a worker is.
        options: ``features``, ``proba``, ``trusted_types``, ``allow_version_mismatch``, as
            :func:`modelbeam.predict` has them.

    Raises:
        NotAModelError: the target is not written as a model's.
        RequestError: models have no names, or the arguments do not go together.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        keep: str | Iterable[str] = (),
        batch_size: int = 1024,
        arguments: dict[str, Any] | None = None,
        models: Mapping[str, str | Mapping[str, Any]] | None = None,
        route: str | None = None,
        max_wait: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in options.keys() - FLAGS.keys():
            raise TypeError(f"Predict() has no argument '{name}'")
        if max_wait is not None and not max_wait > 0:
            raise RequestError(f"Predict(max_wait={max_wait}): it is a number of seconds, above 0.")
        self._spec = _spec(model, models, arguments, route, options)
        self._keep = keep if keep == "all" else tuple([keep] if isinstance(keep, str) else keep)
        both = set(models or ()) & set(() if self._keep == "all" else self._keep)
        if both:
            name = min(both)
            raise RequestError(
                f"Predict(keep=…): the column '{name}' that is kept has the name of a model. Call "
                f"the model otherwise: models={{'{name}_model': …}}."
            )
        self._batch_size, self._max_wait = batch_size, max_wait

    def expand(self, pcoll: Any) -> Any:
        """Wire the transform."""
        if self._max_wait is None:
            work: beam.DoFn = _PredictRecords(self._spec, self._keep, self._batch_size)
        else:
            if pcoll.windowing.windowfn.is_merging():
                raise RequestError(
                    "Predict(max_wait=…): records cannot wait in windows that merge, such as "
                    "sessions. Put the sessions after Predict, or leave max_wait out."
                )
            pcoll = (
                pcoll
                | "WithKeys" >> beam.ParDo(_WithKey(self._batch_size)).with_output_types(_Keyed)
                | "Wait" >> beam.ParDo(_Wait(self._batch_size, self._max_wait))
            )
            work = _PredictBatches(self._spec, self._keep, self._batch_size)
        return pcoll | "PredictRecords" >> beam.ParDo(work).with_outputs(
            "failures", main="predictions"
        )


def _spec(
    model: str | None,
    several: Mapping[str, str | Mapping[str, Any]] | None,
    arguments: dict[str, Any] | None,
    route: str | None,
    options: dict[str, Any],
) -> ModelSpec:
    if (model is None) == (several is None):
        raise RequestError(
            "Predict() takes a model, Predict('module:Class'), or several by their names, "
            "Predict(models={'a': …, 'b': …})."
        )
    if model is not None:
        if route is not None:
            raise RequestError(f"Predict(route='{route}'): there is but one model.")
        spec = spec_of(model, options)
        models.kind_of(spec.target)
        return spec.model_copy(update={"arguments": arguments or {}})
    if arguments is not None:
        raise RequestError(
            "Predict(arguments=…): with several models each has its own: "
            "models={'a': {'target': …, 'arguments': …}}."
        )
    return several_of(several or {}, route, options)


class _Predicting(beam.DoFn):
    """Has a model, and predicts records of which each leaves with its own window and time."""

    def __init__(self, spec: ModelSpec, keep: Any, batch_size: int) -> None:
        self._spec, self._keep, self._size = spec, keep, batch_size
        self._shared = Shared()

    def setup(self) -> None:
        self._model = acquire(self._shared, self._spec)

    def _predict(self, waiting: list[WindowedValue]) -> Iterator[Any]:
        if not waiting:
            return
        batch = DictsBatch([one.value for one in waiting])
        with at_work():
            outcome = outcome_of(batch, self._model, self._keep, None)
        made, failures = dicts_of(outcome)
        for row, prediction in made:
            yield waiting[row].with_value(prediction)
        for failure in failures:
            value = {
                "model": failure.model or self._model.info.name,
                "stage": failure.stage,
                "type": failure.type,
                "error": failure.error,
                **batch.original(failure.row, parsed=True),
            }
            yield beam.pvalue.TaggedOutput("failures", waiting[failure.row].with_value(value))


class _PredictRecords(_Predicting):
    """Collects the records of a bundle into batches."""

    def setup(self) -> None:
        super().setup()
        self._at_once = 1 if self._model.info.style == "record" else self._size

    def start_bundle(self) -> None:
        self._waiting: list[WindowedValue] = []

    def process(
        self,
        element: dict[str, Any],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        self._waiting.append(WindowedValue(element, timestamp, (window,)))
        if len(self._waiting) >= self._at_once:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._flush()

    def _flush(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        yield from self._predict(waiting)


class _PredictBatches(_Predicting):
    """Predicts what has waited together."""

    def process(
        self, element: list[tuple[int, Any]], window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        yield from self._predict(
            [
                WindowedValue(record, Timestamp(micros=micros), (window,))
                for micros, record in element
            ]
        )


# Waiting

_PROCESS = uuid.uuid4().hex
"""Tells this process from the others: each fills batches of its own."""

_KEYS = 8
"""Batches that a process fills, one after another, so that all workers predict."""


def _now() -> float:
    return time.time()


_Keyed = tuple[str, Any]
"""A record with its key, so that Beam knows the key's coder."""


class _WithKey(beam.DoFn):
    """Gives records a key; as many as make a batch have the same one in a row."""

    def __init__(self, batch_size: int) -> None:
        self._size, self._count = batch_size, 0

    def process(self, element: Any) -> Iterator[Any]:
        yield f"{_PROCESS}-{self._count // self._size % _KEYS}", element
        self._count += 1


_WAITED_TIMER = userstate.TimerSpec("waited", TimeDomain.REAL_TIME)
_END_TIMER = userstate.TimerSpec("end", TimeDomain.WATERMARK)
_WAITED, _END = beam.DoFn.TimerParam(_WAITED_TIMER), beam.DoFn.TimerParam(_END_TIMER)
_RECORDS = beam.DoFn.StateParam(userstate.BagStateSpec("records", FastPrimitivesCoder()))
_SO_FAR = beam.DoFn.StateParam(userstate.ReadModifyWriteStateSpec("so_far", FastPrimitivesCoder()))
"""How many records wait, when the earliest is, when they have waited long enough."""


class _Wait(beam.DoFn):
    """Keeps records in the engine's state until they are a batch, or one has waited long enough.

    The output's watermark is held back at the earliest of them, and what is left when the
    window ends leaves then. One key and window have one batch at a time.
    """

    def __init__(self, batch_size: int, max_wait: float) -> None:
        self._size, self._max_wait = batch_size, max_wait

    def process(
        self,
        element: tuple[str, Any],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        records: Any = _RECORDS,
        so_far: Any = _SO_FAR,
        waited: Any = _WAITED,
        end: Any = _END,
    ) -> Iterator[Any]:
        micros = timestamp.micros
        count, earliest, due = so_far.read() or (0, micros, _now() + self._max_wait)
        if not count:
            end.set(window.max_timestamp())
        if not count or micros < earliest:  # a timer holds back the time of who set it
            waited.set(Timestamp.of(due))
        records.add((micros, element[1]))
        so_far.write((count + 1, min(micros, earliest), due))
        if count + 1 >= self._size:
            yield from self._batch(window, records, so_far, waited)

    @userstate.on_timer(_WAITED_TIMER)  # type: ignore[untyped-decorator]
    def _has_waited(
        self,
        window: Any = beam.DoFn.WindowParam,
        records: Any = _RECORDS,
        so_far: Any = _SO_FAR,
        waited: Any = _WAITED,
    ) -> Iterator[Any]:
        yield from self._batch(window, records, so_far, waited)

    @userstate.on_timer(_END_TIMER)  # type: ignore[untyped-decorator]
    def _has_ended(
        self,
        window: Any = beam.DoFn.WindowParam,
        records: Any = _RECORDS,
        so_far: Any = _SO_FAR,
        waited: Any = _WAITED,
    ) -> Iterator[Any]:
        yield from self._batch(window, records, so_far, waited)

    def _batch(self, window: Any, records: Any, so_far: Any, waited: Any) -> Iterator[Any]:
        made = list(records.read())
        if not made:
            return
        _, earliest, _ = so_far.read()
        records.clear()
        so_far.clear()
        waited.clear()
        yield WindowedValue(made, Timestamp(micros=earliest), (window,))
