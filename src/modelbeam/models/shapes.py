"""What a schema says of the values inside a column: lists of what, objects with which fields.

A shape is plain data: the name of a scalar (``float``, ``int``, ``str``, ``bool``, ``date``,
``time``, ``duration``, ``binary``), ``("list", shape)`` or ``("struct", ((name, shape), ...))``;
``None`` where the schema leaves it open. A column whose shape is known has the same Arrow type in
every batch, whatever its values are.
"""

from __future__ import annotations

import collections.abc
import datetime
import enum
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union

Shape = str | tuple[Any, ...] | None

_SCALARS: dict[Any, str] = {
    float: "float",
    int: "int",
    str: "str",
    bool: "bool",
    bytes: "binary",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "duration",
}

FLOATS: Shape = ("list", "float")
"""A list of numbers: what a column of vectors has."""

_LISTS = (list, set, frozenset, collections.abc.Sequence)

_DEEPEST = 32


def of_annotation(annotation: Any, depth: int = 0) -> Shape:
    """The shape of what pydantic makes of a type annotation."""
    if depth > _DEEPEST:  # a type that contains itself
        return None
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return None if _converts(annotation.__metadata__) else of_annotation(args[0], depth + 1)
    if origin is typing.Literal:
        return _of_values(args)
    if origin in (Union, types.UnionType):
        members = [member for member in args if member is not type(None)]
        return _union([of_annotation(member, depth + 1) for member in members])
    if origin in _LISTS and args:
        return _list_of(of_annotation(args[0], depth + 1))
    if origin is tuple and args:
        members = [member for member in args if member is not Ellipsis]
        return _list_of(_union([of_annotation(member, depth + 1) for member in members]))
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _of_values([member.value for member in annotation])
        fields = getattr(annotation, "model_fields", None)
        if isinstance(fields, dict):
            return _of_model(annotation, fields, depth)
    return _scalar(annotation)


def _of_model(model: Any, fields: dict[str, Any], depth: int) -> Shape:
    """The shape of a pydantic model inside another one, by the names of its fields."""
    if getattr(model, "model_config", {}).get("extra") == "allow":
        return None
    if getattr(model, "__pydantic_root_model__", False):
        return None
    decorators = getattr(model, "__pydantic_decorators__", None)
    if any(
        getattr(decorators, kind, None)
        for kind in ("computed_fields", "field_serializers", "model_serializers")
    ):
        return None
    return _struct(
        (name, None if _converts(field.metadata) else of_annotation(field.annotation, depth + 1))
        for name, field in fields.items()
    )


def of_schema(value: Any, name_of: Callable[[Any], str | None], depth: int = 0) -> Shape:
    """The shape of what the ``schema`` library lets through.

    Args:
        value: what stands in a schema for one field.
        name_of: the plain name that a key of a schema stands for, or ``None``.
        depth: how deep this is in another one.
    """
    if depth > _DEEPEST:
        return None
    kind = type(value).__name__
    if kind == "Schema" and not getattr(value, "_ignore_extra_keys", False):
        return of_schema(value.schema, name_of, depth + 1)
    if kind == "Or":
        members = [member for member in value.args if member is not None]
        if members and all(isinstance(m, (str, int, float)) for m in members):
            return _of_values(members)
        return _union([of_schema(member, name_of, depth + 1) for member in members])
    if isinstance(value, list) and value:
        return _list_of(_union([of_schema(member, name_of, depth + 1) for member in value]))
    if isinstance(value, dict):
        names = [name_of(key) for key in value]
        if None in names:
            return None
        shapes = [of_schema(member, name_of, depth + 1) for member in value.values()]
        return _struct(zip(names, shapes, strict=True))
    return _scalar(value)


def _converts(metadata: Iterable[Any]) -> bool:
    """Whether metadata of a field may make another type of its value."""
    return any(type(item).__name__ in _CONVERTERS for item in metadata)


_CONVERTERS = {"AfterValidator", "BeforeValidator", "PlainValidator", "WrapValidator"} | {
    "PlainSerializer",
    "WrapSerializer",
    "GetPydanticSchema",
}


def _scalar(annotation: Any) -> Shape:
    for plain, name in _SCALARS.items():  # not by look-up: an annotation may be a list
        if annotation is plain:
            return name
    return None


def _of_values(values: Sequence[Any]) -> Shape:
    kinds = {_SCALARS.get(type(value)) for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else None


def _list_of(shape: Shape) -> Shape:
    return None if shape is None else ("list", shape)


def _struct(fields: Iterable[tuple[str | None, Shape]]) -> Shape:
    found = tuple(fields)
    return None if any(shape is None for _, shape in found) else ("struct", found)


def _union(shapes: list[Shape]) -> Shape:
    """The one shape that all have; integers and floats together are floats."""
    kinds = set(shapes)
    if kinds == {"float", "int"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else None
