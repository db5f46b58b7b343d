"""The Beam side: the job's one chain, and the transforms for pipelines of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from modelbeam import models
from modelbeam.commit import Manifest, find_manifest
from modelbeam.errors import ModelbeamError
from modelbeam.failures import Failure, column_clash
from modelbeam.job import ModelSpec
from modelbeam.models import mlmodel
from modelbeam.models.base import LoadedModel
from modelbeam.models.signature import to_batch
from modelbeam.plan import Split
from modelbeam.predicting import Predictions, predict
from modelbeam.publish import Publication, publish
from modelbeam.split import predict_split
from modelbeam.tasks import Task
from modelbeam.workers import WorkerPool, find_pool


def build(
    pipeline: beam.Pipeline, splits: list[Split], work: PredictSplit, publishing: PublishSplits
) -> None:
    """The job: descriptors in, manifests and then an output out; data never crosses a shuffle."""
    (
        pipeline
        | "Splits" >> beam.Create([split.to_json() for split in splits], reshuffle=False)
        | "Spread" >> beam.Reshuffle()
        | "PredictSplit" >> beam.ParDo(work)
        | "Gather" >> beam.GroupByKey()  # a combiner would cost two more stages
        | "Publish" >> beam.ParDo(publishing)
    )


class PredictSplit(beam.DoFn):
    """Predicts one split and commits it; a split that is committed already is skipped.

    Args:
        model: what to predict with.
        task: how, or ``None`` if the local pool knows.
        pool: name of the local pool of processes to use; without one the model is loaded here,
            once for all threads.
    """

    def __init__(self, model: ModelSpec, task: Task | None, pool: str | None) -> None:
        self._model, self._task, self._pool_name = model, task, pool
        self._shared = Shared()
        self._read = Metrics.counter("modelbeam", "records_read")
        self._failed = Metrics.counter("modelbeam", "records_failed")

    def setup(self) -> None:
        """Find the pool, or load the model."""
        self._pool = find_pool(self._pool_name) if self._pool_name else None
        self._loaded = None if self._pool_name else _acquire(self._shared, self._model)

    def process(self, element: str) -> Iterator[tuple[int, int]]:
        """Predict the split that ``element`` describes; yields its index under one key."""
        split = Split.from_json(element)
        if self._pool_name:  # a pool that is gone has been closed: the job is over
            manifest = _predict_in_pool(self._pool, split) if self._pool else None
        else:
            manifest = self._predict_here(split)
        if manifest is not None:
            self._read.inc(manifest.counts.read)
            self._failed.inc(manifest.counts.failed)
            yield 0, split.index

    def _predict_here(self, split: Split) -> Manifest:
        task = self._task
        if task is None or self._loaded is None:
            raise ModelbeamError("PredictSplit was given neither a task nor a pool.")
        manifest = find_manifest(task.state, split, task.fingerprint)
        return manifest or predict_split(split, task, self._loaded)


def _predict_in_pool(pool: WorkerPool, split: Split) -> Manifest | None:
    """Have a split predicted; ``None`` if the job has failed, which the pool's owner reports.

    Raising would make Beam print the traceback and change the exception's text.
    """
    try:
        task = pool.wait_open()
        manifest = find_manifest(task.state, split, task.fingerprint)
        if manifest is None:
            return pool.predict(split)
        pool.skip(split, manifest)
        return manifest
    except Exception as error:
        pool.stop(error)
        return None


class PublishSplits(beam.DoFn):
    """Publishes once every split is committed.

    Args:
        splits: all of the job.
        publication: what else publishing needs, or ``None`` if the local pool knows.
        pool: name of the local pool, which then keeps the description of the run.
    """

    def __init__(
        self, splits: list[Split], publication: Publication | None, pool: str | None
    ) -> None:
        self._splits = [split.to_json() for split in splits]
        self._publication, self._pool_name = publication, pool

    def process(self, element: tuple[int, Iterable[int]]) -> None:
        """Publish; ``element`` holds the indices of the splits that are done."""
        done = set(element[1])
        complete = done == set(range(len(self._splits)))
        splits = [Split.from_json(text) for text in self._splits]
        if self._pool_name:
            pool = find_pool(self._pool_name)
            if pool is not None and complete:
                pool.publish(splits)
        elif not complete:
            raise ModelbeamError(f"{len(done)} of {len(splits)} splits are done.")
        elif self._publication is not None:
            publish(self._publication, splits)


def _acquire(shared: Shared, model: ModelSpec) -> LoadedModel:
    loaded: LoadedModel = shared.acquire(
        lambda: models.load(model.target, model.name, model.arguments), tag=model.target
    )
    return loaded


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
        self._model = _acquire(self._shared, self._spec)
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


class MLModelPredictOperation(beam.DoFn):
    """One dict in, the model's ``predict(data=…)`` out: the name known from older deployments.

    A record that the model rejects raises, as it always did; :class:`Predict` keeps such records
    apart instead.

    Args:
        module_name: module of the model's class.
        class_name: its name there.

    Raises:
        ModelError: the class is not there or is not a model; at construction, not on a worker.
    """

    def __init__(self, module_name: str, class_name: str) -> None:
        super().__init__()
        self._target = f"{module_name}:{class_name}"
        mlmodel.find(self._target)
        self._shared = Shared()

    def setup(self) -> None:
        """Build the model, once a process."""
        self._model = self._shared.acquire(lambda: mlmodel.find(self._target)(), tag=self._target)

    def process(self, data: dict[str, Any]) -> Iterator[Any]:
        """Predict one record."""
        yield self._model.predict(data=data)


__all__ = ["MLModelPredictOperation", "Predict", "PredictSplit", "PublishSplits", "build"]
