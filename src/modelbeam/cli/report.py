"""``modelbeam report``."""

from __future__ import annotations

import argparse

from modelbeam.cli.output import show
from modelbeam.errors import RequestError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Draw the report of a run again."""
    if rest:
        raise RequestError(f"unknown flag {rest[0]}. See modelbeam report --help.")
    from modelbeam.profile.drift import farthest
    from modelbeam.report.redraw import redraw
    from modelbeam.text import count, printable

    made = redraw(flags.output, flags.baseline)
    counts = made.run["counts"]
    said = [
        f"{count(counts['read'], 'record')} read, {counts['predicted']:,} predicted, "
        f"{counts['failed']:,} failed; {made.run['status']}"
    ]
    said += made.run["notes"] if made.run["status"] == "unfinished" else []
    said += farthest(made.profile)
    if made.profile is None:
        said.append("The run was done with --no-report: there are only its counts.")
    said.append(f"report in {made.page}")
    content = {"run": made.run, "profile": made.profile, "page": made.page}
    return show(flags, content, "\n".join(map(printable, said)))
