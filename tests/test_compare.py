"""Comparing two models: what is equal, what is told, which records are named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines, write_lines
from hypothesis import given
from hypothesis import strategies as st

from modelbeam import cli
from modelbeam.errors import RequestError
from modelbeam.job.description import build_job
from modelbeam.predicting.compare import SAMPLED, Comparison, Numbers, marked, same, unmarked
from modelbeam.report.compare import compare_job, to_text

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@given(values)
def test_a_value_is_the_same_as_itself_and_survives_being_written(value: Any) -> None:
    assert same(value, value)
    assert same(unmarked(json.loads(json.dumps(marked(value), allow_nan=False))), value)


@given(values, values)
def test_being_the_same_has_no_direction(one: Any, other: Any) -> None:
    assert same(one, other) == same(other, one)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (math.nan, math.nan, True), (1, 1.0, True), ("1", 1, False), (True, 1, False),
        (None, 0, False), (math.nan, None, False), (0.0, -0.0, True), ([1, "a"], [1.0, "a"], True),
        ([1], [True], False), ({"a": math.nan}, {"a": math.nan}, True), (2**53 + 1, 2.0**53, False),
    ],
)  # fmt: skip
def test_what_is_equal(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


def rows(pairs: list[tuple[Any, Any]]) -> list[dict[str, Any]]:
    return [
        {"id": n, "a": marked({"y": one}), "b": marked({"y": other})}
        for n, (one, other) in enumerate(pairs)
    ]


def compared(pairs: list[tuple[Any, Any]], **settings: Any) -> Comparison:
    made = Comparison(("a", "b"), **settings)
    for row in rows(pairs):
        made.add(row)
    return made


@given(st.lists(st.tuples(*[st.sampled_from(["x", "y", None, True, 1, 2])] * 2)))
def test_a_confusion_table_counts_every_record(pairs: list[tuple[Any, Any]]) -> None:
    found = compared(pairs).to_dict()
    if not pairs:
        assert found["columns"] == {}
        return
    column = found["columns"]["y"]
    told = {(one["first"], one["second"]): one["count"] for one in column["confusion"]}
    assert sum(told.values()) == len(pairs)
    for (one, other), count in told.items():
        first, second = json.loads(one), json.loads(other)
        assert count == sum(same(a, first) and same(b, second) for a, b in pairs)
    assert column["agreement"] == sum(same(a, b) for a, b in pairs) / len(pairs)


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=40))
def test_the_distribution_is_that_of_the_differences(pairs: list[tuple[float, float]]) -> None:
    said = compared(pairs).to_dict()["columns"]["y"]["differences"]
    gaps = [other - one for one, other in pairs]
    assert said["mean"] == pytest.approx(sum(gaps) / len(gaps))
    assert said["largest"] == max(map(abs, gaps))
    assert (said["quantiles"]["0"], said["quantiles"]["1"]) == (min(gaps), max(gaps))


def test_quantiles_of_more_differences_than_are_remembered() -> None:
    numbers = Numbers()
    count = SAMPLED + SAMPLED // 2
    for n in range(count):
        numbers.add(0.0, n / count)
    found = numbers.to_dict()
    assert found["count"] == count
    assert found["quantiles"]["0.5"] == pytest.approx(0.5, abs=0.001)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 5.0, math.nan, math.inf])] * 2)))
def test_the_records_that_differ_most_come_first(pairs: list[tuple[float, float]]) -> None:
    worst = list(compared(pairs, most=4).worst())

    def gap(pair: tuple[float, float]) -> float:
        if same(*pair):
            return 0.0
        found = abs(pair[1] - pair[0])
        return math.inf if math.isnan(found) else found

    order = sorted((n for n, p in enumerate(pairs) if not same(*p)), key=lambda n: -gap(pairs[n]))
    assert [line["record"]["id"] for line in worst] == order[:4]
    for line in worst:
        expected = gap(pairs[line["record"]["id"]])
        assert line["difference"] == (None if math.isinf(expected) else expected)
        json.dumps(line, allow_nan=False)


def test_labels() -> None:
    made = Comparison(("a", "b"), "is", texts=True)
    for one, other, label in [(1, True, "1"), (2, False, "true"), (3, True, "3"), (4, True, "")]:
        made.add({"is": label, "a": {"p": 0.5, "prediction": one}, "b": {"q": other}})
    made.add({"is": "7", "a": None, "b": {"q": True}})
    said = made.to_dict()["label"]
    assert said["without"] == 1
    assert said["a"] == {"predicted_column": "prediction", "labelled": 3, "accuracy": 2 / 3}
    assert said["b"] == {"predicted_column": "q", "labelled": 4, "accuracy": 0.0}
    strict = Comparison(("a", "b"), "is")
    strict.add({"is": "1", "a": {"y": 1}, "b": {"y": "1"}})
    told = strict.to_dict()["label"]
    assert (told["a"]["accuracy"], told["b"]["accuracy"]) == (0.0, 1.0)
    errors = Comparison(("a", "b"), "y")
    for n in range(4):
        errors.add({"y": n, "a": {"y": n + 0.5}, "b": {"y": float(n)}})
    told = errors.to_dict()["label"]
    assert (told["a"]["mean_absolute"], told["b"]["root_mean_square"]) == (0.5, 0.0)


def test_columns_of_one_only() -> None:
    made = Comparison(("a", "b"))
    made.add({"a": {"y": 1, "p": 0}, "b": {"y": 1, "z": 0}})
    found = made.to_dict()
    assert found["columns_of_one_only"] == {"a": ["p"], "b": ["z"]}
    assert found["agreement"] == 1.0


def test_two_models_over_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One fails over a record, both say NaN of another, one of a third."""
    values = [1.0, "nan", -1.0, 4.0]
    source = write_lines(tmp_path / "in.jsonl", [{"id": n, "v": v} for n, v in enumerate(values)])
    arguments = [
        *("compare", "-m", "a=functions:lenient", "-m", "b=functions:strict", "-i", str(source)),
        *("-o", str(tmp_path / "d.jsonl"), "--no-progress"),
    ]
    assert cli.run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["read"], found["compared"], found["failed"]) == (4, 3, {"a": 0, "b": 1})
    assert found["agreement"] == 2 / 3
    assert read_lines(tmp_path / "d.jsonl") == [
        {"difference": 4.0, "a": {"prediction": 4.0}, "b": {"prediction": 8.0},
         "record": {"id": 3, "v": 4.0}},
    ]  # fmt: skip
    [line] = read_lines(tmp_path / "d.errors.jsonl")
    assert (line["model"], line["line"]) == ("b", 3)
    assert json.loads((tmp_path / "d.comparison.json").read_text()) == found
    assert not (tmp_path / "d._comparing").exists()
    page = (tmp_path / "d.report.html").read_text(encoding="utf-8")
    assert found["report"] == str(tmp_path / "d.report.html")
    for told in ("66.67 %", "failed in the model b", "The largest differences"):
        assert told in page
    run = json.loads((tmp_path / "d.run.json").read_text())
    assert (run["output"], run["report"]) == (str(tmp_path / "d.jsonl"), found["report"])
    assert run["comparison"]["largest"] == read_lines(tmp_path / "d.jsonl")
    assert "_comparing" not in json.dumps(run) + page
    assert cli.run(["retry", str(tmp_path / "d.jsonl")]) == 2
    assert "that is a comparison" in capsys.readouterr().err
    assert cli.run(arguments) == 2
    assert "d.jsonl exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "label", "said"),
    [
        ({"models": ["a=m:A"]}, None, "compare takes two models"),
        ({"keep": ["x"]}, None, "--keep is not for compare"),
        ({"output": "o.csv"}, None, "written as JSON Lines"),
        ({}, "a", "--label a is a model's name"),
    ],
)
def test_what_cannot_be_compared(settings: Any, label: str | None, said: str) -> None:
    given_ = {"models": ["a=m:A", "b=m:B"], "inputs": ["i.jsonl"], "output": "o.jsonl"}
    with pytest.raises(RequestError, match=said):
        compare_job(build_job({**given_, **settings}), label)


def test_what_is_shown() -> None:
    from modelbeam.job.result import Run
    from modelbeam.report.compare import Compared

    made = compared([("yes", "no"), ("no", "no"), ("no", "no")])
    found = {**made.to_dict(), "read": 3, "failed": {"a": 0, "b": 0}}
    run = Run(3, 3, 0, (), (), "", 0.0, (), {})
    text = to_text(Compared(run, found, "d.jsonl"))
    assert "66.67% equal" in text
    table = [line.split() for line in text.splitlines() if '"' in line]
    assert table == [["a", "\\", "b", '"no"'], ['"no"', "2"], ['"yes"', "1"]]
