"""How long messages took from their time stamp to the commit: how many in which span."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

BOUNDS: tuple[float, ...] = tuple(
    round(step * 10.0**decade, 3)
    for decade in range(7)
    for step in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
)
"""Upper bounds of the spans, in milliseconds; from one to the next it is a quarter more."""

LOOKED_AT = 100
"""Messages of a turn that are looked at, at most; each stands for those around it."""

_NO_TIME = 0
"""Of ``confluent_kafka``: the message has no time stamp."""


def sampled(messages: Sequence[Any], now: float) -> list[tuple[float, int]]:
    """The milliseconds since the time stamp of some messages, and for how many each stands.

    Args:
        messages: of ``confluent_kafka``; those without a time stamp do not count.
        now: in milliseconds since the epoch.
    """
    step = -(-len(messages) // LOOKED_AT) or 1
    found = []
    for first in range(0, len(messages), step):
        kind, when = messages[first].timestamp()
        if kind != _NO_TIME and when >= 0:
            found.append((max(0.0, now - when), min(step, len(messages) - first)))
    return found


@dataclass(slots=True)
class Delays:
    """Counts by span.

    Attributes:
        counts: of each of :data:`BOUNDS`, and of what took longer.
        total: milliseconds of all together.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, milliseconds: float, number: int) -> None:
        """So many messages took so long."""
        self.counts[bisect_left(BOUNDS, milliseconds)] += number
        self.total += milliseconds * number

    def merge(self, other: Delays) -> None:
        """Add those of another."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> Delays:
        """The same, by itself."""
        return Delays(list(self.counts), self.total)

    def quantile(self, share: float) -> float | None:
        """The milliseconds under which this share of the messages stayed; ``None`` of none."""
        left = share * sum(self.counts)
        if left <= 0:
            return None
        below = 0.0
        for bound, number in zip(BOUNDS, self.counts, strict=False):
            if number >= left:
                return round(below + (bound - below) * left / number, 3)
            left -= number
            below = bound
        return below

    def up_to(self, bounds: Sequence[float]) -> list[int]:
        """How many took at most so long, for bounds that are among :data:`BOUNDS`."""
        return [sum(self.counts[: BOUNDS.index(bound) + 1]) for bound in bounds]
