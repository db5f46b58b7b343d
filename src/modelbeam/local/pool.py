"""The pool of processes that hold the model: how many there are, and what becomes of crashes.

One process predicts first, in one thread, and is measured (:mod:`.mode`): where threads can do most
of the work side by side, it gets the other threads too and the model is in memory once; where the
model itself, or Python's interpreter lock, is what limits, other processes are started.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, Protocol

from modelbeam import storage
from modelbeam.errors import (
    JobError,
    ModelbeamError,
    is_damage,
)
from modelbeam.formats.base import Piece
from modelbeam.job.careful import Careful
from modelbeam.job.description import ModelSpec
from modelbeam.job.task import Progress, Sample, Task
from modelbeam.local.crashes import Crash, Crashes
from modelbeam.local.hints import one_by_one
from modelbeam.local.mode import Shares, processes_pay, reason
from modelbeam.local.start import Started, start_worker
from modelbeam.local.worker import STILL, SplitsDiedError, Worker, wait_loaded
from modelbeam.models.base import ModelInfo
from modelbeam.sinks import Manifest
from modelbeam.sources.splits import Split
from modelbeam.text import count

Mode = Literal["threads", "processes"]

LOOK_SECONDS = 0.1
"""Between two looks at the processes."""


class StoppedError(JobError):
    """The pool was stopped while a split waited for it."""

    code = "MB211"


class Work(Protocol):
    """The splits that a pool is opened for; both are called from the pool's threads."""

    def bytes_left(self) -> int:
        """Bytes of input in splits that are not done."""

    def progressed(self, split: Split, progress: Progress) -> None:
        """A split has come so far."""


class WorkerPool:
    """Processes that hold one model and predict splits.

    Args:
        model: what they load.
        workers: how many there are: threads of one process, or processes.
        mode: ``auto`` decides once the model has said what it takes.
        started: a process that was started ahead with this number of workers.
        crashes: the limits of what may happen to its processes, and what has happened.

    Attributes:
        info: what the model says of itself, once it is loaded.
        failure: what stopped the pool first, if anything did.
        changed: held while either changes, and notified then.
    """

    def __init__(
        self,
        model: ModelSpec,
        workers: int,
        mode: Literal["auto", "threads", "processes"],
        started: Started | None = None,
        crashes: Crashes | None = None,
    ) -> None:
        self.crashes = crashes or Crashes(None, 10)
        self.workers = workers
        self.info: ModelInfo | None = None
        self.mode: Mode | None = None if mode == "auto" else mode
        self.failure: ModelbeamError | None = None
        self.changed = threading.Condition()
        self._one_careful = threading.Lock()
        self._still: str | None = None
        self._started = started if started and started.workers == workers else None
        self._model = model
        self._model_bytes = 0
        self._workers: list[Worker] = []
        self._free: list[Worker] = []
        self._closing = False
        self._work: Work | None = None
        self._wanted = 0
        self._reason = ""
        self._add(self._new_worker(workers))

    def _new_worker(self, slots: int, careful: Careful | None = None) -> Worker:
        """A process: the one that was started ahead, or a new one."""
        started, self._started = self._started, None
        return Worker(self, started or start_worker(self.workers), self._model, slots, careful)

    def _add(self, worker: Worker, instead_of: Worker | None = None) -> None:
        with self.changed:
            if instead_of is None:
                self._workers.append(worker)
            else:
                self._workers[self._workers.index(instead_of)] = worker
        worker.listen()

    def wait_loaded(self, tell: Callable[[float], None] = lambda _: None) -> ModelInfo:
        """Wait until the model is loaded.

        Args:
            tell: given the seconds so far, a few times a second.

        Raises:
            ModelError: it could not be; the error is the one raised where it was tried.
        """
        return wait_loaded(self, self._model, tell)

    def sample(self, piece: Piece, records: int, task: Task) -> Sample:
        """Predict the first records of a file, without writing anything."""
        result: Sample = self._workers[0].call("sample", piece, records, task)
        return result

    def open(self, work: Work, splits: int) -> None:
        """Let :meth:`predict` begin.

        Args:
            work: the splits.
            splits: how many there are.
        """
        self.wait_loaded()
        self._wanted = min(self.workers, splits)
        if self.mode is None and (self._wanted == 1 or not self._copies_fit()):
            self.mode = "threads"
        with self.changed:
            self._work = work
            self._free.append(self._workers[0])
            self.changed.notify_all()
        if self.mode is not None:
            self._start_others(self.mode)

    def _start_others(self, mode: Mode) -> None:
        """The first worker is at work; add what makes them as many as are wanted."""
        if mode == "threads":
            with self.changed:
                self._free.extend([self._workers[0]] * (self.workers - 1))
                self.changed.notify_all()
            return
        for _ in range(self._wanted - 1):
            with self.changed:
                if self.failure is not None or self._closing:
                    return
                self._add(self._new_worker(1))

    def hint(self, records: int) -> str | None:
        """What would make the model faster, if that is what these records waited for."""
        spent = [worker.spent for worker in self._workers if worker.spent is not None]
        return one_by_one(self.info, records, spent) if self.info is not None else None

    def workers_text(self) -> str:
        """How many workers there are, and why, for the summary."""
        number = self._wanted if self.mode == "processes" else self.workers
        if number == 1:
            return "1 worker"
        why = f", since {self._reason}" if self._reason else ""
        return f"{count(number, 'worker')}: {self.mode}{why}"

    def _copies_fit(self) -> bool:
        return self._model_bytes * self.workers <= _free_memory() / 2

    def predict(self, split: Split, task: Task) -> Manifest:
        """Predict a split on the next free worker; blocks until there is one.

        Raises:
            JobError: the split failed; :attr:`failure` has the first one. An input that is damaged
                is no failure of the pool: others can be done.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.failure or self._free)
            if self.failure is not None:
                raise StoppedError("The job was stopped.")
            worker = self._free.pop()
        try:
            manifest: Manifest = worker.call("split", split, task)
        except SplitsDiedError as error:
            manifest = self._predict_with_care(split, task, error.crash)
        except ModelbeamError as error:
            if not is_damage(error):
                self.stop(error)
                raise
            self._give_back(worker)
            raise
        self._give_back(worker)
        return manifest

    def _give_back(self, worker: Worker) -> None:
        with self.changed:
            if worker in self._workers:
                self._free.append(worker)
            self.changed.notify_all()

    def _predict_with_care(self, split: Split, task: Task, crash: Crash) -> Manifest:
        """Predict a split over which a process died; one at a time, each with its own processes."""
        with self._one_careful:
            try:
                with self.changed:
                    if self.failure is not None or self._closing:
                        raise StoppedError("The job was stopped.")
                    worker = self._new_worker(1, self.crashes.careful(crash))
                    self._add(worker)
                manifest: Manifest
                manifest, records = worker.call("split", split, task)
                self.crashes.found(crash, records)
            except ModelbeamError as error:
                if not is_damage(error):
                    self.stop(error)
                    raise
                self._retire(worker)
                raise
            self._retire(worker)
        return manifest

    def _retire(self, worker: Worker) -> None:
        with self.changed:
            self._workers.remove(worker)
        worker.close(kill=True)

    def wait(
        self, future: Future[Manifest], tell: Callable[[], None], note: Callable[[str], None]
    ) -> Manifest:
        """What :meth:`predict` gives in another thread; meanwhile an eye on the processes.

        Args:
            future: of that call.
            tell: called a few times a second.
            note: told where the work stands still.

        Raises:
            JobError: of several failures the first.
        """
        while not concurrent.futures.wait([future], LOOK_SECONDS).done:
            tell()
            if place := self.look_after():
                hint = "" if self.record_timeout else "; --record-timeout sets a limit"
                note(f"no progress for {STILL:g} s in {place}{hint}")
        try:
            return future.result()
        except StoppedError:
            if self.failure is None:
                raise
            raise self.failure from None

    def look_after(self) -> str | None:
        """To be called a few times a second: where the job stands still, told once a place."""
        places = [place for worker in list(self._workers) if (place := worker.look_after())]
        still = " and ".join(places) or None
        if still == self._still:
            return None
        self._still = still
        return still

    def stop(self, error: BaseException) -> None:
        """Note the first failure; no further split is begun."""
        if not isinstance(error, ModelbeamError):
            cause = error
            error = JobError(f"The job failed with {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        with self.changed:
            if self.failure is None and not isinstance(error, StoppedError):
                self.failure = error
            self.changed.notify_all()

    def retire(self) -> None:
        """All splits are done: the processes end, at once, while others go on."""
        self._closing = True
        threading.Thread(target=self._end_workers, args=[True], daemon=True).start()

    def close(self, *, kill: bool = False) -> None:
        """End all processes; with ``kill`` at once."""
        self._closing = True
        with self.changed:
            if self.failure is None:
                self.failure = StoppedError("The job was stopped.")
            self.changed.notify_all()
        self._end_workers(kill)
        storage.clear_local_copies()  # of the processes that have just ended

    def _end_workers(self, kill: bool) -> None:
        for worker in self._workers:
            worker.close(kill)

    # What a process tells of itself; see :class:`.worker.Owner`.

    @property
    def record_timeout(self) -> float | None:
        """Seconds that a record may take."""
        return self.crashes.record_timeout

    def worker_loaded(self, worker: Worker, info: ModelInfo, grown: int) -> None:
        """A process has its model."""
        with self.changed:
            if self.info is None:  # the first one; the others start after it
                self.info, self._model_bytes = info, grown
            elif worker.careful is None:
                self._free.extend([worker] * (worker.slots if self.mode == "threads" else 1))
            self.changed.notify_all()

    def worker_measured(self, worker: Worker, shares: Shares) -> None:
        """The first process has worked for a moment; decide, unless that was done."""
        with self.changed:
            if self.mode is not None or worker is not self._workers[0] or self._work is None:
                return
            if processes_pay(shares, self._wanted, self._work.bytes_left()):
                self.mode, self._reason = "processes", reason(shares)
            else:
                self.mode = "threads"
        self._start_others(self.mode)

    def worker_progressed(self, split: Split, progress: Progress) -> None:
        """A split has come so far."""
        if self._work is not None:
            self._work.progressed(split, progress)

    def worker_told(self, worker: Worker, progress: Any) -> None:
        """A pool has splits, not lanes."""

    def worker_ended(self, worker: Worker, error: ModelbeamError) -> ModelbeamError:
        """A process is gone: on purpose after :meth:`close`, else for a reason to report.

        Where it died over splits, another takes its place.
        """
        if self._closing or worker not in self._workers:
            return error
        if not isinstance(error, SplitsDiedError) or worker.careful is not None:
            self.stop(error)
            return error
        try:
            self.crashes.add(error.crash)
        except ModelbeamError as too_many:
            self.stop(too_many)
            return too_many
        with self.changed:
            self._free = [other for other in self._free if other is not worker]
            if not self._closing:
                self._add(self._new_worker(worker.slots), instead_of=worker)
        worker.close(kill=True)
        return error


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 1 << 40
