"""A slow model that takes one record at a time is told of, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import write_lines
from hypothesis import given
from hypothesis import strategies as st

import modelbeam
from modelbeam import cli
from modelbeam.local import hints
from modelbeam.local.hints import Spent, one_by_one
from modelbeam.models.base import ModelInfo

RECORD = ModelInfo(target="a.b:C", name="c", style="record")
SLOW = [Spent(calls=8.0, all=10.0)]


def test_a_slow_model_over_many_records_is_told_with_what_helps() -> None:
    said = one_by_one(RECORD, 20_000, SLOW)
    assert said is not None
    assert said.startswith("hint: 80% of the time went into the model, which takes one record at a")
    assert "(400 µs each)" in said
    assert "predict_batch and predict_table in docs/models.md" in said


@pytest.mark.parametrize("style", ["batch", "table"])
def test_a_model_that_takes_many_is_not_told_of(style: str) -> None:
    assert one_by_one(replace(RECORD, style=style), 20_000, SLOW) is None


@pytest.mark.parametrize(
    ("records", "calls", "seconds"),
    [
        (999, 8.0, 10.0),  # few records
        (20_000, 4.9, 5.0),  # little time in all
        (20_000, 8.0, 16.1),  # something else takes the time
        (401_000, 8.0, 10.0),  # fast as it is
        (20_000, 0.0, 0.0),
    ],
)
def test_what_would_gain_little_is_not_told(records: int, calls: float, seconds: float) -> None:
    assert one_by_one(RECORD, records, [Spent(calls, seconds)]) is None


def test_without_a_measure_nothing_is_told() -> None:
    assert one_by_one(RECORD, 20_000, []) is None


@given(
    st.integers(0, 10**7),
    st.lists(st.builds(Spent, st.floats(0, 1e4), st.floats(0, 1e4)), max_size=4),
)
def test_what_is_told_was_measured(records: int, spent: list[Spent]) -> None:
    said = one_by_one(RECORD, records, spent)
    calls, seconds = sum(one.calls for one in spent), sum(one.all for one in spent)
    worth = records >= hints.MANY_RECORDS and calls >= hints.LONG_SECONDS
    worth = worth and seconds > 0 and calls >= seconds / 2 and calls / records >= hints.SLOW_SECONDS
    assert (said is not None) == worth


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(35e-6, "35 µs"), (2.12e-3, "2.1 ms"), (9.96e-3, "10 ms"), (0.9999, "1.0 s"), (75, "75 s")],
)
def test_the_time_of_a_record(seconds: float, text: str) -> None:
    said = one_by_one(RECORD, 1000, [Spent(1000 * seconds, 1000 * seconds)])
    expected = 1000 * seconds >= hints.LONG_SECONDS
    assert (said is not None) == expected
    assert hints._short(seconds) == text


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_the_summary_and_run_json_of_a_run_have_it(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hints, "LONG_SECONDS", 0.5)
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}] * 1000)
    job = ["-m=nasty_models:Sleepy", f"-i={tmp_path}/in.jsonl", f"-o={tmp_path}/out.jsonl"]
    split = ["--split-size=4KB", "--workers=2", f"--worker-mode={mode}"]
    assert cli.run(["predict", *job, *split]) == 0
    err = capsys.readouterr().err
    assert err.count("  hint: ") == 1
    assert "% of the time went into the model, which takes one record at a time (" in err
    (note,) = json.loads((tmp_path / "out.run.json").read_text())["notes"]
    assert f"  {note}\n" in err


def test_a_run_that_is_fast_has_none(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}] * 2000)
    run = modelbeam.predict(
        model="small_models:Doubler",
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out.jsonl"),
    )
    assert run.description["notes"] == []
