"""The job that a command line describes."""

from __future__ import annotations

import argparse
from typing import Any

from modelbeam.cli.parser import flags_of

beams_servers = False
"""Whether Beam may have started some, which it stops when the interpreter ends."""


_TALK = {"command", "json", "no_progress", "quiet", "verbose", "config"}


def job_of(flags: argparse.Namespace, rest: list[str], command: str) -> Any:
    from modelbeam import engines
    from modelbeam.job import flags as options
    from modelbeam.job.description import build_job

    options.quiet_logs(flags.verbose)
    if rest:
        own = [f for f in flags_of(command) if f.startswith("--")]
        engines.check_flags(rest, own)
    settings = {name: value for name, value in vars(flags).items() if name not in _TALK}
    if settings["batch_size"] is not None and settings["batch_size"].isdigit():
        settings["batch_size"] = int(settings["batch_size"])
    settings["beam_options"] = tuple(rest) or None
    job = build_job(settings, flags.config)
    global beams_servers
    beams_servers = not options.is_local(job.beam_options)
    return job
