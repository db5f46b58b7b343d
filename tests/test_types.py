"""Every type of Arrow, NumPy and common Python has a defined way out into JSON Lines.

docs/types.md has the same table for people.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import pathlib
import subprocess
import sys
import uuid
import zoneinfo
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from modelbeam.formats.jsonl import columns, table
from modelbeam.formats.jsonl.encode import encode_records, encode_table
from modelbeam.formats.jsonl.values import rows_of

D = decimal.Decimal
MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678900)
NANOS = 1704164645678900123
PARIS = "Europe/Paris"


def typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


ARROW: dict[str, list[tuple[pa.Array, list[Any]]]] = {
    "null": [(pa.nulls(2), [None, None])],
    "bool_": [(typed([True, None], pa.bool_()), [True, None])],
    **{
        name: [(typed([7, None], getattr(pa, name)()), [7, None])]
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
    },
    "uint64": [(typed([2**64 - 1, None], pa.uint64()), [2**64 - 1, None])],
    "float16": [(typed([np.float16(0.1), None], pa.float16()), [0.1, None])],
    "float32": [(typed([0.1, None, 16777217.0], pa.float32()), [0.1, None, 16777216.0])],
    "float64": [(typed([0.1, None, 1e300], pa.float64()), [0.1, None, 1e300])],
    "time32": [
        (typed([datetime.time(3, 4, 5), None], pa.time32("s")), ["03:04:05", None]),
        (typed([5], pa.time32("ms")), ["00:00:00.005000"]),
    ],
    "time64": [
        (typed([datetime.time(3, 4, 5, 6)], pa.time64("us")), ["03:04:05.000006"]),
        (typed([1], pa.time64("ns")), ["00:00:00.000000001"]),
    ],
    "timestamp": [
        (typed([0, None], pa.timestamp("s")), ["1970-01-01T00:00:00", None]),
        (typed([1500], pa.timestamp("ms")), ["1970-01-01T00:00:01.500000"]),
        (typed([MOMENT], pa.timestamp("us")), ["2024-01-02T03:04:05.678900"]),
        (typed([NANOS], pa.timestamp("ns")), ["2024-01-02T03:04:05.678900123"]),
        (typed([-1], pa.timestamp("ns")), ["1969-12-31T23:59:59.999999999"]),
        (typed([MOMENT.replace(year=3000)], pa.timestamp("us")), ["3000-01-02T03:04:05.678900"]),
        (typed([NANOS], pa.timestamp("ns", "UTC")), ["2024-01-02T03:04:05.678900123+00:00"]),
        (typed([MOMENT], pa.timestamp("us", PARIS)), ["2024-01-02T04:04:05.678900+01:00"]),
        (typed([MOMENT], pa.timestamp("us", "-03:30")), ["2024-01-01T23:34:05.678900-03:30"]),
    ],
    "date32": [(typed([MOMENT.date(), None], pa.date32()), ["2024-01-02", None])],
    "date64": [(typed([MOMENT.date()], pa.date64()), ["2024-01-02"])],
    "duration": [
        (typed([90061, None], pa.duration("s")), ["P1DT3661S", None]),
        (typed([1500], pa.duration("ms")), ["PT1.5S"]),
        (typed([-1], pa.duration("us")), ["-PT0.000001S"]),
        (typed([86400 * 10**9], pa.duration("ns")), ["P1D"]),
    ],
    "month_day_nano_interval": [
        (typed([(1, 2, 3_000_000_000), None], pa.month_day_nano_interval()), ["P1M2DT3S", None])
    ],
    "string": [(typed(["a\n\u00e9", None], pa.string()), ["a\n\u00e9", None])],
    "utf8": [(typed(["a"], pa.utf8()), ["a"])],
    "large_string": [(typed(["a", None], pa.large_string()), ["a", None])],
    "large_utf8": [(typed(["a"], pa.large_utf8()), ["a"])],
    "string_view": [(typed(["a", None, "b" * 40], pa.string_view()), ["a", None, "b" * 40])],
    "binary": [
        (typed([b"\x00\xff", None], pa.binary()), ["AP8=", None]),
        (typed([b"ab"], pa.binary(2)), ["YWI="]),
    ],
    "large_binary": [(typed([b"ab", None], pa.large_binary()), ["YWI=", None])],
    "binary_view": [(typed([b"ab", None], pa.binary_view()), ["YWI=", None])],
    "decimal32": [(typed([D("1.50"), None], pa.decimal32(5, 2)), ["1.50", None])],
    "decimal64": [(typed([D("1.50")], pa.decimal64(12, 2)), ["1.50"])],
    "decimal128": [
        (typed([D("1234567.890123456789")], pa.decimal128(30, 12)), ["1234567.890123456789"])
    ],
    "decimal256": [(typed([D("-1.50")], pa.decimal256(50, 2)), ["-1.50"])],
    "list_": [
        (typed([[1, None], None, []], pa.list_(pa.int64())), [[1, None], None, []]),
        (typed([[0.1], [0.2]], pa.list_(pa.float32())), [[0.1], [0.2]]),
        (typed([[0.5, 0.25]], pa.list_(pa.float64(), 2)), [[0.5, 0.25]]),
        (typed([[NANOS]], pa.list_(pa.timestamp("ns"))), [["2024-01-02T03:04:05.678900123"]]),
    ],
    "large_list": [(typed([[0.1], None], pa.large_list(pa.float32())), [[0.1], None])],
    "list_view": [(typed([["a"], None], pa.list_view(pa.string())), [["a"], None])],
    "large_list_view": [(typed([[1]], pa.large_list_view(pa.int8())), [[1]])],
    "struct": [
        (
            typed([{"a": 0.1, "b": b"x"}, None], pa.struct({"a": pa.float32(), "b": pa.binary()})),
            [{"a": 0.1, "b": "eA=="}, None],
        )
    ],
    "map_": [
        (typed([[("a", 0.1)], None], pa.map_(pa.string(), pa.float32())), [{"a": 0.1}, None]),
        (typed([[(1, 2)]], pa.map_(pa.int8(), pa.int8())), [[{"key": 1, "value": 2}]]),
    ],
    "dictionary": [
        (typed(["a", None, "a"], pa.string()).dictionary_encode(), ["a", None, "a"]),
        (typed([0.1, None], pa.float32()).dictionary_encode(), [0.1, None]),
        (typed([NANOS], pa.timestamp("ns")).dictionary_encode(), ["2024-01-02T03:04:05.678900123"]),
    ],
    "run_end_encoded": [
        (
            pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"])),
            ["a", "a", "b"],
        )
    ],
    "dense_union": [
        (
            pa.UnionArray.from_dense(
                pa.array([0, 1], pa.int8()),
                pa.array([0, 0], pa.int32()),
                [pa.array([5]), pa.array(["x"])],
            ),
            [5, "x"],
        )
    ],
    "sparse_union": [
        (
            pa.UnionArray.from_sparse(
                pa.array([0, 1], pa.int8()), [pa.array([5, 6]), pa.array(["x", "y"])]
            ),
            [5, "y"],
        )
    ],
    "uuid": [
        (
            pa.ExtensionArray.from_storage(pa.uuid(), typed([b"\x01" * 16, None], pa.binary(16))),
            ["01010101-0101-0101-0101-010101010101", None],
        )
    ],
    "bool8": [
        (pa.ExtensionArray.from_storage(pa.bool8(), typed([1, None], pa.int8())), [True, None])
    ],
    "json_": [(pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}'])), ['{"a":1}'])],
    "opaque": [
        (pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "t", "v"), pa.array([3])), [3])
    ],
    "fixed_shape_tensor": [
        (
            pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.float32(), [2, 2]),
                typed([[0.1, 0.2, 0.3, 0.4]], pa.list_(pa.float32(), 4)),
            ),
            [[[0.1, 0.2], [0.3, 0.4]]],
        )
    ],
}

OTHERS = {"union", "field", "schema", "type_for_alias"}
"""Functions of ``pyarrow.types`` and ``pyarrow`` that make no type by themselves."""


def test_the_table_has_every_type_that_this_pyarrow_can_make() -> None:
    import pyarrow.lib as lib

    made = set()
    for name in dir(lib):
        function = getattr(lib, name)
        text = (getattr(function, "__doc__", None) or "").strip()
        if callable(function) and not isinstance(function, type) and name in dir(pa):
            first = text.split("\n")[1 if text.startswith(name + "(") else 0 :]
            words = " ".join(first)[:400]
            if "Create" in words and ("instance" in words or "Type" in words):
                made.add(name)
    made = {name for name in made if not name.startswith(("_", "array", "table", "record_batch"))}
    made -= {"schema", "field", "union", "concat_tables", "table", "chunked_array", "scalar"}
    made -= {name for name in made if name not in ARROW and not _makes_a_type(name)}
    assert made <= ARROW.keys(), f"types without a row in the table: {made - ARROW.keys()}"
    assert len(made) >= 30


def _makes_a_type(name: str) -> bool:
    function = getattr(pa, name)
    for arguments in ((), ("s",), (pa.int64(),), (pa.int32(), pa.int64()), (5, 2)):
        try:
            return isinstance(function(*arguments), pa.DataType)
        except Exception:
            continue
    return False


CASES = [
    pytest.param(array, values, id=f"{name}-{number}")
    for name, cases in ARROW.items()
    for number, (array, values) in enumerate(cases)
]


def lines(encoded: Any) -> list[Any]:
    assert encoded.failures == []
    return [orjson.loads(line) for line in bytes(encoded.data).splitlines()]


@pytest.mark.parametrize(("array", "values"), CASES)
def test_each_type_of_arrow_is_written_as_the_table_says(array: pa.Array, values: Any) -> None:
    batch = pa.RecordBatch.from_arrays([array], names=["y"])
    expected = [{"y": value} for value in values]
    assert lines(encode_table(batch)) == expected
    assert rows_of(batch) == expected
    assert lines(encode_table(batch.slice(1))) == expected[1:]
    with pytest.MonkeyPatch.context() as patch:  # without a compiler
        patch.setattr(table, "library", lambda: None)
        assert lines(encode_table(batch)) == expected
    beside = pa.RecordBatch.from_arrays([pa.array(["k"] * len(array)), array], names=["k", "y"])
    kept = [b'{"i":1.50}'] * len(array)
    assert lines(encode_table(beside, kept)) == [{"i": 1.5, "k": "k", **row} for row in expected]


@pytest.mark.parametrize(("array", "values"), CASES)
def test_a_scalar_of_arrow_in_a_dict_is_written_as_in_a_column(array: Any, values: Any) -> None:
    encoded = encode_records([{"y": scalar} for scalar in array])
    assert lines(encoded) == [{"y": value} for value in values]


class Colour(enum.Enum):
    RED = "red"
    BLUE = np.int64(4)


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: Any


class Inner(BaseModel):
    when: datetime.datetime
    colour: Colour = Colour.RED


Pair = namedtuple("Pair", "a b")
ZONED = datetime.datetime(2024, 1, 2, 3, 4, 5, 678900, zoneinfo.ZoneInfo(PARIS))

PYTHON: list[tuple[Any, Any]] = [
    (D("1234567.890123456789"), "1234567.890123456789"),
    (MOMENT, "2024-01-02T03:04:05.678900"),
    (ZONED, "2024-01-02T03:04:05.678900+01:00"),
    (MOMENT.date(), "2024-01-02"),
    (MOMENT.time(), "03:04:05.678900"),
    (datetime.timedelta(days=1, seconds=3661), "P1DT3661S"),
    (datetime.timedelta(microseconds=-1), "-PT0.000001S"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (b"\x00\xff", "AP8="),
    (bytearray(b"ab"), "YWI="),
    (memoryview(b"ab"), "YWI="),
    ({"b", "a"}, ["a", "b"]),
    (frozenset({2, 1}), [1, 2]),
    ({1, "a"}, ["a", 1]),
    ((1, "a"), [1, "a"]),
    (Pair(1, {2}), [1, [2]]),
    (Colour.RED, "red"),
    (Colour.BLUE, 4),
    (Level.LOW, 1),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (Point(D("1.5")), {"x": "1.5"}),
    (Inner(when=MOMENT), {"when": "2024-01-02T03:04:05.678900", "colour": "red"}),
    ({1: "a", MOMENT.date(): "b"}, {"1": "a", "2024-01-02": "b"}),
    (np.float32(0.1), 0.1),
    (np.float16(0.1), 0.1),
    (np.longdouble(0.5), 0.5),
    (np.int8(-3), -3),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.bytes_(b"ab"), "YWI="),
    (np.datetime64(NANOS, "ns"), "2024-01-02T03:04:05.678900123"),
    (np.datetime64("2024-01-02"), "2024-01-02"),
    (np.datetime64("NaT"), None),
    (np.timedelta64(1500, "ms"), "PT1.5S"),
    (np.timedelta64("NaT"), None),
    (np.array(5), 5),
    (np.array([0.1, 0.2], np.float32), [0.1, 0.2]),
    (np.array([[0.1]], np.float16), [[0.1]]),
    (np.array(["a", "b"]), ["a", "b"]),
    (np.array(["2024-01-02T00:00:00.5"], "M8[ms]"), ["2024-01-02T00:00:00.500000"]),
    (np.array([{"a": {1}}, None], object), [{"a": [1]}, None]),
    (np.array([(1, 0.1)], [("a", "i4"), ("b", "f4")]), [{"a": 1, "b": 0.1}]),
]


@pytest.mark.parametrize(("value", "written"), PYTHON, ids=lambda value: type(value).__name__)
def test_each_type_of_python_is_written_as_the_table_says(value: Any, written: Any) -> None:
    for wrapped, expected in (
        (value, written),
        ([value, "x"], [written, "x"]),
        ({"in": value}, {"in": written}),
    ):
        assert lines(encode_records([{"y": wrapped}, {"y": 0}])) == [{"y": expected}, {"y": 0}]


@pytest.mark.parametrize("value", [object(), 1j, np.complex64(1j), 2**64, "\ud800", range, len])
def test_what_has_no_json_fails_its_record_alone(value: Any) -> None:
    encoded = encode_records([{"y": 1}, {"y": value}, {"y": {2}}])
    assert [failure.row for failure in encoded.failures] == [1]
    assert {failure.stage for failure in encoded.failures} == {"encode"}


PANDAS = """
import pandas as pd, numpy as np, orjson
from modelbeam.formats.jsonl.encode import encode_records
values = [pd.Timestamp(1704164645678900123), pd.Timestamp("2024-01-02", tz="Europe/Paris"), pd.NaT,
          pd.NA, pd.Timedelta(1500, "ms"), pd.Series([1, 2]), pd.DataFrame({"a": [0.5]}),
          pd.Index(["a"]), pd.Series(["a"], dtype="category")[0]]
encoded = encode_records([{"y": value} for value in values])
print([orjson.loads(line)["y"] for line in bytes(encoded.data).splitlines()], encoded.failures)
"""


def test_pandas_values_are_written_where_there_is_pandas() -> None:
    pytest.importorskip("pandas")
    done = subprocess.run([sys.executable, "-c", PANDAS], capture_output=True, text=True)
    assert (
        done.stdout.strip()
        == str(
            [
                *(
                    "2024-01-02T03:04:05.678900123",
                    "2024-01-02T00:00:00+01:00",
                    None,
                    None,
                    "PT1.5S",
                ),
                *([1, 2], [{"a": 0.5}], ["a"], "a"),
            ]
        )
        + " []"
    ), done.stderr


def test_neither_polars_nor_pandas_is_imported_to_decode_or_encode(tmp_path: Any) -> None:
    assert columns.library() is not None
    code = f"""
import sys, pytest
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "polars"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refusing())
chosen = "type_of_arrow or type_of_python"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {__file__!r}, "-k", chosen]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout.decode()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_small_floats_are_written_as_the_shortest_text_that_means_them(values: Any) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.float32())], names=["y"])
    for value, line in zip(values, bytes(encode_table(batch).data).splitlines(), strict=True):
        text = line[len(b'{"y":') : -1].decode()
        assert np.float32(text) == np.float32(value)
        assert len(text) <= len(repr(float(np.float32(value)))) + 2
