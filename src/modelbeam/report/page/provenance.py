"""What ran, in a form that can be pasted into a ticket."""

from __future__ import annotations

from typing import Any

from modelbeam import text
from modelbeam.report.page.columns import left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import (
    NOTHING,
    Child,
    Html,
    block,
    cut,
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
    moment,
    number,
    said,
    seconds,
    whole,
)


def provenance(run: dict[str, Any], limits: Limits) -> Html:
    """The section of what ran."""
    return joined(
        tag(
            "div",
            tag("button", "Copy", type="button", class_="copier", hidden=True,
                data_copies="ticket"),
            tag("pre", _ticket(run, limits), id="ticket", dir="ltr", tabindex=0),
            class_="ticket",
        ),
        _schemas(run, limits),
        _inputs(run, limits),
    )  # fmt: skip


def _models(run: dict[str, Any]) -> list[dict[str, Any]]:
    return dicts(run.get("models")) or dicts([run.get("model")])


def _ticket(run: dict[str, Any], limits: Limits) -> str:
    """What ran as plain text."""
    counts, software = as_dict(run.get("counts")), as_dict(run.get("software"))
    lines = [("modelbeam", as_text(run.get("modelbeam"))), ("status", as_text(run.get("status")))]
    for one in _models(run)[: limits.models]:
        about = [as_text(one.get(key)) for key in ("target", "distribution", "fingerprint")]
        version = as_text(one.get("version"))
        name = as_text(one.get("name"))
        lines.append(("model", "  ".join(
            filter(None, [name, f"version {version}" if version else "", *about])
        )))  # fmt: skip
    request = as_dict(run.get("request"))
    patterns = as_list(request.get("inputs")) or [run.get("input")]
    inputs = _files(run)
    lines += [("input", as_text(one)) for one in patterns[: limits.rows] if one]
    if inputs:
        size = sum(whole(size) for _, size in inputs)
        lines.append(("files", f"{text.count(len(inputs), 'file')}, {text.size(size)}"))
    tally = "  ".join(f"{key} {said(counts.get(key))}" for key in ("read", "predicted", "failed"))
    lines += [
        ("output", as_text(run.get("output"))),
        ("records", tally if counts else ""),
        ("splits", _splits(run)),
        ("started", _known(moment(run.get("started")))),
        ("finished", _known(moment(run.get("finished")))),
        ("took", _took(run)),
        ("runner", "  ".join(filter(None, (as_text(run.get(k)) for k in ("runner", "workers"))))),
        (
            "software",
            "  ".join(f"{as_text(k)} {as_text(v)}" for k, v in list(software.items())[:40]),
        ),
    ]
    settings = as_dict(as_dict(run.get("job")).get("settings"))
    shown_lines = [f"{name:<10}{cut(value, 300)}" for name, value in lines if value]
    if request:
        shown_lines += ["", "# as a file for --config", cut(as_json(request, 2), limits.record * 2)]
    if settings:
        shown_lines += ["", "# what --resume compares"]
        shown_lines += [
            f"{as_text(key)[:80]}: {cut(as_json(value), 200)}"
            for key, value in list(settings.items())[: limits.rows]
        ]
    return "\n".join(shown_lines)


def _known(said_value: str) -> str:
    return "" if said_value == NOTHING else said_value


def _took(run: dict[str, Any]) -> str:
    took, rate = number(run.get("seconds")), number(run.get("records_per_second"))
    if took is None:
        return ""
    return seconds(took) + (f"  {said(rate)} records/s" if rate is not None else "")


def _splits(run: dict[str, Any]) -> str:
    count, resumed = number(run.get("splits")), whole(run.get("splits_resumed"))
    if count is None:
        return ""
    return said(count) + (f", {resumed:,} of them done by an earlier run" if resumed else "")


def _files(run: dict[str, Any]) -> list[tuple[str, object]]:
    """The input files with their sizes."""
    inputs = as_list(as_dict(run.get("job")).get("inputs")) or as_list(run.get("inputs"))
    listed = [as_list(one) for one in inputs]
    return [(as_text(one[0]), one[1]) for one in listed if len(one) > 1]


def _inputs(run: dict[str, Any], limits: Limits) -> Html | None:
    found = _files(run)
    if not found:
        return None
    rows: list[list[Child]] = [
        [shown(path, 300), text.size(whole(size))] for path, size in found[: limits.rows]
    ]
    return unfolding(
        f"Input files ({len(found):,})",
        table(["File", "Size"], rows, "Input files", "narrow", ["", "n"]),
        left_out(len(found) - len(rows), "file"),
    )


def _schemas(run: dict[str, Any], limits: Limits) -> Html:
    made: list[Child] = []
    for one in _models(run)[: limits.models]:
        for key, title in (("input_schema", "Input"), ("output_schema", "Output")):
            if one.get(key) is not None:
                name = shown(as_text(one.get("name")), 60)
                schema = block(as_json(one.get(key), 2), 4 * limits.record)
                made.append(unfolding(joined(title, " schema of ", name), schema))
    return joined(*made)
