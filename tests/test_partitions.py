"""What the directories of a file say is a column, in every format; companions are no data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import read_lines
from pyarrow import parquet

import modelbeam
from modelbeam import formats
from modelbeam.errors import RequestError, SchemaMismatchError
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn
from modelbeam.formats.partition import partition_of
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources import source_of
from modelbeam.sources.files import find_inputs


def write(path: Path, rows: list[dict[str, Any]], columns: dict[str, Any] | None = None) -> None:
    """Write a file of the format that the suffix names."""
    name = path.name.rsplit(".", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = columns or {"x": pa.float64(), "n": pa.int64()}
    layout = tuple(OutputColumn(name, kind) for name, kind in columns.items())
    with path.open("wb") as handle:
        writer = formats.find(name).writer(handle, layout)
        assert writer.write(Outcome(len(rows), rows, False, None, None, [])) == []
        writer.close()


def run(tmp_path: Path, model: str, source: Any, output: str, **settings: Any) -> Any:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(source),
        output=str(tmp_path / output),
        workers=1,
        **settings,
    )


def test_what_a_path_says() -> None:
    root = "/x=0/in/"
    assert partition_of("/x=0/in/a=1/b=x%2Fy/c/d=/e=f=g/k.csv", root) == (
        ("a", "1"), ("b", "x/y"), ("d", ""), ("e", "f=g"),
    )  # fmt: skip
    assert partition_of("/x=0/in/m=__HIVE_DEFAULT_PARTITION__/a=1.csv", root) == (("m", None),)
    assert partition_of("/other/a=1/k.csv", root) == ()
    with pytest.raises(RequestError, match="two of its directories say what 'a' is"):
        partition_of("/x=0/in/a=1/a=2/k.csv", root)


@pytest.mark.parametrize("name", formats.NAMES)
@pytest.mark.parametrize("style", ["record", "table"])
def test_a_directory_is_text_unless_the_model_wants_a_number(
    tmp_path: Path, name: str, style: str
) -> None:
    for month in ("01", "12", "__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / "in" / f"month={month}" / f"a.{name}", [{"x": 1.5, "n": 1}] * 2)
    asked = formats.Format(name)
    source = source_of("")
    found = source.discover([str(tmp_path / "in")], any_suffix=True, excluded=())
    splits, _ = source.plan(
        found.inputs, 1, input_format=asked, earlier=None, partitions=found.partitions
    )
    pieces = [piece for split in splits for piece in split.pieces]
    assert {piece.partition for piece in pieces} == {
        (("month", month),) for month in ("01", "12", None)
    }
    kinds = {"str": ["01", "12", None], "int": [1, 12, None], "float": [1.0, 12.0, None]}
    for kind, expected in kinds.items():
        columns = (Column("month", kind, True), Column("x", "float"))  # type: ignore[arg-type]
        signature = Signature(columns, exact=True)
        wanted = Wanted(style, None, 1 << 20, ("month", "x"), ("n", "month"), signature)
        values, kept = [], []
        for piece in pieces:
            for batch in source.reader(piece, wanted):
                if style == "table":
                    decoded = batch.table(signature, dict)
                    assert decoded.records.schema.names == ["month", "x"]
                    values += decoded.records.column("month").to_pylist()
                else:
                    decoded = batch.records()
                    values += [record["month"] for record in decoded.records]
                assert decoded.failures == []
                for text in batch.keep(("n", "month"), decoded.rows).texts():
                    record = json.loads(text)
                    assert int(record["n"]) == 1
                    kept.append(record["month"])
        assert values == [value for value in expected for _ in range(2)]
        assert kept == ["01", "01", "12", "12", None, None]


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet", "avro"])
@pytest.mark.parametrize("model", ["Monthly", "TableMonthly"])
def test_a_job_over_partitions(tmp_path: Path, name: str, model: str) -> None:
    folder = tmp_path / "in"
    for month in ("01", "02", "x"):
        write(folder / "kind=a%20b" / f"month={month}" / f"a.{name}", [{"x": 1.0}] * 3)
    keep = ["kind", "x", "month"]
    done = run(tmp_path, model, folder, "out.parquet", keep=keep)
    assert (done.predicted, done.failed) == (6, 3)
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"kind": "a b", "x": "1.0" if name == "csv" else 1.0, "month": f"0{month}", "y": month}
        for month in (1, 2)
        for _ in range(3)
    ]
    [error, *_] = read_lines(tmp_path / "out.errors.jsonl")
    assert error["stage"] == "validate"
    assert "month" in error["error"]
    assert set(error["record"]) <= {"x", "n"}
    done = run(tmp_path, model, folder / "*" / "month=0*" / "*", "all.jsonl", keep="all")
    assert (done.predicted, done.failed) == (6, 0)
    first = read_lines(tmp_path / "all.jsonl")[0]
    assert (first["kind"], first["month"], first["y"]) == ("a b", "01", 1.0)


def test_a_model_that_does_not_name_it_is_not_given_it(tmp_path: Path) -> None:
    write(tmp_path / "in" / "month=01" / "a.jsonl", [{"x": 1.0}])
    done = run(tmp_path, "Strict", tmp_path / "in", "out.jsonl", keep=["month"])
    assert (done.predicted, done.failed) == (1, 0)
    assert read_lines(tmp_path / "out.jsonl") == [{"month": "01", "y": 2.0}]


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("model", ["Monthly", "TableMonthly"])
@pytest.mark.parametrize("keep", [[], ["month"], "all"])
def test_a_column_of_the_path_and_of_the_file_is_told_where_they_differ(
    tmp_path: Path, name: str, model: str, keep: Any
) -> None:
    rows = [{"x": 1.0, "month": 1}, {"x": 1.0, "month": 2}, {"x": 2.0, "month": 1}]
    columns = {"x": pa.float64(), "month": pa.int64()}
    write(tmp_path / "in" / "month=01" / f"a.{name}", rows, columns)
    done = run(tmp_path, model, tmp_path / "in", "out.jsonl", keep=keep)
    assert (done.predicted, done.failed) == (2, 1)
    [error] = read_lines(tmp_path / "out.errors.jsonl")
    assert (error["stage"], error["type"]) == ("decode", "PartitionMismatchError")
    assert "in the file, and its directory says '01'" in error["error"]
    if keep == ["month"] and model == "Monthly" and name != "csv":
        done = run(tmp_path, "TableDoubler", tmp_path / "in", "kept.jsonl", keep=keep)
        assert (done.predicted, done.failed) == (2, 1)


def test_only_directories_below_what_was_named_say_something(tmp_path: Path) -> None:
    inner = tmp_path / "run=7" / "month=01"
    write(inner / "a.jsonl", [{"x": 1.0}])
    for pattern, expected in (
        (tmp_path, (("run", "7"), ("month", "01"))),
        (tmp_path / "run=7", (("month", "01"),)),
        (f"{tmp_path}/*/*/*.jsonl", (("run", "7"), ("month", "01"))),
        (f"{tmp_path}/run=7/mon*/a.jsonl", (("month", "01"),)),
        (f"{tmp_path}/run=7/**/*.jsonl", (("month", "01"),)),
        (inner, ()),
        (inner / "a.jsonl", None),
    ):
        found = find_inputs([str(pattern)], any_suffix=False)
        assert [info.path for info in found.inputs] == [str(inner / "a.jsonl")]
        assert found.partitions.get(str(inner / "a.jsonl")) == expected
    with pytest.raises(SchemaMismatchError, match="'month'"):
        run(tmp_path, "Monthly", inner / "a.jsonl", "out.jsonl")


def test_companions_and_hidden_directories_are_no_data(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for path in (
        *("a.parquet", "m=1/b.parquet", "_year=2/c.parquet"),
        *("_metadata", "_common_metadata", "_SUCCESS", ".a.parquet.crc", "a.parquet.crc"),
        *("_temporary/0/d.parquet", ".hidden/e.parquet", "m=1/_SUCCESS", "m=1/.b.parquet.crc"),
        *("m=1/_temporary/f.parquet", "_delta_log/g.parquet"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    expected = ["_year=2/c.parquet", "a.parquet", "m=1/b.parquet"]
    for pattern in (folder, f"{folder}/**/*.parquet", f"{folder}/**"):
        found = find_inputs([str(pattern)], any_suffix=False)
        paths = [os.path.relpath(info.path, folder) for info in found.inputs]
        assert sorted(paths) == expected
