"""``modelbeam retry``."""

from __future__ import annotations

import argparse

from modelbeam.cli.output import show
from modelbeam.cli.parser import flags_of
from modelbeam.cli.signals import stoppable
from modelbeam.errors import InterruptedRunError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Predict the failed records of a finished run again."""
    from modelbeam import engines
    from modelbeam.cli import job
    from modelbeam.job import flags as options
    from modelbeam.report.progress import summary, watcher
    from modelbeam.retry import retry_job

    options.quiet_logs(flags.verbose)
    if rest:
        engines.check_flags(rest, [flag for flag in flags_of("retry") if flag.startswith("--")])
    job.beams_servers = not options.is_local(rest)
    settings = {
        "models": flags.models and [flags.models],
        "workers": flags.workers,
        "max_errors": flags.max_errors,
        "beam_options": tuple(rest) or None,
    }
    try:
        told = watcher(quiet=flags.quiet, progress=not flags.no_progress)
        stoppable()
        done = retry_job(flags.output, settings, told)
    except KeyboardInterrupt:
        raise InterruptedRunError("Stopped. The output is as it was.") from None
    return show(flags, done.description, summary(done))
