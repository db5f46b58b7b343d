"""The type of a column whose schema does not say it: what its values have in common.

The types of single values form a lattice; ``docs/types.md`` draws it. What a value is depends on
nothing but itself; whether two values fit into one column depends on nothing but the two. So no
record is ever rejected for its neighbours: values without a common type go into different batches.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

DEEPEST = 256
"""Lists and objects inside one another; a record with more is rejected."""

Type = tuple[Any, ...]
"""The type of some values: a name, then what lists and objects are made of."""

NULL: Type = ("null",)
BOOL: Type = ("bool",)
INTEGER: Type = ("integer",)
LONG: Type = ("long",)
FLOAT: Type = ("float",)
STRING: Type = ("string",)

_EXACT = 2**53
"""Integers up to this, either way, are doubles too."""

_INT64 = range(-(2**63), 2**63)

_AS_TEXT = (
    uuid.UUID,
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)

_ATOMS = frozenset({str, int, float, bool, type(None)})


class NoTypeError(ValueError):
    """A value that no column can hold, whatever the others are."""


def type_of(value: Any, depth: int = 0) -> Type:
    """The least type that has a value.

    Raises:
        NoTypeError: there is none.
    """
    if depth > DEEPEST:
        raise NoTypeError(f"is nested more than {DEEPEST} levels deep")
    kind = type(value)
    if value is None:
        return NULL
    if kind is bool:
        return BOOL
    if kind is int:
        if value not in _INT64:
            shown = value if value.bit_length() <= 80 else f"a number of {value.bit_length()} bits"
            raise NoTypeError(f"holds {shown}, an integer beyond 64 bits")
        return INTEGER if -_EXACT <= value <= _EXACT else LONG
    if isinstance(value, float):
        return FLOAT
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NoTypeError("holds a lone surrogate, which is no text") from None
        return STRING
    if kind is dict:
        fields = {}
        for name, member in value.items():
            if not isinstance(name, str):
                raise NoTypeError(f"has a key that is not a string: {name!r}")
            type_of(name)
            fields[name] = type_of(member, depth + 1)
        return ("struct", fields)
    if kind is list:
        inner = NULL
        for member in value:
            common = common_type(inner, type_of(member, depth + 1))
            if common is None:
                raise NoTypeError("is an array whose elements have no common type")
            inner = common
        return ("list", inner)
    return _type_of_other(value)


def common_type(left: Type, right: Type) -> Type | None:
    """The least type that has the values of both, without loss; ``None`` if there is none."""
    if left is right or right is NULL:
        return left
    if left is NULL:
        return right
    if left[0] == right[0]:
        if left[0] == "list":
            inner = common_type(left[1], right[1])
            return None if inner is None else ("list", inner)
        if left[0] == "struct":
            return _common_struct(left[1], right[1])
        return left if left == right else None
    pair = {left[0], right[0]}
    if pair == {"integer", "float"}:
        return FLOAT
    if pair == {"integer", "long"}:
        return LONG
    return None


def _common_struct(left: dict[str, Type], right: dict[str, Type]) -> Type | None:
    fields = dict(left)
    for name, member in right.items():
        common = common_type(fields.get(name, NULL), member)
        if common is None:
            return None
        fields[name] = common
    return ("struct", fields)


def _type_of_other(value: Any) -> Type:
    """Of what is not JSON but comes out of a validated record or a pipeline of one's own."""
    import pyarrow as pa

    if isinstance(value, datetime.datetime):
        return ("timestamp", value.tzinfo is not None)
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise NoTypeError(f"holds {value}, which is no decimal number")
        return ("decimal",)
    try:
        return ("other", str(pa.infer_type([value])))
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        raise NoTypeError(
            f"holds an object of {type(value).__name__}, for which Arrow has no type"
        ) from None


def as_arrow_has_it(value: Any, depth: int = 0) -> Any:
    """A value of a validated record with its enums, sets and the like as what columns can hold."""
    kind = type(value)
    if kind in _ATOMS or depth > DEEPEST or (kind is list and _ATOMS.issuperset(map(type, value))):
        return value
    if isinstance(value, enum.Enum):
        return as_arrow_has_it(value.value, depth + 1)
    if isinstance(value, Mapping):
        return {as_arrow_has_it(k): as_arrow_has_it(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_arrow_has_it(member, depth + 1) for member in value]
    if isinstance(value, (set, frozenset)):
        # in one order, whatever the hashes of this process are
        return sorted((as_arrow_has_it(member, depth + 1) for member in value), key=repr)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc)
    if hasattr(value, "model_dump"):  # of pydantic, in a field that it does not write
        return as_arrow_has_it(value.model_dump(by_alias=False), depth + 1)
    if isinstance(value, _AS_TEXT) or hasattr(value, "unicode_string"):
        return str(value)
    return value
