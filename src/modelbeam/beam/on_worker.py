"""The steps of a job on an engine: its workers load the model and do the work."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from modelbeam import storage
from modelbeam.beam.causes import encode
from modelbeam.beam.loading import acquire
from modelbeam.errors import (
    InvisibleStateError,
    JobError,
    ModelbeamError,
    ReconciliationError,
    RequestError,
)
from modelbeam.job.careful import Careful, CarefulModel, Load
from modelbeam.job.deaths import Deaths
from modelbeam.job.description import ModelSpec
from modelbeam.job.split import predict_split
from modelbeam.job.task import Progress, Task
from modelbeam.models.base import LoadedModel
from modelbeam.models.turns import at_work
from modelbeam.package import versions
from modelbeam.predicting.counts import Counts
from modelbeam.sinks import sink_of
from modelbeam.sinks.files.publish import Publication, is_published, publish
from modelbeam.sinks.files.state import begun_record
from modelbeam.sources.splits import PLAN_FILE, Split, from_lines
from modelbeam.storage import join


def settle(flags: tuple[str, ...], wanted: dict[str, str]) -> None:
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
        run: tells this run of the command from an earlier one that it resumes.
        apart: whether the model is in processes of its own from the start: where a worker has died
            already, or is a part of the submitting process.
    """

    model: ModelSpec
    task: Task
    publication: Publication
    splits: int
    versions: dict[str, str]
    flags: tuple[str, ...]
    run: str = ""
    apart: bool = False

    def open(self) -> bool:
        """Make sure that this worker is the right one, and sees the job's state.

        Returns:
            Whether there is anything to do: an engine may repeat a step of a job whose output is
            published already and whose state is therefore gone.

        Raises:
            WorkerVersionError: its software differs from the submission's.
            InvisibleStateError: it does not see the state.
        """
        settle(self.flags, self.versions)
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

    def deaths(self) -> Deaths:
        """Which workers died, and over what."""
        return Deaths(self.task.state, self.run, self.task.max_crashes)

    def publish(self) -> None:
        """Publish the splits, which are all committed."""
        try:
            record = begun_record(self.publication.output)
        except FileNotFoundError:
            if is_published(self.publication):  # by another, since the state was seen
                return
            raise
        crashes = self.deaths().described()
        publish(replace(self.publication, record=record, crashes=crashes), self.plan())


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

    The model is loaded once a process, for all its threads. It is in a process of its own instead
    where records have a limit of time, and for a split over which an earlier worker died.

    Args:
        work: the job.
    """

    def __init__(self, work: WorkerJob) -> None:
        super().__init__(work)
        self._shared = Shared()
        self._opened = False
        self._loaded: LoadedModel | None = None
        self._apart: CarefulModel | None = None
        self._deaths = work.deaths()
        self._key = ""
        self._read = Metrics.counter("modelbeam", "records_read")
        self._failed = Metrics.counter("modelbeam", "records_failed")
        self._splits = Metrics.counter("modelbeam", "splits_done")

    def process(self, element: str) -> Iterator[tuple[int, int]]:
        """Predict the split that ``element`` describes; yields its index under one key."""
        split, task = Split.from_json(element), self._work.task
        if not self._ready():
            return
        counted = Counts()
        apart: CarefulModel | None = None

        def count(progress: Progress) -> None:
            self._read.inc(progress.counts.read - counted.read)
            self._failed.inc(progress.counts.failed - counted.failed)
            counted.read, counted.failed = progress.counts.read, progress.counts.failed
            if apart is not None:
                apart.place = f"{progress.path} after byte {progress.offset}"

        with told(f"looking for {split.place}"):
            manifest = sink_of(task.state, task.output, task.fingerprint).committed(split)
        if manifest is None:
            with self._deaths.marked(split.key) as trace:
                if trace.counts:
                    with told("counting workers that died"):
                        self._deaths.died(split.key, split.place)
                wary = trace.died or self._work.apart or task.record_timeout is not None
                model = self._model(wary)
                apart = model if isinstance(model, CarefulModel) else None
                if apart is not None:
                    apart.place, apart.blamed, self._key = split.place, 0, split.key
                with told(f"predicting {split.place}"), at_work():
                    manifest = predict_split(split, task, model, count)
        if manifest is not None:
            count(Progress(manifest.counts))
            self._splits.inc()
            yield 0, split.index

    def _ready(self) -> bool:
        """Whether there is anything to do; the worker is checked and the model loaded at first.

        That is not done in ``setup``: an engine may not hear of what fails there until it has
        waited minutes for the worker to connect (Beam's Spark runner, three minutes a try).
        """
        if not self._opened:
            with told("starting"):
                if not self._work.open():
                    return False
            keep_memory()
            self._opened = True
        return True

    def _model(self, apart: bool) -> LoadedModel:
        """The model, in this process or in one of its own."""
        spec, task = self._work.model, self._work.task
        with told("loading the model"):
            if apart and self._apart is None:
                self._apart = CarefulModel(
                    Load.of(spec, spec.arguments),
                    Careful(task.record_timeout, task.max_crashes, task.max_crashes),
                    self._blame,
                )
            if not apart and self._loaded is None:
                self._loaded = acquire(self._shared, spec)
        return cast(LoadedModel, self._apart if apart else self._loaded)

    def _blame(self, ending: str) -> None:
        """A record killed the model's own process by itself, or took too long in it."""
        apart = cast(CarefulModel, self._apart)
        self._deaths.blame(self._key, apart.blamed, ending, apart.place)

    def teardown(self) -> None:
        """End the model's own process, if there is one."""
        if self._apart is not None:
            self._apart.close()
            self._apart = None


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


def keep_memory() -> None:
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
