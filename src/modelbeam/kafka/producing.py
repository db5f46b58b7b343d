"""What all that produces shares: settings, deliveries that are waited for, and errors by kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelbeam.errors import JobError
from modelbeam.kafka import address
from modelbeam.kafka.cluster import Limits, client
from modelbeam.kafka.records import Message

CALL_SECONDS = 30.0
"""How long one question to the cluster may take."""

OFFSETS_SECONDS = 5.0
"""How long the group's coordinator may take to have offsets put into a transaction."""

REFUSED = (
    "MSG_SIZE_TOO_LARGE",
    "INVALID_RECORD",
    "POLICY_VIOLATION",
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "UNKNOWN_TOPIC_OR_PART",
    "INVALID_TIMESTAMP",
)
"""A message will be refused again."""

FENCED = ("_FENCED", "_FATAL", "FENCED_INSTANCE_ID", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED")
"""Another has this name now, or did for a moment."""

HOPELESS = (
    "_AUTHENTICATION",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "UNSUPPORTED_FEATURE",
    "_UNSUPPORTED_FEATURE",
)
"""It will be the same the next time."""


def settings_of(
    shared: Mapping[str, Any], brokers: str, limits: Sequence[Limits]
) -> dict[str, Any]:
    """What a producer is told.

    Args:
        shared: librdkafka's settings of the job.
        brokers: where it writes.
        limits: what the topics take.
    """
    largest = max(one.largest for one in limits)
    return {
        "linger.ms": 5,
        "compression.type": "lz4",
        "partitioner": "murmur2_random",  # a key goes where Java's clients would put it
        "queue.buffering.max.kbytes": max(1 << 20, 2 * largest // 1024),
        **address.for_producers(shared),
        "bootstrap.servers": brokers,
        "message.max.bytes": largest + 1024,
        "batch.size": max(1, min(1_000_000, *(one.largest for one in limits)) - 1024),
        "enable.idempotence": True,
    }


class Deliveries:
    """Messages on their way, and those that did not arrive."""

    def __init__(self) -> None:
        self._undelivered: list[Any] = []

    def clear(self) -> None:
        """Forget what did not arrive."""
        self._undelivered.clear()

    def produce(self, producer: Any, topic: str, message: Message) -> None:
        """Hand a message over, as soon as there is room."""
        more = {"timestamp": message.timestamp} if message.timestamp else {}
        while True:
            try:
                producer.produce(
                    topic,
                    message.value,
                    message.key,
                    headers=message.headers,
                    on_delivery=self._delivered,
                    **more,
                )
                return
            except BufferError:
                _plainly(lambda: producer.poll(0.05))

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._undelivered.append((error, message.topic()))

    def flush(self, producer: Any) -> None:
        """Wait until all is with the broker.

        Raises:
            JobError: a topic does not take what is written to it.
            KafkaException: of ``confluent_kafka``: not all has arrived.
        """
        kafka = client()
        left = _plainly(lambda: producer.flush(CALL_SECONDS))
        if self._undelivered:
            error, topic = self._undelivered[0]
            if error.name() in REFUSED:
                raise JobError(
                    f"The topic {topic} does not take what is written to it: {error.str()}. The "
                    f"records are not lost: nothing of this transaction was committed."
                )
            raise kafka.KafkaException(error)
        if left:
            raise kafka.KafkaException(
                kafka.KafkaError(kafka.KafkaError._TIMED_OUT, "not all was delivered")
            )


def _plainly(call: Callable[[], int]) -> int:
    """What a call of the client gives.

    The client raises what ends it in the midst of its callbacks. If one of these comes after that,
    it is a SystemError with the true one as its cause.

    Raises:
        KafkaException: of ``confluent_kafka``.
    """
    try:
        return call()
    except SystemError as error:
        if isinstance(error.__cause__, client().KafkaException):
            raise error.__cause__ from None
        raise


def put_offsets(producer: Any, places: list[Any], member: Any) -> bool:
    """Put offsets into the transaction; whether the client came back from that.

    Its own limit of time does not hold while the group's coordinator is away (librdkafka#5456). A
    client that never returns is left behind; the next one of its name ends its transaction.

    Raises:
        KafkaException: they could not be put.
    """
    ended: list[Any] = []

    def send() -> None:
        try:
            producer.send_offsets_to_transaction(places, member, OFFSETS_SECONDS)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(2 * OFFSETS_SECONDS)
    if ended and ended[0] is not None:
        raise ended[0]
    return bool(ended)


def gone_away() -> Any:
    """The error of a client that was left behind."""
    kafka = client()
    error = kafka.KafkaError(
        kafka.KafkaError._TIMED_OUT, "the group's coordinator is away", fatal=True
    )
    return kafka.KafkaException(error)
