"""What failed: by masked message, each with examples and the command that shows or retries them."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from modelbeam.explain import code_of_failure
from modelbeam.report.page import plots
from modelbeam.report.page.columns import left_out
from modelbeam.report.page.limits import Limits
from modelbeam.report.page.markup import (
    Child,
    Html,
    block,
    copied,
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
    places,
    said,
    share,
    whole,
)


def failures(run: dict[str, Any], profile: dict[str, Any], limits: Limits) -> Html | None:
    """The section of what failed."""
    kinds = dicts(profile.get("failures")) or [_from_run(one) for one in dicts(run.get("failures"))]
    if not kinds:
        return None
    kinds = sorted(kinds, key=lambda one: -whole(one.get("count")))
    listed = kinds[: limits.kinds]
    more = len(kinds) - len(listed) + whole(profile.get("failures_left_out"))
    total = max(whole(as_dict(run.get("counts")).get("failed")),
                sum(whole(one.get("count")) for one in kinds))  # fmt: skip
    again = _retry(run)
    lines = _error_lines(run)
    return joined(
        copied(again, "All failed records again, when the model or the data is mended")
        if again
        else None,
        tag("div", [_kind(lines, one, total, at == 0, limits) for at, one in enumerate(listed)],
            class_="kinds"),
        left_out(more, "kind", "of failure"),
    )  # fmt: skip


def _from_run(kind: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of a kind, in the shape of profile.json."""
    return {**kind, "frame": kind.get("where"), "examples": [kind]}


def _kind(lines: str | None, kind: dict[str, Any], total: int, first: bool, limits: Limits) -> Html:
    count, stage = whole(kind.get("count")), as_text(kind.get("stage"))
    model, frame = as_text(kind.get("model")), as_text(kind.get("frame"))
    code = code_of_failure(stage, as_text(kind.get("type")))
    along = [float(number(one) or 0) for one in as_list(kind.get("along"))[:50]]
    head = joined(
        tag("span", tag("b", f"{count:,}"), " ", tag("span", share(count, total), class_="soft"),
            class_="count"),
        tag(
            "span",
            tag("span", shown(as_text(kind.get("type")), 80), class_="type"),
            tag("span", "in ", shown(stage, 40), class_="soft") if stage else None,
            tag("span", "model ", shown(model, 60), class_="soft") if model else None,
            tag("code", code, title=f"modelbeam explain {code}") if code else None,
            tag("span", shown(as_text(kind.get("message")), 300), class_="message"),
            tag("span", "at ", tag("code", shown(frame, 120)), class_="soft") if frame else None,
            class_="what",
        ),
        tag("span", "along the input", plots.strip("Where along the input they are", along),
            class_="along soft")
        if any(along)
        else None,
    )  # fmt: skip
    examples = dicts(kind.get("examples"))[: limits.examples]
    show = _show(lines, kind)
    return unfolding(
        head,
        copied(show, "Show the error lines of this type") if show else None,
        [_example(one, at == 0, limits) for at, one in enumerate(examples)],
        class_="kind",
        opened=first,
    )  # fmt: skip


def _example(example: dict[str, Any], opened: bool, limits: Limits) -> Html:
    trace = as_text(example.get("traceback"))
    record = example.get("record")
    return tag(
        "details",
        tag("summary", tag("code", shown(places(example), 200))),
        block(as_text(example.get("error")), limits.record),
        joined(tag("p", "The record", class_="soft"), block(as_json(record, 2), limits.record))
        if record is not None
        else None,
        joined(tag("p", "Traceback", class_="soft"), block(trace, limits.record))
        if trace
        else None,
        open=opened,
        class_="example",
    )


def _retry(run: dict[str, Any]) -> str | None:
    """The command that predicts the failed records again, where there is one."""
    request, output = as_dict(run.get("request")), as_text(run.get("output"))
    several = len(as_list(run.get("models"))) > 1 or request.get("shards") is not None
    if not request or several or not output or not whole(as_dict(run.get("counts")).get("failed")):
        return None
    if run.get("comparison") is not None or run.get("status") not in ("succeeded", "failed"):
        return None
    return f"modelbeam retry {_quoted(output)}"


def _quoted(path: str) -> str:
    quoted = shlex.quote(path)
    return f"./{quoted}" if path.startswith("-") else quoted


def _error_lines(run: dict[str, Any]) -> str | None:
    """The files of error lines, for a shell."""
    files = [one for one in as_list(run.get("files")) if isinstance(one, str) and _is_errors(one)]
    if not files or "://" in files[0]:
        return None
    if len(files) == 1:
        return _quoted(files[0])
    return _quoted(files[0].rpartition("/")[0] or ".") + "/errors-*.jsonl"


def _show(lines: str | None, kind: dict[str, Any]) -> str | None:
    """The command that prints the error lines of a kind's stage and type."""
    stage, type_ = kind.get("stage"), kind.get("type")
    if lines is None or not stage or not isinstance(type_, str):
        return None
    wanted = json.dumps({"stage": stage, "type": type_}, separators=(",", ":"),
                        ensure_ascii=False)[1:-1]  # fmt: skip
    return f"grep -hF {shlex.quote(wanted)} {lines}"


def _is_errors(path: str) -> bool:
    return bool(re.fullmatch(r"errors-[^/]*|[^/]*errors\.jsonl", path.rpartition("/")[2]))


def odd(profile: dict[str, Any], limits: Limits) -> Html | None:
    """The section of records that stand out."""
    found = dicts(profile.get("odd"))
    if not found:
        return None
    rows: list[list[Child]] = []
    for one in found[: limits.rows]:
        value = one.get("value")
        record = one.get("record")
        where = tag("code", shown(places(one), 200))
        rows.append([
            joined(as_text(one.get("why"))[:40], " ", shown(as_text(one.get("column")), 80)),
            said(value) if number(value) is not None else shown(as_text(value), 80),
            shown(as_text(one.get("model")), 60),
            unfolding(where, block(as_json(record, 2), limits.record))
            if record is not None
            else where,
        ])  # fmt: skip
    heads = ["Why", "Value", "Model", "Record"]
    return joined(
        table(heads, rows, "Odd records", "odd", ["", "n", "", ""]),
        left_out(len(found) - len(rows), "record"),
    )
