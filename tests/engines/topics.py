"""Topics of a test on a real broker, what is written to them and what is read."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

import modelbeam
from engines.clusters import Kafka


class Said(NamedTuple):
    """A message."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]
    time: int


class Topics:
    """Three topics of a test, and a run over them."""

    def __init__(self, kafka: Kafka, name: str, partitions: int = 1, **config: Any) -> None:
        self.kafka, self.name = kafka, name
        ends = {end: f"{name}-{end}" for end in ("in", "out", "errors")}
        kept = {"retention.ms": -1}  # old times do not expire while a test looks
        self.input = kafka.make_topic(ends["in"], partitions, {**kept, **config})
        self.output = kafka.make_topic(ends["out"], 1, kept)
        self.errors = kafka.make_topic(ends["errors"], 1, kept)

    def send(self, *values: Any, key: bytes | None = b"k", partition: int = 0, **more: Any) -> None:
        """Put values into the input: dicts as JSON, bytes and ``None`` as they are."""
        settings = {"bootstrap.servers": self.kafka.brokers, "message.max.bytes": 10_000_000}
        producer = Producer(settings)
        for value in values:
            text = json.dumps(value).encode() if isinstance(value, dict) else value
            producer.produce(f"{self.name}-in", text, key, partition, **more)
        assert producer.flush(20) == 0

    def transaction(self, *values: dict[str, Any], end: str, partition: int = 0) -> Producer:
        """Put values into the input in a transaction that is committed, aborted or left open."""
        settings = {"transactional.id": f"{self.name}-{end}", "transaction.timeout.ms": 60_000}
        producer = Producer({"bootstrap.servers": self.kafka.brokers, **settings})
        producer.init_transactions(20)
        producer.begin_transaction()
        for value in values:
            producer.produce(f"{self.name}-in", json.dumps(value), partition=partition)
        producer.flush(20)
        if end != "open":
            (producer.commit_transaction if end == "commit" else producer.abort_transaction)(20)
        return producer

    def by(self, brokers: str) -> None:
        """From now on the run reaches the brokers by another address."""
        for end in ("input", "output", "errors"):
            name = getattr(self, end).rpartition("/")[2]
            setattr(self, end, f"kafka://{brokers}/{name}")

    def read(self, url: str, partition: int = 0) -> list[Said]:
        """All that is committed in a partition of a topic."""
        settings = {"bootstrap.servers": self.kafka.brokers, "group.id": "looks"}
        own = {"isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({**settings, **own})
        found: list[Said] = []
        try:
            consumer.assign([TopicPartition(url.rpartition("/")[2], partition, 0)])
            while True:
                message = consumer.poll(20)
                assert message is not None, f"{url} does not answer"
                if message.error() is not None:
                    return found
                headers = dict(message.headers() or ())
                when = message.timestamp()[1]
                found.append(Said(message.key(), message.value(), headers, when))
        finally:
            consumer.close()

    def predictions(self) -> list[float]:
        """What was predicted."""
        return [json.loads(said.value or b"")["y"] for said in self.read(self.output)]

    def flags(self, model: str = "small_models:Doubler", *more: str) -> list[str]:
        """A command's."""
        ends = [f"-i={self.input}", f"-o={self.output}", f"--errors={self.errors}"]
        return [f"-m={model}", *ends, "--streaming", "--no-progress", "--workers=1", *more]

    def run(self, **settings: Any) -> Any:
        """A run until now, with one lane."""
        own = {"model": "small_models:Doubler", "input": self.input, "output": self.output}
        return modelbeam.predict(**{**own, "errors": self.errors, "workers": 1, **settings})
