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

import pytest
from commands import shards
from confluent_kafka import Consumer, Producer, TopicPartition
from crashing import Command, wait_until
from running import PATIENCE, children, kill

from engines.clusters import FlinkCluster, Kafka, WorkerPool

MODEL = "engine_models:Fatal"
PARTITIONS = 4
BAD = 50
"""Every so many records one is no JSON."""
FATAL = 1501
"""This one kills the process that predicts it."""

pytestmark = pytest.mark.timeout(400)


class Topics:
    """The topics of a test, and all that is committed in them."""

    def __init__(self, kafka: Kafka, name: str) -> None:
        self._brokers = kafka.brokers
        self._name = name
        self._urls = [kafka.make_topic(f"{name}-{end}", PARTITIONS) for end in _ENDS]
        settings = {"bootstrap.servers": kafka.brokers, "group.id": f"reads-{name}"}
        self._reader = Consumer({**settings, "isolation.level": "read_committed"})
        ends = [f"{name}-{end}" for end in _ENDS[1:]]
        self._reader.assign([TopicPartition(t, n, 0) for t in ends for n in range(PARTITIONS)])
        self.predictions: list[tuple[int, bytes]] = []
        self.failed: list[tuple[int, bytes]] = []

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def flags(self) -> list[str]:
        """Modelbeam's."""
        source, target, errors = self._urls
        ends = [f"--input={source}", f"--output={target}", f"--errors={errors}"]
        return [f"--model={MODEL}", *ends, "--streaming", "--no-packages"]

    def committed(self, group: str) -> list[int]:
        """Where a group is in the input's partitions."""
        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": group})
        places = [TopicPartition(f"{self._name}-in", n) for n in range(PARTITIONS)]
        found = [place.offset for place in consumer.committed(places, timeout=10)]
        consumer.close()
        return found

    def produce(self, first: int, number: int, pause: float = 0.0) -> None:
        """Records that count on from ``first``; the key is the number."""
        producer = Producer({"bootstrap.servers": self._brokers, "linger.ms": 5})
        for n in range(first, first + number):
            producer.produce(f"{self._name}-in", _value(n), str(n), n % PARTITIONS)
            if n % 20 == 0:
                producer.flush()
                time.sleep(pause)
        assert producer.flush(30) == 0

    def done(self) -> int:
        """How many records have an outcome by now."""
        while batch := self._reader.consume(10_000, 0.5):
            for message in batch:
                assert message.error() is None
                known = self.predictions if message.topic().endswith("out") else self.failed
                known.append((int(message.key()), message.value()))
        return len(self.predictions) + len(self.failed)

    def check(self, number: int) -> None:
        """Every record has one outcome, the right one."""
        assert self.done() == number
        assert sorted(n for n, _ in [*self.predictions, *self.failed]) == list(range(number))
        bad = [n for n in range(number) if n % BAD == 0 or n == FATAL]
        assert sorted(self.failed) == [(n, _value(n)) for n in bad]
        assert all(json.loads(value)["y"] == n / 2 for n, value in self.predictions)


_ENDS = ("in", "out", "errors")


def _value(n: int) -> bytes:
    if n % BAD == 0:
        return b"no JSON"
    return json.dumps({"n": n, "x": n / 4, "fatal": n == FATAL}).encode()


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


def test_every_record_once_while_a_record_kills_and_workers_and_a_taskmanager_are_killed(
    kafka: Kafka, flink: FlinkCluster, pool: WorkerPool, busy: Callable[..., threading.Thread]
) -> None:
    finished = states(flink)["FINISHED"]
    with Topics(kafka, "killed") as topics:
        topics.produce(0, 2000)
        flags = [*topics.flags, *flink.flags, *pool.flags, "--workers=2", "--json"]
        with Command(*flags, env={}) as started:
            wait_until(lambda: topics.done() >= 2000, seconds=PATIENCE)
            coming = busy(topics.produce, 2000, 4000, 0.08)
            for worker in children(pool.process.members, pool.process.pid):
                kill(worker)
            before = topics.done()
            wait_until(lambda: topics.done() > before + 400, seconds=PATIENCE)
            flink.replace_taskmanager()
            coming.join()
            wait_until(lambda: topics.done() >= 6000, seconds=PATIENCE)
            os.kill(started.process.pid, signal.SIGTERM)
            started.stdout, started.stderr = started.process.communicate(timeout=60)
        assert started.process.returncode == 0, started.stderr
        run = json.loads(started.stdout)
        assert run["counts"] == {"read": 6000, "predicted": 5879, "failed": 121}
        assert (run["end"], run["lanes"], run["engine"]) == ("stopped", 2, "Flink")
        topics.check(6000)
    wait_until(lambda: states(flink)["FINISHED"] == finished + 1, seconds=30)


def test_a_newer_run_takes_over_and_ends_when_nothing_comes(
    kafka: Kafka, flink: FlinkCluster, pool: WorkerPool, tmp_path: Path
) -> None:
    finished = states(flink)["FINISHED"]
    settings = tmp_path / "client.properties"
    settings.write_text("client.rack=a-secret-of-mine\n")
    with Topics(kafka, "over") as topics:
        topics.produce(0, 700)
        flags = [*topics.flags, *flink.flags, *pool.flags, "--json"]
        with Command(*flags, "--detach", "--workers=1", env={}) as first:
            first.stdout, first.stderr = first.process.communicate(timeout=PATIENCE)
        assert first.process.returncode == 0, first.stderr
        assert json.loads(first.stdout)["status"] == "submitted"
        wait_until(lambda: topics.done() >= 700, seconds=PATIENCE)
        topics.produce(700, 700)
        more = ["--workers=2", "--stop-when-idle=1s", f"--kafka-config={settings}"]
        with Command(*flags, *more, env={}) as second:
            second.stdout, second.stderr = second.process.communicate(timeout=PATIENCE)
        assert second.process.returncode == 0, second.stderr
        assert json.loads(second.stdout)["end"] == "ended"
        topics.check(1400)
    jobs = [flink.get(f"/jobs/{job['jid']}/config") for job in flink.get("/jobs/overview")["jobs"]]
    assert "a-secret-of-mine" not in second.stdout + second.stderr + json.dumps(jobs)
    wait_until(lambda: states(flink)["FINISHED"] == finished + 2, seconds=30)
    assert states(flink)["RUNNING"] == 0


def test_a_topic_until_now_into_files(
    kafka: Kafka, flink: FlinkCluster, pool: WorkerPool, tmp_path: Path
) -> None:
    settings = tmp_path / "client.properties"
    settings.write_text("client.rack=a-secret-of-mine\n")
    output = tmp_path / "out"
    with Topics(kafka, "files") as topics:
        topics.produce(0, 400)
        source = next(flag for flag in topics.flags if flag.startswith("--input="))
        own = [f"--model={MODEL}", source, f"--output={output}", "--group=into-files"]
        more = [f"--kafka-config={settings}", "--no-packages", "--verbose"]
        with Command(*own, *more, *flink.flags, *pool.flags, env={}) as started:
            started.stdout, started.stderr = started.process.communicate(timeout=PATIENCE)
        assert started.process.returncode == 0, started.stderr
        assert topics.committed("into-files") == [100] * PARTITIONS
    assert sorted(row["y"] for row in shards(output)) == [n / 2 for n in range(400) if n % BAD]
    assert len(shards(output, "errors")) == 8
    assert "a-secret-of-mine" not in started.stderr + (output / "run.json").read_text()
