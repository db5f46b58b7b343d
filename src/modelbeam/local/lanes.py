"""Lanes on this machine: processes that each take messages of a topic."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from modelbeam.errors import JobError, ModelbeamError, WorkerDiedError
from modelbeam.job.careful import Careful
from modelbeam.job.description import ModelSpec
from modelbeam.job.task import Progress
from modelbeam.kafka.delays import Delays
from modelbeam.kafka.lag import LagWatch
from modelbeam.kafka.lane import LaneJob, LaneProgress
from modelbeam.local.crashes import Crash, Crashes
from modelbeam.local.mode import Shares
from modelbeam.local.renewal import Trial
from modelbeam.local.start import Started, start_worker
from modelbeam.local.worker import Worker, wait_loaded
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.fit import unfit_schema
from modelbeam.sources.splits import Split
from modelbeam.text import count

LOOK_SECONDS = 0.1

HEARD_SECONDS = 3.0
"""After which it counts no more that a lane said it is at the end of a partition."""

STOP_SECONDS = 4.0
"""How long lanes may take to finish the transaction in hand; one that takes longer is given up,
and its records are done again by whoever comes next."""

HAND_OVER_SECONDS = 15.0
"""How long to wait for a lane with a newer model before the next one gets it."""

CAREFUL_TURNS = 1
"""Turns after a death in which the model is in a process of its own."""


@dataclass(frozen=True, slots=True)
class OneLane:
    """How a lane is.

    Attributes:
        counts: of the records that are done.
        turns: transactions that are committed.
        model: what the one that predicts says of itself, once it is loaded.
    """

    counts: Counts
    turns: int
    model: ModelInfo | None


@dataclass(slots=True)
class LanesProgress:
    """How all lanes are together.

    Attributes:
        counts: of the records that are done.
        lanes: how many there are.
        partitions: how many they have together.
        ended: partitions that are at their ends.
        idle: seconds since the last message.
        joined: whether every lane has been given its partitions, or none.
        latencies: milliseconds, of some of the last messages.
        lost: what was passed over.
        delays: milliseconds of all messages, by span.
        lags: how many offsets are left, by partition; empty until it is known.
        stalled: what does not move although it should, a sentence each.
        each: each lane by itself.
        deaths: processes that died.
        reloads: newer models that took over, and that were refused.
    """

    counts: Counts = field(default_factory=Counts)
    lanes: int = 0
    partitions: int = 0
    ended: frozenset[int] = frozenset()
    idle: float = 0.0
    joined: bool = False
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    lost: tuple[str, ...] = ()
    delays: Delays = field(default_factory=Delays)
    lags: dict[int, int] = field(default_factory=dict)
    stalled: tuple[str, ...] = ()
    each: tuple[OneLane, ...] = ()
    deaths: int = 0
    reloads: tuple[int, int] = (0, 0)

    @property
    def lag(self) -> int | None:
        """All that is left, if it is known."""
        return sum(self.lags.values()) if self.lags else None

    def latency(self, share: float) -> float | None:
        """The milliseconds that this share of the messages stayed under."""
        if len(self.latencies) < 2:
            return None
        cuts = statistics.quantiles(self.latencies, n=100)
        return cuts[min(98, max(0, round(share * 100) - 1))]


class LanesWatcher(Protocol):
    """What is told how lanes go."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def lanes(self, progress: LanesProgress) -> None:
        """Called ten times a second."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""


class _Lane:
    """One lane, over all the processes that it has had."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.next: Worker | None = None
        self.done = Counts()
        self.turns = 0
        self.delays = Delays()
        self.now: LaneProgress | None = None
        self.told = 0.0
        self.over = False

    def counted(self) -> Counts:
        total = Counts()
        total.add(self.done, 0)
        if self.now is not None:
            total.add(self.now.counts, 0)
        return total

    def settle(self) -> None:
        """Its process has ended; what it did stays counted."""
        self.done = self.counted()
        if self.now is not None:
            self.turns += self.now.turns
            self.delays.merge(self.now.delays)
        self.now = None

    @property
    def is_heard(self) -> bool:
        """Whether it has just told how it is."""
        return time.monotonic() - self.told < HEARD_SECONDS


class Lanes:
    """All lanes of one run.

    Args:
        model: what they load.
        number: how many.
        started: a process that was started ahead.
        crashes: the limits of what may happen to the processes.

    Attributes:
        lag: what looks at the group from outside, if anything does.
        reloads: tells how many newer models took over, and how many were refused.
    """

    def __init__(
        self, model: ModelSpec, number: int, started: Started | None, crashes: Crashes
    ) -> None:
        self.info: ModelInfo | None = None
        self.failure: ModelbeamError | None = None
        self.progress = LanesProgress(lanes=number)
        self._crashes, self._model, self._number = crashes, model, number
        self._started: Started | None = started
        self.changed = threading.Condition()
        self._lanes = [_Lane() for _ in range(number)]
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._job: LaneJob | None = None
        self._trial: Trial | None = None
        self.lag: LagWatch | None = None
        self.reloads: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._start(self._lanes[0])

    def _start(self, lane: _Lane, careful: Careful | None = None) -> Worker:
        """A process for a lane: one with a newer model, the one that was started ahead, or a new
        one."""
        if lane.next is not None and careful is None:
            worker, lane.next = lane.next, None
            lane.worker = worker
            return worker
        started, self._started = self._started, None
        worker = Worker(self, started or start_worker(self._number), self._model, 1, careful)
        lane.worker = worker
        worker.listen()
        return worker

    def wait_loaded(self, tell: Callable[[float], None]) -> ModelInfo:
        """Wait until the model is loaded once.

        Raises:
            ModelError: it could not be.
        """
        return wait_loaded(self, self._model, tell)

    def run(
        self, job: LaneJob, watcher: LanesWatcher, enough: Callable[[LanesProgress], bool]
    ) -> None:
        """Run the lanes until it is ``enough``, or one fails.

        Raises:
            JobError: what ended a lane.
            KeyboardInterrupt: passed on; nothing is stopped yet.
        """
        self._job = job
        for lane in self._lanes:
            if lane.worker is None:
                self._start(lane)
            thread = threading.Thread(target=self._keep, args=[lane, job], daemon=True)
            self._threads.append(thread)
            thread.start()
        noted: set[str] = set()
        while self.failure is None and not all(lane.over for lane in self._lanes):
            time.sleep(LOOK_SECONDS)
            self._look()
            for what in self.progress.lost:
                if what not in noted:
                    noted.add(what)
                    watcher.note(f"{what}; passed over (--on-data-loss earliest)")
            watcher.lanes(self.progress)
            if enough(self.progress):
                return
        if self.failure is not None:
            raise self.failure

    def finish(self) -> None:
        """Have all lanes finish the transaction in hand, then end all processes."""
        self._stopping = True
        if self._trial is not None:
            self._trial.close()
        for lane in self._lanes:
            if lane.worker is not None:
                lane.worker.tell("stop")
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._look()
        for lane in self._lanes:
            for worker in (lane.worker, lane.next):
                if worker is not None:
                    worker.close(kill=True)

    def _keep(self, lane: _Lane, job: LaneJob) -> None:
        """Keep one lane going, whatever becomes of its processes."""
        careful: Careful | None = None
        crash: Crash | None = None
        try:
            while not self._stopping:
                worker = lane.worker or self._start(lane, careful)
                turns = CAREFUL_TURNS if careful else None
                try:
                    lane.now, blamed = worker.call("lane", job, turns)
                    if crash is not None:
                        self._crashes.found(crash, blamed)
                    if careful is None and lane.next is None:
                        break
                    careful = crash = None
                except WorkerDiedError as error:
                    if self._stopping or self.info is None:
                        raise
                    place = f"a transaction of {job.input.url}"
                    how = str(error).removeprefix("The process that holds the model ").rstrip(".")
                    crash = Crash(how.split(". ")[0], worker.pulse.peak, [place])
                    self._crashes.add(crash)
                    careful = self._crashes.careful(crash)
                lane.settle()
                worker.close(kill=True)
                lane.worker = None
        except ModelbeamError as error:
            self.stop(error)
        finally:
            lane.over = True

    def stop(self, error: BaseException) -> None:
        """Note the first failure."""
        if not isinstance(error, ModelbeamError):
            error = JobError(f"The job failed with {type(error).__name__}: {error}")
        with self.changed:
            if self.failure is None and not self._stopping:
                self.failure = error
            self.changed.notify_all()

    def _look(self) -> None:
        """Add up what the lanes said."""
        progress = LanesProgress(lanes=self._number, latencies=self.progress.latencies)
        now = [lane.now for lane in self._lanes if lane.now is not None]
        each = []
        for lane in self._lanes:
            counts, turns = lane.counted(), lane.turns
            progress.delays.merge(lane.delays)
            if (told := lane.now) is not None:
                turns += told.turns
                progress.delays.merge(told.delays)
            worker = lane.worker
            each.append(OneLane(counts, turns, worker.info if worker is not None else None))
            progress.counts.add(counts, 0)
            if lane.worker is not None and not lane.over:
                lane.worker.look_after()
        for one in now:
            progress.latencies.extend(one.latencies)
            one.latencies = []
            progress.lost += one.lost
        progress.partitions = sum(one.partitions or 0 for one in now)
        progress.ended = self.progress.ended.union(*(one.ended for one in now))
        progress.idle = min((one.idle for one in now), default=0.0)
        progress.joined = len(now) == len(self._lanes) and all(
            one.partitions is not None for one in now
        )
        progress.each, progress.deaths = tuple(each), len(self._crashes.described())
        progress.reloads = self.reloads()
        if self.lag is not None:
            heard = [lane.now for lane in self._lanes if lane.now is not None and lane.is_heard]
            progress.lags = self.lag.lags(frozenset().union(*(one.done for one in heard)))
            progress.stalled = self.lag.reasons([one.name for one in now])
        self.progress = progress

    def described(self) -> tuple[dict[str, Any], ...]:
        """The processes that died."""
        return self._crashes.described()

    # A newer model; see :class:`.renewal.Taker`.

    def pin(self, model: ModelSpec) -> None:
        """What processes that start later load."""
        self._model = model

    def load(self, model: ModelSpec) -> Trial:
        """A process with another model, beside those that predict.

        Raises:
            ModelbeamError: it cannot be loaded.
        """
        trial = self._trial = Trial(model, self._number, self.record_timeout)
        try:
            if self._stopping:
                raise JobError("The run ends.")
            trial.wait()
        except BaseException:
            trial.close()
            raise
        return trial

    def problem(self, candidate: Trial) -> str | None:
        """Why it cannot go on where the lanes are."""
        assert self.info is not None
        assert candidate.info is not None
        why = unfit_schema(self.info.output_schema, candidate.info.output_schema)
        if why is not None:
            return why
        pairs = max((self._recent(lane) for lane in self._lanes), key=len)
        found: str | None = candidate.call("try", pairs, self._job, self.info.output_schema)
        return found

    def _recent(self, lane: _Lane) -> tuple[Any, ...]:
        """What a lane has predicted last."""
        worker = lane.worker
        try:
            found: tuple[Any, ...] = () if worker is None else worker.call("recent")
            return found
        except ModelbeamError:  # it has just died
            return ()

    def take(self, candidate: Trial, model: ModelSpec) -> str | None:
        """Let a lane after another finish its transaction, and go on in a process with this model;
        returns what keeps one with the model that it has."""
        self._model = model
        with self.changed:
            self.info = candidate.info
        for number, lane in enumerate(self._lanes):
            try:
                trial = candidate if number == 0 else self.load(model)
            except ModelbeamError as error:
                left = count(self._number - number, "lane")
                return f"{left} of {self._number} kept the one before: {error}"
            self._hand_over(lane, trial)
        return None

    def _hand_over(self, lane: _Lane, trial: Trial) -> None:
        lane.next = trial.worker
        trial.worker.adopt(self)
        until = time.monotonic() + HAND_OVER_SECONDS
        while time.monotonic() < until and not lane.over and not self._stopping:
            worker = lane.worker
            if worker is not trial.worker:
                if worker is not None:
                    worker.tell("stop")
            elif lane.now is not None and lane.now.partitions is not None:
                break  # the next one may stop for a moment
            time.sleep(LOOK_SECONDS / 4)

    # What a process tells of itself; see :class:`.worker.Owner`.

    @property
    def record_timeout(self) -> float | None:
        """Seconds that a record may take."""
        return self._crashes.record_timeout

    def worker_loaded(self, _worker: Worker, info: ModelInfo, _grown: int) -> None:
        """It has its model."""
        with self.changed:
            self.info = self.info or info
            self.changed.notify_all()

    def worker_measured(self, worker: Worker, shares: Shares) -> None:
        """Lanes are processes in any case."""

    def worker_progressed(self, split: Split, progress: Progress) -> None:
        """Lanes have progress of their own."""

    def worker_told(self, worker: Worker, progress: Any) -> None:
        """A lane is so far."""
        for lane in self._lanes:
            if lane.worker is worker:
                lane.told = time.monotonic()
                before = lane.now.latencies if lane.now is not None else []
                lane.now = replace(progress, latencies=[*before[-1000:], *progress.latencies])

    def worker_ended(self, _worker: Worker, error: ModelbeamError) -> ModelbeamError:
        """It is gone."""
        if self.info is None:
            self.stop(error)
        return error
