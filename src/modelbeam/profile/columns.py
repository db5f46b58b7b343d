"""One column of a profile: what is shown of it, and what another run is compared with."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from modelbeam.profile import cells as kinds
from modelbeam.profile.cells import NAMES, Cells
from modelbeam.profile.exact import Exact

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BARS = 40
TOP = 20
FEW = 20
"""Different numbers of a column up to which each is shown by itself, as classes are."""

POINTS = 201
"""Quantiles of a column that are kept to be compared, every half per cent."""

COMPARED = 200
"""Values of a column that are kept to be compared."""


def column(name: str, cells: Cells, records: int, exact: Exact | None, masked: bool) -> Any:
    """A column as the profile has it, and what of it can be compared.

    Args:
        name: of the column.
        cells: its values in the sampled records.
        records: how many records there are.
        exact: what was counted of all values, if that was.
        masked: whether no value of it may be shown.
    """
    sampled = len(cells)
    numeric = np.isin(cells.kinds, (kinds.INTEGER, kinds.DOUBLE, kinds.TIMESTAMP))
    numbers = cells.numbers[numeric & np.isfinite(cells.numbers)]
    missing = int(np.count_nonzero(cells.kinds == kinds.MISSING))
    invalid = int(np.count_nonzero(cells.kinds == kinds.INVALID))
    counted, whole = _counted(cells, exact, len(numbers))
    kind = type_of(cells)
    different = len(np.unique(numbers)) if len(numbers) else len(counted)
    every = sampled == records
    described = {
        "name": name,
        "type": kind,
        "count": sampled if exact is None else exact.count,
        "sampled": sampled,
        "records": records,
        "missing": missing if exact is None else exact.missing,
        "invalid": invalid if exact is None else exact.invalid,
        "distinct": len(counted) if whole else different,
        "distinct_exact": whole or every,
        "numbers": None,
        "values": None,
        "lengths": None,
    }
    if masked:
        return {**described, "masked": True}, None
    if len(numbers):
        described["numbers"] = _numbers(numbers, exact)
    if counted and (not len(numbers) or len(counted) <= FEW):
        described["values"] = _values(counted)
    lengths = cells.lengths[~np.isnan(cells.lengths)]
    if len(lengths):
        described["lengths"] = _numbers(lengths, None)
    compared = {
        "type": kind,
        "records": records,
        "sampled": sampled,
        "missing": missing,
        "invalid": invalid,
        "other": sampled - missing - invalid - (len(numbers) or _texts(cells)),
    }
    if len(numbers) and len(counted) > FEW:
        compared["quantiles"] = _rounded(np.quantile(numbers, np.linspace(0, 1, POINTS)))
        compared["numbers"] = len(numbers)
    else:
        small = Counter(_counted(cells, None, len(numbers))[0])
        top = sorted(small.items(), key=lambda pair: (-pair[1], pair[0]))[:COMPARED]
        compared["values"] = dict(top)
        compared["others"] = sum(small.values()) - sum(count for _, count in top)
    return described, compared


def _texts(cells: Cells) -> int:
    return sum(text is not None for text in cells.texts)


def type_of(cells: Cells) -> str:
    """The type that most values have; integers among fractions are fractions."""
    counts = Counter(cells.kinds.tolist())
    counts[kinds.DOUBLE] += counts.pop(kinds.INVALID, 0)
    if counts[kinds.DOUBLE]:
        counts[kinds.DOUBLE] += counts.pop(kinds.INTEGER, 0)
    del counts[kinds.MISSING]
    best = max(sorted(counts), key=lambda kind: counts[kind], default=kinds.OTHER)
    return NAMES[best] if counts[best] else "null"


def _counted(cells: Cells, exact: Exact | None, numbers: int) -> tuple[dict[str, int], bool]:
    """How often each value is there, by its text, and whether that is of all records."""
    if exact is not None and exact.values:
        return exact.values, True
    if numbers:
        which = np.isin(cells.kinds, (kinds.INTEGER, kinds.DOUBLE, kinds.TIMESTAMP))
        found = Counter(cells.numbers[which].tolist())
        whole = not np.any(cells.kinds == kinds.DOUBLE)
        return {_number_text(value, whole): count for value, count in found.items()}, False
    return Counter(text for text in cells.texts if text is not None), False


def _number_text(value: float, whole: bool) -> str:
    return str(int(value)) if whole and math.isfinite(value) else repr(value)


def _values(counted: dict[str, int]) -> dict[str, Any]:
    pairs = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    top = [{"value": value, "count": count} for value, count in pairs[:TOP]]
    return {"top": top, "others": sum(count for _, count in pairs[TOP:])}


def _numbers(numbers: Any, exact: Exact | None) -> dict[str, Any]:
    low, high = float(numbers.min()), float(numbers.max())
    zeros = int(np.count_nonzero(numbers == 0))
    histogram = _histogram(numbers)
    if exact is not None:
        low = low if exact.low is None else exact.low
        high = high if exact.high is None else exact.high
        zeros = exact.zeros
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(numbers.mean()), float(numbers.std())
    values = _rounded(np.quantile(numbers, QUANTILES))
    return {
        "min": low,
        "max": high,
        "mean": _finite(mean),
        "std": _finite(std),
        "zeros": zeros,
        "quantiles": [list(pair) for pair in zip(QUANTILES, values, strict=True)],
        "histogram": histogram,
    }


def _histogram(numbers: Any) -> dict[str, Any]:
    """Counts between even edges; where few values are far out, the outer bars reach to them."""
    low, near, far, high = np.quantile(numbers, (0, 0.01, 0.99, 1)).tolist()
    whole = bool((numbers == np.floor(numbers)).all())
    if whole and high - low < BARS:
        edges = np.arange(low - 0.5, high + 1)
    elif high - low <= 4 * (far - near):
        edges = _even(low, high, 30)
    else:
        inner = _even(near, far, 30)
        edges = np.unique(np.concatenate(([low], inner, [high])))
    counts, _ = np.histogram(numbers, edges)
    return {"edges": _rounded(edges), "counts": counts.tolist()}


def _even(low: float, high: float, bars: int) -> Any:
    if not low < high:
        return np.array([low - 0.5, low + 0.5]) if abs(low) < 1e15 else _around(low)
    edges = np.linspace(low / 2, high / 2, bars + 1) * 2  # their difference may be no number
    edges[0], edges[-1] = low, high
    return np.unique(edges)


def _around(value: float) -> Any:
    return np.array([np.nextafter(value, -math.inf), np.nextafter(value, math.inf)])


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _rounded(numbers: Any) -> list[float | None]:
    return [_finite(float(f"{number:.12g}")) for number in np.asarray(numbers).tolist()]
