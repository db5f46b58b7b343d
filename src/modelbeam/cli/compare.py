"""``modelbeam compare``."""

from __future__ import annotations

import argparse

from modelbeam.cli.job import job_of
from modelbeam.cli.output import print_json, say
from modelbeam.cli.signals import stoppable
from modelbeam.errors import InterruptedRunError
from modelbeam.text import printable


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Run two models, and say where they agree."""
    from modelbeam.report.compare import compare_job, to_text
    from modelbeam.report.progress import watcher

    label, most = flags.label, flags.most
    del flags.label, flags.most
    job = job_of(flags, rest, "compare")
    try:
        told = watcher(quiet=flags.quiet, progress=not flags.no_progress)
        stoppable()
        compared = compare_job(job, label, most, told)
    except KeyboardInterrupt as stopped:
        raise InterruptedRunError(str(stopped) or "Stopped.") from None
    if flags.json:
        print_json(compared.found)
    elif not flags.quiet:
        say(printable(to_text(compared)))
    return 0
