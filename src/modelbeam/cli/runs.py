"""``modelbeam runs``."""

from __future__ import annotations

import argparse
import sys

from modelbeam import streams
from modelbeam.cli.output import print_json, say, tell
from modelbeam.cli.parser import flags_of
from modelbeam.errors import RequestError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Print the runs below some directories, or the schema of what describes one."""
    if flags.schema:
        from modelbeam.report.schema import run_schema

        print_json(run_schema(), indent=2)
        return 0
    from modelbeam import engines, storage
    from modelbeam.job import flags as options
    from modelbeam.report.runs import find_runs, to_text

    options.quiet_logs(flags.verbose)
    if rest:
        engines.check_flags(rest, [flag for flag in flags_of("runs") if flag.startswith("--")])
        storage.configure(rest)
    if flags.depth < 0:
        raise RequestError("--depth is a number of directories, 0 or more.")
    places = flags.places or ["."]
    found = find_runs(places, flags.depth)
    if flags.json:
        print_json({"runs": [one.to_dict() for one in found.runs], "notes": found.notes})
    else:
        for line in to_text(found.runs, streams.width(sys.stdout)):
            say(line)
        if not found.runs:
            tell(f"no run is in {', '.join(places)} or {flags.depth} directories below")
    for note in found.notes:
        tell(f"modelbeam: {note}")
    return 0
