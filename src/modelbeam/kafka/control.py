"""What a run on an engine and the process that submitted it tell each other, by way of the brokers.

The submitting process and the workers have nothing but the brokers in common. A group of its own,
``GROUP-control``, has no members; beside its offset for partition 0 of the input stands which run
is the newest, and whether it is to stop. Lanes look there once a second. So a stop reaches every
machine, and of two runs with the same lanes the newer stays and the older ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from modelbeam.errors import RequestError
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import client, committed, connected, log, looking
from modelbeam.kafka.tally import Tally

LOOK_SECONDS = 5.0
"""How long an answer may take; one that takes longer is asked for again later."""

Word = Literal["go on", "stop", "superseded"]


class Control:
    """One run's word to its lanes.

    Args:
        topic: the input.
        settings: of librdkafka's; they may hold secrets.
        group: the consumer group of the lanes.
        run: the run's name.
    """

    def __init__(self, topic: Topic, settings: Mapping[str, str], group: str, run: str) -> None:
        self._kafka = client()
        self.group = f"{group}-control"
        self._run = run
        self._consumer = looking(topic.brokers, settings, self.group)
        self._place = (topic.name, 0)

    def say(self, *, stop: bool) -> None:
        """Say that this is the newest run, and whether it is to stop.

        Raises:
            RequestError: the cluster does not take it.
        """
        text = json.dumps({"run": self._run, "stop": stop})
        place = self._kafka.TopicPartition(*self._place, 0, text)
        try:
            committed(self._consumer, [place])
        except self._kafka.KafkaException as error:
            raise RequestError(
                f"The group {self.group}, by which a run on an engine is told to stop, does not "
                f"take what is written to it: {error.args[0].str()}. It needs the same rights as "
                f"the group of the run."
            ) from None

    def heard(self) -> Word:
        """What the newest word means for this run; without an answer it is to go on."""
        place = self._kafka.TopicPartition(*self._place)
        with suppress(self._kafka.KafkaException, ValueError, KeyError, TypeError):
            (answer,) = self._consumer.committed([place], timeout=LOOK_SECONDS)
            said = json.loads(answer.metadata or "{}")
            if said and said["run"] != self._run:
                return "superseded"
            if said and said["stop"]:
                return "stop"
        return "go on"

    def close(self) -> None:
        """Let the connection go."""
        self._consumer.close()


@dataclass(frozen=True, slots=True)
class Sight:
    """How a group is.

    Attributes:
        offsets: what it has committed, by partition.
        tallies: what the run has done, by partition.
        lanes: members.
        partitions: how many of its partitions have a member.
    """

    offsets: dict[int, int]
    tallies: dict[int, Tally]
    lanes: int
    partitions: int


class GroupWatch:
    """Looks at the lanes' group from outside, again and again.

    Args:
        topic: the input.
        settings: of librdkafka's.
        group: of the lanes.
        run: whose tallies count.
    """

    def __init__(self, topic: Topic, settings: Mapping[str, str], group: str, run: str) -> None:
        self._kafka, self._topic, self._group, self._run = client(), topic, group, run
        self._consumer = looking(topic.brokers, settings, group)
        admin = self._kafka.admin.AdminClient
        self._admin = connected(admin, topic.brokers, settings, {})

    def look(self, partitions: Sequence[int]) -> Sight | None:
        """How the group is now, or ``None`` if the brokers do not answer now."""
        places = [self._kafka.TopicPartition(self._topic.name, number) for number in partitions]
        try:
            answers = self._consumer.committed(places, timeout=LOOK_SECONDS)
            lanes, owned = self._members()
        except self._kafka.KafkaException as error:
            log.info("looking at the group %s: %s", self._group, error)
            return None
        offsets = {place.partition: place.offset for place in answers if place.offset >= 0}
        tallies = {place.partition: Tally.read_from(place.metadata, self._run) for place in answers}
        return Sight(offsets, tallies, lanes, owned)

    def _members(self) -> tuple[int, int]:
        asked = self._admin.describe_consumer_groups([self._group], request_timeout=LOOK_SECONDS)
        described = asked[self._group].result()
        owned = {
            place.partition
            for member in described.members
            for place in member.assignment.topic_partitions
            if place.topic == self._topic.name
        }
        return len(described.members), len(owned)

    def close(self) -> None:
        """Let the connections go."""
        self._consumer.close()
