"""Dicts as a batch: the records of a pipeline of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept, KeptDicts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.results import copied


class Nowhere(NamedTuple):
    """The position of a record that is not in a file."""


class DictsBatch(Batch):
    """Records that are dicts already.

    Neither the model nor what is made of the records here can change the elements themselves: Beam
    does not allow it, and a failure must show its record as it was.

    Args:
        elements: what should be dicts; others are failures.
    """

    def __init__(self, elements: Sequence[Any]) -> None:
        self._elements = elements

    def records(self) -> Decoded:
        """Copies of the dicts."""
        records, rows, failures = [], [], []
        for row, element in enumerate(self._elements):
            if isinstance(element, dict):
                records.append(copied(element))
                rows.append(row)
            else:
                error = f"a record is a dict, not a {type(element).__name__}"
                failures.append(Failure(row, "validate", "NotAnObjectError", error))
        return Decoded(records, rows if failures else None, failures)

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Copies of some of their members."""
        chosen = [self._elements[row] for row in range(len(self._elements)) if rows is None]
        if rows is not None:
            chosen = [self._elements[row] for row in rows]
        if names != "all":
            chosen = [{name: one[name] for name in names if name in one} for one in chosen]
        return KeptDicts([copied(one) for one in chosen])

    def position(self, row: int) -> Nowhere:
        """An element of a collection is nowhere."""
        return Nowhere()

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The element."""
        return {"record": self._elements[row]}
