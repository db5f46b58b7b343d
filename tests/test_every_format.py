"""What the main job promises holds for each format: one test each, over all of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from commands import read_lines
from crashing import Command, wait_until

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Wanted
from modelbeam.formats.layout import OutputColumn
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources import source_of

LAYOUT = (OutputColumn("id", pa.string()), OutputColumn("x", pa.float64()))
PACKED = {"": None, **{f".{ending}": name for ending, name in formats.COMPRESSIONS.items()}}
ROWS = [
    {"id": f'{n:04d} "\n,é', "x": None if n == 77 else -1.0 if n % 50 == 7 else n / 2}
    for n in range(400)
]
GOOD = [row for row in ROWS if row["x"] is not None and row["x"] >= 0]
BAD = [n for n, row in enumerate(ROWS) if row not in GOOD]


def write(path: Path, rows: list[dict[str, Any]], suffix: str = "") -> Path:
    """Write a file of the format that the suffix names, in blocks of twenty records."""
    name = path.name.split(".")[1]
    with path.open("wb") as handle:
        packed = PACKED[suffix]
        stream: BinaryIO = handle if packed is None else compression.compressed(handle, packed)
        writer = formats.find(name).writer(stream, LAYOUT)
        for at in range(0, len(rows), 20):
            some = rows[at : at + 20]
            assert writer.write(Outcome(len(some), some, False, None, None, [])) == []
            if hasattr(writer, "_flush"):
                writer._flush()
        writer.close()
        if stream is not handle:
            stream.close()
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    source = source_of(str(path))
    found = source.discover([str(path)], any_suffix=False, excluded=())
    splits, _ = source.plan(found.inputs, 1 << 30, input_format=None, earlier=None)
    [piece] = splits[0].pieces
    batches = source.reader(piece, Wanted("record"))
    return [record for batch in batches for record in batch.records().records]


def settings_of(name: str, suffix: str, source: Path, output: Path) -> dict[str, Any]:
    return {
        "input": str(source),
        "output": str(output),
        "output_format": name + suffix,
        "keep": ["id"],
        "split_size": 2000,
        "workers": 1,
    }


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("name", formats.NAMES)
def test_counts_failures_and_one_file(tmp_path: Path, name: str, suffix: str) -> None:
    source = write(tmp_path / f"in.{name}{suffix}", ROWS, suffix)
    output = tmp_path / f"out.{name}{suffix}"
    model = "Doubler" if suffix in ("", ".zst") else "TableDoubler"
    done = modelbeam.predict(
        model=f"small_models:{model}", **settings_of(name, suffix, source, output)
    )
    assert (done.read, done.predicted, done.failed) == (len(ROWS), len(GOOD), len(BAD))
    assert done.shards == (str(output),)
    splits = done.description["splits"]
    assert splits > 1 if not suffix and name not in ("json", "arrows") else splits == 1
    packed = PACKED[suffix]
    with output.open("rb") as handle:
        begin = handle.read(4)
    assert packed is None or formats.detect.compression_of(begin) == packed
    assert [(row["id"], float(row["y"])) for row in read(output)] == [
        (row["id"], 2 * row["x"]) for row in GOOD
    ]
    errors = read_lines(tmp_path / "out.errors.jsonl")
    with source.open("rb") as handle:
        content = (handle if packed is None else compression.decompressed(handle, packed)).read(
            1 << 20
        )
    for error, n in zip(errors, BAD, strict=True):
        assert error["source"] == str(source)
        assert error["stage"] == ("validate" if n == 77 and model != "Doubler" else error["stage"])
        x = error["record"]["x"]
        assert (error["record"]["id"], None if x is None else float(x)) == (
            ROWS[n]["id"], ROWS[n]["x"],
        )  # fmt: skip
        if "row" in error:
            assert error["row"] == n + 1
            assert "line" not in error
        else:
            offset = error["offset"]
            assert content[:offset].count(b"\n") + 1 == error["line"]
            assert f"{n:04d} ".encode() in content[offset : offset + 12]


@pytest.mark.parametrize("name", formats.NAMES)
def test_a_run_that_was_killed_is_resumed_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write(folder / f"{number}.{name}", ROWS[number * 100 :][:100])
    whole = tmp_path / "whole" / f"out.{name}"
    output = tmp_path / f"out.{name}"
    undisturbed = settings_of(name, "", folder, whole)
    expected = modelbeam.predict(model="small_models:Slow", **undisturbed)
    assert (expected.predicted, expected.failed) == (len(GOOD), len(BAD))
    state = tmp_path / "out._modelbeam" / "manifests"
    flags = [f"-i={folder}", f"-o={output}", f"--output-format={name}", "--keep=id"]
    flags += ["--split-size=2000", "--workers=1", "-m=small_models:Slow"]
    with Command(*flags, env={"SLOW_SECONDS": "0.004"}) as command:
        wait_until(lambda: state.is_dir() and len(list(state.glob("*.json"))))
        os.killpg(command.group, signal.SIGKILL)
        command.process.wait()
    assert not output.exists()
    committed = len(list(state.glob("*.json")))
    done = modelbeam.predict(
        model="small_models:Slow", resume=True, **settings_of(name, "", folder, output)
    )
    assert (done.read, done.predicted, done.failed) == (len(ROWS), len(GOOD), len(BAD))
    assert done.description["splits_resumed"] == committed < done.description["splits"]
    assert output.read_bytes() == whole.read_bytes()
    one, other = (
        [{**json.loads(line), "source": ""} for line in file.read_text().splitlines()]
        for file in (tmp_path / "out.errors.jsonl", whole.with_name("out.errors.jsonl"))
    )
    assert one == other


@pytest.mark.parametrize("name", formats.NAMES)
def test_each_format_becomes_each_other(tmp_path: Path, name: str) -> None:
    """Values keep their types, as far as both formats have them."""
    source = write(tmp_path / f"in.{name}", GOOD[:40])
    for other in formats.NAMES:
        with (tmp_path / f"out.{other}").open("wb") as handle:
            layout = (*LAYOUT, OutputColumn("y", pa.int64()))
            writer = formats.find(other).writer(handle, layout)
            found = source_of("").discover([str(source)], any_suffix=False, excluded=())
            splits, _ = source_of("").plan(found.inputs, 1 << 30, input_format=None, earlier=None)
            count = 0
            for batch in source_of("").reader(splits[0].pieces[0], Wanted("record")):
                kept = batch.keep(("id",), batch.records().rows)
                values = [{"y": count + n} for n in range(len(kept))]
                assert writer.write(Outcome(len(kept), values, False, None, kept, [])) == []
                count += len(kept)
            writer.close()
        expected = [{"id": row["id"], "y": n} for n, row in enumerate(GOOD[:40])]
        assert [
            {"id": row["id"], "y": int(row["y"])} for row in read(tmp_path / f"out.{other}")
        ] == expected


@pytest.mark.parametrize("name", ["parquet", "arrow", "avro"])
@pytest.mark.parametrize("keep", ["all", ["id"]])
def test_the_first_file_may_be_the_damaged_one(tmp_path: Path, name: str, keep: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write(folder / f"{number}.{name}", GOOD[number * 100 :][:100])
    whole = (folder / f"0.{name}").read_bytes()
    for number in (0, 2):
        (folder / f"{number}.{name}").write_bytes(whole[: len(whole) // 2])
    settings = settings_of(name, "", folder, tmp_path / "out") | {"keep": keep}
    with pytest.raises(InputReadError, match=rf"{name} cannot be read") as caught:
        modelbeam.predict(model="small_models:Unsaying", **settings)
    assert all(str(folder / f"{number}.{name}") in str(caught.value) for number in (0, 2))
    committed = len(list((tmp_path / "out" / "_modelbeam" / "manifests").glob("*.json")))
    assert committed > 0
    for number in (0, 2):
        (folder / f"{number}.{name}").write_bytes(whole)
    done = modelbeam.predict(model="small_models:Unsaying", resume=True, **settings)
    assert (done.predicted, done.failed) == (300, 0)
    assert done.description["splits_resumed"] == committed
