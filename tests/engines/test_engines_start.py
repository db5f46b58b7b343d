"""Every engine starts, runs the main job, and writes what a run on this machine writes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from engines.clusters import (
    FlinkCluster,
    JobServer,
    Kafka,
    Prism,
    SparkCluster,
    WorkerPool,
    process_flags,
)
from engines.install import HERE

RECORDS = 20_000
DATA = HERE.parent / "data" / "input.json"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many records."""
    path = tmp_path_factory.mktemp("data") / "input.jsonl"
    given = itertools.cycle(DATA.read_text().splitlines())
    path.write_text("".join(f"{line}\n" for line in itertools.islice(given, RECORDS)))
    return path


def predict(lines: Path, output: Path, *flags: str) -> bytes:
    """Run the main job; returns all of its predictions."""
    model = ["--model", "iris_model.iris_predict:IrisModel", "--split-size", "200KB"]
    paths = ["--input", str(lines), "--output", str(output), "--no-packages"]
    done = subprocess.run(
        [sys.executable, "-m", "modelbeam", "predict", *model, *paths, *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    shards = sorted(output.glob("predictions-*"))
    assert len(shards) > 4, done.stderr
    return b"".join(shard.read_bytes() for shard in shards)


@pytest.fixture(scope="module")
def expected(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the local run writes."""
    made = predict(lines, tmp_path_factory.mktemp("local") / "out")
    assert made.count(b"\n") == RECORDS
    return made


def test_flink_job_server(
    lines: Path, expected: bytes, tmp_path: Path, flink_job_server: JobServer, pool: WorkerPool
) -> None:
    made = predict(lines, tmp_path / "out", *flink_job_server.flags, *pool.flags, "--parallelism=4")
    assert made == expected


def test_flink_uber_jar(
    lines: Path, expected: bytes, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    assert predict(lines, tmp_path / "out", *flink.flags, *pool.flags) == expected


def test_flink_starts_the_workers(
    lines: Path, expected: bytes, tmp_path: Path, flink: FlinkCluster
) -> None:
    assert predict(lines, tmp_path / "out", *flink.flags, *process_flags(tmp_path)) == expected


def test_a_taskmanager_can_be_replaced(flink: FlinkCluster) -> None:
    killed = flink.replace_taskmanager()
    assert not killed.alive
    assert sum(manager.alive for manager in flink.taskmanagers) == 2


def test_spark_job_server(
    lines: Path, expected: bytes, tmp_path: Path, spark_job_server: JobServer, pool: WorkerPool
) -> None:
    assert predict(lines, tmp_path / "out", *spark_job_server.flags, *pool.flags) == expected


def test_spark_uber_jar(
    lines: Path, expected: bytes, tmp_path: Path, spark: SparkCluster, pool: WorkerPool
) -> None:
    assert predict(lines, tmp_path / "out", *spark.flags, *pool.flags) == expected


def test_prism(
    lines: Path, expected: bytes, tmp_path: Path, prism: Prism, pool: WorkerPool
) -> None:
    assert predict(lines, tmp_path / "out", *prism.flags, *pool.flags) == expected


def test_a_worker_pool_can_be_killed_and_started_again(pool: WorkerPool) -> None:
    assert pool.process.members()
    pool.kill()
    assert pool.process.members() == []
    pool.start()
    assert pool.process.alive


def test_kafka_keeps_what_it_was_given_when_it_is_killed(kafka: Kafka) -> None:
    topic = kafka.make_topic("kept", 2).rpartition("/")[2]
    producer = Producer({"bootstrap.servers": kafka.brokers, "acks": "all"})
    producer.produce(topic, b"a record", partition=1)
    assert producer.flush(30) == 0
    kafka.process.kill()
    kafka.start_broker()
    settings = {"bootstrap.servers": kafka.brokers, "group.id": "kept"}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 1, 0)])
    (message,) = consumer.consume(1, 30)
    consumer.close()
    assert message.value() == b"a record"
