"""What is collected for the report: the same however the work was cut, and bounded."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from commands import write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from test_several import Picky, of

from modelbeam import models, storage
from modelbeam.formats import Format
from modelbeam.job.split import predict_split
from modelbeam.job.task import Task
from modelbeam.models.base import LoadedModel
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import outcome_of
from modelbeam.profile.cells import INVALID, MISSING, cell, of_arrow, of_values
from modelbeam.profile.collector import Collector
from modelbeam.profile.exact import VALUES, Counted
from modelbeam.profile.failures import EXAMPLES_BYTES, KINDS, SHOWN, Failures, shown_record
from modelbeam.profile.merge import Merged
from modelbeam.profile.pace import Spread
from modelbeam.profile.packed import Packed
from modelbeam.profile.sample import Level, between, taken
from modelbeam.profile.wants import MASKED, SAMPLED, Wants, rows_of_a_split
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.publish import Publication, publish
from modelbeam.sinks.files.state import JobRecord, State
from modelbeam.sources.splits import plan_splits

BEGAN = 1_000.0


# --- which records are sampled --------------------------------------------------------------------


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 50))
def test_the_sample_depends_on_the_number_of_records_alone(parts: list[int], most: int) -> None:
    level = Level(most)
    found: list[int] = []
    for part in parts:
        first = level.records
        found += [first + at for at in level.grow(part).tolist()]
    numbers = np.array(found, np.uint64)
    kept = numbers[taken(numbers, level.level)].tolist()
    every = np.arange(sum(parts), dtype=np.uint64)
    assert kept == every[taken(every, level.level)].tolist()
    assert len(kept) <= most
    assert level.level == 0 or taken(every, level.level - 1).sum() > most


@given(st.integers(0, 1 << 40), st.integers(0, 3000), st.integers(0, 40))
def test_jumping_finds_the_sample(first: int, count: int, level: int) -> None:
    every = np.arange(first, first + count, dtype=np.uint64)
    found = between(first, first + count, level)
    assert found.tolist() == every[taken(every, level)].tolist()


@pytest.mark.parametrize("level", range(6, 15))
def test_jumping_finds_the_sample_of_many(level: int) -> None:
    every = np.arange(77, 77 + (1 << 18), dtype=np.uint64)
    found = between(77, 77 + (1 << 18), level)
    assert found.tolist() == every[taken(every, level)].tolist()


def test_the_sample_is_even() -> None:
    every = np.arange(1 << 16, dtype=np.uint64)
    for level in range(1, 10):
        places = np.flatnonzero(taken(every, level))
        gaps = np.diff(places)
        assert len(set(gaps.tolist())) <= 3
        assert gaps.max() <= 3 * (1 << level)
        assert abs(len(places) - (1 << 16 - level)) <= 2
        for period in (2, 7, 10, 64, 1000):  # no share of the sample is at one phase
            counts = np.bincount(places[: 40 * period] % period, minlength=period)
            assert len(places) < 40 * period or counts.max() <= 60


# --- values ---------------------------------------------------------------------------------------

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(),
    st.dates(),
    st.decimals(),
    st.lists(st.integers(), max_size=3),
)


@given(st.lists(values, max_size=20))
def test_any_value_has_a_cell(some: list[Any]) -> None:
    cells = of_values(some)
    assert len(cells) == len(some)
    assert [kind == MISSING for kind in cells.kinds] == [value is None for value in some]
    for value, kind, text in zip(some, cells.kinds, cells.texts, strict=True):
        if isinstance(value, float):
            assert (kind == INVALID) == (not math.isfinite(value))
        if isinstance(value, str):
            assert text == value


@settings(deadline=None)  # the first one imports
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=20))
def test_columns_have_the_cells_of_their_values(numbers: list[Any]) -> None:
    column = of_arrow(pa.array(numbers, pa.float64()))
    one_by_one = of_values(numbers)
    assert column.kinds.tolist() == one_by_one.kinds.tolist()
    finite = np.isfinite(one_by_one.numbers)
    assert column.numbers[finite].tolist() == one_by_one.numbers[finite].tolist()


@settings(deadline=None)  # as above
@given(st.lists(st.tuples(st.one_of(st.none(), st.floats()), st.sampled_from([None, "a", "b"]))))
def test_what_is_counted_is_exact(rows: list[tuple[Any, Any]]) -> None:
    batch = pa.RecordBatch.from_pylist(
        [{"x": x, "c": c} for x, c in rows],
        pa.schema([("x", pa.float64()), ("c", pa.string())]),
    )
    half = len(rows) // 2
    counted = Counted(values=True)
    for part in (batch.slice(0, half), counted.coded(batch.slice(half))):
        counted.see(part)
    counted.settle()
    if not rows:
        assert counted.columns == {}
        return
    x, c = counted.columns["x"], counted.columns["c"]  # type: ignore[index]
    numbers = [x for x, _ in rows if x is not None]
    finite = [x for x in numbers if math.isfinite(x)]
    assert (x.count, x.missing) == (len(rows), len(rows) - len(numbers))
    assert (x.invalid, x.zeros) == (len(numbers) - len(finite), finite.count(0))
    assert (x.low, x.high) == (min(finite, default=None), max(finite, default=None))
    assert c.values == Counter(c for _, c in rows if c is not None)


def test_values_of_which_there_are_many_are_not_counted_one_by_one() -> None:
    counted = Counted(values=True)
    texts = pa.array([str(at) for at in range(VALUES + 1)])
    counted.see(pa.RecordBatch.from_arrays([texts], ["c"]))
    counted.settle()
    assert counted.columns is not None
    assert counted.columns["c"].values is None


@given(st.lists(st.floats(1e-6, 1e6), min_size=1), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_spreads_are_near_and_may_be_merged(numbers: list[float], share: float) -> None:
    whole, one, two = Spread(), Spread(), Spread()
    for at, number in enumerate(numbers):
        whole.add(number)
        (one if at % 2 else two).add(number)
    one.merge(Spread.from_dict(json.loads(json.dumps(two.to_dict()))))
    assert one == whole
    wanted = sorted(numbers)[math.ceil(share * len(numbers)) - 1]
    assert whole.quantile(share) == pytest.approx(wanted, rel=0.05)


# --- a run, cut in any way ------------------------------------------------------------------------


def collected(
    model: LoadedModel, records: Sequence[Any], cuts: Sequence[int], wants: Wants | None = None
) -> dict[str, Any]:
    """The profile of one split whose batches end at ``cuts``; without its times."""
    wants = wants or Wants()
    collector = Collector(wants)
    start = 0
    for end in sorted({*(cut for cut in cuts if cut < len(records)), len(records)}):
        batch = DictsBatch(records[start:end])
        start = end
        outcome = outcome_of(batch, model, (), None, (), collector)
        collector.predicted("in", batch, model.info.name, outcome, [])
        for failure in sorted(outcome.failures, key=lambda failure: failure.row):
            original = batch.original(failure.row, failure.stage != "decode")
            collector.failed("in", failure, model.info.name, {"row": 1}, original)
        collector.done(outcome.read, len(outcome.failures), 0.001)
    assert collector.error is None
    merged = Merged(wants)
    merged.add(0, collector.to_bytes(), 0)
    assert merged.without == 0
    return without_times(merged.to_dict(BEGAN, BEGAN + 1, model.info.route))


def without_times(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile that can be compared; JSON can hold it."""
    profile = json.loads(json.dumps(profile, allow_nan=False))
    del profile["time"]
    for odd in profile["odd"]:
        odd.pop("row", None)  # of a batch of dicts, not of a file
        odd.pop("index", None)
    return profile


record = st.one_of(
    st.fixed_dictionaries(
        {"x": st.one_of(st.floats(allow_nan=False, width=16), st.integers(-3, 3), st.just("no"))},
        optional={"s": st.sampled_from(["a", "b", None]), "d": st.just({"e": [1], "f": None})},
    ),
    st.just("no record"),
)


@settings(deadline=None)  # the first one imports
@given(
    st.sampled_from(["Doubler", "BatchDoubler", "TableDoubler", "AnyDoubler"]),
    st.lists(record, min_size=1, max_size=40),
    st.lists(st.integers(1, 39), max_size=5),
)
def test_batches_make_no_difference(name: str, records: list[Any], cuts: list[int]) -> None:
    model = models.load(f"small_models:{name}")
    wants = Wants(rows=16)
    assert collected(model, records, cuts, wants) == collected(model, records, (), wants)


def test_several_models_have_a_profile_each() -> None:
    model = of([Picky("a", "record", {1}, set()), Picky("b", "table", {2, 3}, set())])
    made = collected(model, [{"n": n} for n in range(10)], (4,))
    assert [one["model"] for one in made["predictions"]] == ["a", "b"]
    counts = [one["columns"][0]["count"] for one in made["predictions"]]
    assert counts == [9, 8]
    assert [(one["name"], one["count"]) for one in made["inputs"]] == [("n", 10)]
    assert Counter((one["model"], one["count"]) for one in made["failures"]) == Counter(
        {("a", 1): 1, ("b", 2): 1}
    )


def test_inputs_of_routed_models_are_those_of_all_records() -> None:
    model = of([Picky("a", "record", set(), set()), Picky("b", "record", set(), set())], "to")
    records = [{"n": n, "to": "a" if n % 3 else "b"} for n in range(30)]
    made = collected(model, records, (7, 20))
    by_name = {one["name"]: one for one in made["inputs"]}
    assert by_name["n"]["records"] == 30
    assert by_name["n"]["numbers"]["max"] == 29
    assert by_name["to"]["values"]["top"] == [
        {"value": "a", "count": 20},
        {"value": "b", "count": 10},
    ]


# --- files ----------------------------------------------------------------------------------------


class Files:
    """A job over one file, split by split, published as the local run does it."""

    def __init__(self, place: Path, source: Path, model: str, size: int, **settings: Any) -> None:
        self.output = Output(str(place / "out"), False, Format("jsonl"))
        self.record = JobRecord({}, size, ())
        self.model = models.load(f"small_models:{model}")
        State(self.output, self.record, fresh=True).close()
        self.splits = plan_splits([storage.stat(str(source))], size)
        self.wants = replace(Wants(rows_of_a_split(len(self.splits))), **settings)
        self.task = Task(
            self.output.state, self.record.fingerprint, Format("jsonl"), (), None, 1 << 20,
            profile=self.wants,
        )  # fmt: skip

    def predict(self, order: Sequence[int] | None = None) -> None:
        """Do the splits, in any order."""
        for index in range(len(self.splits)) if order is None else order:
            predict_split(self.splits[index], self.task, self.model)

    def profile(self) -> dict[str, Any]:
        """Publish; what ``profile.json`` says."""
        publish(
            Publication(self.output, self.record, (), None, "", "", BEGAN, 0, profile=self.wants),
            self.splits,
        )
        return json.loads(Path(self.output.profile_file).read_bytes())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some thousand records, of which one in fifty fails, one of them is no JSON."""
    records = [
        {"x": -1.0 if n % 50 == 7 else n / 10, "n": n, "c": "ab"[n % 2]} for n in range(3000)
    ]
    path = write_lines(tmp_path / "in.jsonl", records)
    lines = path.read_bytes().splitlines()
    lines[1234] = b"{no json"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_the_profile_of_a_run_is_of_the_whole_file(
    tmp_path: Path, source: Path, model: str
) -> None:
    job = Files(tmp_path / "a", source, model, 10_000)
    assert len(job.splits) > 5
    job.predict()
    profile = job.profile()
    x = next(one for one in profile["inputs"] if one["name"] == "x")
    assert (x["type"], x["records"], x["numbers"]["max"]) == ("double", 2999, 299.9)
    (made,) = profile["predictions"]
    (y,) = made["columns"]
    assert (made["model"], y["records"], y["sampled"]) == (job.model.info.name, 2939, 2939)
    assert y["numbers"]["quantiles"][3][1] == pytest.approx(300, rel=0.01)
    negative, broken = profile["failures"]
    assert (negative["stage"], negative["count"], negative["type"]) == ("predict", 60, "ValueError")
    assert negative["frame"].startswith("models/small_models.py:")
    assert sum(negative["along"]) == 60
    assert min(negative["along"]) >= 1
    assert [one["line"] for one in negative["examples"]] == [8, 58, 108, 158, 208]
    assert negative["examples"][0]["record"] == {"x": -1.0, "n": 7, "c": "b"}
    assert (broken["count"], broken["examples"][0]["line"]) == (1, 1235)
    highest = [one for one in profile["odd"] if one["why"] == "highest"]
    assert [one["value"] for one in highest[:3]] == [599.8, 599.6, 599.4]
    assert (highest[0]["line"], highest[0]["record"]["n"]) == (3000, 2999)
    times = profile["time"]
    assert len(times["splits"]) == len(job.splits)
    assert sum(one["read"] for one in times["splits"]) == 3000


def test_a_run_that_was_resumed_has_the_same(tmp_path: Path, source: Path) -> None:
    made = []
    for name, order in (("a", None), ("b", [3, 0, 0, 5, 1, 2, 4])):
        job = Files(tmp_path / name, source, "TableDoubler", 10_000)
        job.predict(order)
        if order is not None:  # another process goes on, and does one again
            again = Files.__new__(Files)
            again.__dict__.update(job.__dict__)
            again.predict([2, *range(6, len(job.splits))])
        made.append(without_times(job.profile()))
    assert made[0] == made[1]


def test_a_split_without_a_profile_is_told(tmp_path: Path, source: Path) -> None:
    job = Files(tmp_path / "a", source, "Doubler", 10_000)
    job.predict([0])
    job.task = replace(job.task, profile=None)
    job.predict(range(1, len(job.splits)))
    profile = job.profile()
    assert profile["splits_without"] == len(job.splits) - 1
    assert profile["inputs"][0]["records"] < 3000


def test_without_a_report_there_is_none(tmp_path: Path, source: Path) -> None:
    job = Files(tmp_path / "a", source, "Doubler", 100_000)
    job.task, job.wants = replace(job.task, profile=None), None  # type: ignore[assignment]
    job.predict()
    with pytest.raises(FileNotFoundError):
        job.profile()
    assert not Path(job.output.profile_file).exists()


def test_what_goes_wrong_while_collecting_does_not_fail_the_split(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("modelbeam.profile.split.Member.predicted", broken)
    job = Files(tmp_path / "a", source, "Doubler", 10_000)
    job.predict()
    profile = job.profile()
    assert profile["splits_without"] == len(job.splits)
    assert profile["inputs"] == []


# --- what must not be shown -----------------------------------------------------------------------


def every_text(value: Any) -> Iterator[str]:
    """All that a profile says."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from every_text(one)
    elif isinstance(value, list):
        for one in value:
            yield from every_text(one)
    else:
        yield str(value)


@pytest.mark.parametrize("model", ["Trusting", "TableDoubler"])
def test_masked_columns_are_shown_nowhere(tmp_path: Path, model: str) -> None:
    records = [{"x": -7531.25 if n % 9 == 0 else 3251.75, "y": "secret", "c": n} for n in range(50)]
    source = write_lines(tmp_path / "in.jsonl", records)
    job = Files(tmp_path, source, model, 100_000, mask=("x", "y"))
    job.predict()
    profile = job.profile()
    said = list(every_text(without_times(profile)))
    assert not [text for text in said if "secret" in text or "7531" in text or "3251" in text]
    shown = [one["record"] for kind in profile["failures"] for one in kind["examples"]]
    assert all(one == {"x": MASKED, "y": MASKED, "c": one["c"]} for one in shown)
    for one in profile["inputs"]:
        if one["name"] in ("x", "y"):
            assert (one["masked"], one["numbers"], one["values"]) == (True, None, None)


def test_without_examples_there_is_no_record(tmp_path: Path, source: Path) -> None:
    job = Files(tmp_path, source, "Doubler", 10_000, examples=0)
    job.predict()
    profile = job.profile()
    shown = [*profile["odd"], *(one for kind in profile["failures"] for one in kind["examples"])]
    assert shown
    assert not [one for one in shown if "record" in one]
    assert profile["failures"][0]["examples"][0]["error"] == "x is negative: …"


@pytest.mark.parametrize(
    ("original", "mask", "shown"),
    [
        ({"record": {"a": {"b": 1, "c": 2}}}, ("a.b",), {"a": {"b": MASKED, "c": 2}}),
        ({"record": {"a": {"b": 1}}}, ("a",), {"a": MASKED}),
        ({"record": '{"a": 1'}, ("a",), None),
        ({"record_base64": "gA=="}, (), None),
        ({"record": "x" * 5000}, (), "x" * 2048 + "…"),
    ],
)
def test_a_record_is_shown_as_far_as_it_may_be(
    original: dict[str, Any], mask: tuple[str, ...], shown: Any
) -> None:
    assert shown_record(original, Wants(mask=mask)).get("record") == shown


# --- hostile data ---------------------------------------------------------------------------------


def test_very_many_messages_stay_few_and_the_frequent_one_is_found() -> None:
    failures = Failures(Wants())
    names = ["".join("abcdefgh"[int(digit)] for digit in f"{n:o}") for n in range(20_000)]
    for n, name in enumerate(names):
        failures.add(n, "in", Failure(0, "predict", "E", f"wrong {name}"), "m", {"row": n}, {})
        if n > 10_000 and n % 4 == 0:
            failures.add(n, "in", Failure(0, "predict", "E", "common"), "m", {"row": n}, {})
    assert len(failures.kinds) <= KINDS
    kept = sum(kind.count for kind in failures.kinds.values())
    assert kept + failures.left_out == 20_000 + 2499
    assert failures.kinds["m", "predict", "E", "common"].count == 2499
    merged = Merged(Wants())
    merged._failures.add(json.loads(json.dumps(failures.to_dict())), 0, 0)
    shown = merged._failures.described(20_000)
    assert len(shown["failures"]) == SHOWN
    assert shown["failures"][0]["message"] == "common"
    assert sum(one["count"] for one in shown["failures"]) + shown["failures_left_out"] == 22_499


def test_huge_records_leave_little() -> None:
    failures = Failures(Wants())
    for n in range(1000):
        failure = Failure(0, "predict", f"E{n % 100}", "m" * 100_000)
        failures.add(n, "in", failure, "m", {"row": n}, {"record": {"a": "r" * 100_000}})
    assert len(json.dumps(failures.to_dict())) < 2 * EXAMPLES_BYTES


@pytest.mark.parametrize("name", ["Trusting", "AnyDoubler"])
def test_very_many_columns_and_long_texts_are_bounded(name: str) -> None:
    model = models.load(f"small_models:{name}")
    records = [{"x": 1.0, **{f"c{at}": "v" * 1000 for at in range(5000)}} for _ in range(40)]
    collector = Collector(Wants())
    batch = DictsBatch(records)
    outcome = outcome_of(batch, model, (), None, (), collector)
    collector.predicted("in", batch, model.info.name, outcome, [])
    collector.done(40, 0, 0.1)
    content = collector.to_bytes()
    assert content is not None
    assert len(content) < 1 << 20
    merged = Merged(Wants())
    merged.add(0, content, 0)
    profile = merged.to_dict(BEGAN, BEGAN + 1)
    assert len(profile["inputs"]) <= 1000
    assert len(json.dumps(profile)) < 2 << 20


def test_a_damaged_profile_is_a_split_without_one() -> None:
    merged = Merged(Wants())
    for content in (b"", b"{}", b"nothing", b'{"version": 0}\n', None):
        merged.add(0, content, 0)
    assert merged.without == 5
    with pytest.raises(ValueError, match="incorrect header"):
        Packed(b"nothing")


def test_the_samples_of_many_splits_are_thinned_alike() -> None:
    model = models.load("small_models:TableDoubler")
    batch = DictsBatch([{"x": float(n)} for n in range(2000)])
    merged = Merged(Wants())
    for split in range(40):
        collector = Collector(Wants(rows=1024))
        outcome = outcome_of(batch, model, (), None, (), collector)
        collector.predicted("in", batch, model.info.name, outcome, [])
        collector.done(2000, 0, 0.1)
        merged.add(split, collector.to_bytes(), 0)
    (x,) = merged.to_dict(BEGAN, BEGAN + 1)["inputs"]
    assert (x["count"], x["records"]) == (80_000, 80_000)
    assert SAMPLED // 2 < x["sampled"] <= SAMPLED
    assert x["numbers"]["mean"] == pytest.approx(999.5, rel=0.01)


def test_a_cell_is_no_reference_to_the_record() -> None:
    assert cell({"a": [1]})[2] is None
