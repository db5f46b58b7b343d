"""A newer model while a run goes on: found, loaded beside the old one, tried, taken over.

All of it is done in a thread beside the run, by a process of its own. A model that cannot be
loaded, that kills or hangs its process, or that does not fit what reads the predictions, costs one
line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, Literal, Protocol

from modelbeam.errors import JobError, ModelbeamError, ModelLoadError
from modelbeam.job.description import ModelSpec
from modelbeam.local.start import start_worker
from modelbeam.local.worker import Worker, wait_loaded
from modelbeam.models import state
from modelbeam.models.base import ModelInfo
from modelbeam.models.target import Target
from modelbeam.text import describe

LOOK_SECONDS = 1.0
"""Between two looks at a model's files."""

FAR_SECONDS = 10.0
"""The same where another machine is asked."""

LOAD_SECONDS = 600.0
"""How long a newer model may load."""

TRY_SECONDS = 120.0
"""How long it may take to be tried."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What became of a newer model.

    Attributes:
        at: when, in UTC.
        outcome: whether it predicts now.
        version, fingerprint: what it says of itself, if it could be loaded.
        error: why it does not, or not everywhere.
    """

    at: str
    outcome: Literal["taken over", "refused"]
    version: str | None
    fingerprint: str | None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Candidate(Protocol):
    """A newer model that is loaded."""

    @property
    def info(self) -> ModelInfo | None:
        """What it says of itself."""

    def close(self) -> None:
        """It is not wanted."""


class Taker(Protocol):
    """The run that a newer model is for; all is called from one thread, which is not the run's."""

    @property
    def info(self) -> ModelInfo | None:
        """What the model that predicts says of itself."""

    def pin(self, model: ModelSpec) -> None:
        """The one that predicts, by a name or path that goes on to mean it."""

    def load(self, model: ModelSpec) -> Any:
        """Load it beside the one that predicts, as a :class:`Candidate`.

        Raises:
            ModelbeamError: it cannot be.
        """

    def problem(self, candidate: Any) -> str | None:
        """Why it cannot go on where the other one is, tried on what that has just predicted."""

    def take(self, candidate: Any, model: ModelSpec) -> str | None:
        """Let it take over; returns once it has, with what of the run has not followed."""


class Watch:
    """Finds that what a target names has changed.

    Args:
        target: as it was given.
        settle: seconds that files must be still before they are taken.

    Attributes:
        known: the state of what was copied last, or is known to predict.
    """

    def __init__(self, target: Target, settle: float) -> None:
        self._target = target
        self._settle = settle if state.settles(target) else 0.0
        self.known: state.State | None = None
        self._seen: state.State | None = None
        self._since = 0.0

    def now(self) -> state.State | None:
        """What is there; ``None`` if nothing is, as between a removal and what comes instead."""
        try:
            return state.state_of(self._target)
        except state.GoneError:
            return None

    def copied(self) -> state.Copied | None:
        """A copy of what is there now; ``None`` if it changes meanwhile, or is not there."""
        before = self.now()
        try:
            made = state.copied(self._target)
        except state.GoneError:
            return None
        if before is None or before != self.now():
            made.remove()
            return None
        self.known = before
        return made

    def newer(self, now: float, asked: bool) -> state.Copied | None:
        """A copy of what is there, if that is complete and was not there before.

        Args:
            now: in seconds, of any clock.
            asked: whether to take what is there in any case.
        """
        if asked:
            return self.copied()
        found = self.now()
        if found is None or found == self.known:
            self._seen = None
            return None
        if found != self._seen:
            self._seen, self._since = found, now
        return self.copied() if now - self._since >= self._settle else None


class Renewal:
    """Keeps a run's model new.

    Args:
        model: as it was asked for.
        settle: seconds that files must be still.
        note: told of what a person wants to know.

    Attributes:
        model: the one that predicts, by a path or a name that goes on to mean it.
        reloads: what became of newer models.
    """

    def __init__(self, model: ModelSpec, settle: float, note: Callable[[str], None]) -> None:
        self._asked_for, self._note = model, note
        self._watch = Watch(model.target, settle)
        self._far = state.is_far(model.target)
        self._ended = threading.Event()
        self._copies: list[state.Copied] = []
        self._thread: threading.Thread | None = None
        self.reloads: list[Reload] = []
        # a name in a registry is looked up by whoever loads it first, see _look_up
        copy = self._watch.copied() if state.settles(model.target) else None
        self.model = model if copy is None else self._of(copy)

    def _of(self, copy: state.Copied) -> ModelSpec:
        self._copies.append(copy)
        return self._asked_for.model_copy(update={"target": copy.target})

    def counted(self) -> tuple[int, int]:
        """How many newer models took over, and how many were refused."""
        taken = sum(one.outcome == "taken over" for one in self.reloads)
        return taken, len(self.reloads) - taken

    def begin(self, taker: Taker, asked: threading.Event) -> None:
        """Look for a newer one from now on.

        Args:
            taker: the run.
            asked: set when a person wants what is there to be loaded.
        """
        self._thread = threading.Thread(
            target=self._go_on, args=[taker, asked], name="renewal", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Look no more, and take copies away; nothing loads the model any more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(0.5)
        for copy in self._copies:
            copy.remove()

    def _go_on(self, taker: Taker, asked: threading.Event) -> None:
        every = FAR_SECONDS if self._far else LOOK_SECONDS
        due = time.monotonic() + every
        while not self._ended.wait(0.05):
            wanted = asked.is_set()
            if not wanted and time.monotonic() < due:
                continue
            asked.clear()
            try:
                self._look_up(taker)
                copy = self._watch.newer(time.monotonic(), wanted)
                if copy is not None:
                    self._renew(taker, copy, wanted)
                elif wanted:
                    self._refused(None, "it is not there, or is being written")
            except Exception as error:  # the run goes on in any case
                self._refused(None, f"{type(error).__name__}: {describe(error)}")
            due = time.monotonic() + every

    def _look_up(self, taker: Taker) -> None:
        """Once: whether a name still means the version that was loaded at the start."""
        if self._watch.known is not None or taker.info is None:
            return
        found = self._watch.now()
        if found and all(str(one).endswith(f"/{taker.info.version}") for one in found):
            copy = self._watch.copied()
            if copy is not None and self._watch.known == found:
                self.model = self._of(copy)
                taker.pin(self.model)

    def _renew(self, taker: Taker, copy: state.Copied, wanted: bool) -> None:
        """Load, try and hand over what was copied."""
        model = self._of(copy)
        candidate: Candidate | None = None
        why: str | None = None
        try:
            candidate = taker.load(model)
            old, new = taker.info, candidate.info
            assert old is not None
            assert new is not None
            same = old.fingerprint == new.fingerprint is not None
            if same and not (wanted and state.is_code(model.target)):
                if wanted:
                    self._note("the model is the one that predicts already")
            else:
                why = taker.problem(candidate)
                if why is None:
                    self._taken(model, new, taker.take(candidate, model))
                    return
        except ModelbeamError as error:
            why = str(error)
        if candidate is not None:
            candidate.close()
        if why is not None:
            self._refused(candidate.info if candidate is not None else None, why)
        copy.remove()

    def _taken(self, model: ModelSpec, info: ModelInfo, behind: str | None) -> None:
        self.model = model
        for copy in self._copies:
            if copy.target != model.target:  # what still has it open keeps it
                copy.remove()
        self.reloads.append(Reload(_now(), "taken over", info.version, info.fingerprint, behind))
        but = f"; but {behind.rstrip('.')}" if behind else ""
        self._note(f"a new model has taken over: {named(info)}{but}")

    def _refused(self, info: ModelInfo | None, why: str) -> None:
        if self._ended.is_set():
            return
        version, digest = (info.version, info.fingerprint) if info is not None else (None, None)
        why = why.rstrip(".")
        self.reloads.append(Reload(_now(), "refused", version, digest, why))
        self._note(f"a new model was refused, and the one before it goes on: {why}")


def patience(model: ModelSpec, seconds: float, over: threading.Event | None = None) -> None:
    """To be asked while a newer model is loaded.

    Args:
        model: which.
        seconds: for how long so far.
        over: set when the run has ended.

    Raises:
        ModelbeamError: it is not waited for any longer.
    """
    if over is not None and over.is_set():
        raise JobError("The run has ended.")
    if seconds > LOAD_SECONDS:
        raise ModelLoadError(f"--model {model.target} was not loaded after {LOAD_SECONDS:g} s.")


def named(info: ModelInfo) -> str:
    """A model in a few words: its name, and what tells its versions apart."""
    version = f" {info.version}" if info.version != "unknown" else ""
    digest = f" ({info.fingerprint[:8]})" if info.fingerprint else ""
    return f"{info.name}{version}{digest}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Trial:
    """A process with a newer model, before it works for a run.

    Args:
        model: what it loads.
        workers: on how many cores the run works.
        record_timeout: seconds that a record may take.

    Attributes:
        info: what the model says of itself, once it is loaded.
    """

    def __init__(self, model: ModelSpec, workers: int, record_timeout: float | None) -> None:
        self._model, self._timeout = model, record_timeout
        self.info: ModelInfo | None = None
        self.failure: ModelbeamError | None = None
        self.changed = threading.Condition()
        self.worker = Worker(self, start_worker(workers), model, 1)
        self.worker.listen()

    def wait(self) -> None:
        """Wait until it is loaded.

        Raises:
            ModelbeamError: it cannot be; its process is gone.
        """
        try:
            wait_loaded(self, self._model, lambda seconds: patience(self._model, seconds))
        except BaseException:
            self.close()
            raise

    def call(self, kind: str, *arguments: Any) -> Any:
        """Ask it something that must not take long.

        Raises:
            ModelbeamError: it does not answer.
        """
        late = threading.Timer(TRY_SECONDS, self.worker.process.kill)
        late.daemon = True
        late.start()
        try:
            return self.worker.call(kind, *arguments)
        finally:
            late.cancel()

    def close(self) -> None:
        """End the process."""
        self.worker.close(kill=True)

    # What the process tells of itself; see :class:`.worker.Owner`.

    @property
    def record_timeout(self) -> float | None:
        """Seconds that a record may take."""
        return self._timeout

    def worker_loaded(self, _worker: Worker, info: ModelInfo, _grown: int) -> None:
        """It has its model."""
        with self.changed:
            self.info = info
            self.changed.notify_all()

    def worker_measured(self, worker: Worker, shares: Any) -> None:
        """Nothing follows from that yet."""

    def worker_progressed(self, split: Any, progress: Any) -> None:
        """It has no splits yet."""

    def worker_told(self, worker: Worker, progress: Any) -> None:
        """It has no lane yet."""

    def worker_ended(self, _worker: Worker, error: ModelbeamError) -> ModelbeamError:
        """It is gone."""
        self.stop(error)
        return error

    def stop(self, error: BaseException) -> None:
        """It cannot be loaded."""
        with self.changed:
            if self.failure is None and isinstance(error, ModelbeamError):
                self.failure = error
            self.changed.notify_all()
