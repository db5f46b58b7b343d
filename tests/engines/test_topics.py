"""Topics on this machine, with a real broker: each record once, in its place, whatever happens."""

from __future__ import annotations

import base64
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from crashing import Command, wait_until
from topics import Topics

import modelbeam
from engines.clusters import Kafka
from modelbeam import cli
from modelbeam.errors import JobError, RequestError, TooManyErrorsError
from modelbeam.kafka import cluster

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def topics(kafka: Kafka, request: pytest.FixtureRequest) -> Topics:
    """Topics of one partition, called after the test."""
    return Topics(kafka, request.node.name.replace("[", "-").replace("]", "")[:60])


HEADERS = [("trace", b"\xff\x00"), ("trace", None), ("empty", b"")]
ODD = [
    ({"x": 1.0}, b"k1"),
    (None, b"gone"),
    ({"x": 2.0}, None),
    (b"", b"empty"),
    (b" \n ", b"blank"),
    ({"x": -3.0}, b"\xff\x00"),
    (b'{"x": "\xff"}', b""),
    (b'{"x":\n 4.0}', b"lines"),
    (b'{"x": "a\nb"}', b"break"),
    (b"[1]", b"list"),
    (b"\xef\xbb\xbf{}", b"mark"),
    ({"x": "three"}, b"text"),
]
GOOD = {0: 2.0, 2: 4.0, 7: 8.0}


def test_every_message_is_in_one_place_with_its_own_bytes(topics: Topics, tmp_path: Path) -> None:
    for offset, (value, key) in enumerate(ODD):
        topics.send(value, key=key, headers=HEADERS, timestamp=1_700_000_000_000 + offset)
    run = topics.run()
    assert (run.read, run.predicted, run.failed) == (12, 3, 9)
    good, bad = topics.read(topics.output), topics.read(topics.errors)
    assert {said.key: json.loads(said.value or b"") for said in good} == {
        ODD[offset][1]: {"y": y} for offset, y in GOOD.items()
    }
    assert {said.time for said in good} == {1_700_000_000_000 + offset for offset in GOOD}
    assert good[0].headers["modelbeam.source"] == f"{topics.name}-in/0/0".encode()
    assert good[0].headers["modelbeam.model"] == b"doubler"
    assert {"trace": None, "empty": b""}.items() <= good[0].headers.items()
    sent = [(v if not isinstance(v, dict) else json.dumps(v).encode(), k) for v, k in ODD]
    assert [(said.value, said.key) for said in bad] == [
        pair for offset, pair in enumerate(sent) if offset not in GOOD
    ]
    stages = Counter(said.headers["modelbeam.error.stage"] for said in bad)
    assert stages == {b"decode": 7, b"predict": 2}
    assert bad[0].headers["modelbeam.offset"] == b"1"
    # the same into files
    done = modelbeam.predict(
        model="small_models:Doubler", input=topics.input, output=str(tmp_path / "out")
    )
    assert (done.read, done.predicted, done.failed) == (12, 3, 9)
    lines = read_lines(Path(done.errors[0]))
    assert [line["offset"] for line in lines] == [n for n in range(12) if n not in GOOD]
    assert {(line["topic"], line["partition"]) for line in lines} == {(f"{topics.name}-in", 0)}
    assert lines[0]["record"] is None
    assert base64.b64decode(lines[4]["record_base64"]) == ODD[6][0]
    with pytest.raises(JobError, match="No record was found"):  # the group goes on where it was
        modelbeam.predict(
            model="small_models:Doubler",
            input=topics.input,
            output=str(tmp_path / "out"),
            overwrite=True,
        )


def test_a_run_until_now_ends_by_position(kafka: Kafka, tmp_path: Path) -> None:
    topics = Topics(kafka, "marks", partitions=4)
    topics.transaction({"x": 1.0}, {"x": 2.0}, end="commit")
    topics.send({"x": 3.0}, partition=1)
    topics.transaction({"x": 9.0}, end="abort", partition=1)
    held = topics.transaction({"x": 4.0}, end="open", partition=2)
    topics.send({"x": 5.0}, partition=2)
    run = topics.run()
    assert sorted(topics.predictions()) == [2.0, 4.0, 6.0]
    assert any(
        "behind transactions that are still open" in note for note in run.description["notes"]
    )
    files = modelbeam.predict(
        model="small_models:Doubler", input=topics.input, output=str(tmp_path / "a")
    )
    assert files.predicted == 3
    held.commit_transaction(20)
    assert topics.run().predicted == 2
    assert sorted(topics.predictions()) == [2.0, 4.0, 6.0, 8.0, 10.0]


def test_kills_and_twins_lose_and_double_nothing(kafka: Kafka) -> None:
    topics = Topics(kafka, "twins", partitions=4)
    for partition in range(4):
        rows: list[Any] = [{"x": float(partition + 4 * n)} for n in range(300)]
        rows[7] = b"no JSON"
        topics.send(*rows, partition=partition)
    flags = topics.flags("nasty_models:Brief", "--stop-when-idle=8s")
    with Command(*flags, env={}) as first:
        wait_until(lambda: len(topics.read(topics.output)) > 100)
        first.kill()
    with Command(*flags, env={}) as second, Command(*flags, env={}) as third:
        wait_until(lambda: len(topics.read(topics.output)) > 400, seconds=60)
        second.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        assert second.wait() == 0, second.stderr
        assert time.monotonic() - asked < 8
        assert third.wait() == 0, third.stderr
    topics.run(model="nasty_models:Brief")
    wanted = [2 * float(p + 4 * n) for p in range(4) for n in range(300) if n != 7]
    assert sorted(topics.predictions()) == sorted(wanted)
    assert [said.value for said in topics.read(topics.errors)] == [b"no JSON"] * 4


def test_a_broker_that_is_killed_and_comes_back() -> None:
    with Kafka() as own:
        mine = Topics(own, "again")
        mine.send(*({"x": float(n)} for n in range(3000)))
        with Command(*mine.flags("nasty_models:Brief", "--stop-when-idle=6s"), env={}) as command:
            wait_until(lambda: len(mine.read(mine.output)) > 100, seconds=60)
            own.process.kill()
            time.sleep(2)
            own.start_broker()
            command.stdout, command.stderr = command.process.communicate(timeout=120)
            assert command.process.returncode == 0, command.stderr
        assert sorted(mine.predictions()) == [2.0 * n for n in range(3000)]


def test_records_that_kill_or_hang_the_process_are_error_records(topics: Topics) -> None:
    topics.send(*({"x": float(n)} for n in (1, 3, 2, 5, 10, 4)))
    run = topics.run(model="nasty_models:Deadly", record_timeout=1.0)
    assert sorted(topics.predictions()) == [2.0, 4.0, 8.0]
    types = [said.headers["modelbeam.error.type"] for said in topics.read(topics.errors)]
    assert types == [b"ProcessDiedError", b"ProcessDiedError", b"TimeoutError"]
    assert sum(crash["records"] for crash in run.description["crashes"]) == 3


def test_a_model_that_takes_longer_than_the_poll_interval_keeps_its_group(
    topics: Topics, tmp_path: Path
) -> None:
    config = tmp_path / "client.properties"
    config.write_text("# short\nmax.poll.interval.ms=6000\n")
    topics.send({"x": 8.0})
    run = topics.run(model="nasty_models:Sleeper", kafka_config=str(config))
    assert (run.read, topics.predictions()) == (1, [16.0])


def test_records_that_expired_are_told(topics: Topics) -> None:
    topics.send(*({"x": float(n)} for n in range(10)))
    assert topics.run().read == 10
    topics.send(*({"x": float(n)} for n in range(10, 40)))
    admin = AdminClient({"bootstrap.servers": topics.kafka.brokers})
    [
        f.result()
        for f in admin.delete_records([TopicPartition(f"{topics.name}-in", 0, 25)]).values()
    ]
    with pytest.raises(JobError, match=r"15 records of .*offsets 10 to 24, are gone"):
        topics.run()
    run = topics.run(on_data_loss="earliest")
    assert run.read == 15
    assert "offsets 10 to 24" in run.description["lost"][0]


def test_what_is_too_large_for_its_topic(kafka: Kafka) -> None:
    topics = Topics(kafka, "large", **{"max.message.bytes": 8_000_000})
    noise = base64.b64encode(random.Random(7).randbytes(2_000_000)).decode()
    topics.send({"x": 1.0}, {"x": 2.0, "pad": noise}, b"no JSON " + noise.encode(), {"x": 3.0})
    run = topics.run(keep=["pad"])
    assert (run.predicted, run.failed) == (2, 2)
    first, second = topics.read(topics.errors)
    assert first.headers["modelbeam.error.type"] == b"MessageTooLargeError"
    assert first.headers["modelbeam.value.cut"].endswith(b" bytes")  # type: ignore[union-attr]
    assert (second.key, second.headers["modelbeam.error.stage"]) == (b"k", b"decode")
    assert (second.value or b"").startswith(b"no JSON ")


@pytest.mark.parametrize("which", ["input", "output", "errors"])
def test_a_topic_that_is_missing_is_told_and_not_made(topics: Topics, which: str) -> None:
    with pytest.raises(RequestError, match=f"there is no topic '{topics.name}-typo'"):
        topics.run(**{which: topics.kafka.url(f"{topics.name}-typo")})
    admin = AdminClient({"bootstrap.servers": topics.kafka.brokers})
    assert f"{topics.name}-typo" not in admin.list_topics(timeout=10).topics


def test_where_a_group_begins(topics: Topics) -> None:
    topics.send({"x": 1.0}, timestamp=1_000)
    topics.send({"x": 2.0}, timestamp=2_000)
    with pytest.raises(RequestError, match="earliest, latest, a time"):
        topics.run(start_from="yesterday")
    assert topics.run(group="late", start_from="latest").read == 0
    assert topics.run(group="timed", start_from="1970-01-01T00:00:02Z").read == 1
    topics.send({"x": 3.0})
    assert topics.run(group="late", start_from="earliest").read == 1  # it never rewinds


def test_a_partition_that_is_added_is_read_from_its_beginning(topics: Topics) -> None:
    topics.send({"x": 1.0})
    assert topics.run(start_from="latest").read == 0
    admin = AdminClient({"bootstrap.servers": topics.kafka.brokers})
    [added] = admin.create_partitions([NewPartitions(f"{topics.name}-in", 3)]).values()
    added.result()
    wait_until(
        lambda: len(admin.list_topics(timeout=10).topics[f"{topics.name}-in"].partitions) == 3
    )
    topics.send({"x": 2.0}, partition=1)
    topics.send({"x": 3.0}, partition=2)
    assert topics.run(start_from="latest", workers=3).read == 2  # a lane each
    assert sorted(topics.predictions()) == [4.0, 6.0]


def test_at_least_once_and_errors_as_lines(topics: Topics) -> None:
    topics.send({"x": 1.0}, {"x": -1.0})
    run = topics.run(delivery="at-least-once", errors_format="json")
    assert (run.predicted, run.failed) == (1, 1)
    (said,) = topics.read(topics.errors)
    line = json.loads(said.value or b"")
    assert (line["topic"], line["offset"], line["record"]) == (f"{topics.name}-in", 1, {"x": -1.0})


def test_too_many_failures_end_it(topics: Topics) -> None:
    topics.send(*[{"x": -1.0}] * 20)
    with pytest.raises(TooManyErrorsError, match="more than --max-errors 5"):
        topics.run(max_errors=5)


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address that takes calls and does not answer as Kafka does."""
    import socket

    with socket.create_server(("localhost", 0)) as server:
        yield f"localhost:{server.getsockname()[1]}"


def test_nobody_there_and_settings_that_are_wrong(
    topics: Topics,
    deaf: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 3.0)
    for brokers in (deaf, "localhost:1"):
        flags = topics.flags()
        flags[1] = f"-i=kafka://{brokers}/in"
        assert cli.run(["predict", *flags, "--delivery=at-least-once"]) == 2
        assert f"kafka://{brokers} does not answer as Kafka does" in capsys.readouterr().err
    config = tmp_path / "client.properties"
    for line, word in (
        ("group.id=mine", "use --group"),
        ("no equals sign", "write it as name=value"),
        ("no.such.setting=my-secret", "no.such.setting"),
    ):
        config.write_text(f"{line}\n")
        assert cli.run(["predict", *topics.flags(), f"--kafka-config={config}"]) == 2
        said = capsys.readouterr().err
        assert word in said
        assert "my-secret" not in said
