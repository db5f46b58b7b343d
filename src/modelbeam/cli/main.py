"""The command line: what is asked for, exit codes, and errors as one paragraph."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from modelbeam import streams
from modelbeam.cli import job, output
from modelbeam.cli.parser import build_parser
from modelbeam.cli.signals import end_at_once, on_stop
from modelbeam.errors import InterruptedRunError, ModelbeamError, RequestError, did_you_mean

EXIT_SECONDS = 5.0
"""How long Beam may take to stop the servers that it started for a job on an engine."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    streams.prepare()
    arguments = sys.argv[1:] if arguments is None else arguments
    code = run(arguments)
    failed = output.unwritable
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # what we print to has ended, as with "| head"
        pass
    except OSError as error:
        failed = error
    if failed is not None:
        published = "; the run is complete" if code == 0 and "predict" in arguments[:1] else ""
        print(
            f"modelbeam: stdout cannot be written: {failed.strerror}{published}.", file=sys.stderr
        )
        code = code or (0 if published else 1)
    sys.stderr.flush()
    if job.beams_servers:
        import threading

        end = threading.Timer(EXIT_SECONDS, os._exit, (code,))
        end.daemon = True
        end.start()
        sys.exit(code)
    os._exit(code)  # Beam's threads and exit handlers would take another half a second


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    verbose = bool({"-v", "--verbose"} & set(arguments))
    on_stop(end_at_once)
    try:
        return _run(arguments)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt:
        error: ModelbeamError = InterruptedRunError("Stopped.")
    except InterruptedRunError as interrupted:
        error = interrupted
    except ModelbeamError as failed:
        error = failed
        if verbose:
            output.print_traceback(failed)
    except Exception as defect:
        error = ModelbeamError(
            f"{type(defect).__name__}: {defect}. This is a defect of modelbeam; run with "
            f"--verbose and report it."
        )
        if verbose:
            output.print_traceback(defect)
    message = " ".join(str(error).split())
    if "--overwrite" in arguments:
        message = message.replace("with --resume", "with --resume instead of --overwrite")
    stopped = isinstance(error, InterruptedRunError)  # as was wished, which explains itself
    output.tell(f"modelbeam: {message}" + ("" if stopped else f" [{error.code}]"))
    if "--json" in arguments:
        output.print_json(_described(error, message))
    return error.exit_code


def _described(error: ModelbeamError, message: str) -> dict[str, Any]:
    """An error as ``--json`` prints it: beside what is known of the run, if it got so far."""
    run = getattr(error, "run", None)
    known: dict[str, Any] = {} if run is None else run.description
    said = {"type": type(error).__name__, "code": error.code, "message": message}
    return {**known, "error": {**said, "exit_code": error.exit_code}}


def _run(arguments: Sequence[str]) -> int:
    parser = build_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise RequestError(
            f"'{arguments[0]}' is not a command{did_you_mean(arguments[0], COMMANDS)} "
            f"The commands are {', '.join(COMMANDS)}."
        )
    flags, rest = parser.parse_known_args(list(arguments))
    if flags.command is None:
        if rest:
            raise RequestError(f"unknown flag {rest[0]}. See modelbeam --help.")
        parser.print_help()
        return 0
    return _command(flags.command)(flags, rest)


COMMANDS = (
    *("predict", "check", "compare", "retry", "report", "runs", "describe", "package"),
    *("config", "explain", "completion"),
)
"""Each a module of this room with a function ``run(flags, rest)``."""


def _command(name: str) -> Callable[[argparse.Namespace, list[str]], int]:
    command: Callable[[argparse.Namespace, list[str]], int]
    command = importlib.import_module(f"modelbeam.cli.{name}").run
    return command
