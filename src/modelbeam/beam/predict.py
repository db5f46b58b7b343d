"""``Predict``: a model in a pipeline of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from modelbeam import models
from modelbeam.beam.loading import acquire
from modelbeam.job.description import ModelSpec
from modelbeam.models.base import LoadedModel
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.failures import Failure, column_clash
from modelbeam.predicting.predictor import Predictions, predict


class Predict(beam.PTransform):
    """Predicts a collection of dicts, bounded or unbounded, in a pipeline of one's own.

    ``records | Predict("module:Class")`` has two outputs: ``.predictions`` (dicts; timestamps and
    windows are those of the records) and ``.failures`` (dicts with ``model``, ``stage``, ``type``,
    ``error`` and ``record``). The model is loaded on the workers, once a process.

    Args:
        model: ``[NAME=]module:Class``.
        keep: ``"all"``, or the names of columns of the record that stand before the prediction's;
            a column that is both kept and predicted makes the record a failure.
        batch_size: records a call at most, for a model that takes batches. A batch never waits
            for another bundle.
        arguments: keyword arguments for the class's constructor.

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
    ) -> None:
        super().__init__()
        spec = ModelSpec.parse(model)
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
        rows, failures = [], []
        for row, one in enumerate(waiting):
            if isinstance(one.value, dict):
                rows.append(row)
            else:
                error = f"a record is a dict, not a {type(one.value).__name__}"
                failures.append(Failure(row, "validate", "NotAnObjectError", error))
        kept = {row: self._kept(waiting[row].value) for row in rows}  # before the model sees it
        made = _predict_dicts(self._model, [waiting[row].value for row in rows])
        failures += [replace(failure, row=rows[failure.row]) for failure in made.failures]
        rows = rows if made.rows is None else [rows[row] for row in made.rows]
        for row, prediction in zip(rows, made.values, strict=True):
            if both := kept[row].keys() & prediction.keys():
                failures.append(column_clash(row, min(both)))
            else:
                yield waiting[row].with_value({**kept[row], **prediction})
        for failure in failures:
            value = {
                "model": self._model.info.name,
                "stage": failure.stage,
                "type": failure.type,
                "error": failure.error,
                "record": waiting[failure.row].value,
            }
            yield beam.pvalue.TaggedOutput("failures", waiting[failure.row].with_value(value))

    def _kept(self, record: dict[str, Any]) -> dict[str, Any]:
        if self._keep == "all":
            return dict(record)
        return {name: record[name] for name in self._keep if name in record}


def _predict_dicts(model: LoadedModel, records: list[dict[str, Any]]) -> Predictions:
    """Predict dicts with a model of any style; the values are dicts, one a prediction."""
    if model.info.style != "table":
        return predict(model, records, None)
    batch, fitting, failures = to_batch(records, model.info.signature, model.validate)
    made = predict(model, batch, None)
    fitting = list(range(len(records))) if fitting is None else fitting
    failures += [replace(failure, row=fitting[failure.row]) for failure in made.failures]
    rows = fitting if made.rows is None else [fitting[row] for row in made.rows]
    values = [row for piece in made.values for row in piece.to_pylist()]
    return Predictions(values, rows, failures)
