"""The failed records of a finished run again: in their places, with everything else as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import read_lines, shards, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import cli
from modelbeam.errors import JobError, RequestError
from modelbeam.job.again import Again, Earlier
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.retry import retry_job
from modelbeam.sinks.base import Attempt, Manifest


class Written(Attempt):
    """Remembers what was written."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def write(self, outcome: Outcome) -> tuple[int, list[Failure]]:
        values = outcome.values
        if outcome.table:
            values = [row for piece in values for row in piece.to_pylist()]
        kept = outcome.kept.dicts() if outcome.kept is not None else [{} for _ in values]
        self.rows += [{**one, **other} for one, other in zip(kept, values, strict=True)]
        return len(values), []

    def write_errors(self, lines: bytes) -> None: ...

    def commit(self, counts: Counts, units: int, profile: bytes | None = None) -> Manifest:
        raise NotImplementedError

    def abandon(self) -> None: ...


@settings(deadline=None)  # the first one imports
@given(
    st.lists(st.sampled_from(["earlier", "new", "failed again"]), max_size=30),
    st.lists(st.integers(1, 7), min_size=1, max_size=30),
    st.booleans(),
    st.integers(0, 3),
)
def test_new_rows_stand_between_the_earlier_ones(
    tmp_path_factory: pytest.TempPathFactory, states: list[str], sizes: list[int], table: bool,
    skip: int,
) -> None:  # fmt: skip
    """Whatever the batches are, and whether the model returns dicts or columns."""
    shard = tmp_path_factory.mktemp("again") / "p.jsonl"
    good = [n for n, state in enumerate(states) if state == "earlier"]
    write_lines(shard, [{"n": -1}] * skip + [{"n": n} for n in good] + [{"n": 99}])
    attempt = Written()
    again = Again(Earlier(str(shard), "jsonl", skip, len(good), [[]]), attempt)
    at = 0
    while at < len(states):
        size = sizes.pop() if sizes else 5
        batch = range(at, min(at + size, len(states)))
        again.attempt.rows = [n - at for n in batch if states[n] == "earlier"]
        new = [n for n in batch if states[n] == "new"]
        values: list[Any] = [{"n": n} for n in new]
        if table and new:
            values = [pa.record_batch({"n": new[:1]}), pa.record_batch({"n": new[1:]})]
        rows = [n - at for n in new]
        outcome = Outcome(len(batch), values, table and bool(new), rows, None, [])
        assert again.attempt.write(outcome) == (len(new), [])
        at += size
    again.end()
    assert [row["n"] for row in attempt.rows] == [
        n for n, state in enumerate(states) if state != "failed again"
    ]


def test_an_output_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    shard = write_lines(tmp_path / "p.jsonl", [{"n": 0}, {"n": 1}])
    fewer = Again(Earlier(str(shard), "jsonl", 0, None, [[]]), Written())
    with pytest.raises(JobError, match="was changed after the run"):
        list(fewer.take(3))
    more = Again(Earlier(str(shard), "jsonl", 0, None, [[]]), Written())
    list(more.take(1))
    with pytest.raises(JobError, match="was changed after the run"):
        more.end()


RECORDS = [{"id": f'{n} "é"', "x": float(-n if n % 5 == 1 else n)} for n in range(300)]
WANTED = [one for one in RECORDS if one["x"] != -1]


def write(path: Path) -> Path:
    table = pa.Table.from_pylist(RECORDS)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=40)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["id", "x"])
            writer.writeheader()
            writer.writerows(RECORDS)
    else:
        write_lines(path, RECORDS)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".csv":
        with path.open(newline="") as handle:
            return [
                {**row, "prediction": float(row["prediction"])} for row in csv.DictReader(handle)
            ]
    return read_lines(path)


@pytest.mark.parametrize(
    ("source", "output", "suffix"),
    [("in.jsonl", "out", ".jsonl"), ("in.parquet", "out", ".parquet"), ("in.csv", "out.csv", "")],
)
def test_what_failed_is_predicted_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str, suffix: str
) -> None:
    out = tmp_path / output
    more: dict[str, Any] = {"output_format": suffix[1:]} if suffix else {}
    first = modelbeam.predict(
        model="functions:mendable", input=str(write(tmp_path / source)), output=str(out),
        keep=["id"], split_size=1500, **more,
    )  # fmt: skip
    assert (first.predicted, first.failed) == (240, 60)
    assert first.description["splits"] > 2
    monkeypatch.setenv("MENDED", "1")
    done = retry_job(str(out), {})
    files = [out] if out.suffix else sorted(out.glob("predictions-*"))
    rows = [row for file in files for row in read(file)]
    assert rows == [{"id": one["id"], "prediction": one["x"]} for one in WANTED]
    assert (done.read, done.predicted, done.failed) == (300, 299, 1)
    errors = read_lines(tmp_path / "out.errors.jsonl") if out.suffix else shards(out, "errors")
    [line] = errors
    assert line.get("line", line.get("row")) == (3 if source == "in.csv" else 2)
    assert [*tmp_path.rglob("*_retry")] == []
    monkeypatch.delenv("MENDED")
    if output == "out.csv":  # what was predicted once is not predicted again
        again = retry_job(str(out), {})
        assert (again.predicted, read(out)) == (299, rows)


def test_what_cannot_be_retried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="there is no finished run"):
        retry_job(str(tmp_path), {})
    source = write_lines(tmp_path / "in.jsonl", [{"x": 1}, {"x": -2}])
    out = tmp_path / "out.jsonl"
    modelbeam.predict(model="functions:mendable", input=str(source), output=str(out))
    before = out.read_bytes()
    write_lines(source, [{"x": 1}, {"x": 2}])
    assert cli.run(["retry", str(out), "--json"]) == 2
    said = capsys.readouterr()
    assert "in.jsonl has changed since the run" in said.err
    assert json.loads(said.out)["error"]["type"] == "RequestError"
    assert out.read_bytes() == before
    source.unlink()
    with pytest.raises(RequestError, match=r"in\.jsonl"):
        retry_job(str(out), {})


def test_a_run_whose_shards_hold_several_splits_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in range(200)])
    out = str(tmp_path / "out")
    job: dict[str, Any] = {"model": "small_models:Doubler", "input": str(source), "output": out}
    modelbeam.predict(**job, shards=2, split_size=200)
    with pytest.raises(RequestError, match=r"several splits into a shard \(--shards 2\)"):
        retry_job(out, {})
