"""From a batch to predictions and failures: every record once, with few calls of the model."""

from __future__ import annotations

import io
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_models import RETURNED

from modelbeam import models, testing
from modelbeam.formats.jsonl.batch import JsonBatch
from modelbeam.formats.jsonl.writer import LinesWriter
from modelbeam.formats.lines import LineBlock, count_lines
from modelbeam.models.base import LoadedModel
from modelbeam.models.target import Target
from modelbeam.models.turns import Turns
from modelbeam.predicting.failures import Failure, moved
from modelbeam.predicting.outcome import outcome_of
from modelbeam.predicting.predictor import (
    Predictions,
    call_in_batches,
    predict_batch,
    predict_records,
    predict_table,
)


@dataclass
class Calls:
    """A model's call that fails whenever one of the failing records is in it; it keeps a log."""

    failing: frozenset[int]
    log: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, start: int, stop: int) -> list[int]:
        self.log.append((start, stop))
        if not self.failing.isdisjoint(range(start, stop)):
            raise ValueError("one of them is bad")
        return [2 * row for row in range(start, stop)]


failing_sets = st.frozensets(st.integers(0, 299)) | st.builds(
    lambda start, size: frozenset(range(start, start + size)),
    st.integers(0, 299),
    st.integers(0, 300),
)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 300), st.integers(1, 400), failing_sets)
def test_every_record_is_predicted_or_fails_once(
    count: int, batch_size: int, failing: frozenset[int]
) -> None:
    call = Calls(failing)
    pieces, failures = call_in_batches(call, count, batch_size)
    failed = [failure.row for failure in failures]
    predicted = [row for start, stop, _ in pieces for row in range(start, stop)]
    assert failed == sorted(failing & set(range(count)))
    assert predicted == [row for row in range(count) if row not in failing]
    assert all(made == [2 * row for row in range(start, stop)] for start, stop, made in pieces)
    assert all(0 < stop - start <= batch_size for start, stop in call.log)
    assert len(call.log) <= 2 * count


@pytest.mark.parametrize("bad", [0, 1, 2047, 2048, 4095])
def test_one_bad_record_of_many_costs_few_calls(bad: int) -> None:
    call = Calls(frozenset({bad}))
    _, failures = call_in_batches(call, 4096, 4096)
    assert [failure.row for failure in failures] == [bad]
    assert len(call.log) <= 2 * math.log2(4096) + 2


@pytest.mark.parametrize("count", [1, 2, 64, 4096, 20_000])
@pytest.mark.parametrize("batch_size", [1, 100, 4096])
def test_where_all_records_fail_there_is_about_a_call_a_record(count: int, batch_size: int) -> None:
    call = Calls(frozenset(range(count)))
    _, failures = call_in_batches(call, count, batch_size)
    assert len(failures) == count
    assert len(call.log) <= 1.3 * count + 40


def test_after_a_stretch_of_bad_records_batches_are_large_again() -> None:
    call = Calls(frozenset(range(1000)))
    call_in_batches(call, 100_000, 1000)
    assert len(call.log) <= 1000 + 40 + 200


def test_no_records_are_no_calls() -> None:
    call = Calls(frozenset())
    assert call_in_batches(call, 0, 10) == ([], [])
    assert call.log == []


def test_a_model_that_fails_on_large_batches_only_predicts_every_record() -> None:
    log = []

    def call(start: int, stop: int) -> None:
        log.append((start, stop))
        if stop - start > 8:
            raise MemoryError

    pieces, failures = call_in_batches(call, 1000, 1000)
    assert failures == []
    assert [row for start, stop, _ in pieces for row in range(start, stop)] == list(range(1000))
    assert len(log) <= 2 * 1000 / 4


def test_ctrl_c_in_a_call_is_not_a_failed_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)  # not ignored

    def call(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_in_batches(call, 10, 10)


def load(name: str) -> LoadedModel:
    return models.load(name if ":" in name else f"odd_models:{name}", None, {})


numbers = st.floats(-3, 3) | st.integers(-3, 3) | st.sampled_from([None, "a"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={"x": numbers, "z": numbers}), max_size=30))
def test_lists_of_records_are_validated_and_predicted_once(records: list[dict[str, Any]]) -> None:
    made = predict_batch(load("small_models:BatchDoubler"), records, 7)
    valid = [type(record.get("x")) is float for record in records]
    good = [ok and record["x"] >= 0 for ok, record in zip(valid, records, strict=True)]
    assert made.values == [{"y": 2 * r["x"]} for r, ok in zip(records, good, strict=True) if ok]
    assert (made.rows or [*range(len(made.values))]) == [i for i, ok in enumerate(good) if ok]
    assert sorted((failure.row, failure.stage) for failure in made.failures) == [
        (row, "predict" if valid[row] else "validate") for row, ok in enumerate(good) if not ok
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-3, 3), max_size=30), st.sampled_from([None, 1, 7, 100]))
def test_rows_of_tables_are_predicted_once(values: list[float], batch_size: int | None) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.float64())], names=["x"])
    made = predict_table(load("small_models:TableDoubler"), batch, batch_size)
    good = [row for row, value in enumerate(values) if value >= 0]
    found = [value for piece in made.values for value in piece.column("y").to_pylist()]
    assert found == [2 * values[row] for row in good]
    assert (made.rows or [*range(len(found))]) == good
    assert [f.row for f in made.failures] == [r for r in range(len(values)) if r not in good]
    assert {failure.stage for failure in made.failures} <= {"predict"}


def stub(**calls: Callable[..., Any]) -> Any:
    """A loaded model of one call, whose records are all valid."""
    return SimpleNamespace(
        most=None,
        rows=None,
        validate_many=lambda records: records,
        turns=Turns(),
        trusted=None,
        apart=None,
        validates_itself=False,
        **calls,
    )


def test_a_record_model_is_called_once_a_record() -> None:
    seen = []

    def predict(record: dict[str, Any]) -> dict[str, Any]:
        seen.append(record["n"])
        if record["n"] % 3 == 0:
            raise ValueError("three")
        return {"y": record["n"]}

    made = predict_records(stub(predict=predict), [{"n": n} for n in range(10)])
    assert seen == [*range(10), 0, 3, 6]  # what failed is tried once more
    assert made.values == [{"y": n} for n in (1, 2, 4, 5, 7, 8)]
    assert made.rows == [1, 2, 4, 5, 7, 8]
    assert [failure.row for failure in made.failures] == [0, 3, 6, 9]


def test_a_batch_model_gets_each_record_once_where_none_fails() -> None:
    sizes = []

    def double(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sizes.append(len(records))
        return records

    records = [{"n": n} for n in range(250)]
    assert predict_batch(stub(predict_batch=double), records, 100) == Predictions(records, None, [])
    assert sizes == [100, 100, 50]


WRONG_LISTS: dict[str, Callable[[list[Any]], Any]] = {
    "too few": lambda records: records[:-1],
    "too many": lambda records: [*records, records[0]],
    "none": lambda _: [],
    "a generator of too few": lambda records: (r for r in records[1:]),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_LISTS))
@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_wrong_number_of_predictions_fails_every_record(wrong: str, count: int) -> None:
    model = stub(predict_batch=WRONG_LISTS[wrong])
    made = predict_batch(model, [{"n": n} for n in range(count)], None)
    assert (made.values, made.rows) == ([], [])
    assert [failure.row for failure in made.failures] == list(range(count))
    assert {f.type for f in made.failures} == {"WrongNumberOfPredictionsError"}
    assert "for 1 records" in made.failures[0].error


WRONG_TABLES: dict[str, Callable[[pa.RecordBatch], Any]] = {
    "too few": lambda batch: batch.slice(1),
    "too many": lambda batch: pa.Table.from_batches([batch, batch]),
    "none": lambda batch: batch.slice(0, 0),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_TABLES))
@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_wrong_number_of_rows_fails_every_record(wrong: str, count: int) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(range(count))], names=["x"])
    made = predict_table(stub(predict_table=WRONG_TABLES[wrong]), batch, None)
    assert (made.values, made.rows) == ([], [])
    assert [failure.row for failure in made.failures] == list(range(count))
    assert {f.type for f in made.failures} == {"WrongNumberOfPredictionsError"}


@pytest.mark.parametrize("name", ["WrongNumber", "WrongNumberOfRows"])
def test_records_that_a_model_leaves_out_are_found(name: str) -> None:
    x = [1.0, -1.0, 2.0, 3.0, -2.0, 4.0, 5.0]
    outcome = run(name, [{"x": value} for value in x])
    assert lines_of(outcome) == [{"y": 2 * value} for value in x if value >= 0]
    assert [failure.row for failure in outcome.failures] == [1, 4]
    assert {f.type for f in outcome.failures} == {"WrongNumberOfPredictionsError"}


@pytest.mark.parametrize("made", [None, "ab", b"ab", {"a": 1, "b": 2}, 5])
def test_what_is_no_list_of_predictions_fails_every_record(made: Any) -> None:
    outcome = predict_batch(stub(predict_batch=lambda _: made), [{}, {}], None)
    assert (outcome.values, outcome.rows) == ([], [])
    assert [(f.row, f.stage) for f in outcome.failures] == [(0, "predict"), (1, "predict")]


@pytest.mark.parametrize(
    "made", [None, "ab", [{"y": 1}, {"y": 2}], {"y": [1, 2]}, pa.array([1, 2])]
)
def test_what_is_no_table_fails_every_record(made: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2])], names=["x"])
    outcome = predict_table(stub(predict_table=lambda _: made), batch, None)
    assert (outcome.values, outcome.rows) == ([], [])
    assert [(f.row, f.type) for f in outcome.failures] == [
        (0, "NotAPredictionError"),
        (1, "NotAPredictionError"),
    ]


class Written(NamedTuple):
    """What became of some lines: those written, and the failures in the order of the lines."""

    data: bytes
    read: int
    failures: list[Failure]


def run(name: str, records: list[Any], keep: Any = ()) -> Written:
    """Predict records from line to line."""
    return run_lines(name, b"".join(orjson.dumps(record) + b"\n" for record in records), keep)


def run_lines(name: str, data: bytes, keep: Any = ()) -> Written:
    batch = JsonBatch(LineBlock(data, 0, 0, count_lines(data)))
    outcome = outcome_of(batch, load(name), keep, None)
    made = io.BytesIO()
    writer = LinesWriter(made)
    failures = outcome.failures + [moved(f, outcome.rows) for f in writer.write(outcome)]
    assert count_lines(made.getvalue()) == writer.rows
    assert outcome.read == writer.rows + len(failures)
    failures.sort(key=lambda failure: failure.row)
    return Written(made.getvalue(), outcome.read, failures)


def lines_of(outcome: Written) -> list[Any]:
    return [orjson.loads(line) for line in outcome.data.splitlines()]


GOOD = ["pydantic", "dataclass", "mapping", "user dict", "enum inside", "numpy"]


@pytest.mark.parametrize("name", ["Returns", "BatchReturns"])
def test_what_models_return_becomes_a_prediction_or_fails_alone(name: str) -> None:
    outcome = run(name, [{"what": what} for what in RETURNED])
    assert lines_of(outcome) == [{"y": 1.0, "colour": "red"}] * len(GOOD)
    assert [f.row for f in outcome.failures] == list(range(len(GOOD), len(RETURNED)))
    assert {failure.stage for failure in outcome.failures} == {"encode"}


@pytest.mark.parametrize("what", ["none", "list", "str", "number", "enum", "class"])
def test_the_error_says_what_was_returned_instead_of_a_prediction(what: str) -> None:
    (failure,) = run("Returns", [{"what": what}]).failures
    assert failure.type == "NotAPredictionError"
    assert type(RETURNED[what]).__name__ in failure.error


@pytest.mark.parametrize("name", ["Returns", "BatchReturns"])
@pytest.mark.parametrize("keep", ["all", ("id",)])
@pytest.mark.parametrize("what", ["numpy key", "surrogate key", "complex", "none"])
def test_an_odd_prediction_fails_alone_beside_kept_columns(name: str, keep: Any, what: str) -> None:
    records = [{"what": w, "id": n} for n, w in enumerate(["pydantic", what, "numpy"])]
    outcome = run(name, records, keep)
    assert [line["id"] for line in lines_of(outcome)] == [0, 2]
    assert [(failure.row, failure.stage) for failure in outcome.failures] == [(1, "encode")]


RAISED = {
    "exit": "SystemExit",
    "panic": "PanicException",
    "surrogate": "ValueError",
    "mute": "Mute",
    "long": "ValueError",
    "deep": "RecursionError",
    "memory": "MemoryError",
}


@pytest.mark.parametrize("name", ["Raises", "BatchRaises"])
@pytest.mark.parametrize("what", sorted(RAISED))
def test_whatever_a_model_raises_fails_its_record_alone(name: str, what: str) -> None:
    outcome = run(name, [{"what": "fine"}, {"what": what}, {"what": "fine"}])
    assert lines_of(outcome) == [{"y": "fine"}, {"y": "fine"}]
    (failure,) = outcome.failures
    assert (failure.row, failure.stage, failure.type) == (1, "predict", RAISED[what])
    assert 0 < len(failure.error.encode()) < 3000


def test_a_generator_of_predictions_is_a_list_of_them() -> None:
    outcome = run("Generates", [{"x": 1.0}, {"x": -1.0}, {"x": 2.0}])
    assert lines_of(outcome) == [{"y": 2.0}, {"y": 4.0}]
    assert [failure.row for failure in outcome.failures] == [1]


def test_a_table_with_two_columns_of_one_name_fails_every_record() -> None:
    outcome = run("TwiceTheSameColumn", [{"x": 1.0}, {"x": 2.0}])
    assert (outcome.data, [f.row for f in outcome.failures]) == (b"", [0, 1])


def test_labels_around_a_bad_record_are_whole() -> None:
    outcome = run("Label", [{"x": x} for x in (0.0, 1.0, -1.0, 2.0, 3.0)], "all")
    expected = [(0.0, "even"), (1.0, "odd"), (2.0, "even"), (3.0, "odd")]
    assert lines_of(outcome) == [{"x": x, "y": y} for x, y in expected]
    assert [failure.row for failure in outcome.failures] == [2]


def test_a_record_that_no_column_type_holds_fails_alone() -> None:
    values = [1, 2**63, 3, -4]
    outcome = run("Anything", [{"x": value} for value in values])
    assert lines_of(outcome) == [{"y": "1"}, {"y": "3"}, {"y": "-4"}]
    assert [(failure.row, failure.stage) for failure in outcome.failures] == [(1, "validate")]


def test_a_duplicate_key_does_not_make_up_for_a_missing_one() -> None:
    outcome = run_lines("Nullable", b'{"x":1.0,"x":2.0}\n{}\n{"x":null}\n')
    assert lines_of(outcome) == [{"y": 2.0}, {"y": None}]
    assert [(failure.row, failure.stage) for failure in outcome.failures] == [(1, "validate")]


DEEP = b"[" * 600 + b"]" * 600


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("keep", ["all", ("deep",), ()])
def test_a_deeply_nested_field_does_not_stop_the_others(end: bytes, keep: Any) -> None:
    data = b'{"x":1.0}' + end + b'{"x":2.0,"deep":' + DEEP + b"}" + end + b'{"x":3.0}' + end
    outcome = run_lines("small_models:Doubler", data, keep)
    assert outcome.read == 3
    predicted = [line["y"] for line in lines_of(outcome)]
    assert (predicted[0], predicted[-1]) == (2.0, 6.0)
    assert {(failure.row, failure.stage) for failure in outcome.failures} <= {(1, "encode")}


def test_kept_columns_are_the_same_after_either_line_end() -> None:
    record = b'{"x": 1.50, "id": 123456789012345678901234567890}'
    unix = run_lines("small_models:Doubler", record + b"\n", "all")
    windows = run_lines("small_models:Doubler", record + b"\r\n", "all")
    assert unix.data == record[:-1] + b',"y":3.0}\n'
    assert windows.data == unix.data


# Too much at once


class Narrow(LoadedModel):
    """Takes so many records at once; more are too much for its memory."""

    def __init__(self, style: Any, error: BaseException, room: int = 100) -> None:
        self.info = models.ModelInfo("t", "narrow", style)
        self.sizes: list[int] = []
        self._error, self._room = error, room

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        self.sizes.append(len(records))
        if len(records) > self._room:
            raise self._error
        return [{"y": record["x"]} for record in records]

    def predict_table(self, batch: Any) -> Any:
        made = self.predict_batch(batch.to_pylist())
        return pa.RecordBatch.from_pylist(made)


@pytest.mark.parametrize("style", ["batch", "table"])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        type("OutOfMemoryError", (RuntimeError,), {})("HIP"),
        type("Fail", (Exception,), {})("[ONNXRuntimeError] : 6 : Failed to allocate memory for"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_is_too_much_at_once_is_halved_and_kept_small(style, error):
    model = Narrow(style, error)
    records = [{"x": n} for n in range(1000)]
    for times in range(2):
        outcome = testing.predict(model, records)
        assert outcome.failures == []
        assert testing.written(outcome) == [{"y": n} for n in range(1000)]
        too_large = [size for size in model.sizes if size > 100]
        assert too_large == [1000, 500, 250, 125], times
        assert (outcome.calls.largest, outcome.calls.halved) == (62, 0 if times else 4)
    assert model.most == 62


def test_a_call_is_as_large_as_what_the_library_is_given():
    model = Narrow("table", MemoryError())
    model.rows = 8
    assert testing.predict(model, [{"x": n} for n in range(20)]).calls.largest == 8
    one = testing.predict(models.load("small_models:Doubler"), [{"x": 1.0}] * 3)
    assert one.calls.largest == 0


def test_a_record_that_is_too_much_by_itself_fails():
    outcome = testing.predict(Narrow("batch", MemoryError("no room"), 0), [{"x": 1}] * 3)
    assert {failure.type for failure in outcome.failures} == {"MemoryError"}


def test_a_record_model_is_not_given_the_benefit_of_a_record_that_its_schema_rejects() -> None:
    model = models.load(Target.parse("small_models:Trusting"), None, {})
    rows = [{"x": 1.0}, {"x": "one"}, {"x": 2}, {}, {"x": 3.0, "more": 1}, {"x": 10**400}]
    made = predict_records(model, rows)
    assert [value["y"] for value in made.values] == [1.0, 2, 3.0]
    assert made.rows == [0, 2, 4]
    assert [(failure.row, failure.stage) for failure in made.failures] == [
        (1, "validate"),
        (3, "validate"),
        (5, "validate"),
    ]
