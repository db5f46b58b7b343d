"""``modelbeam config``."""

from __future__ import annotations

import argparse

from modelbeam.cli.job import job_of
from modelbeam.cli.output import print_json, say
from modelbeam.errors import RequestError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Print what a job comes to, or the schema of configuration files."""
    if flags.schema:
        from modelbeam.job.schema import schema

        if rest:
            raise RequestError(f"unknown argument {rest[0]}. See modelbeam config --help.")
        print_json(schema())
        return 0
    import yaml

    from modelbeam.job.schema import settings_of

    del flags.schema
    settings = settings_of(job_of(flags, rest, "config"))
    if flags.json:
        print_json(settings)
    else:
        say(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip("\n"))
    return 0
