"""The records whose predictions stand out: highest, lowest, least certain, of the rarest class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelbeam.profile.cells import TEXT

EACH = 5
"""Records of each reason and column."""

ALL = 40
"""Records of a profile."""

COLUMNS = 4
"""Columns of numbers whose extremes are looked for, of each model: the first ones."""

CLASSES = 20
"""Classes of a split of which a record is noted."""

SCORES = 64
"""Columns of probabilities, at most, among which the certainty is looked for."""

Described = Callable[[int], dict[str, Any]]
"""What is told of the record of a prediction, by its index: place and record."""


@dataclass(slots=True)
class Candidate:
    """A record that may be told of.

    Attributes:
        size: what it is compared by; the larger, the odder.
        number: of the record in its split; of equally odd ones the first is told of.
        value: of the prediction.
        record: place and record.
    """

    size: float
    number: int
    value: Any
    record: dict[str, Any]

    @property
    def order(self) -> tuple[float, int]:
        """The oddest first."""
        return -self.size, self.number


@dataclass(slots=True)
class Odd:
    """The odd records of one model in a split.

    Attributes:
        extremes: by reason and column the few oddest.
        classes: by column and class the first record.
    """

    extremes: dict[tuple[str, str], list[Candidate]] = field(default_factory=dict)
    classes: dict[str, dict[str, Candidate]] = field(default_factory=dict)

    def numbers(
        self, why: str, column: str, sizes: Any, values: Any, at: Any, described: Described
    ) -> None:
        """Look through numbers.

        Args:
            why, column: what they are.
            sizes: what they are compared by, NaN for what is not looked at.
            values: what is told.
            at: the numbers of the records in their split.
            described: tells of a record, by its index here.
        """
        best = self.extremes.setdefault((why, column), [])
        if not len(sizes):
            return
        top = float(np.fmax.reduce(sizes))
        if math.isnan(top) or (len(best) == EACH and top <= best[-1].size):
            return
        sizes = np.where(np.isnan(sizes), -math.inf, sizes)
        if len(sizes) > EACH:
            least = np.partition(sizes, -EACH)[-EACH]
            found = np.flatnonzero(sizes >= least)
        else:
            found = np.arange(len(sizes))
        found = found[np.argsort(-sizes[found], kind="stable")][:EACH]
        for index in found.tolist():
            size = float(sizes[index])
            if len(best) == EACH and size <= best[-1].size:
                break
            if not math.isfinite(size):
                continue
            best.append(Candidate(size, int(at[index]), float(values[index]), described(index)))
            best.sort(key=lambda one: one.order)
            del best[EACH:]

    def has_all(self, column: str) -> bool:
        """Whether no further class of a column is noted."""
        return len(self.classes.get(column, ())) >= CLASSES

    def texts(self, column: str, known: Any, index_of: Any, at: Any, described: Described) -> None:
        """Note the first record of each class.

        Args:
            column: of the classes.
            known: those of these predictions.
            index_of: finds the first prediction of a class.
            at: the numbers of the records in their split.
            described: tells of a record, by its index here.
        """
        noted = self.classes.setdefault(column, {})
        for value in known:
            if len(noted) >= CLASSES:
                return
            if value not in noted:
                index = index_of(value)
                noted[value] = Candidate(0.0, int(at[index]), value, described(index))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "extremes": [
                [why, column, [_as_list(one) for one in found]]
                for (why, column), found in self.extremes.items()
            ],
            "classes": [
                [column, [_as_list(one) for one in found.values()]]
                for column, found in self.classes.items()
            ],
        }


def _as_list(one: Candidate) -> list[Any]:
    return [one.size, one.number, one.value, one.record]


class AllOdd:
    """The odd records of all splits, added in their order; of one model."""

    def __init__(self) -> None:
        self._extremes: dict[tuple[str, str], list[tuple[float, int, Candidate]]] = {}
        self._classes: dict[str, dict[str, list[Candidate]]] = {}
        self._added = 0

    def add(self, data: Mapping[str, Any], first: int) -> None:
        """Add what :meth:`Odd.to_dict` made of a split.

        Args:
            data: of the split.
            first: how much further down its file its lines are.
        """
        self._added += 1
        for why, column, found in data["extremes"]:
            best = self._extremes.setdefault((why, column), [])
            for each in found:
                one = _moved(Candidate(*each), first)
                best.append((-one.size, self._added, one))
            best.sort(key=lambda entry: (entry[0], entry[1], entry[2].number))
            del best[EACH:]
        for column, found in data["classes"]:
            classes = self._classes.setdefault(column, {})
            for each in found:
                one = _moved(Candidate(*each), first)
                noted = classes.setdefault(str(one.value), [])
                if len(noted) < EACH:
                    noted.append(one)

    def described(
        self,
        model: str,
        scores: bool,
        rare: Callable[[str], list[str]],
    ) -> list[dict[str, Any]]:
        """``odd`` of the profile.

        Args:
            model: whose they are.
            scores: whether its fractions are all between 0 and 1.
            rare: the rare classes of a column, the rarest first.
        """
        made = []
        for (why, column), found in self._extremes.items():
            if why == "least certain" and not scores:
                continue
            made += [_shown(model, why, column, one) for _, _, one in found]
        for column, classes in self._classes.items():
            ones = [one for name in rare(column) for one in classes.get(name, ())]
            made += [_shown(model, "rarest", column, one) for one in ones[:EACH]]
        return made


def _moved(one: Candidate, first: int) -> Candidate:
    number = "line" if "line" in one.record else "row"
    if number in one.record:
        one.record[number] += first
    return one


def _shown(model: str, why: str, column: str, one: Candidate) -> dict[str, Any]:
    value = one.value[:TEXT] if isinstance(one.value, str) else one.value
    return {"model": model, "why": why, "column": column, "value": value, **one.record}
