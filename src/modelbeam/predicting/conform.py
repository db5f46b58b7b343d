"""Whether predictions are what the model's own output schema says; for ``modelbeam check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

MISFITS = 5
"""Kinds of misfits that are told."""


def misfits(schema: dict[str, Any] | None, predictions: Iterable[Any]) -> list[tuple[str, int]]:
    """Compare predictions with a JSON Schema.

    Args:
        schema: as ``describe`` prints it; ``None`` says nothing.
        predictions: as they are written, parsed, without what is kept of the input.

    Returns:
        What does not fit, the most frequent first, with the number of predictions that it is true
        of. If the schema itself is not one, that is the only misfit.
    """
    if schema is None:
        return []
    import jsonschema

    validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    found: Counter[str] = Counter()
    try:
        validator.check_schema(schema)
        check = validator(schema)
        for prediction in predictions:
            found.update({_told(error) for error in check.iter_errors(prediction)})
    except Exception as error:  # a reference that leads nowhere is found when it is followed
        return [(f"it is not a JSON Schema: {_short(str(error).splitlines()[0])}", 0)]
    return sorted(found.items(), key=lambda each: (-each[1], each[0]))[:MISFITS]


def _told(error: Any) -> str:
    """One misfit in a sentence; the values are left out where the schema's side says enough."""
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    where = where.removeprefix(".") or "the prediction"
    if error.validator == "type":
        wanted = error.validator_value
        names = wanted if isinstance(wanted, str) else " or ".join(wanted)
        return f"{where} is not of type {names}, but {_short(repr(error.instance))}"
    if error.validator in ("required", "additionalProperties"):
        return f"{where}: {_short(error.message)}"
    if error.validator in ("anyOf", "oneOf"):
        return f"{where} is none of what the schema allows: {_short(repr(error.instance))}"
    return f"{where}: {_short(error.message)}"


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."
