"""Two runs compared; a run described again; its figures for a monitor."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import write_lines
from hypothesis import given
from hypothesis import strategies as st
from test_profile import Files

from modelbeam.cli import run as command
from modelbeam.errors import DriftError, JobError, RequestError
from modelbeam.job.description import build_job
from modelbeam.job.result import Run
from modelbeam.profile.cells import of_values
from modelbeam.profile.columns import column
from modelbeam.profile.drift import by_chance, drift, jensen_shannon, psi
from modelbeam.report.after import Aftermath, find_baseline, place_of
from modelbeam.report.metrics import to_text
from modelbeam.report.redraw import redraw
from modelbeam.sinks.files.output import Output


def made_of(values: list[Any]) -> dict[str, Any]:
    """What can be compared of a column of values."""
    compared: dict[str, Any] = column("c", of_values(values), len(values), None, False)[1]
    return compared


# --- the distances --------------------------------------------------------------------------------

shares = st.lists(st.floats(0.01, 1), min_size=2, max_size=8)


def normal(some: list[float]) -> list[float]:
    """Shares that add up to 1."""
    return [one / sum(some) for one in some]


@given(shares, shares)
def test_both_are_symmetric_and_nothing_only_between_equals(
    one: list[float], other: list[float]
) -> None:
    size = min(len(one), len(other))
    p, q = normal(one[:size]), normal(other[:size])
    for distance in (psi, jensen_shannon):
        assert distance(p, q) == pytest.approx(distance(q, p))
        assert distance(p, p) == pytest.approx(0, abs=1e-7)
        assert distance(p, q) >= 0
    assert jensen_shannon(p, q) <= 1


def test_they_are_what_the_formulas_say() -> None:
    p, q = [0.5, 0.5], [0.25, 0.75]
    assert psi(p, q) == pytest.approx(0.25 * math.log(2) + 0.25 * math.log(1.5))
    middle = [0.375, 0.625]
    bits = sum(
        0.5 * each[at] * math.log2(each[at] / middle[at]) for each in (p, q) for at in (0, 1)
    )
    assert jensen_shannon(p, q) == pytest.approx(math.sqrt(bits))
    assert jensen_shannon([1, 0], [0, 1]) == 1


def test_samples_of_one_distribution_are_rarely_told_apart() -> None:
    draw = np.random.default_rng(7)
    for size in (200, 2000):
        changed = 0
        for _ in range(200):
            was, now = (made_of(draw.normal(size=size).tolist()) for _ in "ab")
            changed += drift(now, was)["change"] != "none"
        assert changed <= 2
    assert by_chance(10, 1000, 1000) == pytest.approx(27.877 / 500, rel=0.01)  # tables: chi-squared


@pytest.mark.parametrize(
    ("was", "now", "change"),
    [
        (range(1000), range(1000), "none"),
        (range(1000), range(400, 1400), "large"),
        (range(1000), [None] * 400 + [*range(600)], "large"),
        ([0.5, math.nan] * 500, [0.5] * 1000, "large"),
        ([0.0] * 900 + [*range(1, 101)], [0.0] * 900 + [*range(1, 101)], "none"),
        (["a", "b"] * 500, ["a", "b"] * 500, "none"),
        (["a", "b"] * 500, ["a"] * 1000, "large"),
        (["a", "b"] * 500, ["a", "b", "b", "new"] * 250, "large"),
        ([True, False] * 500, [True, False, False] * 333, "some"),
        ([1, 2] * 500, [*range(1000)], "large"),
        (range(1000), [5] * 1000, "large"),
        ([1e308, -1e308] * 300 + [*range(400)], [1e308, -1e308] * 300 + [*range(400)], "none"),
    ],
)
def test_a_change_is_told(was: Any, now: Any, change: str) -> None:
    found = drift(made_of([*now]), made_of([*was]))
    assert (found["change"], found["note"]) == (change, None)
    assert json.dumps(found, allow_nan=False)


def test_of_few_records_nothing_is_called_a_change() -> None:
    found = drift(made_of(["a"] * 150), made_of(["b"] * 1000))
    assert found["psi"] > 1
    assert (found["change"], found["note"]) == ("none", "fewer than 200 records")


def test_columns_of_other_types_are_no_distance_apart() -> None:
    assert drift(made_of(["a"] * 500), made_of([*range(500)]))["psi"] is None


@given(
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=2)), max_size=30),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=2)), max_size=30),
)
def test_any_two_columns_can_be_compared(was: list[Any], now: list[Any]) -> None:
    found = drift(made_of(now), made_of(was))
    assert json.dumps(found, allow_nan=False)
    if now == was and found["psi"] is not None:
        assert found["psi"] == pytest.approx(0, abs=1e-9)


# --- a run against another ------------------------------------------------------------------------


def finished(place: Path, xs: list[float], **more: Any) -> Run:
    """A run over some numbers, published."""
    place.mkdir()
    source = write_lines(place / "in.jsonl", [{"x": x, **more} for x in xs])
    job = Files(place, source, "TableDoubler", 5_000)
    job.predict()
    job.profile()
    return Run.of(json.loads(Path(job.output.run_file).read_text()))


def after(run: Run, notes: list[str] | None = None, **settings: Any) -> Aftermath:
    """What follows a run that is over."""
    job = build_job(
        {"models": "small_models:TableDoubler", "inputs": "in", "output": run.output, **settings}
    )
    return Aftermath(job, (notes if notes is not None else []).append)


def profile_of(run: Run) -> dict[str, Any]:
    """What ``profile.json`` says."""
    content: dict[str, Any] = json.loads(Path(run.output, "profile.json").read_text())
    return content


def test_a_run_is_compared_with_its_baseline(tmp_path: Path) -> None:
    was = finished(tmp_path / "was", [n / 10 for n in range(1000)], gone=1)
    now = finished(tmp_path / "now", [50 + n / 10 for n in range(900)] + [-1.0] * 100, came="c")
    notes: list[str] = []
    after(now, notes, baseline=was.output).finished(now)
    assert len(notes) == 2
    assert all(note.startswith(f"since {was.output}: ") for note in notes)
    assert any(re.search(r": inputs: x is at \d.* \(large\)$", note) for note in notes)
    found = profile_of(now)["baseline"]
    assert (found["path"], found["run"]["counts"]["read"]) == (was.output, 1000)
    assert found["failure_rate"] == {"was": 0, "is": 0.1}
    by_name = {(one["where"], one["name"]): one for one in found["columns"]}
    assert by_name["inputs", "x"]["change"] == "large"
    assert by_name["table_doubler", "y"]["change"] == "large"
    assert set(by_name) == {("inputs", "x"), ("table_doubler", "y")}  # a model reads its columns
    assert found["schema"] == []


def test_drift_fails_the_job_and_keeps_its_output(tmp_path: Path) -> None:
    was = finished(tmp_path / "was", [n / 10 for n in range(1000)])
    now = finished(tmp_path / "now", [50 + n / 10 for n in range(1000)])
    same = finished(tmp_path / "same", [n / 10 for n in range(1000)])
    after(same, baseline=was.output, fail_on_drift=0.25).finished(same)
    with pytest.raises(DriftError, match=r"column '(x|y)' is at \d.* from the run in") as error:
        after(now, baseline=was.output, fail_on_drift=0.25).finished(now)
    assert isinstance(error.value, JobError)
    assert error.value.run.predicted == 1000
    assert all(Path(path).exists() for path in now.shards)


def test_the_last_run_is_the_one_that_is_replaced(tmp_path: Path) -> None:
    was = finished(tmp_path / "was", [n / 10 for n in range(1000)])
    waiting = after(was, baseline="last")
    now = finished(tmp_path / "now", [50 + n / 10 for n in range(1000)])
    for name in ("run.json", "profile.json"):  # as publishing does it
        Path(was.output, name).write_bytes(Path(now.output, name).read_bytes())
    waiting.finished(now)
    assert {one["change"] for one in profile_of(was)["baseline"]["columns"]} == {"large"}


def test_the_first_run_has_no_last_one(tmp_path: Path) -> None:
    notes: list[str] = []
    job = build_job({"models": "m:M", "inputs": "in", "output": str(tmp_path), "baseline": "last"})
    Aftermath(job, notes.append)
    assert "nothing to compare" in notes[0]


def test_a_baseline_that_is_none_is_refused(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"), False, place_of(str(tmp_path)).format)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{no json")
    for path in (tmp_path / "nowhere", tmp_path / "broken", tmp_path / "broken" / "run.json"):
        with pytest.raises(RequestError, match="no finished run to compare with"):
            find_baseline(str(path), output)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fail_on_drift": 0.2}, "needs a run to compare with"),
        ({"baseline": "b", "report": False}, "--no-report"),
        ({"baseline": "b", "streaming": True}, "a stream leaves none"),
    ],
)
def test_flags_that_exclude_each_other(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build_job({"models": "m:M", "inputs": "in", "output": "out", **settings}).checked()


def test_what_goes_wrong_with_the_report_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(tmp_path / "a", [1.0, 2.0])

    def broken(*_: Any) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr("modelbeam.report.after.draw", broken)
    notes: list[str] = []
    after(run, notes, baseline=run.output).finished(run)
    assert notes[0] == "The report could not be drawn (RuntimeError: a defect)."


# --- again ----------------------------------------------------------------------------------------


def test_a_broken_run_is_described_by_what_is_done(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in range(2000)])
    job = Files(tmp_path, source, "TableDoubler", 5_000)
    Path(job.output.state, "plan.jsonl").write_text(
        "".join(split.to_json() + "\n" for split in job.splits)
    )
    job.predict([0, 1, 3])
    made = redraw(job.output.path)
    assert (made.run["status"], made.run["splits_done"]) == ("unfinished", 3)
    assert made.profile is not None
    assert made.run["counts"]["read"] == made.profile["inputs"][0]["records"]
    assert 0 < made.run["counts"]["read"] < 2000
    job.predict()
    assert job.profile()["inputs"][0]["records"] == 2000


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    was = finished(tmp_path / "was", [n / 10 for n in range(1000)])
    now = finished(tmp_path / "now", [50 + n / 10 for n in range(1000)])
    assert command(["report", now.output, "--baseline", was.output]) == 0
    said = capsys.readouterr().err
    assert said.startswith("1,000 records read, 1,000 predicted, 0 failed; succeeded\n")
    assert re.search(r"^inputs: x is at \d.* \(large\)$", said, re.MULTILINE)
    assert command(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no run" in capsys.readouterr().err


# --- for a monitor --------------------------------------------------------------------------------

SAMPLE = re.compile(r'modelbeam_[a-z_]+(\{([a-z]+="(\\.|[^"\\\n])*",?)+\})? -?[0-9.e+-]+')


def test_every_line_of_the_metrics_is_one(tmp_path: Path) -> None:
    run = finished(tmp_path / "a", [1.0, -1.0, 2.0])
    path = tmp_path / "metrics.prom"
    after(run, metrics_file=str(path)).finished(run)
    lines = path.read_text().splitlines()
    assert [one for one in lines if not one.startswith("# ") and not SAMPLE.fullmatch(one)] == []
    assert "modelbeam_success 1" in lines
    assert 'modelbeam_records{state="failed"} 1' in lines
    assert 'modelbeam_failures{model="",stage="predict",type="ValueError"} 1' in lines


def test_a_run_that_failed_is_told_too(tmp_path: Path) -> None:
    run = finished(tmp_path / "a", [1.0])
    path = tmp_path / "metrics.prom"
    after(run, metrics_file=str(path)).failed(JobError("it failed"))
    assert "modelbeam_success 0" in path.read_text().splitlines()


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_type_and_model_is_a_label(model: str, name: str) -> None:
    run = {
        "status": "succeeded",
        "counts": {"read": 1, "predicted": 0, "failed": 1},
        "failures": [{"model": model, "stage": "predict", "type": name, "count": 1}],
        "seconds": 1,
        "records_per_second": 1,
        "bytes_read": 1,
        "splits": 1,
        "crashes": [],
    }
    lines = to_text(run, None, 0).split("\n")
    (line,) = [one for one in lines if one.startswith("modelbeam_failures{")]
    assert SAMPLE.fullmatch(line)
