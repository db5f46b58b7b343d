"""Where a group without offsets begins: decided once for all its partitions, before any is read.

``--from earliest`` needs no decision: a partition without a committed offset is read from its
beginning anyway, also one that is added later. Any other place is committed for every partition
before the first lane joins. Whoever comes later finds it, however little has been read by then.

Of two that begin at once one decides: each opens a transaction under one name, which ends the
other's, and looks again before it commits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from modelbeam.errors import RequestError
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import Cluster, client, committed, connected, looking

PATIENCE_SECONDS = 30.0
"""How long it may take to get the decision committed."""

CALL_SECONDS = 10.0


def settle(
    cluster: Cluster,
    settings: Mapping[str, str],
    topic: Topic,
    partitions: Sequence[int],
    group: str,
    begin: str | int,
    *,
    exactly_once: bool,
) -> None:
    """Commit where a group begins, unless it has offsets of the topic.

    Args:
        cluster: where both are.
        settings: of librdkafka's.
        topic, partitions: what will be read.
        group: the consumer group.
        begin: ``earliest``, ``latest``, or milliseconds since the epoch.
        exactly_once: whether there are transactions.

    Raises:
        RequestError: it could not be committed.
    """
    kafka = client()
    if begin == "earliest":
        return
    commit = _in_a_transaction if exactly_once else _plainly
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not cluster.committed(group, topic.name, partitions):
        try:
            commit(cluster, settings, topic, partitions, group, begin)
        except kafka.KafkaException as error:  # another one is at it, or the broker is not ready
            if time.monotonic() > deadline:
                raise RequestError(
                    f"--from: where the group {group} begins in {topic.url} could not be "
                    f"committed: {error.args[0].str()}. Does something else read with this group?"
                ) from None
            time.sleep(0.2)


def _in_a_transaction(
    cluster: Cluster,
    settings: Mapping[str, str],
    topic: Topic,
    partitions: Sequence[int],
    group: str,
    begin: str | int,
) -> None:
    name = {"transactional.id": f"{group}-begin", "transaction.timeout.ms": 10_000}
    producer = connected(client().Producer, cluster.brokers, settings, name)
    producer.init_transactions(CALL_SECONDS)
    if cluster.committed(group, topic.name, partitions):
        return
    places = _places(cluster, topic, partitions, begin)
    with_group = looking(cluster.brokers, settings, group)
    try:
        producer.begin_transaction()
        producer.send_offsets_to_transaction(
            places, with_group.consumer_group_metadata(), CALL_SECONDS
        )
        producer.commit_transaction(CALL_SECONDS)
    finally:
        with_group.close()


def _plainly(
    cluster: Cluster,
    settings: Mapping[str, str],
    topic: Topic,
    partitions: Sequence[int],
    group: str,
    begin: str | int,
) -> None:
    consumer = looking(cluster.brokers, settings, group)
    try:
        committed(consumer, _places(cluster, topic, partitions, begin))
    finally:
        consumer.close()


def _places(
    cluster: Cluster, topic: Topic, partitions: Sequence[int], begin: str | int
) -> list[Any]:
    ends = {one: there.end for one, there in cluster.ranges(topic.name, partitions).items()}
    if isinstance(begin, int):
        ends.update(cluster.offsets_at(topic.name, partitions, begin))
    place = client().TopicPartition
    return [place(topic.name, partition, offset) for partition, offset in ends.items()]
