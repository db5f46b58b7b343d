"""Other names for what is predicted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from modelbeam.errors import RequestError, did_you_mean
from modelbeam.predicting.batch import Keep

Rename = tuple[tuple[str, str], ...]
"""Pairs of the name that a model gives to a column, and the one that it gets."""


def new_names(before: Iterable[str], names: dict[str, str]) -> list[str]:
    """The names that columns get."""
    return [names.get(name, name) for name in before]


def twice_of(names: Sequence[str]) -> str | None:
    """A name that comes twice."""
    if len(set(names)) == len(names):
        return None
    return next(name for at, name in enumerate(names) if name in names[:at])


def check_rename(
    rename: Rename, predicted: Collection[str], keep: Keep, inputs: Collection[str]
) -> None:
    """Refuse names that nothing has, or that two columns would have.

    Args:
        rename: the pairs.
        predicted: the columns that the model predicts.
        keep: the input columns that stand beside them.
        inputs: the input columns, as far as they are known.

    Raises:
        RequestError: which name it is, and what to do.
    """
    for old, new in rename:
        if old not in predicted:
            there = did_you_mean(old, predicted) or f"; there are: {', '.join(predicted)}."
            raise RequestError(f"--rename {old}={new}: the model predicts no column '{old}'{there}")
    name = twice_of(new_names(predicted, dict(rename)))
    if name is not None:
        raise RequestError(
            f"--rename: '{name}' is the name of another predicted column as well; rename that too, "
            f"or choose another name."
        )
    kept = inputs if keep == "all" else keep
    for old, new in rename:
        if new in kept:
            raise RequestError(
                f"--rename {old}={new}: '{new}' is a kept input column as well; choose another "
                f"name, or the kept columns with --keep A,B."
            )


def with_models(rename: Rename, models: Collection[str]) -> Rename:
    """The pairs of a job with several models: ``a.OLD=NEW`` is the column NEW of ``a``."""
    made = []
    for old, new in rename:
        model = next((name for name in models if old.startswith(f"{name}.")), None)
        prefix = f"{model}." if model is not None and not new.startswith(f"{model}.") else ""
        made.append((old, prefix + new))
    return tuple(made)


def of_member(rename: Rename, model: str) -> Rename:
    """The pairs that are of one of several models, by its own names."""
    prefix = f"{model}."
    return tuple(
        (old[len(prefix) :], new.removeprefix(prefix))
        for old, new in rename
        if old.startswith(prefix)
    )


def parse_rename(value: object) -> Rename:
    """Read ``OLD=NEW``, a list of these, or a mapping.

    Raises:
        ValueError: it is none of these, or a name comes twice.
    """
    if isinstance(value, dict):
        pairs: list[Any] = list(value.items())
    else:
        listed: Sequence[Any] = [value] if isinstance(value, str) else list(value or ())  # type: ignore[call-overload]
        pairs = [tuple(one.split("=", 1)) if isinstance(one, str) else tuple(one) for one in listed]
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(name, str) and name for name in pair):
            raise ValueError("a name is given as OLD=NEW")
    for side, what in ((0, "renamed twice"), (1, "the new name of two columns")):
        names = [pair[side] for pair in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is {what}")
    return tuple((str(old), str(new)) for old, new in pairs)
