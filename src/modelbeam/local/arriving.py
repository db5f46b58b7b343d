"""A run over files as they arrive: a small run for what is new, again and again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import orjson

from modelbeam import formats, storage, text
from modelbeam._version import RUN_SCHEMA
from modelbeam.errors import (
    InputReadError,
    JobError,
    ModelbeamError,
    RequestError,
    TooManyErrorsError,
)
from modelbeam.formats.base import Piece
from modelbeam.job.description import Job, ModelSpec
from modelbeam.job.prepare import (
    Plan,
    make_publication,
    make_record,
    make_task,
    noted,
    output_of,
    passed,
)
from modelbeam.job.result import Run
from modelbeam.job.task import Progress, Task, Totals
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.renewal import TRY_SECONDS, Reload, Renewal, patience
from modelbeam.local.start import Started
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.fit import unfit_predictions, unfit_schema
from modelbeam.sinks.files.publish import publish
from modelbeam.sinks.files.state import State
from modelbeam.sinks.ledger import Entry, Ledger
from modelbeam.sources import source_of
from modelbeam.sources.arriving import Arrivals, Taken
from modelbeam.sources.files import Files
from modelbeam.sources.splits import Split
from modelbeam.storage import FileInfo

LOOK_SECONDS = 0.5
"""Between two looks at the inputs, at least."""

SAMPLE_RECORDS = 100
"""Records of a file on which a newer model is tried."""

FILES_A_RUN = 10_000
"""Files of one small run, at most."""


class ArrivingWatcher(Protocol):
    """What is told how it goes."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Called about twice a second."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
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


class ArrivingRun:
    """One run over files as they arrive.

    Args:
        job: what to do; its output is a directory.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
        asked: set when a person wants the model to be loaded anew.
    """

    def __init__(
        self,
        job: Job,
        watcher: ArrivingWatcher,
        now: float,
        started: Started | None,
        asked: threading.Event | None = None,
    ) -> None:
        self._asked = asked or threading.Event()
        self._job, self._watcher, self._now, self._started = job, watcher, now, started
        self._workers = job.workers or available_cores()
        self._crashes = Crashes(job.record_timeout, job.max_crashes)
        self._ledger = Ledger(job.output.rstrip("/") if len(job.output) > 1 else job.output)
        self._totals = Totals()
        self._runs = 0
        self._failed: list[str] = []
        self._pool: WorkerPool | None = None
        self._next: WorkerPool | None = None
        self._changed = threading.Event()
        self._over = threading.Event()
        self._last: tuple[Piece, Task] | None = None
        self._left = self._alone = 0
        self._reloads: list[Reload] = []
        self._model = job.model

    def run(self) -> Run:
        """Run until it is stopped, or nothing has come for long enough.

        Raises:
            RequestError: the request is wrong; nothing ran.
            JobError: it cannot go on; what is in the ledger stays.
        """
        job = self._job
        if job.single_file:
            raise RequestError(
                f"--output {job.output}: a run over files as they arrive writes a directory; name "
                f"one."
            )
        if not isinstance(source_of(job.inputs[0]), Files):
            raise RequestError(
                "--streaming from a topic writes to a topic in this version; leave it out to read "
                "the topic until now, into files."
            )
        output_of(job)
        self._ledger.open()
        asked = job.input_format is not None
        arrivals = Arrivals(job.inputs, asked, job.settle, [self._ledger.output])
        self._ledger.clear()
        for entry in self._ledger.entries:
            arrivals.note(entry.files, unread=entry.error is not None)
        renewal = Renewal(job.model, job.settle, self._watcher.note)
        self._model, self._reloads = renewal.model, renewal.reloads
        self._ledger.hold()
        try:
            self._load()
            renewal.begin(self, self._asked)
            self._go_on(arrivals)
            return self._result("ended")
        except KeyboardInterrupt:
            if self._pool is None or self._pool.info is None:
                raise
            return self._result("stopped")
        finally:
            self._ledger.close()
            self._over.set()
            for pool in (self._pool, self._next):
                if pool is not None:
                    pool.close(kill=True)
            renewal.end()

    def _load(self) -> None:
        started, self._started = self._started, None
        self._pool = WorkerPool(
            self._model, self._workers, self._job.worker_mode, started, self._crashes
        )
        self._pool.wait_loaded(self._watcher.loading)
        self._pool.open(self, 1 << 30)

    def _go_on(self, arrivals: Arrivals) -> None:
        job, active = self._job, time.monotonic()
        while True:
            self._hand_over()
            for _, entry in self._ledger.read():  # of another process that watches the same
                arrivals.note(entry.files, unread=entry.error is not None)
            ready = arrivals.ready()
            for sentence in arrivals.changed:
                self._watcher.note(sentence)
            if ready:
                most = 1 if self._alone else FILES_A_RUN
                self._take(ready[:most], arrivals)
                self._make_usable()
            if ready or arrivals.waiting:
                active = time.monotonic()
            self._watcher.arrived(self._totals, self._runs, arrivals.waiting)
            if job.stop_after is not None and time.time() - self._now > job.stop_after:
                return
            idle = job.stop_when_idle
            quiet = not ready and not arrivals.waiting
            if idle is not None and quiet and time.monotonic() - active >= idle:
                return
            if not ready:
                time.sleep(LOOK_SECONDS)

    def _make_usable(self) -> None:
        """Load the model again if a run that failed ended its processes."""
        if self._pool is None or self._pool.failure is not None:
            if self._pool is not None:
                self._pool.close(kill=True)
            self._load()

    # A newer model; see :class:`.renewal.Taker`.

    @property
    def info(self) -> ModelInfo | None:
        """What the model that predicts says of itself."""
        return self._pool.info if self._pool is not None else None

    def pin(self, model: ModelSpec) -> None:
        """What processes that start later load."""
        self._model = model

    def load(self, model: ModelSpec) -> WorkerPool:
        """Processes with another model, beside those that predict.

        Raises:
            ModelbeamError: it cannot be loaded.
        """
        pool = WorkerPool(model, self._workers, self._job.worker_mode, None, self._crashes)
        try:
            pool.wait_loaded(lambda seconds: patience(model, seconds, self._over))
        except BaseException:
            pool.close(kill=True)
            raise
        return pool

    def problem(self, candidate: WorkerPool) -> str | None:
        """Why it cannot go on, tried on the first records of the last file."""
        old, new = self.info, candidate.info
        assert old is not None
        assert new is not None
        why = unfit_schema(old.output_schema, new.output_schema)
        if why is not None or self._last is None or self._pool is None:
            return why
        try:
            before = self._pool.sample(self._last[0], SAMPLE_RECORDS, self._last[1])
        except ModelbeamError:  # the file has been taken away, or a process has just died
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
        """Have it predict from the next entry of the ledger on."""
        self._changed.clear()
        self._next = candidate
        while not self._changed.wait(LOOK_SECONDS):
            if self._over.is_set():
                return "the run ended before"
        self._model = model
        return None

    def _hand_over(self) -> None:
        """Between two entries of the ledger: go on with a newer model, if there is one."""
        if self._next is None:
            return
        old, self._pool, self._next = self._pool, self._next, None
        self._pool.open(self, 1 << 30)
        if old is not None:
            old.close(kill=True)
        self._changed.set()

    def _take(self, files: Sequence[FileInfo], arrivals: Arrivals) -> None:
        """Predict some files and put them into the ledger, or say which one cannot be read.

        Where one of several cannot, each is taken alone, as the next ones.
        """
        done = Totals()
        entry: Entry
        try:
            entry = self._small_run(files, arrivals, done)
        except TooManyErrorsError:
            raise
        except (RequestError, JobError) as error:
            if isinstance(error, RequestError) and not self._ledger.entries:
                raise  # the first files: it is the request that is wrong
            if len(files) > 1:
                self._alone = len(files)
                return
            why = str(error).replace(" Fix it and run the same command with --resume.", "")
            self._failed.append(why)
            self._watcher.note(why)
            entry = Entry("", tuple(map(Taken.of, files)), error=why)
        self._alone = max(0, self._alone - 1)
        before = len(self._ledger.entries)
        with _undisturbed():
            if self._ledger.put(entry):
                self._runs += 1
                self._totals.add(done.counts, done.bytes)
            else:
                self._ledger.discard(entry.work)
        for one in self._ledger.entries[before:]:
            arrivals.note(one.files, unread=one.error is not None)
        self._check_errors()

    def _small_run(self, files: Sequence[FileInfo], arrivals: Arrivals, done: Totals) -> Entry:
        """Predict some files into a directory that nobody looks at yet, and count them."""
        assert self._pool is not None
        job, pool = self._job, self._pool
        info = pool.wait_loaded()
        named = tuple(map(Taken.of, files))
        name = os.urandom(8).hex()
        work = self._ledger.work(name)
        output = replace(output_of(job), path=work)
        asked = formats.parse(job.input_format, "--input-format") if job.input_format else None
        splits, size = source_of(job.inputs[0]).plan(
            list(files),
            job.split_size,
            input_format=asked,
            earlier=None,
            reading=job.reading,
            partitions={one.path: arrivals.partitions.get(one.path, ()) for one in files},
        )
        plan = noted(
            Plan(job, tuple(files), splits, size, output, self._workers), info, pool.sample
        )
        record = make_record(plan, info)
        began = time.time()
        state = State(output, record, fresh=True)
        try:
            state.write_plan(splits)
            task = make_task(plan, record)
            self._left = sum(split.bytes for split in splits)
            with ThreadPoolExecutor(self._workers * 2) as threads:
                for split, manifest in zip(
                    splits, threads.map(lambda one: pool.predict(one, task), splits), strict=True
                ):
                    done.add(manifest.counts, split.bytes)
                    self._left -= split.bytes
            publication = make_publication(plan, record, info, began, "this machine")
            if splits:
                self._last = splits[0].pieces[0], task
            description = publish(
                replace(publication, workers=pool.workers_text(), max_errors=None, report=False),
                splits,
            )
            return Entry(name, named, description["counts"])
        except BaseException:
            with contextlib.suppress(OSError):
                storage.remove_tree(work)
            raise
        finally:
            state.close()

    def _check_errors(self) -> None:
        limit, counts = self._job.max_errors, self._totals.counts
        if passed(limit, counts.failed):
            raise TooManyErrorsError(
                f"{counts.failed} records failed, more than --max-errors {limit}; the run was "
                f"stopped. What was done before is in {self._ledger.output}."
            )

    def bytes_left(self) -> int:
        """Of the small run that goes on; see :class:`.pool.Work`."""
        return self._left

    def progressed(self, split: Split, progress: Progress) -> None:
        """Small runs are counted when they are done."""

    def _result(self, end: str) -> Run:
        assert self.info is not None
        counts, seconds = self._totals.counts, time.time() - self._now
        description: dict[str, Any] = {
            "schema": RUN_SCHEMA,
            "status": "failed" if self._failed else "succeeded",
            "end": end,
            "model": self.info.to_dict(),
            "output": self._ledger.output,
            "runs": self._runs,
            "entries": len(self._ledger.entries),
            "counts": {
                "read": counts.read,
                "predicted": counts.predicted,
                "failed": counts.failed,
            },
            "failures": [kind.to_dict() for kind in counts.kinds],
            "crashes": list(self._crashes.described()),
            "unread": self._failed,
            "reloads": [one.to_dict() for one in self._reloads],
            "seconds": round(seconds, 3),
        }
        if self._failed and end == "ended":
            number = text.count(len(self._failed), "file")
            raise JobError(
                f"{number} could not be read, the first: {self._failed[0]} All others are done. "
                f"A file that is repaired is taken by the same command."
            )
        return Run(
            read=counts.read,
            predicted=counts.predicted,
            failed=counts.failed,
            shards=(),
            errors=(),
            output=self._ledger.output,
            seconds=seconds,
            failures=tuple(description["failures"]),
            description=description,
        )
