"""The page of a run: one HTML file that needs nothing else, drawn from run.json and profile.json.

Nothing of the data is taken for HTML (:mod:`.markup`), the page's own rules forbid it every
request and every script but its own, and its size is bounded whatever it is to show
(:mod:`.limits`).
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

from modelbeam._version import __version__
from modelbeam.report.page.columns import Drift, inputs, predictions
from modelbeam.report.page.comparison import comparison
from modelbeam.report.page.failures import failures, odd
from modelbeam.report.page.limits import LARGEST, STEPS, Limits
from modelbeam.report.page.markup import Html, joined, tag, void
from modelbeam.report.page.provenance import provenance
from modelbeam.report.page.streaming import streaming
from modelbeam.report.page.timing import timing
from modelbeam.report.page.values import as_dict, as_text, dicts
from modelbeam.report.page.verdict import status, verdict
from modelbeam.text import describe, printable

REFRESH_SECONDS = 10
"""How often the page of a run that goes on is read again."""


def draw(run: dict[str, Any], profile: dict[str, Any] | None = None) -> str:
    """The page of a run.

    Args:
        run: what run.json holds; anything may be missing.
        profile: what profile.json holds, if there is one.

    Returns:
        HTML that can be written as UTF-8.
    """
    page = ""
    for limits in STEPS:
        page = _drawn(as_dict(run), as_dict(profile), limits)
        if len(page.encode()) <= LARGEST:
            break
    return page


def drawn(run: dict[str, Any], profile: dict[str, Any] | None = None) -> bytes | None:
    """The page as it is written; a page that cannot be drawn never fails its run.

    Returns:
        ``None`` if it cannot be drawn, which one line on stderr says.
    """
    try:
        return draw(run, profile).encode()
    except Exception as error:
        why = " ".join(printable(describe(error)).split())[:300]
        print(f"modelbeam: the report could not be drawn: {why}", file=sys.stderr)
        return None


def _drawn(run: dict[str, Any], profile: dict[str, Any], limits: Limits) -> str:
    drift = Drift(profile.get("baseline"))
    sections = [
        ("comparison", "Comparison", comparison(run, limits)),
        ("streaming", "Streaming", streaming(run, profile, limits)),
        ("predictions", "Predictions", predictions(profile, drift, limits)),
        ("inputs", "Inputs", inputs(profile, drift, limits)),
        ("failures", "Failures", failures(run, profile, limits)),
        ("odd", "Odd records", odd(profile, limits)),
        ("time", "Time", timing(run, profile, limits)),
        ("provenance", "Provenance", provenance(run, limits)),
    ]
    there = [(name, title, content) for name, title, content in sections if content]
    body = joined(
        tag("a", "To the content", href="#content", class_="skip"),
        verdict(run, profile, drift, limits),
        tag("nav", (tag("a", title, href=f"#{name}") for name, title, _ in there),
            aria_label="Sections"),
        tag("main", [tag("section", tag("h2", title), content, id=name, aria_label=title)
                     for name, title, content in there], id="content", tabindex=-1),
        _footer(profile),
    )  # fmt: skip
    return str(_document(run, body))


def _footer(profile: dict[str, Any]) -> Html:
    without = "" if profile else " There is no profile of this run: only its counts are shown."
    return tag(
        "footer",
        f"Drawn by modelbeam {__version__} from run.json and profile.json.{without} This page "
        f"loads nothing and sends nothing.",
        class_="soft",
    )


def _document(run: dict[str, Any], body: Html) -> Html:
    style, script = _asset("page.css"), _asset("page.js")
    rules = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        f"base-uri 'none'; form-action 'none'"
    )
    names = [as_text(one.get("name")) for one in dicts(run.get("models"))[:3]]
    title = f"{status(run)[1]} · {', '.join(filter(None, names)) or 'modelbeam'}"
    meta: list[dict[str, str]] = [
        {"charset": "utf-8"},
        {"http_equiv": "Content-Security-Policy", "content": rules},
        {"name_": "viewport", "content": "width=device-width, initial-scale=1"},
        {"name_": "color-scheme", "content": "light dark"},
        {"name_": "referrer", "content": "no-referrer"},
        {"name_": "generator", "content": f"modelbeam {__version__}"},
    ]
    if run.get("status") == "running":
        meta.append({"http_equiv": "refresh", "content": str(REFRESH_SECONDS)})
    head = joined(
        *(void("meta", **one) for one in meta),
        tag("title", title[:200]),
        tag("style", Html(style)),
    )
    return joined(
        Html("<!doctype html>\n"),
        tag("html", tag("head", head), tag("body", body, tag("script", Html(script))), lang="en"),
        Html("\n"),
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """What allows exactly this content, by its hash."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
