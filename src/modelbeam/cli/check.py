"""``modelbeam check``."""

from __future__ import annotations

import argparse
import sys

from modelbeam.cli.job import job_of
from modelbeam.cli.output import print_json, say
from modelbeam.errors import RequestError
from modelbeam.text import printable


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Load the model, try the first records, and print the plan."""
    from modelbeam.report.check import check_job

    def note(text: str) -> None:
        if not flags.quiet and not flags.no_progress:
            print(f"modelbeam: {printable(text)}", file=sys.stderr)

    found = check_job(job_of(flags, rest, "check"), note)
    if flags.json:
        print_json(found.to_dict())
    elif not flags.quiet:
        say(printable(found.to_text()))
    if found.engine is not None and not found.engine.healthy:
        return RequestError.exit_code
    return 1 if found.read and found.failed == found.read else 0
