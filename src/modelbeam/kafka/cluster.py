"""What there is on a cluster: brokers, topics, offsets of partitions and of a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from modelbeam.errors import RequestError, did_you_mean
from modelbeam.kafka.address import Topic, for_all

DISTRIBUTION = "confluent-kafka"
"""What has the client library."""

ANSWER_SECONDS = 20.0
"""How long a cluster may take to answer before it is said that it does not."""

ASK_SECONDS = 2.0
"""How long one question may take; meanwhile nothing is heard of why there is no answer."""

LOOKS = "modelbeam-looks"
"""The group of a client that asks for no group's offsets."""

LARGEST = 1_048_588
"""Bytes of a batch that a topic takes unless it or its broker says otherwise
(``message.max.bytes`` of Kafka's broker configuration)."""


Answer = TypeVar("Answer")

_REFUSED = ("_AUTHENTICATION", "_SSL")
"""Errors that another try does not mend: a wrong password, a certificate that is not trusted."""

_COMING_UP = ("NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE")
"""What a broker says for a moment: after its start, or when its partitions move."""


class Limits(NamedTuple):
    """What a topic takes.

    Attributes:
        largest: bytes of a message with all that belongs to it.
        before, after: milliseconds that a message's time may be in the past and in the future, or
            ``None`` for any.
    """

    largest: int
    before: int | None
    after: int | None


class Range(NamedTuple):
    """The offsets of a partition: from the first that is there to before ``end``.

    Attributes:
        end: the last stable offset: what is beyond it may belong to an open transaction.
        high: where the next message will be.
    """

    first: int
    end: int
    high: int


def client() -> Any:
    """The module ``confluent_kafka``.

    Raises:
        RequestError: it is not installed.
    """
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise RequestError(
            f"Kafka needs the package confluent-kafka ({error}). Install it with: "
            f"pip install 'modelbeam[kafka]'"
        ) from None
    return confluent_kafka


log = logging.getLogger("modelbeam.kafka")
"""What librdkafka says goes here, and is shown with ``--verbose``."""
log.addHandler(logging.NullHandler())


class Cluster:
    """The cluster behind some brokers.

    Args:
        brokers: ``host:port``, several separated by commas.
        settings: of librdkafka's, which may hold secrets.

    Raises:
        RequestError: the settings are wrong.
    """

    def __init__(self, brokers: str, settings: Mapping[str, str]) -> None:
        self.brokers = brokers
        self._settings = settings
        self._said = ""
        self._refused = False
        self._kafka = client()
        admin = self._kafka.admin.AdminClient
        self._admin = connected(admin, brokers, settings, {"error_cb": self._hear})

    @contextmanager
    def _asking(self, group: str, more: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """A consumer that asks for a group's offsets, or for those of partitions.

        Raises:
            RequestError: the cluster does not answer.
        """
        consumer = looking(self.brokers, self._settings, group, more)
        try:
            yield consumer
        except self._kafka.KafkaException as error:
            raise self._silent(error) from None
        finally:
            consumer.close()

    def _hear(self, error: Any) -> None:
        """The first thing that goes wrong is the cause; that all brokers are down is not."""
        if error.name() != "_ALL_BROKERS_DOWN":
            self._said = self._said or error.str()
        self._refused = self._refused or error.name() in _REFUSED

    def _silent(self, error: Any) -> RequestError:
        why = self._said or error.args[0].str()
        return RequestError(
            f"kafka://{self.brokers} does not answer as Kafka does: {why.strip().rstrip('.')}. Is "
            f"it running, is the port right, and do --kafka-config's security settings fit it?"
        )

    def topics(self) -> dict[str, list[int]]:
        """Every topic and its partitions.

        All are listed, since a broker may make a topic when it is asked for by name.

        Raises:
            RequestError: the cluster does not answer.
        """
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            left = max(0.1, until - time.monotonic())
            try:
                listed = self._admin.list_topics(timeout=min(ASK_SECONDS, left))
                break
            except self._kafka.KafkaException as error:
                self._admin.poll(0)  # by which it is heard why
                if self._refused or time.monotonic() >= until:
                    raise self._silent(error) from None
        return {name: sorted(topic.partitions) for name, topic in listed.topics.items()}

    def partitions(self, topic: Topic, flag: str) -> list[int]:
        """A topic's partitions.

        Raises:
            RequestError: there is no such topic, or the cluster does not answer.
        """
        known = self.topics()
        if topic.name not in known:
            near = did_you_mean(topic.name, [name for name in known if not name.startswith("__")])
            raise RequestError(
                f"{flag} {topic.url}: there is no topic '{topic.name}', or it may not be "
                f"seen{near}. modelbeam makes no topics."
            )
        return known[topic.name]

    def limits(self, topics: Sequence[str]) -> dict[str, Limits]:
        """What topics take; what a broker does not tell (it may not be allowed) is as usual."""
        kafka = self._kafka
        wanted = [kafka.admin.ConfigResource(kafka.admin.RESOURCE_TOPIC, name) for name in topics]
        found = {}
        answers = self._admin.describe_configs(wanted, request_timeout=ANSWER_SECONDS)
        for resource, future in answers.items():
            try:
                entries = {name: entry.value for name, entry in future.result().items()}
            except kafka.KafkaException:
                entries = {}
            either = entries.get("message.timestamp.difference.max.ms")
            log_time = entries.get("message.timestamp.type") == "LogAppendTime"
            found[resource.name] = Limits(
                int(entries.get("max.message.bytes") or LARGEST),
                None if log_time else _span(entries.get("message.timestamp.before.max.ms", either)),
                None if log_time else _span(entries.get("message.timestamp.after.max.ms", either)),
            )
        return found

    def identity(self, topic: str) -> str:
        """What tells a topic from another of its name: the cluster's and the topic's own names.

        The topic's is missing where the broker does not tell it.

        Raises:
            RequestError: the cluster does not answer.
        """
        kafka = self._kafka
        try:
            cluster = self._admin.list_topics(timeout=ANSWER_SECONDS).cluster_id
            asked = kafka.TopicCollection([topic])
            answers = self._admin.describe_topics(asked, request_timeout=ANSWER_SECONDS)
        except kafka.KafkaException as error:
            raise self._silent(error) from None
        try:
            own = str(answers[topic].result().topic_id or "")
        except kafka.KafkaException:
            own = ""
        return f"{cluster}/{own}"

    def stable_ends(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The last stable offset of each partition, with one request for all of them.

        Raises:
            RequestError: the cluster does not answer.
        """
        kafka = self._kafka
        latest = kafka.admin.OffsetSpec.latest()
        wanted = {kafka.TopicPartition(topic, one): latest for one in partitions}
        try:
            answers = self._admin.list_offsets(
                wanted,
                isolation_level=kafka.IsolationLevel.READ_COMMITTED,
                request_timeout=ANSWER_SECONDS,
            )
            return {place.partition: future.result().offset for place, future in answers.items()}
        except kafka.KafkaException as error:
            raise self._silent(error) from None

    def ranges(self, topic: str, partitions: Sequence[int]) -> dict[int, Range]:
        """The offsets of partitions, for a reader of what is committed.

        Raises:
            RequestError: the cluster does not answer.
        """
        found = {}
        with (
            self._asking(LOOKS, {"isolation.level": "read_committed"}) as stable,
            self._asking(LOOKS, {"isolation.level": "read_uncommitted"}) as all_there,
        ):
            for partition in partitions:
                place = self._kafka.TopicPartition(topic, partition)
                first, end = stable.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
                _, high = all_there.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
                found[partition] = Range(first, end, high)
        return found

    def committed(self, group: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The offsets that a group has committed, of the partitions that have any.

        Raises:
            RequestError: the cluster does not answer.
        """
        places = [self._kafka.TopicPartition(topic, partition) for partition in partitions]
        with self._asking(group) as consumer:
            return self._patiently(
                lambda: _known(consumer.committed(places, timeout=ANSWER_SECONDS))
            )

    def marked(self, group: str, topic: str, partition: int, *, settled: bool) -> tuple[int, str]:
        """The offset that a group has committed, negative for none, and the text beside it.

        Args:
            group, topic, partition: which.
            settled: whether to wait for the end of a transaction that may move it.

        Raises:
            RequestError: the cluster does not answer.
        """
        places = [self._kafka.TopicPartition(topic, partition)]

        def ask() -> tuple[int, str]:
            [place] = consumer.committed(places, timeout=ANSWER_SECONDS)
            if place.error is not None:
                raise self._kafka.KafkaException(place.error)
            return place.offset, place.metadata or ""

        level = "read_committed" if settled else "read_uncommitted"
        with self._asking(group, {"isolation.level": level}) as consumer:
            return self._patiently(ask)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask a group's coordinator, which may just be coming up or moving, until it answers."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return ask()
            except self._kafka.KafkaException as error:
                if error.args[0].name() not in _COMING_UP or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def commit(self, group: str, places: list[Any]) -> None:
        """Commit offsets for a group that has no members now.

        Raises:
            RequestError: it has, or the cluster does not answer.
        """
        with self._asking(group) as consumer:
            try:
                committed(consumer, places)
            except self._kafka.KafkaException as error:
                raise RequestError(
                    f"The predictions are published, and the offsets of the group {group} could "
                    f"not be committed: {error.args[0].str()}. Does something else read with this "
                    f"group? The same command with --resume commits them."
                ) from None

    def offsets_at(self, topic: str, partitions: Sequence[int], time_ms: int) -> dict[int, int]:
        """The first offset at or after a time, of the partitions that have one."""
        places = [self._kafka.TopicPartition(topic, p, time_ms) for p in partitions]
        with self._asking(LOOKS) as consumer:
            return _known(consumer.offsets_for_times(places, timeout=ANSWER_SECONDS))


def connected(kind: Any, brokers: str, settings: Mapping[str, str], more: Mapping[str, Any]) -> Any:
    """A client that neither reads nor writes messages.

    Args:
        kind: of client.
        brokers: ``host:port``, several separated by commas.
        settings: of librdkafka's; those that not every client has are left out.
        more: settings of this one.

    Raises:
        RequestError: the settings are wrong.
    """
    own = {"client.id": "modelbeam", "log_level": "3", **for_all(settings)}
    try:
        return kind({**own, "bootstrap.servers": brokers, **more}, logger=log)
    except client().KafkaException as error:
        raise RequestError(f"--kafka-config: {error.args[0].str()}.") from None


def looking(
    brokers: str,
    settings: Mapping[str, str],
    group: str,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """A consumer that is no member of its group, and only asks for offsets or commits them.

    Raises:
        RequestError: the settings are wrong.
    """
    own = {"group.id": group, "enable.auto.commit": False, **(more or {})}
    return connected(client().Consumer, brokers, settings, own)


def committed(consumer: Any, places: list[Any]) -> None:
    """Commit offsets, and raise ``KafkaException`` for one that is not taken."""
    for place in consumer.commit(offsets=places, asynchronous=False):
        if place.error is not None:
            raise client().KafkaException(place.error)


def gone(topic: Topic, group: str, partition: int, offset: int, first: int, high: int) -> str:
    """What of a partition is no longer there, where a group is at ``offset``.

    Args:
        topic, partition: which.
        group: the consumer group.
        offset: that it has committed.
        first: the first offset that is there.
        high: where the next message will be.
    """
    if offset < first:
        return (
            f"{first - offset} records of {topic.url}, partition {partition}, offsets {offset} to "
            f"{first - 1}, are gone (expired or deleted) and were never read"
        )
    return (
        f"the group {group} was at offset {offset} of {topic.url}, partition {partition}, which "
        f"ends at {high}: the topic was deleted and made again"
    )


def _known(places: list[Any]) -> dict[int, int]:
    """The offset of each partition that has one; an answer that is an error is none."""
    for place in places:
        if place.error is not None:
            raise client().KafkaException(place.error)
    return {place.partition: place.offset for place in places if place.offset >= 0}


def _span(text: str | None) -> int | None:
    """Milliseconds, or ``None`` for a span so long that it is no limit."""
    return int(text) if text is not None and int(text) < 1 << 53 else None
