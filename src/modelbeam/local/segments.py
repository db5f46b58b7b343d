"""A run from a topic into files that goes on: numbered segments, each a small run of its own.

A segment is closed once it holds so many records, or so long after its first one came. Its offsets
are then read and predicted as a job over a range of offsets does it, and an entry in the ledger
makes it count; see :mod:`.ledger`. Where the next segment begins is what the last entry says, never
what this process remembers. The group's offsets are committed afterwards, so that Kafka's tools
show the lag; nothing depends on them once the ledger has been begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from modelbeam._version import RUN_SCHEMA
from modelbeam.errors import InputReadError, JobError, RequestError
from modelbeam.formats import layout
from modelbeam.job.description import Job
from modelbeam.job.prepare import output_of, too_many_in_stream
from modelbeam.job.result import Run
from modelbeam.job.task import Totals
from modelbeam.kafka import address
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import Cluster, client, gone
from modelbeam.local.renewal import Renewal
from modelbeam.local.small_runs import Decided, Made, SmallRuns, undisturbed
from modelbeam.local.start import Started
from modelbeam.models.base import ModelInfo
from modelbeam.sinks.ledger import Entry, Ledger, Offsets, same_topic
from modelbeam.sources import source_of
from modelbeam.storage import FileInfo

LOOK_SECONDS = 0.5
"""Between two looks at the ends of the partitions."""

PARTITIONS_SECONDS = 5.0
"""Between two looks at which partitions there are."""

AWAY_SECONDS = 300.0
"""How long the cluster may be away before the run ends."""


class SegmentsWatcher(Protocol):
    """What is told how it goes."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """Called about twice a second: what is in segments, and the offsets that are in none."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""


@dataclass(slots=True)
class _Next:
    """What the next segment is to hold.

    Attributes:
        taken: for each partition the offset at which the last segment ended, and the new end.
        inputs: what is read of them.
        lost: what is gone.
    """

    taken: dict[int, tuple[int, int]] = field(default_factory=dict)
    inputs: list[FileInfo] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def share(waiting: Mapping[int, int], most: int) -> dict[int, int]:
    """How many offsets of each partition a segment takes, so that they are ``most`` at most.

    What is left by those that have little goes to the others.

    Args:
        waiting: for each partition how many there are.
        most: of all together.
    """
    shares: dict[int, int] = {}
    left = most
    smallest_first = sorted(waiting, key=lambda partition: (waiting[partition], partition))
    for number, partition in enumerate(smallest_first):
        shares[partition] = min(waiting[partition], left // (len(waiting) - number))
        left -= shares[partition]
    return shares


class SegmentsRun:
    """One run from a topic into segments.

    Args:
        job: what to do; its input is one topic, its output a directory.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
        asked: set when a person wants the model to be loaded anew.
    """

    def __init__(
        self,
        job: Job,
        watcher: SegmentsWatcher,
        now: float,
        started: Started | None,
        asked: threading.Event | None = None,
    ) -> None:
        self._asked = asked or threading.Event()
        self._job, self._watcher, self._now = job, watcher, now
        output = job.output.rstrip("/") if len(job.output) > 1 else job.output
        self._ledger = Ledger(output, topic=True)
        self._totals = Totals()
        self._number = self._waits = 0
        self._lost: list[str] = []
        self._topic: Topic = self._checked()
        self._renewal = Renewal(job.model, job.settle, self._say)
        self._small = SmallRuns(
            job, self._renewal.model, self._ledger, started, watcher, self._tell
        )
        settings = address.read_settings(job.kafka_config) if job.kafka_config else {}
        self._cluster = Cluster(self._topic.brokers, settings)
        self._partitions: list[int] = []
        self._partitions_due = self._away_since = self._failing_since = 0.0
        self._identity = ""
        self._notes: list[str] = []

    def _checked(self) -> Topic:
        job = self._job
        if len(job.inputs) > 1:
            raise RequestError(
                f"--input {', '.join(job.inputs)}: segments are of one topic; start a command for "
                f"each, with an output of its own."
            )
        if job.single_file:
            raise RequestError(
                f"--output {job.output}: a run that goes on writes a directory of segments; name "
                f"one."
            )
        output_of(job)
        return address.parse(job.inputs[0], "--input")

    def run(self) -> Run:
        """Run until it is stopped, or nothing has come for long enough.

        Raises:
            RequestError: the request is wrong; nothing ran.
            JobError: it cannot go on; what is in the ledger stays.
        """
        source_of(self._job.inputs[0]).configure(self._job.asked)
        self._look_at_partitions()
        self._ledger.open()
        self._ledger.clear()
        if not self._ledger.entries:
            self._begin()
        self._check_topic()
        self._ledger.hold()
        try:
            self._small.make_ready()
            self._renewal.begin(self._small, self._asked)
            self._go_on()
            self._check_errors(ended=True)
            return self._result("ended")
        except KeyboardInterrupt:
            if self._small.info is None:
                raise
            return self._result("stopped")
        finally:
            self._small.close()
            self._renewal.end()
            self._ledger.close()

    # The ledger

    @property
    def _last(self) -> Offsets:
        return self._ledger.last

    def _begin(self) -> None:
        """Put the first entry, which says where each partition begins; or find another's."""
        found = source_of(self._job.inputs[0]).discover(
            self._job.inputs, any_suffix=False, excluded=()
        )
        for note in found.notes:
            self._note(note)
        starts = {int(info.path.rpartition("/")[2]): info.mtime_ns for info in found.inputs}
        self._ledger.put(
            Entry("", (), offsets=Offsets(self._topic.name, self._identity, next=starts))
        )

    def _check_topic(self) -> None:
        """Refuse a ledger of another topic; one that was made again has lost what was not read."""
        last, topic = self._last, self._topic
        elsewhere = self._identity.partition("/")[0] != last.identity.partition("/")[0]
        if last.topic != topic.name or elsewhere:
            where = " on another cluster" if elsewhere else ""
            raise RequestError(
                f"--output {self._ledger.output} has segments of the topic '{last.topic}'{where}. "
                f"Name another directory."
            )
        if not same_topic(self._identity, last.identity):
            what = f"the topic {topic.url} was deleted and made again since the last segment"
            self._losing([what])
            starts = {one: there.first for one, there in self._ranges().items()}
            fresh = replace(last, identity=self._identity, taken={}, next=starts, lost=(what,))
            self._put(fresh, last)

    def _put(self, offsets: Offsets, last: Offsets, made: Made | None = None) -> bool:
        """Put an entry behind the ``last`` one that was known; whether it was put."""
        work, counts = (made.work, made.counts) if made is not None else ("", {})
        with undisturbed():
            return self._ledger.put_after(last, Entry(work, (), counts, offsets=offsets))

    # Segments

    def _go_on(self) -> None:
        job = self._job
        active = time.monotonic()
        opened: float | None = None
        ends: dict[int, int] = {}
        while True:
            now = time.monotonic()
            self._small.hand_over()
            self._ledger.read()  # of another process that does the same
            before, ends = ends, self._ends() or ends
            if ends != before:
                active = now
            waiting = sum(self._waiting(ends).values())
            opened = None if not waiting else opened or now
            self._waits = waiting
            self._tell()
            over = job.stop_after is not None and time.time() - self._now > job.stop_after
            quiet = job.stop_when_idle is not None and now - active >= job.stop_when_idle
            full = waiting >= job.segment_records
            late = opened is not None and now - opened >= job.segment
            if waiting and (over or quiet or full or late) and not self._away_since:
                if self._close():
                    opened = None
                else:
                    time.sleep(LOOK_SECONDS)
                if over:
                    return
            elif over or (quiet and not self._away_since):
                self._note_held()
                return
            else:
                time.sleep(LOOK_SECONDS)

    def _tell(self) -> None:
        self._watcher.segments(self._totals, self._number, self._waits)

    def _waiting(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Of each partition how many offsets are in no segment yet, about."""
        found = {one: end - self._last.next.get(one, 0) for one, end in ends.items()}
        # a partition that ends before its last segment is another one, which is looked at
        return {one: number if number >= 0 else 1 for one, number in found.items()}

    def _ends(self) -> dict[int, int] | None:
        """Where the partitions end; ``None`` while the cluster is away."""
        try:
            if time.monotonic() >= self._partitions_due:
                self._look_at_partitions()
            found = self._cluster.stable_ends(self._topic.name, self._partitions)
        except RequestError as error:
            self._note_away(error)
            return None
        self._away_since = 0.0
        return found

    def _note_away(self, error: Exception) -> None:
        self._away_since = self._tried_again(error, self._away_since)

    def _tried_again(self, error: Exception, since: float) -> float:
        """Since when something fails; it ends the run if that is long ago."""
        why = str(error).removesuffix(" Run the same command with --resume.")
        if since and time.monotonic() - since > AWAY_SECONDS:
            raise JobError(f"{why} The same command goes on from the last segment.")
        self._note(f"{why} It is tried again.")
        return since or time.monotonic()

    def _note(self, text: str) -> None:
        """Say something once."""
        if text not in self._notes:
            self._say(text)

    def _say(self, text: str) -> None:
        self._notes.append(text)
        self._watcher.note(text)

    def _note_held(self) -> None:
        held = sum(one.high - one.end for one in self._ranges().values())
        if held:
            self._note(
                f"{held} offsets of {self._topic.url} are behind transactions that are still open; "
                f"they are left for the next run"
            )

    def _look_at_partitions(self) -> None:
        self._partitions = self._cluster.partitions(self._topic, "--input")
        self._identity = self._cluster.identity(self._topic.name)
        self._partitions_due = time.monotonic() + PARTITIONS_SECONDS

    def _ranges(self) -> Any:
        return self._cluster.ranges(self._topic.name, self._partitions)

    def _next(self, last: Offsets) -> _Next:
        """What the next segment holds: up to so many offsets from where the last one ends."""
        job, topic, found = self._job, self._topic, _Next()
        begins: dict[int, tuple[int, int]] = {}
        waiting: dict[int, int] = {}
        for partition, (first, end, high) in self._ranges().items():
            at = last.next.get(partition, first)
            begin = at
            if not first <= at <= high:
                what = gone(topic, job.consumer_group, partition, at, first, high)
                found.lost.append(what)
                begin = first
            begins[partition] = at, begin
            waiting[partition] = max(0, end - begin)
        for partition, number in share(waiting, job.segment_records).items():
            at, begin = begins[partition]
            if number or at != begin or partition not in last.next:
                found.taken[partition] = at, begin + number
            if number:
                found.inputs.append(FileInfo(f"{topic.url}/{partition}", number, begin))
        found.inputs.sort(key=lambda info: int(info.path.rpartition("/")[2]))
        return found

    def _close(self) -> bool:
        """Predict the next segment and put it into the ledger; whether that was done."""
        self._check_topic()
        last = self._last
        try:
            following = self._next(last)
            self._losing(following.lost)
            if not following.taken:
                return False
            made = self._made(following, last)
        except (InputReadError, RequestError) as error:
            if isinstance(error, RequestError) and self._cluster_answers():
                raise
            self._failing_since = self._tried_again(error, self._failing_since)
            return False
        self._failing_since = 0.0
        if self._made_again(last):
            self._ledger.discard(made.work if made is not None else "")
            return False
        read = made.totals.counts.read if made is not None else 0
        offsets = Offsets(
            self._topic.name,
            self._identity,
            following.taken,
            lost=tuple(following.lost),
            settings=made.decided.settings if made is not None else last.settings,
            layout=layout.to_json(made.decided.layout) if made is not None else last.layout,
        )
        if made is not None and not read:  # only marks of transactions
            self._ledger.discard(made.work)
            made = None
        if self._put(offsets, last, made):
            if made is not None:
                self._number += 1
                self._totals.add(made.totals.counts, 0)
            self._lost += following.lost
            self._commit()
        self._check_errors()
        return True

    def _made(self, following: _Next, last: Offsets) -> Made | None:
        if not following.inputs:
            return None
        decided = Decided(last.settings, layout.from_json(last.layout))
        return self._small.run(following.inputs, decided=decided if last.settings else None)

    def _made_again(self, last: Offsets) -> bool:
        """Whether the topic may have been made again while it was read; then that was another's."""
        self._look_at_partitions()
        return not same_topic(self._identity, last.identity)

    def _cluster_answers(self) -> bool:
        try:
            self._look_at_partitions()
        except RequestError:
            return False
        return True

    def _losing(self, what: list[str]) -> None:
        """Go on without what is lost, or end."""
        if what and self._job.on_data_loss != "earliest":
            raise JobError(
                f"{what[0]}. Nothing was predicted beyond that. To go on at the first record that "
                f"is there, add --on-data-loss earliest."
            )
        for one in what:
            self._note(f"{one}; passed over (--on-data-loss earliest)")

    def _commit(self) -> None:
        """Commit for the group where the segments end, for the lag; it may fail."""
        place, name = client().TopicPartition, self._topic.name
        places = [place(name, one, offset) for one, offset in self._last.next.items()]
        try:
            self._cluster.commit(self._job.consumer_group, places)
        except RequestError:
            self._note(
                f"the offsets of the group {self._job.consumer_group} could not be committed, so "
                f"its lag is not shown; the segments do not depend on it"
            )

    def _check_errors(self, *, ended: bool = False) -> None:
        kept = f"All of them are in {self._ledger.output}."
        limit, counts = self._job.max_errors, self._totals.counts
        if error := too_many_in_stream(limit, counts, kept, ended=ended):
            raise error

    def _result(self, end: str) -> Run:
        info: ModelInfo | None = self._small.info
        assert info is not None
        counts, seconds = self._totals.counts, time.time() - self._now
        description: dict[str, Any] = {
            "schema": RUN_SCHEMA,
            "status": "succeeded",
            "end": end,
            "model": info.to_dict(),
            "input": self._topic.url,
            "output": self._ledger.output,
            "group": self._job.consumer_group,
            "segments": self._number,
            "offsets": {str(one): offset for one, offset in sorted(self._last.next.items())},
            "counts": {
                "read": counts.read,
                "predicted": counts.predicted,
                "failed": counts.failed,
            },
            "failures": [kind.to_dict() for kind in counts.kinds],
            "crashes": list(self._small.crashes.described()),
            "reloads": [one.to_dict() for one in self._renewal.reloads],
            "lost": self._lost,
            "notes": self._notes,
            "seconds": round(seconds, 3),
        }
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
