"""The Beam side: the job's one chain, and the transforms for pipelines of one's own."""

from __future__ import annotations

import ctypes
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from modelbeam import models, storage, versions
from modelbeam.commit import Counts, begun_record, find_manifest
from modelbeam.engines.causes import encode
from modelbeam.errors import (
    InvisibleStateError,
    JobError,
    ModelbeamError,
    OutputWriteError,
    ReconciliationError,
    RequestError,
)
from modelbeam.failures import Failure, column_clash
from modelbeam.job import ModelSpec
from modelbeam.models import mlmodel
from modelbeam.models.base import LoadedModel
from modelbeam.models.signature import to_batch
from modelbeam.plan import PLAN_FILE, Split, from_lines
from modelbeam.predicting import Predictions, predict
from modelbeam.publish import Publication, is_published, publish
from modelbeam.spawn import collector_paused
from modelbeam.split import predict_split
from modelbeam.storage import join
from modelbeam.tasks import Progress, Task
from modelbeam.workers import find_pool


def build(pipeline: beam.Pipeline, splits: Any, work: beam.DoFn, publishing: beam.DoFn) -> None:
    """The job: descriptors in, manifests and then an output out; data never crosses a shuffle.

    Args:
        pipeline: Beam's.
        splits: the transform that makes the descriptors.
        work: predicts and commits the split that a descriptor tells of.
        publishing: publishes once all splits are committed.
    """
    (
        pipeline
        | "Splits" >> splits
        | "Spread" >> beam.Reshuffle()
        | "PredictSplit" >> beam.ParDo(work)
        | "Gather" >> beam.GroupByKey()  # a combiner would cost two more stages
        | "Publish" >> beam.ParDo(publishing)
    )


def build_local(pipeline: beam.Pipeline, splits: list[Split], pool: str) -> None:
    """The job on this machine: the processes of a pool hold the model and know all else."""
    created = beam.Create([split.to_json() for split in splits], reshuffle=False)
    build(pipeline, created, PredictSplitInPool(pool), PublishSplitsInPool(splits, pool))


def build_remote(pipeline: beam.Pipeline, work: WorkerJob) -> None:
    """The job on an engine: its workers load the model, and read the plan from the job's state."""
    build(pipeline, ReadPlan(work), PredictSplit(work), PublishSplits(work))


class PredictSplitInPool(beam.DoFn):
    """Has one split predicted and committed by a local pool; a committed one is skipped.

    It never raises: Beam would print the traceback and change the exception's text. The pool's
    owner reports what failed.

    Args:
        pool: the pool's name.
    """

    def __init__(self, pool: str) -> None:
        self._pool_name = pool

    def setup(self) -> None:
        """Find the pool."""
        self._pool = find_pool(self._pool_name)

    def process(self, element: str) -> Iterator[tuple[int, int]]:
        """Predict the split that ``element`` describes; yields its index under one key."""
        pool = self._pool
        if pool is None:  # it has been closed: the job is over
            return
        split = Split.from_json(element)
        try:
            task = pool.wait_open()
            manifest = find_manifest(task.state, split, task.fingerprint)
            if manifest is None:
                manifest = pool.predict(split)
            else:
                pool.skip(split, manifest)
        except Exception as error:
            pool.stop(error)
            return
        if manifest is not None:
            yield 0, split.index


class PublishSplitsInPool(beam.DoFn):
    """Has a local pool publish once every split is committed.

    Args:
        splits: all of the job.
        pool: the pool's name; it keeps the description of the run.
    """

    def __init__(self, splits: list[Split], pool: str) -> None:
        self._splits = [split.to_json() for split in splits]
        self._pool_name = pool

    def process(self, element: tuple[int, Iterable[int]]) -> None:
        """Publish; ``element`` holds the indices of the splits that are done."""
        pool = find_pool(self._pool_name)
        if pool is not None and set(element[1]) == set(range(len(self._splits))):
            pool.publish([Split.from_json(text) for text in self._splits])


def _settle(flags: tuple[str, ...], wanted: dict[str, str]) -> None:
    """Reach storage as the submission does, with software of the same versions."""
    storage.configure(flags)
    versions.compare(wanted, versions.here(wanted))


@dataclass(frozen=True)
class WorkerJob:
    """What an engine's workers are told of a job; plain data.

    Attributes:
        model: what to predict with.
        task: how.
        publication: what publishing needs beside the manifests; the inputs, of which there may be
            very many, stand in the state's ``job.json`` instead.
        splits: how many there are; they stand in the state's ``plan.jsonl``, a line each.
        versions: what the workers' software must be, by distribution.
        flags: of Beam's, those that say how storage is reached.
    """

    model: ModelSpec
    task: Task
    publication: Publication
    splits: int
    versions: dict[str, str]
    flags: tuple[str, ...]

    def open(self) -> bool:
        """Make sure that this worker is the right one, and sees the job's state.

        Returns:
            Whether there is anything to do: an engine may repeat a step of a job whose output is
            published already and whose state is therefore gone.

        Raises:
            WorkerVersionError: its software differs from the submission's.
            InvisibleStateError: it does not see the state.
        """
        _settle(self.flags, self.versions)
        if storage.exists(join(self.task.state, PLAN_FILE)):
            return True
        if not is_published(self.publication):
            raise InvisibleStateError(
                f"The worker on {socket.gethostname()} does not see {self.task.state}, where the "
                f"job keeps its state. --output must be on storage that the workers share with "
                f"the submitting machine: a mounted file system, or a URL such as gs:// or s3://."
            )
        return False

    def plan(self) -> list[Split]:
        """All splits, in order."""
        return from_lines(storage.read_bytes(join(self.task.state, PLAN_FILE)))

    def publish(self) -> None:
        """Publish the splits, which are all committed."""
        try:
            record = begun_record(self.publication.output)
        except FileNotFoundError:
            if is_published(self.publication):  # by another, since the state was seen
                return
            raise
        publish(replace(self.publication, record=record), self.plan())


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Raise what goes wrong on a worker such that its message survives every engine."""
    try:
        yield
    except RequestError as error:  # it is the worker: where the job was submitted all was well
        text = f"{doing} on {socket.gethostname()}: {error}"
        raise RuntimeError(encode(JobError(text))) from error
    except ModelbeamError as error:
        raise RuntimeError(encode(error)) from error
    except Exception as error:
        text = f"{doing} on {socket.gethostname()}: {type(error).__name__}: {error}"
        raise RuntimeError(encode(JobError(text))) from error


class _WorkerFn(beam.DoFn):
    """What the steps on an engine have in common."""

    def __init__(self, work: WorkerJob) -> None:
        self._work = work


class _ReadPlan(_WorkerFn):
    """Yields the descriptors of all splits."""

    def process(self, _: Any) -> Iterator[str]:
        with told("reading the plan"):
            plan = self._work.plan() if self._work.open() else []
        for split in plan:
            yield split.to_json()


class ReadPlan(beam.PTransform):
    """The descriptors of the splits; the pipeline itself stays small however many there are.

    Args:
        work: the job.
    """

    def __init__(self, work: WorkerJob) -> None:
        super().__init__()
        self._work = work

    def expand(self, begin: Any) -> Any:
        """Wire the transform."""
        return begin | beam.Impulse() | "ReadPlan" >> beam.ParDo(_ReadPlan(self._work))


class PredictSplit(_WorkerFn):
    """Predicts one split on an engine's worker and commits it; a committed one is skipped.

    The model is loaded once a process, for all its threads.

    Args:
        work: the job.
    """

    def __init__(self, work: WorkerJob) -> None:
        super().__init__(work)
        self._shared = Shared()
        self._loaded: LoadedModel | None = None
        self._read = Metrics.counter("modelbeam", "records_read")
        self._failed = Metrics.counter("modelbeam", "records_failed")
        self._splits = Metrics.counter("modelbeam", "splits_done")

    def process(self, element: str) -> Iterator[tuple[int, int]]:
        """Predict the split that ``element`` describes; yields its index under one key."""
        split, task = Split.from_json(element), self._work.task
        if not self._ready():
            return
        counted = Counts()

        def count(progress: Progress) -> None:
            self._read.inc(progress.counts.read - counted.read)
            self._failed.inc(progress.counts.failed - counted.failed)
            counted.read, counted.failed = progress.counts.read, progress.counts.failed

        with told(f"predicting {split.path} from byte {split.start}"):
            manifest = find_manifest(task.state, split, task.fingerprint)
            if manifest is None and self._loaded is not None:
                manifest = predict_split(split, task, self._loaded, count)
        if manifest is not None:
            count(Progress(manifest.counts))
            self._splits.inc()
            yield 0, split.index

    def _ready(self) -> bool:
        """Whether there is anything to do; the worker is checked and the model loaded at first.

        That is not done in ``setup``: an engine may not hear of what fails there until it has
        waited minutes for the worker to connect (Beam's Spark runner, three minutes a try).
        """
        if self._loaded is None:
            with told("starting"):
                if not self._work.open():
                    return False
            _keep_memory()
            with told("loading the model"):
                self._loaded = _acquire(self._shared, self._work.model)
        return True


class PublishSplits(_WorkerFn):
    """Publishes on an engine's worker once every split is committed.

    Args:
        work: the job.
    """

    def process(self, element: tuple[int, Iterable[int]]) -> None:
        """Publish; ``element`` holds the indices of the splits that are done."""
        with told("publishing"):
            if not self._work.open():
                return
            done = len(set(element[1]))
            if done != self._work.splits:
                raise ReconciliationError(
                    f"{done} of {self._work.splits} splits arrived at the publishing step. "
                    f"Nothing was published. Run the same command with --resume."
                )
            self._work.publish()


@dataclass(frozen=True)
class ProbeJob:
    """What workers are asked when an engine is examined; plain data.

    Attributes:
        model: what they must be able to load.
        place: a directory that the submitting process made beside the job's state.
        secret: what it wrote there, so that another machine's directory of that name is noticed.
        inputs: path, size in bytes and modification time in ns of some input files.
        versions, flags: as in :class:`WorkerJob`.
    """

    model: ModelSpec
    place: str
    secret: str
    inputs: tuple[tuple[str, int, int], ...]
    versions: dict[str, str]
    flags: tuple[str, ...]

    def answer(self) -> None:
        """Try everything, and leave an answer in the place.

        Raises:
            ModelbeamError: something is not as it must be.
        """
        host = socket.gethostname()
        _settle(self.flags, self.versions)
        file = join(self.place, PLAN_FILE)
        if not storage.exists(file) or storage.read_bytes(file).decode() != self.secret:
            raise InvisibleStateError(
                f"the worker on {host} does not see {self.place}. --output must be on storage that "
                f"the workers share with the submitting machine."
            )
        for path, size, _ in self.inputs:
            if not storage.exists(path):
                raise InvisibleStateError(
                    f"the worker on {host} does not see the input {path}. --input must be on "
                    f"storage that the workers share with the submitting machine."
                )
            if (found := storage.stat(path).size) != size:
                raise InvisibleStateError(
                    f"the input {path} has {found} bytes for the worker on {host} and {size} here: "
                    f"it is another file."
                )
        models.load(self.model.target, self.model.name, self.model.arguments)
        try:
            content = json.dumps({"host": host}).encode()
            storage.write_atomically(join(self.place, f"answer-{os.urandom(4).hex()}"), content)
        except OSError as error:
            raise OutputWriteError(
                f"the worker on {host} cannot write to {self.place}: {error.strerror or error}."
            ) from error


class Probe(beam.DoFn):
    """Answers whether a worker can do the job.

    Args:
        work: what is asked.
    """

    def __init__(self, work: ProbeJob) -> None:
        self._work = work

    def process(self, _: Any) -> None:
        """Answer."""
        with told("trying the model"):
            self._work.answer()


def _acquire(shared: Shared, model: ModelSpec) -> LoadedModel:
    def load() -> LoadedModel:
        with collector_paused():
            return models.load(model.target, model.name, model.arguments)

    loaded: LoadedModel = shared.acquire(load, tag=model.target)
    return loaded


def _keep_memory() -> None:
    """Have glibc keep the memory of a block for the next one.

    A local worker starts with variables that say so (:func:`.spawn.environment`); an engine's has
    started already. It saves up to half of the processor time of a fast model. What the user has
    set wins, and where there is no glibc nothing is done.
    """
    if any(f"MALLOC_{name}_THRESHOLD_" in os.environ for name in ("MMAP", "TRIM")):
        return
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``malloc.h``."""


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


__all__ = [
    "MLModelPredictOperation",
    "Predict",
    "PredictSplit",
    "Probe",
    "ProbeJob",
    "PublishSplits",
    "WorkerJob",
    "build",
    "build_local",
    "build_remote",
]
