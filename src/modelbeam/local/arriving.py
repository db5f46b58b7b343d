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

from modelbeam import formats, storage, text
from modelbeam.errors import JobError, RequestError, TooManyErrorsError
from modelbeam.job.description import Job
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
from modelbeam.job.task import Progress, Totals
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
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
    """

    def __init__(
        self, job: Job, watcher: ArrivingWatcher, now: float, started: Started | None
    ) -> None:
        self._job, self._watcher, self._now, self._started = job, watcher, now, started
        self._workers = job.workers or available_cores()
        self._crashes = Crashes(job.record_timeout, job.max_crashes)
        self._ledger = Ledger(job.output.rstrip("/") if len(job.output) > 1 else job.output)
        self._totals = Totals()
        self._runs = 0
        self._failed: list[str] = []
        self._pool: WorkerPool | None = None
        self._left = self._alone = 0

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
        try:
            info = self._load()
            self._go_on(arrivals, info)
            return self._result(info, "ended")
        except KeyboardInterrupt:
            if self._pool is None or self._pool.info is None:
                raise
            return self._result(self._pool.info, "stopped")
        finally:
            if self._pool is not None:
                self._pool.close(kill=True)

    def _load(self) -> ModelInfo:
        started, self._started = self._started, None
        self._pool = WorkerPool(
            self._job.model, self._workers, self._job.worker_mode, started, self._crashes
        )
        info = self._pool.wait_loaded(self._watcher.loading)
        self._pool.open(self, 1 << 30)
        return info

    def _go_on(self, arrivals: Arrivals, info: ModelInfo) -> None:
        job, active = self._job, time.monotonic()
        while True:
            for _, entry in self._ledger.read():  # of another process that watches the same
                arrivals.note(entry.files, unread=entry.error is not None)
            ready = arrivals.ready()
            for sentence in arrivals.changed:
                self._watcher.note(sentence)
            if ready:
                most = 1 if self._alone else FILES_A_RUN
                self._take(ready[:most], info, arrivals)
                info = self._usable(info)
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

    def _usable(self, info: ModelInfo) -> ModelInfo:
        """The model's own description; loaded again if a run that failed ended its processes."""
        if self._pool is not None and self._pool.failure is None:
            return info
        if self._pool is not None:
            self._pool.close(kill=True)
        return self._load()

    def _take(self, files: Sequence[FileInfo], info: ModelInfo, arrivals: Arrivals) -> None:
        """Predict some files and put them into the ledger, or say which one cannot be read.

        Where one of several cannot, each is taken alone, as the next ones.
        """
        done = Totals()
        entry: Entry
        try:
            entry = self._small_run(files, info, arrivals, done)
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

    def _small_run(
        self, files: Sequence[FileInfo], info: ModelInfo, arrivals: Arrivals, done: Totals
    ) -> Entry:
        """Predict some files into a directory that nobody looks at yet, and count them."""
        assert self._pool is not None
        job, pool = self._job, self._pool
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

    def _result(self, info: ModelInfo, end: str) -> Run:
        counts, seconds = self._totals.counts, time.time() - self._now
        description: dict[str, Any] = {
            "status": "failed" if self._failed else "succeeded",
            "end": end,
            "model": info.to_dict(),
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
