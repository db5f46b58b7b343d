"""Whether a run waited for a model that takes one record at a time, and what would help.

Only what was measured is told: a model that is fast as it is, or a run in which something else
takes the time, gets no advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelbeam.models.base import ModelInfo

HINT = "hint: "
"""How a note begins that is advice, and is shown with the summary."""

MANY_RECORDS = 1000
LONG_SECONDS = 5.0
"""Of calls in all: below it there is little to be gained."""

SLOW_SECONDS = 20e-6
"""A record, at least: a call that does a little arithmetic in Python takes less, and a record of a
table a tenth of that."""

DOMINATING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process has spent since its first split began, in seconds.

    Attributes:
        calls: in calls of the model, its schema's included.
        all: by the clock.
    """

    calls: float
    all: float


def one_by_one(info: ModelInfo, records: int, spent: Iterable[Spent]) -> str | None:
    """What to tell of a model that takes one record at a time, if that is what took the time.

    Args:
        info: of the model.
        records: that were given to it.
        spent: by each process that held it.
    """
    if info.style != "record" or records < MANY_RECORDS:
        return None
    of_all = list(spent)
    calls, seconds = sum(one.calls for one in of_all), sum(one.all for one in of_all)
    share = min(1.0, calls / seconds) if seconds > 0 else 0.0
    if calls < LONG_SECONDS or share < DOMINATING_SHARE or calls / records < SLOW_SECONDS:
        return None
    return (
        f"{HINT}{share:.0%} of the time went into the model, which takes one record at a time "
        f"({_short(calls / records)} each). One that takes many at once is often many times as "
        f"fast: see predict_batch and predict_table in docs/models.md"
    )


def _short(seconds: float) -> str:
    """``35 µs``, ``2.1 ms``, ``1.5 s``."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1, "s")):
        number = seconds * factor
        if number < 999.5 or unit == "s":
            break
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"
