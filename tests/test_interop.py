"""Files of other programs are read, and ours are read by them, all shards as one dataset.

``files/pandas.*`` were written by pandas 3.1: a frame with an index, ``Int64`` with a null, a
category, zoned times, and a text with a comma, quotes and a newline.
"""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import polars
import pyarrow as pa
import pytest
from commands import read_lines
from pyarrow import dataset

import modelbeam
from modelbeam import formats

FILES = Path(__file__).parent / "files"

DAY = datetime.date(2024, 1, 2)
MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5)
TEXTS = ["plain", 'quo"te', "com,ma", "new\nline", "\u00e9\U0001f600", " spaces ", None, "00123"]
ROWS: list[dict[str, Any]] = [
    {
        "x": n + 0.5,
        "n": None if n == 3 else n,
        "s": text,
        "b": bool(n % 2),
        "day": DAY,
        "at": MOMENT,
    }
    for n, text in enumerate(TEXTS)
]
SCHEMA = pa.schema(
    {
        "x": pa.float64(),
        "n": pa.int64(),
        "s": pa.string(),
        "b": pa.bool_(),
        "day": pa.date32(),
        "at": pa.timestamp("us"),
    }
)
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)
FRAME = polars.from_arrow(TABLE)
assert isinstance(FRAME, polars.DataFrame)


def copied(options: str) -> Callable[[Path], Any]:
    """What writes a file by DuckDB."""

    def write(path: Path) -> None:
        connection = duckdb.connect()
        connection.register("rows", TABLE)
        connection.execute(f"COPY (SELECT * FROM rows) TO '{path}' ({options})")

    return write


def by_fastavro(path: Path) -> None:
    """Write a file by fastavro, with logical types."""
    kinds = {
        "x": "double",
        "n": "long",
        "s": "string",
        "b": "boolean",
        "day": {"type": "int", "logicalType": "date"},
        "at": {"type": "long", "logicalType": "local-timestamp-micros"},
    }
    fields = [{"name": name, "type": ["null", kind]} for name, kind in kinds.items()]
    with path.open("wb") as handle:
        fastavro.writer(handle, {"type": "record", "name": "Row", "fields": fields}, ROWS, "snappy")


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "Polars to CSV": ("in.csv", lambda path: FRAME.write_csv(path)),
    "Polars to CSV with ;": ("in.csv", lambda path: FRAME.write_csv(path, separator=";")),
    "Polars to TSV": ("in.tsv", lambda path: FRAME.write_csv(path, separator="\t")),
    "Polars to Parquet": ("in.parquet", lambda path: FRAME.write_parquet(path)),
    "Polars to Arrow": ("in.arrow", lambda path: FRAME.write_ipc(path)),
    "Polars to Arrow, packed": ("in.ipc", lambda path: FRAME.write_ipc(path, compression="lz4")),
    "Polars to a stream": ("in.arrows", lambda path: FRAME.write_ipc_stream(path)),
    "Polars to Avro": ("in.avro", lambda path: FRAME.write_avro(path, "deflate")),
    "Polars to lines": ("in.jsonl", lambda path: FRAME.write_ndjson(path)),
    "Polars to an array": ("in.json", lambda path: FRAME.write_json(path)),
    "fastavro to Avro": ("in.avro", by_fastavro),
    "DuckDB to CSV": ("in.csv", copied("FORMAT csv, HEADER")),
    "DuckDB to CSV with |": ("in.csv", copied("FORMAT csv, HEADER, DELIMITER '|'")),
    "DuckDB to CSV, packed": ("in.csv.gz", copied("FORMAT csv, HEADER, COMPRESSION gzip")),
    "DuckDB to Parquet": ("in.parquet", copied("FORMAT parquet, ROW_GROUP_SIZE 2048")),
    "DuckDB to lines": ("in.jsonl", copied("FORMAT json")),
    "DuckDB to an array": ("in.json", copied("FORMAT json, ARRAY true")),
}


def run(tmp_path: Path, source: Any, output: str, model: str = "Doubler", **settings: Any) -> Any:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(source),
        output=str(tmp_path / output),
        workers=1,
        **settings,
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_what_others_write_is_read(tmp_path: Path, writer: str) -> None:
    name, write = WRITERS[writer]
    write(tmp_path / name)
    keep = ["n", "s", "b", "day", "at"]
    done = run(tmp_path, tmp_path / name, "out.jsonl", keep=keep)
    assert (done.predicted, done.failed) == (len(ROWS), 0), done.failures
    text = "csv" in name or "tsv" in name
    for found, row in zip(read_lines(tmp_path / "out.jsonl"), ROWS, strict=True):
        assert found["y"] == 2 * row["x"]
        assert found["s"] == row["s"]
        assert found["n"] == (str(row["n"]) if text and row["n"] is not None else row["n"])
        assert str(found["b"]).lower() == str(row["b"]).lower()
        assert found["day"] == "2024-01-02"
        assert found["at"].replace(" ", "T").rstrip("0").rstrip(".") == "2024-01-02T03:04:05"


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_what_pandas_writes_is_read(tmp_path: Path, model: str) -> None:
    texts = ['a "b", c\nd', "", None]
    for suffix in ("csv", "parquet", "feather", "json", "jsonl"):
        keep = ["id", "s", "label", "at"]
        done = run(tmp_path, FILES / f"pandas.{suffix}", "out.jsonl", model, keep=keep,
                   overwrite=True)  # fmt: skip
        assert (done.predicted, done.failed) == (2, 1)
        found = read_lines(tmp_path / "out.jsonl")
        assert [row["y"] for row in found] == [3.0, 5.0]
        assert [row["label"] for row in found] == ["u", "v"]
        expected = [texts[0], None] if suffix == "csv" else texts[:2]  # pandas tells them not apart
        assert [row["s"] for row in found] == expected
        assert [str(row["id"]) for row in found] == ["1", "None"]
        assert found[1]["at"] is None
        moment = datetime.datetime.fromisoformat(found[0]["at"].replace("Z", "+00:00"))
        assert moment.timestamp() == 1704161045
        [error] = read_lines(tmp_path / "out.errors.jsonl")
        assert error["stage"] in ("validate", "predict")


# Ours, read by others


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of which one has only nulls, one no record that can be predicted, one late columns."""
    folder = tmp_path_factory.mktemp("source")
    for number, rows in enumerate(
        (
            [{"x": 1.0, "id": None, "s": None}] * 3,
            [{"x": -1.0, "id": 7, "s": "lost"}] * 3,
            [{"x": 2.0, "id": 2**40, "s": 'a,"b"\n'}, {"x": 3.0, "id": 1, "s": ""}],
        )
    ):
        schema = pa.schema({"x": pa.float64(), "id": pa.int64(), "s": pa.string()})
        table = pa.Table.from_pylist(rows, schema)
        if number < 2:
            table = table.set_column(1, "id", table.column("id").cast(pa.int32()))
        pa.parquet.write_table(table, folder / f"{number}.parquet")
    return folder


EXPECTED = [
    *[{"id": None, "s": None, "y": 2.0}] * 3,
    {"id": 2**40, "s": 'a,"b"\n', "y": 4.0},
    {"id": 1, "s": "", "y": 6.0},
]


POLARS: Any = {"id": polars.Int64, "s": polars.String, "y": polars.Float64}


def by_duckdb(shards: list[Path], call: str) -> list[dict[str, Any]]:
    """What DuckDB reads with a call in which SHARDS stands for the paths."""
    paths = ", ".join(f"'{path}'" for path in shards)
    query = f"SELECT id, s, y FROM {call.replace('SHARDS', f'[{paths}]')}"
    found = duckdb.connect().execute(query)
    return [dict(zip(("id", "s", "y"), row, strict=True)) for row in found.fetchall()]


def one_by_one(shards: list[Path], read: Callable[[Path], polars.DataFrame]) -> Any:
    """What Polars reads where it takes one file at a time; other schemas would not fit."""
    return polars.concat([read(path) for path in shards]).to_dicts()


def by_pyarrow(shards: list[Path], kind: str) -> list[Any]:
    """What an Arrow dataset reads of all shards."""
    found: list[Any] = dataset.dataset(list(map(str, shards)), format=kind).to_table().to_pylist()
    return found


def decoded(shards: list[Path]) -> list[Any]:
    """What fastavro reads of all shards."""
    return [row for path in shards for row in fastavro.reader(io.BytesIO(path.read_bytes()))]


def parsed(shards: list[Path]) -> list[Any]:
    """What Python reads of all shards that are arrays."""
    return [row for path in shards for row in json.loads(path.read_text())]


CSV = (
    "read_csv(SHARDS, header=true, allow_quoted_nulls=false, "
    "types={'id': 'BIGINT', 's': 'VARCHAR', 'y': 'DOUBLE'})"
)
READERS: dict[str, dict[str, Callable[[list[Path]], list[Any]]]] = {
    "jsonl": {
        "Polars": lambda shards: polars.read_ndjson(shards, schema=POLARS).to_dicts(),
        "DuckDB": lambda shards: by_duckdb(shards, "read_json(SHARDS, format='nd')"),
    },
    "json": {
        "Python": parsed,
        "DuckDB": lambda shards: by_duckdb(shards, "read_json(SHARDS, format='array')"),
    },
    "csv": {
        "Polars": lambda shards: polars.read_csv(shards, schema=POLARS).to_dicts(),
        "DuckDB": lambda shards: by_duckdb(shards, CSV),
    },
    "tsv": {
        "Polars": lambda shards: polars.read_csv(shards, separator="\t", schema=POLARS).to_dicts(),
        "DuckDB": lambda shards: by_duckdb(shards, CSV),
    },
    "parquet": {
        "Polars": lambda shards: polars.read_parquet(shards).to_dicts(),
        "DuckDB": lambda shards: by_duckdb(shards, "read_parquet(SHARDS)"),
        "pyarrow": lambda shards: by_pyarrow(shards, "parquet"),
    },
    "arrow": {
        "Polars": lambda shards: polars.read_ipc(shards).to_dicts(),
        "pyarrow": lambda shards: by_pyarrow(shards, "ipc"),
    },
    "arrows": {"Polars": lambda shards: one_by_one(shards, polars.read_ipc_stream)},
    "avro": {
        "Polars": lambda shards: one_by_one(shards, polars.read_avro),
        "fastavro": decoded,
    },
}


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
@pytest.mark.parametrize("name", READERS)
def test_all_shards_are_one_dataset_to_others(
    tmp_path: Path, source: Path, name: str, model: str
) -> None:
    settings = {"keep": ["id", "s"], "split_size": 1, "output_format": name}
    done = run(tmp_path, source, "out", model, **settings)
    assert (done.predicted, done.failed, len(done.shards)) == (5, 3, 3)
    for reader, read in READERS[name].items():
        found = read(list(map(Path, done.shards)))
        expected = EXPECTED
        if (
            name in ("csv", "tsv") and reader == "Polars"
        ):  # it does not tell nothing from empty text
            found, expected = (
                [{**row, "s": row["s"] or None} for row in rows] for rows in (found, EXPECTED)
            )
        assert found == expected, reader


def test_every_format_is_read_by_others() -> None:
    assert READERS.keys() == set(formats.NAMES)
