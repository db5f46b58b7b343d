"""Records into columns: what becomes of a record depends on it and on the schema alone."""

from __future__ import annotations

import datetime
import decimal
import enum
import itertools
import math
import sys
import types
import uuid
from typing import Any, Literal, Optional

import orjson
import pyarrow as pa
import pytest
import schema as s
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model, field_serializer

from modelbeam import models
from modelbeam.formats.jsonl import columns as jsonl_columns
from modelbeam.formats.lines import LineBlock
from modelbeam.models.base import LoadedModel
from modelbeam.models.signature import Column, Signature, from_pydantic, from_schema
from modelbeam.predicting.columns import Parts, to_batch
from modelbeam.predicting.predictor import predict, predict_table

if sys.version_info < (3, 14):
    import pydantic.v1 as pydantic_1

ANY = Signature((Column("x", "any", nullable=True, required=False),), exact=False)


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows of what ``to_batch`` returns, in the order of the records."""
    if not isinstance(batch, Parts):
        return batch.to_pylist()  # type: ignore[no-any-return]
    placed = [
        (place, row)
        for part, places in zip(batch.batches, batch.rows, strict=True)
        for place, row in zip(places, part.to_pylist(), strict=True)
    ]
    return [row for _, row in sorted(placed, key=lambda one: one[0])]


def without_nulls(value: Any) -> Any:
    """A value as it would be had no other record fields of its own; integers as floats."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(member) for member in value]
    return value


def outcomes(records: list[dict[str, Any]], signature: Signature | None) -> list[Any]:
    """What becomes of each record: what the model sees of it, or ``failed`` and why."""
    batch, fitting, failures = to_batch(records, signature)
    rows = range(len(records)) if fitting is None else fitting
    seen = dict(zip(rows, map(without_nulls, rows_of(batch)), strict=True))
    failed = {failure.row: ("failed", failure.error) for failure in failures}
    assert seen.keys() | failed.keys() == set(range(len(records)))
    assert not seen.keys() & failed.keys()
    return [seen.get(row, failed.get(row)) for row in range(len(records))]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]),
    st.sampled_from([0.0, -0.0, 1.5, 2.0, 1e300]),
    st.sampled_from(["", "NaN", "1", "1.5", "true", "x"]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    ),
    max_leaves=6,
)
some_records = st.lists(
    st.fixed_dictionaries({}, optional={"x": values, "y": values}), min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(some_records, st.randoms(use_true_random=False), st.integers(1, 8))
@pytest.mark.parametrize("signature", [ANY, None], ids=["a column of any type", "no columns"])
def test_a_record_has_one_outcome_in_any_order_and_any_blocks(
    signature: Signature | None, records: list[dict[str, Any]], chance: Any, size: int
) -> None:
    alone = [outcomes([record], signature)[0] for record in records]
    for record, outcome in zip(records, alone, strict=True):
        if isinstance(outcome, dict):
            wanted = record if signature is None else {"x": record.get("x")}
            assert outcome == without_nulls(wanted)
    order = list(range(len(records)))
    chance.shuffle(order)
    for rows in [order, *(order[at : at + size] for at in range(0, len(order), size))]:
        assert outcomes([records[row] for row in rows], signature) == [alone[row] for row in rows]


@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=8))
def test_only_what_no_column_could_hold_fails(found: list[Any]) -> None:
    for value, outcome in zip(found, outcomes([{"x": v} for v in found], ANY), strict=True):
        texts = orjson.dumps(value)
        mixed = b"[" in texts
        beyond = str(2**63) in texts.decode() or str(2**64 - 1) in texts.decode()
        if isinstance(outcome, tuple):
            assert mixed or beyond


@pytest.mark.parametrize(
    ("found", "arrow"),
    [
        ([None, 1, None], "int64"),
        ([1, 2.5, None], "double"),
        ([[], [], [1.5]], "list<item: double>"),
        ([[], [1], [2.5], None], "list<item: double>"),
        ([{}, {}, {"a": 1}], "struct<a: int64>"),
        ([{"a": 1}, {"b": [None]}, {"a": 0.5}], "struct<a: double, b: list<item: null>>"),
        ([{"a": {}}, {"a": {"b": "x"}}, {"a": None}], "struct<a: struct<b: string>>"),
        ([None, None], "null"),
    ],
)
def test_the_type_of_an_open_column_is_the_least_that_all_values_have(found, arrow):
    for order in itertools.permutations(found):
        batch, rows, failures = to_batch([{"x": value} for value in order], ANY)
        assert (rows, failures) == (None, [])
        names = str(batch.schema.field("x").type)
        assert sorted(names) == sorted(arrow), "but for the order of fields"


@pytest.mark.parametrize(
    "found",
    [[1, "1"], [True, 1], [[1], {"a": 1}], [2**53 + 1, 0.5], [{"a": 1}, {"a": "s"}], ["", []]],
)
def test_values_without_a_common_type_go_to_the_model_in_calls_of_their_own(found):
    records = [{"x": value} for value in [None, *found, *found, None]]
    batch, rows, failures = to_batch(records, ANY)
    assert (rows, failures) == (list(range(len(records))), [])
    assert isinstance(batch, Parts)
    assert len(batch.batches) == 2
    assert [row["x"] for row in rows_of(batch)] == [record["x"] for record in records]


EAST = datetime.timezone(datetime.timedelta(hours=10))


class Mute:
    """A key that cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**63, "an integer beyond 64 bits"),
        (10**5000, "an integer beyond 64 bits"),
        (decimal.Decimal("1e100"), "recision"),
        (decimal.Decimal("NaN"), "no decimal number"),
        (datetime.datetime(1, 1, 1, tzinfo=EAST), "out of range"),
        ({Mute(): 1}, "no words"),
        ([1, "a"], "whose elements have no common type"),
        ([{"a": 1}, {"a": [2]}], "whose elements have no common type"),
        ("\ud800", "lone surrogate"),
        ({1: 2}, "a key that is not a string"),
        (object(), "for which Arrow has no type"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_no_column_holds_fails_alone_and_says_why(value, words):
    records = [{"x": 1}, {"x": value}, {"x": 2}]
    batch, rows, failures = to_batch(records, ANY)
    assert (rows_of(batch), rows) == ([{"x": 1}, {"x": 2}], [0, 2])
    assert [(f.row, f.stage, f.type) for f in failures] == [
        (1, "validate", "SchemaValidationError")
    ]
    assert words in failures[0].error


@pytest.mark.parametrize("kind", [lambda v: [v], lambda v: {"a": v}])
@pytest.mark.parametrize("depth", [200, 900])
def test_a_value_that_is_nested_too_deep_fails_alone(kind, depth):
    deep: Any = 1
    for _ in range(depth):
        deep = kind(deep)
    for others in ([], [{"x": 1}], [{"x": "s"}, {"x": 2}]):
        batch, rows, failures = to_batch([*others, {"x": deep}], ANY)
        assert len(batch) == len(others) + (depth < 256)
        assert rows is None or rows == list(range(len(batch)))
        assert all("levels deep" in failure.error for failure in failures)


def test_the_columns_of_a_model_without_any_are_those_of_all_records():
    records = [{"id": 1, "a": 1}, {"id": 2, "b": 5}, {}, {"c": None}]
    batch, rows, failures = to_batch(records, None)
    assert (batch.schema.names, rows, failures) == (["id", "a", "b", "c"], None, [])
    assert [without_nulls(row) for row in batch.to_pylist()] == list(map(without_nulls, records))


def test_records_without_members_are_records():
    batch, _, failures = to_batch([{}, {}], None)
    assert (batch.num_rows, failures) == (2, [])


def test_time_does_not_explode_where_no_two_records_fit_together():
    records = [{"x": {f"f{j}": 1 if i >> j & 1 else "s" for j in range(12)}} for i in range(3000)]
    batch, rows, failures = to_batch(records, ANY)
    assert len(batch) == len(rows) == 3000
    assert not failures


# What the model makes of parts


class Echo:
    """Returns of each record the text of x; raises for what its argument says."""

    display_name = qualified_name = description = "echo"
    major_version = minor_version = 1
    input_schema = s.Schema({s.Optional("x"): object}, ignore_extra_keys=True)
    output_schema = s.Schema(dict)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Echo one."""
        return {"y": repr(without_nulls(data.get("x")))}


class EchoTable(Echo):
    """The same in columns; raises for the number 3."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Echo a column."""
        found = batch.column("x").to_pylist()
        if 3 in found:
            raise ValueError("three")
        shown = [repr(without_nulls(value)) for value in found]
        return pa.RecordBatch.from_arrays([pa.array(shown)], names=["y"])


class Same(EchoTable):
    """Returns the column as it is, whatever type it has."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return x."""
        return batch


def loaded(cls: type, **attributes: Any) -> LoadedModel:
    """A model object of a class that is made here."""
    module = types.ModuleType("columns_under_test")
    module.Model = type("Model", (cls,), attributes)  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return models.load(f"{module.__name__}:Model", None, {})


def test_predictions_of_parts_are_in_the_order_of_the_records():
    found = [1, "a", 3, None, "b", [1], 2, 3]
    model = loaded(EchoTable)
    batch, _, _ = to_batch([{"x": v} for v in found], model.info.signature, model.validate)
    made = predict(model, batch, 2)
    lines = [row["y"] for piece in made.values for row in piece.to_pylist()]
    assert lines == [repr(value) for value in found if value != 3]
    assert made.rows == [0, 1, 3, 4, 5, 6]
    assert sorted((f.row, f.stage) for f in made.failures) == [(2, "predict"), (7, "predict")]


def test_where_every_part_fails_every_record_does():
    model = loaded(EchoTable)
    batch, _, _ = to_batch([{"x": 3}, {"x": 3.0}], model.info.signature, model.validate)
    mixed, _, _ = to_batch([{"x": 3}, {"x": "a"}], model.info.signature, model.validate)
    assert [f.row for f in predict(model, batch, None).failures] == [0, 1]
    mixed.batches, mixed.rows = mixed.batches[:1], mixed.rows[:1]
    made = predict(model, mixed, None)
    assert (made.values, made.rows, [f.row for f in made.failures]) == ([], [], [0])


def test_parts_whose_predictions_differ_in_type_are_in_order_too():
    found = [1, 2, "a", 3, "b", "c", None, [1]]
    model = loaded(Same)
    batch, _, _ = to_batch([{"x": v} for v in found], model.info.signature, model.validate)
    made = predict(model, batch, None)
    assert [row["x"] for piece in made.values for row in piece.to_pylist()] == found
    assert (made.rows, made.failures) == (None, [])


# The same outcome in all three styles


class Plain(Echo):
    """Validates and returns what it was given."""

    def predict(self, data: Any) -> dict[str, Any]:
        """Return the record."""
        if hasattr(data, "model_dump"):
            return data.model_dump()  # type: ignore[no-any-return]
        return dict(data.dict() if hasattr(data, "dict") else self.input_schema.validate(data))


class Lists(Plain):
    """The same in lists."""

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the records."""
        return data


class Tables(Plain):
    """The same in columns."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns."""
        return batch


def in_style(cls: type, schema: Any, records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The prediction of each record that has one."""
    model = loaded(cls, input_schema=schema)
    given_records = orjson.loads(orjson.dumps(records))
    if model.info.style != "table":
        made = predict(model, given_records, None)
        rows = range(len(records)) if made.rows is None else made.rows
        assert {f.stage for f in made.failures} <= {"validate"}
        return dict(zip(rows, map(comparable, made.values), strict=True))
    batch, fitting, failures = to_batch(given_records, model.info.signature, model.validate)
    assert {f.stage for f in failures} <= {"validate"}
    rows = range(len(records)) if fitting is None else fitting
    seen = dict(zip(rows, map(comparable, rows_of(batch)), strict=True))
    agrees_with_the_decoder(model, records, seen)
    return seen


def agrees_with_the_decoder(
    model: LoadedModel, records: list[dict[str, Any]], seen: dict[int, dict[str, Any]]
) -> None:
    """The lines that the decoder in C is certain of are predicted, with the same values."""
    signature = model.info.signature
    if signature is None or not signature.exact:
        return
    data = b"".join(orjson.dumps(record) + b"\n" for record in records)
    found = jsonl_columns.decode(LineBlock(data, 0, 0, len(records)), signature)
    if found is None:  # a doubt about a column that takes anything is one about the block
        assert any(c.kind == "any" and c.shape is None for c in signature.columns)
        return
    lines = range(len(records)) if found.rows is None else found.rows
    for line, row in zip(lines, found.batch.to_pylist(), strict=True):
        assert comparable(row) == seen[line]
    assert set(lines) | set(found.doubtful) == set(range(len(records)))


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A prediction with numbers as floats and without nulls, which tables have for absence."""
    return {
        name.removesuffix("_"): float(value)
        if isinstance(value, (bool, int))
        else without_nulls(value)
        for name, value in record.items()
        if value is not None
    }


field_values = st.one_of(
    st.integers(-3, 6),
    st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, 1.5, 3.0, -2.0, 5.0, 2.0**60]),
    st.sampled_from(["5", "1.5", "true", "abc", "", " 7 "]),
    st.booleans(),
    st.none(),
    st.sampled_from([[], [1], {}, {"a": 1}]),
    st.sampled_from([[1.5, 2], [2**53 + 1], ["1.5"], [None], [True, 1.0], [[1.0]], [1.5, 2.5]]),
)
plain_records = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(["a", "b", "c", "z"], field_values)),
    min_size=1,
    max_size=12,
)
good_records = st.lists(
    st.fixed_dictionaries(
        {"a": st.integers(-3, 6) | st.floats(-3, 6), "b": st.integers(-3, 6)},
        optional={"c": field_values},
    ),
    max_size=5,
)


@st.composite
def pydantic_models(draw: st.DrawFn) -> type[BaseModel]:
    """A model of plain, optional, nullable and bounded fields."""
    fields: dict[str, Any] = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        annotation: Any = draw(st.sampled_from([float, int, str, bool, float | int, list[float]]))
        default: Any = {int: 2, str: "2", bool: True, list[float]: [2.0]}.get(annotation, 2.0)
        bounds = {}
        if annotation in (float, int, float | int):
            kinds = draw(st.sets(st.sampled_from(["gt", "ge", "lt", "le"]), max_size=2))
            limits = [0, 3, 2**53] if annotation is int else [0, 3, 1.5, 2**53]
            bounds = {kind: draw(st.sampled_from(limits)) for kind in kinds}
        if draw(st.booleans()):
            annotation = Optional[annotation]  # noqa: UP045 - a type that is not known here
        if draw(st.integers(0, 3)) == 0:
            bounds["alias"] = name
            name += "_"
        default = draw(st.sampled_from([..., ..., None, default]))
        fields[name] = (annotation, Field(default, **bounds))
    config = ConfigDict(
        strict=draw(st.sampled_from([False, False, True])),
        extra=draw(st.sampled_from(["ignore", "ignore", "forbid"])),
        str_strip_whitespace=draw(st.booleans()),
    )
    return create_model("In", __config__=config, **fields)


@settings(max_examples=150, deadline=None)
@given(pydantic_models(), plain_records, good_records)
def test_a_pydantic_model_predicts_the_same_records_in_every_style(
    schema: type[BaseModel], records: list[dict[str, Any]], good: list[dict[str, Any]]
) -> None:
    records = [*good, *records, *good]
    one = in_style(Plain, schema, records)
    assert in_style(Lists, schema, records) == one
    assert in_style(Tables, schema, records) == one


OLDER_TYPES = [float, int, str, bool, s.Or(int, float), s.Or(float, int), s.Or(str, None)]
OLDER_TYPES += [s.Or(float, None), s.Or(None, int), s.Or(int, str), s.And(int, lambda n: n > 2)]
OLDER_TYPES += [s.Use(float), object, [int], {"a": int}, [float], [float]]


@st.composite
def older_schemas(draw: st.DrawFn) -> s.Schema:
    """A schema of plain, optional and nullable fields, and of some that are more than that."""
    fields: dict[Any, Any] = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        kind = draw(st.sampled_from(OLDER_TYPES))
        more = {"default": kind(2)} if kind in (float, int, str, bool) else {}
        keys = [name, s.Optional(name), s.Optional(name, **more)]
        fields[draw(st.sampled_from(keys))] = kind
    return s.Schema(fields, ignore_extra_keys=draw(st.booleans()))


@settings(max_examples=150, deadline=None)
@given(older_schemas(), plain_records, good_records)
def test_a_model_of_the_older_generation_predicts_the_same_records_in_every_style(
    schema: s.Schema, records: list[dict[str, Any]], good: list[dict[str, Any]]
) -> None:
    records = [*good, *(one for one in records if has_a_column(schema, one)), *good]
    one = in_style(Plain, schema, records)
    assert in_style(Lists, schema, records) == one
    shown = [as_a_table_shows_it(schema, record) for record in records]
    assert in_style(Tables, schema, records) == in_style(Plain, schema, shown)


def has_a_column(schema: s.Schema, record: dict[str, Any]) -> bool:
    """Whether no array that may hold anything has elements without a common type."""
    kinds = {getattr(key, "schema", key): kind for key, kind in schema.schema.items()}
    return all(kinds.get(n) is not object or value != [True, 1.0] for n, value in record.items())


def as_a_table_shows_it(schema: s.Schema, record: dict[str, Any]) -> dict[str, Any]:
    """The two differences that docs/types.md names: other fields are not seen, integers widened."""
    kinds = {getattr(key, "schema", key): kind for key, kind in schema.schema.items()}
    return {n: widened(value, kinds[n]) for n, value in record.items() if n in kinds}


def widened(value: Any, kind: Any) -> Any:
    """A value with integers as floats where a schema of the older generation says float."""
    if kind == [float] and isinstance(value, list):
        return [widened(member, float) for member in value]
    is_float = kind is float or repr(kind) == repr(s.Or(float, None))
    return float(value) if is_float and type(value) is int else value


def test_integers_with_a_point_are_integers_where_pydantic_says_so():
    schema = create_model("Counts", n=(int, ...))
    records = [{"n": 3.0}, {"n": "4"}, {"n": None}, {"n": 5}, {"n": 5.5}, {"n": True}]
    model = loaded(Tables, input_schema=schema)
    batch, rows, failures = to_batch(records, model.info.signature, model.validate)
    assert (batch.column("n").to_pylist(), rows) == ([3, 4, 5, 1], [0, 1, 3, 5])
    assert batch.schema.field("n").type == pa.int64()
    assert {failure.type for failure in failures} == {"ValidationError"}


def test_an_integer_beyond_64_bits_has_no_column_but_is_a_record():
    schema = create_model("Counts", n=(int, ...))
    assert in_style(Plain, schema, [{"n": 2**63}]) == {0: {"n": 2.0**63}}
    assert in_style(Tables, schema, [{"n": 2**63}]) == {}


class Colour(enum.Enum):
    """An enum whose values are what a column holds."""

    RED, BLUE = "red", "blue"


class Inner(BaseModel):
    """An object inside a record."""

    a: float
    b: int | None = None


DAY = datetime.date(2024, 5, 6)
NOON = datetime.datetime(2024, 5, 6, 12, tzinfo=datetime.timezone.utc)

CONVERTED: list[tuple[Any, list[Any], list[Any], str]] = [
    (list[float], [[], [1], ["2.5"]], [[], [1.0], [2.5]], "list<item: double>"),
    (list[float], [[], []], [[], []], "list<item: double>"),
    (tuple[int, int], [[1, "2"]], [[1, 2]], "list<item: int64>"),
    (set[str], [["b", "a", "b"]], [["a", "b"]], "list<item: string>"),
    (Colour, ["red", "blue"], ["red", "blue"], "string"),
    (Literal["a", "b"], ["a"], ["a"], "string"),
    (Inner, [{"a": "1"}, {"a": 2, "b": 3.0}], [{"a": 1.0, "b": None}, {"a": 2.0, "b": 3}],
     "struct<a: double, b: int64>"),
    (list[Inner], [[]], [[]], "list<item: struct<a: double, b: int64>>"),
    (list[int] | None, [None, None], [None, None], "list<item: int64>"),
    (datetime.date, ["2024-05-06"], [DAY], "date32[day]"),
    (datetime.datetime, ["2024-05-06T14:00:00+02:00"], [NOON], "timestamp[us, tz=UTC]"),
    (datetime.timedelta, ["PT1S"], [datetime.timedelta(seconds=1)], "duration[us]"),
    (decimal.Decimal, ["1.50", 2], [decimal.Decimal("1.50"), 2], "decimal128(3, 2)"),
    (uuid.UUID, [str(uuid.UUID(int=1))], [str(uuid.UUID(int=1))], "string"),
    (bytes, ["ab"], [b"ab"], "binary"),
    (dict[str, float], [{}, {"a": "1"}], [{"a": None}, {"a": 1.0}], "struct<a: double>"),
    (Any, [None, {"a": [1]}], [None, {"a": [1]}], "struct<a: list<item: int64>>"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "found", "seen", "arrow"), CONVERTED, ids=str)
def test_columns_hold_what_pydantic_makes_of_the_values(annotation, found, seen, arrow):
    model = loaded(Tables, input_schema=create_model("In", x=(annotation, ...)))
    records = [{"x": value} for value in found]
    batch, _, failures = to_batch(records, model.info.signature, model.validate)
    assert failures == []
    assert (batch.column("x").to_pylist(), str(batch.schema.field("x").type)) == (seen, arrow)


def test_defaults_and_conversions_of_schema_reach_the_columns():
    fields = {s.Optional("n", default=7): int, "x": s.Use(float), "v": [s.Or(int, float)]}
    model = loaded(Tables, input_schema=s.Schema(fields))
    records = [{"x": "1.5", "v": []}, {"n": 2, "x": 1, "v": [1]}, {"x": "a", "v": []}]
    batch, rows, failures = to_batch(records, model.info.signature, model.validate)
    assert batch.to_pylist() == [{"n": 7, "x": 1.5, "v": []}, {"n": 2, "x": 1.0, "v": [1.0]}]
    assert (rows, [failure.row for failure in failures]) == ([0, 1], [2])


def test_a_field_that_pydantic_does_not_write_reaches_the_model_all_the_same():
    class Secret(BaseModel):
        model_config = ConfigDict(serialize_by_alias=True)
        x: float = Field(exclude=True)
        z: float = Field(2.0, alias="Z")

    for cls in (Lists, Tables):
        assert in_style(cls, Secret, [{"x": "1"}]) == {
            0: {"x": 1.0, ("z" if cls is Lists else "Z"): 2.0}
        }


def test_a_serializer_of_an_input_counts_in_every_line_or_none():
    class Written(BaseModel):
        x: float

        @field_serializer("x")
        def write(self, x: float) -> float:
            return -x

    assert from_pydantic(Written).exact is False


@pytest.mark.parametrize(
    "body",
    [
        {"__init__": lambda self, **data: BaseModel.__init__(self, **data)},
        {"model_post_init": lambda _, __: None},
        {"model_config": ConfigDict(str_max_length=2)},
    ],
    ids=["constructor", "after construction", "rules for text"],
)
def test_a_model_that_may_do_more_than_its_fields_say_is_asked(body):
    made = type("In", (BaseModel,), {"__annotations__": {"x": str}, "__module__": __name__, **body})
    assert from_pydantic(made).exact is False


def test_private_attributes_are_no_code_of_its_own():
    class Private(BaseModel):
        x: float
        _cache: dict[str, int] = {}

    assert from_pydantic(Private).exact


def test_a_root_model_has_no_columns():
    assert from_pydantic(RootModel[dict[str, float]]) is None
    model = loaded(Tables, input_schema=RootModel[dict[str, float]])
    batch, _, failures = to_batch([{"a": "1"}, {"b": 2}], None, model.validate)
    assert failures == []
    assert [without_nulls(row) for row in batch.to_pylist()] == [{"a": 1.0}, {"b": 2.0}]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 ends with Python 3.13")
def test_columns_hold_what_pydantic_1_makes_of_the_values():
    class First(pydantic_1.BaseModel):
        n: int
        v: list[float] = []
        z: Optional[str]  # noqa: UP045 - as it was written for that version

    records = [{"n": 3.7, "v": ["1"]}, {"n": "4", "z": 5}, {"n": "x"}, {"n": None}]
    one = in_style(Plain, First, records)
    assert one == {0: {"n": 3.0, "v": [1.0]}, 1: {"n": 4.0, "v": [], "z": "5"}}
    assert in_style(Lists, First, records) == one
    assert in_style(Tables, First, records) == one
    assert [column.kind for column in from_pydantic(First).columns] == ["int", "any", "str"]


def test_a_mistake_in_one_field_does_not_change_what_tables_take_in_another():
    """Whether an integer is taken for a float does not depend on the other fields' schemas."""
    for other in (int, s.And(int, lambda n: n > 0)):
        schema = s.Schema({"x": float, "n": other})
        seen = in_style(Tables, schema, [{"x": 1, "n": 1, "more": 1}, {"x": True, "n": 1}])
        assert seen == {0: {"x": 1.0, "n": 1.0}}


def test_objects_and_lists_of_schema_have_the_types_that_it_names():
    fields = {"v": [float], "o": {"a": int, s.Optional("b"): str}, "c": s.Or("red", "blue")}
    signature = from_schema(s.Schema(fields))
    batch, _, failures = to_batch([{"v": [], "o": {"a": 1}, "c": "red"}], signature)
    assert failures == []
    assert [str(field.type) for field in batch.schema] == [
        "list<item: double>",
        "struct<a: int64, b: string>",
        "string",
    ]


def test_a_schema_with_a_validate_of_its_own_is_asked():
    class Positive(s.Schema):
        def validate(self, data: Any, **more: Any) -> Any:
            if isinstance(data, dict) and (data["x"] < 0 or "z" in data):
                raise s.SchemaError("negative")
            return super().validate(data, **more)

    schema = Positive({"x": float}, ignore_extra_keys=True)
    records = [{"x": 1.0}, {"x": -1.0}, {"x": 2.0, "z": 1}]
    for cls in (Plain, Lists, Tables):
        assert in_style(cls, schema, records) == {0: {"x": 1.0}}


def test_decimals_that_need_too_many_digits_together_go_separately():
    found = [decimal.Decimal("1e60"), decimal.Decimal("1e-60"), decimal.Decimal("0.5")]
    batch, rows, failures = to_batch([{"x": value} for value in found], ANY)
    assert (rows, failures) == ([0, 1, 2], [])
    assert [row["x"] for row in rows_of(batch)] == found


def test_naive_and_zoned_times_are_not_mixed():
    naive = NOON.replace(tzinfo=None)
    batch, _, failures = to_batch([{"x": naive}, {"x": NOON}, {"x": DAY}], ANY)
    assert failures == []
    assert [row["x"] for row in rows_of(batch)] == [naive, NOON, DAY]


@settings(max_examples=150, deadline=None)
@given(older_schemas(), plain_records)
def test_what_is_valid_by_its_types_is_what_the_schema_makes_of_it(
    schema: s.Schema, records: list[dict[str, Any]]
) -> None:
    signature = from_schema(schema)
    assert signature is not None
    for some in [records, *([record] for record in records)]:
        valid = signature.plainly_valid(some) if signature.exact else None
        assert valid is None or valid == [schema.validate(record) for record in some]


def test_other_fields_that_the_schema_ignores_do_not_make_validation_slow():
    schema = s.Schema(
        {"x": float, s.Optional("n"): s.Or(int, None), "o": object}, ignore_extra_keys=True
    )
    records = [
        {"x": 1.5, "o": 1, "z": 2},
        {"x": 2.0, "n": None, "o": None},
        {"x": 1.0, "n": 1, "o": []},
    ]
    found = from_schema(schema).plainly_valid(records)
    assert found == [{"x": 1.5, "o": 1}, *records[1:]]
    for bad in ({"x": 1, "o": 1}, {"x": 1.0}, {"x": 1.0, "o": 1, "n": "1"}, {"x": None, "o": 1}):
        assert from_schema(schema).plainly_valid([*records, bad]) is None


def test_an_integer_where_a_float_is_wanted_gets_a_hint():
    for cls, schema in itertools.product((Plain, Lists), ({"x": float}, {"x": [float]})):
        model = loaded(cls, input_schema=s.Schema(schema))
        value = 5 if schema["x"] is float else [5]
        (failure,) = predict(model, [{"x": value}], None).failures
        assert failure.stage == "validate"
        assert "5 is an integer in the data" in failure.error
        assert "Or(int, float)" in failure.error


def test_another_mistake_gets_no_such_hint():
    model = loaded(Lists, input_schema=s.Schema({"x": float}))
    for value in ("5", None, True):
        (failure,) = predict(model, [{"x": value}], None).failures
        assert "Or(int, float)" not in failure.error


def test_numbers_of_other_libraries_are_numbers():
    import numpy as np

    signature = from_schema(s.Schema({"x": float, "s": str}))
    batch, _, failures = to_batch([{"x": np.float64(1.5), "s": np.str_("a")}], signature)
    assert failures == []
    assert batch.to_pylist() == [{"x": 1.5, "s": "a"}]
    assert math.isclose(predict_table(loaded(Same), batch, None).values[0]["x"][0].as_py(), 1.5)
