"""Objects and lists inside of records, decoded in C: what the schema makes of them, or nothing.

The schemas are drawn, and so are lines that fit them or nearly do. What the decoder is certain of
is compared with what the schema itself makes of the record.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pyarrow as pa
import pytest
import schema as s
from hypothesis import event, given, reject, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from test_decode import MEAN_BYTES, block_of, end, odd_value, space

from modelbeam.formats.jsonl import columns as jsonl_columns
from modelbeam.formats.jsonl.batch import JsonBatch
from modelbeam.formats.jsonl.decode import decode_records
from modelbeam.formats.limited import FirstRecords
from modelbeam.formats.lines import LineBlock
from modelbeam.models.signature import Column, Signature, from_pydantic, from_schema
from modelbeam.predicting.columns import to_batch

Validate = Callable[[dict[str, Any]], Any]
Case = tuple[Signature, Validate]


def of_model(model: type[BaseModel]) -> Case:
    """A pydantic model as a signature, and what it makes of a record."""
    signature = from_pydantic(model)
    assert signature is not None

    def validate(record: dict[str, Any]) -> dict[str, Any]:
        valid = model.model_validate(record)
        fields = valid.model_dump(by_alias=False)
        return {name: fields.get(name, getattr(valid, name)) for name in model.model_fields}

    return signature, validate


def of_schema(schema: s.Schema) -> Case:
    """The same of a schema of the ``schema`` library."""
    signature = from_schema(schema)
    assert signature is not None
    return signature, schema.validate


def layout(array: pa.Array) -> list[Any]:
    """All that is in an array: of nested ones also what stands where they are null."""
    if pa.types.is_struct(array.type):
        inside = [layout(array.field(at)) for at in range(array.type.num_fields)]
    elif pa.types.is_list(array.type):
        inside = [array.offsets.to_pylist(), layout(array.values)]
    else:
        inside = [repr(array.to_pylist())]
    return [str(array.type), array.is_valid().to_pylist(), inside]


def check(block: LineBlock, case: Case) -> jsonl_columns.Columns | None:
    """Compare the decoder in C with the schema; return what it says."""
    signature, validate = case
    found = jsonl_columns.decode(block, signature)
    if found is None:
        return None
    found.batch.validate(full=True)
    decoded = decode_records(block)
    batch, fitting, _ = to_batch(decoded.records, signature, validate)
    assert isinstance(batch, pa.RecordBatch)
    lines = decoded.rows if decoded.rows is not None else range(len(decoded.records))
    lines = list(lines) if fitting is None else [lines[i] for i in fitting]
    assert found.batch.schema == batch.schema
    rows = list(range(block.count)) if found.rows is None else found.rows
    right = dict(zip(lines, batch.to_pylist(), strict=True))
    for line, row in zip(rows, found.batch.to_pylist(), strict=True):
        assert line in right, "a line that the schema rejects"
        assert repr(row) == repr(right[line])
    if rows == lines:
        for ours, theirs in zip(found.batch.columns, batch.columns, strict=True):
            assert layout(ours) == layout(theirs)
    passed_by = set(range(block.count)) - set(rows) - set(found.doubtful)
    assert not any(block.lines[line].strip() for line in passed_by)
    assert not set(rows) & set(found.doubtful)
    both = JsonBatch(block).table(signature, validate)
    assert (list(range(block.count)) if both.rows is None else both.rows) == lines
    assert repr(both.records.to_pylist()) == repr([right[line] for line in lines])
    return found


NAMES = ("a", "b", "c", "größe", "x")
plain_types = [float, int, str, bool, float, int | float]
bounded_types = [
    Annotated[float, Field(ge=0, lt=10)],
    Annotated[int, Field(gt=-3)],
    Annotated[int, Field(le=2**53)],
    Annotated[float, Field(gt=0.1)],
]
other_types = [
    *[Annotated[str, Field(max_length=2)], Annotated[float, AfterValidator(abs)]],
    *[Literal["x", "y"], datetime.date, tuple[float, float], dict[str, float], set[int], Any],
]
config = st.sampled_from(
    [{}] * 40
    + [
        {"extra": "forbid"},
        {"extra": "allow"},
        {"extra": "ignore"},
        {"strict": True},
        {"populate_by_name": True},
        {"str_strip_whitespace": True},
        {"validate_default": True},
        {"coerce_numbers_to_str": True},
    ]
)


@st.composite
def models(draw: st.DrawFn, inside: st.SearchStrategy[Any], most: int = 3) -> type[BaseModel]:
    """A pydantic model whose fields are drawn."""
    fields: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=most, unique=True)):
        annotation = draw(inside)
        how = draw(st.sampled_from(["plain"] * 16 + ["none", "none", "alias", "default", "odd"]))
        field: dict[str, Any] = {}
        default: Any = ...
        if how == "none":
            annotation, default = annotation | None, None
        elif how == "alias":
            field["alias"] = f"{name}-"
        elif how == "default" and annotation is float:
            default = 1.5
        elif how == "odd":
            more = [
                {"exclude": True},
                {"strict": True},
                {"validation_alias": "a"},
                {"frozen": True},
            ]
            field.update(draw(st.sampled_from(more)))
        fields[name] = (annotation, Field(default, **field))
    try:
        return create_model("Drawn", __config__=ConfigDict(**draw(config)), **fields)
    except RuntimeError:  # a union cannot be strict
        reject()


annotations = st.recursive(
    st.sampled_from(plain_types * 10 + bounded_types * 4 + other_types),
    lambda inside: (
        inside.map(lambda one: list[one])
        | models(inside)
        | models(inside)
        | inside.map(lambda one: one | None)
    ),
    max_leaves=5,
)


@st.composite
def schemas(draw: st.DrawFn, inside: st.SearchStrategy[Any]) -> dict[Any, Any]:
    """What the ``schema`` library takes for an object."""
    made: dict[Any, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
        key = st.sampled_from(
            [name] * 6 + [s.Optional(name), s.Optional(name, default=1.5), s.Literal(name)]
        )
        made[draw(key)] = draw(inside)
    return made


in_schemas = st.recursive(
    st.sampled_from(
        [float, int, str, bool, s.Or(int, float), s.Or(float, None)] * 4
        + [object, s.And(float, lambda x: x > 0), s.Or("x", "y")]
    ),
    lambda inside: (
        inside.map(lambda one: [one])
        | schemas(inside)
        | schemas(inside)
        | inside.map(lambda one: s.Or(one, None))
        | schemas(inside)
        | st.sampled_from(
            [[float, str], s.Schema({"a": int}), {s.Optional(str): float}, [int, float]]
        )
    ),
    max_leaves=5,
)
cases = models(annotations).map(of_model) | st.builds(
    lambda fields, ignores: of_schema(s.Schema(fields, ignore_extra_keys=ignores)),
    schemas(in_schemas),
    st.booleans(),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
scalars = {
    "float": st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.sampled_from(["1", "0.5", "-0", "9007199254740993", "1e5"]),
    "int": st.integers(-4, 4).map(str) | st.integers(-(2**63), 2**63 - 1).map(str),
    "bool": st.sampled_from(["true", "false"]),
    "str": texts.map(json.dumps)
    | st.builds(lambda text: json.dumps(text, ensure_ascii=False), texts)
    | st.sampled_from(['"\\/"', '"\\u00DF"', '"\\ud83d\\ude00!"', '"\\ud83d"', '"\\udE00"']),
}


fates = st.sampled_from(["good"] * 30 + ["none"] * 9 + ["odd"])  # the first is the likeliest


@st.composite
def value_of(draw: st.DrawFn, column: Column, gap: str) -> str:
    """The text of a value that fits a column, or might."""
    fate = draw(fates)
    if fate == "odd":
        return draw(odd_value)
    if column.nullable and fate == "none":
        return "null"
    if column.kind != "any":
        return draw(scalars[column.kind])
    if column.inside is None:
        return draw(st.sampled_from(["1.5", '"x"', "[1, 2]", '"2024-01-02"', '{"a": 1}', "null"]))
    if column.is_list:
        found = [
            draw(value_of(column.inside[0], gap))
            for _ in range(draw(st.sampled_from([0, 1, 2, 3])))
        ]
        return f"[{gap}" + f"{gap},{gap}".join(found) + f"{gap}]"
    return draw(object_of(column.inside, gap))


@st.composite
def object_of(draw: st.DrawFn, columns: tuple[Column, ...], gap: str) -> str:
    """The text of an object that has columns, or most of them."""
    pairs = [
        (column.name, draw(value_of(column, gap)))
        for column in columns
        if draw(fates) != ("odd" if column.required else "none")
    ]
    change = draw(st.sampled_from(["none"] * 8 + ["shuffle", "more", "twice"]))
    if change == "shuffle":
        pairs = draw(st.permutations(pairs))
    elif change == "more":
        pairs.insert(draw(st.integers(0, len(pairs))), ("more", draw(odd_value)))
    elif change == "twice" and pairs:
        pairs.append((pairs[0][0], draw(value_of(columns[0], gap))))
    dumps = [(json.dumps(name, ensure_ascii=False), text) for name, text in pairs]
    return "{" + f",{gap}".join(f"{gap}{name}{gap}:{gap}{text}" for name, text in dumps) + gap + "}"


@st.composite
def blocks(draw: st.DrawFn) -> tuple[bytes, Case]:
    """A few lines, most of them right, and a few bytes of them changed."""
    case = draw(cases)
    count, gap = draw(st.integers(1, 4)), draw(space)
    lines = [draw(object_of(case[0].columns, gap)) + draw(end) for _ in range(count)]
    data = bytearray("".join(lines).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 1))
        change = draw(st.sampled_from(["change", "insert", "delete", "copy"]))
        if change == "change":
            data[at] = draw(st.sampled_from(MEAN_BYTES))
        elif change == "insert":
            data.insert(at, draw(st.sampled_from(MEAN_BYTES)))
        elif change == "copy":
            to = draw(st.integers(0, len(data)))
            data[at:at] = data[min(at, to) : max(at, to)]
        elif len(data) > 1:
            del data[at]
    return bytes(data), case


@settings(max_examples=400, deadline=None)
@given(blocks())
def test_nested_columns_are_what_the_schema_makes_or_nothing(drawn: tuple[bytes, Case]) -> None:
    data, case = drawn
    found = check(block_of(data), case)
    nested = any(column.kind == "any" for column in case[0].columns)
    event(f"nested {nested}, decoded {found is not None and found.batch.num_rows > 0}")


class Leaf(BaseModel):
    length: float
    width: float | None = None


class Flower(BaseModel):
    leaves: list[Leaf]
    names: list[str | None] | None = None
    rows: list[list[int]] = Field([], alias="matrix")


class Record(BaseModel):
    flower: Flower | None
    numbers: list[float | None]
    ok: bool


FLOWERS = {
    b'{"flower":{"leaves":[{"length":1},{"width":2.5,"length":0.5}],"matrix":[[1],[]]},'
    b'"numbers":[1,null],"ok":true}': True,
    b'{"flower":null,"numbers":[],"ok":false,"more":{"leaves":[1]}}': True,
    b'{"flower":{"leaves":[],"matrix":[],"names":["\\u00e4\\n",null,"\xf0\x9f\x98\x80"],"x":1},'
    b'"numbers":[],"ok":true}\r': True,
    b'{"flower":{"leaves":[{"length":1}]},"numbers":[],"ok":true}': False,  # a default
    b'{"flower":{"leaves":[{"length":7},{"width":1}],"matrix":[[2]]},"numbers":[3],"ok":1}': False,
    b'{"flower":{"leaves":[{"length":"8"}],"matrix":[[5]]},"numbers":[4],"ok":true}': False,
    b'{"flower":{"leaves":[],"matrix":[[6,7,8.5]]},"numbers":[5],"ok":true}': False,
    b'{"flower":{"leaves":[],"matrix":[],"leaves":[]},"numbers":[6],"ok":true}': False,
    b'{"flower":{"leaves":[{"length":9}],"matrix":[[3,4]]},"numbers":[null],"ok":true}': True,
    b"": False,
    b'{"flower":{"leaves":[{"length":9}],"matrix":[[3,4]]},"numbers":[8],"ok":true': False,
}


def test_objects_and_lists_of_any_depth_are_decoded_in_c() -> None:
    found = check(block_of(b"\n".join(FLOWERS)), of_model(Record))
    assert found is not None
    assert found.rows == [row for row, sure in enumerate(FLOWERS.values()) if sure]
    leaves = [[{"length": 1, "width": None}, {"length": 0.5, "width": 2.5}], [], [9]]
    first, _, third, last = found.batch.to_pylist()
    assert first["flower"] == {"leaves": leaves[0], "names": None, "rows": [[1], []]}
    assert third["flower"]["names"] == ["ä\n", None, "😀"]
    assert last["flower"]["leaves"] == [{"length": 9.0, "width": None}]
    assert last["numbers"] == [None]


def test_the_schema_library_takes_no_other_members_inside_and_integers_for_floats() -> None:
    inside = {"a": float, s.Optional("b"): s.Or([s.Or(int, None)], None)}
    lines = {
        b'{"x":{"a":1,"b":[1,null]},"y":[]}': True,
        b'{"y":[{"c":"\\""}],"x":{"a":0.5,"b":null},"more":1}': True,
        b'{"x":{"a":1,"more":2},"y":[]}': False,
        b'{"x":{"a":true},"y":[]}': False,
        b'{"x":{"a":1,"b":[true]},"y":[]}': False,
    }
    found = check(
        block_of(b"\n".join(lines)), of_schema(s.Schema({"x": inside, "y": [{"c": str}]}))
    )
    assert found is not None
    assert found.doubtful == [row for row, sure in enumerate(lines.values()) if not sure]


class Strict(BaseModel, strict=True):
    leaf: Leaf


class Checked(Leaf):
    def model_post_init(self, _: Any) -> None:
        self.length = 1.0


@pytest.mark.parametrize(
    "inside",
    [
        Annotated[Leaf, AfterValidator(lambda leaf: leaf)],
        Checked,
        Strict,
        list[Checked],
        list[Annotated[float, AfterValidator(abs)]],
        Annotated[list[float], Field(min_length=1)],
        tuple[float, float],
        dict[str, float],
        list[datetime.date],
        Leaf | Flower,
        create_model("Closed", __config__=ConfigDict(extra="forbid"), a=(float, ...)),
        create_model("Open", __config__=ConfigDict(extra="allow"), a=(float, ...)),
        create_model("Hidden", a=(float, Field(exclude=True))),
        create_model("Empty"),
    ],
)
def test_what_a_schema_does_more_than_name_types_is_left_to_it(inside: Any) -> None:
    signature, _ = of_model(create_model("Drawn", x=(inside, ...)))
    assert not signature.decodable
    assert jsonl_columns.decode(block_of(b'{"x":1}\n'), signature) is None


def test_the_schema_sees_only_the_lines_that_are_doubtful() -> None:
    signature, validate = of_model(Record)
    seen: list[dict[str, Any]] = []

    def noted(record: dict[str, Any]) -> Any:
        seen.append(record)
        return validate(record)

    good = [line for line, sure in FLOWERS.items() if sure]
    batch = JsonBatch(block_of(b"\n".join(good)))
    plain = batch.plain_table(signature)
    assert plain is not None
    assert (plain.records.num_rows, plain.rows, plain.failures) == (len(good), None, [])
    assert batch.table(signature, noted).records.equals(plain.records)
    assert seen == []
    batch = JsonBatch(block_of(b"\n".join(FLOWERS)))
    assert batch.plain_table(signature) is None
    decoded = batch.table(signature, noted)
    assert len(seen) == 5
    assert (decoded.rows, [f.row for f in decoded.failures]) == ([0, 1, 2, 3, 5, 7, 8], [10, 4, 6])


@pytest.mark.parametrize("length", [0, 1, 14, 15, 16, 17, 40])
def test_strings_are_freed_of_their_escapes(length: int) -> None:
    signature = Signature((Column("x", "str"),), True)
    escapes = [
        '"',
        "\\",
        "/",
        "\b",
        "\f",
        "\n",
        "\r",
        "\t",
        "\0",
        "\x7f",
        "߿",
        "ࠀ",
        "￿",
        "𐀀",
        "\U0010ffff",
    ]
    made = ["a" * length + escape + "ü" * at for at, escape in enumerate(escapes)]
    lines = [json.dumps({"x": text}).replace("/", "\\/") for text in [*made, "".join(made)]]
    found = jsonl_columns.decode(block_of("\n".join(lines).encode()), signature)
    assert found is not None
    assert found.doubtful == []
    found.batch.validate(full=True)
    assert found.batch.column("x").to_pylist() == [*made, "".join(made)]


def test_what_is_not_written_is_a_column_all_the_same() -> None:
    hidden = create_model("Hidden", x=(list[Leaf], Field(exclude=True)))
    found = check(block_of(b'{"x":[{"length":1}]}\n{"x":[{"length":"2"}]}'), of_model(hidden))
    assert found is not None
    assert (found.rows, found.doubtful) == ([0], [1])


def test_the_first_records_of_a_batch_are_told_without_the_schema_too() -> None:
    signature, validate = of_model(Record)
    good = [line for line, sure in FLOWERS.items() if sure]
    block = block_of(b"\n\n".join(good))
    first = FirstRecords(JsonBatch(block), 2)
    plain = first.plain_table(signature)
    assert plain is not None
    assert plain.rows == [0, 2]
    assert plain.records.equals(first.table(signature, validate).records)
    assert FirstRecords(JsonBatch(block_of(b"\n".join(FLOWERS))), 2).plain_table(signature) is None


def test_without_a_compiler_the_schema_sees_all_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    signature, validate = of_model(Record)
    block = block_of(b"\n".join(FLOWERS))
    built = JsonBatch(block, "all").table(signature, validate)
    kept = JsonBatch(block, "all").keep("all", built.rows).texts()
    monkeypatch.setattr(jsonl_columns, "library", lambda: None)
    batch = JsonBatch(block, "all")
    assert batch.plain_table(signature) is None
    made = batch.table(signature, validate)
    assert made.records.equals(built.records)
    assert (made.rows, made.failures) == (built.rows, built.failures)
    assert batch.keep("all", made.rows).texts() == kept
