"""Two models over the same records: where they agree, and where they differ most."""

from __future__ import annotations

from typing import Any

from modelbeam.report.page import plots
from modelbeam.report.page.columns import left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import (
    NOTHING,
    Child,
    Html,
    block,
    joined,
    shown,
    table,
    tag,
    unfolding,
)
from modelbeam.report.page.values import (
    as_dict,
    as_json,
    as_list,
    as_text,
    dicts,
    number,
    said,
    share,
    whole,
)

_CLASSES = 30


def comparison(run: dict[str, Any], limits: Limits) -> Html | None:
    """The section of a comparison."""
    found = as_dict(run.get("comparison"))
    if not found:
        return None
    names = [as_text(one) for one in as_list(found.get("models"))[:2]]
    one, other = [*names, "first", "second"][:2] if len(names) < 2 else names
    agreement = number(found.get("agreement"))
    compared = whole(found.get("compared"))
    columns = as_dict(found.get("columns"))
    cards = [
        _column(name, as_dict(column), one, other)
        for name, column in list(columns.items())[: limits.plots]
    ]
    only = [
        tag("p", "predicted by ", shown(name), " only: ",
            shown(", ".join(map(as_text, as_list(which))), 400))
        for name, which in as_dict(found.get("columns_of_one_only")).items()
    ]  # fmt: skip
    return joined(
        tag("p", tag("b", _percent(agreement), class_="large"), f" of {compared:,} records that ",
            shown(one), " and ", shown(other), " both predicted are equal in every column",
            f"; {whole(found.get('predicted_by_one_only')):,} were predicted by one only."),
        plots.stacked("Agreement", [("bars", agreement or 0), ("failed", 1 - (agreement or 0))],
                      "bar"),
        tag("div", cards, class_="cards broad"),
        left_out(len(columns) - len(cards), "column"),
        only[:limits.rows],
        _label(as_dict(found.get("label")), (one, other)),
        _largest(found, one, other, limits),
    )  # fmt: skip


def _percent(part: float | None) -> str:
    return NOTHING if part is None else share(float(part), 1)


def _column(name: str, column: dict[str, Any], one: str, other: str) -> Html:
    return tag(
        "article",
        tag("h3", shown(name), " ", tag("span", _percent(number(column.get("agreement"))),
                                        " equal", class_="soft")),
        _confusion(dicts(column.get("confusion")), one, other),
        _differences(as_dict(column.get("differences")), one, other),
        class_="card",
    )  # fmt: skip


def _confusion(found: list[dict[str, Any]], one: str, other: str) -> Html | None:
    if not found:
        return None
    counts = {
        (as_text(pair.get("first")), as_text(pair.get("second"))): whole(pair.get("count"))
        for pair in found[: _CLASSES * _CLASSES]
    }
    names = sorted({name for pair in counts for name in pair})[:_CLASSES]
    wrong = max([n for (row, column), n in counts.items() if row != column] + [1])

    def cell(row: str, column: str) -> Html:
        count = counts.get((row, column), 0)
        kind = "same" if row == column else f"heat{-(-4 * count // wrong)}" if count else "none"
        return tag("td", f"{count:,}", class_=f"n {kind}")

    head = tag(
        "tr",
        tag("td", shown(one, 30), " ↓ ", shown(other, 30), " →", class_="soft"),
        [tag("th", shown(column, 40), scope="col") for column in names],
    )
    body = [
        tag("tr", tag("th", shown(row, 40), scope="row"), [cell(row, column) for column in names])
        for row in names
    ]
    return tag(
        "div",
        tag("table", tag("caption", "Confusion table", class_="hide"), tag("thead", head),
            tag("tbody", body), class_="confusion"),
        class_="scroll", tabindex=0, role="region", aria_label="Confusion table",
    )  # fmt: skip


def _differences(found: dict[str, Any], one: str, other: str) -> Html | None:
    if not found:
        return None
    known = [
        (key, value)
        for key, value in (
            (_key(key), number(value)) for key, value in as_dict(found.get("quantiles")).items()
        )
        if key is not None and value is not None
    ][:9]
    ends = [float(value) for _, value in known]
    facts = [
        ("mean", said(found.get("mean"))),
        ("mean absolute", said(found.get("mean_absolute"))),
        ("root mean square", said(found.get("root_mean_square"))),
        ("largest", said(found.get("largest"))),
        *([("NaN or infinite", said(found.get("infinite")))] * bool(whole(found.get("infinite")))),
    ]
    picture = None
    if len(ends) > 1 and max(ends) > min(ends):
        picture = tag(
            "figure",
            plots.spread("Differences", [[key, value] for key, value in known],
                         min(ends), max(ends)),
            tag("figcaption", tag("span", said(min(ends))), tag("span", said(max(ends))),
                class_="axis"),
        )  # fmt: skip
    return joined(
        tag("p", shown(other), " - ", shown(one), class_="soft"),
        picture,
        tag("p", (tag("span", tag("span", f"p{100 * key:g}", class_="soft"), f" {said(value)}")
                  for key, value in known), class_="facts"),
        tag("p", (tag("span", tag("span", name, class_="soft"), f" {value}")
                  for name, value in facts), class_="facts"),
    )  # fmt: skip


def _key(key: object) -> float | None:
    try:
        found = float(str(key))
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None


def _label(found: dict[str, Any], names: tuple[str, str]) -> Html | None:
    if not found:
        return None
    rows: list[list[Child]] = []
    for name in names:
        quality = as_dict(found.get(name))
        rows.append([
            shown(name), _percent(number(quality.get("accuracy"))),
            said(quality.get("mean_absolute")), said(quality.get("root_mean_square")),
            f"{whole(quality.get('labelled')):,}",
        ])  # fmt: skip
    heads = ["Model", "Accuracy", "Mean absolute error", "Root mean square error", "Records"]
    told = [at for at in range(len(heads)) if any(row[at] != NOTHING for row in rows)]
    rows = [[row[at] for at in told] for row in rows]
    return joined(
        tag("h3", "Against ", shown(as_text(found.get("column")))),
        table(
            [heads[at] for at in told],
            rows,
            "Against the label",
            "narrow small",
            ["", "n", "n", "n", "n"],
        ),
    )


def _largest(found: dict[str, Any], one: str, other: str, limits: Limits) -> Html | None:
    lines = dicts(found.get("largest"))
    if not lines:
        return None
    rows: list[list[Child]] = [
        [
            said(line.get("difference")) if line.get("difference") is not None else "infinite",
            tag("code", shown(as_json(line.get(one)), 200)),
            tag("code", shown(as_json(line.get(other)), 200)),
            unfolding(tag("code", shown(as_json(line.get("record")), 60)),
                      block(as_json(line.get("record"), 2), limits.record)),
        ]
        for line in lines[: limits.rows]
    ]  # fmt: skip
    return joined(
        tag("h3", "The largest differences"),
        table(["Difference", "First", "Second", "Record"], rows,
              "The largest differences", "odd", ["n", "", "", ""]),
        tag("p", "First is ", shown(one), ", second ", shown(other), ". All that were kept are in ",
            tag("code", shown(as_text(found.get("output")), 300)), ".", class_="soft"),
    )  # fmt: skip
