"""``modelbeam describe``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from modelbeam import streams
from modelbeam.cli.output import print_json, say
from modelbeam.cli.parser import flags_of
from modelbeam.errors import RequestError, did_you_mean
from modelbeam.models.target import Target
from modelbeam.text import printable


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Print what a model says of itself."""
    from modelbeam.job.description import spec_of
    from modelbeam.report.check import describe_model

    if rest:
        known = [f for f in flags_of("describe") if f.startswith("--")]
        raise RequestError(f"unknown flag {rest[0]}{did_you_mean(rest[0], known) or '.'}")
    info = describe_model(spec_of(flags.model, vars(flags)))
    if flags.json:
        print_json(info.to_dict())
        return 0
    said = [
        ("name", info.qualified_name),
        ("display name", info.display_name),
        ("version", info.version),
        ("description", info.description),
        ("interface", f"{info.interface}, predicts by {info.style}"),
        ("package", info.distribution or _no_package(info.target)),
    ]
    for name, value in said:
        say(f"{name:<13} {printable(value)}", 14)
    for title, schema in (("input", info.input_schema), ("output", info.output_schema)):
        say(f"\n{title}")
        width = streams.width(sys.stdout)
        for line in fields_of(schema, width and width - 2):
            say(f"  {printable(line)}", 6)
    return 0


def _no_package(target: str) -> str:
    is_class = Target.parse(target).form == "class"
    return "none (a module by itself)" if is_class else "none (a file, a directory or a URI)"


def fields_of(schema: dict[str, Any] | None, width: int | None = None) -> list[str]:
    """The fields of a JSON Schema as a table: name, type, whether it must be there, and limits.

    Args:
        schema: of a record or a prediction.
        width: characters that there are; in a table that is wider, limits have lines of their own.
    """
    if not schema:
        return ["not expressible as JSON Schema"]
    properties = schema.get("properties")
    if not properties:
        return [_type_of(schema, schema)]
    required = set(schema.get("required", ()))
    rows = [
        (
            str(name),
            _type_of(field, schema),
            "required" if name in required else "optional",
            ", ".join(f"{key} {field[key]}" for key in _LIMITS if key in field),
        )
        for name, field in properties.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    if width is None or max(map(len, lines)) <= width:
        return lines
    lines = []
    for name, kind, needed, limits in rows:
        lines.append(f"{name.ljust(widths[0])}  {kind}, {needed}")
        lines += [f"    {limits}"] if limits else []
    return lines


_LIMITS = (
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength"),
    *("pattern", "default"),
)


def _type_of(field: Any, schema: dict[str, Any]) -> str:
    """A field's type in a word or two."""
    if not isinstance(field, dict):
        return "anything"
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return _type_of(schema.get("$defs", schema.get("definitions", {})).get(name, {}), schema)
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    options = field.get("anyOf") or field.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type_of(option, schema) for option in options))
    kind = field.get("type", "anything")
    kinds = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kinds == "array" and "items" in field:
        return f"array of {_type_of(field['items'], schema)}"
    return kinds
