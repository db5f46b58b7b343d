"""A record that kills its process, or never ends, is an error line; everything else goes on."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import read_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import cli
from modelbeam.errors import TooManyCrashesError
from modelbeam.job import careful
from modelbeam.job.careful import ProcessDiedError, Pulse
from modelbeam.job.deaths import Deaths
from modelbeam.local import run, worker
from modelbeam.local.crashes import Crash, Crashes
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.predictor import Predictions, _predict_apart, picklable

EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed"]
MESSAGES = {
    3.0: ("ProcessDiedError", "the process that held the model was killed by SIGSEGV"),
    5.0: ("ProcessDiedError", "the process that held the model exited with code 7"),
    10.0: ("TimeoutError", "no prediction within 1 s"),
    -2.0: ("ValueError", "x is negative: -2.0"),
}


@pytest.mark.parametrize(
    ("model", "x"),
    [("Deadly", [-2.0, 3.0, 4.0, 5.0]), ("DeadlyTable", [-2.0, 1.0, 3.0, 4.0, 6.0, 10.0])],
)
def test_the_guilty_records_are_error_lines_and_the_others_are_predicted(
    model: str, x: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"x": value} for value in x])
    flags = [f"-o={tmp_path / 'out.jsonl'}", "--record-timeout=1", "--no-progress"]
    assert cli.run(["predict", f"-m=nasty_models:{model}", f"-i={data}", *flags]) == 0
    good = [value for value in x if value not in MESSAGES]
    assert [row["y"] for row in read_lines(tmp_path / "out.jsonl")] == [2 * v for v in good]
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [row["record"]["x"] for row in errors] == [v for v in x if v in MESSAGES]
    for row in errors:
        assert (row["type"], row["error"]) == MESSAGES[row["record"]["x"]]
    assert {row["stage"] for row in errors} == {"predict"}
    (crash,) = json.loads((tmp_path / "out.run.json").read_text())["crashes"]
    assert crash["ending"] == "was killed by SIGSEGV"
    assert crash["records"] == 2
    assert crash["places"] == [f"{data} after byte 0"]
    assert "over 2 records, now failed" in capsys.readouterr().err


def test_a_model_that_simply_does_not_work_ends_the_run(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"x": 100.0}] * 8)
    with pytest.raises(TooManyCrashesError, match=r"More than 2 records .*in\.jsonl after byte 0"):
        modelbeam.predict(
            model="nasty_models:Deadly",
            input=str(data),
            output=str(tmp_path / "out"),
            max_crashes=2,
        )
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_record_that_needs_more_memory_than_there_is(tmp_path: Path) -> None:
    rows = [{"x": 1.0}, {"x": 2.0, "how": "python"}, {"x": 3.0}, {"x": 4.0, "how": "native"}]
    data = write_lines(tmp_path / "in.jsonl", [*rows, {"x": 5.0}])
    modelbeam.predict(
        model="nasty_models:ShortOfMemory", input=str(data), output=str(tmp_path / "out.jsonl")
    )
    assert [row["y"] for row in read_lines(tmp_path / "out.jsonl")] == [2.0, 6.0, 10.0]
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [(row["type"], row["record"]["x"]) for row in errors] == [
        ("MemoryError", 2.0),
        ("ProcessDiedError", 4.0),
    ]
    assert errors[1]["error"] == "the process that held the model was killed by SIGSEGV"
    (crash,) = json.loads((tmp_path / "out.run.json").read_text())["crashes"]
    assert crash["records"] == 1


@pytest.mark.parametrize(("how", "blamed"), [("always", 1), ("once", 0)])
def test_a_process_that_somebody_kills(how: str, blamed: int, tmp_path: Path) -> None:
    here = tmp_path / "pid"
    rows = [{"x": 1.0}, {"x": 2.0, "how": how, "here": str(here)}, {"x": 3.0}]
    data = write_lines(tmp_path / "in.jsonl", rows)
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.02):
            if here.exists():
                os.kill(int(here.read_text()), signal.SIGKILL)
                if how == "once":
                    return
                here.unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        modelbeam.predict(
            model="nasty_models:KilledFromOutside",
            input=str(data),
            output=str(tmp_path / "out.jsonl"),
        )
    finally:
        ended.set()
        killer.join()
    good = [row["x"] for row in rows if not blamed or "how" not in row]
    assert [row["y"] for row in read_lines(tmp_path / "out.jsonl")] == [2 * x for x in good]
    (crash,) = json.loads((tmp_path / "out.run.json").read_text())["crashes"]
    killed = "was killed by SIGKILL (by the system for want of memory, or by hand)"
    assert (crash["ending"], crash["records"]) == (killed, blamed)
    if blamed:
        (error,) = read_lines(tmp_path / "out.errors.jsonl")
        assert error["error"] == f"the process that held the model {killed}"
    else:
        assert not (tmp_path / "out.errors.jsonl").exists()


def test_where_nothing_moves_a_line_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STILL", 0.7)
    monkeypatch.setattr(run, "STILL", 0.7)
    data = write_lines(tmp_path / "in.jsonl", [{"x": 1.0}])
    flags = ["-m=nasty_models:Slow", f"-i={data}", f"-o={tmp_path / 'out.jsonl'}"]
    assert cli.run(["predict", *flags]) == 0
    said = f"no progress for 0.7 s in {data} after byte 0; --record-timeout sets a limit"
    assert said in capsys.readouterr().err


def test_records_have_a_limit_of_time_on_an_engines_worker_too(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in (4, 10, 5)])
    run = modelbeam.predict(
        model="nasty_models:Deadly",
        input=str(data),
        output=str(tmp_path / "out.jsonl"),
        record_timeout=1.0,
        beam_options=EMBEDDED,
    )
    assert (run.predicted, run.failed) == (1, 2)
    assert read_lines(tmp_path / "out.jsonl") == [{"y": 8.0}]
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [(row["type"], row["error"]) for row in errors] == [MESSAGES[10.0], MESSAGES[5.0]]


def test_an_attempt_after_one_that_died_is_careful_from_the_start(
    engine: Any, tmp_path: Path, modelbeam: Any
) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in (1, 2, 3, 4)])
    flags = ["-m=nasty_models:Deadly", f"-i={data}", f"-o={tmp_path / 'out.jsonl'}"]
    done = modelbeam("predict", *flags, *engine.flags())
    assert done.returncode == 0, done.stderr
    assert "a worker died while it predicted: submitting the job again" in done.stderr
    (crash,) = json.loads((tmp_path / "out.run.json").read_text())["crashes"]
    assert (crash["ending"], crash["records"]) == ("was killed by SIGSEGV", 1)
    assert [row["y"] for row in read_lines(tmp_path / "out.jsonl")] == [2.0, 4.0, 8.0]
    (error,) = read_lines(tmp_path / "out.errors.jsonl")
    assert (error["type"], error["record"]) == ("ProcessDiedError", {"x": 3.0})


def deaths(state: Path, run: str = "now", limit: int = 10) -> Deaths:
    """Those of a run, in a state that has what it needs."""
    (state / "attempts").mkdir(exist_ok=True)
    return Deaths(str(state), run, limit)


def test_a_mark_stays_only_if_its_process_dies(tmp_path: Path) -> None:
    now = deaths(tmp_path)
    with now.marked("key") as trace:
        assert trace == (False, False)
        assert now.traces() == {"key.begun"}
        with now.marked("key") as other:
            assert other == (True, True)
    with pytest.raises(ValueError, match="no"), now.marked("key") as trace:
        raise ValueError("no")
    assert trace == (False, False)
    assert list((tmp_path / "attempts").iterdir()) == []
    assert now.traces() == frozenset()


def test_what_an_earlier_run_left_makes_careful_and_is_not_counted(tmp_path: Path) -> None:
    earlier, now = deaths(tmp_path, "earlier"), deaths(tmp_path)
    earlier.died("other", "b.jsonl")
    with earlier.marked("key"):
        assert now.traces() == frozenset()
        with now.marked("key") as trace:
            assert trace == (True, False)
    assert now.described() == ()


def test_what_another_worker_is_about_to_write_is_not_read(tmp_path: Path) -> None:
    now = deaths(tmp_path)
    with now.marked("key"):
        now.died("key", "a.jsonl")
        known = now.traces()
        for suffix in (".death", ".record"):
            (tmp_path / "deaths" / f"other{suffix}.123-4f.tmp").write_bytes(b'{"ru')
        assert now.traces() == known
    assert [crash["places"] for crash in now.described()] == [["a.jsonl"]]


def test_workers_of_a_run_count_together(tmp_path: Path) -> None:
    one, other = deaths(tmp_path, limit=3), deaths(tmp_path, limit=3)
    one.died("a", "a.jsonl")
    one.blame("a", 1, "was killed by SIGSEGV", "a.jsonl after byte 7")
    other.blame("a", 1, "was killed by SIGSEGV", "a.jsonl after byte 7")  # its next attempt
    other.died("b", "b.jsonl")
    one.blame("c", 1, "exited with code 7", "c.jsonl after byte 0")
    with pytest.raises(
        TooManyCrashesError, match=r"More than 3 .* the last in c\.jsonl after byte 9"
    ):
        other.blame("c", 2, "exited with code 7", "c.jsonl after byte 9")
    found = {tuple(crash["places"]): crash for crash in one.described()}
    assert [crash["records"] for crash in found.values()] == [1, 0, 2]
    assert found[("a.jsonl after byte 7",)]["ending"] == "was killed by SIGSEGV"
    assert found[("b.jsonl",)]["ending"] == "died with its worker"


class Elsewhere:
    """A model in a process that dies over some records, and raises over others."""

    def __init__(self, deadly: frozenset[int], failing: frozenset[int]) -> None:
        self.deadly, self.failing = deadly, failing

    def __call__(self, records: Any, _: int | None, fresh: bool) -> Predictions:
        """Predict."""
        table = isinstance(records, pa.RecordBatch)
        numbers = records.column("n").to_pylist() if table else [r["n"] for r in records]
        assert fresh == (len(numbers) == 1)
        if self.deadly.intersection(numbers):
            raise ProcessDiedError("gone")
        rows = [row for row, n in enumerate(numbers) if n not in self.failing]
        failed = [row for row, n in enumerate(numbers) if n in self.failing]
        failures = [Failure(row, "predict", "ValueError", "no") for row in failed]
        values: list[Any] = [{"y": numbers[row]} for row in rows]
        if table:
            values = [pa.RecordBatch.from_pylist(values)]
        return Predictions(values, rows if failed else None, failures)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 60),
    st.frozensets(st.integers(0, 60), max_size=8),
    st.frozensets(st.integers(0, 60), max_size=8),
    st.booleans(),
)
def test_parts_are_put_together_again(
    count: int, deadly: frozenset[int], failing: frozenset[int], table: bool
) -> None:
    records: Any = [{"n": n} for n in range(count)]
    if table:
        records = pa.RecordBatch.from_pydict({"n": pa.array(range(count), pa.int64())})
    made = _predict_apart(Elsewhere(deadly, failing), records, None)
    good = [n for n in range(count) if n not in deadly | failing]
    values = made.values
    if table:
        values = [row for batch in values for row in batch.to_pylist()]
    assert [value["y"] for value in values] == good
    assert (made.rows if made.rows is not None else list(range(count))) == good
    types = {failure.row: failure.type for failure in made.failures}
    assert types == {
        n: "ProcessDiedError" if n in deadly else "ValueError"
        for n in range(count)
        if n in deadly | failing
    }


def test_a_prediction_that_cannot_leave_its_process_is_a_failure() -> None:
    made = picklable(Predictions([{"y": 1}, {"y": lambda: 1}, {"y": 3}], None, []))
    assert (made.values, made.rows) == ([{"y": 1}, {"y": 3}], [0, 2])
    assert [(failure.row, failure.stage) for failure in made.failures] == [(1, "encode")]


def test_a_process_is_too_slow_in_a_call_or_when_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(careful.time, "monotonic", lambda: now[0])
    pulse = Pulse()
    for second in range(20):  # at work on something that is no call: reading, writing
        now[0] += 1
        pulse.beat("same", False, second)
    assert not pulse.too_long(5)
    pulse.beat("a call", True, 0)
    now[0] += 4
    pulse.beat("a call", True, 0)
    assert not pulse.too_long(5)
    now[0] += 2
    pulse.beat("the next record", True, 0)
    assert not pulse.too_long(5)
    now[0] += 6
    pulse.beat("the next record", True, 0)
    assert pulse.too_long(5)
    assert not pulse.too_long(None)
    pulse.reset()
    now[0] += 6
    assert pulse.too_long(5)  # it holds the interpreter lock, and cannot say so
    assert pulse.peak == 19


def test_crashes_are_counted_by_record_or_else_by_process() -> None:
    crashes = Crashes(None, limit=3)
    one, two = Crash("died", 0, ["a"]), Crash("died", 0, ["b"])
    crashes.add(one)
    assert crashes.careful(one).crashes_left == 3
    crashes.found(one, 2)
    crashes.add(two)
    assert crashes.careful(two).crashes_left == 1
    with pytest.raises(TooManyCrashesError, match="died 3 times, more than --max-crashes 3"):
        crashes.add(Crash("died", 0, ["c"]))
    assert [crash["records"] for crash in crashes.described()] == [2, 0, 0]
