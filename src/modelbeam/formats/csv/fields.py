"""One record into its fields, and a field into a value of the type that the model's schema says."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from typing import Any

import orjson

from modelbeam.models.signature import Column, show

QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')


class CsvError(ValueError):
    """A record that is no CSV, or has too few or too many fields."""


def split(text: str, delimiter: str) -> list[str | None]:
    """The fields of a record, without its line's end; one that is nothing at all is ``None``.

    Raises:
        CsvError: a quoted field is not closed, or something follows it.
    """
    if '"' not in text:
        return [field or None for field in text.split(delimiter)]
    fields: list[str | None] = []
    at = 0
    while True:
        if text.startswith('"', at):
            found = QUOTED.match(text, at)
            if found is None:
                raise CsvError("a quoted field is never closed")
            fields.append(found[1].replace('""', '"'))
            at = found.end()
            if at < len(text) and text[at] != delimiter:
                raise CsvError(
                    f"field {len(fields)} goes on after its closing quote; a quote inside of "
                    f"quotes is doubled"
                )
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            fields.append(text[at:end] or None)
            at = end
        if at >= len(text):
            return fields
        at += 1


NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"[+-]?[0-9]+")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


class NotThatError(ValueError):
    """A text that is not of the type that the model's schema says."""


def converter(column: Column) -> Callable[[str], Any] | None:
    """What makes a value of a text, for a column whose values are not texts."""
    if column.kind == "any":
        return _from_json if isinstance(column.shape, tuple) else None
    makers: dict[str, Callable[[str], Any]] = {"float": _number, "int": _integer, "bool": _truth}
    return makers.get(column.kind)


def misfit(column: Column, text: str) -> str:
    """What is said of a text that is not of its column's type."""
    words = {"float": "a number", "int": "an integer", "bool": "true or false"}
    return f"column '{column.name}' must be {words[column.kind]}, not {show(text)}"


def _number(text: str) -> float | int:
    text = text.strip(" \t")
    if NUMBER.fullmatch(text) is None:
        raise NotThatError
    value = float(text)
    if not math.isfinite(value):
        raise NotThatError
    return value


def _integer(text: str) -> int:
    text = text.strip(" \t")
    if INTEGER.fullmatch(text) is not None:
        if len(text) > 40:
            raise NotThatError
        return int(text)
    if NUMBER.fullmatch(text) is None:
        raise NotThatError
    value = decimal.Decimal(text)
    if value.adjusted() > 40 or value.as_tuple().exponent < -1000:  # type: ignore[operator]
        raise NotThatError
    if value != value.to_integral_value():
        raise NotThatError
    return int(value)


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.strip(" \t").lower()]
    except KeyError:
        raise NotThatError from None


def _from_json(text: str) -> Any:
    """A list or an object, as JSON; anything else is left to the schema."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
