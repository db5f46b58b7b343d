"""Whether a newer model may take an older one's place: whoever reads its predictions goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelbeam.predicting.conform import misfits

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text",
          list: "a list", dict: "an object"}  # fmt: skip


def unfit_schema(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str | None:
    """Why a newer model's output schema has no room for what reads the older one's predictions.

    What is new beside it does no harm. Only what both schemas say plainly is compared.
    """
    before, now = ((one or {}).get("properties") for one in (old, new))
    if not before or not now:
        return None
    for name, was in before.items():
        if name not in now:
            return f"its output schema has no {name!r} any more"
        types = [one.get("type") if isinstance(one, dict) else None for one in (was, now[name])]
        if None not in types and types[0] != types[1] and types != ["number", "integer"]:
            return f"its output schema says that {name!r} is {types[1]}, and it was {types[0]}"
    return None


def unfit_predictions(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], schema: dict[str, Any] | None
) -> str | None:
    """Why predictions of the same records, by an older and a newer model, do not go together.

    Args:
        old, new: of each record, as they are written.
        schema: of the older model's predictions; ``None`` if they hold more than predictions.
    """
    before, now = _kinds(old), _kinds(new)
    for name, kinds in before.items():
        if name not in now:
            return f"it predicts no {name!r} any more"
        if kinds and now[name] and not now[name] <= kinds:
            were, are = (" or ".join(sorted(one)) for one in (kinds, now[name]))
            return f"what it predicts as {name!r} is {are}, and was {were}"
    found = misfits(schema, new)
    return f"{found[0][0]}, against the output schema of the older one" if found else None


def _kinds(rows: Sequence[dict[str, Any]]) -> dict[str, set[str]]:
    """The kinds of values of each name; of nulls there is none."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(_KINDS[type(value)])
    return found
