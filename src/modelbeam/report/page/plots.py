"""Small SVG: shapes only. What is written beside them is HTML, so that it wraps, prints and reads.

Every shape fills its box, whose size the style sheet gives; numbers are whole, to be short.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from modelbeam.report.page.markup import Html, tag
from modelbeam.report.page.values import as_dict, as_list, bounded, number, pairs

WIDE = 1000
"""Units from left to right."""
HIGH = 100
"""Units from top to bottom."""


def _picture(label: str, class_: str, *shapes: Html) -> Html:
    return tag(
        "svg",
        shapes,
        viewBox=f"0 0 {WIDE} {HIGH}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
        class_=class_,
    )


def _path(steps: str, class_: str) -> Html:
    return Html(f'<path class="{class_}" d="{steps}"/>') if steps else Html("")


def at(value: float, least: float, most: float, size: int = WIDE) -> int:
    """Where a value stands between two others."""
    return round(size * bounded((value - least) / (most - least))) if most > least else 0


class Bins:
    """A histogram that can be drawn.

    Attributes:
        edges: one more than there are counts, rising.
        heights: how many a unit of width, so that bins of any widths compare.
    """

    def __init__(self, histogram: object) -> None:
        content = as_dict(histogram)
        edges = [number(one) for one in as_list(content.get("edges"))]
        counts = [number(one) for one in as_list(content.get("counts"))]
        self.edges: list[float] = []
        self.heights: list[float] = []
        if len(edges) != len(counts) + 1 or None in edges or None in counts or len(edges) > 200:
            return
        known = [float(one) for one in edges if one is not None]
        total = sum(float(one) for one in counts if one is not None) or 1.0
        if len(known) == 2 and known[0] == known[1]:  # one value only
            known = [known[0] - 0.5, known[0] + 0.5]
        if any(right <= left for left, right in pairwise(known)):
            return
        self.edges = known
        self.heights = [
            float(count or 0) / total / (right - left)
            for count, (left, right) in zip(counts, pairwise(known), strict=True)
        ]

    def __bool__(self) -> bool:
        return bool(self.heights)


def histogram(label: str, now: Bins, was: Bins | None, class_: str = "plot") -> Html:
    """Bars, and the outline of those of an earlier run over them."""
    was = was if was else None
    ends = [now.edges[0], now.edges[-1], *([was.edges[0], was.edges[-1]] if was else [])]
    least, most = min(ends), max(ends)
    top = max([*now.heights, *(was.heights if was else [])]) or 1.0
    bars = []
    for (left, right), height in zip(pairwise(now.edges), now.heights, strict=True):
        if height <= 0:
            continue
        x, end = at(left, least, most), at(right, least, most)
        tall = max(2, round(HIGH * height / top))
        wide = max(2, end - x - 2)
        bars.append(f"M{x} {HIGH}v-{tall}h{wide}v{tall}z")
    outline = ""
    if was:
        outline = f"M{at(was.edges[0], least, most)} {HIGH}"
        for right, height in zip(was.edges[1:], was.heights, strict=True):
            outline += f"V{HIGH - round(HIGH * height / top)}H{at(right, least, most)}"
        outline += f"V{HIGH}"
    return _picture(label, class_, _path("".join(bars), "bars"), _path(outline, "was"))


def spread(label: str, quantiles: object, least: float, most: float) -> Html | None:
    """A line from the 5th to the 95th percentile, thick from the 25th to the 75th."""
    known = dict(pairs(quantiles))
    ends = [known.get(key) for key in (0.05, 0.25, 0.5, 0.75, 0.95)]
    if None in ends or most <= least:
        return None
    low, quarter, half, three, high = [at(one, least, most) for one in ends if one is not None]
    return _picture(
        label,
        "spread",
        _path(f"M{low} 42H{max(high, low + 2)}v16H{low}z", "thin"),
        _path(f"M{quarter} 20H{max(three, quarter + 4)}v60H{quarter}z", "thick"),
        _path(f"M{half - 4} 0h8v100h-8z", "middle"),
    )


def bar(label: str, part: float, of: float, class_: str = "bars") -> Html:
    """A bar for a share."""
    wide = max(at(part, 0, of), 3 if part > 0 else 0)
    return _picture(label, "bar", _path(f"M0 0h{WIDE}v{HIGH}h-{WIDE}z", "empty"),
                    _path(f"M0 0h{wide}v{HIGH}h-{wide}z" if wide else "", class_))  # fmt: skip


def stacked(label: str, parts: Sequence[tuple[str, float]], class_: str = "stack") -> Html:
    """Parts of a whole side by side, each with its class; none that is there disappears."""
    total = sum(part for _, part in parts) or 1.0
    shapes, x = [], 0.0
    for kind, part in parts:
        if part <= 0:
            continue
        wide = WIDE * part / total
        start, end = round(min(x, WIDE - 6)), round(min(WIDE, max(x + wide, x + 6)))
        shapes.append(_path(f"M{start} 0H{end}V{HIGH}H{start}z", kind))
        x += wide
    return _picture(label, class_, *shapes)


def strip(label: str, counts: Sequence[float]) -> Html:
    """Where along the input something is: a small bar for each part of it."""
    top, wide = max(counts, default=0) or 1, WIDE / max(1, len(counts))
    steps = [
        f"M{round(i * wide)} {HIGH}v-{max(12, round(HIGH * one / top))}"
        f"h{max(2, round(wide) - 3)}V{HIGH}z"
        for i, one in enumerate(counts)
        if one > 0
    ]
    ground = _path(f"M0 {HIGH - 3}h{WIDE}v3h-{WIDE}z", "empty")
    return _picture(label, "strip", ground, _path("".join(steps), "failed"))


def line(
    label: str,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    ends: tuple[float, float],
    top: float,
) -> Html:
    """Lines over time; one whose class is ``area`` is filled below."""
    shapes = [
        _path("".join(f"M0 {y}H{WIDE}" for y in (1, HIGH // 2, HIGH - 1)), "grid"),
    ]
    for kind, points in lines:
        places = [(at(x, *ends), HIGH - at(y, 0, top or 1.0, HIGH)) for x, y in points]
        if not places:
            continue
        steps = "M" + "L".join(f"{x} {y}" for x, y in places)
        if kind == "area":
            shapes.append(_path(f"{steps}V{HIGH}H{places[0][0]}z", "area"))
        shapes.append(_path(steps, kind if kind != "area" else "line"))
    return _picture(label, "chart", *shapes)


def timeline(
    label: str, parts: Sequence[tuple[str, float, float]], ends: tuple[float, float]
) -> Html:
    """What a worker did when: a box for each piece of work, of a class."""
    steps: dict[str, list[str]] = {}
    for kind, start, end in parts:
        x = at(start, *ends)
        wide = max(2, at(end, *ends) - x - 1)
        steps.setdefault(kind, []).append(f"M{x} 0h{wide}v{HIGH}h-{wide}z")
    return _picture(label, "lane", *(_path("".join(d), kind) for kind, d in steps.items()))
