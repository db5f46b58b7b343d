"""What Avro's types are in Arrow, and the reverse."""

from __future__ import annotations

import itertools
import re
from typing import Any

from modelbeam.formats.layout import Layout, OutputColumn

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def name_problem(name: str) -> str | None:
    """Why a column cannot be called so, and what to do; the rest of a sentence."""
    if _NAME.fullmatch(name):
        return None
    return (
        f"column '{name}' cannot be called so in Avro, where a name has letters of ASCII, digits "
        f"and _: choose the kept columns with --keep A,B, or another format"
    )


def column_problem(column: OutputColumn) -> str | None:
    """The same of a column, which may be that of one of several models."""
    if not column.model:
        return name_problem(column.name)
    allowed = "in Avro, where a name has letters of ASCII, digits and _"
    if not _NAME.fullmatch(column.model):
        return (
            f"the model '{column.model}' cannot be called so {allowed}: give it another name with "
            f"--model NAME=…, or choose another format"
        )
    if not _NAME.fullmatch(column.own_name):
        return (
            f"column '{column.own_name}' of the model '{column.model}' cannot be called so "
            f"{allowed}: give it another name with --rename {column.name}=NAME, or choose another "
            f"format"
        )
    return None


# From Avro


def columns_of(schema: Any) -> Layout:
    """The fields of a record's schema; the type of one that Arrow does not have is open."""
    schema = _only(schema)
    if not isinstance(schema, dict) or "fields" not in schema:
        return ()
    named: dict[str, Any] = {}
    return tuple(
        OutputColumn(name, kind)
        for name, kind in _fields(schema, named, schema.get("namespace", ""))
    )


def _only(schema: Any) -> Any:
    """The one branch of a union beside null."""
    if isinstance(schema, list):
        others = [branch for branch in schema if branch != "null"]
        return others[0] if len(others) == 1 else None
    return schema


def _fields(schema: Any, named: dict[str, Any], space: str) -> list[tuple[str, Any]]:
    named[_full(schema, space)] = None  # while it is being read, it is within itself
    inner = _space(schema, space)
    return [(field["name"], _arrow(field["type"], named, inner)) for field in schema["fields"]]


def _full(schema: Any, space: str) -> str:
    name = str(schema.get("name", ""))
    space = schema.get("namespace", space)
    return name if "." in name or not space else f"{space}.{name}"


def _space(schema: Any, space: str) -> str:
    return _full(schema, space).rpartition(".")[0]


def _arrow(schema: Any, named: dict[str, Any], space: str) -> Any:
    """The Arrow type of a schema; ``None`` if there is none."""
    import pyarrow as pa

    schema = _only(schema)
    if isinstance(schema, str):
        plain = {
            "null": pa.null(),
            "boolean": pa.bool_(),
            "int": pa.int32(),
            "long": pa.int64(),
            "float": pa.float32(),
            "double": pa.float64(),
            "bytes": pa.binary(),
            "string": pa.string(),
        }
        if schema in plain:
            return plain[schema]
        return named.get(f"{space}.{schema}" if space and "." not in schema else schema)
    if not isinstance(schema, dict):
        return None
    kind = schema.get("type")
    if isinstance(kind, (dict, list)):
        return _arrow(kind, named, space)
    if logical := _logical(schema):
        made = logical
    elif kind in ("record", "error"):
        fields = _fields(schema, named, space)
        made = None if any(inner is None for _, inner in fields) else pa.struct(fields)
    elif kind == "enum":
        made = pa.string()
    elif kind == "fixed":
        made = pa.binary(schema["size"])
    elif kind in ("array", "map"):
        inner = _arrow(schema["items" if kind == "array" else "values"], named, space)
        if inner is None:
            return None
        return pa.list_(inner) if kind == "array" else pa.map_(pa.string(), inner)
    else:
        return _arrow(kind, named, space)
    if "name" in schema:
        named[_full(schema, space)] = made
    return made


def _logical(schema: dict[str, Any]) -> Any:
    """The type of a logical type that ``fastavro`` decodes."""
    import pyarrow as pa

    name = f"{schema.get('type')}-{schema.get('logicalType')}"
    if name in ("bytes-decimal", "fixed-decimal"):
        precision, scale = schema.get("precision", 0), schema.get("scale", 0)
        if not 0 <= scale <= precision or not 1 <= precision <= 76:
            return None
        wide = pa.decimal128 if precision <= 38 else pa.decimal256
        return wide(precision, scale)
    return {
        "int-date": pa.date32(),
        "int-time-millis": pa.time32("ms"),
        "long-time-micros": pa.time64("us"),
        "long-timestamp-millis": pa.timestamp("ms", "UTC"),
        "long-timestamp-micros": pa.timestamp("us", "UTC"),
        "long-local-timestamp-millis": pa.timestamp("ms"),
        "long-local-timestamp-micros": pa.timestamp("us"),
        "string-uuid": pa.string(),
    }.get(name)


# To Avro

_BYTES = ("large_binary", "binary_view", "fixed_size_binary")


def storable(kind: Any) -> Any:
    """The type in which Avro holds the values of a type; ``None`` if as text."""
    import pyarrow as pa

    types = pa.types
    if kind is None or types.is_null(kind):
        return None if kind is None else pa.string()
    if types.is_dictionary(kind):
        return storable(kind.value_type)
    if types.is_floating(kind):
        return pa.float32() if kind.bit_width < 64 else kind
    if types.is_integer(kind):
        if types.is_uint64(kind):
            return None  # a long has a sign
        return pa.int32() if kind.bit_width < 32 or types.is_int32(kind) else pa.int64()
    if types.is_boolean(kind) or types.is_string(kind) or types.is_binary(kind):
        return kind
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if any(getattr(types, f"is_{name}")(kind) for name in _BYTES):
        return pa.binary()
    if types.is_date(kind):
        return pa.date32()
    if types.is_timestamp(kind):
        unit = {"s": "ms", "ns": None}.get(kind.unit, kind.unit)
        return None if unit is None else pa.timestamp(unit, None if kind.tz is None else "UTC")
    if types.is_time(kind):
        return {"s": pa.time32("ms"), "ms": kind, "us": kind}.get(kind.unit)
    if types.is_decimal(kind):
        return kind if kind.scale >= 0 else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = storable(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_map(kind):
        inner = storable(kind.item_type)
        text = types.is_string(kind.key_type)
        return pa.map_(pa.string(), inner) if text and inner is not None else None
    if types.is_struct(kind):
        fields = [(field.name, storable(field.type)) for field in kind]
        if any(inner is None or name_problem(name) for name, inner in fields):
            return None
        return pa.struct(fields)
    return None


def nested(layout: Layout) -> Any:
    """The Arrow schema in which the columns of each of several models are one, a struct."""
    import pyarrow as pa

    fields: dict[str, list[Any]] = {}
    for column in layout:
        fields.setdefault(column.model or column.name, []).append(
            (column.own_name, pa.string() if column.type is None else column.type)
        )
    models = {column.model for column in layout}
    return pa.schema(
        (name, pa.struct(inner) if name in models else inner[0][1])
        for name, inner in fields.items()
    )


def avro_schema(schema: Any) -> dict[str, Any]:
    """The schema of records with the columns of an Arrow schema, whose types are storable."""
    return _record("prediction", schema, set())


def _record(name: str, fields: Any, used: set[str]) -> dict[str, Any]:
    """The schema of a record; no two of a file may have one name."""
    name = next(one for n in itertools.count(1) if (one := name + f"_{n}" * (n > 1)) not in used)
    used.add(name)
    made = [
        {"name": field.name, "type": ["null", _avro(f"{name}_{field.name}", field.type, used)]}
        for field in fields
    ]
    return {"type": "record", "name": name, "fields": made}


def _avro(name: str, kind: Any, used: set[str]) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        return _record(name, kind, used)
    if types.is_map(kind):
        return {"type": "map", "values": ["null", _avro(name, kind.item_type, used)]}
    if types.is_list(kind):
        return {"type": "array", "items": ["null", _avro(name, kind.value_type, used)]}
    if types.is_decimal(kind):
        size = {"precision": kind.precision, "scale": kind.scale}
        return {"type": "bytes", "logicalType": "decimal", **size}
    if types.is_timestamp(kind):
        local = "" if kind.tz else "local-"
        unit = "micros" if kind.unit == "us" else "millis"
        return {"type": "long", "logicalType": f"{local}timestamp-{unit}"}
    plain = {
        pa.bool_(): "boolean",
        pa.int32(): "int",
        pa.int64(): "long",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.string(): "string",
        pa.binary(): "bytes",
        pa.date32(): {"type": "int", "logicalType": "date"},
        pa.time32("ms"): {"type": "int", "logicalType": "time-millis"},
        pa.time64("us"): {"type": "long", "logicalType": "time-micros"},
    }
    return plain[kind]
