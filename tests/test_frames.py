"""The predictions of a run as a frame: every format, one file or shards, in the input's order."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from commands import write_lines
from hypothesis import given, settings

import modelbeam
from modelbeam import formats
from modelbeam.errors import InputReadError, RequestError
from modelbeam.formats.compression import compressed
from modelbeam.formats.layout import OutputColumn
from modelbeam.job.frames import arrow_table
from modelbeam.job.result import Run
from modelbeam.predicting.outcome import Outcome

ROWS = [{"id": f"0{n}", "n": n, "y": n / 4, "ok": n % 2 == 0} for n in range(40)]
COLUMNS = [["id", "string"], ["n", "int64"], ["y", "double"], ["ok", "bool"]]

TYPES = {"list<item: string>": pa.list_(pa.string())}


def run_of(
    folder: Path, suffix: str, parts: list[list[dict[str, Any]]], columns: Any = COLUMNS
) -> Run:
    """A finished run with these rows in its shards, written as a run writes them."""
    kind = formats.parse(suffix, "")
    layout = tuple(
        OutputColumn(n, TYPES.get(t) or (t and pa.type_for_alias(t))) for n, t in columns
    )
    files = []
    for number, rows in enumerate(parts):
        path = folder / f"predictions-{number:05d}-of-{len(parts):05d}.{suffix}"
        with path.open("wb") as handle:
            packed = compressed(handle, kind.compression) if kind.compression else handle
            writer = formats.find(kind.name).writer(packed, layout, 0)
            assert writer.write(Outcome(len(rows), rows, False, None, None, [])) == []
            writer.close()
            packed.close()
        files.append(str(path))
    count = sum(map(len, parts))
    return Run.of(
        {
            "counts": {"read": count, "predicted": count, "failed": 0},
            "files": files,
            "output": str(folder),
            "seconds": 1.0,
            "failures": [],
            "job": {"settings": {"--output-format": "." + suffix, "output columns": columns}},
        }
    )


SUFFIXES = ["jsonl", "json", "csv", "parquet", "arrow", "avro", "jsonl.gz", "csv.zst"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "one").mkdir()
    shards = run_of(tmp_path, suffix, [ROWS[:7], ROWS[7:8], ROWS[8:]])
    single = run_of(tmp_path / "one", suffix, [ROWS])
    for run in (shards, single):
        table = run.to_arrow()
        assert table.to_pylist() == ROWS
        assert [str(field.type) for field in table.schema] == ["string", "int64", "double", "bool"]
    frame, pandas = shards.to_polars(), shards.to_pandas()
    assert frame.to_dicts() == ROWS
    assert pandas.to_dict("records") == ROWS
    assert list(pandas.columns) == frame.columns == [name for name, _ in COLUMNS]


def test_csv_has_the_types_that_the_run_wrote(tmp_path: Path) -> None:
    """Text that looks like a number stays text; lists are lists again; what is open is text."""
    columns = [["zip", "string"], ["tags", "list<item: string>"], ["any", None], ["n", "int64"]]
    rows = [
        {"zip": "01234", "tags": ["a", "b,"], "any": "x", "n": 1},
        {"zip": "1", "tags": [], "any": "7", "n": None},
    ]
    assert run_of(tmp_path, "csv", [rows], columns).to_arrow().to_pylist() == rows


@pytest.mark.parametrize(
    ("parts", "values", "type_"),
    [
        ([[1], [2.5]], [1.0, 2.5], "double"),
        ([[2**53 + 1], [0.5]], ["9007199254740993", "0.5"], "string"),
        ([[1], ["a"]], ["1", "a"], "string"),
        ([[True], [1]], ["true", "1"], "string"),
        ([[None], ["a"]], [None, "a"], "string"),
        ([[{"a": 1}], [{"b": "x"}]], [{"a": 1, "b": None}, {"a": None, "b": "x"}], None),
        ([[{"a": 1}], [[1]]], ['{"a":1}', "[1]"], "string"),
        ([[[1]], [[0.5]]], [[1.0], [0.5]], "list<item: double>"),
    ],
)
def test_a_column_of_json_has_the_type_that_holds_all_values(
    tmp_path: Path, parts: list[list[Any]], values: list[Any], type_: str | None
) -> None:
    shards = [[{"y": value} for value in part] for part in parts]
    for made in (shards, [[row for shard in shards for row in shard]]):
        table = run_of(tmp_path, "jsonl", made).to_arrow()
        assert table.column("y").to_pylist() == values
        assert type_ is None or str(table.schema.field("y").type) == type_


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text("ab", max_size=3)
    | st.floats(-1e6, 1e6, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pq"), inner),
    max_leaves=4,
)  # fmt: skip


def filled(value: Any, back: Any) -> bool:
    """Whether a value is what stands in a typed column, where members that lack are null."""
    if isinstance(value, dict):
        return isinstance(back, dict) and all(
            filled(value.get(name), one) for name, one in back.items()
        )
    if isinstance(value, list):
        return len(value) == len(back) and all(map(filled, value, back))
    return value == back or (value is None and back in (None, {}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.dictionaries(st.sampled_from("xyz"), JSON), max_size=3), max_size=3))
def test_whatever_json_holds_is_in_the_table(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[dict[str, Any]]]
) -> None:
    run = run_of(tmp_path_factory.mktemp("json"), "jsonl", parts, [])
    table = arrow_table(run.shards, run.description)
    rows = [row for part in parts for row in part]
    names = dict.fromkeys(name for row in rows for name in row)
    assert (set(table.schema.names), table.num_rows) == (
        set(names),
        len(rows) if names else 0,
    )
    for name in names:
        values = [row.get(name) for row in rows]
        back = table.column(name).to_pylist()
        if str(table.schema.field(name).type) == "string":
            back = [b if isinstance(v, str) or b is None else json.loads(b)
                    for v, b in zip(values, back, strict=True)]  # fmt: skip
        assert all(map(filled, values, back)), (values, back)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "jsonl", [ROWS])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RequestError, match=r"run.to_pandas\(\) needs pandas.*pip install pandas"):
        run.to_pandas()
    Path(run.shards[0]).unlink()
    with pytest.raises((InputReadError, FileNotFoundError)):
        run.to_arrow()
    stream = Run(1, 1, 0, (), (), "out", 1.0, (), {"output": "out", "runs": 1})
    with pytest.raises(RequestError, match="streaming run"):
        stream.to_arrow()


def test_a_run_shows_itself() -> None:
    """As a short text, and as a table in which nothing of the data is markup."""
    kind = {
        "type": "E",
        "count": 3,
        "source": "<b>",
        "line": 1,
        "error": "<script>alert(1)</script>",
    }
    about = {"models": [{"name": "<i>m", "version": "2"}, {"name": "n", "version": "unknown"}]}
    run = Run(1003, 1000, 3, ("o",), ("e",), "out&", 2.0, (kind,) * 9, about)
    assert repr(run) == "<Run: 1,003 read, 1,000 predicted, 3 failed in 2.0 s, in out&>"
    shown = run._repr_html_()
    assert "<script>" not in shown
    assert "<i>" not in shown
    assert "&lt;i&gt;m 2, n" in shown
    assert shown.count("3 x E") == 5
    assert "out&amp;" in shown


def test_a_real_run_gives_its_predictions(tmp_path: Path) -> None:
    records = [*({"x": float(n)} for n in range(50)), {"x": -1.0}]
    source = write_lines(tmp_path / "in.jsonl", records)
    run = modelbeam.predict(
        model="small_models:Doubler", input=str(source), output=str(tmp_path / "out"),
        keep="all", split_size=200, workers=2,
    )  # fmt: skip
    assert len(run.shards) > 1
    assert run.to_arrow().to_pydict() == {
        "x": [float(n) for n in range(50)], "y": [2.0 * n for n in range(50)],
    }  # fmt: skip
