"""``modelbeam completion``."""

from __future__ import annotations

import argparse

from modelbeam.cli.output import say
from modelbeam.cli.parser import build_parser
from modelbeam.errors import RequestError


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Print a completion script."""
    import shtab

    if rest:
        raise RequestError(f"unknown argument {rest[0]}. See modelbeam completion --help.")
    say(shtab.complete(build_parser(), shell=flags.shell))
    return 0
