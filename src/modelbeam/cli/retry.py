"""``modelbeam retry``."""

from __future__ import annotations

import argparse
import sys

from modelbeam.cli.output import print_json, tell
from modelbeam.cli.parser import flags_of
from modelbeam.cli.signals import end_the_job, on_stop, stop_again
from modelbeam.errors import InterruptedRunError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Predict the failed records of a finished run again."""
    from modelbeam import engines
    from modelbeam.cli import job
    from modelbeam.job import flags as options
    from modelbeam.report.progress import summary, watcher
    from modelbeam.report.retry import retry_job

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
        sys.unraisablehook = stop_again
        on_stop(end_the_job)
        done = retry_job(flags.output, settings, told)
    except KeyboardInterrupt:
        raise InterruptedRunError("Stopped. The output is as it was.") from None
    if flags.json:
        print_json(done.description)
    if not flags.quiet:
        tell(summary(done))
    return 0
