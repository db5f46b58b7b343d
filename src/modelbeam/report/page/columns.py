"""What came out and what went in: a card for each predicted column, a row for each input."""

from __future__ import annotations

from typing import Any

from modelbeam import text
from modelbeam.report.page import plots
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import NOTHING, Child, Html, joined, shown, table, tag, unfolding
from modelbeam.report.page.values import (
    as_dict,
    as_text,
    dicts,
    number,
    pairs,
    said,
    share,
    whole,
)

_CHANGES = {"none": "as before", "some": "some change", "large": "large change"}


class Drift:
    """What became of each column since an earlier run."""

    def __init__(self, baseline: object) -> None:
        self.known = isinstance(baseline, dict)
        self._of: dict[tuple[str, str], dict[str, Any]] = {}
        for one in dicts(as_dict(baseline).get("columns")):
            self._of[as_text(one.get("where")), as_text(one.get("name"))] = one

    def of(self, where: str, column: dict[str, Any]) -> dict[str, Any]:
        """What is known of a column."""
        return self._of.get((where, as_text(column.get("name"))), {})

    def by_size(self) -> list[dict[str, Any]]:
        """Those that changed, the greatest change first."""
        changed = [one for one in self._of.values() if one.get("change") in ("some", "large")]
        return sorted(changed, key=lambda one: -float(number(one.get("psi")) or 0))


def psi_of(drift: dict[str, Any]) -> float:
    """How far a column drifted; less than nothing if that is not known."""
    found = number(drift.get("psi"))
    return -1.0 if found is None else float(found)


def badge(drift: dict[str, Any]) -> Html | None:
    """How far a column drifted, in a number and a word."""
    if not drift:
        return None
    change = as_text(drift.get("change"))
    kind = change if change in _CHANGES else "unknown"
    word = as_text(drift.get("note")) or _CHANGES.get(change, "not compared")
    psi = number(drift.get("psi"))
    js = number(drift.get("js"))
    value = f"PSI {psi:.3f}" if psi is not None else f"PSI {NOTHING}"
    title = f"Jensen-Shannon distance {js:.3f}" if js is not None else None
    return tag("span", tag("b", value, title=title), " ", shown(word, 60),
               class_=f"badge {kind}")  # fmt: skip


def predictions(profile: dict[str, Any], drift: Drift, limits: Limits) -> Html | None:
    """The section of what the models predicted."""
    models = dicts(profile.get("predictions"))
    if not any(dicts(one.get("columns")) for one in models):
        return None
    made: list[Child] = [_without(profile)]
    heading = "h4" if len(models) > 1 else "h3"
    for one in models[: limits.models]:
        name = as_text(one.get("model"))
        columns = dicts(one.get("columns"))
        if len(models) > 1:
            made.append(tag("h3", shown(name)))
        shown_columns = columns[: -(-limits.plots // min(len(models), limits.models))]
        made.append(
            tag(
                "div",
                [card(c, drift.of(name, c), limits, heading) for c in shown_columns],
                class_="cards",
            )
        )
        made.append(left_out(len(columns) - len(shown_columns), "predicted column"))
    made.append(left_out(len(models) - limits.models, "model"))
    return joined(*made)


def _without(profile: dict[str, Any]) -> Html | None:
    """How many splits the figures are not of."""
    count = whole(profile.get("splits_without"))
    if not count:
        return None
    return tag(
        "p",
        f"{text.count(count, 'split')} of an earlier version, or of a run with --no-report, "
        f"{'is' if count == 1 else 'are'} not in these figures.",
        class_="soft",
    )


def left_out(count: int, noun: str, which: str = "") -> Html | None:
    """How many of something the page does not show."""
    if count <= 0:
        return None
    what = text.count(count, noun).replace(" ", " more ", 1)
    return tag("p", f"{what}{which and ' '}{which} not shown.", class_="soft")


def card(
    column: dict[str, Any], drift: dict[str, Any], limits: Limits, heading: str = "h3"
) -> Html:
    """One column, large, under a heading of that level."""
    was = as_dict(drift.get("was"))
    return tag(
        "article",
        tag(heading, shown(as_text(column.get("name"))), " ",
            tag("span", shown(as_text(column.get("type")), 30), class_="soft type")),
        badge(drift),
        tag("p", "Its values are masked.", class_="soft") if column.get("masked") else None,
        _values(column, was, limits) or _numbers(column, was) or _lengths(column),
        facts(column),
        class_="card",
    )  # fmt: skip


def _numbers(column: dict[str, Any], was: dict[str, Any]) -> Html | None:
    found = as_dict(column.get("numbers"))
    bins = plots.Bins(found.get("histogram"))
    if not bins:
        return None
    before = plots.Bins(as_dict(was.get("numbers")).get("histogram"))
    ends = [*bins.edges, *before.edges]
    least, most = min(ends), max(ends)
    name = as_text(column.get("name"))[:80]
    return tag(
        "figure",
        plots.histogram(f"Histogram of {name} from {said(least)} to {said(most)}", bins, before),
        plots.spread(f"Quantiles of {name}", found.get("quantiles"), least, most),
        tag("figcaption", tag("span", said(least)), _legend(bool(before)),
            tag("span", said(most)), class_="axis"),
        _quantiles(found),
    )  # fmt: skip


def _legend(before: bool) -> Html | None:
    if not before:
        return None
    return tag("span", tag("i", "", class_="key bars"), " this run ",
               tag("i", "", class_="key was"), " baseline", class_="soft")  # fmt: skip


def _quantiles(found: dict[str, Any]) -> Html | None:
    known = pairs(found.get("quantiles"))
    if not known:
        return None
    return tag(
        "p",
        joined(
            *(
                tag("span", tag("span", f"p{round(100 * key):g}", class_="soft"), f" {said(value)}")
                for key, value in known[:9]
            )
        ),
        class_="facts",
    )


def _lengths(column: dict[str, Any]) -> Html | None:
    found = as_dict(column.get("lengths"))
    bins = plots.Bins(found.get("histogram"))
    if not bins:
        return None
    name = as_text(column.get("name"))[:80]
    ends = tag(
        "figcaption",
        tag("span", said(bins.edges[0])),
        tag("span", "length", class_="soft"),
        tag("span", said(bins.edges[-1])),
        class_="axis",
    )
    return tag("figure", plots.histogram(f"Lengths of {name}", bins, None), ends)


def _values(column: dict[str, Any], was: dict[str, Any], limits: Limits) -> Html | None:
    found = as_dict(column.get("values"))
    top = dicts(found.get("top"))
    if not top:
        return None
    before = {
        as_text(one.get("value")): whole(one.get("count"))
        for one in dicts(as_dict(was.get("values")).get("top"))
    }
    others = whole(found.get("others"))
    total = sum(whole(one.get("count")) for one in top) + others
    total_before = sum(before.values()) + whole(as_dict(was.get("values")).get("others"))
    shown_values = top[: limits.values]
    rest = others + sum(whole(one.get("count")) for one in top[limits.values :])
    most = max([whole(one.get("count")) for one in shown_values] + [1])
    rows: list[list[Child]] = []
    for one in shown_values:
        value, count = as_text(one.get("value")), whole(one.get("count"))
        row: list[Child] = [
            joined(
                shown(value, 60) if value else tag("i", "empty", class_="soft"),
                plots.bar(share(count, total), count, most),
            ),
            f"{count:,}",
            share(count, total),
        ]
        if before:
            row.append(share(before.get(value, 0), total_before))
        rows.append(row)
    if rest:
        row = [tag("i", "all others", class_="soft"), f"{rest:,}", share(rest, total)]
        rows.append([*row, *([NOTHING] if before else [])])
    heads = ["Value", "Count", "Share", *(["Baseline"] if before else [])]
    name = as_text(column.get("name"))[:80]
    return table(heads, rows, f"Most frequent values of {name}", "values narrow",
                 ["", "n", "n", "n"][: len(heads)])  # fmt: skip


def facts(column: dict[str, Any]) -> Html:
    """What is known of a column in a line."""
    count, missing = whole(column.get("count")), whole(column.get("missing"))
    invalid, found = whole(column.get("invalid")), as_dict(column.get("numbers"))
    known: list[tuple[str, str, str]] = [
        ("records", f"{whole(column.get('records')) or count:,}", "")
    ]
    if _is_sampled(column):
        known.append(("of which looked at", f"{whole(column.get('sampled')):,}", ""))
    if missing:
        known.append(("missing", f"{missing:,} ({share(missing, max(count, missing))})", "warn"))
    if invalid:
        known.append(("NaN or infinite", f"{invalid:,}", "warn"))
    if number(column.get("distinct")) is not None:
        known.append(("distinct", distinct(column), ""))
    if found:
        known += [("mean", said(found.get("mean")), ""), ("std", said(found.get("std")), "")]
        known += [("zeros", f"{whole(found.get('zeros')):,}", "")] * (whole(found.get("zeros")) > 0)
        known.append(("range", f"{said(found.get('min'))} to {said(found.get('max'))}", ""))
    return tag(
        "p",
        (
            tag("span", tag("span", name, class_="soft"), f" {value}", class_=kind or None)
            for name, value, kind in known
        ),
        class_="facts",
    )


def distinct(column: dict[str, Any]) -> str:
    """How many different values there are, and whether that was counted or estimated."""
    found = number(column.get("distinct"))
    if found is None:
        return NOTHING
    if column.get("distinct_exact"):
        return f"{whole(found):,}"
    return f"{'at least' if _is_sampled(column) else 'about'} {whole(found):,}"


def _is_sampled(column: dict[str, Any]) -> bool:
    """Whether the values of only some records are known."""
    return 0 < whole(column.get("sampled")) < whole(column.get("records"))


def inputs(profile: dict[str, Any], drift: Drift, limits: Limits) -> Html | None:
    """The section of what went in, the column that drifted most first."""
    columns = dicts(profile.get("inputs"))
    if not columns:
        return None
    columns = sorted(columns, key=lambda one: -psi_of(drift.of("inputs", one)))
    listed = columns[: limits.columns]
    heads = ["Column", "Distribution", "p5", "Median", "p95", "Mean", "Missing", "Distinct"]
    kinds = ["name", "wide", "n", "n", "n", "n", "n", "n"]
    if drift.known:
        heads, kinds = [*heads, "Drift"], [*kinds, "drift"]
    rows = []
    for at, one in enumerate(listed):
        change = drift.of("inputs", one)
        row = _row(one, change, limits, drawn=at < limits.plots)
        rows.append([*row, badge(change) or NOTHING] if drift.known else row)
    more = len(columns) - len(listed) + whole(profile.get("inputs_left_out"))
    return joined(
        table(heads, rows, "Input columns", "columns", kinds),
        left_out(more, "input column"),
        tag("p", "Drift is the population stability index (PSI) against the baseline; the column "
            "that drifted most is first. The outline is the baseline's distribution.",
            class_="soft note")
        if drift.known
        else None,
    )  # fmt: skip


def _row(column: dict[str, Any], drift: dict[str, Any], limits: Limits, drawn: bool) -> list[Child]:
    found = as_dict(column.get("numbers"))
    known = dict(pairs(found.get("quantiles")))
    count, missing = whole(column.get("count")), whole(column.get("missing"))
    invalid = whole(column.get("invalid"))
    lacking = tag("span", share(missing, max(count, missing)), class_="warn") if missing else "0"
    if invalid:
        lacking = joined(lacking, tag("span", f"{invalid:,} NaN or infinite", class_="warn below"))
    return [
        joined(
            shown(as_text(column.get("name"))), " ",
            tag("span", shown(as_text(column.get("type")), 30), class_="soft type"),
        ),
        tag("span", "masked", class_="soft")
        if column.get("masked")
        else _small(column, as_dict(drift.get("was")), limits)
        if drawn
        else NOTHING,
        said(known.get(0.05)), said(known.get(0.5)), said(known.get(0.95)),
        said(found.get("mean")),
        lacking,
        distinct(column),
    ]  # fmt: skip


def _small(column: dict[str, Any], was: dict[str, Any], limits: Limits) -> Child:
    """A column's distribution in a line of a table."""
    name = as_text(column.get("name"))[:80]
    bins = plots.Bins(as_dict(column.get("numbers")).get("histogram"))
    if bins:
        before = plots.Bins(as_dict(was.get("numbers")).get("histogram"))
        label = f"Histogram of {name} from {said(bins.edges[0])} to {said(bins.edges[-1])}"
        return plots.histogram(label, bins, before, "tiny")
    found = as_dict(column.get("values"))
    top = dicts(found.get("top"))
    if not top:
        lengths = plots.Bins(as_dict(column.get("lengths")).get("histogram"))
        return plots.histogram(f"Lengths of {name}", lengths, None, "tiny") if lengths else NOTHING
    counts = [whole(one.get("count")) for one in top]
    others = whole(found.get("others"))
    total = sum(counts) + others
    kinds = [(f"tone{min(at, 5)}", float(count)) for at, count in enumerate(counts[:6])]
    rest = float(sum(counts[6:]) + others)
    first = as_text(top[0].get("value"))
    detail = _values(column, was, limits)
    return joined(
        plots.stacked(f"Shares of the values of {name}", [*kinds, ("empty", rest)], "stack tiny"),
        unfolding(joined(shown(first, 30), f" {share(counts[0], total)}"), detail)
        if len(top) > 1
        else joined(shown(first, 40), f" {share(counts[0], total)}"),
    )
