"""The columns of an output whose format has the same in every record: CSV, Parquet.

They are decided before the run, from the model's output schema and the columns that are kept, so
that all shards have them, whatever their records are.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class OutputColumn(NamedTuple):
    """A column of the output.

    Attributes:
        name: as it is written.
        type: of Arrow; ``None`` where that is open, so that values become text.
        model: of several the one whose column it is; its name begins with the model's and a dot.
    """

    name: str
    type: Any = None
    model: str = ""

    @property
    def own_name(self) -> str:
        """What it is called where its model has a record of its own."""
        return self.name[len(self.model) + 1 :] if self.model else self.name


Layout = tuple[OutputColumn, ...]


def to_json(layout: Layout | None) -> list[list[str | None]] | None:
    """A layout as JSON keeps it: name, type as Arrow writes schemas, and model of each column."""
    import pyarrow as pa

    def written(kind: Any) -> str | None:
        if kind is None:
            return None
        return base64.b64encode(pa.schema([("", kind)]).serialize()).decode()

    return None if layout is None else [[one.name, written(one.type), one.model] for one in layout]


def from_json(kept: Sequence[Sequence[str | None]] | None) -> Layout | None:
    """Read what :func:`to_json` made."""
    import pyarrow as pa

    def read(text: str | None) -> Any:
        if text is None:
            return None
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))).field(0).type

    if kept is None:
        return None
    return tuple(OutputColumn(name or "", read(kind), model or "") for name, kind, model in kept)


class UnknownColumnError(ValueError):
    """A prediction has a column that is none of the output's."""


def unknown(name: str) -> str:
    """What is said of a column that is not in the layout."""
    return (
        f"column '{name}' is none of the output's columns, which are those of the model's output "
        f"schema, or of its first predictions, and those that are kept; JSON Lines takes any"
    )


def of_schema(schema: dict[str, Any] | None) -> Layout | None:
    """The columns that a JSON Schema of a prediction names; ``None`` if it names none."""
    if not isinstance(schema, dict):
        return None
    whole = _resolved(schema, schema)
    fields = whole.get("properties")
    if not isinstance(fields, dict) or not fields or whole.get("additionalProperties"):
        return None
    return tuple(OutputColumn(name, _type_of(field, schema)) for name, field in fields.items())


def of_rows(rows: Iterable[dict[str, Any]]) -> Layout:
    """The columns that some rows of plain values have together."""
    import pyarrow as pa

    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    made = []
    for name, found in values.items():
        try:
            kind = pa.array(found).type
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            kind = None
        made.append(OutputColumn(name, None if kind is None or pa.types.is_null(kind) else kind))
    return tuple(made)


def together(*layouts: Iterable[OutputColumn]) -> Layout:
    """All columns, each once; of several types the one that holds them all, or text."""
    found: dict[str, OutputColumn] = {}
    for column in (column for layout in layouts for column in layout):
        before = found.setdefault(column.name, column)
        if before.type != column.type:
            found[column.name] = before._replace(type=_wider(before.type, column.type))
    return tuple(found.values())


def _wider(left: Any, right: Any) -> Any:
    """The type that holds the values of two without loss, or ``None``."""
    import pyarrow as pa

    if left is None or right is None:
        return None
    numbers = (pa.types.is_integer, pa.types.is_floating)
    if any(test(left) != test(right) for test in numbers) and not pa.types.is_null(left):
        return None  # an integer of 64 bits is no double
    try:
        fields = [pa.schema([("", kind)]) for kind in (left, right)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _resolved(schema: Any, root: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """What a reference within the schema leads to."""
    while isinstance(schema, dict) and "$ref" in schema and depth < 16:
        place: Any = root
        for part in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            place = place.get(part) if isinstance(place, dict) and part else place
        schema, depth = place, depth + 1
    return schema if isinstance(schema, dict) else {}


def _type_of(field: Any, root: dict[str, Any], depth: int = 0) -> Any:
    """The Arrow type of what a schema describes, or ``None`` if it leaves that open."""
    import pyarrow as pa

    if depth > 16:
        return None
    field = _resolved(field, root)
    options = field.get("anyOf") or field.get("oneOf")
    if options:
        types = [_type_of(o, root, depth + 1) for o in options if o != {"type": "null"}]
        same = types and all(kind == types[0] for kind in types)
        if {str(kind) for kind in types} == {"double", "int64"}:
            return pa.float64()
        return types[0] if same else None
    kinds = field.get("type")
    if kinds is None and ("enum" in field or "const" in field):
        values = field.get("enum", [field.get("const")])
        found = {type(value) for value in values if value is not None}
        plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        return plain.get(found.pop()) if len(found) == 1 else None
    names = {kinds} if isinstance(kinds, str) else set(kinds or ())
    names.discard("null")
    if names == {"number", "integer"}:
        names = {"number"}
    if len(names) != 1:
        return None
    [name] = names
    if name == "array":
        inner = _type_of(field.get("items"), root, depth + 1)
        return None if inner is None else pa.list_(inner)
    if name == "object":
        members = field.get("properties")
        if not isinstance(members, dict) or not members or field.get("additionalProperties"):
            return None
        made = [(n, _type_of(member, root, depth + 1)) for n, member in members.items()]
        return None if any(kind is None for _, kind in made) else pa.struct(made)
    scalars = {
        "number": pa.float64(),
        "integer": pa.int64(),
        "string": pa.string(),
        "boolean": pa.bool_(),
    }
    return scalars.get(name)
