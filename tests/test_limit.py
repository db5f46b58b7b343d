"""The first records only, and other names for what is predicted; in every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import read_lines, shards
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import formats, storage
from modelbeam.errors import InputReadError, RequestError, ResumeError
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources import source_of

LAYOUT = (OutputColumn("x", pa.float64()), OutputColumn("n", pa.int64()))
NAMES = formats.NAMES


def write(path: Path, rows: list[dict[str, Any]], block: int = 10) -> Path:
    """Write a file of the format that the suffix names, in blocks of so many records."""
    name = path.name.rsplit(".", 1)[1]
    with path.open("wb") as handle:
        writer = formats.find(name).writer(handle, LAYOUT)
        for at in range(0, len(rows), block):
            some = rows[at : at + block]
            assert writer.write(Outcome(len(some), some, False, None, None, [])) == []
            if hasattr(writer, "_flush"):
                writer._flush()
        writer.close()
    return path


def numbers(start: int, count: int) -> list[dict[str, Any]]:
    return [{"x": float(n), "n": n} for n in range(start, start + count)]


def planned(inputs: list[Path], limit: int | None, size: int | None = None) -> Any:
    source = source_of(str(inputs[0]))
    asked = formats.Format("json") if inputs[0].suffix == ".json" else None
    patterns = [str(path) for path in inputs]
    files, *_ = source.discover(patterns, any_suffix=asked is not None, excluded=())
    return source.plan(files, size, input_format=asked, earlier=None, limit=limit)[0]


def read(splits: Any) -> list[Any]:
    """What stands in the column n of all records of a plan."""
    found = []
    for split in splits:
        for piece in split.pieces:
            for batch in source_of("").reader(piece, Wanted("record")):
                decoded = batch.records()
                assert decoded.read == batch.count()
                found += [int(record["n"]) for record in decoded.records]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_first_records_in_the_order_of_the_input(tmp_path: Path, name: str) -> None:
    paths = [
        write(tmp_path / f"{at}.{name}", numbers(start, count))
        for at, (start, count) in enumerate([(0, 35), (35, 0), (35, 120), (155, 5)])
    ]
    for limit in (1, 34, 35, 36, 90, 155, 156, 160, 1000):
        for size in (None, 1, 400):
            plan = planned(paths, limit, size)
            assert read(plan) == list(range(min(limit, 160)))
            used = dict.fromkeys(piece.path for split in plan for piece in split.pieces)
            assert len(used) == (1 if limit <= 35 else 3 if limit <= 155 else 4)


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.sampled_from(['{"n": 1}', "", "  ", "{", "7", '{"n": 2}']), max_size=30),
    limit=st.integers(1, 30),
    size=st.integers(1, 60),
    style=st.sampled_from(["record", "table"]),
)
def test_blank_lines_are_no_records_and_bad_ones_are(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], limit: int, size: int, style: str
) -> None:
    path = tmp_path_factory.mktemp("limit") / "in.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    there = [line for line in lines if line.strip()][:limit]
    good: list[Any] = []
    bad = 0
    for split in planned([path], limit, size) if path.stat().st_size else ():
        for piece in split.pieces:
            for batch in source_of("").reader(piece, Wanted(style)):
                found = batch.table(None, dict) if style == "table" else batch.records()
                rows = range(len(found.records)) if found.rows is None else found.rows
                assert len(rows) == len(found.records)
                good += found.records.to_pylist() if style == "table" else found.records
                bad += len(found.failures)
                kept = batch.keep("all", found.rows).dicts()
                assert kept == good[len(good) - len(kept) :]
    assert good == [json.loads(line) for line in there if line.startswith('{"')]
    assert bad == len(there) - len(good)


def test_no_more_is_read_than_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "x" * 98
    (tmp_path / "a.csv").write_text("n,s\n" + "".join(f"{n},{row}\n" for n in range(200_000)))
    (tmp_path / "b.csv").write_bytes(b"PK\x03\x04 is refused, if it is looked at")
    monkeypatch.setattr("modelbeam.formats.csv.blocks.SCANNED", 1 << 20)
    taken = 0
    real = storage.open_read

    def counted(path: str, *rest: Any) -> Any:
        nonlocal taken
        assert path.endswith("a.csv")
        handle = real(path, *rest)

        class Counted:
            def read(self, size: int = -1) -> bytes:
                nonlocal taken
                data: bytes = handle.read(size)
                taken += len(data)
                return data

            def __getattr__(self, name: str) -> Any:
                return getattr(handle, name)

            def __enter__(self) -> Counted:
                return self

            def __exit__(self, *_: object) -> None:
                handle.close()

        return Counted()

    monkeypatch.setattr(storage, "open_read", counted)
    plan = planned([tmp_path / "a.csv", tmp_path / "b.csv"], 1000)
    assert [piece.records for split in plan for piece in split.pieces][-1] is not None
    assert taken < 8 << 20
    assert read(plan) == list(range(1000))
    assert taken < 12 << 20


def run(tmp_path: Path, source: Path, output: str, model: str = "Doubler", **settings: Any) -> Any:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(source),
        output=str(tmp_path / output),
        workers=1,
        **settings,
    )


@pytest.mark.parametrize("model", ["Doubler", "BatchDoubler", "TableDoubler"])
def test_a_job_with_a_limit_and_other_names(tmp_path: Path, model: str) -> None:
    rows = [{"x": float(n) if n % 10 else -1.0, "n": n} for n in range(100)]
    source = write(tmp_path / "in.parquet", rows)
    settings = {"limit": 25, "rename": {"y": "twice"}, "keep": ["n"], "split_size": 1}
    done = run(tmp_path, source, "out.jsonl", model, **settings)
    assert (done.read, done.predicted, done.failed) == (25, 22, 3)
    assert read_lines(tmp_path / "out.jsonl") == [
        {"n": n, "twice": 2.0 * n} for n in range(25) if n % 10
    ]
    assert [error["row"] for error in read_lines(tmp_path / "out.errors.jsonl")] == [1, 11, 21]
    run(tmp_path, source, "out.csv", model, **settings)
    assert (tmp_path / "out.csv").read_text().splitlines()[:2] == ["n,twice", "1,2.0"]


def test_a_limit_may_be_resumed_and_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        text = "".join(json.dumps(row) + "\n" for row in numbers(number * 20, 20))
        (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    path = folder / "2.jsonl.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-12])
    settings: dict[str, Any] = {"limit": 70, "split_size": 1, "keep": ["n"]}
    with pytest.raises(InputReadError, match=r"2\.jsonl\.gz cannot be read"):
        run(tmp_path, folder, "out", **settings)
    path.write_bytes(whole)
    with pytest.raises(ResumeError, match="limit: was 70, is 80"):
        run(tmp_path, folder, "out", **{**settings, "limit": 80}, resume=True)
    run(tmp_path, folder, "out", **settings, overwrite=True)
    assert [row["n"] for row in shards(tmp_path / "out")] == list(range(70))
    again = run(tmp_path, folder, "out", **settings, resume=True)
    assert again.read == 70


@pytest.mark.parametrize(
    ("rename", "keep", "said"),
    [
        (["y=n"], ["n"], r"rename='y=n': 'n' is a kept input column as well"),
        (["y=n"], "all", r"rename='y=n': 'n' is a kept input column as well"),
        (["z=a"], [], r"rename='z=a': the model predicts no column 'z'.*y"),
        (["y"], [], r"rename=.*OLD=NEW"),
        (["y=a", "y=b"], [], "'y' is renamed twice"),
        (["y=a", "z=a"], [], "'a' is the new name of two columns"),
        (["=a"], [], "OLD=NEW"),
    ],
)
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_a_name_that_cannot_be_is_refused_before_the_run(
    tmp_path: Path, rename: list[str], keep: Any, said: str, name: str
) -> None:
    source = write(tmp_path / name, numbers(0, 3))
    with pytest.raises(RequestError, match=said):
        run(tmp_path, source, "out.jsonl", rename=rename, keep=keep)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", numbers(1, 101))


def test_names_of_a_model_that_does_not_say_what_it_predicts(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RequestError, match="predicts no column 'z'"):
        run(tmp_path, source, "out.jsonl", "Unsaid", rename=["z=a"])
    with pytest.raises(RequestError, match="'y' is the name of another predicted column"):
        run(tmp_path, source, "out.jsonl", "Unsaid", rename=["n=y"])
    done = run(tmp_path, source, "out.jsonl", "Unsaid", rename=["y=n", "n=y"])
    assert (done.predicted, done.failed) == (101, 0)
    assert read_lines(tmp_path / "out.jsonl")[0] == {"n": 2.0, "y": 1}
    done = run(tmp_path, source, "some.jsonl", "Unsaid", rename=["y=late"])
    assert (done.predicted, done.failed) == (100, 1)
    [error] = read_lines(tmp_path / "some.errors.jsonl")
    assert (error["line"], error["stage"], error["type"]) == (101, "encode", "ColumnClashError")
