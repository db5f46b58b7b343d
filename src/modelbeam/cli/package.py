"""``modelbeam package``."""

from __future__ import annotations

import argparse
import os
import sys

from modelbeam.cli.output import print_json, say
from modelbeam.cli.parser import flags_of
from modelbeam.errors import RequestError, did_you_mean


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Show what workers need, or write it."""
    from modelbeam.job.description import spec_of
    from modelbeam.package.build import build
    from modelbeam.package.image import check_directory, write_dockerfile
    from modelbeam.package.listing import package_list
    from modelbeam.report.check import describe_model

    if rest:
        known = [f for f in flags_of("package") if f.startswith("--")]
        raise RequestError(f"unknown flag {rest[0]}{did_you_mean(rest[0], known) or '.'}")
    if flags.output:
        check_directory(flags.output)
    specs = [spec_of(model, vars(flags)) for model in flags.models]
    # what a file needs is known once it is loaded; of a class its code and its package tell
    loaded = [describe_model(spec) for spec in specs if spec.target.form != "class"]
    packages = package_list(specs, requires=[name for info in loaded for name in info.requires])
    written = []
    if flags.output:
        built = build(packages, flags.output)
        written = [*built.wheels, built.requirements, write_dockerfile(built)]
    if flags.json:
        files = [str(path) for path in written]
        print_json({**packages.to_dict(), **({"written": files} if files else {})})
        return 0
    say(packages.to_text(), 4)
    for path in written:
        print(f"written  {os.path.relpath(path)}", file=sys.stderr)
    return 0
