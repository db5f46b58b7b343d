"""Failures are told truly: grouped by what they have in common, with the model's own line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import write_lines
from hypothesis import given
from hypothesis import strategies as st

import modelbeam
from modelbeam import models
from modelbeam.predicting.counts import EXAMPLES, OTHERS, Counts, masked
from modelbeam.predicting.failures import Failure, Position
from modelbeam.predicting.predictor import call_in_batches
from modelbeam.testing import predict


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("column 'n' must be an integer, not 3.5", "column 'n' must be an integer, not -1e10"),
        ("could not convert string to float: 'a'", "could not convert string to float: 'b c'"),
        (
            "no user 123e4567-e89b-12d3-a456-426614174000",
            "no user 00000000-0000-0000-0000-ffffffffffff",
        ),
        ("<object at 0x7f2e17e82c90>", "<object at 0x7f2e17e82c91>"),
        ("index 12 is out of bounds", "index 7 is out of bounds"),
    ],
)
def test_messages_that_differ_in_values_only_are_one_kind(one: str, other: str) -> None:
    assert masked(one) == masked(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("column 'n' is missing", "column 'm' is missing"),
        ("Missing key: 'n'", "Missing key: 'm'"),
        ("Key 'n' error: 'x' should be instance of 'float'", "Key 'm' error: 'x' should be"),
        ("division by zero", "no such file"),
    ],
)
def test_another_fault_is_another_kind(one: str, other: str) -> None:
    assert masked(one) != masked(other)


failures = st.lists(
    st.builds(
        lambda number, text: Failure(0, "predict", "E", f"{text} {number}"),
        st.integers(0, 9),
        st.text("abcdefgh", min_size=1, max_size=2),
    ),
    max_size=60,
)


@given(failures, failures)
def test_kinds_are_bounded_and_count_every_failure_once(
    first: list[Failure], second: list[Failure]
) -> None:
    counts, more = Counts(), Counts()
    for added, listed in ((counts, first), (more, second)):
        for line, failure in enumerate(listed, 1):
            added.add_failure(failure, Position(line, 10 * line), "in.jsonl")
    counts.add(more, 1000)
    assert sum(kind.count for kind in counts.kinds) == len(first) + len(second) == counts.failed
    assert len(counts.kinds) <= EXAMPLES + 1
    assert [k.type for k in counts.kinds[:EXAMPLES]].count(OTHERS) == 0
    for kind in counts.kinds:
        assert kind.place["line"] <= len(first) or kind.place["line"] > 1000


MODEL = """
import json
from small_models import Doubler
from housing import prices

class Model(Doubler):
    def predict(self, data):
        return {"y": prices.of(data)}
"""
PRICES = """
import json

def of(record):
    if record["x"] < 0:
        return json.loads("{" * int(-record["x"]))
    return record["x"] / record["rooms"]
"""


def test_a_failure_names_the_line_of_the_models_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "housing"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.py").write_text(MODEL)
    (package / "prices.py").write_text(PRICES)
    monkeypatch.chdir(tmp_path)
    rooms = [
        {"x": 1.0, "rooms": 2.0},
        {"x": 1.0, "rooms": 0.0},
        {"x": 2.0},
        {"x": -3.0},
        {"x": -4.0},
    ]
    write_lines(tmp_path / "in.jsonl", rooms)
    run = modelbeam.predict(model="housing.model:Model", input="in.jsonl", output="out.jsonl")
    division, missing, damaged = run.failures
    assert (division["type"], division["where"]) == (
        "ZeroDivisionError",
        "housing/prices.py:7 in of",
    )
    assert (missing["type"], missing["where"]) == ("KeyError", "housing/prices.py:7 in of")
    assert (damaged["count"], damaged["line"]) == (2, 4)
    assert damaged["where"] == "housing/prices.py:6 in of"  # not json's
    first, *_, last = damaged["traceback"].splitlines()
    assert first.endswith('in predict: return {"y": prices.of(data)}')
    assert "json" in last
    assert json.loads(Path("out.run.json").read_text())["failures"] == list(run.failures)


def test_a_record_that_does_not_fit_its_schema_names_no_line_of_a_library() -> None:
    outcome = predict(models.load("iris_ml_base.model:IrisModel"), [{"sepal_length": "x"}])
    (failure,) = outcome.failures
    assert (failure.stage, failure.type, failure.where) == ("validate", "ValidationError", "")


def test_a_wrong_number_of_predictions_is_told_of_the_whole_batch() -> None:
    from modelbeam.predicting.predictor import _check_number

    def call(start: int, stop: int) -> list[int]:
        made = list(range(start, stop - 1))
        _check_number(len(made), stop - start)
        return made

    pieces, failures = call_in_batches(call, 1000, 1000)
    assert pieces == []
    assert failures[0].error == (
        "the model returned 999 predictions for 1000 records "
        "(by itself, the model returned 0 predictions for 1 records)"
    )
