"""Columns that a file names, for formats whose files say which columns all records have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelbeam.models.signature import Column
from modelbeam.predicting.batch import Keep

KINDS = {"float": "float64", "int": "int64", "str": "string", "bool": "bool_"}
"""What a signature calls a type, and Arrow's name of it."""


def names_problem(names: Sequence[str], needed: Sequence[str], keep: Keep) -> str | None:
    """Why columns of these names cannot be told apart, or not be called by one.

    Args:
        names: as they stand in the file.
        needed: the columns that the model names.
        keep: those that are kept.

    Returns:
        The end of a sentence that begins with the file's name; ``None`` if all is well.
    """
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        twice = next(name for at, name in enumerate(named) if name in named[:at])
        first, second = [at for at, name in enumerate(names, 1) if name == twice][:2]
        return (
            f"has two columns called '{twice}', number {first} and number {second}, and which is "
            f"meant is not known; give each a name of its own"
        )
    if "" in names and (keep == "all" or "" in keep or "" in needed):
        use = "used; give it one in the file"
        if keep == "all":
            use = "kept; give it one in the file, or name the columns to keep (--keep A,B)"
        return f"has no name for its column {names.index('') + 1}, so it cannot be {use}"
    return None


def nulls(column: Column, count: int) -> Any | None:
    """So many nulls in the type of a model's column; ``None`` if that has no plain type."""
    import pyarrow as pa

    kind = KINDS.get(column.kind)
    return None if kind is None else pa.nulls(count, getattr(pa, kind)())
