"""Beam's options: which flags are Beam's, and the options made of them; engines know the rest."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from modelbeam.errors import RequestError, did_you_mean
from modelbeam.job.config import grouped

LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")
"""Runners that work in this process; each means Beam's own portable runner here.

It is named in full, since ``DirectRunner`` first looks for another runner's binary to download.
"""

_FN_API_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def quiet_logs(verbose: bool) -> None:
    """Keep Beam's log lines off the terminal unless they are asked for."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def runner_of(flags: Sequence[str]) -> str | None:
    """The value of ``--runner`` among Beam's flags."""
    return value_of(flags, "--runner")


def value_of(flags: Sequence[str], name: str) -> str | None:
    """The value that one flag has among Beam's flags, or ``None``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value")
    found: str | None = parser.parse_known_args(list(flags))[0].value
    return found


def is_local(flags: Sequence[str]) -> bool:
    """Whether the flags name no runner, or one that works in this process."""
    runner = runner_of(flags)
    return runner is None or _short(runner) in {_short(name) for name in LOCAL_RUNNERS}


def short_runner(flags: Sequence[str]) -> str:
    """The runner's short name in lower case, such as ``flink``; empty if none is named."""
    return _short(runner_of(flags) or "")


def _short(runner: str) -> str:
    """``flink`` for ``FlinkRunner`` and for a class written in full; Beam takes all three."""
    return runner.rsplit(".", 1)[-1].lower().removesuffix("runner")


def asked_loopback(flags: Sequence[str]) -> bool | None:
    """Whether the flags want workers that are threads of this process; ``None`` if left open."""
    environment = value_of(flags, "--environment_type")
    return None if environment is None else environment.upper() == "LOOPBACK"


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
    from apache_beam.options.pipeline_options import PipelineOptions

    _check_runner(runner_of(flags))
    parser = _Parser(add_help=False, allow_abbrev=False)
    classes: list[Any] = [PipelineOptions, *PipelineOptions.__subclasses__()]
    for cls in classes:
        if "_add_argparse_args" in vars(cls):
            cls._add_argparse_args(parser)
    for name, takes_value in (further or {}).items():
        if f"--{name}" not in parser._option_string_actions:
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
    beams = [flag for action in parser._actions for flag in action.option_strings]
    neighbour = _NEIGHBOURS.get(first.replace("_", "-"))
    if neighbour is not None:
        raise RequestError(f"unknown flag {first}: {neighbour}")
    nearest = did_you_mean(first, [*own_flags, *beams])
    raise RequestError(
        f"unknown flag {first}{nearest or '.'} It is neither modelbeam's (see modelbeam predict "
        f"--help) nor one of Beam's pipeline options."
    )


def _check_runner(runner: str | None) -> None:
    from apache_beam.options.pipeline_options import StandardOptions

    known = StandardOptions.KNOWN_RUNNER_NAMES
    short = {_short(name): name for name in known}
    if runner and "." not in runner and _short(runner) not in short:
        nearest = did_you_mean(_short(runner), short)
        raise RequestError(
            f"--runner {runner}: Beam has no such runner{nearest or '.'} It has {', '.join(known)}."
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise RequestError(f"{message} (one of Beam's pipeline options).")


_STORAGE = ("s3_", "hdfs_", "azure_", "blob_", "no_auth", "impersonate_service_account")


def storage_flags(flags: Sequence[str]) -> tuple[str, ...]:
    """Those of Beam's flags that say how storage is reached: all that a worker is told of them."""
    return tuple(
        token for name, tokens in grouped(flags) if name.startswith(_STORAGE) for token in tokens
    )


_NEIGHBOURS = {
    "--force": "--overwrite replaces an output that exists.",
    "--dry-run": "modelbeam check does everything but the run, with the same flags.",
    "--dryrun": "modelbeam check does everything but the run, with the same flags.",
    "--select": "--keep A,B carries input columns into the output.",
    "--columns": "--keep A,B carries input columns into the output.",
    "--fields": "--keep A,B carries input columns into the output.",
    "--n-jobs": "--workers N says how many cores are used.",
    "--jobs": "--workers N says how many cores are used.",
    "--threads": "--workers N says how many cores are used, --worker-mode threads how.",
    "--num-workers": "--workers N says how many cores are used on this machine.",
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

    options = PipelineOptions(list(flags))
    options.view_as(StandardOptions).runner = _FN_API_RUNNER
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
