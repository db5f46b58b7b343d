"""One process that holds the model, and the calls to it that it has not answered."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from modelbeam.errors import JobError, ModelbeamError, ModelLoadError, WorkerDiedError
from modelbeam.job.careful import Careful, Load, Pulse, ending
from modelbeam.job.description import ModelSpec
from modelbeam.job.task import Progress
from modelbeam.local.crashes import Crash
from modelbeam.local.hints import Spent
from modelbeam.local.mode import Shares
from modelbeam.local.start import Started
from modelbeam.models.base import ModelInfo
from modelbeam.sources.splits import Split

STILL = 30.0
"""Seconds without any progress after which a line says where the job is."""


class SplitsDiedError(WorkerDiedError):
    """A process died over splits, which are tried again with care."""

    code = "MB212"

    def __init__(self, crash: Crash) -> None:
        super().__init__(f"The process that holds the model {crash.ending}.")
        self.crash = crash


class Owner(Protocol):
    """What is told of a process, from the thread that hears it.

    Attributes:
        info: what the model says of itself, once a process has loaded it.
        failure: what ended the work first, if anything did.
        changed: held while either changes, and notified then.
        record_timeout: seconds that a record may take, or ``None``.
    """

    info: ModelInfo | None
    failure: ModelbeamError | None
    changed: threading.Condition

    @property
    def record_timeout(self) -> float | None: ...

    def worker_loaded(self, worker: Worker, info: ModelInfo, grown: int) -> None:
        """It has its model, by which its memory has grown by so many bytes."""

    def worker_measured(self, worker: Worker, shares: Shares) -> None:
        """It has worked for a moment."""

    def worker_progressed(self, split: Split, progress: Progress) -> None:
        """A split has come so far."""

    def worker_told(self, worker: Worker, progress: Any) -> None:
        """A lane has come so far."""

    def worker_ended(self, worker: Worker, error: ModelbeamError) -> ModelbeamError:
        """It is gone; returns what its callers are told."""

    def stop(self, error: BaseException) -> None:
        """The job is to end with this error."""


def wait_loaded(owner: Owner, model: ModelSpec, tell: Callable[[float], None]) -> ModelInfo:
    """Wait until one of an owner's processes has loaded the model.

    Args:
        owner: of the processes.
        model: what they load.
        tell: given the seconds so far, a few times a second.

    Raises:
        ModelError: it could not be; the error is the one raised where it was tried.
    """
    with owner.changed:
        began = time.monotonic()
        while owner.info is None and owner.failure is None:
            owner.changed.wait(0.25)
            tell(time.monotonic() - began)
    if owner.info is not None:
        return owner.info
    if isinstance(owner.failure, WorkerDiedError):
        raise ModelLoadError(
            f"--model {model.target}: its process died while the model was loaded. {owner.failure}"
        )
    raise owner.failure or ModelLoadError(f"--model {model.target} was not loaded.")


class Worker:
    """One process, and the requests that it has not answered.

    Args:
        owner: told of what it does by itself.
        started: the process; it has no model yet.
        model: what it loads.
        slots: how many requests it works on at once.
        careful: how careful it is to be with records that may kill it.
    """

    def __init__(
        self,
        owner: Owner,
        started: Started,
        model: ModelSpec,
        slots: int,
        careful: Careful | None = None,
    ) -> None:
        self._owner = owner
        self.slots, self.careful = slots, careful
        self.pulse = Pulse()
        self.loaded = self.timed_out = False
        self.spent: Spent | None = None
        self.info: ModelInfo | None = None
        self._pending: dict[int, _Call] = {}
        self._lock = threading.Lock()
        self._number = 0
        self._end: ModelbeamError | None = None
        self._reason: str | None = None
        self.process, self._socket = started.process, started.socket
        self._connection = Connection(os.dup(self._socket.fileno()))
        with contextlib.suppress(OSError):  # it is dead already, which the listener reports
            # by this socket, since it may hold secrets
            self._connection.send(("load", Load.of(model, model.keywords(), slots, careful)))

    def adopt(self, owner: Owner) -> None:
        """From now on another is told what it does; it is loaded, and works on nothing."""
        self._owner = owner

    def tell(self, kind: str) -> None:
        """Send something that has no answer."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.send((kind, 0))

    def listen(self) -> None:
        """Begin to hear it; the owner knows it by now, since it may be dead already."""
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
            end = self._owner.worker_ended(self, self._death(list(self._pending.values())))
        except Exception as error:
            self.process.kill()
            end = JobError(
                f"An answer of the process that holds the model cannot be used "
                f"({type(error).__name__}: {error}). Run the same command with --resume."
            )
            end.__cause__ = error
            self._owner.stop(end)
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
                    self.loaded, self.info = True, rest[0]
                    self._owner.worker_loaded(self, *rest)
                elif kind == "measured":
                    self._owner.worker_measured(self, *rest)
                elif kind == "spent":
                    self.spent = rest[0]
                elif kind == "ending":
                    self._reason = rest[0]
                elif kind == "refused":
                    self._owner.stop(rest[0])
                else:
                    self._reply(kind, *rest)
        except (EOFError, OSError):
            self._connection.close()
        self.process.wait()

    def _reply(self, kind: str, number: int, result: Any) -> None:
        call = self._pending[number]
        if kind == "progress" and call.kind == "lane":
            self._owner.worker_told(self, result)
            return
        if kind == "progress":
            call.progress = result
            self._owner.worker_progressed(call.arguments[0], result)
            return
        with self._lock:
            del self._pending[number]
        call.finish(**{"result" if kind == "done" else "error": result})

    def _death(self, calls: list[_Call]) -> ModelbeamError:
        """The error that says how the process died, and over which data."""
        how = ending(self.process.wait())
        if self._reason is not None:
            how = f"ended itself, since its sign of life failed ({self._reason})"
        if self.timed_out:
            how = f"was ended: no prediction within {self._owner.record_timeout:g} s"
        places = [call.place for call in calls if call.kind == "split"]
        if places:
            return SplitsDiedError(Crash(how, self.pulse.peak, places))
        hint = " Run the same command with --resume." if self._owner.info is not None else ""
        return WorkerDiedError(f"The process that holds the model {how}.{hint}")

    def look_after(self) -> str | None:
        """End the process if a record takes too long; where it is, if nothing moves for long."""
        with self._lock:
            calls = list(self._pending.values())
        places = [call.place for call in calls if call.kind == "split"]
        if not self.loaded or all(call.kind not in ("split", "lane") for call in calls):
            return None
        limit = None if self.careful else self._owner.record_timeout
        if self.pulse.too_long(limit) and not self.timed_out:
            self.timed_out = True
            self.process.kill()
        return " and ".join(places) if places and self.pulse.still > STILL else None

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
