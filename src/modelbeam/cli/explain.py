"""``modelbeam explain``."""

from __future__ import annotations

import argparse

from modelbeam.cli.output import print_json, say
from modelbeam.errors import RequestError, did_you_mean
from modelbeam.explain import ALL, find


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Say what a code or a type of failure means; without one, list them all."""
    if rest:
        raise RequestError(f"unknown argument {rest[0]}. See modelbeam explain --help.")
    if flags.what is None:
        if flags.json:
            print_json({"codes": [one.to_dict() for one in ALL]})
        else:
            for one in ALL:
                say(f"{one.code}  {one.name}", 7)
        return 0
    found = find(flags.what)
    if found is None:
        known = [name for one in ALL for name in (one.code, one.name)]
        nearest = did_you_mean(flags.what, known) or "."
        raise RequestError(
            f"{flags.what} is no code of modelbeam's and no type of failure{nearest} A type that "
            f"'modelbeam explain' does not list is an exception of the model or of its libraries."
        )
    if flags.json:
        print_json(found.to_dict())
        return 0
    say(f"{found.code}  {found.name}: {found.kind}", 7)
    say(f"\n{found.meaning}", 0)
    say(f"\nWhat to do: {found.remedy}", 0)
    return 0
