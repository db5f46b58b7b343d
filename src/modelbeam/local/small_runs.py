"""Small runs of the batch kind, one after the other, for what goes on into files.

Each predicts some inputs into a directory of its own, below the ledger's, where nobody looks. What
makes it count is the entry in the ledger that names it. A newer model takes over between two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from modelbeam import formats, storage
from modelbeam.errors import InputReadError, JobError, ModelbeamError
from modelbeam.formats.base import Piece
from modelbeam.formats.layout import Layout
from modelbeam.formats.partition import Partition
from modelbeam.job.description import Job, ModelSpec
from modelbeam.job.prepare import (
    Plan,
    make_publication,
    make_record,
    make_task,
    noted,
    output_of,
)
from modelbeam.job.task import Progress, Task, Totals
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.renewal import TRY_SECONDS, patience
from modelbeam.local.start import Started
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.fit import unfit_predictions, unfit_schema
from modelbeam.sinks import Manifest
from modelbeam.sinks.files.manifest import Manifest as FilesManifest
from modelbeam.sinks.files.publish import publish
from modelbeam.sinks.files.state import State
from modelbeam.sinks.ledger import Ledger
from modelbeam.sources import source_of
from modelbeam.sources.splits import Split
from modelbeam.storage import FileInfo

LOOK_SECONDS = 0.5
"""Between two looks at whether a newer model has been taken."""

SAMPLE_RECORDS = 100
"""Records of an input on which a newer model is tried."""


@dataclass(slots=True)
class Decided:
    """The columns of an output, decided by one small run for those that follow it.

    Attributes:
        settings: the fingerprint of the model and the settings that they were decided for.
        layout: the columns, where all records have the same.
    """

    settings: str
    layout: Layout | None


@dataclass(slots=True)
class Made:
    """What a small run came to.

    Attributes:
        work: its directory.
        totals: of its records.
        decided: the columns that it has.
    """

    work: str
    decided: Decided
    totals: Totals = field(default_factory=Totals)

    @property
    def counts(self) -> dict[str, int]:
        """As entries have them."""
        counts = self.totals.counts
        return {"read": counts.read, "predicted": counts.predicted, "failed": counts.failed}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, Any]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *which: caught.append(which)) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    for number, frame in caught[:1]:
        answer = before[signal.Signals(number)]
        if callable(answer):
            answer(number, frame)


class SmallWatcher(Protocol):
    """What is told how small runs go."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""


class SmallRuns:
    """The model's processes, and one small run at a time.

    Args:
        job: what to do; its output is a directory.
        model: which predicts at first, by a path or a name that goes on to mean it.
        ledger: where the runs are committed.
        started: a process for the model that was started ahead.
        watcher: told how it goes.
        tell: called while a small run comes further.

    Attributes:
        crashes: of the processes.
        largest: bytes that a line of a prediction may have; ``None`` for any.
    """

    def __init__(
        self,
        job: Job,
        model: ModelSpec,
        ledger: Ledger,
        started: Started | None,
        watcher: SmallWatcher,
        tell: Callable[[], None],
    ) -> None:
        self._job, self._ledger, self._started = job, ledger, started
        self._watcher, self._tell = watcher, tell
        self._workers = job.workers or available_cores()
        self.crashes = Crashes(job.record_timeout, job.max_crashes)
        self._model = model
        self._info: ModelInfo | None = None
        self._pool: WorkerPool | None = None
        self._next: tuple[WorkerPool, ModelSpec] | None = None
        self._changed, self._over = threading.Event(), threading.Event()
        self._last: tuple[Piece, Task] | None = None
        self._left = 0
        self._moved = False
        self.largest: int | None = None

    @property
    def info(self) -> ModelInfo | None:
        """What the model says of itself, once it has been loaded."""
        return self._info

    def make_ready(self) -> ModelInfo:
        """Load the model, if no process has it: at first, and after a run that failed.

        Raises:
            ModelError: it could not be.
        """
        pool = self._pool
        if pool is not None and pool.failure is None and pool.info is not None:
            return pool.info
        if pool is not None:
            pool.close(kill=True)
        started, self._started = self._started, None
        self._pool = self._new_pool(self._model, started)
        self._info = info = self._pool.wait_loaded(self._watcher.loading)
        self._pool.open(self, 1 << 30)
        return info

    def _new_pool(self, model: ModelSpec, started: Started | None) -> WorkerPool:
        return WorkerPool(model, self._workers, self._job.worker_mode, started, self.crashes)

    def close(self) -> None:
        """End the processes."""
        self._over.set()
        for pool in (self._pool, self._next and self._next[0]):
            if pool is not None:
                pool.close(kill=True)

    def hand_over(self) -> None:
        """Between two small runs: go on with a newer model, if there is one."""
        if self._next is None:
            return
        old, (self._pool, self._model), self._next = self._pool, self._next, None
        self._info = self._pool.info
        self._pool.open(self, 1 << 30)
        if old is not None:
            old.close(kill=True)
        self._changed.set()

    def run(
        self,
        inputs: Sequence[FileInfo],
        partitions: Mapping[str, Partition] | None = None,
        decided: Decided | None = None,
    ) -> Made:
        """Predict some inputs into a directory that nobody looks at yet, and count them.

        Args:
            inputs: files, or partitions of a topic.
            partitions: what the directories of each say.
            decided: the columns of the output, if an earlier run has them.

        Raises:
            RequestError: they do not fit the model or the output.
            JobError: it failed, and nothing of it is left.
        """
        info = self.make_ready()
        assert self._pool is not None
        pool, job = self._pool, self._job
        name = os.urandom(8).hex()
        work = self._ledger.work(name)
        output = replace(output_of(job), path=work)
        asked = formats.parse(job.input_format, "--input-format") if job.input_format else None
        splits, size = source_of(job.inputs[0]).plan(
            inputs,
            job.split_size,
            input_format=asked,
            earlier=None,
            reading=job.reading,
            partitions=partitions,
        )
        plan = Plan(job, tuple(inputs), splits, size, output, self._workers)
        settings = make_record(plan, info).fingerprint
        if decided is not None and decided.settings == settings:
            plan = replace(plan, layout=decided.layout)
        else:
            plan = noted(plan, info, pool.sample)
        made = Made(name, Decided(settings, plan.layout))
        record = make_record(plan, info)
        began = time.time()
        state = State(output, record, fresh=True)
        threads = ThreadPoolExecutor(self._workers * 2)
        waiting: list[Future[Manifest]] = []
        try:
            state.write_plan(splits)
            task = replace(make_task(plan, record), largest=self.largest)
            self._left = sum(split.bytes for split in splits)
            waiting += (threads.submit(pool.predict, split, task) for split in splits)
            units: dict[str, int] = {}
            for split, future in zip(splits, waiting, strict=True):
                manifest = self._waited(future)
                assert isinstance(manifest, FilesManifest)
                first, path = 0, split.pieces[0].path
                if len(split.pieces) == 1:  # others are whole files, whose numbers are right
                    first = units.get(path, 0)
                    units[path] = first + manifest.units
                made.totals.add(Counts(), split.bytes)
                made.totals.counts.add(manifest.counts, first)
                self._left -= split.bytes
            publication = make_publication(plan, record, info, began, "this machine")
            publication = replace(publication, max_errors=None, report=False)
            publish(replace(publication, workers=pool.workers_text()), splits)
            if splits:
                self._last = splits[0].pieces[0], task
            return made
        except BaseException as error:
            threads.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):  # a stop does not wait for the splits in hand
                pool.close(kill=True)
            for future in waiting:
                if not future.cancelled():
                    with contextlib.suppress(ModelbeamError):
                        self._waited(future)
            if isinstance(error, JobError):
                error.args = (str(error).replace(" with --resume", " again"),)
            with contextlib.suppress(OSError):
                storage.remove_tree(work)
            raise
        finally:
            threads.shutdown(wait=False)
            state.close()

    def _waited(self, future: Future[Manifest]) -> Manifest:
        """A split's manifest; meanwhile it is told that the small run comes further."""
        assert self._pool is not None
        return self._pool.wait(future, self._told, self._watcher.note)

    def _told(self) -> None:
        if self._moved:
            self._moved = False
            self._tell()

    # What the pool asks; see :class:`.pool.Work`.

    def bytes_left(self) -> int:
        """Of the small run that goes on."""
        return self._left

    def progressed(self, _split: Split, _progress: Progress) -> None:
        """Small runs are counted when they are done; but it is not silent."""
        self._moved = True

    # A newer model; see :class:`.renewal.Taker`.

    def pin(self, model: ModelSpec) -> None:
        """What processes that start later load."""
        self._model = model

    def load(self, model: ModelSpec) -> WorkerPool:
        """Processes with another model, beside those that predict.

        Raises:
            ModelbeamError: it cannot be loaded.
        """
        pool = self._new_pool(model, None)
        try:
            pool.wait_loaded(lambda seconds: patience(model, seconds, self._over))
        except BaseException:
            pool.close(kill=True)
            raise
        return pool

    def problem(self, candidate: WorkerPool) -> str | None:
        """Why it cannot go on, tried on the first records of the last small run."""
        old, new = self.info, candidate.info
        assert old is not None
        assert new is not None
        why = unfit_schema(old.output_schema, new.output_schema)
        if why is not None or self._last is None or self._pool is None:
            return why
        try:
            before = self._pool.sample(self._last[0], SAMPLE_RECORDS, self._last[1])
        except ModelbeamError:  # the input is gone, or a process has just died
            return None
        late = threading.Timer(TRY_SECONDS, candidate.close, kwargs={"kill": True})
        late.daemon = True
        late.start()
        try:
            now = candidate.sample(self._last[0], SAMPLE_RECORDS, self._last[1])
        except InputReadError:
            return None
        finally:
            late.cancel()
        failed = {one[0] for one in before.failures}
        for place, _, kind, error in now.failures:
            if place not in failed:
                return (
                    f"of the first records of {self._last[0].path}, which the model before it "
                    f"predicts, number {place} failed with {kind}: {error}"
                )
        rows = [
            [orjson.loads(line) for line in one.predictions.splitlines()] for one in (before, now)
        ]
        return unfit_predictions(rows[0], rows[1], None)

    def take(self, candidate: WorkerPool, model: ModelSpec) -> str | None:
        """Have it predict from the next small run on."""
        self._changed.clear()
        self._next = candidate, model
        while not self._changed.wait(LOOK_SECONDS):
            if self._over.is_set():
                return "the run ended before"
        return None
