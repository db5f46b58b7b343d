"""How far the columns of one run are from those of another.

Both distances compare the shares that the values of two runs have in the same bins: the tenths of
the earlier run's numbers, or its twenty most frequent values and all others; what is missing, and
what is no finite number or of another type, are bins too.

- Population stability index: the sum of ``(p - q) ln(p / q)`` (Siddiqi, Credit Risk Scorecards,
  2006; it is the symmetric divergence of Jeffreys, 1946). Up to 0.1 it is usually called no
  change, above 0.25 a large one.
- Jensen-Shannon distance: the root of the divergence in bits (Lin 1991; a metric by Endres and
  Schindelin 2003), from 0 to 1.

Two samples of one distribution are apart as well: their index times ``n m / (n + m)`` is about
chi-squared with a degree of freedom less than there are bins (Yurdakul 2018). So a change is one
only above what one pair of samples in a thousand would show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SOME, LARGE = 0.1, 0.25
FEWEST = 200
"""Records below which nothing is called a change."""

FREQUENT = 20
_BINS = 10
_ONE_IN_A_THOUSAND = 3.0902323061678132
"""Standard deviations that a normal number passes upwards once in a thousand times."""


def psi(now: Sequence[float], was: Sequence[float]) -> float:
    """The population stability index of two distributions over the same bins; none is empty."""
    p, q = np.asarray(now), np.asarray(was)
    return float(np.sum((p - q) * np.log(p / q)))


def jensen_shannon(now: Sequence[float], was: Sequence[float]) -> float:
    """The Jensen-Shannon distance of two distributions over the same bins."""
    p, q = np.asarray(now, float), np.asarray(was, float)
    middle = (p + q) / 2
    divergence = sum(
        float(np.sum(one[one > 0] * np.log2(one[one > 0] / middle[one > 0]))) for one in (p, q)
    )
    return math.sqrt(max(divergence / 2, 0.0))


def by_chance(bins: int, now: int, was: int) -> float:
    """The index that samples of so many records pass once in a thousand times by chance alone.

    The chi-squared quantile is that of Wilson and Hilferty (1931).
    """
    degrees = max(bins - 1, 1)
    spread = 2 / (9 * degrees)
    quantile: float = degrees * (1 - spread + _ONE_IN_A_THOUSAND * math.sqrt(spread)) ** 3
    return quantile * (1 / now + 1 / was)


def drift(now: Mapping[str, Any], was: Mapping[str, Any]) -> dict[str, Any]:
    """How far a column is from an earlier one.

    Args:
        now, was: what can be compared of each, as :func:`.columns.column` makes it.
    """
    few = min(now["sampled"], was["sampled"]) < FEWEST
    note = f"fewer than {FEWEST} records" if few else None
    counts = _counts(now, was)
    if counts is None:
        return {"psi": None, "js": None, "change": "none", "note": note or "of another type"}
    here, there = (np.array(each, float) for each in zip(*counts, strict=True))
    used = (here + there) > 0
    here, there = here[used], there[used]
    if not here.sum() or not there.sum():
        return {"psi": None, "js": None, "change": "none", "note": note or "no values"}
    # half a record where there is none: an empty bin would be infinitely far
    p, q = (np.maximum(each, 0.5) / np.maximum(each, 0.5).sum() for each in (here, there))
    index = psi(p, q)
    distance = jensen_shannon(here / here.sum(), there / there.sum())
    chance = by_chance(len(here), now["sampled"], was["sampled"])
    change = "none"
    if not few and index > chance:
        change = "large" if index > LARGE else "some" if index > SOME else "none"
    return {"psi": round(index, 6), "js": round(distance, 6), "change": change, "note": note}


def _counts(now: Mapping[str, Any], was: Mapping[str, Any]) -> list[tuple[float, float]] | None:
    """How many values of both runs are in each bin; ``None`` if there are no common bins."""
    made = [(now[name], was[name]) for name in ("missing", "invalid", "other")]
    if "values" in now and "values" in was:
        return made + _of_values(now, was)
    numbers = [_numbers(each) for each in (now, was)]
    if numbers[0] is None or numbers[1] is None:
        return None
    (here, many), (there, much) = numbers[0], numbers[1]
    edges = np.unique(there[:: (len(there) - 1) // _BINS][1:-1])
    bounds = [-math.inf, *edges.tolist(), math.inf]
    shares = [np.diff([_share(each, bound) for bound in bounds]) for each in (here, there)]
    return made + list(zip((shares[0] * many).tolist(), (shares[1] * much).tolist(), strict=True))


def _of_values(now: Mapping[str, Any], was: Mapping[str, Any]) -> list[tuple[float, float]]:
    frequent = sorted(was["values"], key=lambda value: (-was["values"][value], value))[:FREQUENT]
    made = [(now["values"].get(value, 0), was["values"][value]) for value in frequent]
    totals = [sum(each["values"].values()) + each["others"] for each in (now, was)]
    rest = [total - sum(pair[at] for pair in made) for at, total in enumerate(totals)]
    return [*made, (rest[0], rest[1])]


def _numbers(one: Mapping[str, Any]) -> tuple[Any, int] | None:
    """Quantiles, evenly spaced, and of how many numbers they are."""
    if "quantiles" in one:
        return np.array(one["quantiles"], float), one["numbers"]
    try:
        values = sorted((float(value), count) for value, count in one["values"].items())
    except ValueError:
        return None
    if not values or one["others"]:
        return None
    places = np.cumsum([count for _, count in values])
    total = int(places[-1])
    ranks = np.linspace(0, total - 1, 201)
    return np.array([v for v, _ in values])[np.searchsorted(places, ranks, "right")], total


def _share(quantiles: Any, bound: float) -> float:
    """What part of the numbers is no larger than a bound."""
    if math.isinf(bound):
        return float(bound > 0)
    at = int(np.searchsorted(quantiles, bound, "right"))
    if at == 0:
        return 0.0
    if at == len(quantiles):
        return 1.0
    low, high = float(quantiles[at - 1]), float(quantiles[at])
    part = (bound - low) / (high - low) if math.isfinite(high - low) and high > low else 0.0
    return (at - 1 + part) / (len(quantiles) - 1)


def compared(now: Mapping[str, Any], was: Mapping[str, Any]) -> dict[str, Any]:
    """``columns`` and ``schema`` of a profile's baseline.

    Args:
        now, was: two profiles.
    """
    columns: list[dict[str, Any]] = []
    schema: list[dict[str, Any]] = []
    sides = [(None, "inputs", now["sketches"]["inputs"], was["sketches"]["inputs"])]
    here, there = now["sketches"]["predictions"], was["sketches"]["predictions"]
    models = {name: there.get(name) for name in here}
    if len(here) == len(there) == 1:  # another name of the model is no other prediction
        models = {next(iter(here)): next(iter(there.values()))}
    sides += [(name, name, here[name], found or {}) for name, found in models.items()]
    for _, where, some, others in sides:
        for name in dict.fromkeys([*some, *others]):
            one, other = some.get(name), others.get(name)
            types = [None if each is None else each["type"] for each in (other, one)]
            if types[0] != types[1] and "null" not in types:
                schema.append({"where": where, "name": name, "was": types[0], "is": types[1]})
            if one is not None and other is not None:
                columns.append({"where": where, "name": name, **drift(one, other)})
    return {"columns": columns, "schema": schema}


def largest(columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The column that is farthest, of those with enough records."""
    known = [one for one in columns if one["psi"] is not None and one["note"] is None]
    return max(known, key=lambda one: one["psi"], default=None)


def farthest(profile: Mapping[str, Any] | None, most: int = 3) -> list[str]:
    """The columns that changed the most since the baseline, a line each, farthest first."""
    columns = ((profile or {}).get("baseline") or {}).get("columns", ())
    known = sorted((one for one in columns if one["psi"] is not None), key=lambda one: -one["psi"])
    return [
        f"{one['where']}: {one['name']} is at {one['psi']:.3g} ({one['note'] or one['change']})"
        for one in known[:most]
    ]
