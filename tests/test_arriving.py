"""Files as they arrive: each is read once, when it is complete, whoever is killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines, write_lines
from crashing import Command, wait_until
from hypothesis import given
from hypothesis import strategies as st

import modelbeam
from modelbeam.errors import (
    JobError,
    OutputExistsError,
    OutputWriteError,
    RequestError,
    TooManyErrorsError,
)
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Silent, too_many_in_stream
from modelbeam.job.result import Run
from modelbeam.local.pool import WorkerPool
from modelbeam.predicting.counts import Counts
from modelbeam.report.check import check_job
from modelbeam.run import stream_job
from modelbeam.sinks.ledger import Entry, Ledger
from modelbeam.sinks.locks import held
from modelbeam.sources.arriving import Arrivals, Taken


def run(data: Path, output: Path, model: str = "small_models:Doubler", **settings: Any) -> Any:
    """One run that ends once there is nothing new."""
    return modelbeam.predict(
        model=model,
        input=str(data),
        output=str(output),
        streaming=True,
        **{"settle": 0, "stop_when_idle": 0, **settings},
    )


def predicted(output: Path) -> list[float]:
    """What all runs have predicted, in their order."""
    shards = sorted(path for path in output.glob("0*/predictions-*"))
    return [row["y"] for shard in shards for row in read_lines(shard)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with one file."""
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", [{"x": 1.0}, {"x": -1.0}])
    return tmp_path / "in"


def test_each_run_takes_what_is_new(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(data, output)
    assert (first.read, first.predicted, first.failed) == (2, 1, 1)
    asked = {"models": ["small_models:Doubler"], "inputs": str(data), "output": str(output)}
    checked = check_job(build_job({**asked, "streaming": True}), print)
    assert (checked.read, checked.failed) == (2, 1)
    assert f"output   {output} (jsonl, a directory of shards)" in checked.to_text()
    with pytest.raises(OutputExistsError):
        check_job(build_job(asked), print)
    assert run(data, output).read == 0
    write_lines(data / "b.jsonl", [{"x": 2.0}])
    (data / "month=05").mkdir()
    write_lines(data / "month=05" / "c.jsonl", [{"x": 3.0}])
    again = run(data, output, keep=["month"])
    assert (again.read, again.description["runs"]) == (2, 1)
    assert predicted(output) == [2.0, 4.0, 6.0]
    shards = sorted((output / "00000001").glob("predictions-*"))
    assert [row.get("month") for shard in shards for row in read_lines(shard)] == [None, "05"]
    description = json.loads((output / "00000000" / "run.json").read_text())
    assert description["output"] == str(output / "00000000")
    assert all(Path(path).exists() for path in description["files"])
    assert read_lines(output / "00000000" / "errors-00000-of-00001.jsonl")[0]["line"] == 2


def test_a_file_that_changes_is_told_and_another_of_its_name_is_new(
    data: Path, tmp_path: Path
) -> None:
    output, notes = tmp_path / "out", Notes()
    run(data, output)
    with (data / "a.jsonl").open("a") as handle:
        handle.write(json.dumps({"x": 5.0}) + "\n")
    stream(data, output, notes)
    (note,) = [text for text in notes.said if "has changed since it was taken" in text]
    assert str(data / "a.jsonl") in note
    write_lines(tmp_path / "new", [{"x": 7.0}])
    (tmp_path / "new").replace(data / "a.jsonl")
    run(data, output)
    assert predicted(output) == [2.0, 14.0]
    (data / "a.jsonl").rename(tmp_path / "away")
    run(data, output)
    (tmp_path / "away").rename(data / "a.jsonl")
    assert run(data, output).read == 0


def test_a_file_that_cannot_be_read_is_named_and_taken_once_it_is_repaired(
    data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    whole = gzip.compress(b'{"x": 8.0}\n' * 1000)
    (data / "bad.jsonl.gz").write_bytes(whole[:-20])
    write_lines(data / "c.jsonl", [{"x": 3.0}])
    with pytest.raises(JobError, match=r"1 file could not be read, the first: .*bad\.jsonl\.gz"):
        run(data, output)
    assert sorted(predicted(output)) == [2.0, 6.0]
    assert run(data, output).read == 0
    (data / "bad.jsonl.gz").write_bytes(whole)
    assert run(data, output).predicted == 1000


def test_names_that_programs_give_while_they_write_are_left_alone(data: Path) -> None:
    for name in ("b.jsonl.tmp", "c.jsonl.part", "d.jsonl~", ".e.jsonl", "_f.jsonl", "g._COPYING_"):
        write_lines(data / name, [{"x": 1.0}])
    for patterns in ([str(data)], [str(data / "*")]):
        arrivals = Arrivals(patterns, any_suffix=False, settle=0, excluded=[])
        assert [Path(info.path).name for info in arrivals.ready()] == ["a.jsonl"]


def test_a_file_is_taken_once_it_has_been_still(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    arrivals = Arrivals([str(data)], any_suffix=False, settle=10, excluded=[])
    for second in range(0, 12, 4):  # it grows
        now[0] = 1000.0 + second
        with (data / "a.jsonl").open("a") as handle:
            handle.write("{}\n")
        assert arrivals.ready() == []
        assert arrivals.waiting == 1
    now[0] += 9
    assert arrivals.ready() == []
    now[0] += 1
    (info,) = arrivals.ready()
    arrivals.note([Taken.of(info)])
    assert arrivals.ready() == []
    assert arrivals.waiting == 0


def test_a_file_that_was_there_long_before_is_taken_at_once(data: Path) -> None:
    os.utime(data / "a.jsonl", (time.time() - 60, time.time() - 60))
    assert len(Arrivals([str(data)], any_suffix=False, settle=10, excluded=[]).ready()) == 1


def test_one_of_two_gets_the_number_and_whoever_comes_next_finishes_the_move(
    tmp_path: Path,
) -> None:
    one, other = Ledger(str(tmp_path)), Ledger(str(tmp_path))
    for ledger, name in ((one, "a"), (other, "b")):
        ledger.open()
        work = Path(ledger.work(name))
        work.mkdir(parents=True)
        (work / "predictions-00000-of-00001.jsonl").write_text(name)
        (work / "run.json").write_text(json.dumps({"output": str(work), "files": []}))
        (work / "_SUCCESS").touch()
    content = Entry("a", (Taken("in", 1, 1),)).to_bytes()
    (tmp_path / "_modelbeam" / "log" / "00000000.json").write_bytes(content)  # and was killed
    assert not other.put(Entry("b", (Taken("in", 1, 1),)))
    shown = tmp_path / "00000000"
    assert sorted(path.name for path in shown.iterdir()) == [
        "_SUCCESS",
        "predictions-00000-of-00001.jsonl",
        "run.json",
    ]
    assert (shown / "predictions-00000-of-00001.jsonl").read_text() == "a"
    assert json.loads((shown / "run.json").read_text())["output"] == str(shown)
    other.discard("b")
    assert other.put(Entry("c", ()))
    assert [entry.work for entry in other.entries] == ["a", "c"]
    assert one.read()[1][0] == 1


def test_what_was_killed_long_ago_is_cleared(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.open()
    for name, age in (("old", 100_000), ("young", 10)):
        work = Path(ledger.work(name))
        work.mkdir(parents=True)
        os.utime(work, (time.time() - age, time.time() - age))
    ledger.clear()
    assert [path.name for path in (tmp_path / "_modelbeam" / "work").iterdir()] == ["young"]


def test_kills_and_two_at_once_take_each_file_once(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for number in range(40):
        write_lines(data / f"f{number:02d}.jsonl", [{"x": float(number + 2)}] * 5)
    flags = ["-m=nasty_models:Brief", f"-i={data}", f"-o={output}", "--streaming", "--settle=0s"]
    flags += ["--split-size=1KB", "--no-progress"]
    with Command(*flags, env={}) as first:
        wait_until(lambda: any((output / "_modelbeam" / "work").glob("*/_modelbeam/manifests/*")))
        first.kill()
    with (
        Command(*flags, "--stop-when-idle=1s", env={}) as one,
        Command(*flags, "--stop-when-idle=1s", env={}) as two,
    ):
        assert one.wait() == 0, one.stderr
        assert two.wait() == 0, two.stderr
    wanted = [2.0, *(2.0 * (n + 2) for n in range(40) for _ in range(5))]
    assert sorted(predicted(output)) == sorted(wanted)


def test_a_stop_ends_it_at_once_and_keeps_what_is_in_the_ledger(data: Path, tmp_path: Path) -> None:
    flags = ["-m=small_models:Doubler", f"-i={data}", f"-o={tmp_path / 'out'}", "--streaming"]
    with Command(*flags, "--settle=0s", "--no-progress", env={}) as started:
        wait_until(lambda: predicted(tmp_path / "out") == [2.0])
        started.process.send_signal(signal.SIGTERM)
        assert started.wait() == 0, started.stderr
    assert "1 run (stopped)" in started.stderr


def test_a_record_that_never_ends_is_an_error_line_and_the_run_goes_on(
    data: Path, tmp_path: Path
) -> None:
    write_lines(data / "b.jsonl", [{"x": 4.0}, {"x": 10.0}, {"x": 7.0}])  # 10 never ends
    write_lines(data / "c.jsonl", [{"x": 8.0}])
    made = run(data, tmp_path / "out", "nasty_models:Deadly", record_timeout=0.5, workers=1)
    assert sorted(predicted(tmp_path / "out")) == [2.0, 8.0, 14.0, 16.0]
    [died] = [one for one in made.description["failures"] if one["type"] == "TimeoutError"]
    assert (died["source"], died["line"]) == (str(data / "b.jsonl"), 2)


def test_what_is_not_the_files_fault_ends_the_run_and_leaves_the_files_to_the_next(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputWriteError("No space left on device. Run the same command with --resume.")

    write_lines(data / "b.jsonl", [{"x": 4.0}])
    monkeypatch.setattr(WorkerPool, "predict", full)
    with pytest.raises(OutputWriteError) as caught:
        run(data, tmp_path / "out")
    monkeypatch.undo()
    assert str(caught.value) == "No space left on device. Run the same command again."
    assert run(data, tmp_path / "out").read == 3


def test_a_share_of_failed_records_is_looked_at_when_it_ends(data: Path, tmp_path: Path) -> None:
    write_lines(data / "b.jsonl", [{"x": 4.0}])
    assert run(data, tmp_path / "enough", max_errors="34%", workers=1).failed == 1
    with pytest.raises(TooManyErrorsError) as caught:
        run(data, tmp_path / "out", max_errors="33%", workers=1)
    said = str(caught.value)
    assert said.startswith("1 of 3 records failed, more than max_errors='33%'. The first: ")
    assert f"{data / 'a.jsonl'}:2, ValueError: x is negative" in said
    assert sorted(predicted(tmp_path / "out")) == [2.0, 8.0]


@given(
    read=st.integers(0, 5000),
    share=st.floats(0, 1),
    limit=st.one_of(st.integers(0, 5000).map(str), st.integers(0, 100).map("{}%".format)),
    ended=st.booleans(),
)
def test_which_limits_end_a_run_that_goes_on(
    read: int, share: float, limit: str, ended: bool
) -> None:
    counts = Counts()
    counts.read, counts.failed = read, round(read * share)
    counts.predicted = read - counts.failed
    error = too_many_in_stream(limit, counts, "They are kept.", ended=ended)
    if not limit.endswith("%"):
        assert (error is not None) == (counts.failed > int(limit))
    elif not ended and read < 1000:
        assert error is None
    else:
        assert (error is not None) == (100 * counts.failed > int(limit[:-1]) * read)
    assert too_many_in_stream(None, counts, "", ended=ended) is None


def test_what_is_no_place_for_it_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="writes a directory"):
        run(data, tmp_path / "out.jsonl")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(OutputExistsError, match="holds something else"):
        run(data, tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "into files is done on this machine; leave the --runner out"),
        ({"input": "kafka://nowhere:1/in"}, "into files is done on this machine"),
        (
            {"output": "kafka://nowhere:1/out", "errors": "kafka://nowhere:1/errors"},
            "files go into a topic from this machine; leave the --runner out",
        ),
    ],
)
def test_what_an_engine_does_not_do_is_refused_before_anybody_is_asked(
    data: Path, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    settings = {"input": str(data), "output": str(tmp_path / "out"), **more}
    flink = ["--runner=flink", "--flink_master=nowhere:1"]
    with pytest.raises(RequestError) as caught:
        modelbeam.predict(
            model="small_models:Doubler", streaming=True, beam_options=flink, **settings
        )
    assert said in str(caught.value)


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)

    def loading(self, seconds: float) -> None:
        """Not kept."""

    def lanes(self, progress: Any) -> None:
        """Not kept."""

    def arrived(self, totals: Any, runs: int, waiting: int) -> None:
        """Not kept."""


def stream(data: Path, output: Path, watcher: Notes) -> None:
    """Run it with a watcher."""
    from modelbeam.job.description import build_job
    from modelbeam.run import stream_job

    settings = {"streaming": True, "settle": 0, "stop_when_idle": 0}
    named = {"models": ["small_models:Doubler"], "inputs": str(data), "output": str(output)}
    stream_job(build_job({**named, **settings}), watcher)


def test_a_newer_model_predicts_from_the_next_entry_on(tmp_path: Path) -> None:
    data, output, path = tmp_path / "in", tmp_path / "out", tmp_path / "factor.json"
    data.mkdir()
    asked = threading.Event()

    def put(factor: float, **more: Any) -> None:
        path.write_text(json.dumps({"factor": factor, **more}))
        asked.set()

    class Watcher(Silent):
        """Goes on with the story whenever something has happened."""

        def __init__(self) -> None:
            self.notes: list[str] = []
            self.steps = [
                (1, "", lambda: put(7, most=0)),
                (1, "number 1 failed with ValueError: x is too large", lambda: put(7, name="z")),
                (1, "it predicts no 'y' any more", lambda: path.unlink() or asked.set()),
                (1, "No such file", lambda: put(3)),
                (1, "taken over", lambda: write_lines(data / "2.jsonl", [{"x": 1.0}])),
                (2, "", end),
            ]

        def note(self, text: str) -> None:
            self.notes.append(text)

        def arrived(self, _totals: Any, runs: int, _waiting: int) -> None:
            wanted, words, step = self.steps[0]
            if runs == wanted and (not words or any(words in note for note in self.notes)):
                del self.steps[0]
                step()

    def end() -> None:
        raise KeyboardInterrupt

    put(2)
    asked.clear()
    write_lines(data / "1.jsonl", [{"x": 1.0}])
    model = {"target": "live_models:Factor", "arguments": {"path": str(path)}}
    settings = {"streaming": True, "settle": 0, "workers": 1}
    ends = {"inputs": [str(data)], "output": str(output)}
    run = stream_job(build_job({"models": [model], **ends, **settings}), Watcher(), None, asked)
    assert isinstance(run, Run)
    outcomes = [one["outcome"] for one in run.description["reloads"]]
    assert outcomes == ["refused", "refused", "refused", "taken over"]
    assert predicted(output) == [2.0, 3.0]


@pytest.mark.parametrize("flag", [{"limit": 5}, {"shards": 2}, {"overwrite": True}])
def test_what_is_for_a_run_that_ends_by_itself_is_refused(data, tmp_path, flag):
    with pytest.raises(RequestError, match="is for a run that ends by itself"):
        run(data, tmp_path / "out", **flag)
    assert not (tmp_path / "out").exists()


def test_whoever_asks_is_told_that_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    """Two may be at work in one directory; a run of another kind may not begin in it."""
    ledgers = [Ledger(str(tmp_path / "out")) for _ in range(2)]
    lock = str(tmp_path / "out" / "_modelbeam" / "lock")
    for ledger in ledgers:
        ledger.open()
        assert held(lock) == (ledger is not ledgers[0])
        ledger.hold()
    assert held(lock)
    with pytest.raises(OutputExistsError, match="another modelbeam process is writing it"):
        modelbeam.predict(model="small_models:Doubler", input=str(data),
                          output=str(tmp_path / "out"), overwrite=True)  # fmt: skip
    for ledger in ledgers:
        assert held(lock)
        ledger.close()
    assert not held(lock)
