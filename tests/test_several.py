"""Several models in one job: each has its own columns, failures and figures."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from commands import read_lines, shards, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather
from pyarrow import parquet as pq

import modelbeam
from modelbeam import formats, models
from modelbeam.errors import RequestError, ResumeError
from modelbeam.formats.layout import OutputColumn
from modelbeam.formats.several import write_parts
from modelbeam.job.description import Job, ModelSpec, build_job, several
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.signature import Column, Signature
from modelbeam.models.target import Target
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.predicting.several import Several


class Picky(LoadedModel):
    """Fails over some records, and predicts NaN for others, in one of three styles."""

    def __init__(self, name: str, style: str, bad: set[int], nan: set[int]) -> None:
        self.bad, self.nan = bad, nan
        signature = Signature((Column("n", "int"),), exact=True, ignores=True)
        self.info = ModelInfo("t:T", name, style, signature=signature)  # type: ignore[arg-type]

    def value(self, n: int) -> float:
        if n in self.bad:
            raise ValueError("bad")
        return math.nan if n in self.nan else n / 2

    def predict(self, record: dict[str, Any]) -> Any:
        return {"y": self.value(record["n"])}

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        return [self.predict(record) for record in records]

    def predict_table(self, batch: Any) -> Any:
        found = [self.value(n) for n in batch.column("n").to_pylist()]
        return pa.record_batch({"y": pa.array(found, pa.float64())})


def of(members: Sequence[LoadedModel], route: str | None = None) -> Several:
    return Several(Target("", "several"), members, route)


def written(outcome: Outcome, name: str, members: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """The rows of a file, with nested predictions whatever its format is, and the failures."""
    found = formats.find(name)
    columns = [OutputColumn("n", pa.int64())] if outcome.kept is not None else []
    columns += [OutputColumn(f"{one}.y", pa.float64()) for one in members]
    layout = tuple(columns) if found.same_columns else None
    handle = io.BytesIO()
    writer = found.writer(handle, layout)
    failures = write_parts(writer, lambda: found.writer(io.BytesIO(), layout, 1), outcome, layout)
    writer.close()
    if name == "parquet":
        import pyarrow.parquet as pq

        rows = pq.read_table(io.BytesIO(handle.getvalue())).to_pylist()
    elif name == "csv":
        import csv

        texts = csv.DictReader(io.StringIO(handle.getvalue().decode()))
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in texts]
    else:
        return [json.loads(line) for line in handle.getvalue().splitlines()], failures
    nested = []
    for row in rows:
        kept = {"n": row["n"]} if "n" in row else {}
        parts = {one: row[f"{one}.y"] for one in members}
        nested.append({**kept, **{k: None if v is None else {"y": v} for k, v in parts.items()}})
    return nested, failures


some = st.sets(st.integers(0, 7))


@settings(deadline=None)  # the first one imports
@given(
    st.tuples(st.sampled_from(["record", "batch", "table"]), some, some),
    st.tuples(st.sampled_from(["record", "batch", "table"]), some, some),
    st.sampled_from(["jsonl", "csv", "parquet"]),
    st.booleans(),
)
def test_one_models_failure_leaves_the_others_prediction(
    one: Any, other: Any, name: str, keep: bool
) -> None:
    model = of([Picky("a", *one), Picky("b", *other)])
    batch = DictsBatch([*({"n": n} for n in range(8)), "no record"])
    outcome = outcome_of(batch, model, ("n",) if keep else (), None)
    rows, unwritten = written(outcome, name, "ab")
    lost = {"a": one[1] | one[2], "b": other[1] | other[2]}
    wanted = []
    for n in range(8):
        made = {who: None if n in lost[who] else {"y": n / 2} for who in "ab"}
        if any(made.values()):
            wanted.append({**({"n": n} if keep else {}), **made})
    assert rows == wanted
    failures = [*outcome.failures, *unwritten]
    for who in "ab":
        failed = sorted(failure.row for failure in failures if failure.model == who)
        assert failed == [*sorted(lost[who]), 8]


@settings(deadline=None)  # the first one imports
@given(st.lists(st.sampled_from(["a", "b", "c", None, 1, True, "", "missing"]), max_size=12))
def test_a_route_sends_each_record_to_one_model(routes: list[Any]) -> None:
    model = of([Picky("a", "record", set(), set()), Picky("b", "table", {3}, set())], "to")
    records = [{"n": n, "to": to} for n, to in enumerate(routes)]
    for record in records:
        if record["to"] == "missing":
            del record["to"]
    outcome = outcome_of(DictsBatch(records), model, (), None)
    rows, unwritten = written(outcome, "jsonl", "ab")
    assert unwritten == []
    good = [n for n, to in enumerate(routes) if to == "a" or (to == "b" and n != 3)]
    assert rows == [
        {"a": {"y": n / 2}, "b": None} if routes[n] == "a" else {"a": None, "b": {"y": n / 2}}
        for n in good
    ]
    failed = {failure.row: failure for failure in outcome.failures}
    assert sorted(failed) == [n for n in range(len(routes)) if n not in good]
    for row, failure in failed.items():
        if routes[row] == "b":
            assert (failure.stage, failure.model) == ("predict", "b")
        else:
            assert (failure.stage, failure.type) == ("validate", "UnknownRouteError")


def test_a_kept_column_called_like_a_model_is_a_failure_of_each() -> None:
    model = of([Picky("a", "record", set(), set()), Picky("b", "record", {1}, set())])
    records: list[Any] = [{"n": 0}, {"n": 1, "a": 0}, {"n": 2, "b": 0}]
    outcome = outcome_of(DictsBatch(records), model, "all", None)
    rows, failures = written(outcome, "jsonl", "ab")
    assert [row["n"] for row in rows] == [0]
    assert {(f.row, f.model, f.type) for f in failures} == {
        (1, "a", "ColumnClashError"),
        (2, "a", "ColumnClashError"),
        (2, "b", "ColumnClashError"),
    }


def test_each_is_loaded_with_its_own_arguments_and_name() -> None:
    specs = [
        ModelSpec.parse({"target": "functions:scaled", "name": name, "arguments": {"factor": by}})
        for name, by in (("two", 2), ("three", 3))
    ]
    spec = several(specs, None)
    model = models.load(spec.target, spec.name, spec.arguments, spec.options)
    outcome = outcome_of(DictsBatch([{"x": 1.0}]), model, (), None)
    assert [(name, part.values) for name, part in outcome.parts] == [
        ("two", [{"prediction": 2.0}]),
        ("three", [{"prediction": 3.0}]),
    ]


def test_no_model_sees_what_another_did_to_its_record() -> None:
    class Spoiler(Picky):
        def predict(self, record: dict[str, Any]) -> Any:
            record["n"] = 100
            return {"y": 0.0}

    model = of([Spoiler("a", "record", set(), set()), Picky("b", "batch", set(), set())])
    outcome = outcome_of(DictsBatch([{"n": 1}]), model, ("n",), None)
    assert written(outcome, "jsonl", "ab")[0] == [{"n": 1, "a": {"y": 0.0}, "b": {"y": 0.5}}]


def job(tmp_path: Path, **more: Any) -> Job:
    given_ = {"inputs": [str(tmp_path / "in.jsonl")], "output": str(tmp_path / "out"), **more}
    return build_job(given_)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"models": ["a=m:A", "a=m:B"]}, "two models have the name 'a'"),
        ({"models": ["a=m:A", "m:B"]}, "each has a name: -m a=TARGET"),
        ({"models": ["m:A"], "route": "x"}, "--route x chooses among several models"),
        ({"models": ["a=m:A", "b=m:B"], "output": "kafka://h:1/t"}, "one model in this version"),
    ],
)
def test_what_cannot_be_several_models_is_refused(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(modelbeam.ModelbeamError, match=said) as raised:
        job(tmp_path, **asked)
    assert raised.value.exit_code == 2


TWO = ["a=small_models:Doubler", "b=small_models:TableDoubler"]


def run(source: Path, output: Path, model: Any = TWO, **more: Any) -> Any:
    return modelbeam.predict(model=model, input=str(source), output=str(output), **more)


@pytest.mark.parametrize(
    ("keep", "output", "said"),
    [
        ("all", "o.jsonl", "'a' is a kept input column as well.*-m a_model=small_models:Doubler"),
        (["a.y"], "o.csv", "'a.y' is a kept input column as well"),
    ],
)
def test_a_name_that_a_kept_column_has_is_refused(
    tmp_path: Path, keep: Any, output: str, said: str
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"x": 1.0, "a": 1, "a.y": 2}])
    with pytest.raises(RequestError, match=said):
        run(source, tmp_path / output, keep=keep)
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_job_counts_for_each_model_and_as_a_whole(tmp_path: Path, mode: Any) -> None:
    records = [{"id": n, "x": float(n) if n % 5 else "text"} for n in range(200)]
    source = write_lines(tmp_path / "in.jsonl", records)
    model = [TWO[1], "text=small_models:TextDoubler", "b2=small_models:BatchDoubler"]
    done = run(source, tmp_path / "out", model, keep=["id"], worker_mode=mode, workers=2,
               split_size=1000, rename={"b2.y": "z"})  # fmt: skip
    rows = shards(tmp_path / "out")
    assert (done.read, done.predicted, done.failed) == (200, 160, 40)
    assert [row["id"] for row in rows] == [n for n in range(200) if n % 5]
    assert all(row["b"] == {"y": 2.0 * row["id"]} for row in rows)
    assert all(row["b2"] == {"z": 2.0 * row["id"]} and row["text"] is None for row in rows)
    counts = done.description["counts"]["models"]
    assert counts == {
        "b": {"read": 200, "predicted": 160, "failed": 40},
        "text": {"read": 200, "predicted": 0, "failed": 200},
        "b2": {"read": 200, "predicted": 160, "failed": 40},
    }
    errors = shards(tmp_path / "out", "errors")
    assert len(errors) == 280
    assert [line["line"] for line in errors if line["model"] == "text"] == list(range(1, 201))
    assert [one["name"] for one in done.description["models"]] == ["b", "text", "b2"]
    with pytest.raises(ResumeError, match="model"):
        run(source, tmp_path / "out", model[:2], keep=["id"], resume=True)


def test_columns_of_flat_files_and_typed_values_for_each(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("id,x,month\n1,2.5,3\n2,-1,4\n3,4,oops\n")
    model = ["a=small_models:Doubler", "m=small_models:Monthly", "t=small_models:TextDoubler"]
    done = run(source, tmp_path / "out.csv", model, keep=["id"])
    head, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert head == "id,a.y,m.y,t.y"
    assert lines[0] == "1,5.0,7.5,5.0"
    assert lines[1:] == ["2,,-4.0,", "3,8.0,,8.0"]
    assert (done.predicted, done.failed) == (3, 0)
    assert {(e["model"], e["line"]) for e in read_lines(tmp_path / "out.errors.jsonl")} == {
        ("a", 3), ("t", 3), ("m", 4),
    }  # fmt: skip


def rows_in(path: Path, rows: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Write rows into a file of their own format's library, or read them."""
    if path.suffix == ".avro":
        if rows is not None:
            fields = [{"name": "id", "type": "long"}, {"name": "x", "type": "double"}]
            with path.open("wb") as handle:
                fastavro.writer(handle, {"type": "record", "name": "R", "fields": fields}, rows)
        with path.open("rb") as handle:
            return list(fastavro.reader(handle))
    parquet = path.suffix == ".parquet"
    if rows is not None:
        table = pa.Table.from_pylist(rows)
        (pq.write_table if parquet else feather.write_feather)(table, str(path))
    return (pq.read_table if parquet else feather.read_table)(str(path)).to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "avro", "arrow"])
def test_in_files_of_rows_each_model_has_columns_of_its_own(suffix: str, tmp_path: Path) -> None:
    """Read from the format and written into it; null where a model failed.

    Avro, which has no dots in names, has a record for each model.
    """
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    rows_in(source, [{"id": n, "x": x} for n, x in enumerate([2.0, -1.0, -6.0, 8.0])])
    model = ["a=small_models:TableDoubler", "c=functions:picky"]  # which fails on 8 and -6
    done = run(source, out, model, keep=["id"])
    assert done.description["counts"]["models"]["c"] == {"read": 4, "predicted": 2, "failed": 2}
    assert (done.predicted, done.failed) == (3, 1)
    flat = [
        {"id": 0, "a.y": 4.0, "c.prediction": 2.0},
        {"id": 1, "a.y": None, "c.prediction": -1.0},
        {"id": 3, "a.y": 16.0, "c.prediction": None},
    ]
    nested = [
        {"id": 0, "a": {"y": 4.0}, "c": {"prediction": 2.0}},
        {"id": 1, "a": None, "c": {"prediction": -1.0}},
        {"id": 3, "a": {"y": 16.0}, "c": None},
    ]
    assert rows_in(out) == (nested if suffix == "avro" else flat)
    assert done.to_arrow().to_pylist() == (nested if suffix == "avro" else flat)
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert {(line["model"], line["row"]) for line in errors} == {
        ("a", 2), ("a", 3), ("c", 3), ("c", 4),
    }  # fmt: skip


def test_a_record_that_kills_one_model_is_predicted_by_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("exit")
    monkeypatch.setenv("TROUBLE", str(trouble))
    records = [{"id": n, "x": float(n), "fatal": n == 3} for n in range(6)]
    source = write_lines(tmp_path / "in.jsonl", records)
    model = ["a=small_models:Doubler", "b=crash_models:Troubled"]
    done = run(source, tmp_path / "out.jsonl", model, workers=1)
    rows = read_lines(tmp_path / "out.jsonl")
    assert [row["a"]["y"] for row in rows] == [2.0 * n for n in range(6)]
    assert [row["b"] for row in rows] == [None if n == 3 else {"y": 2.0 * n} for n in range(6)]
    assert done.description["counts"]["models"]["b"]["failed"] == 1
    [line] = read_lines(tmp_path / "out.errors.jsonl")
    assert (line["model"], line["type"]) == ("b", "ProcessDiedError")


def test_on_an_engine_it_is_the_same(tmp_path: Path) -> None:
    records = [{"x": float(n - 2), "to": "ab"[n % 2]} for n in range(8)]
    source = write_lines(tmp_path / "in.jsonl", records)
    flags = ["--runner=PortableRunner", "--job_endpoint=embed"]
    for place, more in (("here", {}), ("there", {"beam_options": flags})):
        run(source, tmp_path / place, route="to", **more)
    assert shards(tmp_path / "here") == shards(tmp_path / "there") != []
    assert shards(tmp_path / "here", "errors") == shards(tmp_path / "there", "errors") != []
