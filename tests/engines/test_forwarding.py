"""Files as they arrive into a topic, with a real broker: each once, whoever is killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import write_lines
from confluent_kafka.admin import AdminClient
from crashing import Command, wait_until
from described import check_described
from running import finish
from topics import Topics

import modelbeam
from engines.clusters import Kafka
from modelbeam.errors import RequestError
from modelbeam.job.description import build_job
from modelbeam.kafka.cluster import Cluster
from modelbeam.kafka.sending import Sender
from modelbeam.local.forwarding import ForwardingRun
from modelbeam.report.check import check_job

pytestmark = pytest.mark.timeout(200)


class Arriving:
    """A directory that files arrive in, and a run that ends once there is nothing new."""

    def __init__(self, topics: Topics, folder: Path) -> None:
        self.topics, self.data, self.state = topics, folder / "in", folder / "state"
        self.data.mkdir()

    def add(self, name: str, *values: float) -> None:
        """A file more."""
        write_lines(self.data / name, [{"x": value} for value in values])

    def run(self, **settings: Any) -> Any:
        """One run."""
        ends = {"output": self.topics.output, "errors": self.topics.errors}
        own = {"model": "small_models:Doubler", "input": str(self.data), "workers": 1}
        more = {"streaming": True, "settle": 0, "stop_when_idle": 0, "state": str(self.state)}
        return modelbeam.predict(**{**own, **ends, **more, **settings})

    def failed(self) -> list[float]:
        """The records in the errors topic."""
        return [json.loads(one.value or b"")["x"] for one in self.topics.read(self.topics.errors)]

    def waiting(self) -> list[str]:
        """The directories of small runs that are not sent."""
        return sorted(path.name for path in self.state.glob("0*"))


@pytest.fixture
def arriving(kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest) -> Arriving:
    """A directory, and topics called after the test."""
    return Arriving(Topics(kafka, f"arriving-{request.node.name[:50]}"), tmp_path)


def test_each_file_is_sent_once_and_a_run_goes_on_where_the_last_ended(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    arriving.add("a.jsonl", 1, -1, 2)
    ends = {"output": arriving.topics.output, "errors": arriving.topics.errors}
    asked = {"models": ["small_models:Doubler"], "inputs": str(arriving.data), **ends}
    checked = check_job(build_job({**asked, "streaming": True}), print)
    assert (checked.read, checked.to_dict()["plan"]["output"]) == (3, ends["output"])
    with pytest.raises(RequestError, match="there is no topic 'nowhere'"):
        check_job(
            build_job({**asked, "output": ends["output"].rpartition("/")[0] + "/nowhere"}), print
        )
    first = arriving.run(state=None, max_errors="50%")
    assert (first.read, first.predicted, first.failed) == (3, 2, 1)
    check_described("arriving", first.description)
    arriving.state = Path(first.description["state"])
    assert arriving.state.parent == tmp_path / "modelbeam"
    [error] = arriving.topics.read(arriving.topics.errors)
    assert error.headers["modelbeam.source"] == str(arriving.data / "a.jsonl").encode()
    assert (error.headers["modelbeam.line"], error.value) == (b"2", b'{"x": -1}')
    assert arriving.run(state=None).read == 0
    arriving.add("b.jsonl", *range(3, 9))
    arriving.add("c.jsonl", -9)
    again = arriving.run(split_size=20)  # several transactions
    assert (again.read, again.description["runs"]) == (7, 1)
    assert arriving.topics.predictions() == [2.0 * n for n in range(1, 9)]
    assert arriving.failed() == [-1, -9]
    said = arriving.topics.read(arriving.topics.output)[0].headers
    assert said["modelbeam.model"] == b"doubler"
    assert said["modelbeam.model.fingerprint"]
    assert not arriving.waiting()


class KilledError(BaseException):
    """Nothing catches it."""


def dying(real: Callable[..., Any], when: int, *, after: bool) -> Callable[..., Any]:
    """A function that dies in one of its calls."""
    calls = [0]

    def call(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == when and not after:
            raise KilledError
        result = real(*arguments)
        if calls[0] == when:
            raise KilledError
        return result

    return call


def test_a_death_between_any_two_steps_loses_and_doubles_nothing(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving.run()
    steps: list[tuple[Any, str, int, bool]] = [
        (Sender, "send", 1, False),  # the files are in the ledger, and nothing of them is sent
        (Sender, "send", 2, True),  # two of their three shards are
        (ForwardingRun, "_remove", 2, False),  # all are; the first call is for the one before
    ]
    for number, (where, name, when, after) in enumerate(steps):
        arriving.add(f"{number}.jsonl", 3 * number + 1, 3 * number + 2, 3 * number + 3)
        with monkeypatch.context() as patched:
            patched.setattr(where, name, dying(getattr(where, name), when, after=after))
            with pytest.raises(KilledError):
                arriving.run(split_size=10)
        assert arriving.waiting()
        (arriving.data / f"{number}.jsonl").unlink()  # it is sent without being read again
        assert arriving.run().read == 0
        assert not arriving.waiting()
    assert arriving.topics.predictions() == [2.0 * n for n in range(1, 10)]


def test_what_is_lost_of_the_state_or_the_mark_doubles_nothing(arriving: Arriving) -> None:
    arriving.add("a.jsonl", 1)
    group = arriving.run().description["group"]
    with pytest.raises(RequestError, match=r"has sent 1 small runs of files, and .*elsewhere"):
        arriving.run(state=str(arriving.data.parent / "elsewhere"))
    admin = AdminClient({"bootstrap.servers": arriving.topics.kafka.brokers})

    def forget() -> None:
        [forgotten] = admin.delete_consumer_groups([group]).values()
        forgotten.result()

    forget()  # as the brokers do after a week
    arriving.add("b.jsonl", 2)
    assert arriving.run().read == 1
    forget()
    (arriving.state / "00000001").mkdir()
    (arriving.state / "00000001" / "_SUCCESS").touch()
    with pytest.raises(RequestError, match="may be in the topic or not"):
        arriving.run()
    (arriving.state / "00000001" / "_SUCCESS").unlink()
    assert arriving.run().read == 0
    assert arriving.topics.predictions() == [2.0, 4.0]


def test_kills_and_another_at_once_lose_and_double_nothing(arriving: Arriving) -> None:
    topics, group = arriving.topics, "arrives"
    cluster, output = Cluster(topics.kafka.brokers, {}), f"{topics.name}-out"

    def sent() -> tuple[int, int]:
        offset, text = cluster.marked(f"{group}-arriving", output, 0, settled=False)
        return (offset, json.loads(text)["splits"]) if offset >= 0 else (0, 0)

    def moved(command: Command, before: tuple[int, int]) -> bool:
        return sent() > before or command.process.poll() is not None

    flags = ["-m=nasty_models:Brief", f"-i={arriving.data}", f"-o={topics.output}"]
    flags += [f"--errors={topics.errors}", "--split-size=100", "--no-progress", "--workers=1"]
    flags += [f"--group={group}", f"--state={arriving.state}", "--streaming", "--settle=0s"]
    for number in range(2):
        arriving.add(f"{number}.jsonl", *range(40 * number + 1, 40 * number + 40), -1 - number)
        before = sent()
        with Command(*flags, env={}) as dies:
            wait_until(partial(moved, dies, before), seconds=60)
            dies.kill()
        assert sent() > before, dies.stderr
    arriving.add("last.jsonl", *range(81, 120))
    with (
        Command(*flags, "--stop-when-idle=0s", env={}) as one,
        Command(*flags, "--stop-when-idle=0s", env={}) as other,
    ):
        codes = {finish(each).process.returncode for each in (one, other)}
        assert 0 in codes, one.stderr + other.stderr
        assert codes <= {0, 1}
    assert arriving.run(model="nasty_models:Brief", group=group, split_size=100).read == 0
    wanted = [2.0 * n for n in range(1, 120) if n % 40]
    assert sorted(topics.predictions()) == wanted
    assert sorted(arriving.failed()) == [-2, -1]
    assert not arriving.waiting()
