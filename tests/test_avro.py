"""Avro: blocks as pieces, every codec and type, a schema that Arrow has or has not, damage."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import io
import random
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import fastavro
import polars
import pyarrow as pa
import pytest
from commands import read_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from test_parquet import TYPED, batches, pieces, write

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.avro.types import columns_of
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome

SCHEMA = {
    "type": "record",
    "name": "Row",
    "fields": [{"name": "id", "type": "string"}, {"name": "x", "type": ["null", "double"]}],
}


def made(
    records: list[Any], schema: Any = None, codec: str = "deflate", interval: int = 16000
) -> bytes:
    into = io.BytesIO()
    fastavro.writer(into, schema or SCHEMA, records, codec, interval)
    return into.getvalue()


def numbers(count: int, bad: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"{n:05d}", "x": float(n) if not bad or n % bad else -1.0} for n in range(count)]


def read(path: Path, size: int = 1 << 30, wanted: Wanted | None = None) -> list[dict[str, Any]]:
    found = batches(path, wanted or Wanted("record"), size)
    return [record for batch in found for record in batch.records().records]


def run(tmp_path: Path, model: str, source: Path, output: str, **settings: Any) -> Any:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(source),
        output=str(tmp_path / output),
        workers=1,
        **settings,
    )


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "snappy", "zstandard", "lz4", "xz"])
def test_every_codec_and_every_cut_gives_the_same_records(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "in.avro"
    path.write_bytes(made(numbers(500), codec=codec, interval=200))
    for size in (1 << 30, 3000, 1000, 60):
        assert read(path, size) == numbers(500)
    found = pieces(path, 1000)
    assert [piece.end for piece in found[:-1]] == [piece.start for piece in found[1:]]
    assert sum(1 for p in found if list(formats.find("avro").reader(p, Wanted("record")))) > 3


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), max_size=12),
    size=st.integers(1, 400),
    batch=st.integers(1, 5),
)
def test_any_cut_of_any_blocks(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int, batch: int
) -> None:
    path = tmp_path_factory.mktemp("avro") / "in.avro"
    into = io.BytesIO()
    writer = fastavro.write.Writer(into, SCHEMA, "null")
    rows = numbers(sum(counts))
    at = 0
    for count in counts:
        for row in rows[at : at + count]:
            writer.write(row)
        writer.dump()  # also without a record
        at += count
    path.write_bytes(into.getvalue())
    assert read(path, size, Wanted("batch", batch_size=batch)) == rows


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_avro_to_avro(tmp_path: Path, model: str) -> None:
    path = tmp_path / "in.avro"
    path.write_bytes(made(numbers(1000, bad=100), interval=500))
    good = [{"id": f"{n:05d}", "y": 2.0 * n} for n in range(1000) if n % 100]
    for output in ("out.avro", "out.avro.gz", "out.avro.zst"):
        done = run(tmp_path, model, path, output, keep=["id"], split_size=700)
        assert (done.read, done.predicted, done.failed) == (1000, 990, 10)
        errors = read_lines(tmp_path / "out.errors.jsonl")
        assert [(e["row"], e["record"]) for e in errors] == [
            (n + 1, {"id": f"{n:05d}", "x": -1.0}) for n in range(0, 1000, 100)
        ]
        assert read(tmp_path / output) == good
        (tmp_path / "out.run.json").unlink()
    with (tmp_path / "out.avro").open("rb") as handle:
        assert list(fastavro.reader(handle)) == good
    assert polars.read_avro(tmp_path / "out.avro").to_dicts() == good
    run(tmp_path, model, path, "again.avro", keep=["id"], split_size=700)
    assert (tmp_path / "again.avro").read_bytes() == (tmp_path / "out.avro").read_bytes()


MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678000, datetime.timezone.utc)
ODD = {
    "type": "record",
    "name": "Odd",
    "namespace": "a.b",
    "fields": [
        {"name": "x", "type": "float"},
        {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}},
        {"name": "other", "type": "Color"},
        {"name": "hash", "type": {"type": "fixed", "name": "c.Hash", "size": 4}},
        {"name": "again", "type": ["null", "c.Hash"]},
        {"name": "counts", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "points", "type": {"type": "array", "items": {
            "type": "record", "name": "Point", "fields": [
                {"name": "at", "type": {"type": "int", "logicalType": "date"}},
                {"name": "by", "type": {"type": "map", "values": "string"}}]}}},
        {"name": "price", "type": {
            "type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "utc", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "key", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "nothing", "type": "null"},
        {"name": "unknown", "type": {"type": "long", "logicalType": "of-nobody"}},
    ],
}  # fmt: skip
OPEN = {
    "type": "record",
    "name": "Node",
    "fields": [
        {"name": "x", "type": ["double", "null"]},
        {"name": "many", "type": ["null", "string", "long", {"type": "array", "items": "int"}]},
        {"name": "next", "type": ["null", "Node"]},
    ],
}
ODD_RECORD = {
    "x": 1.5,
    "color": "RED",
    "other": "BLUE",
    "hash": b"\x00\x01\xfe\xff",
    "again": None,
    "counts": {"a": 1, "b": None},
    "points": [{"at": datetime.date(2024, 1, 2), "by": {"k": "v"}}],
    "price": decimal.Decimal("1234.50"),
    "utc": MOMENT,
    "local": datetime.datetime(2024, 1, 2, 3, 4, 5, 6),
    "time": datetime.time(3, 4, 5, 678000),
    "key": uuid.UUID("12345678123456781234567812345678"),
    "nothing": None,
    "unknown": 7,
}
ODD_JSON = {
    "color": "RED",
    "other": "BLUE",
    "hash": "AAH+/w==",
    "again": None,
    "counts": {"a": 1, "b": None},
    "points": [{"at": "2024-01-02", "by": {"k": "v"}}],
    "price": "1234.50",
    "utc": "2024-01-02T03:04:05.678000+00:00",
    "local": "2024-01-02T03:04:05.000006",
    "time": "03:04:05.678000",
    "key": "12345678-1234-5678-1234-567812345678",
    "nothing": None,
    "unknown": 7,
}


def test_the_types_of_a_schema() -> None:
    found = {column.name: column.type for column in columns_of(ODD)}
    assert found["points"] == pa.list_(
        pa.struct([("at", pa.date32()), ("by", pa.map_(pa.string(), pa.string()))])
    )
    assert found["again"] == found["hash"] == pa.binary(4)
    assert found["counts"] == pa.map_(pa.string(), pa.int64())
    assert (found["other"], found["key"]) == (pa.string(), pa.string())
    assert (found["price"], found["utc"]) == (pa.decimal128(9, 2), pa.timestamp("ms", "UTC"))
    assert columns_of(OPEN) == (
        OutputColumn("x", pa.float64()), OutputColumn("many"), OutputColumn("next"),
    )  # fmt: skip


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_every_type_is_kept(tmp_path: Path, model: str) -> None:
    path = tmp_path / "in.avro"
    bad = {**ODD_RECORD, "x": -1.0}
    path.write_bytes(made([ODD_RECORD, bad, ODD_RECORD], ODD))
    keep = [name for name in ODD_RECORD if name != "x"]
    done = run(tmp_path, model, path, "out.jsonl", keep=keep)
    assert (done.predicted, done.failed) == (2, 1)
    assert read_lines(tmp_path / "out.jsonl") == [{**ODD_JSON, "y": 3.0}] * 2
    [error] = read_lines(tmp_path / "out.errors.jsonl")
    assert (error["row"], error["record"]) == (2, {"x": -1.0, **ODD_JSON})
    run(tmp_path, model, path, "out.parquet", keep=keep)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.schema.field("price").type == pa.decimal128(9, 2)
    assert table.schema.field("utc").type == pa.timestamp("ms", "UTC")
    assert table.column("points").to_pylist()[0][0]["at"] == datetime.date(2024, 1, 2)
    run(tmp_path, model, path, "out.avro", keep=keep)
    [again, _] = read(tmp_path / "out.avro")
    expected = {**ODD_RECORD, "key": str(ODD_RECORD["key"]), "y": 3.0}
    del expected["x"]
    assert again == expected


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_what_arrow_has_no_type_for_is_text(tmp_path: Path, model: str) -> None:
    rows = [
        {"x": 1.0, "many": "a", "next": None},
        {"x": 2.0, "many": 5, "next": {"x": 1.0, "many": None, "next": None}},
        {"x": None, "many": [1], "next": None},
        {"x": 4.0, "many": None, "next": None},
    ]
    path = tmp_path / "in.avro"
    path.write_bytes(made(rows, OPEN))
    done = run(tmp_path, model, path, "out.jsonl", keep=["many", "next"])
    assert (done.predicted, done.failed) == (3, 1)
    good = [row for row in rows if row["x"] is not None]
    assert read_lines(tmp_path / "out.jsonl") == [
        {"many": row["many"], "next": row["next"], "y": 2 * row["x"]} for row in good
    ]
    for output in ("out.parquet", "out.avro"):
        run(tmp_path, model, path, output, keep=["many", "next"])
        assert [(r["many"], r["next"]) for r in read(tmp_path / output)] == [
            ("a", None), ("5", '{"x":1.0,"many":null,"next":null}'), (None, None),
        ]  # fmt: skip


def test_numbers_are_what_the_schema_of_the_model_says(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "x", "type": "long"}, {"name": "i", "type": "double"}]}  # fmt: skip
    path = tmp_path / "in.avro"
    path.write_bytes(made([{"x": 2**53, "i": 2.0}, {"x": 1, "i": 2.5}], schema))
    columns = (Column("x", "float"), Column("i", "int"), Column("z", "str", nullable=True))
    signature = Signature(columns, exact=True)
    [batch] = batches(path, Wanted("table", signature=signature))
    found = batch.table(signature, dict)
    assert found.records.to_pylist() == [{"x": 2.0**53, "i": 2, "z": None}]
    assert [failure.row for failure in found.failures] == [1]


def test_types_that_avro_lacks_are_text_and_others_stay(tmp_path: Path) -> None:
    table = pa.table({**TYPED, "x": [1.0, 2.0]})
    write(tmp_path / "in.parquet", table)
    done = run(tmp_path, "TableDoubler", tmp_path / "in.parquet", "out.avro", keep=list(TYPED))
    assert (done.predicted, done.failed) == (2, 0)
    [first, second] = read(tmp_path / "out.avro")
    assert first["decimal"] == decimal.Decimal("1234567.890123456789")
    assert (first["uint64"], first["half"], first["labels"]) == (str(2**64 - 1), 0.5, "a")
    assert first["naive"] == "1970-01-01T00:00:00.000000001"
    assert first["paris"] == datetime.datetime(1970, 1, 1, microsecond=1000, tzinfo=MOMENT.tzinfo)
    assert (first["map"], first["struct"]) == ({"k": 1}, {"a": 1, "b": "x"})
    assert {name for name, value in second.items() if value is None} >= {"list", "map", "null"}


@pytest.mark.parametrize("name", ["a.b", "two words", "1st", "\u00e9"])
def test_a_name_that_avro_does_not_allow_is_refused_before_the_run(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path / "in.parquet", pa.table({"x": [1.0], name: [1]}))
    with pytest.raises(RequestError, match=f"column '{name}' cannot be called so in Avro"):
        run(tmp_path, "Doubler", tmp_path / "in.parquet", "out.avro", keep=[name])
    assert not (tmp_path / "out.avro").exists()


def test_records_among_other_things(tmp_path: Path) -> None:
    schema = [SCHEMA, "string"]
    path = tmp_path / "in.avro"
    path.write_bytes(made([{"id": "a", "x": 1.0}, "text", {"id": "b", "x": 2.0}], schema))
    done = run(tmp_path, "Doubler", path, "out.jsonl")
    assert (done.predicted, done.failed) == (2, 1)
    [error] = read_lines(tmp_path / "out.errors.jsonl")
    assert (error["row"], error["stage"], error["record"]) == (2, "decode", "text")


# What is refused, and damage


def test_what_cannot_be_read_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.avro"
    path.write_bytes(b"x,y\n1,2\n")
    with pytest.raises(RequestError, match=r"in\.avro is not Avro, which begins with Obj"):
        pieces(path)
    path.write_bytes(made([1, 2], "int"))
    with pytest.raises(RequestError, match=r"in\.avro holds no records"):
        pieces(path)
    content = made(numbers(3), codec="snappy")
    path.write_bytes(content.replace(b"snappy", b"snippy"))
    with pytest.raises(RequestError, match=r"codec snippy, which is not known"):
        pieces(path)
    path.write_bytes(content)
    assert read(path) == numbers(3)

    def missing(*_: Any) -> Any:
        raise ValueError

    monkeypatch.setitem(fastavro.read.BLOCK_READERS, "snappy", missing)
    with pytest.raises(RequestError, match=r"codec snappy, which needs cramjam: pip"):
        pieces(path)
    monkeypatch.setitem(sys.modules, "fastavro", None)
    monkeypatch.setattr(formats, "_found", {})
    with pytest.raises(RequestError, match=r'"modelbeam\[avro\]"'):
        pieces(path)


@pytest.mark.parametrize("size", [1 << 30, 300])
def test_a_file_that_is_cut_off_is_named_wherever_that_is(tmp_path: Path, size: int) -> None:
    content = made(numbers(60), interval=200)
    whole = [0]
    with io.BytesIO(content) as handle:
        whole += [block.offset for block in fastavro.block_reader(handle)]
    path = tmp_path / "in.avro"
    for end in range(5, len(content)):
        path.write_bytes(content[:end])
        if end in whole:  # the end of a block is the end of a file
            assert read(path, size) == numbers(60)[: len(read(path, size))]
            continue
        with pytest.raises(InputReadError, match=r"in\.avro cannot be read: damaged Avro"):
            read(path, size)


def test_a_broken_marker_or_block_names_the_file_and_the_job_goes_on_after_it_was_mended(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    content = made(numbers(300), interval=300)
    for name in "abc":
        (folder / f"{name}.avro").write_bytes(content)
    path = folder / "b.avro"
    with io.BytesIO(content) as handle:
        blocks = list(fastavro.block_reader(handle))
    settings = {"keep": ["id"], "split_size": 500}
    marker, inside = blocks[5].offset - 8, blocks[3].offset + 20
    for at, said in ((marker, "is another one"), (inside, "cannot be decoded")):
        path.write_bytes(content[:at] + b"\xff\xfe\xfd\xfc" + content[at + 4 :])
        for size in (1 << 30, 1000, 200):
            place = blocks[4 if at == marker else 3].offset
            with pytest.raises(InputReadError, match=rf"b\.avro .*at byte {place} {said}"):
                read(path, size)
    with pytest.raises(InputReadError, match=r"b\.avro cannot be read: damaged Avro"):
        run(tmp_path, "TableDoubler", folder, "out.avro", **settings)
    path.write_bytes(content)
    done = run(tmp_path, "TableDoubler", folder, "out.avro", resume=True, **settings)
    assert (done.predicted, done.failed) == (900, 0)
    assert done.description["splits_resumed"] > 0


def test_bytes_that_changed_are_named_or_are_other_values(tmp_path: Path) -> None:
    moments = random.Random(3)
    content = made([ODD_RECORD] * 5, ODD, "null", 100)
    path = tmp_path / "in.avro"
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(3):
            changed[moments.randrange(4, len(content))] = moments.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(InputReadError, RequestError):
            for batch in batches(path, Wanted("record")):
                assert all(isinstance(record, dict) for record in batch.records().records)
                kept = batch.keep("all", None)
                assert len(kept.texts()) == len(kept.dicts()) == len(kept)
                batch.original(0, parsed=True)


def test_a_file_may_have_no_records(tmp_path: Path) -> None:
    for content in (b"", made([])):
        (tmp_path / "in.avro").write_bytes(content)
        assert read(tmp_path / "in.avro") == []


def test_a_value_is_written_whole_or_fails() -> None:
    into = io.BytesIO()
    writer = formats.find("avro").writer(into, (OutputColumn("a", pa.int32()),))
    values = [{"a": 1}, {"a": 2**40}, {"a": None}, {"a": 1.5}]
    failures = writer.write(Outcome(4, values, False, None, None, []))
    writer.close()
    assert ([failure.row for failure in failures], writer.rows) == ([1, 3], 2)
    assert list(fastavro.reader(io.BytesIO(into.getvalue()))) == [{"a": 1}, {"a": None}]


AVRO_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,4}", fullmatch=True)
VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.string(): st.text(max_size=5),
    None: st.text(max_size=5),
    pa.list_(pa.int64()): st.lists(st.integers(0, 9), max_size=3),
    pa.struct([("x", pa.bool_())]): st.fixed_dictionaries({"x": st.booleans()}),
}


@settings(max_examples=60)
@given(st.data())
def test_several_models_are_read_again_as_they_were_written(data: st.DataObject) -> None:
    """Whatever they and their columns are called, with any of them null; kept as they were read."""
    names = data.draw(st.lists(AVRO_NAMES, min_size=2, max_size=4, unique=True))
    kept, *members = names
    layout = [OutputColumn(kept, pa.int64())]
    for model in members:
        for name in data.draw(st.lists(AVRO_NAMES, min_size=1, max_size=3, unique=True)):
            kind = data.draw(st.sampled_from(list(VALUES)))
            layout.append(OutputColumn(f"{model}.{name}", kind, model))
    assert formats.find("avro").layout_problem(tuple(layout)) is None
    rows = [
        {c.name: data.draw(st.none() | VALUES[c.type]) for c in layout}
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    wanted = []
    for row in rows:
        one: dict[str, Any] = {kept: row[kept]}
        for model in members:
            own = {c.own_name: row[c.name] for c in layout if c.model == model}
            one[model] = None if all(value is None for value in own.values()) else own
        wanted.append(one)
    made = written(layout, Outcome(len(rows), rows, False, None, None, []))
    assert list(fastavro.reader(io.BytesIO(made))) == wanted
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "in.avro"
        path.write_bytes(made)
        [batch] = batches(path, Wanted("record", keep="all"))
    assert batch.records().records == wanted
    again = Outcome(len(rows), [{}] * len(rows), False, None, batch.keep("all", None), [])
    assert written(layout, again) == made


def written(layout: list[OutputColumn], outcome: Outcome) -> bytes:
    into = io.BytesIO()
    writer = formats.find("avro").writer(into, tuple(layout))
    assert writer.write(outcome) == []
    writer.close()
    return into.getvalue()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (OutputColumn("old-one.y", None, "old-one"), "the model 'old-one' cannot be called so"),
        (OutputColumn("a.p.x", None, "a"), "column 'p.x' of the model 'a' .* --rename a.p.x=NAME"),
    ],
)
def test_a_model_that_avro_does_not_allow_is_refused(column: OutputColumn, said: str) -> None:
    assert re.search(said, formats.find("avro").layout_problem((column,)) or "")
