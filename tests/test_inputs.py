"""Inputs are told by what they are, not by how they are called or written."""

from __future__ import annotations

import bz2
import gzip
import os
from pathlib import Path

import orjson
import pytest
from commands import write_lines
from hypothesis import given
from hypothesis import strategies as st

from modelbeam import storage
from modelbeam.errors import InputNotFoundError, RequestError
from modelbeam.formats import Format, detect
from modelbeam.formats.jsonl.detect import problem
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Plan, make_plan
from modelbeam.sources.files import find_inputs
from modelbeam.sources.looking import formats_of
from modelbeam.sources.splits import plan_splits, planned_again

try:
    from compression import zstd
except ImportError:
    from backports import zstd

RECORDS = b'{"x":1}\n{"x":2}\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*inputs: str, output: str = "out.jsonl", **settings: object) -> Plan:
    return make_plan(
        build_job({"models": "m:M", "inputs": list(inputs), "output": output, **settings})
    )


def paths(plan: Plan) -> list[str]:
    return [info.path for info in plan.inputs]


# What the bytes say

PACKED = {"gzip": gzip.compress, "bzip2": bz2.compress, "zstd": zstd.compress, None: bytes}


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in", "in.txt"])
@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_the_bytes_say_how_a_file_is_compressed(name: str, packed: str | None) -> None:
    Path(name).write_bytes(PACKED[packed](RECORDS))
    ((piece,),) = [split.pieces for split in planned(name).splits]
    assert piece.compression == packed


def test_a_file_that_is_damaged_from_its_first_byte_on_is_taken_for_what_it_is_called() -> None:
    Path("in.jsonl.gz").write_bytes(b"\x00\x01\x02\x03 no gzip")
    found = formats_of([storage.stat("in.jsonl.gz")], None)
    assert found == {"in.jsonl.gz": Format("jsonl", "gzip")}


@pytest.mark.parametrize("packed", PACKED, ids=str)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xfd7zXZ\x00\x00", "is xz"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"SQLite format 3\x00", "is an SQLite database"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"\x80\x04\x95", "is a pickle"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (RECORDS.decode().encode("utf-16"), "is UTF-16"),
        (RECORDS.decode().encode("utf-16-le"), "is UTF-16LE"),
        (RECORDS.decode().encode("utf-16-be"), "is UTF-16BE"),
        (RECORDS.decode().encode("utf-32"), "is UTF-32"),
        (RECORDS.decode().encode("utf-32-le"), "is UTF-32LE"),
        (RECORDS.decode().encode("utf-32-be"), "is UTF-32BE"),
        (b'{\n  "x": 1\n}\n{\n  "x": 2\n}\n', "objects over several lines"),
        (b'{"x":1}{"x":2}{"x":3}', "several on a line"),
        (b'{"x":1}, {"x":2}', "several on a line"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_what_is_certainly_no_json_lines_is_refused_by_name(
    content: bytes, said: str, packed: str | None
) -> None:
    Path("in.jsonl").write_bytes(PACKED[packed](content))
    with pytest.raises(RequestError, match=f"--input in.jsonl .*{said}"):
        planned("in.jsonl")


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 6))
def test_one_record_among_the_first_lines_is_enough_to_be_json_lines(
    lines: list[bytes], at: int
) -> None:
    lines = [line.replace(b"\n", b"") for line in lines if not line.lstrip().startswith(b"[")]
    at = min(at, len(lines))
    head = b"\n".join([*lines[:at], b'{"x":1}', *lines[at:]]) + b"\n"
    if detect.foreign(head) is None:
        assert problem(head, whole=True) is None


@pytest.mark.parametrize(
    "content",
    [b'[1,2]\n{"x":1}\n', b'{"x":1\n{"x":2}\n', b"no json\n", b'[1,2\n{"x":1}\n', b"null\n"],
)
def test_a_bad_line_is_an_error_line_and_no_reason_to_refuse_a_file(content: bytes) -> None:
    assert problem(content, whole=True) is None


def test_a_large_array_is_told_by_its_beginning() -> None:
    rows = b",\n".join(b'{"x":%d}' % n for n in range(20000))
    assert "one JSON array" in str(problem((b"[\n" + rows)[: detect.HEAD], whole=False))
    assert "one JSON array" in str(problem((b"[" + rows)[: detect.HEAD], whole=False))
    one_line = b"[" + b",".join(b'{"x":%d}' % n for n in range(20000))
    assert "one JSON array" in str(problem(one_line[: detect.HEAD], whole=False))


def test_an_errors_file_says_how_its_records_are_tried_again() -> None:
    line = {"source": "a", "line": 1, "model": "m", "stage": "predict", "type": "E", "error": "e"}
    Path("failed.jsonl").write_bytes(orjson.dumps({**line, "record": {"x": 1}}) + b"\n")
    with pytest.raises(RequestError, match=r"jq -c \.record failed\.jsonl > again\.jsonl"):
        planned("failed.jsonl")


# Directories and globs


def test_a_directory_is_its_data_files_and_its_partitions_and_the_rest_is_said() -> None:
    for name in ("day=1/part-0.json", "day=2/hour=3/part-0.json", "a.jsonl", "notes.md", "b.txt"):
        Path("tree", name).parent.mkdir(parents=True, exist_ok=True)
        Path("tree", name).write_bytes(RECORDS)
    for name in ("_SUCCESS", ".part-0.json.crc", "day=1/.part-0.json.crc", "run.json"):
        Path("tree", name).write_bytes(RECORDS)
    Path("tree/old/deep").mkdir(parents=True)
    plan = planned("tree")
    assert paths(plan) == [
        "tree/a.jsonl",
        "tree/day=1/part-0.json",
        "tree/day=2/hour=3/part-0.json",
    ]
    several, folders = plan.notes
    assert several.startswith("tree: 3 of 5 files are read; b.txt, notes.md have no suffix")
    assert folders.startswith("tree: the files in its 1 directory (old) are not read.")


def test_a_glob_of_directories_and_a_directory_of_them_say_how_files_are_named() -> None:
    Path("tree/one").mkdir(parents=True)
    Path("tree/one/a.jsonl").write_bytes(RECORDS)
    Path("tree/_SUCCESS").touch()
    with pytest.raises(
        InputNotFoundError, match=r"only directories \(tree/one\).*'tree/\*/\*.jsonl'"
    ):
        planned("tree/*")
    said = r"only directories \(one\).*'tree/\*\*/\*.jsonl'"
    with pytest.raises(InputNotFoundError, match=said):
        planned("tree")
    assert paths(planned("tree/**/*.jsonl")) == ["tree/one/a.jsonl"]


def test_a_finished_output_as_an_input_is_its_predictions() -> None:
    Path("out").mkdir()
    for name in (
        *("predictions-00001-of-00002.jsonl", "predictions-00000-of-00002.jsonl"),
        *("errors-00000-of-00002.jsonl", "run.json", "profile.json"),
        *("_SUCCESS", "report.html"),
    ):
        Path("out", name).write_bytes(RECORDS)
    for pattern in ("out", "out/*"):
        plan = planned(pattern, output="next")
        assert paths(plan) == [f"out/predictions-0000{n}-of-00002.jsonl" for n in (0, 1)]
        assert plan.notes == ()


# The same file


def test_a_file_that_is_named_twice_is_read_once_and_that_is_said(here: Path) -> None:
    Path("a.jsonl").write_bytes(RECORDS)
    os.symlink("a.jsonl", "link.jsonl")
    os.link("a.jsonl", "hard.jsonl")
    found = find_inputs(
        ["a.jsonl", "./a.jsonl", "link.jsonl", f"{here}/hard.jsonl"], any_suffix=False
    )
    assert [info.path for info in found.inputs] == ["a.jsonl"]
    assert found.notes == [
        "./a.jsonl is the same file as a.jsonl, and is read once.",
        "link.jsonl is the same file as a.jsonl, and is read once.",
        f"{here}/hard.jsonl is the same file as a.jsonl, and is read once.",
    ]


@pytest.mark.parametrize("name", ["link.jsonl", "./out.jsonl", "sub/../out.jsonl", "hard.jsonl"])
def test_an_output_is_never_its_own_input_however_it_is_written(name: str) -> None:
    Path("sub").mkdir()
    Path("out.jsonl").write_bytes(RECORDS)
    os.symlink("out.jsonl", "link.jsonl")
    os.link("out.jsonl", "hard.jsonl")
    with pytest.raises(RequestError, match="is also the output"):
        planned(name, output="out.jsonl", overwrite=True)
    Path("a.jsonl").write_bytes(RECORDS)
    assert paths(planned("*.jsonl", output="out.jsonl", overwrite=True)) == ["a.jsonl"]


def test_an_output_directory_is_not_read_by_the_job_that_replaces_it() -> None:
    Path("out").mkdir()
    os.symlink("out", "link")
    for name in ("predictions-00000-of-00001.jsonl", "run.json"):
        Path("out", name).write_bytes(RECORDS)
    for written in ("out", "link", "./out/"):
        with pytest.raises(InputNotFoundError, match="only the output of this very job"):
            planned(written, output="out", overwrite=True)


# What is no file


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("-", "standard input or a pipe"),
        ("/dev/stdin", "standard input or a pipe"),
        ("/dev/fd/63", "standard input or a pipe"),
        ("pipe.jsonl", "is a pipe; .* write it to a file first"),
        ("/dev/null", "is a device"),
        ("https://example.com/in.jsonl", "is a web address: download it"),
        ("s3a://bucket/in.jsonl", "is written s3:// here: s3://bucket/in.jsonl"),
        ("dbfs:/in.jsonl", "is written /dbfs/"),
        ("abfss://c@a.dfs.core.windows.net/in.jsonl", "is written azfs://"),
        ("postgresql://me@db/table", "is a database: export"),
        ("jdbc:postgresql://db/table", "is a database: export"),
    ],
)
def test_what_is_no_file_is_answered_in_one_sentence(pattern: str, said: str) -> None:
    os.mkfifo("pipe.jsonl")
    with pytest.raises(RequestError, match=said) as error:
        planned(pattern)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/dev/null"])
def test_an_output_that_is_no_file_is_refused(output: str) -> None:
    Path("in.jsonl").write_bytes(RECORDS)
    with pytest.raises(RequestError, match=f"--output {output} is no file or directory"):
        planned("in.jsonl", output=output)
    assert os.listdir() == ["in.jsonl"]


# Many small files


def test_many_small_files_share_splits_and_few_do_not(here: Path) -> None:
    for n in range(300):
        write_lines(here / f"{n:03}.jsonl", [{"x": n}])
    plan = planned("*.jsonl", output="out")
    assert len(plan.splits) == 75
    assert [piece.path for split in plan.splits for piece in split.pieces] == paths(plan)
    assert len(planned("00*.jsonl", output="out").splits) == 10


def test_a_repaired_file_does_not_change_which_files_share_a_split() -> None:
    files = [storage.FileInfo(f"{n:03}.jsonl", 10 + n % 3, 1) for n in range(300)]
    before = plan_splits(files, 1 << 20)
    repaired = [*files[:7], files[7]._replace(size=5000, mtime_ns=2), *files[8:]]
    after = planned_again(before, repaired, 1 << 20)
    assert {split.key for split in before} - {split.key for split in after} == {
        split.key for split in before if any(p.path == "007.jsonl" for p in split.pieces)
    }
