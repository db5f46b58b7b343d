"""Beam's ``PipelineOptions``: which flags there are, and the options that runs are made with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from modelbeam.errors import RequestError, did_you_mean
from modelbeam.job.flags import runner_of, short


def check_flags(
    flags: Sequence[str], own_flags: Sequence[str] = (), further: Mapping[str, bool] | None = None
) -> None:
    """Refuse flags that neither modelbeam nor Beam knows.

    Args:
        flags: what was left over of a command line.
        own_flags: modelbeam's own, for the nearest match.
        further: what the engine knows beside Beam's own, and whether each must have a value.

    Raises:
        RequestError: a flag is unknown, or has a wrong value.
    """
    if not flags:
        return
    from modelbeam.beam.private import add_options

    _check_runner(runner_of(flags))
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_options(parser)
    for name, takes_value in (further or {}).items():
        if f"--{name}" not in parser.names():
            settings: Any = {} if takes_value else {"nargs": "?"}
            parser.add_argument(f"--{name}", **settings)
    _, unknown = parser.parse_known_args(list(flags))
    if not unknown:
        return
    first = unknown[0].split("=", 1)[0]
    if not first.startswith("-"):
        raise RequestError(
            f"'{first}' is not a flag; flags begin with --. See modelbeam predict --help."
        )
    neighbour = _NEIGHBOURS.get(first.replace("_", "-"))
    if neighbour is not None:
        raise RequestError(f"unknown flag {first}: {neighbour}")
    nearest = did_you_mean(first, [*own_flags, *parser.names()])
    raise RequestError(
        f"unknown flag {first}{nearest or '.'} It is neither modelbeam's (see modelbeam predict "
        f"--help) nor one of Beam's pipeline options."
    )


def _check_runner(runner: str | None) -> None:
    from modelbeam.beam.private import runner_names

    known = runner_names()
    names = {short(name): name for name in known}
    if runner and "." not in runner and short(runner) not in names:
        nearest = did_you_mean(short(runner), names)
        raise RequestError(
            f"--runner {runner}: Beam has no such runner{nearest or '.'} It has {', '.join(known)}."
        )


class _Parser(argparse.ArgumentParser):
    def names(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def error(self, message: str) -> Any:
        raise RequestError(f"{message} (one of Beam's pipeline options).")


_NEIGHBOURS = {
    "--force": "--overwrite replaces an output that exists.",
    "--dry-run": "modelbeam check does everything but the run, with the same flags.",
    "--dryrun": "modelbeam check does everything but the run, with the same flags.",
    "--select": "--keep A,B carries input columns into the output.",
    "--columns": "--keep A,B carries input columns into the output.",
    "--fields": "--keep A,B carries input columns into the output.",
    "--n-jobs": "--workers N says how many workers there are.",
    "--jobs": "--workers N says how many workers there are.",
    "--threads": "--workers N says how many workers there are, --worker-mode threads what.",
    "--num-workers": "--workers N says how many workers there are on this machine.",
    "--batch": "--batch-size N says how many records a model call gets.",
    "--chunk-size": "--batch-size N says how many records a model call gets.",
    "--chunksize": "--batch-size N says how many records a model call gets.",
    "--continue": "--resume finishes an interrupted run.",
    "--restart": "--overwrite starts again from the beginning.",
    "--out": "--output (-o) says where the predictions go.",
    "--in": "--input (-i) names the data.",
    "--format": "--input-format and --output-format name formats.",
    "--silent": "--quiet (-q) shows neither progress nor summary.",
    "--debug": "--verbose (-v) shows tracebacks and Beam's log.",
    "--ignore-errors": "failed records never stop a job; --max-errors N sets a limit.",
}
"""Flags of other programs, as they are written there, and what does the same here."""


def local_options(flags: Sequence[str], threads: int) -> Any:
    """``PipelineOptions`` for the local runner with that many threads for splits.

    What the flags say of ``--direct_num_workers`` and ``--direct_running_mode`` wins.
    """
    from apache_beam.options.pipeline_options import (
        DirectOptions,
        PipelineOptions,
        StandardOptions,
    )

    from modelbeam.beam.private import LOCAL_RUNNER

    options = PipelineOptions(list(flags))
    options.view_as(StandardOptions).runner = LOCAL_RUNNER
    direct = options.view_as(DirectOptions)
    given = {flag.split("=", 1)[0] for flag in flags}
    if "--direct_num_workers" not in given:
        direct.direct_num_workers = threads
    if "--direct_running_mode" not in given:
        direct.direct_running_mode = "in_memory"
    return options


def remote_options(flags: Sequence[str], defaults: Sequence[str]) -> Any:
    """``PipelineOptions`` for an engine: the flags as they are, and defaults that are not given.

    Args:
        flags: the user's.
        defaults: written ``--name=value`` or ``--name``; one whose name is among the flags is
            left out.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

    given = {flag.split("=", 1)[0] for flag in flags}
    defaults = [*defaults, "--experiments=disable_logging_submission_environment"]  # a pip freeze
    added = [flag for flag in defaults if flag.split("=", 1)[0] not in given]
    options = PipelineOptions([*flags, *added])
    if "--save_main_session" not in given:  # of which the steps need nothing
        options.view_as(SetupOptions).save_main_session = False
    return options


def stage_once(options: Any) -> None:
    """Have the list of staged files end with the staging.

    Beam's Python and its Java runners call different things ``files_to_stage``: a job server would
    take our wheels for the jars of its engine, and leave its own behind.
    """
    from apache_beam.options.pipeline_options import SetupOptions

    options.view_as(SetupOptions).files_to_stage = None


def launch_job_server_by(options: Any, launcher: str, words: Sequence[str]) -> None:
    """Have another program start the Java job server: ``launcher words… java properties… -jar …``.

    What the options had for the launcher and the virtual machine's properties follows.
    """
    from apache_beam.options.pipeline_options import JobServerOptions

    server = options.view_as(JobServerOptions)
    java = [server.job_server_java_launcher, *server.job_server_jvm_properties]
    server.job_server_java_launcher, server.job_server_jvm_properties = launcher, [*words, *java]
