"""Lanes on an engine: each an element that works for a while and then defers.

Kafka holds the truth, so the engine's checkpoints are not needed, and a lane that was killed goes
on wherever it is started again. Every lane has a branch of the pipeline to itself: elements of one
branch may come to one task, which does them one after another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Duration

from modelbeam.beam.loading import acquire
from modelbeam.beam.on_worker import keep_memory, settle, told
from modelbeam.errors import ModelbeamError
from modelbeam.job.careful import Careful, CarefulModel, Load
from modelbeam.job.description import ModelSpec
from modelbeam.kafka import address
from modelbeam.kafka.control import Control
from modelbeam.kafka.identity import Numbered
from modelbeam.kafka.lane import Lane, LaneJob
from modelbeam.models.base import LoadedModel

TURN_SECONDS = 5.0
"""How long a lane works before it hands its task back to the engine for a moment."""

PAUSE_SECONDS = 0.01

HEAR_SECONDS = 1.0
"""How often a lane asks whether it is to go on."""

_FAR = 2**62

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerLanes:
    """What an engine's workers are told of their lanes; plain data without secrets.

    Attributes:
        model: what to predict with.
        lane: how, without the client settings.
        config: the file that the client settings are in, on each worker.
        versions: what the workers' software must be, by distribution.
        flags: of Beam's, those that say how storage is reached.
        record_timeout: seconds that a record may take, or ``None``.
        max_crashes: how many records may kill the model's process, in each life of a lane.
    """

    model: ModelSpec
    lane: LaneJob
    config: str | None
    versions: dict[str, str]
    flags: tuple[str, ...]
    record_timeout: float | None
    max_crashes: int


class _Undivided(OffsetRestrictionTracker):
    """Of a lane nothing can be split off but the rest, once its turn is over.

    Another may never go on with the rest while the turn goes on: they would be one lane twice.
    """

    def try_split(self, fraction_of_remainder: float) -> Any:
        claimed = self._last_claim_attempt
        over = claimed is not None and claimed > self._range.start
        return super().try_split(0) if over and fraction_of_remainder == 0 else None


class _Turns(RestrictionProvider):
    """A restriction of two positions a turn, its beginning and its end, and with an end so far away
    that only a lane that ends claims it."""

    def initial_restriction(self, _element: Any) -> OffsetRange:
        return OffsetRange(0, _FAR)

    def create_tracker(self, restriction: OffsetRange) -> _Undivided:
        return _Undivided(restriction)

    def restriction_size(self, _element: Any, _restriction: OffsetRange) -> int:
        return 1

    def truncate(self, _element: Any, _restriction: OffsetRange) -> None:
        """Drained, it ends after its turn; the offsets are committed."""


class _Held:
    """A lane of this process, kept between its turns; whichever bundle comes next goes on with it.

    An attempt that the engine gave up does not close what it had. The next one in this process
    finds it here, and takes it over once the turn in hand is over.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: object = None
        self._run = ""
        self._lane: Lane | None = None
        self._control: Control | None = None
        self._apart: CarefulModel | None = None
        self._heard = 0.0
        self._word = ""

    def turn(
        self, work: WorkerLanes, number: int, shared: Shared, count: Callable[[int, int], None]
    ) -> bool:
        """Work for a while; whether to go on afterwards."""
        if self._lane is None or self._run != work.lane.run:
            self.close()
            if not self._open(work, number, shared):
                return False
        until = time.monotonic() + TURN_SECONDS
        assert self._lane is not None
        counts = self._lane.counts
        while self._goes_on():
            if self._lane.fenced or time.monotonic() >= until:
                return True
            read, failed = counts.read, counts.failed
            self._lane.turn()
            count(counts.read - read, counts.failed - failed)
            if work.record_timeout is None and not self._lane.doubtful:
                self._end_apart()
        log.info("lane %d of %s ends: %s", number, work.lane.group, self._word)
        self.close()
        return False

    def _open(self, work: WorkerLanes, number: int, shared: Shared) -> bool:
        """Connect; not if it is over already."""
        settle(work.flags, work.versions)
        keep_memory()
        settings = address.read_settings(work.config) if work.config else {}
        job = replace(work.lane, settings=settings)
        self._run, self._heard = job.run, 0.0
        self._control = Control(job.input, settings, job.group, job.run)
        if not self._goes_on():
            self.close()
            return False

        def careful() -> LoadedModel:
            return self._model_apart(work)

        model = acquire(shared, work.model) if work.record_timeout is None else careful()
        self._lane = Lane(
            job,
            model,
            lambda _: None,
            lambda: not self._goes_on(),
            Numbered(job.group, number),
            careful if work.record_timeout is None else None,
        )
        return True

    def _model_apart(self, work: WorkerLanes) -> LoadedModel:
        """The model in a process of its own: where a worker died, and where time is limited."""
        if self._apart is None:
            self._apart = CarefulModel(
                Load.of(work.model, work.model.arguments),
                Careful(work.record_timeout, work.max_crashes, work.max_crashes),
            )
            self._apart.place = f"a transaction of {work.lane.input.url}"
        return cast(LoadedModel, self._apart)

    def _end_apart(self) -> None:
        apart, self._apart = self._apart, None
        if apart is not None:
            apart.close()

    def _goes_on(self) -> bool:
        """Whether nobody has said otherwise; asked once in a while."""
        now = time.monotonic()
        if self._control is not None and now >= self._heard + HEAR_SECONDS:
            self._word, self._heard = self._control.heard(), now
        return self._word in ("", "go on")

    def close(self) -> None:
        """Leave the group and let all connections go."""
        lane, self._lane = self._lane, None
        control, self._control = self._control, None
        self._word = ""
        with suppress(Exception):
            if lane is not None:
                lane.close()
        with suppress(Exception):
            if control is not None:
                control.close()
        with suppress(Exception):
            self._end_apart()


_lanes: dict[tuple[str, int], _Held] = {}
_guard = threading.Lock()


def _held(group: str, number: int) -> _Held:
    with _guard:
        return _lanes.setdefault((group, number), _Held())


_RESTRICTION = beam.DoFn.RestrictionParam(_Turns())


class RunLane(beam.DoFn):
    """Runs one lane, a turn at a time, until it is told to stop.

    Args:
        work: what all lanes are told.
        number: which one this is.
        shared: by which the lanes of a process have one model.
    """

    def __init__(self, work: WorkerLanes, number: int, shared: Shared) -> None:
        self._work, self._number, self._shared = work, number, shared
        self._read = Metrics.counter("modelbeam", "records_read")
        self._failed = Metrics.counter("modelbeam", "records_failed")

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, _: Any, tracker: Any = _RESTRICTION) -> None:
        """A turn."""
        restriction = tracker.current_restriction()
        if not tracker.try_claim(restriction.start):
            return
        held = _held(self._work.lane.group, self._number)
        with held.lock:
            held.owner = self
            try:
                goes_on = held.turn(self._work, self._number, self._shared, self._count)
            except ModelbeamError:  # it would be the same again; the submitting process is told
                held.close()
                with told(f"lane {self._number}"):
                    raise
            except BaseException:
                held.close()
                raise
        if goes_on:
            tracker.try_claim(restriction.start + 1)  # the turn is over
            tracker.defer_remainder(Duration.of(PAUSE_SECONDS))
        else:
            tracker.try_claim(restriction.stop)  # the end, without which it would not be done

    def _count(self, read: int, failed: int) -> None:
        if read:
            self._read.inc(read)
            self._failed.inc(failed)

    def teardown(self) -> None:
        """Close what no other has taken over."""
        held = _held(self._work.lane.group, self._number)
        with held.lock:
            if held.owner is self:
                held.close()


def build_lanes(pipeline: beam.Pipeline, work: WorkerLanes, number: int) -> None:
    """A pipeline of so many lanes.

    Args:
        pipeline: Beam's.
        work: what the lanes are told.
        number: how many.
    """
    shared = Shared()
    for lane in range(number):
        (
            pipeline
            | f"Lane {lane}" >> beam.Create([lane], reshuffle=False)
            | f"RunLane {lane}" >> beam.ParDo(RunLane(work, lane, shared))
        )
