"""Files of other programs are read, and ours are read by them, all shards as one dataset.

``files/pandas.*`` were written by pandas 3.1: a frame with an index, ``Int64`` with a null, a
category, zoned times, and a text with a comma, quotes and a newline.
"""

from __future__ import annotations

import datetime
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


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "Polars to CSV": ("in.csv", lambda path: FRAME.write_csv(path)),
    "Polars to CSV with ;": ("in.csv", lambda path: FRAME.write_csv(path, separator=";")),
    "Polars to Parquet": ("in.parquet", lambda path: FRAME.write_parquet(path)),
    "Polars to Arrow": ("in.arrow", lambda path: FRAME.write_ipc(path)),
    "Polars to Arrow, packed": ("in.ipc", lambda path: FRAME.write_ipc(path, compression="lz4")),
    "Polars to a stream": ("in.arrows", lambda path: FRAME.write_ipc_stream(path)),
    "Polars to Avro": ("in.avro", lambda path: FRAME.write_avro(path, "deflate")),
    "Polars to lines": ("in.jsonl", lambda path: FRAME.write_ndjson(path)),
    "Polars to an array": ("in.json", lambda path: FRAME.write_json(path)),
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
    text = "csv" in name
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


def by_duckdb(query: str) -> list[dict[str, Any]]:
    """What DuckDB reads, in the order of the files."""
    found = duckdb.connect().execute(f"SELECT id, s, y FROM {query}")
    return [dict(zip(("id", "s", "y"), row, strict=True)) for row in found.fetchall()]


def by_avro(folder: Path) -> list[Any]:
    """What fastavro reads of all shards."""
    found = []
    for shard in sorted(folder.glob("predictions-*")):
        with shard.open("rb") as handle:
            found += list(fastavro.reader(handle))
    return found


def by_pyarrow(folder: Path, kind: str) -> list[Any]:
    """What an Arrow dataset reads of all shards."""
    paths = [str(path) for path in sorted(folder.glob("predictions-*"))]
    found: list[Any] = dataset.dataset(paths, format=kind).to_table().to_pylist()
    return found


@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
@pytest.mark.parametrize("name", ["csv", "parquet", "arrow", "arrows", "avro", "jsonl", "json"])
def test_all_shards_are_one_dataset_to_others(
    tmp_path: Path, source: Path, name: str, model: str
) -> None:
    settings = {"keep": ["id", "s"], "split_size": 1, "output_format": name}
    done = run(tmp_path, source, "out", model, **settings)
    assert (done.predicted, done.failed, len(done.shards)) == (5, 3, 3)
    shards = str(tmp_path / "out" / "predictions-*")
    frames: list[polars.DataFrame] = []
    if name == "csv":
        # Polars does not tell nothing from empty text
        frame = polars.read_csv(shards, schema=POLARS)
        expected = [{**row, "s": row["s"] or None} for row in EXPECTED]
        assert [{**row, "s": row["s"] or None} for row in frame.to_dicts()] == expected
        apart = "allow_quoted_nulls=false"
        types = "types={'id': 'BIGINT', 's': 'VARCHAR', 'y': 'DOUBLE'}"
        assert by_duckdb(f"read_csv('{shards}', header=true, {types}, {apart})") == EXPECTED
    elif name == "parquet":
        frames = [polars.read_parquet(shards)]
        assert by_duckdb(f"read_parquet('{shards}')") == EXPECTED
        assert by_pyarrow(tmp_path / "out", "parquet") == EXPECTED
    elif name == "arrow":
        frames = [polars.read_ipc(shards)]
        assert by_pyarrow(tmp_path / "out", "ipc") == EXPECTED
    elif name == "arrows":
        paths = sorted((tmp_path / "out").glob("predictions-*"))
        frames = [polars.concat([polars.read_ipc_stream(path) for path in paths])]
    elif name == "avro":
        paths = sorted((tmp_path / "out").glob("predictions-*"))
        frames = [polars.concat([polars.read_avro(path) for path in paths])]
        assert by_avro(tmp_path / "out") == EXPECTED
    elif name == "jsonl":
        frames = [polars.read_ndjson(shards, schema=POLARS)]
        assert by_duckdb(f"read_json('{shards}', format='newline_delimited')") == EXPECTED
    else:
        paths = sorted((tmp_path / "out").glob("predictions-*"))
        assert [row for path in paths for row in json.loads(path.read_text())] == EXPECTED
        assert by_duckdb(f"read_json('{shards}', format='array')") == EXPECTED
    assert [frame.to_dicts() for frame in frames] == [EXPECTED] * len(frames)
