"""What became of the records: counts, and one example of each kind of failure."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

from modelbeam.predicting.failures import Failure, Place, traceback_of

EXAMPLES = 20
"""Kinds of failure that are described one by one; further ones are counted together."""

OTHERS = "other failures"
"""The type under which these are counted."""

_VARIABLE = re.compile(
    r"""
    (?P<named> (?i:\b(?:column|field|key|name|parameter|argument)s?:?\ ) (?: '[^']*' | "[^"]*" ) )
    | '[^']*' | "[^"]*" | `[^`]*`                             # quoted
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b         # a UUID
    | \b0x[0-9a-f]+\b
    | [-+]?\b\d+(?:\.\d+)?(?:e[-+]?\d+)?\b
    | \b(?=[a-z]*\d)[0-9a-f]{6,}\b                           # some other identifier
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST = 300


@functools.lru_cache(4096)
def masked(message: str) -> str:
    """A message without what differs from record to record: numbers, quoted text, identifiers.

    What is called a column, a field or a key in it stays: another one is another fault.
    """
    return " ".join(_VARIABLE.sub(lambda m: m["named"] or "…", message[:_LONGEST]).split())


@dataclass(slots=True)
class Kind:
    """Failures of one stage, type and masked message: how many, and the first of them.

    Attributes:
        stage, type: as in :class:`.failures.Failure`.
        message: what they have in common; see :func:`masked`.
        count: how many.
        source: the file of the first one.
        place: where it is in that file; in the piece of the file until the output is published.
        error: its whole message.
        where: the line of the user's code that raised it, such as ``housing/model.py:28 in
            predict``; empty if there is none.
        traceback: the last frames of its traceback, a line each; empty if there are none.
        model: the name of the model, where the job has several.
    """

    stage: str
    type: str
    message: str
    count: int
    source: str
    place: dict[str, Any]
    error: str
    where: str = ""
    traceback: str = ""
    model: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As ``run.json`` has it: the place's members among the others."""
        return {
            **({"model": self.model} if self.model else {}),
            "stage": self.stage,
            "type": self.type,
            "message": self.message,
            "count": self.count,
            "source": self.source,
            **self.place,
            "error": self.error,
            "where": self.where,
            "traceback": self.traceback,
        }

    @property
    def at(self) -> str:
        """The first one's place for people: the file and the line or row, or the offset."""
        if "partition" in self.place:
            where = f"partition {self.place['partition']}, offset {self.place['offset']}"
            return f"{self.source}, {where}"
        number = next(iter(self.place.values()), None)
        return self.source if number is None else f"{self.source}:{number}"


@dataclass(slots=True)
class Tally:
    """Records that one of several models was given: ``read`` is ``predicted`` plus ``failed``."""

    read: int = 0
    predicted: int = 0
    failed: int = 0

    def add(self, other: Tally) -> None:
        """Add those of another split."""
        self.read += other.read
        self.predicted += other.predicted
        self.failed += other.failed


@dataclass(slots=True)
class Calls:
    """How many records a model that takes many at once was given.

    Attributes:
        largest: the most of a call that went well.
        halved: how many calls were cut in halves since memory ran out.
    """

    largest: int = 0
    halved: int = 0

    def add(self, other: Calls) -> None:
        """Add those of another batch or split."""
        self.largest = max(self.largest, other.largest)
        self.halved += other.halved


@dataclass(slots=True)
class Counts:
    """Records of a split or a job: ``read`` is ``predicted`` plus ``failed``.

    ``recovered`` of the predicted ones had failed once and not when tried again: the model is not
    deterministic.

    Of several models ``models`` has the counts of each; then a record counts here as predicted if
    one of them has predicted it, and as failed if none has.

    ``calls`` has by name what each model that takes many records at once was given.
    """

    read: int = 0
    predicted: int = 0
    failed: int = 0
    kinds: list[Kind] = field(default_factory=list)
    recovered: int = 0
    models: dict[str, Tally] = field(default_factory=dict)
    calls: dict[str, Calls] = field(default_factory=dict)

    @property
    def most_failed(self) -> int:
        """Failures of the model that has most of them."""
        return max([self.failed, *(tally.failed for tally in self.models.values())])

    def of_model(self, name: str) -> Tally:
        """The counts of one of several models."""
        return self.models.setdefault(name, Tally())

    def note_calls(self, name: str, calls: Calls) -> None:
        """Add what a model was given at once."""
        if calls.largest or calls.halved:
            self.calls.setdefault(name, Calls()).add(calls)

    def add_failure(self, failure: Failure, place: Place, source: str = "") -> None:
        """Count one failed record."""
        self.failed += 1
        self.note_failure(failure, place, source)

    def note_failure(self, failure: Failure, place: Place, source: str = "") -> None:
        """Count a failure among those of its kind."""
        message = masked(failure.error)
        for kind in self.kinds:
            known = (kind.message, kind.type, kind.stage, kind.model)
            if known == (message, failure.type, failure.stage, failure.model):
                kind.count += 1
                return
        self._add(
            Kind(
                failure.stage, failure.type, message, 1, source, place._asdict(), failure.error,
                failure.where, traceback_of(failure), failure.model,
            )
        )  # fmt: skip

    def _add(self, kind: Kind) -> None:
        """Add a kind that is not there yet; the list is bounded."""
        if len(self.kinds) < EXAMPLES:
            self.kinds.append(kind)
            return
        last = self.kinds[-1]
        if last.type != OTHERS:
            first = (kind.source, kind.place, kind.error)
            last = Kind("", OTHERS, "", 0, *first)
            self.kinds.append(last)
        last.count += kind.count

    def add(self, other: Counts, first: int) -> None:
        """Add a later split's counts, whose lines are ``first`` further down its file."""
        self.read += other.read
        self.predicted += other.predicted
        self.failed += other.failed
        self.recovered += other.recovered
        for name, tally in other.models.items():
            self.of_model(name).add(tally)
        for name, calls in other.calls.items():
            self.note_calls(name, calls)
        known = {(kind.stage, kind.type, kind.message, kind.model): kind for kind in self.kinds}
        for kind in other.kinds:
            mine = known.get((kind.stage, kind.type, kind.message, kind.model))
            if mine is not None:
                mine.count += kind.count
                continue
            place = dict(kind.place)
            if place and first:
                number = next(iter(place))
                place[number] += first
            self._add(
                Kind(
                    kind.stage, kind.type, kind.message, kind.count, kind.source, place,
                    kind.error, kind.where, kind.traceback, kind.model,
                )
            )  # fmt: skip
