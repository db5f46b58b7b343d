"""Where the time went: throughput, stages, batches, and which worker had which split when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from modelbeam.report.page import plots
from modelbeam.report.page.columns import left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import Child, Html, joined, shown, table, tag
from modelbeam.report.page.values import (
    as_dict,
    as_text,
    dicts,
    median,
    number,
    pairs,
    said,
    seconds,
    share,
    whole,
)

STAGES = ("read", "decode", "validate", "predict", "encode", "write", "waiting")
STRAGGLER = 2.5
"""How many times as long as half of all splits a straggler takes."""
UNUSUAL = 2.0
"""How many times as many failed records as on average a split has that is marked."""
_ROWS = 64
"""Workers whose timelines are drawn."""


def timing(run: dict[str, Any], profile: dict[str, Any], limits: Limits) -> Html | None:
    """The section of where the time went."""
    time = as_dict(profile.get("time"))
    made = [_throughput(time), _stages(time), _batches(time), _timeline(time, limits)]
    if not any(made):
        return None
    return joined(_overview(run, time), tag("div", made[:3], class_="halves"), made[3])


def _overview(run: dict[str, Any], time: dict[str, Any]) -> Html:
    wall = number(time.get("wall"))
    facts = [
        ("wall clock", seconds(wall if wall is not None else run.get("seconds"))),
        ("to the first batch", seconds(time.get("start_up"))),
        ("workers", said(time.get("workers"))),
    ]
    return tag(
        "p",
        (tag("span", tag("span", name, class_="soft"), f" {value}") for name, value in facts),
        class_="facts",
    )


def _throughput(time: dict[str, Any]) -> Html | None:
    points = pairs(time.get("throughput"))[:400]
    if len(points) < 2:
        return None
    step = max(points[1][0] - points[0][0], 1e-9)
    rates = [(at, count / step) for at, count in points]
    top = max(rate for _, rate in rates)
    ends = (rates[0][0], rates[-1][0])
    label = f"Records a second over time, at most {said(round(top))}"
    return tag(
        "figure",
        tag("h3", "Throughput"),
        tag("p", f"{said(round(top))} records/s at most", class_="soft top"),
        plots.line(label, [("area", rates)], ends, top),
        tag("figcaption", tag("span", seconds(ends[0])), tag("span", seconds(ends[1])),
            class_="axis"),
        class_="wide",
    )  # fmt: skip


def _stages(time: dict[str, Any]) -> Html | None:
    stages = as_dict(time.get("stages"))
    parts = [(name, float(number(stages.get(name)) or 0)) for name in STAGES]
    total = sum(part for _, part in parts if part > 0)
    if total <= 0:
        return None
    rows: list[list[Child]] = [
        [joined(tag("i", "", class_=f"key {name}"), " ", name), seconds(part), share(part, total)]
        for name, part in parts
        if part > 0
    ]
    most = max(parts, key=lambda one: one[1])
    return tag(
        "div",
        tag("h3", "Stages"),
        tag("p", f"summed over workers; most of it in {most[0]}: {share(most[1], total)}",
            class_="soft"),
        plots.stacked("Time by stage", parts),
        table(["Stage", "Time", "Share"], rows, "Time by stage", "narrow", ["", "n", "n"]),
    )  # fmt: skip


def _batches(time: dict[str, Any]) -> Html | None:
    batches = as_dict(time.get("batches"))
    if not batches:
        return None
    size, took = as_dict(batches.get("size")), as_dict(batches.get("seconds"))
    keys = [key for key in ("p5", "p50", "p95", "p99", "max") if key in size or key in took]
    rows: list[list[Child]] = [
        [key if key != "max" else "largest", said(size.get(key)), seconds(took.get(key))]
        for key in keys
    ]
    return tag(
        "div",
        tag("h3", "Batches"),
        tag("p", f"{whole(batches.get('count')):,} calls of the model", class_="soft"),
        table(["", "Records", "Time"], rows, "Batches", "narrow", ["", "n", "n"]),
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    split: str
    worker: str
    start: float
    end: float
    failed: int
    read: int

    @property
    def took(self) -> float:
        return self.end - self.start


def _pieces(time: dict[str, Any], limits: Limits) -> list[_Piece]:
    found = []
    for one in dicts(time.get("splits"))[: limits.splits]:
        start, end = number(one.get("start")), number(one.get("end"))
        if start is not None and end is not None and end >= start:
            found.append(
                _Piece(
                    as_text(one.get("split")), as_text(one.get("worker")), float(start),
                    float(end), whole(one.get("failed")), whole(one.get("read")),
                )
            )  # fmt: skip
    return found


def _in_order(worker: tuple[str, list[_Piece]]) -> list[tuple[int, str]]:
    """Workers by their names, in which numbers count as such: 2 before 10."""
    found: list[str] = re.findall(r"\d+|\D+", worker[0])
    return [(len(one) if one.isdigit() else 0, one) for one in found]


def _timeline(time: dict[str, Any], limits: Limits) -> Html | None:
    pieces = _pieces(time, limits)
    if not pieces:
        return None
    middle = median([one.took for one in pieces])
    slow = sorted((one for one in pieces if len(pieces) > 3 and one.took > STRAGGLER * middle),
                  key=lambda one: -one.took)  # fmt: skip
    late = set(slow)
    ends = (0.0, max(one.end for one in pieces))
    workers: dict[str, list[_Piece]] = {}
    for one in pieces:
        workers.setdefault(one.worker, []).append(one)

    usual = sum(one.failed for one in pieces) / max(1, sum(one.read for one in pieces))

    def kind(one: _Piece) -> str:
        if one in late:
            return "straggler"
        return "failed" if one.failed > UNUSUAL * usual * one.read else "split"

    rows: list[list[Child]] = [
        [
            shown(name, 40),
            plots.timeline(
                f"{len(own)} splits of {name[:40]}",
                [(kind(one), one.start, one.end) for one in own],
                ends,
            ),
            f"{len(own):,}",
            share(sum(one.took for one in own), ends[1]),
        ]
        for name, own in sorted(workers.items(), key=_in_order)[:_ROWS]
    ]
    listed = [
        tag("li", "split ", shown(one.split, 20), " of ", shown(one.worker, 40),
            f": {seconds(one.took)}, {one.took / middle if middle else 0:.1f} times the middle one;"
            f" {one.read:,} records")
        for one in slow[:5]
    ]  # fmt: skip
    more = len(dicts(time.get("splits"))) - len(pieces) + whole(time.get("splits_left_out"))
    return tag(
        "div",
        tag("h3", "Splits by worker"),
        tag(
            "p",
            tag("i", "", class_="key split"), f" a split (half of them take up to "
            f"{seconds(middle)}) ", tag("i", "", class_="key failed"),
            f" over {UNUSUAL:g} times as many failed records as on average ",
            tag("i", "", class_="key straggler"), f" straggler: over {STRAGGLER} times as long",
            class_="soft",
        ),
        table(["Worker", f"0 to {seconds(ends[1])}", "Splits", "Busy"], rows,
              "Splits by worker", "lanes", ["", "wide", "n", "n"]),
        left_out(len(workers) - len(rows), "worker"),
        tag("ul", listed, class_="stragglers") if listed else None,
        left_out(more, "split"),
    )  # fmt: skip
