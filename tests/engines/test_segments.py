"""A topic into segments, with a real broker: each record once, whoever is killed or doubled."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from commands import read_lines
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from crashing import Command, wait_until
from described import check_described
from topics import Topics

import modelbeam
from engines.clusters import Kafka
from modelbeam.errors import JobError, RequestError
from modelbeam.report.runs import find_runs

pytestmark = pytest.mark.timeout(200)


class Segments:
    """A topic, and a run into segments that ends once there is nothing new."""

    def __init__(self, topics: Topics, output: Path) -> None:
        self.topics, self.output = topics, output

    def run(self, **settings: Any) -> Any:
        """One run."""
        own = {"model": "small_models:Doubler", "input": self.topics.input, "workers": 1}
        more = {"output": str(self.output), "streaming": True, "stop_when_idle": 0}
        return modelbeam.predict(**{**own, **more, **settings})

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """All predictions, or all error lines, segment by segment."""
        shards = sorted(self.output.glob(f"0*/{kind}-*"))
        return [line for shard in shards for line in read_lines(shard)]

    def predicted(self) -> list[float]:
        """What was predicted, in its order."""
        return [line["y"] for line in self.lines("predictions")]

    def described(self) -> list[dict[str, Any]]:
        """What each segment says of itself."""
        found = sorted(self.output.glob("0*/run.json"))
        return [json.loads(path.read_text()) for path in found]

    def committed(self, group: str) -> dict[int, int]:
        """Where a group is."""
        consumer = Consumer({"bootstrap.servers": self.topics.kafka.brokers, "group.id": group})
        try:
            places = [TopicPartition(f"{self.topics.name}-in", one) for one in range(4)]
            found = consumer.committed(places, timeout=20)
            return {place.partition: place.offset for place in found if place.offset >= 0}
        finally:
            consumer.close()


def segments_of(kafka: Kafka, output: Path, name: str, partitions: int = 1) -> Segments:
    """A topic of its own."""
    return Segments(Topics(kafka, f"segments-{name}", partitions), output / "out")


def test_segments_follow_each_other_and_a_run_goes_on_where_the_last_ended(
    kafka: Kafka, tmp_path: Path
) -> None:
    made = segments_of(kafka, tmp_path, "follow", 2)
    made.topics.send(*({"x": float(n)} for n in range(5)))
    made.topics.send({"x": 5.0}, b"no JSON", partition=1)
    first = made.run(segment_records=4)
    assert (first.read, first.predicted, first.failed) == (7, 6, 1)
    assert first.description["segments"] == 2
    name = f"{made.topics.name}-in"
    assert [run["offsets"] for run in made.described()] == [
        {f"{name}/0": [0, 2], f"{name}/1": [0, 2]},
        {f"{name}/0": [2, 5]},
    ]
    assert sorted(made.predicted()) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    (line,) = made.lines("errors")
    assert (line["topic"], line["partition"], line["offset"]) == (name, 1, 1)
    check_described("segments", first.description)
    for run in made.described():
        check_described("run", run)
    assert made.run().read == 0
    made.topics.transaction({"x": 9.0}, end="abort")  # nothing for a reader but offsets
    assert made.run().description["segments"] == 0
    held = made.topics.transaction({"x": 6.0}, end="open", partition=1)
    made.topics.send(b"bad", b"worse")
    again = made.run(start_from="latest")
    assert (again.read, again.failed) == (2, 2)  # a segment of which nothing can be predicted
    assert any("behind transactions that are still open" in n for n in again.description["notes"])
    held.commit_transaction(20)
    assert made.run().read == 1
    assert made.committed(again.description["group"]) == {0: 9, 1: 4}
    assert [run["counts"]["read"] for run in made.described()] == [4, 3, 2, 1]
    [listed] = find_runs([str(made.output)]).runs
    assert (listed.status, listed.inputs) == ("idle", (made.topics.input,))
    assert (listed.read, listed.predicted, listed.failed) == (10, 7, 3)


def test_latest_holds_from_the_first_start_and_added_partitions_are_read_whole(
    kafka: Kafka, tmp_path: Path
) -> None:
    made = segments_of(kafka, tmp_path, "latest")
    made.topics.send({"x": 1.0})
    assert made.run(start_from="latest").read == 0
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    [added] = admin.create_partitions([NewPartitions(f"{made.topics.name}-in", 2)]).values()
    added.result()
    settings = {"output_format": "parquet", "keep": ["z"], "model": "small_models:Unsaid"}
    made.topics.send({"x": 2.0, "n": 1}, {"x": 3.0, "n": 2, "z": 1.5})
    made.topics.send({"x": 4.0, "n": 3}, partition=1)
    assert made.run(start_from="latest", **settings).read == 3
    made.topics.send({"x": 5.0, "n": 101}, {"x": 6.0, "n": 4, "z": None})
    assert made.run(**settings).failed == 1  # its columns are none that the first segment has
    shards = sorted(made.output.glob("0*/*.parquet"))
    tables = [pyarrow.parquet.read_table(shard) for shard in shards]
    assert [table.schema for table in tables] == [tables[0].schema] * 2
    assert sorted(y for table in tables for y in table["y"].to_pylist()) == [4, 6, 8, 12]


def test_what_is_gone_ends_the_run_or_is_passed_over_and_said(kafka: Kafka, tmp_path: Path) -> None:
    made = segments_of(kafka, tmp_path, "gone")
    made.topics.send(*({"x": float(n)} for n in range(10)))
    made.run()
    made.topics.send(*({"x": float(n)} for n in range(10, 30)))
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    name = f"{made.topics.name}-in"
    [gone] = admin.delete_records([TopicPartition(name, 0, 25)]).values()
    gone.result()
    with pytest.raises(JobError, match=r"15 records of .*offsets 10 to 24, are gone"):
        made.run()
    run = made.run(on_data_loss="earliest")
    assert (run.read, len(run.description["lost"])) == (5, 1)
    [gone] = admin.delete_topics([name]).values()
    gone.result()
    wait_until(lambda: name not in admin.list_topics(timeout=10).topics)
    wait_until(lambda: _made_again(made.topics, name))
    made.topics.send(*({"x": float(n)} for n in range(100, 140)))  # beyond where it was
    with pytest.raises(JobError, match="was deleted and made again"):
        made.run()
    assert made.run(on_data_loss="earliest").read == 40
    assert made.predicted()[-41:] == [58.0, *(2.0 * n for n in range(100, 140))]
    made.topics.input = kafka.make_topic("segments-other")
    with pytest.raises(RequestError, match=f"has segments of the topic '{name}'"):
        made.run()


def _made_again(topics: Topics, name: str) -> bool:
    """Make a topic, whose older self may not be gone everywhere yet."""
    with suppress(KafkaException):
        topics.kafka.make_topic(name)
        return True
    return False


def test_kills_stops_and_twins_lose_and_double_nothing(kafka: Kafka, tmp_path: Path) -> None:
    made = segments_of(kafka, tmp_path, "killed", 4)
    for partition in range(4):
        rows: list[Any] = [{"x": float(partition + 4 * n)} for n in range(300)]
        rows[7] = b"no JSON"
        made.topics.send(*rows, partition=partition)
    flags = ["-m=nasty_models:Brief", f"-i={made.topics.input}", f"-o={made.output}"]
    flags += ["--streaming", "--segment-records=150", "--no-progress", "--workers=1"]
    work = made.output / "_modelbeam" / "work"
    with Command(*flags, env={}) as first:
        wait_until(lambda: len(made.predicted()) > 100, seconds=60)
        wait_until(lambda: any(work.glob("*/_modelbeam/attempts/*")))  # in the middle of one
        first.kill()
    with Command(*flags, env={}) as second:
        before = len(list(made.output.glob("0*")))
        wait_until(lambda: len(list(made.output.glob("0*"))) > before, seconds=60)
        second.process.send_signal(signal.SIGTERM)
        assert second.wait() == 0, second.stderr
    assert "(stopped)" in second.stderr
    with (
        Command(*flags, "--stop-when-idle=0s", env={}) as one,
        Command(*flags, "--stop-when-idle=0s", env={}) as two,
    ):
        assert one.wait() == 0, one.stderr
        assert two.wait() == 0, two.stderr
    wanted = [2 * float(p + 4 * n) for p in range(4) for n in range(300) if n != 7]
    assert sorted(made.predicted()) == sorted(wanted)
    assert [line["offset"] for line in made.lines("errors")] == [7] * 4
