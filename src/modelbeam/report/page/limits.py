"""How much a page shows, so that its size does not follow the data's."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 950_000
"""Bytes that a page should not pass; if it would, it is drawn with the next smaller limits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of everything; what is left out is counted.

    Attributes:
        plots: columns that are drawn, of inputs and of each model.
        columns: those that are listed.
        kinds: of failures.
        examples: of a kind.
        record: characters of a record or a message.
        values: of a column.
        rows: of any other list.
        models: how many of them.
        splits: in the timeline.
    """

    plots: int
    columns: int
    kinds: int
    examples: int
    record: int
    values: int
    rows: int
    models: int
    splits: int


STEPS = (
    Limits(200, 1000, 200, 5, 2048, 20, 40, 20, 2000),
    Limits(60, 300, 80, 5, 1000, 12, 25, 10, 1000),
    Limits(20, 100, 25, 3, 400, 8, 15, 5, 300),
    Limits(8, 25, 8, 1, 200, 5, 8, 3, 100),
)
