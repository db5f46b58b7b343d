"""JSON arrays: elements found in bounded memory whatever is in them, damage with its place."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import predictions_of, read_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats import Format
from modelbeam.formats.base import Wanted
from modelbeam.formats.json.elements import ElementBlocks
from modelbeam.formats.lines import LineBlock, LongLine
from modelbeam.sources import source_of


def pieces(path: Path, asked: Format | None = None) -> list[Any]:
    source = source_of(str(path))
    files, *_ = source.discover([str(path)], any_suffix=asked is not None, excluded=())
    splits, _ = source.plan(files, 1 << 30, input_format=asked, earlier=None)
    return [piece for split in splits for piece in split.pieces]


def elements(path: Path, block: int = 1 << 20, longest: int = 1 << 20) -> list[Any]:
    """What stands in an array: (place, text), or a line that is too long."""
    [piece] = pieces(path, Format("json"))
    found: list[Any] = []
    for made in ElementBlocks(piece, longest, block):
        if isinstance(made, LongLine):
            found.append(made)
        else:
            found += [(made.position(row), made.raw(row)) for row in range(made.count)]
            assert len(made.lines) == made.count
    return found


texts = st.text(st.sampled_from('a"\\,[]{}\n\té\u2028'), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**6) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
spaces = st.text(st.sampled_from(" \n\t\r"), max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    listed=st.lists(st.tuples(spaces, values, spaces), max_size=8),
    indent=st.sampled_from([None, 1]),
    block=st.integers(1, 80),
    mark=st.booleans(),
)
def test_each_element_is_found_at_its_place_whatever_is_in_it(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[str, Any, str]],
    indent: int | None,
    block: int,
    mark: bool,
) -> None:
    path = tmp_path_factory.mktemp("json") / "in.json"
    text, expected = ("\ufeff" if mark else "") + "\n [", []
    for number, (before, value, after) in enumerate(listed):
        text += ("," if number else "") + before
        written = json.dumps(value, ensure_ascii=False, indent=indent)
        so_far = text.encode()
        expected.append(((so_far.count(b"\n") + 1, len(so_far)), written.encode()))
        text += written + after
    path.write_bytes((text + "]\n\n").encode())
    assert elements(path, block) == expected
    found = elements(path, block, longest=14)
    padded = [len((before + after).encode()) for before, _, after in listed]
    for (place, written), around, one in zip(expected, padded, found, strict=True):
        if isinstance(one, LongLine):
            assert (one.line + 1, one.offset) == place
            assert one.length == len(written)
            assert written.startswith(one.head)
            assert len(written) + around > 14
        else:
            assert one == (place, written)
            assert len(written) <= 14


CONTENT = b"""[
  {"x": 1.0, "s": "a]b,{"},
  {"x": -1.0,
   "n": [1, {"a": "\\\\"}]},
  17, {"x": NaN}, , "text", {"x": "a
b"}, {"x": 2.0}
]
"""


def test_a_bad_element_is_a_bad_record_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(CONTENT)
    done = modelbeam.predict(
        model="small_models:Doubler",
        input=str(tmp_path / "in.json"),
        output=str(tmp_path / "out.jsonl"),
        keep=["s"],
        workers=1,
    )
    assert (done.read, done.predicted, done.failed) == (8, 2, 6)
    assert read_lines(tmp_path / "out.jsonl") == [{"s": "a]b,{", "y": 2.0}, {"y": 4.0}]
    errors = read_lines(tmp_path / "out.errors.jsonl")
    assert [(e["line"], e["stage"], e["type"], e["record"]) for e in errors] == [
        (3, "predict", "ValueError", {"x": -1.0, "n": [1, {"a": "\\"}]}),
        (5, "decode", "NotAnObjectError", "17"),
        (5, "decode", "JSONDecodeError", '{"x": NaN}'),
        (5, "decode", "JSONDecodeError", ""),
        (5, "decode", "NotAnObjectError", '"text"'),
        (5, "decode", "JSONDecodeError", '{"x": "a\nb"}'),
    ]
    for error in errors:
        assert CONTENT[: error["offset"]].count(b"\n") + 1 == error["line"]
    assert CONTENT[errors[0]["offset"] :].startswith(b'{"x": -1.0')


@pytest.mark.parametrize("content", [b"[]", b" [ \n ] \n", b"", b"\xef\xbb\xbf[]", b" \n"])
def test_an_array_may_have_no_elements(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.json").write_bytes(content)
    assert elements(tmp_path / "in.json") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"x":1},\n{"x":2},\n {"x":3', "not closed; the 2 records before line 3 .byte 20."),
        (b'[{"x":1},\n{"x":2},\n', "not closed; the 2 records before line 3 .byte 19."),
        (b'[{"x":1},{"x":2}}\n', "closed by a }; the 1 records before line 1 .byte 9."),
        (b'[{"x":1}]\n[{"x":2}]', "something follows the end of the array"),
        (b'[{"x":1}] x', "something follows the end of the array"),
        (b"[] x", "something follows the end of the array"),
        (b'[{"x":1},{"x":"2}]', "not closed; the 1 records"),
    ],
)
@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("packed", [False, True])
def test_damage_to_the_array_is_named(
    tmp_path: Path, content: bytes, said: str, block: int, packed: bool
) -> None:
    path = tmp_path / ("in.json.gz" if packed else "in.json")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputReadError, match=rf"in\.json.* cannot be read.*damaged JSON: .*{said}"):
        elements(path, block)
    with pytest.raises(InputReadError, match="damaged JSON"):
        elements(path, block, longest=4)


def test_a_long_element_costs_no_memory(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 64

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            assert size <= 1 << 16
            if self.left == 63:
                return b'[1,{"a":"'
            return b'\\"],' * (size // 4) if self.left > 0 else b'"},2]' if self.left == 0 else b""

    (tmp_path / "in.json").write_bytes(b"[ ]")
    [piece] = pieces(tmp_path / "in.json", Format("json"))
    cutter = ElementBlocks(piece, 512, 512)._open(Endless())  # type: ignore[arg-type]
    found = [cutter.next_block(512, 512) for _ in range(4)]
    assert [type(one) for one in found[1:2]] == [LongLine]
    assert isinstance(found[1], LongLine)
    assert found[1].length > 62 * 400
    assert isinstance(found[2], LineBlock)
    assert found[2].data == b"2\n"
    assert found[3] is None


def test_what_is_no_array_and_what_is_one_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "lines.json").write_text('{"x": 1.0}\n[1]\n')
    assert [piece.format for piece in pieces(tmp_path / "lines.json")] == ["jsonl"]
    with pytest.raises(RequestError, match="is not one JSON array"):
        pieces(tmp_path / "lines.json", Format("json"))
    for name in ("a.json", "a.jsonl", "a", "a.json.gz"):
        content = b'[\n{"x": 1.0},\n{"x": 2.0}\n]\n'
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert [piece.format for piece in pieces(path, None)] == ["json"]
    with pytest.raises(RequestError, match=r"is one JSON array.*--input-format json"):
        pieces(tmp_path / "a.jsonl", Format("jsonl"))
    (tmp_path / "b.jsonl").write_text('[1]\n{"x": 1.0}\n')
    assert [piece.format for piece in pieces(tmp_path / "b.jsonl")] == ["jsonl"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("model", ["Doubler", "TableDoubler"])
def test_one_array_is_written_whatever_the_splits(tmp_path: Path, suffix: str, model: str) -> None:
    rows = [{"x": float(n if 200 <= n < 600 else -1)} for n in range(1000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / f"out.json{suffix}"
    done = modelbeam.predict(
        model=f"small_models:{model}",
        input=str(tmp_path / "in.jsonl"),
        output=str(output),
        output_format=f"json{suffix}",
        split_size=1000,
        workers=1,
    )
    assert (done.predicted, done.failed) == (400, 600)
    again = [json.loads(text) for _, text in elements(output)]
    assert again == [{"y": 2.0 * n} for n in range(200, 600)]
    if not suffix:
        assert json.loads(output.read_text()) == again


def test_parts_without_records_are_left_out(tmp_path: Path) -> None:
    found, parts = formats.find("json"), []
    for number, rows in enumerate(([], [1], [], [2, 3], [])):
        with (tmp_path / f"{number}.json").open("wb") as handle:
            writer = found.writer(handle, None, number)
            if rows:
                writer.write(predictions_of([{"y": row} for row in rows]))
            writer.close()
        parts.append((str(tmp_path / f"{number}.json"), 0))
    found.join(parts, str(tmp_path / "all.json"))
    assert json.loads((tmp_path / "all.json").read_text()) == [{"y": n} for n in (1, 2, 3)]
    found.join(parts[::2], str(tmp_path / "none.json"))
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_elements_are_decoded_as_lines_are(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('[ {"x": 1.5,\n "k": 1E5},{"x":2.5,"k" : [ 1,\n2 ]} ]')
    [batch] = list(source_of("").reader(pieces(tmp_path / "in.json")[0], Wanted("record")))
    assert batch.records().records == [{"x": 1.5, "k": 1e5}, {"x": 2.5, "k": [1, 2]}]
    assert batch.keep(("k",), None).texts() == [b'{"k":1E5}', b'{"k":[ 1, 2 ]}']
    [first] = source_of("").first(pieces(tmp_path / "in.json")[0], 1).records().records
    assert first == {"x": 1.5, "k": 1e5}
