"""Files into a topic, with a real broker: each record once, whoever is killed or doubled."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import write_lines
from confluent_kafka import KafkaError, KafkaException
from crashing import Command, wait_until
from described import check_described
from running import finish
from topics import Topics

import modelbeam
from engines.clusters import Kafka
from modelbeam.errors import InputReadError, JobError, OutputExistsError
from modelbeam.kafka import address, sending
from modelbeam.kafka.cluster import Cluster, Limits
from modelbeam.kafka.records import Message
from modelbeam.kafka.sending import Mark, Sender

pytestmark = pytest.mark.timeout(300)

KILLS = (1, 2)
"""After how many more splits a process is killed, one process after another."""


class Files:
    """A directory of files, and a run that sends their predictions."""

    def __init__(self, topics: Topics, data: Path) -> None:
        self.topics, self.data = topics, data
        data.mkdir()

    def add(self, name: str, *records: Any) -> None:
        """A file more."""
        write_lines(self.data / name, list(records))

    def run(self, **settings: Any) -> Any:
        """One run."""
        own = {"model": "small_models:Doubler", "input": str(self.data), "workers": 1}
        ends = {"output": self.topics.output, "errors": self.topics.errors}
        return modelbeam.predict(**{**own, **ends, **settings})


@pytest.fixture
def files(kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest) -> Files:
    """A directory, and topics called after the test."""
    return Files(Topics(kafka, request.node.name[:60]), tmp_path / "in")


def test_each_split_is_sent_once_in_its_order_and_more_behind_it(files: Files) -> None:
    files.add("a.jsonl", *({"x": float(n)} for n in range(5)))
    files.add("b.jsonl", {"x": 5.0, "pad": "p" * 60}, {"x": -1.0}, {"x": 6.0})
    settings = {"split_size": 50, "keep": ["pad"]}
    first = files.run(**settings)
    assert (first.read, first.predicted, first.failed) == (8, 7, 1)
    assert first.errors == (files.topics.errors,)
    assert first.description["splits"] > 2
    check_described("run", first.description)
    assert files.topics.predictions() == [2.0 * n for n in range(7)]
    said = files.topics.read(files.topics.output)[5]
    assert json.loads(said.value or b"")["pad"] == "p" * 60
    assert (said.key, said.headers["modelbeam.model"]) == (None, b"doubler")
    [bad] = files.topics.read(files.topics.errors)
    assert json.loads(bad.value or b"") == {"x": -1.0}
    assert bad.headers["modelbeam.source"] == str(files.data / "b.jsonl").encode()
    assert bad.headers["modelbeam.line"] == b"2"  # of the file, not of the split
    with pytest.raises(OutputExistsError, match="of this very run"):
        files.run(**settings)
    files.add("c.jsonl", {"x": 7.0})
    more = files.run(**settings, resume=True)
    assert (more.read, more.description["splits_resumed"]) == (9, first.description["splits"])
    assert files.run(**settings, resume=True).description["already_finished"]
    assert files.topics.predictions() == [2.0 * n for n in range(8)]
    files.run(**settings, overwrite=True, delivery="at-least-once")
    assert files.topics.predictions() == [2.0 * n for n in range(8)] * 2


def test_a_file_that_cannot_be_read_is_named_and_sent_once_it_is_mended(files: Files) -> None:
    files.add("a.jsonl", {"x": 1.0})
    whole = gzip.compress(b'{"x": 8.0}\n' * 1000)
    (files.data / "b.jsonl.gz").write_bytes(whole[:-20])
    files.add("c.jsonl", {"x": 3.0})
    with pytest.raises(InputReadError, match=r"b\.jsonl\.gz.*What comes before it is sent"):
        files.run(split_size=1)
    assert files.topics.predictions() == [2.0]
    (files.data / "b.jsonl.gz").write_bytes(whole)
    assert files.run(split_size=1, resume=True).predicted == 1002
    assert files.topics.predictions() == [2.0, *[16.0] * 1000, 6.0]


def test_what_is_too_large_and_what_kills_the_process_are_error_records(files: Files) -> None:
    noise = os.urandom(700_000).hex()
    files.add("a.jsonl", {"x": 1.0}, {"x": 4.0, "pad": noise}, {"x": 3.0}, {"x": 2.0})
    run = files.run(model="nasty_models:Deadly", keep=["pad"])
    assert (run.predicted, run.failed) == (2, 2)
    types = [
        said.headers["modelbeam.error.type"] for said in files.topics.read(files.topics.errors)
    ]
    assert types == [b"MessageTooLargeError", b"ProcessDiedError"]


class Sends:
    """Senders of one group, over records that are numbers: split n has n and n + 0.5."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.cluster = Cluster(topics.kafka.brokers, {})

    def sender(self) -> Sender:
        """A new one, as a new process has it."""
        output = address.parse(self.topics.output, "--output")
        limits = [Limits(1_000_000, None, None)] * 2
        group = f"{self.topics.name}-files"
        return Sender(self.cluster, {}, output, group, limits, exactly_once=True)

    def send(self, sender: Sender, split: int, writer: str) -> None:
        """Send one split."""

        def messages() -> Any:
            for topic, value in ((f"{self.topics.name}-out", split), (self.errors, split + 0.5)):
                yield topic, Message(None, json.dumps({"y": value}).encode(), [], 0)

        sender.send(messages, 100, Mark(split + 1, 9, writer=writer))

    @property
    def errors(self) -> str:
        """The topic of failed records."""
        return f"{self.topics.name}-errors"

    def goes_on(self, until: int, writer: str) -> None:
        """A process that begins where the mark is."""
        sender = self.sender()
        mark = sender.open()
        for split in range(mark.sent if mark else 0, until):
            self.send(sender, split, writer)
        sender.close()


class KilledError(BaseException):
    """Nothing catches it, and nothing is tidied."""


def before(_: Callable[..., Any]) -> Callable[..., Any]:
    """Die instead of the call."""

    def die(*_: Any) -> Any:
        raise KilledError

    return die


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    """Die right after the call."""

    def die(*arguments: Any) -> Any:
        function(*arguments)
        raise KilledError

    return die


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("flush", before),
        ("put_offsets", before),
        ("commit_transaction", before),
        ("commit_transaction", after),
    ],
)
def test_a_death_at_any_step_loses_and_doubles_nothing(
    kafka: Kafka, step: str, when: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = Sends(Topics(kafka, f"step-{step}-{when.__name__}"))
    sends.goes_on(2, "first")
    dead = sends.sender()
    dead.open()
    if step == "commit_transaction":
        producer, real = dead._producer, dead._producer.commit_transaction
        dead._producer = Wrapped(producer, when(real))
    elif step == "flush":
        monkeypatch.setattr(dead._deliveries, "flush", when(dead._deliveries.flush))
    else:
        monkeypatch.setattr(sending, "put_offsets", when(sending.put_offsets))
    with pytest.raises(KilledError):
        sends.send(dead, 2, "dead")  # and it is never closed, so its transaction stays open
    monkeypatch.undo()
    sends.goes_on(4, "next")
    assert sends.topics.predictions() == [0, 1, 2, 3]
    found = [json.loads(said.value or b"")["y"] for said in sends.topics.read(sends.topics.errors)]
    assert found == [0.5, 1.5, 2.5, 3.5]


class Wrapped:
    """A producer whose commits are another's."""

    def __init__(self, producer: Any, commit: Any) -> None:
        self._producer, self.commit_transaction = producer, commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def test_of_two_that_send_the_newer_goes_on_and_the_older_ends(topics_of_two: Sends) -> None:
    sends = topics_of_two
    older, newer = sends.sender(), sends.sender()
    assert older.open() is None
    sends.send(older, 0, "older")
    assert newer.look() == newer.open() == Mark(1, 9, writer="older")
    with pytest.raises(JobError, match=r"another run of the group .* has taken over"):
        sends.send(older, 1, "older")
    sends.send(newer, 1, "newer")
    for one in (older, newer):
        one.close()
    sends.goes_on(3, "last")
    assert sends.topics.predictions() == [0, 1, 2]


@pytest.fixture
def topics_of_two(kafka: Kafka) -> Sends:
    """Topics for two senders."""
    return Sends(Topics(kafka, "two-senders"))


def silent(producer: Any, reached: bool) -> Callable[..., None]:
    """A commit that does not answer, and has reached the broker or not."""

    def commit(*arguments: Any) -> None:
        if reached:
            producer.commit_transaction(*arguments)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    return commit


def test_a_commit_of_which_nobody_knows_how_it_ended_is_looked_up(kafka: Kafka) -> None:
    sends = Sends(Topics(kafka, "unknown"))
    for reached in (True, False):
        sender = sends.sender()
        sender.open()
        sender._producer = Wrapped(sender._producer, silent(sender._producer, reached))
        sends.send(sender, 0 if reached else 1, "me")
        sender.close()
    assert sends.topics.predictions() == [0, 1]


def test_kills_and_another_at_once_lose_and_double_nothing(files: Files) -> None:
    for number in range(12):
        rows: list[Any] = [{"x": float(number + 12 * n)} for n in range(40)]
        files.add(f"f{number:02d}.jsonl", *rows, {"x": -1.0 - number})
    topics, group = files.topics, "killed"
    cluster, output = Cluster(topics.kafka.brokers, {}), f"{topics.name}-out"

    def sent() -> int:
        return max(0, cluster.marked(f"{group}-files", output, 0, settled=False)[0])

    def reached(command: Command, wanted: int) -> bool:
        return sent() >= wanted or command.process.poll() is not None

    flags = ["-m=nasty_models:Brief", f"-i={files.data}", f"-o={topics.output}"]
    flags += [f"--errors={topics.errors}", "--split-size=300", "--no-progress", "--workers=1"]
    flags += [f"--group={group}", "--resume"]
    there = 0
    for more in KILLS:
        wanted = there + more
        with Command(*flags, env={}) as dies:
            wait_until(partial(reached, dies, wanted), seconds=120)
            dies.kill()
        there = sent()
        assert there >= wanted, dies.stderr
    with (
        Command(*flags, env={}) as one,
        Command(*flags, env={"TMPDIR": str(files.data.parent)}) as other,  # as another machine
    ):
        codes = {finish(each).process.returncode for each in (one, other)}
        assert 0 in codes, one.stderr + other.stderr
        assert codes <= {0, 1}
    with Command(*flags, "--json", env={}) as last:
        assert finish(last).process.returncode == 0, last.stderr
    said = json.loads(last.stdout)
    assert (said["already_finished"], said["splits"]) == (True, sent())
    check_described("run", said)
    assert said["counts"] == {"read": 492, "predicted": 480, "failed": 12}
    doubled = [2 * float(f + 12 * n) for f in range(12) for n in range(40)]
    assert topics.predictions() == doubled  # in the order of the files, too
    failed = [json.loads(record.value or b"") for record in topics.read(topics.errors)]
    assert failed == [{"x": -1.0 - number} for number in range(12)]


def test_a_stop_says_how_much_is_sent(files: Files) -> None:
    files.add("a.jsonl", {"x": 1.0})
    files.add("b.jsonl", *[{"x": 2.0}] * 20_000)
    topics = files.topics
    flags = ["-m=nasty_models:Brief", f"-i={files.data}", f"-o={topics.output}", "--split-size=1KB"]
    with Command(*flags, f"--errors={topics.errors}", "--no-progress", env={}) as command:
        wait_until(lambda: topics.read(topics.output), seconds=60)
        command.process.send_signal(signal.SIGTERM)
        assert finish(command).process.returncode == 130, command.stderr
    assert "splits are in the topic. Run the same command with --resume" in command.stderr
