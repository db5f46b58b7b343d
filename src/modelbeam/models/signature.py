"""What columns a model needs, read off its input schema, and records checked against them."""

from __future__ import annotations

import enum
import operator
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

Kind = Literal["float", "int", "str", "bool", "any"]


_KINDS: dict[Any, Kind] = {float: "float", int: "int", str: "str", bool: "bool"}


_WORDS = {"float": "a number", "int": "an integer", "str": "a string", "bool": "true or false"}


ACCEPTED: dict[Kind, frozenset[type]] = {
    "float": frozenset({float, int}),
    "int": frozenset({int}),
    "str": frozenset({str}),
    "bool": frozenset({bool}),
}


_INT64 = range(-(2**63), 2**63)


MISSING = object()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model's input.

    Attributes:
        name: as it stands in the data.
        kind: what its values are; ``any`` if the schema says more than a plain type.
        nullable: whether ``null`` is a value.
        required: whether every record must have it.
        above, at_least, below, at_most: bounds of a number, or ``None``.
    """

    name: str
    kind: Kind
    nullable: bool = False
    required: bool = True
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether the column has a bound."""
        return (self.above, self.at_least, self.below, self.at_most) != (None,) * 4

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value, or return ``None``."""
        if value is MISSING:
            return f"column '{self.name}' is missing" if self.required else None
        if value is None:
            return None if self.nullable else f"column '{self.name}' is null"
        if self.kind == "any":
            return None
        if type(value) not in ACCEPTED[self.kind] or (self.kind == "int" and value not in _INT64):
            return f"column '{self.name}' must be {_WORDS[self.kind]}, not {show(value)}"
        for bound, holds, words in (
            (self.above, operator.gt, "greater than"),
            (self.at_least, operator.ge, "at least"),
            (self.below, operator.lt, "less than"),
            (self.at_most, operator.le, "at most"),
        ):
            if bound is not None and not holds(value, bound):
                return f"column '{self.name}' must be {words} {bound:g}, not {show(value)}"
        return None


@dataclass(frozen=True, slots=True)
class Signature:
    """The columns of a model's input.

    Attributes:
        columns: in the order of the schema.
        exact: whether the columns say everything that the schema says; if not, records are
            validated by the schema itself, one at a time.
    """

    columns: tuple[Column, ...]
    exact: bool

    @property
    def required(self) -> list[str]:
        """The names of the columns that every record must have."""
        return [column.name for column in self.columns if column.required]


def from_schema(schema: Any) -> Signature | None:
    """Read the columns off an object of the ``schema`` library that describes a dict."""
    fields = getattr(schema, "schema", schema)
    if not isinstance(fields, dict):
        return None
    columns, exact = [], True
    for key, value in fields.items():
        required = type(key).__name__ != "Optional"
        name = key if isinstance(key, str) else getattr(key, "schema", None)
        if not isinstance(name, str) or type(key).__name__ in ("Forbidden", "Hook", "Regex"):
            exact = False
            continue
        kind, nullable = _plain_type(value)
        exact = exact and kind != "any" and not hasattr(key, "default")
        columns.append(Column(name, kind, nullable, required))
    return Signature(tuple(columns), exact)


def from_pydantic(model: Any) -> Signature | None:
    """Read the columns off a pydantic model class, of version 2 or 1."""
    fields = getattr(model, "model_fields", None)
    if fields is None:
        older = getattr(model, "__fields__", {})
        columns = tuple(
            Column(f.alias, "any", nullable=f.allow_none, required=bool(f.required))
            for f in older.values()
        )
        return Signature(columns, exact=False) if columns else None
    forbids = getattr(model, "model_config", {}).get("extra") == "forbid"
    has_validators = any(
        getattr(model.__pydantic_decorators__, name, None)
        for name in ("validators", "field_validators", "root_validators", "model_validators")
    )
    renames = any(
        decorator.info.mode == "before"
        for decorator in model.__pydantic_decorators__.model_validators.values()
    )
    listed, exact = [], not (forbids or has_validators)
    for name, field in fields.items():
        kind, nullable = _plain_type(field.annotation)
        bounds, whole = _bounds(field.metadata)
        alias = field.validation_alias or field.alias or name
        config = getattr(model, "model_config", {})
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        one_name = isinstance(alias, str) and (alias == name or not by_name)
        exact = exact and whole and kind != "any" and field.is_required() and one_name
        column = alias if isinstance(alias, str) else name
        required = field.is_required() and one_name and not renames
        listed.append(Column(column, kind, nullable, required, **bounds))
    return Signature(tuple(listed), exact)


def _plain_type(annotation: Any) -> tuple[Kind, bool]:
    """The kind that a type, a union of types or a ``schema.Or`` stands for, and if it has null."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "any", False
    for plain, kind in _KINDS.items():  # not by look-up: an annotation may be a list
        if annotation is plain:
            return kind, False
    if type(annotation).__name__ == "Or":
        members = list(annotation.args)
    elif typing.get_origin(annotation) in (Union, types.UnionType):
        members = list(typing.get_args(annotation))
    else:
        return "any", False
    nullable = None in members or type(None) in members
    kinds = {_plain_type(m)[0] for m in members if m is not None and m is not type(None)}
    if kinds == {"float", "int"}:
        return "float", nullable
    return (kinds.pop(), nullable) if len(kinds) == 1 else ("any", nullable)


def _bounds(metadata: Sequence[Any]) -> tuple[dict[str, float], bool]:
    names = {"Gt": "above", "Ge": "at_least", "Lt": "below", "Le": "at_most"}
    bounds, whole = {}, True
    for item in metadata:
        kind = type(item).__name__
        value = getattr(item, kind.lower(), None)
        if kind in names and isinstance(value, (int, float)):
            bounds[names[kind]] = float(value)
        else:
            whole = False
    return bounds, whole


def show(value: Any) -> str:
    if isinstance(value, (list, dict)):  # never looked into: it may be nested a thousand deep
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return f"the string {value if len(value) <= 60 else value[:57] + '...'!r}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def missing_columns(signature: Signature | None, records: list[dict[str, Any]]) -> list[str]:
    """The required columns that not one of the records has; empty if there are no records."""
    if signature is None or not records:
        return []
    return [name for name in signature.required if not any(name in record for record in records)]
