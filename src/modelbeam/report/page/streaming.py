"""A run that goes on as data arrives: rates, lag, latency and failures over time."""

from __future__ import annotations

from typing import Any

from modelbeam import text
from modelbeam.report.page import plots
from modelbeam.report.page.columns import left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import NOTHING, Child, Html, joined, shown, table, tag
from modelbeam.report.page.values import (
    as_dict,
    as_list,
    as_text,
    dicts,
    number,
    said,
    seconds,
    whole,
)

_POINTS = 400


def streaming(run: dict[str, Any], profile: dict[str, Any], limits: Limits) -> Html | None:
    """The section of a run that goes on."""
    stream = as_dict(profile.get("stream"))
    latency = as_dict(run.get("latency_ms"))
    if not stream and not latency and run.get("lanes") is None:
        return None
    points = dicts(stream.get("points"))[:_POINTS]
    told = [
        ("group", as_text(run.get("group"))),
        ("delivery", as_text(run.get("delivery"))),
        ("lanes", said(run.get("lanes"))),
        ("lag", said(run.get("lag"))),
        *((f"latency {key[:8]}", f"{said(ms)} ms") for key, ms in list(latency.items())[:5]),
        ("newer models while it ran", said(len(as_list(run.get("reloads"))) or None)),
    ]
    facts = [(name, shown(value, 80)) for name, value in told if value not in ("", NOTHING)]
    lost = as_list(run.get("lost"))
    charts = [
        _chart(points, "Records a second", [("read", "area")], rate=True),
        _chart(points, "Lag, in records", [("lag", "area")]),
        _chart(points, "Latency, in milliseconds", [("p50", "line"), ("p99", "second")]),
        _chart(points, "Failed a second", [("failed", "failed")], rate=True),
    ]
    return joined(
        tag("p", (tag("span", tag("span", name, class_="soft"), " ", value)
                  for name, value in facts), class_="facts"),
        tag("p", f"Lost before they were read: {text.count(len(lost), 'range')} of offsets, first ",
            shown(as_text(lost[0]), 200), class_="warn") if lost else None,
        tag("div", charts, class_="quarters"),
        _partitions(stream, limits),
    )  # fmt: skip


def _chart(
    points: list[dict[str, Any]], title: str, keys: list[tuple[str, str]], rate: bool = False
) -> Html | None:
    lines: list[tuple[str, list[tuple[float, float]]]] = []
    for key, kind in keys:
        known = [(number(one.get("t")), number(one.get(key))) for one in points]
        line = [
            (float(t), float(value)) for t, value in known if t is not None and value is not None
        ]
        if rate and len(line) > 1:
            step = max(line[1][0] - line[0][0], 1e-9)
            line = [(t, value / step) for t, value in line]
        if len(line) > 1:
            lines.append((kind, line))
    if not lines:
        return None
    ends = (min(line[0][0] for _, line in lines), max(line[-1][0] for _, line in lines))
    top = max(value for _, line in lines for _, value in line)
    names = [
        joined(tag("i", "", class_=f"key {kind}"), f" {key} ")
        for key, kind in keys
        if len(keys) > 1
    ]
    last = " and ".join(said(line[-1][1]) for _, line in lines)
    return tag(
        "figure",
        tag("h3", title),
        tag("p", names, f"at most {said(top)}, now {last}", class_="soft top"),
        plots.line(f"{title} over time, at most {said(top)}", lines, ends, top),
        tag("figcaption", tag("span", seconds(ends[0])), tag("span", seconds(ends[1])),
            class_="axis"),
    )  # fmt: skip


def _partitions(stream: dict[str, Any], limits: Limits) -> Html | None:
    found = dicts(stream.get("partitions"))
    if not found:
        return None
    found = sorted(found, key=lambda one: -whole(one.get("lag")))
    most = max([whole(one.get("lag")) for one in found] + [1])
    rows: list[list[Child]] = [
        [
            joined(shown(as_text(one.get("topic")), 80), f"[{as_text(one.get('partition'))[:12]}]"),
            plots.bar(f"lag {said(one.get('lag'))}", whole(one.get("lag")), most),
            said(one.get("lag")),
            said(one.get("position")),
            said(one.get("end")),
        ]
        for one in found[: limits.rows]
    ]
    heads = ["Partition", "", "Lag", "Position", "End"]
    return tag(
        "div",
        tag("h3", "Partitions, the greatest lag first"),
        table(heads, rows, "Partitions", "narrow half", ["", "wide", "n", "n", "n"]),
        left_out(len(found) - len(rows), "partition"),
    )
