"""A run from topic to topic on this machine: as data arrives, or until now."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from modelbeam._version import RUN_SCHEMA
from modelbeam.errors import RequestError, TooManyErrorsError
from modelbeam.job.description import Job
from modelbeam.job.prepare import too_many_in_stream
from modelbeam.job.result import Run
from modelbeam.kafka import address
from modelbeam.kafka.address import Topic
from modelbeam.kafka.beginning import settle
from modelbeam.kafka.cluster import Cluster
from modelbeam.kafka.lag import LagWatch
from modelbeam.kafka.lane import LaneJob
from modelbeam.local.crashes import Crashes
from modelbeam.local.lanes import Lanes, LanesProgress, LanesWatcher
from modelbeam.local.renewal import Renewal
from modelbeam.local.start import Started
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo

DEFAULT_DELIVERY = "exactly-once"


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of lanes, as they are on the brokers.

    Attributes:
        cluster: of the input.
        partitions: of the input.
        lane: what lanes are told.
    """

    cluster: Cluster
    partitions: list[int]
    lane: LaneJob


def look_at(job: Job) -> Ends:
    """Make sure that the topics are there, and that the group knows where it begins.

    Raises:
        RequestError: one is not, or the cluster does not answer.
    """
    source, target, errors = topics_of(job)
    settings = address.read_settings(job.kafka_config) if job.kafka_config else {}
    cluster = Cluster(source.brokers, settings)
    partitions = cluster.partitions(source, "--input")
    there = cluster if target.brokers == source.brokers else Cluster(target.brokers, settings)
    there.partitions(target, "--output")
    there.partitions(errors, "--errors")
    limits = there.limits([target.name, errors.name])
    exactly_once = job.delivery == DEFAULT_DELIVERY
    settle(
        *(cluster, settings, source, partitions, job.consumer_group, job.begin),
        exactly_once=exactly_once,
    )
    lane = LaneJob(
        input=source,
        output=target,
        errors=errors,
        group=job.consumer_group,
        settings=settings,
        keep=job.keep,
        batch_size=None if job.batch_size == "auto" else job.batch_size,
        longest=job.max_record_size,
        exactly_once=exactly_once,
        form=job.errors_format,
        skip_lost=job.on_data_loss == "earliest",
        ends=None,
        limits=(limits[target.name], limits[errors.name]),
    )  # fmt: skip
    return Ends(cluster, partitions, lane)


def topics_of(job: Job) -> tuple[Topic, Topic, Topic]:
    """The input, the output and the topic of failed records.

    Raises:
        RequestError: they do not fit each other.
    """
    if len(job.inputs) > 1 or not address.is_topic(job.inputs[0]):
        raise RequestError(
            f"--output {job.output}: into a topic goes one topic, or files, and --input "
            f"{', '.join(job.inputs)} is neither; start a command for each."
        )
    source = address.parse(job.inputs[0], "--input")
    target, errors = ends_of(job)
    if job.delivery == DEFAULT_DELIVERY and target.brokers != source.brokers:
        raise RequestError(
            "--output is on another cluster than --input: no transaction holds the offsets of "
            "one and the predictions of the other. Use --delivery at-least-once, or a topic of "
            "the same cluster."
        )
    if source in (target, errors):
        raise RequestError("--input, --output and --errors must be three topics.")
    return source, target, errors


def ends_of(job: Job) -> tuple[Topic, Topic]:
    """The output and the topic of failed records.

    Raises:
        RequestError: they do not fit each other.
    """
    target = address.parse(job.output, "--output")
    if job.errors is None:
        raise RequestError(
            f"--errors: say where failed records go, such as --errors {target.url}-errors; "
            f"modelbeam makes no topics."
        )
    errors = address.parse(job.errors, "--errors")
    if errors.brokers != target.brokers:
        raise RequestError(
            "--errors and --output must be on the same cluster: a transaction holds both."
        )
    if target == errors:
        raise RequestError("--output and --errors must be two topics.")
    return target, errors


class StreamRun:
    """One run over a topic.

    Args:
        job: what to do; its input and its output are topics.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
        asked: set when a person wants the model to be loaded anew.
    """

    def __init__(
        self,
        job: Job,
        watcher: LanesWatcher,
        now: float,
        started: Started | None,
        asked: threading.Event | None = None,
    ) -> None:
        self._asked = asked or threading.Event()
        self._job, self._watcher, self._now, self._started = job, watcher, now, started
        self._notes: list[str] = []
        self._ends: dict[int, int] | None = None

    def run(self) -> Run:
        """Run it to its end.

        Raises:
            RequestError: the request is wrong; nothing ran.
            JobError: it failed; what is committed stays, and the same command goes on from there.
        """
        job = self._job
        there = look_at(job)
        lane, partitions = there.lane, there.partitions
        if not job.streaming:
            self._ends = self._bounds(there.cluster, lane.input, partitions)
            lane = replace(lane, ends=self._ends)
        number = min(job.workers or available_cores(), max(1, len(partitions)))
        crashes = Crashes(job.record_timeout, job.max_crashes)
        renewal = Renewal(job.model, job.settle, self._note)
        lanes = Lanes(renewal.model, number, self._started, crashes)
        lanes.reloads = renewal.counted
        lag = lanes.lag = LagWatch(lane.input, lane.settings, lane.group, job.stall_after)
        stopped = False
        try:
            info = lanes.wait_loaded(self._watcher.loading)
            if job.streaming:
                renewal.begin(lanes, self._asked)
            lag.start(partitions)
            try:
                lanes.run(lane, self._watcher, self._enough)
            except KeyboardInterrupt:
                stopped = True
        finally:
            lanes.finish()
            renewal.end()
            lag.end()
        if not stopped and (error := self._too_many(lanes.progress, ended=True)):
            raise error
        return self._result(lanes, lanes.info or info, lane, stopped, renewal)

    def _bounds(self, cluster: Cluster, source: Topic, partitions: list[int]) -> dict[int, int]:
        """Where each partition ends now, for a reader of what is committed."""
        ranges = cluster.ranges(source.name, partitions)
        held = sum(one.high - one.end for one in ranges.values())
        if held:
            self._note(
                f"{held} offsets of {source.url} are behind transactions that are still open; they "
                f"are left for the next run"
            )
        return {partition: one.end for partition, one in ranges.items()}

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._watcher.note(text)

    def _enough(self, progress: LanesProgress) -> bool:
        """Whether the run has come to its end."""
        job = self._job
        if error := self._too_many(progress):
            raise error
        if self._ends is not None and progress.ended.issuperset(self._ends):
            return True
        if job.stop_after is not None and time.time() - self._now > job.stop_after:
            return True
        idle = job.stop_when_idle
        return idle is not None and progress.joined and progress.idle > idle

    def _too_many(
        self, progress: LanesProgress, *, ended: bool = False
    ) -> TooManyErrorsError | None:
        kept = f"All of them are in {self._job.errors}."
        return too_many_in_stream(self._job.max_errors, progress.counts, kept, ended=ended)

    def _result(
        self, lanes: Lanes, info: ModelInfo, lane: LaneJob, stopped: bool, renewal: Renewal
    ) -> Run:
        progress, job = lanes.progress, self._job
        seconds = time.time() - self._now
        why = "stopped" if stopped else "until now" if self._ends is not None else "ended"
        description = described(job, info, lane, progress, why, seconds)
        description["crashes"] = list(lanes.described())
        description["notes"] = self._notes
        description["reloads"] = [one.to_dict() for one in renewal.reloads]
        return streamed(description)


def described(
    job: Job, info: ModelInfo, lane: LaneJob, progress: LanesProgress, end: str, seconds: float
) -> dict[str, Any]:
    """What ``--json`` prints of a run over a topic."""
    counts = progress.counts
    return {
        "schema": RUN_SCHEMA,
        "status": "succeeded",
        "end": end,
        "model": info.to_dict(),
        "input": lane.input.url,
        "output": lane.output.url,
        "errors": lane.errors.url,
        "group": lane.group,
        "delivery": job.delivery,
        "lanes": progress.lanes,
        "counts": {"read": counts.read, "predicted": counts.predicted, "failed": counts.failed},
        "failures": [kind.to_dict() for kind in counts.kinds],
        "crashes": [],
        "records_per_second": round(counts.read / max(seconds, 1e-3)),
        "lag": progress.lag,
        "latency_ms": {
            f"p{round(100 * share)}": progress.delays.quantile(share) for share in (0.5, 0.99)
        },
        "lost": list(progress.lost),
        "notes": [],
        "seconds": round(seconds, 3),
    }


def streamed(description: dict[str, Any]) -> Run:
    """The run that :func:`described` describes."""
    counts = description["counts"]
    return Run(
        read=counts["read"],
        predicted=counts["predicted"],
        failed=counts["failed"],
        shards=(),
        errors=(description["errors"],),
        output=description["output"],
        seconds=description["seconds"],
        failures=tuple(description["failures"]),
        description=description,
    )
