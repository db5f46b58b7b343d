"""Values out of run.json and profile.json, whatever they hold, and how people are shown them."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from modelbeam import text
from modelbeam.report.page.markup import NOTHING


def as_dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects in an array."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def as_text(value: object) -> str:
    """A text as it is, nothing for nothing, anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else as_json(value)


def as_json(value: object, indent: int | None = None) -> str:
    """The value as JSON; a text as it is."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        return "(cannot be shown)"


def number(value: object) -> float | int | None:
    """The value if it is a finite number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -1e300 < value < 1e300 else None  # NaN is in no range


def whole(value: object) -> int:
    """A count; 0 if it is none."""
    found = number(value)
    return 0 if found is None or found < 0 else int(found)


def pairs(value: object) -> list[tuple[float, float]]:
    """The pairs of numbers in an array."""
    found = []
    for one in as_list(value):
        two = [number(x) for x in as_list(one)]
        if len(two) == 2 and two[0] is not None and two[1] is not None:
            found.append((float(two[0]), float(two[1])))
    return found


def said(value: object) -> str:
    """A number for people, in four digits or so; an integer in full."""
    found = number(value)
    if found is None:
        return NOTHING
    size = abs(found)
    if isinstance(found, int) or (found == int(found) and size < 1e9):
        return f"{int(found):,}" if size < 1e15 else f"{float(found):.4g}"
    if size >= 1e9 or size < 1e-4:
        return f"{found:.3g}"
    return f"{found:,.0f}" if size >= 10_000 else f"{found:.4g}"


def share(part: float, of: float) -> str:
    """A share for people; one that is not nothing is not shown as 0 %, nor almost all as 100 %."""
    if not of:
        return NOTHING
    percent = 100 * part / of
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def seconds(value: object) -> str:
    """A duration for people: ``1.8 ms``, ``4.2 s``, ``3 min 20 s``."""
    found = number(value)
    if found is None:
        return NOTHING
    if 0 < abs(found) < 1:
        return f"{1000 * found:.3g} ms"
    return f"{found:.3g} s" if abs(found) < 60 else text.duration(found)


def moment(value: object) -> str:
    """A time of run.json (``2026-11-28T03:17:43Z``) for people."""
    if not isinstance(value, str):
        return NOTHING
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.strptime(value, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return value


def median(values: list[float]) -> float:
    """The middle one; 0 of nothing."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def bounded(value: float, least: float = 0.0, most: float = 1.0) -> float:
    """The value, or the bound that it passed; the least one for NaN."""
    return least if math.isnan(value) else max(least, min(most, value))


def places(example: dict[str, Any]) -> str:
    """Where a record is, for people: ``part-3.jsonl:1204``."""
    if "partition" in example:
        topic = as_text(example.get("topic", example.get("source")))
        at = as_text(example.get("partition"))
        return f"{topic}[{at}], offset {as_text(example.get('offset'))}"
    line = example.get("line", example.get("row"))
    return as_text(example.get("source")) + (f":{as_text(line)}" if line is not None else "")
