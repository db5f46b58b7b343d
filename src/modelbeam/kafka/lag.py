"""How far a group is behind, looked at from outside; and what of it does not move."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import client, connected, log, looking
from modelbeam.text import count

LAG_SECONDS = 2.0
"""Between two looks."""

PARTITIONS_SECONDS = 30.0
"""Between two looks at which partitions there are."""

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Behind:
    """How a group is.

    Attributes:
        offsets: what it has committed; a partition without that counts from its beginning.
        ends: up to where there is something to read, by partition.
        owners: who has each partition, by the name that a lane has, else by the client's; ``None``
            if that is not told.
    """

    offsets: dict[int, int]
    ends: dict[int, int]
    owners: dict[int, str] | None

    def lags(self, done: Collection[int] = ()) -> dict[int, int]:
        """Of each partition how many offsets are left.

        Args:
            done: partitions of which a lane says that it is at the end; what is left of them is a
                transaction's mark, or was compacted away.
        """
        return {
            partition: 0 if partition in done else max(0, end - self.offsets.get(partition, 0))
            for partition, end in self.ends.items()
        }


@dataclass(slots=True)
class Standstill:
    """Since when partitions with something to read have not moved."""

    _since: dict[int, float] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)

    def note(self, behind: Behind, done: Collection[int], now: float) -> None:
        """The group is there now."""
        for partition, lag in behind.lags(done).items():
            offset = behind.offsets.get(partition, -1)
            if not lag or offset != self._offsets.get(partition, offset):
                self._since.pop(partition, None)
            else:
                self._since.setdefault(partition, now)
            self._offsets[partition] = offset
        for gone in self._since.keys() - behind.ends.keys():
            del self._since[gone]

    def reasons(
        self, behind: Behind, ours: Collection[str], limit: float, now: float
    ) -> tuple[str, ...]:
        """What is wrong, a sentence each: partitions of our lanes, and those that nobody has.

        Args:
            behind: as noted last.
            ours: names of the lanes of this run.
            limit: seconds after which something is wrong.
            now: as for :meth:`note`.
        """
        said = []
        lags = behind.lags()
        for partition, since in sorted(self._since.items()):
            if now - since <= limit:
                continue
            lag = f"partition {partition} has {count(lags[partition], 'record')} of lag"
            owner = None if behind.owners is None else behind.owners.get(partition)
            if behind.owners is not None and owner is None:
                said.append(f"{lag} and belongs to no member of the group for {now - since:.0f} s")
            elif owner is None or owner in ours:
                who = f" by {owner}" if owner else ""
                said.append(f"{lag} and nothing of it was committed{who} for {now - since:.0f} s")
        return tuple(said)


class LagWatch:
    """Looks at a group every few seconds, in a thread of its own.

    Args:
        topic: the input.
        settings: of librdkafka's; they may hold secrets.
        group: the consumer group.
        limit: seconds after which what does not move is wrong.
    """

    def __init__(self, topic: Topic, settings: Mapping[str, str], group: str, limit: float) -> None:
        self._topic, self._settings, self._group, self._limit = topic, settings, group, limit
        self._kafka = client()
        self._behind: Behind | None = None
        self._standstill = Standstill()
        self._done: frozenset[int] = frozenset()
        self._answered = self._listed = time.monotonic()
        self._partitions: list[int] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="lag", daemon=True)

    def start(self, partitions: Collection[int]) -> None:
        """Look from now on.

        Args:
            partitions: of the topic, as they are now.
        """
        self._partitions = sorted(partitions)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def lags(self, done: Collection[int] = ()) -> dict[int, int]:
        """The lag of each partition; nothing before it is known.

        Args:
            done: partitions that a lane has just said it is at the end of.
        """
        with self._lock:
            self._done = frozenset(done)
            return self._behind.lags(done) if self._behind is not None else {}

    def reasons(self, ours: Collection[str]) -> tuple[str, ...]:
        """What is wrong, a sentence each; nothing if all is well.

        Args:
            ours: names of the lanes of this run.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._answered > self._limit + LAG_SECONDS:
                return (f"the brokers have not answered for {now - self._answered:.0f} s",)
            if self._behind is None:
                return ()
            return self._standstill.reasons(self._behind, ours, self._limit, now)

    def _go_on(self) -> None:
        consumer = looking(self._topic.brokers, self._settings, self._group)
        admin = connected(self._kafka.admin.AdminClient, self._topic.brokers, self._settings, {})
        try:
            while not self._ended.is_set():
                try:
                    behind = self._look(consumer, admin)
                    with self._lock:
                        self._behind, self._answered = behind, time.monotonic()
                        self._standstill.note(behind, self._done, self._answered)
                except Exception as error:  # the brokers are away; this is asked again
                    log.info("looking at the lag of %s: %s", self._group, error)
                self._ended.wait(LAG_SECONDS)
        finally:
            consumer.close()

    def _look(self, consumer: Any, admin: Any) -> Behind:
        kafka, name = self._kafka, self._topic.name
        now = time.monotonic()
        if now - self._listed > PARTITIONS_SECONDS:  # all: a topic may be made by asking for it
            known = admin.list_topics(timeout=ANSWER_SECONDS).topics
            self._partitions = sorted(known[name].partitions) if name in known else []
            self._listed = now
        places = [kafka.TopicPartition(name, partition) for partition in self._partitions]
        answers = consumer.committed(places, timeout=ANSWER_SECONDS)
        offsets = {place.partition: place.offset for place in answers if place.offset >= 0}
        ends = self._offsets(admin, places, kafka.admin.OffsetSpec.latest())
        new = [place for place in places if place.partition not in offsets]
        if new:
            offsets |= self._offsets(admin, new, kafka.admin.OffsetSpec.earliest())
        return Behind(offsets, ends, self._owners(admin))

    def _offsets(self, admin: Any, places: list[Any], which: Any) -> dict[int, int]:
        asked = admin.list_offsets(
            dict.fromkeys(places, which),
            isolation_level=self._kafka.IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER_SECONDS,
        )
        return {place.partition: future.result().offset for place, future in asked.items()}

    def _owners(self, admin: Any) -> dict[int, str] | None:
        """Who has which partition; that may need a right which nothing else does."""
        try:
            asked = admin.describe_consumer_groups([self._group], request_timeout=ANSWER_SECONDS)
            members = asked[self._group].result().members
        except self._kafka.KafkaException as error:
            log.info("describing the group %s: %s", self._group, error)
            return None
        return {
            place.partition: member.group_instance_id or member.client_id
            for member in members
            for place in member.assignment.topic_partitions
            if place.topic == self._topic.name
        }
