"""``Predict``: a model in a pipeline of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from modelbeam import models
from modelbeam.beam.loading import acquire
from modelbeam.beam.private import WindowedValue
from modelbeam.job.description import ModelSpec, spec_of
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
        batch_size: records per call at most, for a model that takes batches. A batch never waits
            for another bundle.
        arguments: keyword arguments for the class's constructor.
        options: ``features``, ``proba``, ``trusted_types``, ``allow_version_mismatch``, as
            :func:`modelbeam.predict` has them.

    Raises:
        NotAModelError: the target is not written as a model's.
    """

    def __init__(
        self,
        model: str,
        *,
        keep: str | Iterable[str] = (),
        batch_size: int = 1024,
        arguments: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in options.keys() - FLAGS.keys():
            raise TypeError(f"Predict() has no argument '{name}'")
        spec = spec_of(model, options)
        models.kind_of(spec.target)
        self._spec = spec.model_copy(update={"arguments": arguments or {}})
        self._keep = keep if keep == "all" else tuple([keep] if isinstance(keep, str) else keep)
        self._batch_size = batch_size

    def expand(self, pcoll: Any) -> Any:
        """Wire the transform."""
        work = _PredictRecords(self._spec, self._keep, self._batch_size)
        return pcoll | "PredictRecords" >> beam.ParDo(work).with_outputs(
            "failures", main="predictions"
        )


class _PredictRecords(beam.DoFn):
    """Collects the records of a bundle into batches; each leaves with its own window and time."""

    def __init__(self, spec: ModelSpec, keep: Any, batch_size: int) -> None:
        self._spec, self._keep, self._size = spec, keep, batch_size
        self._shared = Shared()

    def setup(self) -> None:
        self._model = acquire(self._shared, self._spec)
        if self._model.info.style == "record":
            self._size = 1

    def start_bundle(self) -> None:
        self._waiting: list[WindowedValue] = []

    def process(
        self,
        element: dict[str, Any],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        self._waiting.append(WindowedValue(element, timestamp, (window,)))
        if len(self._waiting) >= self._size:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._flush()

    def _flush(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        batch = DictsBatch([one.value for one in waiting])
        with at_work():
            outcome = outcome_of(batch, self._model, self._keep, None)
        values: Iterable[dict[str, Any]] = outcome.values
        if outcome.table:
            values = (row for piece in outcome.values for row in piece.to_pylist())
        rows = range(len(waiting)) if outcome.rows is None else outcome.rows
        kept = repeat({}) if outcome.kept is None else outcome.kept.dicts()
        for row, before, prediction in zip(rows, kept, values, strict=False):
            yield waiting[row].with_value({**before, **prediction})
        for failure in outcome.failures:
            value = {
                "model": self._model.info.name,
                "stage": failure.stage,
                "type": failure.type,
                "error": failure.error,
                **batch.original(failure.row, parsed=True),
            }
            yield beam.pvalue.TaggedOutput("failures", waiting[failure.row].with_value(value))
