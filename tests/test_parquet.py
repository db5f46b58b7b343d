"""Parquet: row groups as pieces, types that stay, one schema in all shards, damaged files named."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pytest
from commands import read_lines
from pyarrow import parquet

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn, of_schema, together
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources import source_of


def write(path: Path, table: Any, **settings: Any) -> Path:
    parquet.write_table(table, path, **settings)
    return path


def pieces(path: Path, size: int = 1 << 30) -> list[Any]:
    source = source_of(str(path))
    files, *_ = source.discover([str(path)], any_suffix=False, excluded=())
    splits, _ = source.plan(files, size, input_format=None, earlier=None)
    return [piece for split in splits for piece in split.pieces]


def batches(path: Path, wanted: Wanted, size: int = 1 << 30) -> list[Any]:
    return [b for piece in pieces(path, size) for b in source_of(str(path)).reader(piece, wanted)]


def run(tmp_path: Path, model: str, output: str = "out.parquet", **settings: Any) -> Any:
    settings = {"input": str(tmp_path / "in.parquet"), "workers": 1, **settings}
    return modelbeam.predict(
        model=f"small_models:{model}", output=str(tmp_path / output), **settings
    )


def numbers(count: int, bad: int = 0) -> pa.Table:
    x = [float(n) if not bad or n % bad else -1.0 for n in range(count)]
    return pa.table({"id": [f"{n:05d}" for n in range(count)], "x": x, "other": ["o"] * count})


@pytest.mark.parametrize("model", ["Doubler", "BatchDoubler", "TableDoubler"])
@pytest.mark.parametrize("single", [True, False])
def test_parquet_to_parquet(tmp_path: Path, model: str, single: bool) -> None:
    write(tmp_path / "in.parquet", numbers(1000, bad=100), row_group_size=150)
    name = "out.parquet" if single else "out"
    settings = {} if single else {"output_format": "parquet"}
    done = run(tmp_path, model, name, keep=["id"], split_size=1, **settings)
    assert (done.read, done.predicted, done.failed) == (1000, 990, 10)
    assert len(done.shards) == (1 if single else 7)
    found = pa.concat_tables([parquet.read_table(shard) for shard in done.shards])
    assert found.schema.names == ["id", "y"]
    good = [n for n in range(1000) if n % 100]
    assert found.to_pylist() == [{"id": f"{n:05d}", "y": 2.0 * n} for n in good]
    name = "out.errors.jsonl" if single else "out"
    files = [tmp_path / name] if single else sorted((tmp_path / name).glob("errors-*"))
    errors = [error for file in files for error in read_lines(file)]
    assert [(e["row"], e["record"]) for e in errors] == [
        (n + 1, {"id": f"{n:05d}", "x": -1.0, "other": "o"}) for n in range(0, 1000, 100)
    ]
    assert all("line" not in error and "offset" not in error for error in errors)


def test_only_the_needed_columns_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", numbers(10))
    signature = Signature((Column("x", "float"),), exact=True)
    wanted = Wanted("table", columns=("x",), keep=("id",), signature=signature)
    [batch] = batches(path, wanted)
    assert batch.keep("all", None).table.schema.names == ["id", "x"]


@pytest.mark.parametrize("narrow", [True, False])
def test_floats_of_32_bits_stay_so_only_for_models_that_make_a_matrix(
    tmp_path: Path, narrow: bool
) -> None:
    columns = {"x": pa.array([0.1, None], pa.float32()), "n": pa.array([1, 2], pa.int32())}
    path = write(tmp_path / "in.parquet", pa.table(columns))
    signature = Signature(
        tuple(Column(name, "float", True, narrow=narrow) for name in "xn"), exact=True
    )
    [batch] = batches(path, Wanted("table", columns=("x", "n"), signature=signature))
    table = batch.table(signature, dict).records
    assert table.schema.types == [pa.float32() if narrow else pa.float64(), pa.float64()]
    assert table.column("x").to_pylist() == columns["x"].to_pylist()


def test_a_large_row_group_is_read_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By far the most of it is not read before the first batch is there."""
    count, whole = 1 << 20, 0

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            nonlocal whole
            found = super().read(size)
            whole += len(found)
            return found

    table = pa.table({"x": np.random.default_rng(1).random(count)})
    [piece] = pieces(write(tmp_path / "in.parquet", table, row_group_size=count))
    monkeypatch.setattr("modelbeam.storage.open_read", Counted)
    found = iter(source_of(piece.path).reader(piece, Wanted("table")))
    assert 0 < next(found).count() < count
    assert whole < piece.size / 2
    assert sum(batch.count() for batch in found) < count
    assert whole > piece.size


def test_only_texts_and_bytes_are_written_with_dictionaries(tmp_path: Path) -> None:
    columns = {
        "number": pa.array([1, 1]),
        "float": pa.array([0.5, 0.5]),
        "text": pa.array(["a", "a"]),
        "bytes": pa.array([b"a", b"a"]),
        "decimal": pa.array([decimal.Decimal("1.5")] * 2),
        "numbers": pa.array([[1, 1], [1]]),
        "texts": pa.array([[{"a": "b", "n": 1}], []]),
        "labels": pa.array(["a", "a"]).dictionary_encode(),
    }
    layout = tuple(OutputColumn(name, column.type) for name, column in columns.items())
    with (tmp_path / "out.parquet").open("wb") as handle:
        writer = formats.find("parquet").writer(handle, layout)
        rows = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        assert writer.write(Outcome(2, [rows], True, None, None, [])) == []
        writer.close()
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.read().to_pylist() == rows.to_pylist()
    group = file.metadata.row_group(0)
    about = {
        column.path_in_schema: column.has_dictionary_page
        for column in map(group.column, range(group.num_columns))
    }
    assert {path for path, has in about.items() if has} == {
        "text",
        "bytes",
        "decimal",
        "texts.list.element.a",
        "labels",
    }


def test_a_name_with_a_dot_is_one_column(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0], "a.b": [2.0], "s": [{"b": 3.0, "x": 1}], "z": [1]})
    path = write(tmp_path / "in.parquet", table)
    for name, value in (("a", 1.0), ("a.b", 2.0)):
        signature = Signature((Column(name, "float"),), exact=True)
        [batch] = batches(path, Wanted("table", columns=(name,), signature=signature))
        assert batch.table(signature, dict).records.to_pylist() == [{name: value}]
        assert batch.keep("all", None).table.schema.names == [name]


def test_row_groups_are_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", numbers(1000), row_group_size=10)
    whole = [r for b in batches(path, Wanted("record")) for r in b.records().records]
    for size in (1, 700, 5000):
        found = pieces(path, size)
        assert found[0].start == 0
        assert [p.end for p in found[:-1]] == [p.start for p in found[1:]]
        assert found[-1].end in (100, None)
        read = [r for b in batches(path, Wanted("record"), size) for r in b.records().records]
        assert read == whole
    assert len(pieces(path, 1)) == 100


TYPED = {
    "decimal": pa.array([decimal.Decimal("1234567.890123456789"), None]),
    "date": pa.array([datetime.date(2024, 1, 2), None]),
    "zoned": pa.array([1, 2], pa.timestamp("us", "UTC")),
    "paris": pa.array([1, 2], pa.timestamp("ms", "Europe/Paris")),
    "naive": pa.array([1, None], pa.timestamp("ns")),
    "time": pa.array([1, 2], pa.time64("us")),
    "uint64": pa.array([2**64 - 1, None], pa.uint64()),
    "half": pa.array([0.5, None], pa.float16()),
    "float32": pa.array([0.1, None], pa.float32()),
    "null": pa.nulls(2),
    "labels": pa.array(["a", "b"]).dictionary_encode(),
    "list": pa.array([[1, 2], None]),
    "struct": pa.array([{"a": 1, "b": "x"}, None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "binary": pa.array([b"\x00\xff", None]),
    "bool": pa.array([True, None]),
}


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_kept_columns_keep_their_types(tmp_path: Path, model: str) -> None:
    table = pa.table({**TYPED, "x": [1.0, 2.0]})
    write(tmp_path / "in.parquet", table)
    done = run(tmp_path, model, keep=list(TYPED))
    assert (done.predicted, done.failed) == (2, 0)
    before = parquet.read_table(tmp_path / "in.parquet").select(list(TYPED))
    after = parquet.read_table(tmp_path / "out.parquet")
    assert after.select(list(TYPED)).equals(before)
    assert after.schema.remove_metadata().field("labels") == before.schema.field("labels")
    run(tmp_path, model, "out.jsonl", keep=list(TYPED))
    [first, _] = read_lines(tmp_path / "out.jsonl")
    assert first["decimal"] == "1234567.890123456789"
    assert (first["uint64"], first["float32"], first["list"]) == (2**64 - 1, 0.1, [1, 2])
    run(tmp_path, model, "out.csv", keep=list(TYPED))
    assert "1234567.890123456789" in (tmp_path / "out.csv").read_text()


def test_old_timestamps_are_read(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5)
    table = pa.table({"t": pa.array([moment], pa.timestamp("ns")), "x": [1.0]})
    write(tmp_path / "in.parquet", table, use_deprecated_int96_timestamps=True)
    run(tmp_path, "Doubler", "out.jsonl", keep=["t"])
    assert read_lines(tmp_path / "out.jsonl") == [{"t": "2024-01-02T03:04:05", "y": 2.0}]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.int32(), [1, 2], [1.0, 2.0]),
        (pa.float32(), [0.5, 1.5], [0.5, 1.5]),
        (pa.float16(), [0.5, 1.5], [0.5, 1.5]),
        (pa.uint8(), [1, 2], [1.0, 2.0]),
        (pa.int64(), [2**53, 1], [2.0**53, 1.0]),
    ],
)
@pytest.mark.parametrize("style", ["record", "table"])
def test_numbers_of_other_widths_are_what_the_schema_says(
    tmp_path: Path, kind: Any, values: list[Any], expected: list[float], style: str
) -> None:
    path = write(tmp_path / "in.parquet", pa.table({"x": pa.array(values, kind)}))
    signature = Signature((Column("x", "float"),), exact=True)
    [batch] = batches(path, Wanted(style, signature=signature))
    if style == "record":
        found = [record["x"] for record in batch.records().records]
    else:
        found = batch.table(signature, dict).records.column(0).to_pylist()
    assert found == expected
    assert set(map(type, found)) == {float}


def test_files_that_differ(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.parquet", pa.table({"id": pa.array([1], pa.int32()), "x": [1.0]}))
    write(folder / "b.parquet", pa.table({"x": [2.0], "more": ["m"], "id": [2**40]}))
    write(folder / "c.parquet", pa.table({"x": pa.array([3], pa.int64())}))
    write(folder / "d.parquet", pa.table({"id": [4], "y": [4.0]}))
    write(folder / "e.parquet", pa.table({"x": pa.array([], pa.float64())}))
    (folder / "f.parquet").touch()
    for name in ("_metadata", "_common_metadata", "_SUCCESS", ".a.parquet.crc"):
        (folder / name).write_bytes(b"x")
    done = run(
        tmp_path, "TableDoubler", "out", input=str(folder), keep=["id", "more"],
        output_format="parquet",
    )  # fmt: skip
    assert (done.predicted, done.failed) == (3, 1)
    schemas = [parquet.read_schema(shard) for shard in done.shards]
    expected = pa.schema([("id", pa.int64()), ("more", pa.string()), ("y", pa.float64())])
    assert all(schema.remove_metadata() == expected for schema in schemas)
    assert polars.read_parquet(tmp_path / "out" / "predictions-*.parquet").to_dicts() == [
        {"id": 1, "more": None, "y": 2.0},
        {"id": 2**40, "more": "m", "y": 4.0},
        {"id": None, "more": None, "y": 6.0},
    ]
    [error] = [e for f in (tmp_path / "out").glob("errors-*") for e in read_lines(f)]
    assert "'x' is missing" in error["error"]
    assert error["source"].endswith("d.parquet")


def test_shards_without_records_have_the_schema(tmp_path: Path) -> None:
    table = pa.table({"id": [None] * 10 + [1] * 10, "x": [-1.0] * 10 + [1.0] * 10})
    write(tmp_path / "in.parquet", table, row_group_size=10)
    settings = {"keep": ["id"], "split_size": 1, "output_format": "parquet"}
    done = run(tmp_path, "TableDoubler", "out", **settings)
    found = [parquet.read_table(shard) for shard in done.shards]
    assert [part.num_rows for part in found] == [0, 10]
    assert found[0].schema == found[1].schema


def test_a_file_without_rows_or_row_groups(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.float64())])
    write(tmp_path / "in.parquet", schema.empty_table())
    assert batches(tmp_path / "in.parquet", Wanted("record")) == []
    with parquet.ParquetWriter(tmp_path / "none.parquet", schema):
        pass
    assert batches(tmp_path / "none.parquet", Wanted("record")) == []


# Damage


def test_a_damaged_file_is_named_and_the_job_goes_on_after_it_was_mended(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write(folder / f"{name}.parquet", numbers(1000), compression="snappy")
    path = folder / "b.parquet"
    content = path.read_bytes()
    offset = parquet.read_metadata(path).row_group(0).column(1).data_page_offset
    path.write_bytes(content[:offset] + b"\xff" * 40 + content[offset + 40 :])
    settings = {"input": str(folder), "keep": ["id"], "split_size": 1}
    with pytest.raises(InputReadError, match=r"b\.parquet cannot be read: damaged Parquet"):
        run(tmp_path, "TableDoubler", **settings)
    path.write_bytes(content)
    done = run(tmp_path, "TableDoubler", resume=True, **settings)
    assert (done.predicted, done.failed) == (3000, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-6] + b"\xff\xff" + content[-4:],
        lambda content: content[:-60] + b"\xff" * 50 + content[-10:],
    ],
    ids=["no end", "half", "footer's length", "footer"],
)
def test_a_file_whose_footer_is_damaged_is_named(tmp_path: Path, damage: Any) -> None:
    path = write(tmp_path / "in.parquet", numbers(100))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputReadError, match=r"in\.parquet cannot be read: damaged Parquet"):
        run(tmp_path, "TableDoubler")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PAREx", "encrypted Parquet"), (b'{"x": 1}\n', "not Parquet"), (b"x\n1\n", "not Parquet")],
)
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "in.parquet").write_bytes(content)
    with pytest.raises(RequestError, match=said):
        run(tmp_path, "Doubler")


def test_parquet_under_another_name_is_read_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "in.data.jsonl", numbers(10))
    assert [piece.format for piece in pieces(path)] == ["parquet"]
    packed = tmp_path / "in.parquet.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert len(batches(packed, Wanted("record"))[0].records().records) == 10


# From and to other formats


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_json_lines_and_csv_to_parquet(tmp_path: Path, model: str) -> None:
    rows = [{"x": n + 0.5, "n": n, "s": "a", "l": [n], "o": {"k": "v"}} for n in range(10)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep = ["n", "s", "l", "o"]
    run(tmp_path, model, input=str(tmp_path / "in.jsonl"), keep=keep)
    expected = [{**{name: row[name] for name in keep}, "y": 2 * row["x"]} for row in rows]
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == expected
    (tmp_path / "in.csv").write_text("n,x\n007,1.5\n,2.5\n")
    run(tmp_path, model, "csv.parquet", input=str(tmp_path / "in.csv"), keep=["n"])
    assert parquet.read_table(tmp_path / "csv.parquet").to_pylist() == [
        {"n": "007", "y": 3.0},
        {"n": None, "y": 5.0},
    ]


def test_a_kept_value_of_another_type_is_an_error_line(tmp_path: Path) -> None:
    lines = ['{"x": 1.0, "n": 1}\n'] * 120 + ['{"x": 2.0, "n": "text"}\n', '{"x": 3.0, "n": 1.5}\n']
    (tmp_path / "in.jsonl").write_text("".join(lines))
    done = run(tmp_path, "TableDoubler", input=str(tmp_path / "in.jsonl"), keep=["n"])
    assert (done.predicted, done.failed) == (120, 2)
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [(e["line"], e["stage"]) for e in errors] == [(121, "encode"), (122, "encode")]
    assert "column 'n' is int64 in the output" in errors[0]["error"]


def test_the_columns_of_a_schema() -> None:
    schema = {
        "properties": {
            "a": {"type": "number"},
            "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "c": {"enum": ["x", "y"]},
            "d": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
            "e": {},
            "f": {"type": ["string", "null"]},
            "g": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        },
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}}},
    }
    point = pa.struct([("x", pa.float64())])
    assert of_schema(schema) == tuple(
        OutputColumn(name, kind)
        for name, kind in zip(
            "abcdefg",
            [
                *(pa.float64(), pa.int64(), pa.string(), pa.list_(point), None),
                *(pa.string(), pa.float64()),
            ],
            strict=True,
        )
    )
    assert of_schema({"type": "number"}) is None
    assert of_schema(None) is None


def test_types_together() -> None:
    def of(*kinds: Any) -> Any:
        return together(*([OutputColumn("a", kind)] for kind in kinds))[0].type

    assert of(pa.int32(), pa.int64()) == pa.int64()
    assert of(pa.float32(), pa.float64()) == pa.float64()
    assert of(pa.null(), pa.string()) == pa.string()
    assert of(pa.int64(), pa.float64()) is None
    assert of(pa.int64(), pa.string()) is None


def test_a_value_of_an_open_column_is_text(tmp_path: Path) -> None:
    with (tmp_path / "out.parquet").open("wb") as handle:
        writer = formats.find("parquet").writer(handle, (OutputColumn("a"),))
        values = [{"a": "text"}, {"a": 1}, {"a": [1, "b"]}, {"a": None}]
        assert writer.write(Outcome(4, values, False, None, None, [])) == []
        writer.close()
    assert parquet.read_table(tmp_path / "out.parquet").column(0).to_pylist() == [
        *("text", "1", '[1,"b"]', None),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        (pa.int64(), 1.5, False),
        (pa.int64(), 2.0, True),
        (pa.int64(), True, False),
        (pa.int64(), 2**63, False),
        (pa.float64(), 2**53 + 1, False),
        (pa.float64(), True, False),
        (pa.bool_(), 1, False),
        (pa.string(), 1, False),
        (pa.list_(pa.int64()), [1, 1.5], False),
        (pa.list_(pa.int64()), [1, 2], True),
        (pa.struct([("a", pa.int64())]), {"a": 1, "b": 2}, False),
        (pa.struct([("a", pa.int64()), ("b", pa.int64())]), {"a": 1}, True),
    ],
)
def test_a_value_is_written_whole_or_fails(kind: Any, value: Any, fits: bool) -> None:
    made = io.BytesIO()
    writer = formats.find("parquet").writer(made, (OutputColumn("a", kind),))
    failures = writer.write(Outcome(1, [{"a": value}], False, None, None, []))
    writer.close()
    assert (len(failures), writer.rows) == ((0, 1) if fits else (1, 0))
    assert parquet.read_table(io.BytesIO(made.getvalue())).num_rows == writer.rows


# Columns that some files lack, and columns without a name of their own

FILLED = Signature((Column("x", "float"), Column("z", "float", nullable=True)), exact=True)


@pytest.mark.parametrize("style", ["record", "table"])
def test_a_column_that_a_file_lacks_is_null_if_the_model_takes_null(
    tmp_path: Path, style: str
) -> None:
    (tmp_path / "in.csv").write_text("x\n1.5\n2.5\n")
    write(tmp_path / "in.parquet", pa.table({"x": [1.5, 2.5]}))
    for name in ("in.csv", "in.parquet"):
        for signature in (FILLED, Signature(FILLED.columns[::-1], exact=True)):
            columns = tuple(column.name for column in signature.columns)
            wanted = Wanted(style, columns=columns, signature=signature)
            [batch] = batches(tmp_path / name, wanted)
            if style == "record":
                found = batch.records().records
            else:
                made = batch.table(signature, dict)
                assert made.failures == []
                assert made.records.schema.types == [pa.float64(), pa.float64()]
                found = made.records.to_pylist()
            assert found == [{"x": 1.5, "z": None}, {"x": 2.5, "z": None}]
        strict = Signature((Column("x", "float"), Column("z", "float")), exact=True)
        wanted = Wanted(style, columns=("x", "z"), signature=strict)
        [batch] = batches(tmp_path / name, wanted)
        made = batch.table(strict, dict)
        assert [failure.error for failure in made.failures] == ["column 'z' is missing"] * 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_without_a_name_of_their_own_are_refused_before_the_run(
    tmp_path: Path, suffix: str
) -> None:
    def make(*names: str) -> None:
        path = tmp_path / "in" / f"b.{suffix}"
        values = [[str(number)] for number, _ in enumerate(names)]
        if suffix == "parquet":
            write(path, pa.Table.from_arrays([pa.array(v) for v in values], names=list(names)))
        else:
            path.write_text(f"{','.join(names)}\n{','.join(v[0] for v in values)}\n")

    (tmp_path / "in").mkdir()
    make("x", "id", "more")
    (tmp_path / "in" / f"b.{suffix}").rename(tmp_path / "in" / f"a.{suffix}")
    folder = str(tmp_path / "in")
    model = "TextDoubler"
    make("x", "", "", "id")
    for keep in ([], ["id"]):
        run(tmp_path, model, input=folder, keep=keep, overwrite=True)
        assert parquet.read_table(tmp_path / "out.parquet").num_rows == 2
    for names, keep, said in (
        (("x", "", "id"), "all", r"no name for its column 2, so it cannot be kept"),
        (("x", "id", "id"), ["id"], "two columns called 'id', number 2 and number 3"),
        (("x", "y", "x"), [], "two columns called 'x', number 1 and number 3"),
    ):
        make(*names)
        with pytest.raises(RequestError, match=said) as caught:
            run(tmp_path, model, "other.parquet", input=folder, keep=keep)
        assert f"b.{suffix}" in str(caught.value)
        assert not (tmp_path / "other.parquet").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_mended_file_moves_no_other_and_nothing_is_done_twice(
    tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20):
        table = numbers(400 if number == 7 else 40)
        path = folder / f"{number:02}.{suffix}"
        if suffix == "parquet":
            write(path, table, row_group_size=20)
        else:
            lines = [f"{r['id']},{r['x']},{r['other']}\n" for r in table.to_pylist()]
            path.write_text("id,x,other\n" + "".join(lines))
    path = folder / f"07.{suffix}"
    whole = path.read_bytes()
    gone = gzip.compress(whole)[:-9] if suffix == "csv" else whole[:-9]
    path.write_bytes(gone)
    settings = {"input": str(folder), "keep": ["id"], "split_size": 3000}
    with pytest.raises(InputReadError, match=rf"07\.{suffix} cannot be read"):
        run(tmp_path, "TableDoubler", **settings)
    manifests = tmp_path / "out._modelbeam" / "manifests"
    done = {name: (manifests / name).stat().st_mtime_ns for name in os.listdir(manifests)}
    assert len(done) >= 3
    path.write_bytes(whole)
    finished = run(tmp_path, "TableDoubler", resume=True, **settings)
    assert (finished.predicted, finished.failed) == (19 * 40 + 400, 0)
    assert finished.description["splits_resumed"] == len(done)
    assert parquet.read_table(tmp_path / "out.parquet").column("id").to_pylist() == [
        f"{row:05d}" for number in range(20) for row in range(400 if number == 7 else 40)
    ]


def test_texts_that_are_not_utf_8_are_damage(tmp_path: Path) -> None:
    text = pa.array([b"\xff\xfe", b"ok"]).view(pa.string())
    write(tmp_path / "in.parquet", pa.table({"x": [1.0, 2.0], "s": text}))
    with pytest.raises(InputReadError, match=r"in\.parquet cannot be read: damaged Parquet"):
        run(tmp_path, "TableDoubler", keep=["s"])
    signature = Signature((Column("x", "float"),), exact=True)
    [batch] = batches(tmp_path / "in.parquet", Wanted("table", columns=("x",), signature=signature))
    assert batch.original(0, parsed=True) == {"record": {"x": 1.0, "s": "//4="}}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_file_that_is_packed_as_a_whole_is_so_whatever_the_splits(
    tmp_path: Path, suffix: str
) -> None:
    write(tmp_path / "in.parquet", numbers(100), row_group_size=10)
    run(tmp_path, "Doubler", f"out.parquet{suffix}", split_size=1)
    [piece] = pieces(tmp_path / f"out.parquet{suffix}")
    assert (piece.format, piece.compression is None) == ("parquet", False)
    read = [r for b in batches(tmp_path / f"out.parquet{suffix}", Wanted("record"))
            for r in b.records().records]  # fmt: skip
    assert read == [{"y": 2.0 * n} for n in range(100)]


# In a process of its own, which Arrow would end: what it throws where it may not is not caught
CHANGED = """
import io, random, sys
import pyarrow as pa
from pyarrow import parquet
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.base import Wanted
from modelbeam.sources import source_of

table = pa.table({
    "s": ["text", "u", None] * 50,
    "l": [[1, 2], [], None] * 50,
    "d": pa.array(["a", "b", None] * 50).dictionary_encode(),
    "m": pa.array([[("k", 1)], None, []] * 50, pa.map_(pa.string(), pa.int64())),
})
made, source, named = random.Random(5), source_of(""), 0
for codec in ("snappy", "zstd", "none"):
    whole = io.BytesIO()
    parquet.write_table(table, whole, row_group_size=50, compression=codec)
    for _ in range(100):
        content = bytearray(whole.getvalue())
        for _ in range(made.choice([1, 3, 10])):
            content[made.randrange(4, len(content))] = made.randrange(256)
        with open(sys.argv[1], "wb") as handle:
            handle.write(content)
        try:
            found = source.discover([sys.argv[1]], any_suffix=False, excluded=())
            splits, _ = source.plan(found.inputs, 500, input_format=None, earlier=None)
            for piece in (piece for split in splits for piece in split.pieces):
                for batch in source.reader(piece, Wanted("record")):
                    batch.records()
                    batch.keep("all", None).texts()
                    batch.original(0, parsed=True)
        except (InputReadError, RequestError) as error:
            assert sys.argv[1] in str(error)
            named += 1
print(named)
"""


def test_bytes_that_changed_are_named_or_are_other_values_and_never_end_the_process(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHANGED, str(tmp_path / "in.parquet")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert 100 < int(done.stdout) < 300


def test_lists_of_a_fixed_size_may_be_null_and_the_other_types_stay(tmp_path):
    """Arrow itself does not read such a file, which Polars writes."""
    times = [datetime.datetime(2020, 1, n, tzinfo=datetime.timezone.utc) for n in (1, 2, 3)]
    columns = {
        "x": [1.0, 2.0, 3.0],
        "v": [[1.0, 2.0], None, [None, 4.0]],
        "c": ["a", "b", "a"],
        "t": times,
        "s": [{"q": [1, 2]}, {"q": None}, {"q": [3, 4]}],
    }
    types = {
        "v": polars.Array(polars.Float32, 2),
        "c": polars.Categorical,
        "t": polars.Datetime("us", "Europe/Berlin"),
        "s": polars.Struct({"q": polars.Array(polars.Int64, 2)}),
    }
    source = tmp_path / "in.parquet"
    polars.DataFrame(columns, schema_overrides=types).write_parquet(source, row_group_size=2)
    with pytest.raises(pa.ArrowInvalid, match="lists to be of size"):
        parquet.read_table(source)
    out = tmp_path / "out.parquet"
    run = modelbeam.predict(
        model="small_models:TableDoubler", input=str(source), output=str(out), keep="all"
    )
    assert (run.read, run.predicted) == (3, 3)
    made = parquet.read_table(out)
    assert made.select(list(columns)).to_pydict() == columns
    assert made.column("y").to_pylist() == [2.0, 4.0, 6.0]
    schema = {field.name: field.type for field in made.schema}
    assert schema["t"] == pa.timestamp("us", "Europe/Berlin")
    assert pa.types.is_dictionary(schema["c"])
    assert schema["v"].value_type == pa.float32()
