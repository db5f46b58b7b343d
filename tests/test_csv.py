"""CSV: any cut gives the same records, and what is unusual in a file is told or kept apart."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from commands import read_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.base import Wanted
from modelbeam.formats.csv.records import record_ends, skim
from modelbeam.formats.csv.writer import text_of
from modelbeam.formats.layout import OutputColumn
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.job.description import build_job
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome
from modelbeam.sources import source_of


def read(
    path: Path,
    size: int = 1 << 30,
    reading: Reading = AS_IT_SAYS,
    wanted: Wanted | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[int, int, str]], list[tuple[int, int]]]:
    """All records, the failures with their places, and the places of the records."""
    source = source_of(str(path))
    files, *_ = source.discover([str(path)], any_suffix=False, excluded=())
    splits, _ = source.plan(files, size, input_format=None, earlier=None, reading=reading)
    records, failures, places = [], [], []
    lines = 0
    for piece in (piece for split in splits for piece in split.pieces):
        reader = source.reader(piece, wanted or Wanted("record"))
        for batch in reader:
            decoded = batch.records()
            rows = decoded.rows
            rows = range(len(decoded.records)) if rows is None else rows
            records += decoded.records
            for row in rows:
                line, offset = batch.position(row)
                places.append((line + lines, offset))
            for failure in decoded.failures:
                line, offset = batch.position(failure.row)
                failures.append((line + lines, offset, failure.error))
        lines += reader.units
    return records, failures, places


def write(tmp_path: Path, content: str | bytes, name: str = "in.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Where records end


def slow_ends(data: bytes) -> list[int]:
    """The same as ``record_ends``, a byte at a time."""
    ends, inside, begins, at = [], False, True, 0
    while at < len(data):
        byte = data[at : at + 1]
        if inside and byte == b'"' and data[at + 1 : at + 2] == b'"':
            at += 1
        elif inside and byte == b'"':
            inside = False
        elif not inside and byte == b'"' and begins:
            inside = True
        elif not inside and byte == b"\n":
            ends.append(at + 1)
        begins = not inside and byte in (b",", b"\n")
        at += 1
    return ends


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from([b'"', b",", b"\n", b"a", b"\r\n", b'""']), max_size=60))
def test_the_ends_of_records_are_those_that_a_look_at_each_byte_finds(parts: list[bytes]) -> None:
    data = b"".join(parts)
    expected = slow_ends(data)
    assert record_ends(data, ord(","), ord("\n")).ends.tolist() == expected
    chunks = [data[at : at + 3] for at in range(0, len(data), 3)]
    length, taken, lines, rest = skim(iter(chunks), ord(","), ord("\n"))
    if expected:
        assert taken == expected[0] == length + 1
        assert lines == data[:taken].count(b"\n")
        assert chunks[(taken - 1) // 3].endswith(rest)
    else:
        assert (taken, length) == (len(data), len(data))


values = st.one_of(
    st.none(),
    st.text(st.sampled_from('a";,\n\r \té\x0b\x85\u2028'), max_size=6),
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(values, values, values), max_size=30),
    size=st.integers(1, 200),
    newline=st.sampled_from(["\n", "\r\n"]),
    block=st.sampled_from([1, 7, 64]),
)
def test_any_cut_gives_the_records_and_places_that_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str | None, ...]],
    size: int,
    newline: str,
    block: int,
) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    text = f"x,y,z{newline}"
    offsets = []
    for row in rows:
        offsets.append(len(text.encode()))
        text += ",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row)
        text += newline
    path.write_bytes(text.encode())
    lines = [text.encode()[:offset].count(b"\n") + 1 for offset in offsets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modelbeam.formats.csv.blocks.SCANNED", block)
        patch.setattr("modelbeam.formats.lines._FIRST_BLOCK", {"record": block})
        records, failures, places = read(path, size)
    assert failures == []
    assert records == [dict(zip("xyz", row, strict=True)) for row in rows]
    assert places == list(zip(lines, offsets, strict=True))


def test_a_file_is_cut_into_pieces(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + '"1\n2",3\n' * 1000)
    info = source_of(str(path)).discover([str(path)], any_suffix=False, excluded=())[0][0]
    cuts = list(formats.find("csv").cuts(info, None, 1000))
    assert len(cuts) == 8
    content = path.read_bytes()
    assert all(content[cut.start :].startswith(b'"1\n2",3\n') for cut in cuts[1:])


def test_a_quote_that_is_never_closed_takes_the_rest_as_one_failed_record(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,2\n3,"4\n' + "5,6\n" * 500)
    for size in (1 << 30, 100):
        records, failures, _ = read(path, size)
        assert records == [{"a": "1", "b": "2"}]
        assert failures == [(3, 8, "a quoted field is never closed")]
    _, failures, _ = read(path, wanted=Wanted("record", longest=64))
    assert [(line, offset) for line, offset, _ in failures] == [(3, 8)]
    assert "more than --max-record-size (64)" in failures[0][2]


def test_a_record_that_is_too_long_fails_alone(tmp_path: Path) -> None:
    long = '"' + "x\n" * 100 + '"'
    path = write(tmp_path, f"a,b\n1,2\n{long},3\n4,5\n")
    records, failures, places = read(path, wanted=Wanted("record", longest=64))
    assert [record["a"] for record in records] == ["1", "4"]
    assert [(line, offset) for line, offset, _ in failures] == [(3, 8)]
    assert places == [(2, 4), (104, 213)]


# How files are written


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_where_only_one_can_be(tmp_path: Path, delimiter: str) -> None:
    lines = [["a", "b.c"], ["1,5" if delimiter != "," else "1", "x"]]
    path = write(tmp_path, "".join(delimiter.join(line) + "\n" for line in lines))
    assert read(path)[0] == [dict(zip(*lines, strict=True))]


def test_a_delimiter_that_is_not_certain_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b;c,d\n1,2;3,4\n")
    with pytest.raises(RequestError, match=r"may be separated by ',' or ';'; .* --delimiter"):
        read(path)
    assert read(path, reading=Reading(delimiter=";"))[0] == [{"a,b": "1,2", "c,d": "3,4"}]


def test_a_tsv_file_is_one(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a\tb\n1\t2\n", "in.tsv"))[0] == [{"a": "1", "b": "2"}]


def test_line_ends_are_newlines_and_returns_only_where_there_are_no_newlines(
    tmp_path: Path,
) -> None:
    odd = "\x0b\x0c\x1c\x85\u2028"
    expected = [{"a": f"1{odd}", "b": None}, {"a": "2", "b": "3"}]
    for newline in ("\n", "\r\n", "\r"):
        text = f"a,b\n1{odd},\n2,3".replace("\n", newline)
        for end in ("", newline):
            records, failures, places = read(write(tmp_path, text + end), 7)
            assert (records, failures) == (expected, [])
            assert [line for line, _ in places] == [2, 3]
    assert read(write(tmp_path, "a,b\n1\r2,3\n"))[0] == [{"a": "1\r2", "b": "3"}]


def test_a_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    records, _, places = read(write(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n"))
    assert records == [{"a": "1", "b": "2"}]
    assert places == [(2, 7)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(RequestError, match="iconv"):
        read(write(tmp_path, "a,b\n1,2\n".encode(encoding)))
    with pytest.raises(RequestError, match=r"--encoding .*iconv"):
        build_job({"models": "m:M", "inputs": "a", "output": "b", "encoding": encoding})


def test_bytes_that_do_not_decode_fail_their_record(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,\xe9\n2,x\n")
    records, failures, _ = read(path)
    assert records == [{"a": "2", "b": "x"}]
    assert failures == [(2, 4, "the record is not valid UTF-8")]
    assert read(path, reading=Reading(encoding="cp1252"))[0][0] == {"a": "1", "b": "é"}


def test_a_delimiter_that_is_half_a_character_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a|b\n1|2\n")
    with pytest.raises(RequestError, match="is a part of characters in shift_jis"):
        read(path, reading=Reading(encoding="shift_jis"))
    path = write(tmp_path, "a,b\n1,ソ\n".encode("shift_jis"))
    assert read(path, reading=Reading(encoding="shift_jis"))[0] == [{"a": "1", "b": "ソ"}]


def test_columns_are_named_where_there_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n")
    records, _, places = read(path, 3, reading=Reading(columns=("a", "b")))
    assert records == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert places == [(1, 0), (2, 4)]
    _, failures, _ = read(write(tmp_path, "a,b\n1,2\n"), reading=Reading(columns=("a", "b")))
    assert failures == [(1, 0, "the header again, as where files are put together")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b,a\n1,2,3\n", "two columns called 'a'"),
        (",,\n1,2,3\n", "a header without a name"),
        ('"a,b\n1,2\n', "no CSV: a quoted field is never closed"),
        (b"\xe9,b\n1,2\n", "--encoding"),
        ('{"a": 1}\n', "--input-format jsonl"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(RequestError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "a,b\n", "a,b", "\n\n", "\ufeff"])
def test_a_file_may_have_no_records(tmp_path: Path, content: str) -> None:
    assert read(write(tmp_path, content)) == ([], [], [])


def test_a_header_longer_than_what_is_looked_at_first(tmp_path: Path) -> None:
    names = [f"column_{number:05d}" for number in range(20_000)]
    path = write(tmp_path, ",".join(names) + "\n" + ",".join(map(str, range(20_000))) + "\n")
    [record] = read(path)[0]
    assert record["column_19999"] == "19999"


# What records hold


def test_nothing_is_null_and_quotes_around_nothing_are_empty_text(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n,""\n" x ", y \n')
    assert read(path)[0] == [{"a": None, "b": ""}, {"a": " x ", "b": " y "}]
    assert read(write(tmp_path, 'a\n\n""\nx\n'))[0] == [{"a": None}, {"a": ""}, {"a": "x"}]
    assert read(write(tmp_path, "a,b\n\n  \n1,2\n\n"))[0] == [{"a": "1", "b": "2"}]


def test_too_few_and_too_many_fields_are_error_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2\n1,2,3\n1,2,3,4\n1,2,3,\n")
    records, failures, _ = read(path)
    assert records == [{"a": "1", "b": "2", "c": "3"}]
    assert [(line, error) for line, _, error in failures] == [
        (2, "the record has 2 fields, and there are 3 columns"),
        (4, "the record has 4 fields, and there are 3 columns"),
        (5, "the record has 4 fields, and there are 3 columns"),
    ]


def test_separators_at_the_end_of_all_lines_are_tolerated(tmp_path: Path) -> None:
    records, failures, _ = read(write(tmp_path, "a,b,\n1,2,\n3,4\n5,6,7\n"))
    assert records == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert [line for line, _, _ in failures] == [4]


def test_quotes_where_they_should_not_be(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n5" x 3",y\n"5" x,y\n"say ""hi""",z\n')
    records, failures, _ = read(path)
    assert records == [{"a": '5" x 3"', "b": "y"}, {"a": 'say "hi"', "b": "z"}]
    assert [(line, error[:36]) for line, _, error in failures] == [
        (3, "field 1 goes on after its closing qu")
    ]


def test_the_header_again_is_told(tmp_path: Path) -> None:
    for header in ("a,b", '"a","b"'):
        for style in ("record", "table"):
            path = write(tmp_path, f"a,b\n1,2\n{header}\n3,4\n")
            signature = Signature((Column("a", "str"), Column("b", "str")), exact=True)
            [batch] = source_batches(path, Wanted(style, signature=signature))
            decoded = batch.table(signature, dict) if style == "table" else batch.records()
            assert len(decoded.records) == 2
            assert [failure.type for failure in decoded.failures] == ["HeaderAgainError"]


def source_batches(path: Path, wanted: Wanted) -> list[Any]:
    source = source_of(str(path))
    files, *_ = source.discover([str(path)], any_suffix=False, excluded=())
    splits, _ = source.plan(files, 1 << 30, input_format=None, earlier=None)
    return [b for s in splits for p in s.pieces for b in source.reader(p, wanted)]


TYPED = Signature(
    (
        Column("f", "float", nullable=True),
        Column("i", "int", nullable=True),
        Column("s", "str", nullable=True),
        Column("b", "bool", nullable=True),
    ),
    exact=True,
)
TEXTS = [
    *("1", "1.5", "-2e3", "+.5", "1.", "00123", "1e5", "1.0", "1e400", "1_000", "1,5", "0x10"),
    *("NaN", "inf", "12345678901234567890", "9" * 30, "1e-400", "", " 7 ", "true", "FALSE", "x"),
    *("é", "1" * 5000, "1e999999999", "\u0661", "-0", "0.1", "9007199254740993"),
]


@pytest.mark.parametrize("column", ["f", "i", "s", "b"])
def test_the_schema_decides_what_a_text_is_and_columns_are_as_dicts(
    tmp_path: Path, column: str
) -> None:
    signature = Signature(tuple(c for c in TYPED.columns if c.name == column), exact=True)
    found: dict[str, Any] = {}
    for quoted in (False, True):
        for text in TEXTS:
            written = f'"{text}"' if quoted or "," in text else text
            path = write(tmp_path, f"k,{column}\nkey,{written}\n")
            [batch] = source_batches(path, Wanted("table", signature=signature))
            by_dicts = super(type(batch), batch).table(signature, dict)
            batch = source_batches(path, Wanted("table", signature=signature))[0]
            by_columns = batch.table(signature, dict)
            assert by_columns.records.to_pylist() == by_dicts.records.to_pylist(), text
            assert [f.error for f in by_columns.failures] == [f.error for f in by_dicts.failures]
            rows = by_columns.records.to_pylist()
            found[text] = rows[0][column] if rows else "error"
    good = {text: value for text, value in found.items() if value not in ("error", None)}
    if column == "s":
        assert good == {text: text for text in TEXTS}
    if column == "b":
        assert good == {"1": True, "true": True, "FALSE": False}
    if column == "f":
        assert good["00123"] == 123
        assert not {"1_000", "1,5", "0x10", "NaN", "inf", "x", "1e400", "\u0661"} & good.keys()
    if column == "i":
        assert good == {
            "1": 1,
            "-2e3": -2000,
            "1.": 1,
            "00123": 123,
            "1e5": 100_000,
            "1.0": 1,
            " 7 ": 7,
            "-0": 0,
            "9007199254740993": 9007199254740993,
        }


def test_columns_and_dicts_agree_about_random_files(tmp_path: Path) -> None:
    made = random.Random(1)
    pieces = ["1", "2.5", "x", '"a"', '"a""b"', '"a\nb"', "", '""', '"1"', "é", "7"]
    signature = Signature(TYPED.columns[:3], exact=True)
    for _ in range(200):
        good = made.random() < 0.7
        lines = [
            ",".join(
                made.choice(pieces if not good else kind)
                for kind in (["1", "2.5", ""], ["3", ""], pieces)
            )
            for _ in range(made.randrange(1, 20))
        ]
        path = write(tmp_path, "f,i,s\n" + "".join(line + "\n" for line in lines))
        [batch] = source_batches(path, Wanted("table", signature=signature, keep="all"))
        [other] = source_batches(path, Wanted("record", signature=signature, keep="all"))
        columns, dicts = (
            batch.table(signature, dict),
            super(type(other), other).table(signature, dict),
        )
        assert columns.records.to_pylist() == dicts.records.to_pylist()
        assert sorted(f.error for f in columns.failures) == sorted(f.error for f in dicts.failures)
        kept, same = batch.keep("all", columns.rows), other.keep("all", dicts.rows)
        assert kept.texts() == same.texts()


# Whole jobs


def run(tmp_path: Path, model: str, **settings: Any) -> modelbeam.Run:
    return modelbeam.predict(
        model=f"small_models:{model}",
        input=str(tmp_path / "in.csv"),
        output=str(tmp_path / "out.jsonl"),
        workers=1,
        **settings,
    )


@pytest.mark.parametrize("model", ["Doubler", "BatchDoubler", "TableDoubler"])
def test_a_job_over_csv(tmp_path: Path, model: str) -> None:
    write(tmp_path, 'id,x\n007,1.5\n"a\nb",2.0\n9,oops\n10\n11,-1.0\n')
    done = run(tmp_path, model, keep=["id"])
    assert read_lines(tmp_path / "out.jsonl") == [
        {"id": "007", "y": 3.0},
        {"id": "a\nb", "y": 4.0},
    ]
    assert (done.read, done.predicted, done.failed) == (5, 2, 3)
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [(e["line"], e["offset"], e["stage"], e["record"]) for e in errors] == [
        (5, 23, "validate", {"id": "9", "x": "oops"}),
        (6, 30, "decode", "10"),
        (7, 33, "predict", {"id": "11", "x": "-1.0"}),
    ]


def test_lines_are_those_of_the_whole_file_in_every_split(tmp_path: Path) -> None:
    rows = [f'"{n}\n",{n}.0' if n % 50 else f"{n},bad" for n in range(500)]
    write(tmp_path, "id,x\n" + "".join(row + "\n" for row in rows))
    done = run(tmp_path, "TableDoubler", split_size=500)
    assert done.failed == 10
    content = (tmp_path / "in.csv").read_bytes()
    for error in read_lines(tmp_path / "out.errors.jsonl"):
        assert content[error["offset"] :].startswith(f"{error['record']['id']},bad".encode())
        assert error["line"] == content[: error["offset"]].count(b"\n") + 1


def test_a_missing_column_is_told_before_the_run(tmp_path: Path) -> None:
    write(tmp_path, "id,xx\n1,2\n")
    with pytest.raises(RequestError, match=r"'x'.*Their columns are id, xx"):
        run(tmp_path, "Doubler")


def test_a_column_without_a_name_cannot_be_kept(tmp_path: Path) -> None:
    write(tmp_path, ",x\n0,2.0\n")
    with pytest.raises(RequestError, match=r"in\.csv' has no name for its column 1"):
        run(tmp_path, "Doubler", keep="all")
    assert run(tmp_path, "Doubler").predicted == 1


def test_flags_of_csv_are_refused_for_other_formats(tmp_path: Path) -> None:
    path = write(tmp_path, '{"x": 1.0}\n', "in.jsonl")
    with pytest.raises(RequestError, match="--delimiter: only CSV is read so"):
        read(path, reading=Reading(delimiter=";"))


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "é"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(RequestError, match="--delimiter"):
        build_job({"models": "m:M", "inputs": "a", "output": "b", "delimiter": delimiter})


def test_a_compressed_file_that_is_cut_off_names_itself(tmp_path: Path) -> None:
    packed = gzip.compress(b"x\n" + b"1.5\n" * 5000)
    path = write(tmp_path, packed[:-20], "in.csv.gz")
    with pytest.raises(InputReadError, match=r"in.csv.gz cannot be read .gzip"):
        read(path)


def test_what_the_standard_library_writes_is_read(tmp_path: Path) -> None:
    rows = [["1", 'a"b'], ["x\ny", " z"], ["a,b", ";"]]
    made = io.StringIO()
    csv.writer(made).writerows([["a", "b"], *rows])
    path = write(tmp_path, made.getvalue())
    assert read(path, 5)[0] == [dict(zip("ab", row, strict=True)) for row in rows]


# Writing


def written(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


@pytest.mark.parametrize("model", ["Doubler", "BatchDoubler", "TableDoubler"])
@pytest.mark.parametrize("single", [True, False])
def test_csv_to_csv(tmp_path: Path, model: str, single: bool) -> None:
    rows = [f'"{n}\n", t{n},"",,{n}.5' for n in range(300)]
    write(tmp_path, "id,s,e,n,x\n" + "".join(row + "\n" for row in rows) + "7,7,,,-1\n")
    output = tmp_path / ("out.csv" if single else "out")
    done = modelbeam.predict(
        model=f"small_models:{model}",
        input=str(tmp_path / "in.csv"),
        output=str(output),
        output_format=None if single else "csv",
        keep=["id", "s", "e", "n"],
        split_size=700,
        workers=1,
    )
    assert (done.predicted, done.failed) == (300, 1)
    assert len(done.shards) == (1 if single else 9)
    parts = [written(Path(shard)) for shard in done.shards]
    assert {tuple(part[0]) for part in parts} == {("id", "s", "e", "n", "y")}
    found = [row for part in parts for row in part[1:]]
    assert found == [[f"{n}\n", f" t{n}", "", "", str(2 * (n + 0.5))] for n in range(300)]
    again = [record for shard in done.shards for record in read(Path(shard))[0]]
    assert [(record["e"], record["n"]) for record in again] == [("", None)] * 300


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.zst", "csv.bz2"])
def test_one_compressed_file_of_many_splits_has_one_header(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, "x\n" + "".join(f"{n}.0\n" for n in range(500)))
    modelbeam.predict(
        model="small_models:TableDoubler",
        input=str(tmp_path / "in.csv"),
        output=str(tmp_path / f"out.{suffix}"),
        split_size=500,
        workers=1,
    )
    records, failures, _ = read(tmp_path / f"out.{suffix}")
    assert failures == []
    assert [record["y"] for record in records] == [f"{2 * n}.0" for n in range(500)]


def test_what_is_kept_of_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"x": 1.0, "n": 1.10, "big": 123456789012345678901, "l": [1, "a"], "t": true}',
        '{"x": 2.0, "n": 1E5, "t": null, "l": "a,\\n\\"b"}',
    ]
    write(tmp_path, "\n".join(lines), "in.jsonl")
    modelbeam.predict(
        model="small_models:TableDoubler",
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out.csv"),
        keep=["n", "big", "l", "t"],
        workers=1,
    )
    assert written(tmp_path / "out.csv") == [
        ["n", "big", "l", "t", "y"],
        ["1.10", "123456789012345678901", '[1,"a"]', "true", "2.0"],
        ["1E5", "", 'a,\n"b', "", "4.0"],
    ]


def test_a_column_that_comes_late_is_an_error_line(tmp_path: Path) -> None:
    write(tmp_path, '{"x": 1.0}\n' * 150 + '{"x": 3.0, "late": 1}\n', "in.jsonl")
    done = modelbeam.predict(
        model="small_models:Doubler",
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out.csv"),
        keep="all",
        workers=1,
    )
    assert (done.predicted, done.failed) == (150, 1)
    [error] = read_lines(tmp_path / "out.errors.jsonl")
    assert (error["stage"], error["line"]) == ("encode", 151)
    assert "column 'late' is none of the output's columns" in error["error"]


def test_shards_without_a_prediction_have_the_header_too(tmp_path: Path) -> None:
    write(tmp_path, "x\n" + "-1\n" * 300 + "2\n" * 300)
    done = modelbeam.predict(
        model="small_models:TableDoubler",
        input=str(tmp_path / "in.csv"),
        output=str(tmp_path / "out"),
        output_format="csv",
        split_size=300,
        workers=1,
    )
    assert Path(done.shards[0]).read_text() == "y\n"
    assert done.predicted == 300


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.sampled_from('a", \n\r\té'), max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": plain, "b": plain}), min_size=1, max_size=8))
def test_columns_and_dicts_are_written_alike_and_read_back(rows: list[dict[str, Any]]) -> None:
    rows = [{"a": row["a"], "b": row["b"]} for row in rows]
    for name in "ab":  # a column has one type
        kinds = {type(row[name]) for row in rows if row[name] is not None}
        if len(kinds) > 1:
            rows = [{**row, name: None if row[name] is None else str(row[name])} for row in rows]
    layout = tuple(OutputColumn(name) for name in "ab")
    made = []
    for table in (False, True):
        handle = io.BytesIO()
        writer = formats.find("csv").writer(handle, layout)
        given = [pa.RecordBatch.from_pylist(rows)] if table else rows
        assert writer.write(Outcome(len(rows), given, table, None, None, [])) == []
        assert writer.rows == len(rows)
        made.append(handle.getvalue())
    assert made[0] == made[1]
    expected = [[text_of(value) for value in row.values()] for row in rows]
    assert made[0].decode() == "a,b\n" + "".join(f"{a},{b}\n" for a, b in expected)
    found = list(csv.reader(io.StringIO(made[0].decode(), newline="")))[1:]
    assert found == [
        ["" if v is None else str(v) if isinstance(v, str) else text_of(v) for v in row.values()]
        for row in rows
    ]
