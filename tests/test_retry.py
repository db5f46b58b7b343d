"""The failed records of a finished run again: in their places, with everything else as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import read_lines, shards, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import cli
from modelbeam.errors import JobError, RequestError
from modelbeam.formats.base import Piece
from modelbeam.job.again import Again, Earlier
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.retry import _Part, _with_lines, retry_job
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
    again = Again(Earlier([(str(shard), skip, len(good))], "jsonl", [[]], [[]]), attempt)
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
    fewer = Again(Earlier([(str(shard), 0, None)], "jsonl", [[]], [[]]), Written())
    with pytest.raises(JobError, match="was changed after the run"):
        list(fewer.take(3))
    more = Again(Earlier([(str(shard), 0, None)], "jsonl", [[]], [[]]), Written())
    list(more.take(1))
    with pytest.raises(JobError, match="was changed after the run"):
        more.end()


RECORDS = [{"id": f'{n} "é"', "x": float(-n if n % 5 == 1 else n)} for n in range(300)]
WANTED = [one for one in RECORDS if one["x"] != -1]


def write(path: Path, records: list[dict[str, Any]] = RECORDS) -> Path:
    table = pa.Table.from_pylist(records)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=40)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["id", "x"])
            writer.writeheader()
            writer.writerows(records)
    else:
        write_lines(path, records)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".csv":
        with path.open(newline="") as handle:
            return [
                {**row, "prediction": float(row["prediction"])} for row in csv.DictReader(handle)
            ]
    if path.suffix == ".avro":
        with path.open("rb") as file:
            return list(fastavro.reader(file))
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
    write_lines(source, [{"x": 1}, {"x": 2}, {"x": 3}])
    assert cli.run(["retry", str(out), "--json"]) == 2
    said = capsys.readouterr()
    assert "have 3 records now, and had 2 in the run" in said.err
    assert json.loads(said.out)["error"]["type"] == "RequestError"
    assert out.read_bytes() == before
    source.unlink()
    with pytest.raises(RequestError, match=r"in\.jsonl"):
        retry_job(str(out), {})


def test_an_array_that_has_changed_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text('[{"x": 1}, {"x": -2}]')
    out = str(tmp_path / "out.jsonl")
    modelbeam.predict(model="functions:mendable", input=str(source), output=out)
    source.write_text('[{"x": 1}, {"x": 22}]')
    with pytest.raises(RequestError, match="an array, whose elements have no lines"):
        retry_job(out, {})


def outputs_of(out: Path) -> list[dict[str, Any]]:
    """The rows of an output, in order."""
    return [row for file in sorted(out.glob("predictions-*")) for row in read(file)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "avro"])
def test_of_several_models_a_record_that_failed_in_one_is_predicted_again(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is replaced; one that has failed in all of them gets one."""
    source = write_lines(tmp_path / "in.jsonl", RECORDS[:120])
    out = tmp_path / "out"
    models = ["a=functions:mendable", "b=functions:picky"]
    first = modelbeam.predict(
        model=models, input=str(source), output=str(out), keep=["id"], split_size=1500,
        output_format=suffix,
    )  # fmt: skip
    assert first.description["splits"] > 2
    failed = {name: {n for n in range(120) if fails(name, n)} for name in "ab"}
    assert failed["a"] & failed["b"]
    assert failed["b"] - failed["a"]
    assert first.failed == len(failed["a"] & failed["b"])
    monkeypatch.setenv("MENDED", "1")
    done = retry_job(str(out), {})
    wanted = []
    for n, record in enumerate(RECORDS[:120]):
        a = None if record["x"] == -1 else record["x"]
        b = None if n in failed["b"] else record["x"]
        if (a, b) != (None, None):
            wanted.append((record["id"], a, b))
    if suffix != "parquet":  # a record for each model
        rows = [
            (row["id"], *((row[name] or {}).get("prediction") for name in "ab"))
            for row in outputs_of(out)
        ]
    else:
        rows = [(row["id"], row["a.prediction"], row["b.prediction"]) for row in outputs_of(out)]
    assert rows == wanted
    counts = done.description["counts"]["models"]
    assert counts["a"] == {"read": 120, "predicted": 119, "failed": 1}
    assert counts["b"]["failed"] == len(failed["b"])
    assert {(line["model"], line["line"]) for line in shards(out, "errors")} == {
        ("a", 2),
        *(("b", n + 1) for n in failed["b"]),
    }


def fails(model: str, n: int) -> bool:
    return RECORDS[n]["x"] < 0 if model == "a" else RECORDS[n]["x"] % 7 == 1


def test_with_a_route_a_record_that_failed_has_no_row_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{**one, "to": "ab"[n % 2]} for n, one in enumerate(RECORDS[:60])]
    source = write_lines(tmp_path / "in.jsonl", [*records, {"x": 1.0, "to": "c"}])
    out = tmp_path / "out"
    modelbeam.predict(
        model=["a=functions:mendable", "b=functions:picky"], input=str(source), output=str(out),
        keep=["id"], split_size=1500, route="to",
    )  # fmt: skip
    monkeypatch.setenv("MENDED", "1")
    done = retry_job(str(out), {})
    left = [n for n in range(60) if (fails("b", n) if n % 2 else records[n]["x"] == -1)]
    assert [row["id"] for row in outputs_of(out)] == [
        one["id"] for n, one in enumerate(records) if n not in left
    ]
    counts = done.description["counts"]["models"]
    assert (counts["a"]["read"], counts["b"]["read"]) == (30, 30)
    assert {line["line"] for line in shards(out, "errors")} == {*(n + 1 for n in left), 61}


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet"])
@pytest.mark.parametrize("shards_asked", [None, 2])
def test_records_that_were_repaired_since_are_read_anew(
    name: str, shards_asked: int | None, tmp_path: Path
) -> None:
    """In their places, though every byte after them has moved and the splits are others."""
    source = write(tmp_path / name)
    other = write_lines(tmp_path / "other.jsonl", RECORDS[:50])
    out = tmp_path / "out"
    first = modelbeam.predict(
        model="functions:mendable", input=[str(source), str(other)], output=str(out),
        keep=["id"], split_size=1500, shards=shards_asked,
    )  # fmt: skip
    assert (first.predicted, first.failed) == (280, 70)
    repaired = [{**one, "x": abs(one["x"]) + 1e6} if one["x"] < -50 else one for one in RECORDS]
    write(tmp_path / name, repaired)
    done = retry_job(str(out), {})
    again = [one for one in [*repaired, *RECORDS[:50]] if one["x"] >= 0]
    assert outputs_of(out) == [{"id": one["id"], "prediction": one["x"]} for one in again]
    assert (done.read, done.predicted) == (350, len(again))
    kind = "row" if name == "in.parquet" else "line"
    lines = {line[kind] for line in shards(out, "errors") if line["source"] == str(source)}
    header = name == "in.csv"
    assert lines == {n + 1 + header for n, one in enumerate(repaired) if one["x"] < 0}


def test_what_is_repaired_must_stay_where_it_was(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", RECORDS)
    out = tmp_path / "out.jsonl"
    modelbeam.predict(model="functions:mendable", input=str(source), output=str(out))
    before = out.read_bytes()
    for changed in (RECORDS[1:], [*RECORDS, {"x": 1.0}]):
        write_lines(source, changed)
        with pytest.raises(RequestError, match=r"have \d+ records now, and had 300 in the run"):
            retry_job(str(out), {})
    (tmp_path / "in.jsonl").rename(tmp_path / "moved.jsonl")
    with pytest.raises(RequestError, match=r"in\.jsonl"):
        retry_job(str(out), {})
    assert out.read_bytes() == before


def test_the_lines_before_a_piece_are_counted_by_its_first_byte(tmp_path: Path) -> None:
    """A piece of a file of lines begins anywhere; the lines that begin in it are its own."""
    content = b"one\n\nthree\nfour\n\n\nseven"
    (tmp_path / "in.jsonl").write_bytes(content)
    starts = [at for at in range(len(content)) if at == 0 or content[at - 1 : at] == b"\n"]
    pieces = [
        _Part(n, 0, Piece(str(tmp_path / "in.jsonl"), n, None, 0, 0, None, "jsonl", 0))
        for n in range(len(content))
    ]
    for part in _with_lines(pieces):
        assert part.lines == sum(start < part.piece.start for start in starts)
