"""Arrow IPC: files and streams by their first bytes, record batches as pieces, damage named."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pytest
from commands import read_lines
from pyarrow import ipc, parquet
from test_parquet import TYPED, batches, numbers, pieces

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome


def made(table: pa.Table, stream: bool, rows: int | None = None, **options: Any) -> bytes:
    into = io.BytesIO()
    new = ipc.new_stream if stream else ipc.new_file
    with new(into, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, rows)
    return into.getvalue()


def run(tmp_path: Path, model: str, source: Path, output: str, **settings: Any) -> Any:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(source),
        output=str(tmp_path / output),
        workers=1,
        **settings,
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["in.arrow", "in.arrows", "in.feather", "in.dat", "in.jsonl"])
def test_the_first_bytes_tell_a_file_from_a_stream(tmp_path: Path, stream: bool, name: str) -> None:
    table = numbers(10)
    (tmp_path / name).write_bytes(made(table, stream))
    assert [piece.format for piece in pieces(tmp_path / name)] == ["arrow"]
    [batch] = batches(tmp_path / name, Wanted("record"))
    assert batch.records().records == table.to_pylist()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_arrow_to_every_kind_of_arrow(tmp_path: Path, stream: bool, model: str) -> None:
    path = tmp_path / "in.arrow"
    path.write_bytes(made(numbers(1000, bad=100), stream, 100))
    good = [{"id": f"{n:05d}", "y": 2.0 * n} for n in range(1000) if n % 100]
    for output in ("out.arrow", "out.arrows", "out.arrow.gz", "out.arrows.zst"):
        done = run(tmp_path, model, path, output, keep=["id"], split_size=3000)
        assert (done.read, done.predicted, done.failed) == (1000, 990, 10)
        errors = read_lines(tmp_path / "out.errors.jsonl")
        assert [(e["row"], e["record"]) for e in errors] == [
            (n + 1, {"id": f"{n:05d}", "x": -1.0, "other": "o"}) for n in range(0, 1000, 100)
        ]
        (tmp_path / "out.run.json").unlink()
        assert [r for b in batches(tmp_path / output, Wanted("record"))
                for r in b.records().records] == good  # fmt: skip
    assert polars.read_ipc(tmp_path / "out.arrow").to_dicts() == good
    assert polars.read_ipc_stream(tmp_path / "out.arrows").to_dicts() == good


def test_record_batches_are_pieces(tmp_path: Path) -> None:
    path = tmp_path / "in.arrow"
    path.write_bytes(made(numbers(1000), False, 10))
    whole = [r for b in batches(path, Wanted("record")) for r in b.records().records]
    assert whole == numbers(1000).to_pylist()
    for size in (1, 700, 5000):
        found = pieces(path, size)
        assert [p.end for p in found[:-1]] == [p.start for p in found[1:]]
        assert sum(piece.bytes for piece in found) == path.stat().st_size
        read = [r for b in batches(path, Wanted("record"), size) for r in b.records().records]
        assert read == whole
    assert len(pieces(path, 1)) == 100


def test_only_the_needed_columns_are_read(tmp_path: Path) -> None:
    signature = Signature((Column("x", "float"),), exact=True)
    wanted = Wanted("table", columns=("x",), keep=("id",), signature=signature)
    for stream in (False, True):
        path = tmp_path / "in.arrow"
        path.write_bytes(made(numbers(10), stream))
        [batch] = batches(path, wanted)
        assert batch.keep("all", None).table.schema.names == ["id", "x"]
        record = {"id": "00003", "x": 3.0, "other": "o"}
        assert batch.original(3, parsed=True) == {"record": record}


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_compressed_buffers_are_read(tmp_path: Path, codec: str, stream: bool) -> None:
    path = tmp_path / "in.arrow"
    path.write_bytes(made(numbers(5000), stream, compression=codec))
    read = [r for b in batches(path, Wanted("record")) for r in b.records().records]
    assert read == numbers(5000).to_pylist()
    path.with_name("in.arrow.gz").write_bytes(gzip.compress(path.read_bytes()))
    [piece] = pieces(path.with_name("in.arrow.gz"))
    assert (piece.format, piece.compression) == ("arrow", "gzip")


@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize("output", ["out.parquet", "out.arrow", "out.arrows", "out.csv"])
def test_each_batch_of_a_stream_may_have_a_dictionary_of_its_own(
    tmp_path: Path, output: str, deltas: bool
) -> None:
    labels = [["a", "b"], ["b", "c", "a"], [None, "d"], ["a", "b"]]
    schema = pa.schema([("x", pa.float64()), ("s", pa.dictionary(pa.int8(), pa.string()))])
    into = io.BytesIO()
    options = ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    with ipc.new_stream(into, schema, options=options) as writer:
        for some in labels:
            values = pa.array(some).dictionary_encode().cast(schema.field("s").type)
            x = pa.array([1.0] * len(some))
            writer.write_batch(pa.RecordBatch.from_arrays([x, values], schema=schema))
    (tmp_path / "in.arrows").write_bytes(into.getvalue())
    done = run(tmp_path, "TableDoubler", tmp_path / "in.arrows", output, keep=["s"])
    assert (done.predicted, done.failed) == (9, 0)
    read = [r for b in batches(tmp_path / output, Wanted("record")) for r in b.records().records]
    assert [record["s"] for record in read] == [label for some in labels for label in some]


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_kept_columns_keep_their_types(tmp_path: Path, model: str) -> None:
    table = pa.table({**TYPED, "x": [1.0, 2.0]})
    (tmp_path / "in.arrow").write_bytes(made(table, False))
    expected = table.select(list(TYPED))
    run(tmp_path, model, tmp_path / "in.arrow", "out.parquet", keep=list(TYPED))
    assert parquet.read_table(tmp_path / "out.parquet").select(list(TYPED)).equals(expected)
    run(tmp_path, model, tmp_path / "in.arrow", "out.arrow", keep=list(TYPED))
    found = ipc.open_file(tmp_path / "out.arrow").read_all().select(list(TYPED))
    at = expected.schema.names.index("labels")
    plain = expected.set_column(at, "labels", expected.column("labels").cast(pa.string()))
    assert found.equals(plain)


def test_labels_inside_of_others_are_written_as_values(tmp_path: Path) -> None:
    label = pa.dictionary(pa.int8(), pa.string())
    kind = pa.struct([("a", pa.list_(label)), ("b", pa.int64())])
    table = pa.table({"s": pa.array([{"a": ["x", "y"], "b": 1}, None], kind), "x": [1.0, 2.0]})
    (tmp_path / "in.arrow").write_bytes(made(table, False))
    run(tmp_path, "TableDoubler", tmp_path / "in.arrow", "out.arrow", keep=["s"])
    found = ipc.open_file(tmp_path / "out.arrow").read_all()
    assert found.column("s").to_pylist() == [{"a": ["x", "y"], "b": 1}, None]


# Damage


def test_a_stream_that_is_cut_off_anywhere_is_named(tmp_path: Path) -> None:
    content = made(numbers(12), True, 4)
    path = tmp_path / "in.arrows"
    for end in range(1, len(content)):
        path.write_bytes(content[:end])
        if end < 4:
            with pytest.raises(RequestError, match=r"in\.arrows is not Arrow IPC"):
                batches(path, Wanted("record"))
        else:
            with pytest.raises(InputReadError, match=r"in\.arrows cannot be read: damaged Arrow"):
                batches(path, Wanted("record"))


def test_a_file_that_is_cut_off_anywhere_is_named_and_the_job_goes_on_after_it_was_mended(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    content = made(numbers(60), False, 10)
    for name in "abc":
        (folder / f"{name}.arrow").write_bytes(content)
    path = folder / "b.arrow"
    for end in random.Random(1).sample(range(6, len(content)), 60):
        path.write_bytes(content[:end])
        with pytest.raises(InputReadError, match=r"b\.arrow cannot be read: damaged Arrow"):
            batches(path, Wanted("record"))
    settings = {"keep": ["id"], "split_size": 500}
    with pytest.raises(InputReadError, match=r"b\.arrow cannot be read: damaged Arrow"):
        run(tmp_path, "TableDoubler", folder, "out.arrow", **settings)
    path.write_bytes(content)
    done = run(tmp_path, "TableDoubler", folder, "out.arrow", resume=True, **settings)
    assert (done.predicted, done.failed) == (180, 0)
    assert done.description["splits_resumed"] > 0


def test_bytes_that_changed_are_named_or_are_other_values_and_never_end_the_process(
    tmp_path: Path,
) -> None:
    table = pa.table({"s": ["text", "ü", None] * 5, "l": [[1, 2], [], None] * 5, "x": [1.0] * 15})
    moments = random.Random(2)
    for stream in (False, True):
        content = made(table, stream, 5)
        for _ in range(150):
            changed = bytearray(content)
            for _ in range(3):
                changed[moments.randrange(8, len(content))] = moments.randrange(256)
            path = tmp_path / "in.arrow"
            path.write_bytes(changed)
            with contextlib.suppress(InputReadError):
                for batch in batches(path, Wanted("record")):
                    assert all(isinstance(record, dict) for record in batch.records().records)
                    batch.keep("all", None).texts()


def test_what_is_no_arrow_is_refused(tmp_path: Path) -> None:
    for content, said in ((b"FEA1...", "Feather of version 1"), (b"x,y\n", "is not Arrow IPC")):
        (tmp_path / "in.arrow").write_bytes(content)
        with pytest.raises(RequestError, match=said):
            pieces(tmp_path / "in.arrow")


def test_a_file_or_a_stream_may_have_no_rows(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.float64())])
    for stream in (False, True):
        for table in (schema.empty_table(), pa.table({"x": []}, schema)):
            (tmp_path / "in.arrow").write_bytes(made(table, stream))
            assert batches(tmp_path / "in.arrow", Wanted("record")) == []


def test_a_value_is_written_whole_or_fails() -> None:
    into = io.BytesIO()
    writer = formats.find("arrow").writer(into, (OutputColumn("a", pa.int64()),))
    values = [{"a": 1}, {"a": 1.5}, {"a": None}, {"a": True}]
    failures = writer.write(Outcome(4, values, False, None, None, []))
    writer.close()
    assert ([failure.row for failure in failures], writer.rows) == ([1, 3], 2)
    found = ipc.open_file(io.BytesIO(into.getvalue())).read_all()
    assert found.to_pylist() == [{"a": 1}, {"a": None}]


# Rare types

D = decimal.Decimal
RARE: dict[str, tuple[pa.Array, Any]] = {
    "string_view": (pa.array(["a", None], pa.string_view()), "a"),
    "binary_view": (pa.array([b"a", None], pa.binary_view()), "YQ=="),
    "list_view": (pa.array([[1], None], pa.list_view(pa.int64())), [1]),
    "runs": (pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), ["a", None]), "a"),
    "decimal256": (pa.array([D("1.5"), None], pa.decimal256(50, 2)), "1.50"),
    "duration": (pa.array([1, None], pa.duration("s")), "PT1S"),
    "interval": (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), "P1M2DT0.000000003S"),
    "union": (
        pa.UnionArray.from_sparse(
            pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", None])]
        ),
        1,
    ),
    "fixed_list": (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), [1, 2]),
    "time32": (pa.array([1, None], pa.time32("s")), "00:00:01"),
    "time64": (pa.array([1, None], pa.time64("ns")), "00:00:00.000000001"),
    "date64": (pa.array([datetime.date(2024, 1, 2), None], pa.date64()), "2024-01-02"),
    "fixed_bytes": (pa.array([b"ab", None], pa.binary(2)), "YWI="),
    "half": (pa.array([0.5, None], pa.float16()), 0.5),
    "map": (
        pa.array([[(1, "a")], None], pa.map_(pa.int64(), pa.string())),
        [{"key": 1, "value": "a"}],
    ),
    "labels": (pa.array([1, None]).dictionary_encode(), 1),
    "lists as labels": (
        pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int8()), pa.array([[1, 2]])),
        [1, 2],
    ),
    "nanoseconds": (
        pa.array([1, None], pa.timestamp("ns", "UTC")),
        "1970-01-01T00:00:00.000000001+00:00",
    ),
    "far": (pa.array([2**60, None], pa.timestamp("us")), "38504-08-17T21:30:06.846976"),
    "far list": (pa.array([[2**60], None], pa.list_(pa.timestamp("us", "UTC"))), None),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), 2**64 - 1),
    "views inside": (pa.array([{"a": ["x"]}, None], pa.struct(
        [("a", pa.list_(pa.string_view()))])), {"a": ["x"]}),
    "nothing inside": (pa.array([{}, None], pa.struct([])), {}),
    "nulls inside": (pa.array([[None], None], pa.list_(pa.null())), [None]),
    "not a number": (pa.array([float("nan"), None]), None),
    "infinite inside": (pa.array([[float("inf"), 1.5], None]), [None, 1.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", RARE)
def test_a_kept_column_of_any_type_goes_into_any_format(tmp_path: Path, name: str) -> None:
    column, said = RARE[name]
    (tmp_path / "in.arrow").write_bytes(made(pa.table({"c": column, "x": [1.0, 2.0]}), False))
    [kept, _] = formats.find("arrow").columns(str(tmp_path / "in.arrow"), None) or ()
    y = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0])], ["y"])
    for other in formats.NAMES:
        path = tmp_path / f"out.{other}"
        with path.open("wb") as handle:
            writer = formats.find(other).writer(handle, (kept, OutputColumn("y", pa.float64())))
            [batch] = batches(tmp_path / "in.arrow", Wanted("record"))
            assert json.loads(json.dumps(batch.original(1, parsed=True)))["record"]["x"] == 2.0
            for values, table in (([{"y": 1.0}, {"y": 2.0}], False), ([y], True)):
                outcome = Outcome(2, values, table, None, batch.keep(("c",), [0, 1]), [])
                assert writer.write(outcome) == []
            some = batch.keep(("c",), None).take([1, 0])
            assert writer.write(Outcome(2, [y], True, None, some, [])) == []
            writer.close()
        read = [r for b in batches(path, Wanted("record")) for r in b.records().records]
        assert len(read) == writer.rows == 6
        assert [row["y"] for row in read[:2]] in ([1.0, 2.0], ["1.0", "2.0"])
        if other == "jsonl" and name != "far list":
            assert [row["c"] for row in read[:2]] == [said, None]
