"""Lanes on a real Flink, from topic to topic of a real broker: exactly once, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from crashing import Command, wait_until
from running import PATIENCE, children, kill

from engines.clusters import FlinkCluster, Kafka, WorkerPool

MODEL = "small_models:Doubler"
PARTITIONS = 4
BAD = 50
"""Every so many records one is no JSON."""

pytestmark = pytest.mark.timeout(400)


class Topics(NamedTuple):
    """The topics of a test, as URLs."""

    kafka: Kafka
    source: str
    target: str
    errors: str

    @classmethod
    def made(cls, kafka: Kafka, name: str) -> Topics:
        return cls(kafka, *(kafka.make_topic(f"{name}-{end}", PARTITIONS) for end in _ENDS))

    @property
    def flags(self) -> list[str]:
        """Modelbeam's."""
        ends = [f"--input={self.source}", f"--output={self.target}", f"--errors={self.errors}"]
        return [f"--model={MODEL}", *ends, "--streaming", "--no-packages"]

    def produce(self, first: int, number: int, pause: float = 0.0) -> None:
        """Records that count on from ``first``; the key is the number."""
        producer = Producer({"bootstrap.servers": self.kafka.brokers, "linger.ms": 5})
        for n in range(first, first + number):
            value = json.dumps({"n": n, "x": n / 4}) if n % BAD else "no JSON"
            producer.produce(_name(self.source), value, str(n), n % PARTITIONS)
            if n % 20 == 0:
                producer.flush()
                time.sleep(pause)
        assert producer.flush(30) == 0

    def read(self, url: str) -> list[tuple[int, bytes]]:
        """Keys and values of what is committed in a topic."""
        settings = {"bootstrap.servers": self.kafka.brokers, "group.id": "reads"}
        consumer = Consumer({**settings, "isolation.level": "read_committed"})
        found, places = [], [TopicPartition(_name(url), number, 0) for number in range(PARTITIONS)]
        try:
            for place in places:
                _, end = consumer.get_watermark_offsets(place, 10)
                consumer.assign([place])
                while consumer.position([place])[0].offset < end:
                    batch = consumer.consume(10_000, 0.5)
                    found += [(int(m.key()), m.value()) for m in batch if m.error() is None]
                    if not batch and consumer.position([place])[0].offset >= 0:
                        break  # the rest are marks of transactions, or of one that is open
        finally:
            consumer.close()
        return found

    def done(self) -> int:
        """How many records have an outcome."""
        return len(self.read(self.target)) + len(self.read(self.errors))

    def check(self, number: int) -> None:
        """Every record has one outcome, the right one."""
        predictions, failed = self.read(self.target), self.read(self.errors)
        times = Counter(n for n, _ in [*predictions, *failed])
        assert sorted(times) == list(range(number))
        assert set(times.values()) == {1}
        assert sorted(n for n, _ in failed) == [n for n in range(number) if n % BAD == 0]
        assert {value for _, value in failed} == {b"no JSON"}
        assert all(json.loads(value)["y"] == n / 2 for n, value in predictions)


_ENDS = ("in", "out", "errors")


def _name(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.fixture
def busy() -> Iterator[Callable[..., threading.Thread]]:
    """Starts a thread that is waited for."""
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *arguments: object) -> threading.Thread:
        threads.append(threading.Thread(target=work, args=arguments))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(PATIENCE)


def states(flink: FlinkCluster) -> Counter[str]:
    """How many jobs the cluster has in each state."""
    return Counter(job["state"] for job in flink.get("/jobs/overview")["jobs"])


def test_every_record_once_while_workers_and_a_taskmanager_are_killed(
    kafka: Kafka, flink: FlinkCluster, pool: WorkerPool, busy: Callable[..., threading.Thread]
) -> None:
    topics = Topics.made(kafka, "killed")
    topics.produce(0, 2000)
    finished = states(flink)["FINISHED"]
    flags = [*topics.flags, *flink.flags, *pool.flags, "--workers=3", "--json"]
    with Command(*flags, env={}) as started:
        wait_until(lambda: topics.done() >= 2000, seconds=PATIENCE)
        coming = busy(topics.produce, 2000, 4000, 0.1)  # 20 s
        for worker in children(pool.process.members, pool.process.pid):
            kill(worker)
        before = topics.done()
        wait_until(lambda: topics.done() > before + 400, seconds=PATIENCE)
        flink.taskmanagers[0].kill()
        flink.add_taskmanager()
        coming.join()
        wait_until(lambda: topics.done() >= 6000, seconds=PATIENCE)
        os.kill(started.process.pid, signal.SIGTERM)
        asked = time.monotonic()
        started.stdout, started.stderr = started.process.communicate(timeout=60)
        assert time.monotonic() - asked < 45
    assert started.process.returncode == 0, started.stderr
    run = json.loads(started.stdout)
    assert run["counts"] == {"read": 6000, "predicted": 5880, "failed": 120}
    assert (run["end"], run["lanes"], run["engine"]) == ("stopped", 3, "Flink")
    topics.check(6000)
    wait_until(lambda: states(flink)["FINISHED"] == finished + 1, seconds=30)


def test_a_newer_run_takes_over_and_ends_when_nothing_comes(
    kafka: Kafka, flink: FlinkCluster, pool: WorkerPool, tmp_path: Path
) -> None:
    topics = Topics.made(kafka, "over")
    topics.produce(0, 1000)
    flags = [*topics.flags, *flink.flags, *pool.flags]
    finished = states(flink)["FINISHED"]
    with Command(*flags, "--detach", "--workers=1", "--json", env={}) as first:
        first.stdout, first.stderr = first.process.communicate(timeout=PATIENCE)
    assert first.process.returncode == 0, first.stderr
    assert json.loads(first.stdout)["status"] == "submitted"
    wait_until(lambda: topics.done() >= 1000, seconds=PATIENCE)
    secret = tmp_path / "client.properties"
    secret.write_text("client.rack=a-secret-of-mine\n")
    more = ["--workers=2", "--stop-when-idle=1s", "--json", f"--kafka-config={secret}"]
    topics.produce(1000, 1000)
    with Command(*flags, *more, env={}) as second:
        second.stdout, second.stderr = second.process.communicate(timeout=PATIENCE)
    assert second.process.returncode == 0, second.stderr
    run = json.loads(second.stdout)
    assert run["end"] == "ended"
    assert "a-secret-of-mine" not in second.stdout + second.stderr + json.dumps(
        [flink.get(f"/jobs/{job['jid']}/config") for job in flink.get("/jobs/overview")["jobs"]]
    )
    topics.check(2000)
    wait_until(lambda: states(flink)["FINISHED"] == finished + 2, seconds=30)
    assert states(flink)["RUNNING"] == 0
