"""The pool of processes that hold the model, seen from the process that runs the pipeline.

One process predicts first, in one thread, and is measured (:mod:`.mode`): where threads can do most
of the work side by side, it gets the other threads too and the model is in memory once; where the
model itself, or Python's interpreter lock, is what limits, other processes are started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Literal

from modelbeam import storage
from modelbeam.beam.pools import pools
from modelbeam.errors import JobError, ModelbeamError, ModelLoadError, WorkerDiedError
from modelbeam.formats.base import Piece
from modelbeam.job.careful import Careful, Pulse, ending
from modelbeam.job.description import ModelSpec
from modelbeam.job.task import Progress, Sample, Task, Totals
from modelbeam.local.crashes import Crash, Crashes
from modelbeam.local.mode import Shares, processes_pay, reason
from modelbeam.local.start import Started, start_worker
from modelbeam.models.base import ModelInfo
from modelbeam.sinks import Manifest
from modelbeam.sinks.files.publish import Publication, publish
from modelbeam.sources.splits import Split

STILL = 30.0
"""Seconds without any progress after which a line says where the job is."""

Mode = Literal["threads", "processes"]


class _Stopped(JobError):
    """The pool was stopped while a split waited for it."""


class _SplitsDied(WorkerDiedError):
    """A process died over splits, which are tried again with care."""

    def __init__(self, crash: Crash) -> None:
        super().__init__(f"The process that holds the model {crash.ending}.")
        self.crash = crash


class _Worker:
    """One process, and the requests that it has not answered."""

    def __init__(
        self, pool: WorkerPool, model: ModelSpec, slots: int, careful: Careful | None = None
    ) -> None:
        self._pool = pool
        self.slots, self.careful = slots, careful
        self.pulse = Pulse()
        self.loaded = self.timed_out = False
        self._pending: dict[int, _Call] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._end: ModelbeamError | None = None
        started = pool.take_started()
        self.process, self._socket = started.process, started.socket
        self._connection = Connection(os.dup(self._socket.fileno()))
        with contextlib.suppress(OSError):  # it is dead already, which the listener reports
            self._connection.send(
                (
                    *("load", model.target, model.name, model.keywords(), model.options),
                    slots,
                    storage.configuration(),  # by this socket, since it may hold secrets
                    pool.scratch,
                    careful,
                )
            )

    def listen(self) -> None:
        """Begin to hear it; the pool knows it by now, since it may be dead already."""
        threading.Thread(target=self._listen, name="worker-replies", daemon=True).start()

    def call(self, kind: str, *arguments: Any) -> Any:
        """Send a request and wait for its result."""
        with self._lock:
            self._number += 1
            number = self._number
            call = _Call(kind, arguments)
            if self._end is not None:
                raise self._end
            if not self._pending:
                self.pulse.reset()
            self._pending[number] = call
            with contextlib.suppress(OSError):  # it died; the listener will say over which data
                self._connection.send((kind, number, *arguments))
        call.answered.wait()
        if call.error is not None:
            raise call.error
        return call.result

    def _listen(self) -> None:
        """Hear the process to its end; whatever goes wrong here ends the job, not this thread."""
        try:
            self._hear()
            end = self._pool.worker_ended(self, self._death(list(self._pending.values())))
        except Exception as error:
            self.process.kill()
            end = JobError(
                f"An answer of the process that holds the model cannot be used "
                f"({type(error).__name__}: {error}). Run the same command with --resume."
            )
            end.__cause__ = error
            self._pool.stop(end)
        with self._lock:
            calls = list(self._pending.values())
            self._pending.clear()
            self._end = end
        for call in calls:
            call.finish(error=end)

    def _hear(self) -> None:
        try:
            while True:
                kind, *rest = self._connection.recv()
                if kind == "beat":
                    self.pulse.beat(*rest)
                elif kind == "loaded":
                    self.loaded = True
                    self._pool.worker_loaded(self, *rest)
                elif kind == "measured":
                    self._pool.worker_measured(self, *rest)
                elif kind == "refused":
                    self._pool.stop(rest[0])
                else:
                    self._reply(kind, *rest)
        except (EOFError, OSError):
            self._connection.close()
        self.process.wait()

    def _reply(self, kind: str, number: int, result: Any) -> None:
        call = self._pending[number]
        if kind == "progress":
            call.progress = result
            self._pool.note_progress(call.arguments[0], result)
            return
        with self._lock:
            del self._pending[number]
        call.finish(**{"result" if kind == "done" else "error": result})

    def _death(self, calls: list[_Call]) -> ModelbeamError:
        """The error that says how the process died, and over which data."""
        how = ending(self.process.wait())
        if self.timed_out:
            how = f"was ended: no prediction within {self._pool.crashes.record_timeout:g} s"
        places = [call.place for call in calls if call.kind == "split"]
        if places:
            return _SplitsDied(Crash(how, self.pulse.peak, places))
        hint = " Run the same command with --resume." if self._pool.info is not None else ""
        return WorkerDiedError(f"The process that holds the model {how}.{hint}")

    def look_after(self) -> str | None:
        """End the process if a record takes too long; where it is, if nothing moves for long."""
        with self._lock:
            places = [call.place for call in self._pending.values() if call.kind == "split"]
        if not places or not self.loaded:
            return None
        limit = None if self.careful else self._pool.crashes.record_timeout
        if self.pulse.too_long(limit) and not self.timed_out:
            self.timed_out = True
            self.process.kill()
        return " and ".join(places) if self.pulse.still > STILL else None

    def close(self, kill: bool) -> None:
        """End the process; a kind close lets it end by itself."""
        if kill:
            self.process.kill()
        with contextlib.suppress(OSError):  # wakes both ends; closing a descriptor would not
            self._socket.shutdown(socket.SHUT_RDWR)
        if not kill:
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self._socket.close()


class _Call:
    """A request that waits for its answer."""

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind = kind
        self.arguments = arguments
        self.answered = threading.Event()
        self.progress: Progress | None = None
        self.result: Any = None
        self.error: ModelbeamError | None = None

    @property
    def place(self) -> str:
        """What is being worked on."""
        if self.progress is None:
            return str(self.arguments[0].place)
        return f"{self.progress.path} after byte {self.progress.offset}"

    def finish(self, result: Any = None, error: ModelbeamError | None = None) -> None:
        """Wake the caller."""
        self.result, self.error = result, error
        self.answered.set()


class WorkerPool:
    """Processes that hold one model and predict splits.

    Args:
        model: what they load.
        workers: how many cores they use.
        mode: ``auto`` decides once the model has said what it takes.
        started: a process that was started ahead with this number of workers.
        crashes: the limits of what may happen to its processes, and what has happened.
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
        self._one_careful = threading.Lock()
        self._still: str | None = None
        self.name = os.urandom(6).hex()
        self.workers = workers
        self._started = started if started and started.workers == workers else None
        self.info: ModelInfo | None = None
        self.mode: Mode | None = None if mode == "auto" else mode
        self.failure: ModelbeamError | None = None
        self._model = model
        self._model_bytes = 0
        self._changed = threading.Condition()
        self._workers: list[_Worker] = []
        self._free: list[_Worker] = []
        self.run: dict[str, Any] | None = None
        self._closing = False
        self._task: Task | None = None
        self._publication: Publication | None = None
        self._progress: dict[int, Progress] = {}
        self._done = Totals()
        self._wanted = 0
        self._bytes = 0
        self._reason = ""
        # processes that are killed do not clean up after themselves
        behind_url = model.target.form == "uri"
        self.scratch = tempfile.mkdtemp(prefix="modelbeam-") if behind_url else None
        pools[self.name] = self
        self._add(_Worker(self, model, workers))

    def _add(self, worker: _Worker, instead_of: _Worker | None = None) -> None:
        with self._changed:
            if instead_of is None:
                self._workers.append(worker)
            else:
                self._workers[self._workers.index(instead_of)] = worker
        worker.listen()

    def take_started(self) -> Started:
        """A process that has no model yet: the one started ahead, or a new one."""
        started, self._started = self._started, None
        return started or start_worker(self.workers)

    def wait_loaded(self, tell: Callable[[float], None] = lambda _: None) -> ModelInfo:
        """Wait until the model is loaded.

        Args:
            tell: given the seconds so far, a few times a second.

        Raises:
            ModelError: it could not be; the error is the one raised where it was tried.
        """
        with self._changed:
            began = time.monotonic()
            while self.info is None and self.failure is None:
                self._changed.wait(0.25)
                tell(time.monotonic() - began)
        if self.info is None:
            failure = self.failure
            if isinstance(failure, WorkerDiedError):
                raise ModelLoadError(
                    f"--model {self._model.target}: its process died while the model was loaded. "
                    f"{failure}"
                )
            raise failure or ModelLoadError(f"--model {self._model.target} was not loaded.")
        return self.info

    def sample(self, piece: Piece, records: int, task: Task) -> Sample:
        """Predict the first records of a file, without writing anything."""
        result: Sample = self._workers[0].call("sample", piece, records, task)
        return result

    def open(self, task: Task, splits: int, size: int, publication: Publication) -> None:
        """Let :meth:`predict` begin.

        Args:
            task: what is the same for every split.
            splits: how many there are.
            size: how many bytes they have.
            publication: what :meth:`publish` needs; how many workers there are, and how many
                splits were done before, is filled in here.
        """
        self.wait_loaded()
        self._wanted, self._bytes = min(self.workers, splits), size
        if self.mode is None and (self._wanted == 1 or not self._copies_fit()):
            self.mode = "threads"
        with self._changed:
            self._publication = publication
            self._task = task
            self._free.append(self._workers[0])
            self._changed.notify_all()
        if self.mode is not None:
            self._start_others(self.mode)

    def worker_measured(self, worker: _Worker, shares: Shares) -> None:
        """The first process has worked for a moment; decide, unless that was done."""
        with self._changed:
            if self.mode is not None or worker is not self._workers[0]:
                return
            left = self._bytes - self._done.bytes
            if processes_pay(shares, self._wanted, left):
                self.mode, self._reason = "processes", reason(shares)
            else:
                self.mode = "threads"
        self._start_others(self.mode)

    def _start_others(self, mode: Mode) -> None:
        """The first worker is at work; add what makes them as many as are wanted."""
        if mode == "threads":
            with self._changed:
                self._free.extend([self._workers[0]] * (self.workers - 1))
                self._changed.notify_all()
            return
        for _ in range(self._wanted - 1):
            with self._changed:
                if self.failure is not None or self._closing:
                    return
                self._add(_Worker(self, self._model, 1))

    def _workers_text(self) -> str:
        """How many workers there are, and why, for the summary."""
        if self.mode == "processes":
            text = f"{self._wanted} process" + ("es" if self._wanted > 1 else "")
            return f"{text}, since {self._reason}" if self._reason else text
        return f"{self.workers} thread" + ("s" if self.workers > 1 else "")

    def _copies_fit(self) -> bool:
        return self._model_bytes * self.workers <= _free_memory() / 2

    def predict(self, split: Split) -> Manifest:
        """Predict a split on the next free worker; blocks until the pool is open.

        Raises:
            JobError: the split failed; :attr:`failure` has the first one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.failure or (self._task and self._free))
            if self.failure is not None:
                raise _Stopped("The job was stopped.")
            worker, task = self._free.pop(), self._task
        try:
            manifest: Manifest = worker.call("split", split, task)
        except _SplitsDied as error:
            manifest = self._predict_with_care(split, task, error.crash)
        except ModelbeamError as error:
            self.stop(error)
            raise
        with self._changed:
            self._progress.pop(split.index, None)
            self._done.add(manifest.counts, split.bytes)
            if worker in self._workers:
                self._free.append(worker)
            self._changed.notify_all()
        return manifest

    def _predict_with_care(self, split: Split, task: Task | None, crash: Crash) -> Manifest:
        """Predict a split over which a process died; one at a time, each with its own processes."""
        with self._one_careful:
            try:
                with self._changed:
                    if self.failure is not None or self._closing:
                        raise _Stopped("The job was stopped.")
                    worker = _Worker(self, self._model, 1, self.crashes.careful(crash))
                    self._add(worker)
                manifest: Manifest
                manifest, records = worker.call("split", split, task)
                self.crashes.found(crash, records)
            except ModelbeamError as error:
                self.stop(error)
                raise
            with self._changed:
                self._workers.remove(worker)
            worker.close(kill=True)
        return manifest

    def look_after(self) -> str | None:
        """To be called a few times a second: where the job stands still, told once a place."""
        places = [place for worker in list(self._workers) if (place := worker.look_after())]
        still = " and ".join(places) or None
        if still == self._still:
            return None
        self._still = still
        return still

    def publish(self, splits: list[Split]) -> None:
        """Publish; then :attr:`run` describes the run, or :attr:`failure` says why not."""
        if self._publication is None or self.failure is not None:
            return
        self._closing = True  # the processes are done, and end while we publish
        threading.Thread(target=self._end_workers, args=[True], daemon=True).start()
        try:
            resumed, workers = self._done.resumed, self._workers_text()
            crashes = self.crashes.described()
            known = replace(self._publication, resumed=resumed, workers=workers, crashes=crashes)
            run = publish(known, splits)
        except Exception as error:
            self.stop(error)
            return
        with self._changed:
            self.run = run
            self._changed.notify_all()

    def skip(self, split: Split, manifest: Manifest) -> None:
        """Count a split that an earlier run has done."""
        with self._changed:
            self._done.add(manifest.counts, split.bytes)
            self._done.resumed += 1

    def wait_open(self) -> Task:
        """Wait until the pool is open, and return what it was opened with."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure or self._task)
            if self.failure is not None or self._task is None:
                raise _Stopped("The job was stopped.")
            return self._task

    def stop(self, error: BaseException) -> None:
        """Note the first failure; no further split is begun."""
        if not isinstance(error, ModelbeamError):
            cause = error
            error = JobError(f"The job failed with {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        with self._changed:
            if self.failure is None and not isinstance(error, _Stopped):
                self.failure = error
            self._changed.notify_all()

    def worker_loaded(self, worker: _Worker, info: ModelInfo, grown: int) -> None:
        """A process has its model."""
        with self._changed:
            if self.info is None:  # the first one; the others start after it
                self.info, self._model_bytes = info, grown
            elif worker.careful is None:
                self._free.extend([worker] * (worker.slots if self.mode == "threads" else 1))
            self._changed.notify_all()

    def worker_ended(self, worker: _Worker, error: ModelbeamError) -> ModelbeamError:
        """A process is gone: on purpose after :meth:`close`, else for a reason to report.

        Where it died over splits, another takes its place.

        Returns:
            What its callers are told.
        """
        if self._closing or worker not in self._workers:
            return error
        if not isinstance(error, _SplitsDied) or worker.careful is not None:
            self.stop(error)
            return error
        try:
            self.crashes.add(error.crash)
        except ModelbeamError as too_many:
            self.stop(too_many)
            return too_many
        with self._changed:
            self._free = [other for other in self._free if other is not worker]
            if not self._closing:
                self._add(_Worker(self, self._model, worker.slots), instead_of=worker)
        worker.close(kill=True)
        return error

    def note_progress(self, split: Split, progress: Progress) -> None:
        """A split has come so far."""
        with self._changed:
            self._progress[split.index] = progress

    def totals(self) -> Totals:
        """How far the whole job is."""
        with self._changed:
            now = self._done.copy()
            for progress in self._progress.values():
                now.add(progress.counts, progress.bytes)
                now.splits -= 1
        return now

    def close(self, *, kill: bool = False) -> None:
        """End all processes; with ``kill`` at once."""
        self._closing = True
        pools.pop(self.name, None)
        with self._changed:
            if self.failure is None:
                self.failure = _Stopped("The job was stopped.")
            self._changed.notify_all()
        self._end_workers(kill)
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _end_workers(self, kill: bool) -> None:
        for worker in self._workers:
            worker.close(kill)

    def wait_finished(self, seconds: float) -> bool:
        """Wait that long for the run to end, well or not, and return whether it did."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.run is not None or self.failure is not None, seconds
            )


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 1 << 40
