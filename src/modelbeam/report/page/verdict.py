"""The first thing that is read: whether it worked, whether it adds up, and what is different."""

from __future__ import annotations

import heapq
from typing import Any

from modelbeam import text
from modelbeam.report.page import plots
from modelbeam.report.page.columns import Drift, badge, left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import NOTHING, Child, Html, joined, shown, table, tag
from modelbeam.report.page.values import (
    as_dict,
    as_list,
    as_text,
    dicts,
    moment,
    number,
    said,
    seconds,
    share,
    whole,
)

CHANGES = 3
"""How many changes are named at the top."""


def verdict(run: dict[str, Any], profile: dict[str, Any], drift: Drift, limits: Limits) -> Html:
    """The head of the page."""
    counts = as_dict(run.get("counts"))
    kind, sentence = status(run)
    return tag(
        "header",
        _about(run, limits),
        tag("h1", tag("span", "", class_=f"dot {kind}", aria_hidden="true"), sentence),
        _equation(run, counts),
        _models(counts, limits),
        _earlier(counts, as_dict(profile.get("baseline"))),
        _changes(as_dict(profile.get("baseline")), drift, limits) if drift.known else None,
        _reasons(run, profile),
        _remarks(run, limits),
    )


def status(run: dict[str, Any]) -> tuple[str, str]:
    """How it went: ``good``, ``warn`` or ``bad``, and a sentence."""
    counts = as_dict(run.get("counts"))
    read, failed = whole(counts.get("read")), whole(counts.get("failed"))
    said_status = as_text(run.get("status"))
    if said_status == "succeeded":
        if not adds_up(counts):
            return "bad", "Finished, but the counts do not add up"
        worst = _worst_model(counts)
        if not failed and worst is not None:
            name, number_of = worst
            what = f"{number_of:,} of {text.count(read, 'record')}"
            return "warn", f"Succeeded; {what} failed in the model {name[:60]}"
        if not failed:
            return "good", f"All {read:,} records were predicted" if read > 1 else "Succeeded"
        return "warn", f"Succeeded; {failed:,} of {text.count(read, 'record')} failed"
    if said_status == "failed":
        if read and failed == read:
            return "bad", f"Failed: not one of {text.count(read, 'record')} could be predicted"
        return "bad", "Failed" if read else "Failed: no record was found in the input"
    if said_status == "running":
        return "warn", f"Running; {text.count(read, 'record')} so far"
    return "bad", "Did not finish"


def _worst_model(counts: dict[str, Any]) -> tuple[str, int] | None:
    """Of several models the one for which most records failed, and how many; if any did."""
    failed = [
        (name, whole(as_dict(tally).get("failed")))
        for name, tally in as_dict(counts.get("models")).items()
    ]
    worst = max(failed, key=lambda one: one[1], default=None)
    return worst if worst is not None and worst[1] else None


def adds_up(counts: dict[str, Any]) -> bool:
    """Whether records read are those predicted and those failed; also for each model."""
    tallies = [counts, *(as_dict(one) for one in as_dict(counts.get("models")).values())]
    return all(
        whole(one.get("read")) == whole(one.get("predicted")) + whole(one.get("failed"))
        for one in tallies
    )


def _about(run: dict[str, Any], limits: Limits) -> Html:
    models = dicts(run.get("models")) or dicts([run.get("model")])
    names = [as_text(one.get("name")) or as_text(one.get("target")) for one in models]
    listed: list[Child] = []
    for name in names[: limits.models]:
        listed += [", " if listed else "", tag("b", shown(name, 60))]
    listed.append(left_out(len(names) - limits.models, "model"))
    finished = moment(run.get("finished"))
    return tag(
        "div",
        tag("span", "modelbeam", class_="brand"), " ", listed or "a run", " → ",
        tag("bdi", as_text(run.get("output"))[-200:] or NOTHING),
        f" · {finished}" if finished != NOTHING else None,
        class_="about soft",
    )  # fmt: skip


def _equation(run: dict[str, Any], counts: dict[str, Any]) -> Html:
    read, predicted, failed = (whole(counts.get(k)) for k in ("read", "predicted", "failed"))
    true = adds_up(counts)

    def term(value: str, name: str, kind: str = "") -> Html:
        return tag("div", tag("b", value), tag("span", name), class_=f"term {kind}".strip())

    rate = number(run.get("records_per_second"))
    took = number(run.get("seconds"))
    return joined(
        tag(
            "div",
            term(f"{read:,}", "read"),
            tag("span", "=" if true else "≠", class_="sign"),
            term(f"{predicted:,}", "predicted"),
            tag("span", "+", class_="sign"),
            term(
                f"{failed:,}",
                f"failed, {share(failed, read)}" if failed else "failed",
                "bad" if failed else "",
            ),
            tag("span", "", class_="gap"),
            term(seconds(took), "in all") if took is not None else None,
            term(said(rate), "records/s") if rate is not None else None,
            class_="equation",
        ),
        plots.stacked(
            f"{share(predicted, read)} predicted, {share(failed, read)} failed",
            [("bars", predicted), ("failed", failed)],
            "bar",
        )
        if read
        else None,
        None
        if true
        else tag("p", "The counts do not add up: records are missing or counted twice. "
                 "This is a defect of modelbeam.", class_="bad"),
    )  # fmt: skip


def _models(counts: dict[str, Any], limits: Limits) -> Html | None:
    models = as_dict(counts.get("models"))
    if not models:
        return None
    rows: list[list[Child]] = [
        [
            shown(name, 60),
            *(f"{whole(as_dict(tally).get(key)):,}" for key in ("read", "predicted", "failed")),
        ]
        for name, tally in list(models.items())[: limits.rows]
    ]
    heads = ["Model", "Read", "Predicted", "Failed"]
    return joined(
        table(heads, rows, "Counts of each model", "narrow small", ["", "n", "n", "n"]),
        left_out(len(models) - len(rows), "model"),
    )


def _earlier(counts: dict[str, Any], baseline: dict[str, Any]) -> Html | None:
    """This run's counts beside those of the run that it is compared with."""
    before = as_dict(as_dict(baseline.get("run")).get("counts"))
    if not before:
        return None
    rows: list[list[Child]] = []
    for key in ("read", "predicted", "failed"):
        now, then = whole(counts.get(key)), whole(before.get(key))
        gap = f"{now - then:+,}" if now != then else "the same"
        rows.append([key, f"{now:,}", f"{then:,}", gap])
    rate = as_dict(baseline.get("failure_rate"))
    now_rate, then_rate = number(rate.get("is")), number(rate.get("was"))
    if now_rate is not None and then_rate is not None:
        rows.append(["failure rate", share(now_rate, 1), share(then_rate, 1),
                     f"{100 * (now_rate - then_rate):+.2f} points"])  # fmt: skip
    when = moment(as_dict(baseline.get("run")).get("finished"))
    return tag(
        "section",
        tag("h2", "The last run"),
        tag("p", tag("bdi", as_text(baseline.get("path"))[-200:]), f" · {when}", class_="soft"),
        table(["Records", "This run", "Last run", "Change"], rows, "This run and the last one",
              "narrow small", ["", "n", "n", "n"]),
        aria_label="The last run",
    )  # fmt: skip


def _changes(baseline: dict[str, Any], drift: Drift, limits: Limits) -> Html:
    changed = drift.by_size()
    schema = dicts(baseline.get("schema"))
    listed = [
        tag("li", tag("b", shown(as_text(one.get("name")), 80)), " ",
            tag("span", "of the inputs" if one.get("where") == "inputs" else
                joined("predicted by ", shown(as_text(one.get("where")), 60)), class_="soft"),
            " ", badge(one))
        for one in changed[:CHANGES]
    ]  # fmt: skip
    kinds = [
        tag("li", tag("b", shown(as_text(one.get("name")), 80)), " ",
            _schema_change(as_text(one.get("was")), as_text(one.get("is"))))
        for one in schema[: limits.rows]
    ]  # fmt: skip
    return tag(
        "section",
        tag("h2", "The largest changes"),
        tag("ol", listed) if listed else tag("p", "No column changed much.", class_="soft"),
        left_out(len(changed) - CHANGES, "column", "that changed"),
        joined(tag("h3", "Columns of another type"), tag("ul", kinds)) if kinds else None,
        left_out(len(schema) - limits.rows, "column"),
        aria_label="The largest changes",
    )


def _reasons(run: dict[str, Any], profile: dict[str, Any]) -> Html | None:
    """Why most of the failed records failed."""
    kinds = dicts(profile.get("failures")) or dicts(run.get("failures"))
    if not kinds:
        return None
    most = heapq.nlargest(CHANGES, kinds, key=lambda one: whole(one.get("count")))
    listed = [
        tag(
            "li",
            tag("b", f"{whole(one.get('count')):,}"),
            " ",
            shown(as_text(one.get("type")), 60),
            ": ",
            shown(as_text(one.get("message")), 120),
        )
        for one in most
    ]
    return tag(
        "section",
        tag("h2", "Why records failed"),
        tag("ul", listed),
        tag("p", tag("a", "All failures", href="#failures")) if len(kinds) > len(most) else None,
        aria_label="Why records failed",
    )


def _schema_change(was: str, now: str) -> Html:
    if not was:
        return joined("is new: ", shown(now, 60))
    if not now:
        return joined("is gone: it was ", shown(was, 60))
    return joined("was ", shown(was, 60), ", is ", shown(now, 60))


def _remarks(run: dict[str, Any], limits: Limits) -> Html | None:
    """Notes, records that failed only once, processes that died."""
    notes, unread = as_list(run.get("notes")), as_list(run.get("unread"))
    crashes = dicts(run.get("crashes"))
    remarks = [shown(as_text(one), 600) for one in notes[: limits.rows]]
    if recovered := whole(run.get("recovered")):
        remarks.append(joined(f"{text.count(recovered, 'record')} failed once and not when tried "
                              f"again, alone: the model is not deterministic"))  # fmt: skip
    for crash in crashes[: limits.rows]:
        where = ", ".join(map(as_text, as_list(crash.get("places"))[:5]))
        over = whole(crash.get("records"))
        remarks.append(joined(
            "the model's process ", shown(as_text(crash.get("ending")), 120), " in ",
            shown(where, 200),
            f": over {text.count(over, 'record')}, now failed" if over else ": over no record",
        ))  # fmt: skip
    remarks += [joined("not read: ", shown(as_text(one), 600)) for one in unread[: limits.rows]]
    if not remarks:
        return None
    return tag(
        "section",
        tag("h2", "Remarks"),
        tag("ul", (tag("li", one) for one in remarks)),
        left_out(
            len(notes) + len(crashes) + len(unread) + bool(recovered) - len(remarks), "remark"
        ),
        aria_label="Remarks",
    )
