"""What a model returns: a record's own, and as the model's output schema has it."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from modelbeam import formats, models, storage
from modelbeam.formats.base import Piece
from modelbeam.job.sample import predict_sample
from modelbeam.job.task import Task
from modelbeam.models.base import LoadedModel
from modelbeam.predicting import results
from modelbeam.predicting.conform import misfits
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.predicting.results import are_own, copied, read_only


def load(name: str) -> LoadedModel:
    """One of the models that these tests are about."""
    return models.load(f"result_models:{name}")


def predicted(model: LoadedModel, records: list[Any], batch_size: int | None = None) -> Outcome:
    """What becomes of some records."""
    return outcome_of(DictsBatch(records), model, "all", batch_size)


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    """The predictions as they are written, without what is kept."""
    made = io.BytesIO()
    outcome.kept = None
    assert formats.find("jsonl").writer(made).write(outcome) == []
    return [json.loads(line) for line in made.getvalue().splitlines()]


def leaf(value: Any) -> float:
    """The one number in a prediction."""
    while not isinstance(value, (int, float)):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value


# A record's result is its own


RECORD = [
    *("ReusedDict", "ReusedArray", "ReusedViews", "ReusedDeepInside", "ReusedRing"),
    *("ReusedLater", "ReusedLaterAndPops", "ReusedObject", "ReusedDataclass", "ReturnsRecord"),
    *("Cached", "Base"),
]
BATCH = ["ReusedInGenerator", "ReusedList", "ReusedRowsOfArray"]


@pytest.mark.parametrize("name", [*RECORD, *BATCH, "ReusedTable"])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_each_record_has_its_own_prediction(name, batch_size):
    model = load(name)
    for start in range(0, 6_000, 1_000):
        xs = [float(start + i) for i in range(1_000)]
        outcome = predicted(model, [{"x": x} for x in xs], batch_size)
        assert [leaf(line) for line in lines(outcome)] == [2 * x for x in xs]


@pytest.mark.parametrize("name", ["ReusedDict", "ReusedArray", "ReusedInGenerator", "ReusedTable"])
def test_what_was_returned_is_safe_from_later_batches(name):
    model = load(name)
    first = predicted(model, [{"x": 1.0}])
    predicted(model, [{"x": 2.0}])
    assert [leaf(line) for line in lines(first)] == [2.0]


def test_a_model_that_shares_nothing_is_trusted_and_not_copied(monkeypatch):
    monkeypatch.setattr(results, "FAST", 1.0)
    model = load("Base")
    predicted(model, [{"x": 1.0}] * 200)
    assert model.trusted
    monkeypatch.setattr(results, "own", None)
    assert len(lines(predicted(model, [{"x": 1.0}] * 200))) == 200


@pytest.mark.parametrize("name", ["ReusedDict", "ReusedArray", "Cached", "ReusedObject"])
def test_a_model_that_shares_is_not(monkeypatch, name):
    monkeypatch.setattr(results, "FAST", 1.0)
    model = load(name)
    predicted(model, [{"x": 1.0}] * 200)
    assert model.trusted is False


def test_a_slow_model_is_always_copied(monkeypatch):
    monkeypatch.setattr(results, "FAST", 0.0)
    model = load("Base")
    predicted(model, [{"x": 1.0}] * 200)
    assert model.trusted is None


def test_trust_is_lost_for_good_and_the_batch_is_predicted_again(monkeypatch):
    monkeypatch.setattr(results, "FAST", 1.0)
    model = load("ReusedLaterAndPops")
    states = []
    for start in range(0, 6_000, 1_000):
        predicted(model, [{"x": float(start + i)} for i in range(1_000)])
        states.append(model.trusted)
    assert states == [True] * 4 + [False] * 2


BUFFER = np.zeros((3, 2))
SHARED: list[Any] = [1]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: [{"a": 1, "b": "x", "c": None, "d": 1.5}, {}], True),
        (lambda: [{"a": [1, [2]], "b": {"c": (1, [2])}}], True),
        (lambda: [{"a": np.float64(1), "b": np.zeros(2)}], True),
        (lambda: [{"a": np.zeros((2, 2))[0]}], True),
        (lambda: [{"a": row} for row in np.zeros((3, 2))], True),
        (lambda: [{"a": SHARED}], False),
        (lambda: [{"a": {"b": (SHARED,)}}], False),
        (lambda: [{"a": BUFFER}], False),
        (lambda: [{"a": BUFFER[0]}], False),
        (lambda: [{"a": [BUFFER.T]}], False),
        (lambda: [{"a": np.array([[1], 2], object)}], False),
        (lambda: [{"a": np.frombuffer(bytearray(8))}], False),
        (lambda: [{"a": {1, 2}}], False),  # it cannot be told what else there is
        (lambda: [[1]], False),
    ],
)
def test_what_is_in_other_hands_is_told_from_what_is_not(make, expected):
    assert are_own(make()) is expected


def test_the_same_dict_twice_is_in_other_hands():
    one = {"a": 1}
    assert not are_own([one, one])


# Its input is safe


@pytest.mark.parametrize("name", ["ChangesItsInput", "ChangesItsBatch"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_failure_and_what_is_kept_have_the_record_as_it_was(name, batch_size):
    records = [{"x": x, "more": [x]} for x in range(1, 9)]
    batch = DictsBatch(copy.deepcopy(records))
    outcome = outcome_of(batch, load(name), "all", batch_size)
    assert outcome.rows == [0, 1, 3, 4, 6, 7]
    assert outcome.kept.dicts() == [records[row] for row in outcome.rows]
    assert [batch.original(f.row, True)["record"]["x"] for f in outcome.failures] == [3, 6]
    assert [value["y"] for value in outcome.values] == [2, 4, 8, 10, 14, 16]


def test_a_model_cannot_write_into_its_table():
    outcome = predicted(load("WritesIntoItsTable"), [{"x": float(x)} for x in range(1, 9)])
    assert outcome.rows == [0, 1, 3, 4, 6, 7]
    assert [line["y"] for line in lines(outcome)] == [2.0, 4.0, 8.0, 10.0, 14.0, 16.0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, 2.5]),
        pa.array(["a", None, "b"]),
        pa.array([True, False, None]),
        pa.array([None, None, None]),
        pa.array([[1], None, [2, 3]]),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([b"ab", b"cd", None], pa.binary(2)),
        pa.array(["a" * 20, "b", None], pa.string_view()),
        pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
    ],
)
def test_a_read_only_batch_is_the_same(column):
    batch = pa.RecordBatch.from_arrays([column], names=["c"])
    for some in (batch, batch.slice(1), batch.slice(1, 1)):
        locked = read_only(some)
        locked.validate(full=True)
        assert locked.equals(some)
        assert not any(b.is_mutable for b in locked.column(0).buffers() if b is not None)


# The output is as the model's schema says


@pytest.mark.parametrize("name", ["Newer", "NewerBatch"])
def test_pydantic_is_written_as_its_schema_says(name):
    model = load(name)
    [line] = lines(predicted(model, [{"x": 1.0}]))
    assert line == {
        "theSpecies": "setosa",
        "Score": "1.50",
        "day": "2026-01-02",
        "tags": ["a"],
        "nested": {"innerValue": 1},
        "sure": True,
    }
    schema = model.info.output_schema
    jsonschema.validate(line, schema)
    assert set(schema["properties"]) == set(line)


def test_pydantic_inside_a_dict_is_written_in_the_same_way():
    [line] = lines(predicted(load("NewerInDict"), [{"x": 1.0}]))
    jsonschema.validate(line["out"], load("Newer").info.output_schema)


@pytest.mark.parametrize("name", ["Enums", "EnumObjects"])
def test_enums_are_written_and_described_by_their_values(name):
    model = load(name)
    [line] = lines(predicted(model, [{"x": 1.0}]))
    assert line == {"species": "other"}
    assert misfits(model.info.output_schema, [line]) == []
    assert model.info.output_schema["properties"]["species"]["enum"] == ["setosa", "other"]
    json.dumps(model.info.to_dict())


def test_what_does_not_fit_is_told_with_how_often():
    model = load("Misfit")
    made = lines(predicted(model, [{"x": float(x)} for x in range(4)]))
    assert misfits(model.info.output_schema, made) == [
        ("the prediction: 'species' is a required property", 4),
        ("the prediction: Additional properties are not allowed ('Species' was unexpected)", 4),
        ("p is not of type number, but '0.5'", 2),
    ]


def test_check_compares_the_sample_without_what_is_kept(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text('{"x":1.0}\n{"x":2.0}\n')
    info = storage.stat(str(file))
    piece = Piece(str(file), 0, info.size, info.size, info.mtime_ns, None, "jsonl", info.size)
    task = Task(str(tmp_path), "f", formats.Format("jsonl"), "all", None, 1 << 20)
    assert predict_sample(piece, 10, task, load("Enums")).misfits == []
    [missing, more, _] = predict_sample(piece, 10, task, load("Misfit")).misfits
    assert missing == ("the prediction: 'species' is a required property", 2)
    assert "'x'" not in more[0]


@pytest.mark.parametrize("schema", [{"type": 3}, {"$ref": "#/nowhere"}])
def test_a_schema_that_is_none_is_told(schema):
    [(text, times)] = misfits(schema, [{}])
    assert text.startswith("it is not a JSON Schema: ")
    assert times == 0


def test_a_model_without_a_schema_fits():
    assert misfits(None, [{}]) == []


def test_a_copy_shares_nothing():
    made = {"a": [{"b": np.zeros(1)}], "c": {1}}
    other = copied(made)
    made["a"][0]["b"][0] = 1
    made["c"].add(2)
    assert (other["a"][0]["b"][0], other["c"]) == (0, {1})
