"""Decoding straight into columns says what the reference says, or says nothing at all.

Two decoders are held to it: the one in C, which answers line by line, and Polars, which stands in
where there was no compiler and answers for whole blocks.
"""

from __future__ import annotations

import json
import math
import random
import struct
from decimal import Decimal, getcontext
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from modelbeam.formats.jsonl import columns as jsonl_columns
from modelbeam.formats.jsonl import decode
from modelbeam.formats.jsonl.decode import decode_records
from modelbeam.formats.lines import LineBlock, count_lines, whole_block
from modelbeam.models.shapes import FLOATS
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.columns import to_batch


def block_of(data: bytes) -> LineBlock:
    count = count_lines(data) + (not data.endswith(b"\n") and data != b"")
    return LineBlock(data, 0, 0, count)


def reference(block: LineBlock, signature: Signature) -> pa.RecordBatch | str:
    """The batch of a block whose every line is a record that fits; else why there is none."""
    decoded = decode_records(block)
    batch, rows, failures = to_batch(decoded.records, signature)
    if decoded.failures or failures:
        return f"failures: {decoded.failures + failures}"
    if batch.num_rows != block.count or not (rows is None or rows == list(range(block.count))):
        return f"{batch.num_rows} records on {block.count} lines"
    return batch


def shown(batch: pa.RecordBatch | str) -> str:
    """All of a batch as text, in which even 0.0 and -0.0 differ."""
    if isinstance(batch, str):
        return batch
    return f"{batch.schema.names} {batch.schema.types} {batch.to_pylist()!r}"


def decode_columns(block: LineBlock, signature: Signature) -> pa.RecordBatch | None:
    """What Polars makes of a block."""
    if any(column.kind == "any" or column.bounded for column in signature.columns):
        return None
    return jsonl_columns.decode_polars(block, signature.columns)


def check(data: bytes, signature: Signature) -> bool:
    """Compare both with the reference; return whether Polars said anything."""
    block = block_of(data)
    check_lines(block, signature)
    columns = decode_columns(block, signature)
    if columns is not None:
        assert shown(columns) == shown(reference(block, signature))
    return columns is not None


def check_lines(block: LineBlock, signature: Signature) -> jsonl_columns.Columns | None:
    """Compare what the decoder in C says of each line with the reference."""
    found = jsonl_columns.decode(block, signature)
    if found is None:
        with pytest.raises(UnicodeDecodeError):
            block.data.decode()
        return None
    found.batch.validate(full=True)
    decoded = decode_records(block)
    batch, fitting, _ = to_batch(decoded.records, signature)
    lines = decoded.rows if decoded.rows is not None else range(len(decoded.records))
    lines = [lines[i] for i in fitting] if fitting is not None else lines
    right = dict(zip(lines, batch.to_pylist(), strict=True))
    rows = found.rows if found.rows is not None else list(range(block.count))
    for line, row in zip(rows, found.batch.to_pylist(), strict=True):
        assert line in right, "a line that the reference rejects"
        assert repr(row) == repr(right[line])
    passed_by = set(range(block.count)) - set(rows) - set(found.doubtful)
    assert not any(block.lines[line].strip() for line in passed_by), "only blank lines are"
    assert not set(rows) & set(found.doubtful)
    return found


def check_kept(block: LineBlock, signature: Signature, keep: tuple[str, ...]) -> None:
    """Compare the members that are cut out of lines with those of the parsed records."""
    found = jsonl_columns.decode(block, signature, keep)
    plain = jsonl_columns.decode(block, signature)
    if found is None or plain is None:
        assert found is plain
        return
    more = set(found.doubtful) - set(plain.doubtful)
    assert all(
        len(set(block.lines[row].split(b'"'))) <= block.lines[row].count(b'"') for row in more
    )
    assert set(plain.doubtful) <= set(found.doubtful), "a kept member that is there twice"
    if not more:
        assert found.batch.equals(plain.batch)
        assert found.rows == plain.rows
    if found.places is None:
        assert any(c in name for c in '"\\' for name in keep) or not keep
        return
    texts = jsonl_columns.cut(block, found.places, keep)
    rows = range(block.count) if found.rows is None else found.rows
    assert len(texts) == len(rows) == len(found.places)
    for row, text, places in zip(rows, texts, found.places.tolist(), strict=True):
        line = block.lines[row]
        kept = {n: v for n, v in orjson.loads(line).items() if n in keep}
        assert list(orjson.loads(text)) == [n for n in dict.fromkeys(keep) if n in kept]
        assert orjson.loads(text) == kept
        assert b"\n" not in text
        assert b"\r" not in text
        for name, (start, end) in zip(dict.fromkeys(keep), places, strict=True):
            assert (start >= 0) == (name in kept)
            value = block.data[start:end] if start >= 0 else b""
            assert value in line
            assert value == value.strip()
            assert value.replace(b"\r", b" ") in text


def test_the_decoder_in_c_was_built() -> None:
    assert jsonl_columns.library() is not None


PLAIN = Signature((Column("x", "float"), Column("n", "int"), Column("b", "bool")), True)
LOOSE = Signature(
    (
        Column("x", "float", nullable=True),
        Column("n", "int", nullable=True, required=False),
        Column("b", "bool", required=False),
    ),
    True,
)
ODD_NAMES = Signature((Column("x:y", "float"), Column('"', "float", nullable=True)), True)
ONE = Signature((Column("x", "float"),), True)
NULLABLE = Signature((Column("x", "float", nullable=True),), True)
TEXTS = Signature(
    (
        Column("x", "float"),
        Column("s", "str"),
        Column("größe", "str", nullable=True, required=False),
        Column("n", "int", nullable=True, required=False),
    ),
    True,
)
VECTORS = Signature(
    (
        Column("x", "any", shape=FLOATS),
        Column("n", "int", required=False),
        Column("z", "any", nullable=True, required=False, shape=FLOATS),
    ),
    True,
)
OPTIONAL = Signature((Column("x", "float", nullable=True, required=False),), True)

plain_signature = st.sampled_from([PLAIN, ONE])
any_signature = st.sampled_from([PLAIN, ONE, LOOSE, NULLABLE, OPTIONAL, TEXTS, TEXTS, VECTORS])

good_value = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "false", "null", "0", "-0", "-0.0", "5.0", "1e5", "1E+05"]),
)
odd_value = st.sampled_from(  # as text, one after another
    """NaN Infinity -Infinity nan inf 1e400 -1e400 1e-400 5e-324 1.7976931348623159e308
    9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775808
    -9223372036854775809 18446744073709551615 18446744073709551616 123456789012345678901234567890
    0.1000000000000000055511151231257827021181583404541015625 2.2250738585072011e-308 1.0e0
    01 -01 00 1. .5 1e 1e+ - + +1 0x10 1_000 1f True None undefined 'x' " "x "x" "x": "1" "NaN"
    "true" "\\ud800" "\\uD800" "\\ud83d\\ude00" "\\ude00\\ud83d" "\\u0078" "\\" "\\x" "é" [] {}
    [1] [
    ] { } [1,] {"x":1} {"x":null} {"n":1,"x":2} [{"x":1}] "a:b" "{}" "\\u0000" tru nul 1e5.0 1,2
    """.split()  # noqa: SIM905
)
nested = st.builds(
    lambda depth, text: text[0] * depth + "1" + text[1] * depth,
    st.one_of(st.integers(1, 5), st.integers(1000, 1100), st.sampled_from([1023, 1024, 1025])),
    st.sampled_from(["[]", ('{"x":', "}"), ('[{"a":', "}]")]),
)
value = st.one_of(good_value, good_value, good_value, odd_value, nested)
key = st.sampled_from(
    [
        '"x"',
        '"x"',
        '"n"',
        '"b"',
        '"s"',
        '"größe"',
        '"z"',
        '"X"',
        '"x "',
        '""',
        '"\\u0078"',
        '"x:y"',
        '"\\""',
        "x",
    ]
)
space = st.sampled_from(["", "", "", " ", "\t", "\r", " \r "])


@st.composite
def record_of(draw: st.DrawFn, signature: Signature, values: st.SearchStrategy[str]) -> str:
    """A record that fits the signature, or might, were it not for what is added or left out."""
    kinds = {
        "float": good_value,
        "int": st.integers(-(2**63), 2**63 - 1).map(str),
        "bool": st.sampled_from(["true", "false"]),
        "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(json.dumps)
        | st.sampled_from(['""', '"é"', '"😀"', '"a\\u0000b"', '"abc"']),
    }
    kinds["any"] = st.lists(good_value, max_size=4).map(lambda found: f"[{','.join(found)}]")
    pairs = [(json.dumps(c.name), draw(kinds[c.kind])) for c in signature.columns]
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        change = draw(st.sampled_from(["add", "drop", "replace", "twice", "shuffle"]))
        at = draw(st.integers(0, max(len(pairs) - 1, 0)))
        if change == "add":
            pairs.insert(at, (draw(key), draw(values)))
        elif change == "shuffle":
            pairs = draw(st.permutations(pairs))
        elif pairs and change == "drop":
            del pairs[at]
        elif pairs and change == "replace":
            pairs[at] = (pairs[at][0], draw(values))
        elif pairs:
            pairs.append((pairs[at][0], draw(values)))
    gap = draw(space)
    return "{" + gap + f",{gap}".join(f"{k}{gap}:{gap}{v}" for k, v in pairs) + gap + "}"


end = st.sampled_from(["\n"] * 16 + ["\r\n"] * 4 + ["\n\n", "\n \n", "", " ", "\r", ",\n"])
MEAN_BYTES = b'\x00\x01\x0b\x0c\n\r\t "\\,:{}[]0-+.eEn\x7f\x80\xc0\xe9\xef\xbb\xbf\xff'


@st.composite
def blocks(draw: st.DrawFn) -> tuple[bytes, Signature]:
    """A few lines, most of them right, and a few bytes of them changed."""
    signature = draw(any_signature)
    lines = draw(st.lists(st.tuples(record_of(signature, value), end), min_size=1, max_size=3))
    text = "".join(record + ending for record, ending in lines)
    data = bytearray(text.encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 1))
        new = draw(st.sampled_from(MEAN_BYTES) | st.integers(0, 255))
        change = draw(st.sampled_from(["change", "insert", "delete", "copy"]))
        if change == "change":
            data[at] = new
        elif change == "insert":
            data.insert(at, new)
        elif change == "copy":
            to = draw(st.integers(0, len(data)))
            data[at:at] = data[min(at, to) : max(at, to)]
        elif len(data) > 1:
            del data[at]
    return bytes(data), signature


@settings(max_examples=1400, deadline=None)
@given(blocks())
@example((b'{"x":1,"x":2}\n{}\n', NULLABLE))
@example((b'{"x":1,"x":2}\n{}\n', OPTIONAL))
@example((b'{"x":1,"b":"x"}\n{"z":3}\n', NULLABLE))
@example((b'{"z":{"x":1}}\n', NULLABLE))
@example((b'{"x":-0}\n', ONE))
@example((b'{"x":1}{"x":2}\n\n', ONE))
@example((b'{"x":\n1}\n{"x":2}{"x":3}\n', ONE))
@example((b'{"x":-0e0}\n', ONE))
@example((b'{"s":"a","s":"b"}\n{"x":1,"s":"c"}\n{"s":"d","x":}\n{"x":2,"s":"e"}', TEXTS))
@example((b" ", ONE))
@example((b"{", ONE))
@example((b'{"x', ONE))
@example((b'{"x":-', ONE))
@example((b'{"z":"\\', ONE))
@example((b'{"z":"\\u00', ONE))
@example((b'{"z":tru', ONE))
@example((b'{"x":1,"n":1,"b":tru', PLAIN))
def test_the_columns_are_what_the_reference_says_or_nothing(
    case: tuple[bytes, Signature],
) -> None:
    check(*case)


kept_names = st.lists(
    st.sampled_from(["x", "n", "s", "größe", "z", "", "x:y", '"', "nowhere"]),
    max_size=4,
    unique=True,
)


@settings(max_examples=800, deadline=None)
@given(blocks(), kept_names)
@example((b'{"x": 1.50,"z" :\t{"a":[1,\r2]} ,"s":"\\u0041"}\r\n', ONE), ["z", "s", "x"])
@example((b'{"z":1,"x":1,"z":2}\n{"x":2}', ONE), ["z"])
def test_kept_members_are_cut_out_of_the_lines_as_they_are(
    case: tuple[bytes, Signature], keep: list[str]
) -> None:
    data, signature = case
    check_kept(block_of(data), signature, tuple(keep))


def test_kept_members_are_not_shy() -> None:
    lines = [
        b'{"id": 123456789012345678901234567890, "x": 1.50, "n": 1, "b": true}\n',
        b'{"x":2,"id":"a\\u00e4\\n","n":1,"b":true,"more":[{"id":3}]}\n',
        b'{"x":3,"n":1,"b":true}\n',
        b'{"x":"4","id":4,"n":1,"b":true}\n',
    ]
    block = block_of(b"".join(lines))
    found = jsonl_columns.decode(block, PLAIN, ("id", "x"))
    assert found is not None
    assert found.doubtful == [3]
    assert jsonl_columns.cut(block, found.places, ("id", "x")) == [
        b'{"id":123456789012345678901234567890,"x":1.50}',
        b'{"id":"a\\u00e4\\n","x":2}',
        b'{"x":3}',
    ]


@pytest.mark.parametrize("count", [1, 511, 512, 513, 2000])
def test_lines_of_many_members_in_any_order_are_decoded(count: int) -> None:
    chance = random.Random(count)
    lines = []
    for row in range(20):
        members = [f'"f{i}"{" " * chance.randrange(2)}:{i}' for i in range(count)]
        members.insert(chance.randrange(count), f'"x":{row}')
        if row % 3 == 0:
            chance.shuffle(members)
        lines.append("{" + ",".join(members) + "}\n")
    block = block_of("".join(lines).encode())
    found = check_lines(block, ONE)
    assert found is not None
    assert (found.doubtful, found.batch.column("x").to_pylist()) == ([], list(range(20)))
    check_kept(block, ONE, ("f0", f"f{count - 1}"))


@pytest.mark.parametrize("length", range(40))
@pytest.mark.parametrize("special", ['"', "\\", "\\n", "\x01", "\x1f", "\x7f", "é", "\\ud800", ""])
def test_strings_of_any_length_end_where_they_end(length: int, special: str) -> None:
    for after in (0, 1, 15, 16, 40):
        text = "a" * length + special + "b" * after
        data = f'{{"t":"{text}","x":1,"s":"{text}"}}\n{{"x":2,"t":"{text}","s":""}}'.encode()
        check_lines(block_of(data), TEXTS)
        check_lines(block_of(data), ONE)
        check_kept(block_of(data), ONE, ("t", "s"))


@settings(max_examples=300, deadline=None)
@given(st.lists(record_of(PLAIN, good_value), min_size=1, max_size=4))
def test_good_records_are_decoded_into_columns(lines: list[str]) -> None:
    block = block_of("".join(line + "\n" for line in lines).encode())
    said = reference(block, PLAIN)
    assume(isinstance(said, pa.RecordBatch))
    loaded = [json.loads(line, object_pairs_hook=list) for line in lines]
    assume(all(len({k for k, _ in pairs}) == len(pairs) for pairs in loaded))
    assume("\\" not in "".join(lines))
    assert decode_columns(block, PLAIN) is not None


@pytest.mark.parametrize(
    "data",
    [
        b'{"x": 1.5, "n": 2, "b": true}\n' * 3,
        b'{"x":1.5,"n":2,"b":true}\r\n' * 3,
        b' { "b" : true , "n" : 2 , "x" : 1.5 } \n' * 3,
        b'{"x":1.5,"n":2,"b":true}\n{"x":1,"n":2,"b":false}',
        b'{"x":1.5,"n":2,"b":true,"more":{"y":[1,"z: w"]}}\n' * 3,
        '{"x":1.5,"n":2,"b":true,"größe":"x·y"}\n'.encode() * 3,
    ],
)
def test_the_columns_are_not_shy(data: bytes) -> None:
    assert check(data, PLAIN)


KEY_WITHIN = b'{"x": 1, "s": {"x": 1}}'  # a doubt for Polars alone


def test_null_in_a_nullable_column_is_decoded_in_c() -> None:
    block = block_of(b'{"x": 1, "n": null, "b": true}\n{"x": null, "n": 2, "b": false}\n')
    found = check_lines(block, LOOSE)
    assert found is not None
    assert found.doubtful == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"{}",
        b"null",
        b"[1]",
        b'{"x": 1',
        b'{"x": 1} {"x": 2}',
        b'{"x": 1},',
        b'{"x": "1"}',
        b'{"x": true}',
        b'{"x": null}',
        b'{"x": NaN}',
        b'{"x": 1e400}',
        b'{"x": 1, "x": 2}',
        b'{"x": 1, "\\u0078": 2}',
        b'{"x": 1, "s": "\\ud800"}',
        b'{"x": 1, "s": "\xff"}',
        b'{"x": 1, "s": "\x01"}',
        KEY_WITHIN,
        b'{"x": 1, "s": ' + b"[" * 1024 + b"]" * 1024 + b"}",
        b'\xef\xbb\xbf{"x": 1}',
        b'{"x": 1}\x00',
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_doubtful_line_leaves_the_block_to_the_reference(line: bytes, place: str) -> None:
    lines = [b'{"x": %d}' % n for n in range(100)]
    lines[{"first": 0, "middle": 50, "last": 99}[place]] = line
    block = block_of(b"".join(text + b"\n" for text in lines))
    assert decode_columns(block, ONE) is None
    found = check_lines(block, ONE)
    if found is not None:
        doubtful = [] if line == KEY_WITHIN or not line.strip() else [lines.index(line)]
        assert found.doubtful == doubtful
        assert found.batch.num_rows == 99 + (line == KEY_WITHIN)


NUMBERS = [
    *(lambda r: repr(struct.unpack("d", struct.pack("Q", r.getrandbits(64)))[0]),) * 3,
    lambda r: repr(r.random() * 10 ** r.randint(-5, 5)),
    lambda r: str(r.randrange(-(10 ** r.randint(1, 30)), 10 ** r.randint(1, 30))),
    lambda r: f"{r.getrandbits(r.randint(1, 70))}.{r.getrandbits(60)}e{r.randint(-340, 310)}",
    lambda r: str(((2 * (r.getrandbits(53) | 1 << 52)) + 1) << r.randint(0, 60)),  # half-way
    lambda r: str(Decimal(2 * (r.getrandbits(53) | 1 << 52) + 1) / 2 ** r.randint(1, 60)),
]


def test_numbers_become_the_nearest_double() -> None:
    chance = random.Random(1)
    getcontext().prec = 200
    texts = [chance.choice(NUMBERS)(chance).replace("E+", "e") for _ in range(100_000)]
    block = block_of("".join(f'{{"x":{text}}}\n' for text in texts).encode())
    found = jsonl_columns.decode(block, ONE)
    assert found is not None
    rows = found.rows if found.rows is not None else range(len(texts))
    values = found.batch.column("x").to_pylist()
    assert [
        texts[row] for row, value in zip(rows, values, strict=True) if value != float(texts[row])
    ] == []
    assert len(values) > 97_000  # all but NaN, infinities and what overflows


def test_a_column_of_strings_is_decoded_in_c_alone() -> None:
    block = block_of('{"x": 1, "s": "äö", "größe": null}\n{"s": "", "x": 2}\n'.encode())
    found = check_lines(block, TEXTS)
    assert found is not None
    assert found.batch.column("s").to_pylist() == ["äö", ""]
    assert found.batch.column("größe").null_count == 2


def test_a_column_of_lists_of_numbers_is_decoded_in_c_alone() -> None:
    lines = {
        b'{"x": [], "z": null}': False,
        b'{"x": [1, 2.5e3 ,\t-0 ], "n": 1}': False,
        b'{"z": [9007199254740993], "x":[0.1]}': False,
        b'{"x": [1, null]}': True,
        b'{"x": [1, 2, 3, "a"], "z": [4]}': True,
        b'{"x": [[1]]}': True,
        b'{"x": [1,]}': True,
        b'{"x": [5, 6], "x": [7]}': True,
        b'{"x": null}': True,
        b'{"x": 1}': True,
        b'{"n": 1}': True,
        b'{"x": [8, 9], "z": [10]}': False,
    }
    found = check_lines(block_of(b"\n".join(lines)), VECTORS)
    assert found is not None
    assert found.doubtful == [row for row, bad in enumerate(lines.values()) if bad]
    seen = found.batch.column("x").to_pylist()
    assert seen == [[], [1.0, 2500.0, 0.0], [0.1], [8.0, 9.0]]
    assert found.batch.column("z").to_pylist() == [None, None, [2.0**53], [10.0]]


OPEN = Signature(
    (
        Column("a", "any", nullable=True),
        Column("x", "float"),
        Column("b", "any", nullable=True, required=False),
    ),
    exact=True,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.builds('{{"x":1,{1}"a":{0}}}'.format, value, st.sampled_from(["", '"b":[2],']))))
def test_columns_of_anything_are_what_the_reference_says_or_nothing(lines: list[str]) -> None:
    block = block_of("".join(line + "\n" for line in lines).encode())
    found = jsonl_columns.decode(block, OPEN)
    assert found is None or shown(found.batch) == shown(reference(block, OPEN))


def test_columns_of_anything_are_read_without_the_rest_of_the_line() -> None:
    data = b'{"a":{"c":[1]},"z":1,"x":1}\r\n{"x":2,"b":"s","a":null}\n\n{"x":3,"a":{},"b":null}'
    block = block_of(data)
    found = jsonl_columns.decode(block, OPEN, ("z", "b"))
    assert found is not None
    assert (found.rows, found.doubtful) == ([0, 1, 3], [])
    assert found.batch.schema.names == ["a", "x", "b"]
    assert found.batch.to_pylist() == [
        {"a": {"c": [1]}, "x": 1.0, "b": None},
        {"a": None, "x": 2.0, "b": "s"},
        {"a": {"c": None}, "x": 3.0, "b": None},
    ]
    texts = jsonl_columns.cut(block, found.places, ("z", "b"))
    assert texts == [b'{"z":1}', b'{"b":"s"}', b'{"b":null}']


@pytest.mark.parametrize("line", [b'{"x":1}', b'{"a":1,"x":"1"}', b'{"a":"s","x":1}', b"{"])
def test_a_doubt_about_a_line_is_one_about_a_column_of_anything(line: bytes) -> None:
    assert jsonl_columns.decode(block_of(b'{"a":1,"x":1}\n' + line), OPEN) is None


@pytest.mark.parametrize("kind", ["str", "any"])
def test_a_signature_with_other_columns_is_left_to_the_reference(kind: Any) -> None:
    signature = Signature((Column("x", "float"), Column("s", kind)), True)
    assert decode_columns(block_of(b'{"x": 1, "s": "a"}\n'), signature) is None


def test_a_signature_with_bounds_is_left_to_the_reference_by_polars() -> None:
    signature = Signature((Column("x", "float", at_least=0.0),), True)
    assert decode_columns(block_of(b'{"x": -1}\n'), signature) is None


BOUNDED = Signature(
    (
        Column("x", "float", above=-1.5, at_most=2),
        Column("n", "int", nullable=True, at_least=0, below=2**53 + 1),
        Column("d", "int", required=False, filled=True),
    ),
    exact=True,
)


def test_lines_with_a_value_out_of_bounds_are_doubtful_and_the_others_are_not() -> None:
    cases = {
        b'{"x": 1, "n": 0, "d": 1}': False,
        b'{"x": -1.5, "n": 0, "d": 1}': True,
        b'{"x": 2.0, "n": null, "d": 1}': False,
        b'{"x": 2.0000001, "n": 1, "d": 1}': True,
        b'{"x": 1, "n": -1, "d": 1}': True,
        b'{"x": 1, "n": 9007199254740992, "d": 1}': False,
        b'{"x": 1, "n": 9007199254740993, "d": 1}': True,
        b'{"x": 1, "n": 1}': True,
        b"": False,
    }
    found = check_lines(block_of(b"\n".join(cases) + b"\n"), BOUNDED)
    assert found is not None
    assert found.doubtful == [row for row, bad in enumerate(cases.values()) if bad]
    assert found.rows == [row for row, bad in enumerate(cases.values()) if not bad][:-1]


def test_a_large_block_keeps_its_order() -> None:
    chance = random.Random(1)
    lines = [f'{{"x":{chance.random()!r},"n":{n},"b":true}}\n' for n in range(50_000)]
    assert check("".join(lines).encode(), PLAIN)


@pytest.mark.parametrize("bad", ["\n", '{"x":1,"n":1.5,"b":true}\n', '{"x":1\n,"n":2,"b":true}\n'])
def test_one_bad_line_of_a_large_block_is_found(bad: str) -> None:
    lines = [f'{{"x":0.5,"n":{n},"b":true}}\n' for n in range(50_000)]
    for at in (1, 24_999, 49_998):
        assert not check("".join([*lines[:at], bad, *lines[at + 1 :]]).encode(), PLAIN)


def test_the_last_of_duplicate_keys_wins() -> None:
    assert decode_records(block_of(b'{"x":1,"x":2}\n')).records == [{"x": 2}]


def test_the_reference_says_which_lines_are_no_records() -> None:
    lines = [b'{"x":1}', b"", b"[1]", b'"a"', b"1", b"true", b"null", b'{"x":', b' {"x":2}\r']
    decoded = decode_records(block_of(b"\n".join(lines)))
    assert (decoded.records, decoded.rows) == ([{"x": 1}, {"x": 2}], [0, 8])
    assert [(failure.row, failure.stage, failure.type) for failure in decoded.failures] == [
        *((row, "decode", "NotAnObjectError") for row in (2, 3, 4, 5, 6)),
        (7, "decode", "JSONDecodeError"),
    ]
    words = [failure.error.rpartition("holds ")[2] for failure in decoded.failures[:-1]]
    assert words == ["an array", "a string", "a number", "true or false", "null"]


def test_a_record_is_judged_by_its_own_values_only() -> None:
    signature = Signature((Column("x", "any"),), False)
    records = [{"x": 1}, {"x": 2**63}, {"x": 3}, {"x": 4}]
    batch, rows, failures = to_batch(records, signature)
    assert batch.to_pylist() == [{"x": 1}, {"x": 3}, {"x": 4}]
    assert (rows, [failure.row for failure in failures]) == ([0, 2, 3], [1])


def test_an_integer_that_is_no_double_is_doubtful_where_it_must_be_one() -> None:
    signature = Signature((Column("x", "float", lossless=True, at_least=-(2.0**60)),), True)
    numbers = [-(2**53), -(2**53) + 1, 2**53 - 1, 2**53, 2**53 + 1, 2**54 + 1, "1.5", "-1e300"]
    found = check_lines(block_of("\n".join(f'{{"x":{n}}}' for n in numbers).encode()), signature)
    assert found is not None
    assert found.rows == [1, 2, 6]


@given(
    st.floats() | st.integers(-(2**70), 2**70) | st.integers(2**53 - 3, 2**53 + 3),
    st.sampled_from(["above", "at_least", "below", "at_most"]),
    st.sampled_from(["float", "int"]),
    st.lists(st.integers(-3, 3), max_size=3),
)
def test_bounds_are_held_to_the_last_bit(bound: Any, side: str, kind: Any, near: Any) -> None:
    column = Column("x", kind, **{side: bound})
    values = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
    if abs(bound) < 2**62:
        values += [int(bound) + step for step in near]
    texts = [str(v) if kind == "int" else repr(float(v)) for v in values]
    if kind == "float" and abs(bound) <= 2**70:
        here = float(bound)
        texts += [repr(v) for v in (here, math.nextafter(here, 9e99), math.nextafter(here, -9e99))]
    block = block_of("\n".join(f'{{"x":{text}}}' for text in texts).encode())
    found = jsonl_columns.decode(block, Signature((column,), True))
    assert found is not None
    fits = [row for row, text in enumerate(texts) if column.problem(json.loads(text)) is None]
    rows = list(range(block.count)) if found.rows is None else found.rows
    if kind == "int" or not 2**53 - 1 <= abs(bound) < math.inf:  # what may have been rounded
        assert rows == fits
    assert set(rows) <= set(fits)


def test_an_integer_beyond_a_bound_is_not_taken_for_the_double_at_it() -> None:
    bounds = {"at_least": -(2**53), "below": 2**53 + 2}
    signature = Signature((Column("x", "float", **bounds),), True)
    lines = "\n".join(f'{{"x":{n}}}' for n in (-(2**53) - 1, 2**53 + 1, 2**53 - 1, 0.5))
    found = check_lines(block_of(lines.encode()), signature)
    assert found is not None
    assert found.rows == [2, 3]


FRAGMENTS = (
    *('{"a":1}', '{"a":1},{"b":2}', '{"a":[1', "2]}", '{"a":"x', 'y"}', '{"a":"x,{y"}', "", " "),
    *('{"b":1},5', "5", "{}", '{"a":{"b":1}}', '{"a":[{}', "{}]}", '{"a":1},', '{"a":1', '"c":3}'),
    *('{"b":2,"c":3}\r', '[{"a":1}]', '{"a":"{"}', '{"a":NaN}', '{"a":1}}', "{{", '{"k":[1]}'),
)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=5), st.booleans())
def test_lines_that_are_parsed_at_once_are_the_same_one_by_one(lines: list[str], end: bool) -> None:
    data = "\n".join(lines).encode() + b"\n" * end
    found = decode._at_once(whole_block(data))
    if found is not None:
        assert found == [orjson.loads(line) for line in whole_block(data).lines]
