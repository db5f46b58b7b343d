"""Lanes on an engine: submit them, follow them, and have them stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from modelbeam import engines
from modelbeam.beam import causes
from modelbeam.engines.base import LaneEngine, RemoteJob, Status
from modelbeam.engines.run import (
    PATIENCE_SECONDS,
    POLL_SECONDS,
    Submitted,
    check_detach,
    end_of,
    left,
    unique_name,
)
from modelbeam.errors import (
    EngineError,
    EngineUnreachableError,
    ModelbeamError,
    RequestError,
    TooManyErrorsError,
)
from modelbeam.job import flags as options
from modelbeam.job.description import Job
from modelbeam.job.prepare import too_many_in_stream
from modelbeam.job.result import Run
from modelbeam.kafka.cluster import DISTRIBUTION
from modelbeam.kafka.control import Control, GroupWatch, Sight
from modelbeam.kafka.lag import LagWatch
from modelbeam.kafka.lane import LaneJob
from modelbeam.local.lanes import LanesProgress, LanesWatcher
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.local.stream import Ends, described, look_at, streamed
from modelbeam.models.base import ModelInfo
from modelbeam.package.staging import stage
from modelbeam.predicting.counts import Counts

USUAL_LANES = 2
"""Where it is not known how many tasks the engine runs at once."""

STOP_SECONDS = 10.0
"""How long lanes may take to see that they are to stop; then the job is cancelled."""

BEHIND_SECONDS = 10.0
"""How long nothing may come before a run counts as idle whose offsets are not at the end of the
topic: what is left may be no records but a transaction's mark, or they may be hard to predict."""


class RemoteLanes:
    """One run from topic to topic on an engine.

    Args:
        job: what to do.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
    """

    def __init__(
        self, job: Job, watcher: LanesWatcher, now: float, started: Started | None
    ) -> None:
        self._job, self._watcher, self._now, self._started = job, watcher, now, started
        self._flags = job.beam_options
        self._engine = engines.remote_engine(self._flags)
        self._run = os.urandom(8).hex()
        self._progress = LanesProgress()
        self._notes: list[str] = []
        self._lag: LagWatch | None = None

    def run(self) -> Run | Submitted:
        """Run it until it is stopped, or leave it running.

        Raises:
            RequestError: the request is wrong; nothing was submitted.
            JobError: it failed; what is committed stays, and the same command goes on from there.
        """
        engine = self._engine
        if not isinstance(engine, LaneEngine):
            raise RequestError(
                f"--runner: {engine.title} does not run lanes from topic to topic. Use Flink "
                f"(--runner FlinkRunner --flink_master HOST:PORT), or leave --runner out."
            )
        if not self._job.streaming:
            raise RequestError(
                "--runner: from topic to topic an engine runs with --streaming only. Add it, with "
                "--stop-when-idle 10s for a run that ends, or leave --runner out."
            )
        check_detach(self._job, engine)
        there = look_at(self._job)
        added = engine.preflight(self._flags)
        self._progress.lanes = lanes = self._number(engine, len(there.partitions))
        info = self._load()
        control = Control(there.lane.input, there.lane.settings, there.lane.group, self._run)
        try:
            control.say(stop=False)
            try:
                job = self._submit(engine, there, info, lanes, added)
            except KeyboardInterrupt:
                with suppress(RequestError):
                    control.say(stop=True)  # lanes that start after all end at once
                raise
            try:
                return self._followed(job, there, info, control)
            finally:
                job.close()
        finally:
            control.close()

    def _number(self, engine: LaneEngine, partitions: int) -> int:
        asked = self._job.workers or options.value_of(self._flags, "--parallelism")
        wanted = int(asked or engine.lane_slots(self._flags) or USUAL_LANES)
        return max(1, min(wanted, partitions))

    def _load(self) -> ModelInfo:
        """Load the model here, in a process that ends again, to see that it can be."""
        pool = WorkerPool(self._job.model, 1, "threads", self._started)
        try:
            return pool.wait_loaded(self._watcher.loading)
        finally:
            pool.close(kill=True)

    def _submit(
        self, engine: LaneEngine, there: Ends, info: ModelInfo, lanes: int, added: list[str]
    ) -> RemoteJob:
        from modelbeam.beam.lanes import WorkerLanes, build_lanes
        from modelbeam.beam.options import remote_options
        from modelbeam.beam.private import new_pipeline

        job, flags = self._job, self._flags
        staged = stage(
            job,
            self._note,
            (*info.requires, DISTRIBUTION),
            loopback=self._engine.is_loopback(flags),
        )
        work = WorkerLanes(
            model=job.model.filled(),
            # secrets stay out of the pipeline, which engines keep and show
            lane=replace(there.lane, settings={}, run=self._run),
            config=os.path.abspath(job.kafka_config) if job.kafka_config else None,
            versions=staged.versions,
            flags=options.storage_flags(flags),
            record_timeout=job.record_timeout,
            max_crashes=job.max_crashes,
        )
        own = [f"--job_name={unique_name(info)}", "--streaming", f"--parallelism={lanes}"]
        own += [*engine.lane_flags(flags), *staged.flags]
        ours = {flag.split("=", 1)[0] for flag in own}
        defaults = [*own, *(flag for flag in added if flag.split("=", 1)[0] not in ours)]
        pipeline = new_pipeline(remote_options(flags, defaults))
        build_lanes(pipeline, work, lanes)
        submitted = self._engine.submit(pipeline, [*flags, *defaults])
        self._note(f"submitted to {submitted.engine} as {submitted.name}")
        return submitted

    def _followed(
        self, job: RemoteJob, there: Ends, info: ModelInfo, control: Control
    ) -> Run | Submitted:
        if self._job.detach:
            return left(job, self._job.output)
        lane = there.lane
        watch = GroupWatch(lane.input, lane.settings, lane.group, self._run)
        self._lag = LagWatch(lane.input, lane.settings, lane.group, self._job.stall_after)
        self._lag.start(there.partitions)
        why = "stopped"
        try:
            try:
                status = self._watched(job, there, watch)
                why = "ended"
            except KeyboardInterrupt:
                status = self._stopped(job, control)
            except ModelbeamError as error:
                if not isinstance(error, EngineUnreachableError):
                    self._cancelled(job)
                raise
            if not status.over:
                status = self._stopped(job, control)
            elif why == "ended":
                why = self._ended(job, status, control)
            self._look(watch, there)
        finally:
            watch.close()
            self._lag.end()
        if why == "ended" and (too_many := self._too_many(ended=True)):
            raise too_many
        return self._result(info, lane, why)

    def _watched(self, job: RemoteJob, there: Ends, watch: GroupWatch) -> Status:
        """Follow it until it is over, or enough."""
        linked = False
        idle = _Idle(self._job.stop_when_idle)
        for status in self._statuses(job):
            sight = self._look(watch, there)
            if job.link and not linked:
                linked = True
                self._note(f"its page: {job.link}")
            self._watcher.lanes(self._progress)
            if status.waits and (failure := causes.decode(job.cause())):
                raise failure  # it would fail again and again
            if error := self._too_many():
                raise error
            after = self._job.stop_after
            if status.over or (after is not None and time.time() - self._now > after):
                break
            if sight is not None and idle.enough(sight, there):
                break
        return status

    def _statuses(self, job: RemoteJob) -> Iterator[Status]:
        """What the engine answers, again and again; that it does not for a while is no failure."""
        silent_since = None
        while True:
            try:
                status = job.poll()
                silent_since = None
                yield status
            except EngineError as error:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > PATIENCE_SECONDS:
                    raise EngineUnreachableError(
                        f"Lost {job.engine}: {error}. The job {job.name} may go on; its offsets "
                        f"are in the group {self._job.consumer_group}. The same command takes over."
                    ) from None
            time.sleep(POLL_SECONDS)

    def _look(self, watch: GroupWatch, there: Ends) -> Sight | None:
        sight = watch.look(there.partitions)
        if sight is not None:
            counts = Counts()
            counts.read = sum(tally.read for tally in sight.tallies.values())
            counts.failed = sum(tally.failed for tally in sight.tallies.values())
            counts.predicted = counts.read - counts.failed
            if counts.read >= self._progress.counts.read:  # else another group's lane has written
                self._progress.counts = counts
            self._progress.partitions = sight.partitions
        if self._lag is not None:
            self._progress.lags = self._lag.lags()
            self._progress.stalled = self._lag.reasons(())
        return sight

    def _stopped(self, job: RemoteJob, control: Control) -> Status:
        """Have the lanes stop, which ends the job; one that does not end is cancelled."""
        with suppress(RequestError):
            control.say(stop=True)
            status = _over(job, STOP_SECONDS)
            if status is not None:
                return status
        return self._cancelled(job)

    def _cancelled(self, job: RemoteJob) -> Status:
        """Have the engine end it, which loses and doubles nothing either."""
        with suppress(EngineError):
            job.cancel()
        return _over(job, STOP_SECONDS) or Status("cancelled")

    def _ended(self, job: RemoteJob, status: Status, control: Control) -> str:
        """Why it is over, although nobody here has asked for it."""
        if status.state == "done":
            return "taken over" if control.heard() == "superseded" else "ended"
        raise end_of(
            job,
            status,
            "What is committed stays, and the same command goes on from there.",
        )

    def _too_many(self, *, ended: bool = False) -> TooManyErrorsError | None:
        kept = f"All of them are in {self._job.errors}."
        limit, counts = self._job.max_errors, self._progress.counts
        return too_many_in_stream(limit, counts, kept, ended=ended)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._watcher.note(text)

    def _result(self, info: ModelInfo, lane: LaneJob, why: str) -> Run:
        seconds = time.time() - self._now
        description = described(self._job, info, lane, self._progress, why, seconds)
        description["notes"] = self._notes
        description["engine"] = self._engine.title
        return streamed(description)


class _Idle:
    """Whether nothing has come for so long.

    Args:
        seconds: how long; ``None`` if that is no reason to stop.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._before: dict[int, int] | None = None
        self._since = 0.0

    def enough(self, sight: Sight, there: Ends) -> bool:
        """Whether it is enough, with the group as it is now."""
        if self._seconds is None:
            return False
        here = sight.partitions == len(there.partitions) == len(sight.offsets)
        if not here or sight.offsets != self._before:
            self._before, self._since = sight.offsets if here else None, time.monotonic()
            return False
        quiet = time.monotonic() - self._since
        if quiet <= self._seconds:
            return False
        ranges = there.cluster.ranges(there.lane.input.name, there.partitions)
        behind = any(ranges[number].end > offset for number, offset in sight.offsets.items())
        return not behind or quiet > BEHIND_SECONDS


def _over(job: RemoteJob, seconds: float) -> Status | None:
    """The job's last status, if it comes within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(EngineError):
            status = job.poll()
            if status.over:
                return status
        time.sleep(POLL_SECONDS / 4)
    return None
