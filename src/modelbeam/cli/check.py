"""``modelbeam check``."""

from __future__ import annotations

import argparse

from modelbeam.cli.job import job_of
from modelbeam.cli.output import print_json, say, tell
from modelbeam.errors import RequestError
from modelbeam.text import printable


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Load the model, try the first records, and print the plan."""
    from modelbeam.report.check import PREDICTION, check_job

    def note(text: str) -> None:
        if not flags.quiet and not flags.no_progress:
            tell(f"modelbeam: {text}")

    found = check_job(job_of(flags, rest, "check"), note)
    if flags.json:
        print_json(found.to_dict())
    elif not flags.quiet:
        for line in printable(found.to_text()).splitlines():
            say(line, None if line.startswith(PREDICTION) else len(PREDICTION))
    if found.engine is not None and not found.engine.healthy:
        return RequestError.exit_code
    return 1 if found.read and found.failed == found.read else 0
