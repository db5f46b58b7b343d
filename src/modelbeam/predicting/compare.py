"""What two models' predictions for the same records have in common, and where they differ.

Two values are equal if they are the same number (``1`` is ``1.0``, NaN is NaN), or of one type and
equal: the text ``"1"`` is not the number, and ``true`` is not 1.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

MOST = 1000
"""Records that are named: those that differ most."""

CLASSES = 30
"""Different values of a column up to which it is taken for classes."""

SAMPLED = 1 << 18
"""Differences that are remembered for the quantiles; of more, every second, fourth … one."""

_MARK = "$float"


def marked(value: Any) -> Any:
    """A prediction with NaN and infinities, which JSON lacks, as objects that it has."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, dict):
        return {key: marked(one) for key, one in value.items()}
    return [marked(one) for one in value] if isinstance(value, (list, tuple)) else value


def unmarked(value: Any) -> Any:
    """What :func:`marked` was given."""
    if isinstance(value, dict):
        if value.keys() == {_MARK}:
            return float(value[_MARK])
        return {key: unmarked(one) for key, one in value.items()}
    return [unmarked(one) for one in value] if isinstance(value, list) else value


def is_number(value: Any) -> bool:
    """Whether it is a number; ``true`` is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether two predicted values are equal."""
    if is_number(one) and is_number(other):
        return bool(one == other or (one != one and other != other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def distance(one: Any, other: Any) -> float:
    """How much two values differ: numbers by their difference, all else by 0 or 1."""
    if same(one, other):
        return 0.0
    if is_number(one) and is_number(other):
        return _gap(one, other)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(distance, one, other))
    return 1.0


def _gap(one: Any, other: Any) -> float:
    """The difference of two numbers that are not equal; infinite where one is NaN."""
    try:
        gap = abs(float(other - one))
    except OverflowError:
        return math.inf
    return math.inf if math.isnan(gap) else gap


class Numbers:
    """Differences of numbers, in bounded memory: exact sums, and quantiles of a sample."""

    def __init__(self) -> None:
        self.count = self.infinite = 0
        self._sum = self._absolute = self._squares = self._largest = 0.0
        self._sample: list[float] = []
        self._every = 1

    def add(self, one: Any, other: Any) -> None:
        """Add ``other - one``."""
        gap = 0.0 if same(one, other) else _gap(one, other)
        if math.isinf(gap):
            self.infinite += 1
            return
        signed = -gap if other < one else gap
        if self.count % self._every == 0:
            self._sample.append(signed)
            if len(self._sample) > SAMPLED:
                self._sample = self._sample[::2]
                self._every *= 2
        self.count += 1
        self._sum += signed
        self._absolute += gap
        self._squares += gap * gap
        self._largest = max(self._largest, gap)

    def to_dict(self) -> dict[str, Any]:
        """The distribution, for JSON."""
        ordered = sorted(self._sample)

        def at(share: float) -> float | None:
            return ordered[round(share * (len(ordered) - 1))] if ordered else None

        count = max(self.count, 1)
        squares = self._squares / count
        return {
            "count": self.count,
            "infinite": self.infinite,
            "mean": self._sum / count,
            "mean_absolute": self._absolute / count,
            "root_mean_square": math.sqrt(squares) if math.isfinite(squares) else None,
            "largest": self._largest,
            "quantiles": {f"{share:g}": at(share) for share in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)},
        }


class Field:
    """One predicted column of both models."""

    def __init__(self) -> None:
        self.agreed = self.compared = 0
        self.pairs: Counter[tuple[str, str]] | None = Counter()
        self.numbers: Numbers | None = Numbers()
        self._floats = False

    def add(self, one: Any, other: Any) -> None:
        """Compare two values."""
        self.compared += 1
        self.agreed += same(one, other)
        self._floats = self._floats or isinstance(one, float) or isinstance(other, float)
        if not (is_number(one) and is_number(other)):
            self.numbers = None
        elif self.numbers is not None:
            self.numbers.add(one, other)
        if self.pairs is not None:
            self.pairs[_shown(one), _shown(other)] += 1
            if len(self.pairs) > CLASSES * CLASSES:
                self.pairs = None

    def to_dict(self) -> dict[str, Any]:
        """Agreement, and the confusion table or the distribution of differences."""
        found: dict[str, Any] = {
            "compared": self.compared,
            "agreement": self.agreed / self.compared if self.compared else None,
        }
        values = {v for pair in self.pairs or () for v in pair}
        if self.numbers is not None and (self._floats or not values or len(values) > CLASSES):
            found["differences"] = self.numbers.to_dict()
        elif self.pairs is not None and len(values) <= CLASSES:
            found["confusion"] = [
                {"first": one, "second": other, "count": count}
                for (one, other), count in sorted(self.pairs.items())
            ]
        return found


def _shown(value: Any) -> str:
    """A value such that different ones are told apart: texts in quotes, as JSON has them."""
    import json

    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


class Quality:
    """How near one model's column comes to a label."""

    def __init__(self) -> None:
        self.labelled = self.right = 0
        self._numbers: Numbers | None = Numbers()
        self._floats = False

    def add(self, predicted: Any, label: Any) -> None:
        """Hold a value against a label."""
        self.labelled += 1
        self.right += same(predicted, label)
        self._floats = self._floats or isinstance(predicted, float)
        if not (is_number(predicted) and is_number(label)):
            self._numbers = None
        elif self._numbers is not None:
            self._numbers.add(label, predicted)

    def to_dict(self) -> dict[str, Any]:
        """The accuracy; of numbers with fractions the errors."""
        found: dict[str, Any] = {"labelled": self.labelled}
        if self._numbers is not None and self._floats:
            said = self._numbers.to_dict()
            found |= {key: said[key] for key in ("mean_absolute", "root_mean_square", "infinite")}
        else:
            found["accuracy"] = self.right / self.labelled if self.labelled else None
        return found


class Comparison:
    """All records of two models, added one by one.

    Args:
        names: of the models.
        label: the input column that holds what is right, if there is one.
        texts: whether labels are texts whatever they mean, as CSV has them.
        most: how many of the records that differ most are kept.
    """

    def __init__(
        self,
        names: tuple[str, str],
        label: str | None = None,
        texts: bool = False,
        most: int = MOST,
    ) -> None:
        self._names, self._label, self._texts, self._most = names, label, texts, most
        self.both = self.agreed = self.one_only = self.unlabelled = 0
        self._fields: dict[str, Field] = {}
        self._only: dict[str, Counter[str]] = {name: Counter() for name in names}
        self._quality = {name: Quality() for name in names}
        self._labelled: dict[str, str] = {}
        self._worst: list[tuple[float, int, dict[str, Any]]] = []
        self._added = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a record with the prediction of each model under its name, or null."""
        self._added += 1
        ones = [None if row[name] is None else unmarked(row[name]) for name in self._names]
        record = {key: value for key, value in row.items() if key not in self._names}
        if self._label is not None:
            self._judge(ones, record.get(self._label))
        one, other = ones
        if one is None or other is None:
            self.one_only += 1
            return
        self.both += 1
        score, equal = 0.0, True
        for name in dict.fromkeys([*one, *other]):
            if name in one and name in other:
                self._fields.setdefault(name, Field()).add(one[name], other[name])
                score += distance(one[name], other[name])
                equal = equal and same(one[name], other[name])
            else:
                self._only[self._names[name in other]][name] += 1
        self.agreed += equal
        if not equal:
            shown = {self._names[0]: row[self._names[0]], self._names[1]: row[self._names[1]]}
            self._remember(score, {**shown, "record": record})

    def _remember(self, score: float, line: dict[str, Any]) -> None:
        entry = (score, -self._added, line)
        if len(self._worst) < self._most:
            heapq.heappush(self._worst, entry)
        elif self._worst:
            heapq.heappushpop(self._worst, entry)

    def _judge(self, ones: list[Any], label: Any) -> None:
        if label is None or label == "":
            self.unlabelled += 1
            return
        for name, one in zip(self._names, ones, strict=True):
            if not one:
                continue
            column = self._labelled.get(name) or self._column(one)
            self._labelled[name] = column
            if column in one:
                meant = _as_type_of(one[column], label) if self._texts else label
                self._quality[name].add(one[column], meant)

    def _column(self, prediction: dict[str, Any]) -> str:
        """The predicted column that a label is held against."""
        wanted = (self._label, "prediction")
        return str(next((name for name in wanted if name in prediction), next(iter(prediction))))

    def worst(self) -> Iterator[dict[str, Any]]:
        """The records that differ most, the greatest difference first, else in their order."""
        for score, _, line in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1])):
            yield {"difference": score if math.isfinite(score) else None, **line}

    def to_dict(self) -> dict[str, Any]:
        """What was found, for JSON."""
        found: dict[str, Any] = {
            "models": list(self._names),
            "compared": self.both,
            "predicted_by_one_only": self.one_only,
            "agreement": self.agreed / self.both if self.both else None,
            "columns": {name: field.to_dict() for name, field in self._fields.items()},
            "columns_of_one_only": {
                name: sorted(only) for name, only in self._only.items() if only
            },
        }
        if self._label is not None:
            found["label"] = {
                "column": self._label,
                "without": self.unlabelled,
                **{
                    name: {"predicted_column": self._labelled.get(name), **quality.to_dict()}
                    for name, quality in self._quality.items()
                },
            }
        return found


def _as_type_of(predicted: Any, label: Any) -> Any:
    """A label that is text as a number or a truth value, where such a thing is predicted."""
    if not isinstance(label, str):
        return label
    if isinstance(predicted, bool):
        return {"true": True, "false": False}.get(label.strip().lower(), label)
    if is_number(predicted):
        try:
            return float(label)
        except ValueError:
            return label
    return label
