"""The profiles of all splits, put together in their order: what ``profile.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelbeam.profile.cells import COLUMNS, Cells, missing, together
from modelbeam.profile.columns import column
from modelbeam.profile.exact import Exact
from modelbeam.profile.failures import AllFailures
from modelbeam.profile.odd import ALL, AllOdd
from modelbeam.profile.pace import Pace, described
from modelbeam.profile.packed import Packed
from modelbeam.profile.sample import taken
from modelbeam.profile.wants import SAMPLED, Wants

VERSION = 1

RARE = 0.05
"""Share of the records that a class has at most to be called rare."""


class _Side:
    """The columns of one side of a model, of all splits."""

    def __init__(self) -> None:
        self.exact: dict[str, Exact] | None = {}
        self.records = 0
        self.dropped = 0
        self.waiting = 0
        self._numbers: list[Any] = []
        self._columns: dict[str, list[tuple[int, Cells]]] = {}

    def add(self, packed: Packed, side: Mapping[str, Any]) -> None:
        numbers = packed.numbers(side)
        at = len(self._numbers)
        self._numbers.append(numbers)
        self.waiting += len(numbers)
        self.dropped = max(self.dropped, side["dropped"])
        for name, cells in packed.cells(side).items():
            if name in self._columns or len(self._columns) < COLUMNS:
                self._columns.setdefault(name, []).append((at, cells))
            else:
                self.dropped += 1
        if side["records"]:
            self._count(packed.exact(side), side["records"])
        self.records += side["records"]

    def _count(self, found: dict[str, Exact] | None, size: int) -> None:
        if found is None or self.exact is None:
            self.exact = None
            return
        for name, one in found.items():
            mine = self.exact.setdefault(name, Exact(self.records, self.records))
            mine.add(one)
        for name in self.exact.keys() - found.keys():
            self.exact[name].add(Exact(size, size))

    def thin(self, level: int) -> None:
        """Keep those of a level."""
        masks = [taken(numbers, level) for numbers in self._numbers]
        self._numbers = [n[mask] for n, mask in zip(self._numbers, masks, strict=True)]
        for parts in self._columns.values():
            parts[:] = [(at, cells.take(masks[at])) for at, cells in parts]
        self.waiting = sum(map(len, self._numbers))

    def columns(self) -> dict[str, Cells]:
        """The cells of each column, those of splits without it missing."""
        made = {}
        for name, parts in self._columns.items():
            by_split = dict(parts)
            made[name] = together(
                [
                    by_split[at] if at in by_split else missing(len(numbers))
                    for at, numbers in enumerate(self._numbers)
                ]
            )
        return made


class _Member:
    """One model, of all splits."""

    def __init__(self) -> None:
        self.inputs, self.predictions = _Side(), _Side()
        self.odd = AllOdd()
        self.level = 0

    def add(self, packed: Packed, data: Mapping[str, Any], first: int) -> None:
        self.inputs.add(packed, data["inputs"])
        self.predictions.add(packed, data["predictions"])
        self.odd.add(data["odd"], first)
        self.level = max(self.level, data["level"])
        if self._waiting > 8 * SAMPLED:  # so that memory stays bounded; the rest comes to the same
            self.settle()

    @property
    def _waiting(self) -> int:
        return max(self.inputs.waiting, self.predictions.waiting)

    def settle(self) -> None:
        """Thin the sample to the lowest level at which it is small enough."""
        self.thin(self.level)
        while self._waiting > SAMPLED:
            self.thin(self.level + 1)

    def thin(self, level: int) -> None:
        """Keep those of a level."""
        self.level = level
        self.inputs.thin(level)
        self.predictions.thin(level)


class Merged:
    """The profiles of splits, added in their order.

    Args:
        wants: what was collected.

    Attributes:
        without: how many splits had none.
    """

    def __init__(self, wants: Wants) -> None:
        self.without = 0
        self._wants = wants
        self._members: dict[str, _Member] = {}
        self._failures = AllFailures(wants.examples)
        self._paces: list[tuple[int, Pace]] = []
        self._read = 0

    def add(self, index: int, content: bytes | None, first: int) -> None:
        """Add a split's.

        Args:
            index: of the split.
            content: its profile as it is stored; ``None`` if there is none.
            first: how much further down its file its lines are.
        """
        try:
            packed = None if content is None else Packed(content)
        except (ValueError, KeyError, TypeError):
            packed = None
        if packed is None:
            self.without += 1
            return
        for name, data in packed.header["members"].items():
            self._members.setdefault(name, _Member()).add(packed, data, first)
        pace = Pace.from_dict(packed.header["pace"])
        self._failures.add(packed.header["failures"], self._read, first)
        self._read += pace.read
        self._paces.append((index, pace))

    def last_span(self) -> tuple[float, float] | None:
        """When the split that was added last began and ended."""
        if not self._paces:
            return None
        pace = self._paces[-1][1]
        return pace.start, pace.end

    def to_dict(self, began: float, ended: float, route: str | None = None) -> dict[str, Any]:
        """``profile.json``.

        Args:
            began, ended: of the run, in seconds since the epoch.
            route: the column that sends each record to one of several models, if one does.
        """
        for member in self._members.values():
            member.settle()
        sketches: dict[str, dict[str, Any]] = {"inputs": {}, "predictions": {}}
        inputs, left_out = self._inputs(sketches["inputs"], route)
        predictions, odd = [], []
        for name, member in self._members.items():
            of_model = sketches["predictions"][name] = {}
            made = self._described(member.predictions, of_model)
            predictions.append({"model": name, "columns": made})
            odd.append(_odd(name, member, made))
        each = max(1, ALL // max(len(odd), 1))
        return {
            "version": VERSION,
            "inputs": inputs,
            **({"inputs_left_out": left_out} if left_out else {}),
            "predictions": predictions,
            "odd": [one for found in odd for one in found[:each]],
            **self._failures.described(self._read),
            "time": described(self._paces, began, ended),
            "baseline": None,
            **({"splits_without": self.without} if self.without else {}),
            "sketches": sketches,
        }

    def _inputs(self, sketches: dict[str, Any], route: str | None) -> tuple[list[Any], int]:
        """The columns that any model takes; each is read once, or each record by one model."""
        sides = [member.inputs for member in self._members.values()]
        if len(sides) <= 1 or route is None:
            columns: dict[str, Any] = {}
            for side in sides:
                found: dict[str, Any] = {}
                for one in self._described(side, found):
                    if one["name"] not in columns:
                        columns[one["name"]] = one
                        if one["name"] in found:
                            sketches[one["name"]] = found[one["name"]]
            left_out = sum(side.dropped for side in sides) + max(0, len(columns) - COLUMNS)
            return [*columns.values()][:COLUMNS], left_out
        return self._routed(sides, sketches), sum(side.dropped for side in sides)

    def _routed(self, sides: list[_Side], sketches: dict[str, Any]) -> list[Any]:
        """The columns of models that were given other records each, at the same share of these."""
        level = max(member.level for member in self._members.values())
        for side in sides:
            side.thin(level)
        cells = [side.columns() for side in sides]
        names = list(dict.fromkeys(name for each in cells for name in each))[:COLUMNS]
        made = []
        for name in names:
            having = [at for at, each in enumerate(cells) if name in each]
            exact: Exact | None = Exact()
            for at in having:
                found = (sides[at].exact or {}).get(name)
                if found is None or exact is None:
                    exact = None
                else:
                    exact.add(found)
            values = together([cells[at][name] for at in having])
            records = sum(sides[at].records for at in having)
            one, compared = column(name, values, records, exact, self._is_masked(name))
            made.append(one)
            if compared is not None:
                sketches[name] = compared
        return made

    def _is_masked(self, name: str) -> bool:
        return any(name == one or name.startswith(f"{one}.") for one in self._wants.mask)

    def _described(self, side: _Side, sketches: dict[str, Any]) -> list[Any]:
        made = []
        found = side.columns()
        for name in found if side.exact is None else side.exact:
            exact = None if side.exact is None else side.exact[name]
            cells = found[name] if name in found else missing(side.waiting)
            one, compared = column(name, cells, side.records, exact, self._is_masked(name))
            made.append(one)
            if compared is not None:
                sketches[name] = compared
        return made


def _odd(name: str, member: _Member, columns: list[Any]) -> list[Any]:
    by_name = {one["name"]: one for one in columns}

    numbers = [one["numbers"] for one in columns if one["type"] == "double" and one["numbers"]]
    scores = bool(numbers) and all(one["min"] >= 0 and one["max"] <= 1 for one in numbers)

    def rare(column: str) -> list[str]:
        one = by_name.get(column)
        if one is None or not one["values"]:
            return []
        top = one["values"]["top"]
        total = sum(each["count"] for each in top) + one["values"]["others"]
        return [each["value"] for each in reversed(top) if each["count"] <= RARE * total]

    return member.odd.described(name, scores, rare)
