"""Encoding predictions: tables as their rows, and what JSON cannot hold as failures."""

from __future__ import annotations

import datetime
import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelbeam.formats.jsonl import columns
from modelbeam.formats.jsonl.encode import Encoded, encode_records, encode_table, selected
from modelbeam.formats.jsonl.texts import Texts
from modelbeam.formats.lines import LineBlock

MEAN_FLOATS = [5.0, 1e22, 1e16, 1e21, 123456789012345680.0, -0.0, 0.0, 5e-324, 1e-7, 1e-5, 0.1]
MEAN_STRINGS = [
    '"',
    "\\",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "\x1f",
    "\x7f",
    "/",
    "é",
    "😀",
    "\u2028",
    "<&",
]


def lines_of(encoded: Encoded) -> list[bytes]:
    data = bytes(encoded.data)
    assert data == b"" or data.endswith(b"\n")
    lines = data.split(b"\n")[:-1]
    assert len(lines) == encoded.lines
    return lines


def failed_rows(encoded: Encoded) -> list[int]:
    assert {failure.stage for failure in encoded.failures} <= {"encode"}
    return [failure.row for failure in encoded.failures]


def table(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def labels(indices: list[int | None], values: list[Any]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(values))


floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(MEAN_FLOATS)
texts = st.text(max_size=8) | st.sampled_from(MEAN_STRINGS)
integers = st.integers(-(2**63), 2**63 - 1)
COLUMN_TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), integers),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.float64(), floats),
    (pa.float32(), st.floats(allow_nan=False, allow_infinity=False, width=32)),
    (pa.string(), texts),
    (pa.large_string(), texts),
    (pa.string_view(), texts),
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
    (pa.list_(pa.float64()), st.lists(floats, max_size=3)),
    (pa.list_(pa.list_(pa.string())), st.lists(st.lists(texts, max_size=2), max_size=2)),
    (pa.struct({"a": pa.int64(), "b": pa.string()}), st.fixed_dictionaries({"a": integers})),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), st.datetimes()),
    (pa.dictionary(pa.int32(), pa.string()), texts),
    (pa.dictionary(pa.int8(), pa.int64()), integers),
    (pa.dictionary(pa.int32(), pa.float64()), floats),
]


@st.composite
def tables(draw: st.DrawFn) -> pa.RecordBatch:
    """A batch of one to three columns, often with nulls and often a slice of a larger one."""
    rows = draw(st.integers(0, 6))
    columns = {}
    for name in draw(st.sampled_from([["y"], ["y"], ["y", 'a"b'], ["y", "é", "z:z"]])):
        kind, values = draw(st.sampled_from(COLUMN_TYPES))
        values = values | st.none() if draw(st.booleans()) else values
        made = draw(st.lists(values, min_size=rows, max_size=rows))
        if pa.types.is_dictionary(kind):
            columns[name] = pa.array(made, kind.value_type).dictionary_encode().cast(kind)
        else:
            columns[name] = pa.array(made, kind)
    start = draw(st.integers(0, rows))
    return table(**columns).slice(start, draw(st.integers(0, rows - start)))


@settings(max_examples=600, deadline=None)
@given(tables())
@example(table(y=pa.array(MEAN_FLOATS)))
@example(table(y=pa.array(MEAN_FLOATS), z=pa.array(MEAN_FLOATS)))
@example(table(y=pa.array(MEAN_STRINGS)))
def test_a_table_is_encoded_as_its_rows_would_be(batch: pa.RecordBatch) -> None:
    encoded = encode_table(batch)
    assert encoded.failures == []
    assert lines_of(encoded) == [orjson.dumps(row, option=NUMPY) for row in rows_in(batch)]


NUMPY = orjson.OPT_SERIALIZE_NUMPY


def rows_in(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows, small floats as NumPy's, whose shortest text is theirs."""
    small = [f.name for f in batch.schema if pa.types.is_float32(f.type)]
    return [
        {n: np.float32(v) if n in small and v is not None else v for n, v in row.items()}
        for row in batch.to_pylist()
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*MEAN_STRINGS, None]), min_size=5, max_size=5, unique=True),
    st.lists(st.integers(0, 4), max_size=9) | st.lists(st.integers(0, 4) | st.none(), max_size=9),
    st.integers(0, 9),
)
def test_labels_are_encoded_as_strings_would_be(
    values: list[str | None], indices: list[int | None], start: int
) -> None:
    batch = table(y=labels(indices, values))
    batch = batch.slice(min(start, batch.num_rows))
    assert lines_of(encode_table(batch)) == [orjson.dumps(row) for row in batch.to_pylist()]


def test_a_null_label_is_null() -> None:
    batch = table(y=labels([0, 1, None], ["a", None]))
    assert lines_of(encode_table(batch)) == [b'{"y":"a"}', b'{"y":null}', b'{"y":null}']


def test_a_table_of_chunks_is_encoded_like_a_batch() -> None:
    batches = [table(y=labels([0, 1], ["a", "b"])), table(y=labels([0], ["c"]))]
    encoded = encode_table(pa.Table.from_batches(batches))
    assert lines_of(encoded) == [b'{"y":"a"}', b'{"y":"b"}', b'{"y":"c"}']


NAN_COLUMNS = {
    "float64": pa.array([1.0, math.nan, None, math.inf]),
    "float32": pa.array([1.0, math.nan, None, math.inf], pa.float32()),
    "lists": pa.array([[1.0], [math.nan], None, [2.0, -math.inf]]),
    "structs": pa.array([{"a": 1.0}, {"a": math.nan}, None, {"a": math.inf}]),
    "labels": labels([0, 1, None, 2], [1.0, math.nan, math.inf]),
    "labels without null": labels([0, 1, 0, 2], [1.0, math.nan, math.inf]),
}


@pytest.mark.parametrize("kind", sorted(NAN_COLUMNS))
@pytest.mark.parametrize("columns", [1, 2])
def test_nan_in_a_table_fails_its_row_alone(kind: str, columns: int) -> None:
    batch = table(y=NAN_COLUMNS[kind])
    if columns == 2:
        batch = batch.append_column("z", pa.array(range(4)))
    encoded = encode_table(batch)
    assert failed_rows(encoded) == [1, 3]
    assert encoded.failures[0].error.startswith("y")
    good = [orjson.dumps(row) for row in batch.take([0, 2]).to_pylist()]
    assert lines_of(encoded) == good


def test_a_value_without_json_fails_its_row_alone_and_is_named() -> None:
    kind = pa.struct([("a", pa.float64())])
    encoded = encode_table(table(y=pa.array([{"a": 1.0}, {"a": math.inf}, None], kind)))
    assert failed_rows(encoded) == [1]
    assert "y.a is NaN or infinite" in encoded.failures[0].error
    assert lines_of(encoded) == [b'{"y":{"a":1.0}}', b'{"y":null}']


def test_a_label_that_is_not_used_does_no_harm() -> None:
    batch = table(y=labels([0, 0], [1.0, math.nan]))
    assert lines_of(encode_table(batch)) == [b'{"y":1.0}', b'{"y":1.0}']


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    a: float


ENCODABLE = [
    ({"y": 5.0}, b'{"y":5.0}'),
    ({"y": None}, b'{"y":null}'),
    ({"y": "null"}, b'{"y":"null"}'),
    ({"y": [1, [2.5, None], {"a": True}]}, b'{"y":[1,[2.5,null],{"a":true}]}'),
    ({"y": np.int64(3)}, b'{"y":3}'),
    ({"y": np.float64(0.1)}, b'{"y":0.1}'),
    ({"y": np.float32(0.1)}, b'{"y":0.1}'),
    ({"y": np.bool_(True)}, b'{"y":true}'),
    ({"y": np.str_("a")}, b'{"y":"a"}'),
    ({"y": np.array([1.5, 2.5])}, b'{"y":[1.5,2.5]}'),
    ({"y": np.array([[1, 2], [3, 4]])}, b'{"y":[[1,2],[3,4]]}'),
    ({"y": np.array([True])}, b'{"y":[true]}'),
    ({"y": np.arange(6)[::2]}, b'{"y":[0,2,4]}'),
    ({"y": np.asfortranarray([[1, 2], [3, 4]])[0]}, b'{"y":[1,2]}'),
    ({"y": np.array(["a", "b"])}, b'{"y":["a","b"]}'),
    ({"y": np.array(["a", None], dtype=object)}, b'{"y":["a",null]}'),
    ({"y": Colour.RED}, b'{"y":"red"}'),
    ({"y": Point(1.0)}, b'{"y":{"a":1.0}}'),
    ({"y": datetime.date(2026, 1, 31)}, b'{"y":"2026-01-31"}'),
    ({}, b"{}"),
]


@pytest.mark.parametrize(("prediction", "line"), ENCODABLE, ids=lambda v: repr(v)[:40])
def test_what_models_return_is_encoded(prediction: dict[str, Any], line: bytes) -> None:
    encoded = encode_records([prediction])
    assert encoded.failures == []
    assert lines_of(encoded) == [line]


circular: dict[str, Any] = {}
circular["y"] = circular

NOT_ENCODABLE = {
    "NaN": {"y": math.nan},
    "infinity": {"y": -math.inf},
    "nested NaN": {"y": [{"a": (1.0, math.nan)}]},
    "NaN beside null": {"a": None, "y": math.nan},
    "numpy NaN": {"y": np.float32("nan")},
    "array with NaN": {"y": np.array([[1.0, math.nan]])},
    "array of objects with NaN": {"y": np.array(["a", math.nan], dtype=object)},
    "strided array with NaN": {"y": np.array([1.0, 2.0, math.nan])[::2]},
    "dataclass with NaN": {"y": Point(math.nan)},
    "object": {"y": object()},
    "huge integer": {"y": 2**64},
    "complex": {"y": 1j},
    "lone surrogate": {"y": "\ud800"},
    "numpy number as a key": {np.int64(1): "y"},
    "circular": circular,
}


@pytest.mark.parametrize("what", sorted(NOT_ENCODABLE))
def test_what_json_cannot_hold_fails_its_row_alone(what: str) -> None:
    encoded = encode_records([{"y": 1}, NOT_ENCODABLE[what], {"y": None}])
    assert failed_rows(encoded) == [1]
    assert lines_of(encoded) == [b'{"y":1}', b'{"y":null}']


def test_a_failure_says_where_the_nan_is() -> None:
    encoded = encode_records([{"a": {"b": [1.0, {"c": math.nan}]}}])
    assert encoded.failures[0].error == "a.b[1].c is NaN or infinite, which JSON cannot hold"


KEPT = [
    (b'{"a":1}', b'{"a":1,"y":2}'),
    (b'{"a": 1.50, "b" : [ 1 ]}', b'{"a": 1.50, "b" : [ 1 ],"y":2}'),
    (b"{}", b'{"y":2}'),
    (b" {  } ", b'{"y":2}'),
    (b' \t{ "a":1 \t} ', b'{ "a":1,"y":2}'),
    (b'{"a":1}\r', b'{"a":1,"y":2}'),
    (b'{"a":{}}', b'{"a":{},"y":2}'),
    (b'{"a":"}"}', b'{"a":"}","y":2}'),
]


@pytest.mark.parametrize(("kept", "line"), KEPT)
def test_kept_members_stand_before_the_predictions_as_they_were(kept: bytes, line: bytes) -> None:
    assert lines_of(encode_records([{"y": 2}], [kept])) == [line]
    assert lines_of(encode_table(table(y=pa.array([2])), [kept])) == [line]
    assert lines_of(encode_table(table(y=labels([0], [2])), [kept])) == [line]


@pytest.mark.parametrize(("kept", "line"), [(b'{"a":1}', b'{"a":1}'), (b"{}", b"{}")])
def test_an_empty_prediction_adds_nothing_to_what_is_kept(kept: bytes, line: bytes) -> None:
    assert lines_of(encode_records([{}], [kept])) == [line]


kept_objects = st.lists(
    st.builds(
        lambda before, members, after: before + b"{" + b" ,".join(members) + after,
        st.sampled_from([b"", b" ", b"\r\t"]),
        st.lists(
            st.sampled_from([b' "a":1', b'"b" :"}\\r"', b'\r"c":{}', b'"d":[\r]']), max_size=3
        ),
        st.sampled_from([b"}", b" }", b"\r} \r", b"}\t"]),
    ),
    max_size=6,
)


@given(kept_objects, st.data())
def test_texts_in_one_piece_of_memory_are_those_of_a_list(kept: list[bytes], data: Any) -> None:
    memory, places = b"", []
    for text in kept:
        memory += data.draw(st.sampled_from([b"", b"{", b"\n", b"x"]))
        places.append((len(memory), len(memory) + len(text)))
        memory += text
    texts = Texts(memory, [begin for begin, _ in places], [end for _, end in places])
    plain = [text.replace(b"\r", b" ") for text in kept]
    assert list(texts) == texts == plain
    assert [texts[row] for row in range(len(texts))] == plain
    assert Texts.of(kept) == plain
    rows = data.draw(st.lists(st.sampled_from(range(len(kept))))) if kept else []
    taken = texts.take(rows)
    assert taken == [plain[row] for row in rows]
    assert taken[1:] == [plain[row] for row in rows][1:]
    parts = [b"}", b'"b"', b"["]
    assert list(taken.holding(parts[1:])) == [
        at for at, row in enumerate(rows) if any(part in plain[row] for part in parts[1:])
    ]
    predictions = [{"y": row} for row in range(len(rows))]
    batch = table(y=pa.array(range(len(rows)), pa.int64()))
    wanted = lines_of(encode_records(predictions, [plain[row] for row in rows]))
    assert lines_of(encode_records(predictions, taken)) == wanted
    assert lines_of(encode_table(batch, taken)) == wanted


@given(st.lists(st.sampled_from([b"", b"a", b"{}\r", b" "])), st.booleans())
def test_lines_stand_where_their_block_says(lines: list[bytes], ends: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    block = LineBlock(data, 0, 0, data.count(b"\n") + (data != b"" and not data.endswith(b"\n")))
    plain = [line.replace(b"\r", b" ") for line in block.lines]
    assert Texts(data, *block.spans()) == plain
    assert columns.lines(block) == plain


def test_as_many_texts_are_kept_as_there_are_predictions() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_table(table(y=pa.array([1, 2])), [b"{}"])


def test_kept_members_stay_with_their_records_where_some_fail() -> None:
    kept = [b'{"a":0}', b'{"a":1}', b'{"a":2}']
    values = [1.0, math.nan, 3.0]
    for encoded in (
        encode_records([{"y": value} for value in values], kept),
        encode_table(table(y=pa.array(values)), kept),
        encode_table(table(y=labels([0, 1, 2], values)), kept),
    ):
        assert lines_of(encoded) == [b'{"a":0,"y":1.0}', b'{"a":2,"y":3.0}']
        assert failed_rows(encoded) == [1]


SELECTED = [
    (b'{"id":1,"x":2}', b'{"id":1}'),
    (b'{"x":1}', b"{}"),
    (b'{ "x" : {"id":3} , "id" : [1, "]},"] }', b'{"id":[1, "]},"]}'),
    (b'{"id":{"a":"\\"}"},"id":{"b":1}}', b'{"id":{"b":1}}'),
    (b'{"\\u0069d":[1]}', b'{"id":[1]}'),
    (b'{"x":"\\"id\\":[9]","id":[1]}', b'{"id":[1]}'),
    (b'{"id":[\r1]}\r', b'{"id":[ 1]}'),
    (b'{"id":123456789012345678901234567890}', b'{"id":123456789012345678901234567890}'),
    (b'{"id":' + b"[" * 600 + b"]" * 600 + b"}", b'{"id":' + b"[" * 600 + b"]" * 600 + b"}"),
]


@pytest.mark.parametrize(("line", "kept"), SELECTED)
def test_selected_members_keep_their_values_as_they_were_written(line: bytes, kept: bytes) -> None:
    assert selected(line, ["id"]) == kept


def test_no_predictions_are_no_lines() -> None:
    for kept in (None, []):
        assert encode_records([], kept) == Encoded(b"", 0, [])
        assert lines_of(encode_table(table(y=pa.array([], pa.int64())), kept)) == []
        assert lines_of(encode_table(table(y=labels([], ["a"])), kept)) == []
