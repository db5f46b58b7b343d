"""The command line: flags, help and exit codes; a thin skin."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from modelbeam import streams
from modelbeam._version import __version__
from modelbeam.errors import InterruptedRunError, ModelbeamError, RequestError, did_you_mean
from modelbeam.text import printable

_EPILOGS = {
    "modelbeam": """\
examples:
  modelbeam predict --model iris_model.iris_predict:IrisModel \\
      --input data/input.json --output predictions.jsonl
  modelbeam check --model iris_model.iris_predict:IrisModel --input 'data/*.jsonl' --output out/
  modelbeam describe --model iris_model.iris_predict:IrisModel
  eval "$(modelbeam completion bash)"
""",
    "predict": """\
examples:
  modelbeam predict -m iris_model.iris_predict:IrisModel -i data/input.json -o predictions.jsonl
  modelbeam predict -m my_model:Model -i 'logs/*.jsonl.gz' -o out/ --keep id --max-errors 1%
  modelbeam predict --config job.yaml --resume

Any other flag goes to Beam's PipelineOptions as it is: --runner, --region, --job_endpoint ...

exit codes: 0 finished (failed records are in the errors files); 1 the job failed, --max-errors was
passed, or not one record could be predicted; 2 the request is wrong and nothing ran; 130 stopped by
Ctrl-C or SIGTERM.
""",
    "check": """\
example:
  modelbeam check -m iris_model.iris_predict:IrisModel -i data/input.json -o predictions.jsonl
""",
    "describe": """\
example:
  modelbeam describe --model iris_model.iris_predict:IrisModel --json
""",
    "package": """\
examples:
  modelbeam package --model iris_model.iris_predict:IrisModel
  modelbeam package --model iris_model.iris_predict:IrisModel --output worker/
  docker build --platform linux/amd64 -t REGISTRY/IMAGE:TAG worker/
""",
    "completion": """\
example:
  eval "$(modelbeam completion bash)"        # in ~/.bashrc
  eval "$(modelbeam completion zsh)"         # in ~/.zshrc, after compinit
""",
}


EXIT_SECONDS = 5.0
"""How long Beam may take to stop the servers that it started for a job on an engine."""

_unwritable: OSError | None = None
"""Why stdout could not be written, if it could not."""

_beams_servers = False
"""Whether Beam may have started some, which it stops when the interpreter ends."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one paragraph, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}. See {self.prog} --help.")


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags; also what completion and the generated documentation read."""
    parser = _parser(
        None,
        "modelbeam",
        "Run any ML model over any data as an Apache Beam pipeline: on this machine, or with\n"
        "Beam's options on Flink, Spark or Dataflow.",
    )
    parser.add_argument("--version", action="version", version=f"modelbeam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    predict = _parser(commands, "predict", "Run a model over files and write the predictions.")
    _job_flags(predict)
    _talk_flags(predict, progress=True)
    check = _parser(
        commands,
        "check",
        "Everything but the run: load the model, try the first records, print the plan.",
    )
    _job_flags(check)
    _talk_flags(check, progress=True)
    describe = _parser(
        commands, "describe", "Print a model's name, version, description and schemas."
    )
    describe.add_argument("-m", "--model", metavar="TARGET", required=True, help=_MODEL_HELP)
    _talk_flags(describe, progress=False)
    package = _parser(
        commands, "package", "Show what workers need for a model, and how each of it travels."
    )
    package.add_argument("-m", "--model", dest="models", action="append", required=True,
        metavar="TARGET", help=_MODEL_HELP + "; repeatable")  # fmt: skip
    package.add_argument("-o", "--output", metavar="DIR",
        help="write wheels, requirements.txt and a Dockerfile there")  # fmt: skip
    _talk_flags(package, progress=False)
    completion = _parser(commands, "completion", "Print a completion script for your shell.")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    return parser


_MODEL_HELP = "the model's class as module:Class (or module.Class)"


def _parser(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    settings: dict[str, Any] = {
        "description": summary,
        "epilog": _EPILOGS[name],
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    if commands is None:
        return _Parser(prog=name, **settings)
    made: argparse.ArgumentParser = commands.add_parser(name, help=summary, **settings)
    return made


def _job_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the job").add_argument
    add("-m", "--model", dest="models", action="append", metavar="[NAME=]TARGET",
        help=_MODEL_HELP + "; NAME is what error lines call it")  # fmt: skip
    add("-i", "--input", dest="inputs", action="append", metavar="PATTERN",
        help="a path, a glob, a directory or a URL that Beam knows; repeatable")  # fmt: skip
    add("-o", "--output", metavar="PATH",
        help="with a data suffix (.jsonl, .jsonl.gz ...) one file, else a directory")  # fmt: skip
    add("--input-format", metavar="FORMAT",
        help="jsonl (also ldjson, ndjson); by default read off the suffix")  # fmt: skip
    add("--output-format", metavar="FORMAT",
        help="jsonl, jsonl.gz, jsonl.bz2 or jsonl.zst; by default read off the suffix")  # fmt: skip
    add("--keep", metavar="all|COL,COL",
        help="input columns carried into the output beside the predictions")  # fmt: skip
    add("--max-errors", metavar="N|P%",
        help="fail once more records than this failed; default: no limit")  # fmt: skip
    add("--record-timeout", metavar="SECONDS", type=float,
        help="a record that takes longer is a failed record; default: no limit")  # fmt: skip
    add("--max-crashes", metavar="N", type=int,
        help="fail once more records than this killed the model's process, or ran out of time; "
        "default: 10")  # fmt: skip
    add("--resume", action="store_true", default=None,
        help="finish an interrupted or failed run, doing only what is not done")  # fmt: skip
    add("--overwrite", action="store_true", default=None,
        help="replace an output that exists, once the new one is complete")  # fmt: skip
    add("--detach", action="store_true", default=None,
        help="on Flink, Spark ...: submit and leave; the same command with --resume "
        "follows the job")  # fmt: skip
    add("--no-packages", dest="packages", action="store_false", default=None,
        help="on Flink, Spark ...: the workers have the model and its libraries installed; "
        "send nothing, only check")  # fmt: skip
    add("--config", metavar="FILE", help="the same settings from a YAML file; a flag wins over it")
    add = parser.add_argument_group("speed and size").add_argument
    add("--batch-size", metavar="auto|N",
        help="records per model call, for models that take batches; default: auto")  # fmt: skip
    add("--workers", metavar="N", type=int, help="cores to use on this machine; default: all")
    add("--worker-mode", choices=["auto", "threads", "processes"],
        help="default: auto, the one that pays for this model")  # fmt: skip
    add("--split-size", metavar="SIZE",
        help="bytes per split (64MB); default: by the size of the input, 1MB to 64MB")  # fmt: skip
    add("--max-record-size", metavar="SIZE",
        help="a longer line is a failed record; default: 32MB")  # fmt: skip


def _talk_flags(parser: argparse.ArgumentParser, *, progress: bool) -> None:
    add = parser.add_argument_group("output and logging").add_argument
    add("--json", action="store_true", help="the result as one JSON object on stdout")
    if progress:
        add("--no-progress", action="store_true", help="no progress bar or lines")
        add("-q", "--quiet", action="store_true", help="neither progress nor summary")
    add("-v", "--verbose", action="store_true", help="tracebacks and Beam's log")


_TALK = {"command", "json", "no_progress", "quiet", "verbose", "config"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    streams.prepare()
    arguments = sys.argv[1:] if arguments is None else arguments
    code = run(arguments)
    failed = _unwritable
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
    if _beams_servers:
        import threading

        end = threading.Timer(EXIT_SECONDS, os._exit, (code,))
        end.daemon = True
        end.start()
        sys.exit(code)
    os._exit(code)  # Beam's threads and exit handlers would take another half a second


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    verbose = bool({"-v", "--verbose"} & set(arguments))
    _on_stop(_end_at_once)
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
            _print_traceback(failed)
    except Exception as defect:
        error = ModelbeamError(
            f"{type(defect).__name__}: {defect}. This is a defect of modelbeam; run with "
            f"--verbose and report it."
        )
        if verbose:
            _print_traceback(defect)
    message = " ".join(str(error).split())
    if "--overwrite" in arguments:
        message = message.replace("with --resume", "with --resume instead of --overwrite")
    print(f"modelbeam: {printable(message)}", file=sys.stderr)
    return error.exit_code


def _on_stop(handler: Callable[..., NoReturn] | signal.Handlers) -> None:
    """Have Ctrl-C and SIGTERM answered by ``handler``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _end_at_once(*_: object) -> NoReturn:
    """Before a job runs there is nothing to tidy, and imports in C must not be interrupted."""
    os.write(2, b"modelbeam: Stopped.\n")
    os._exit(InterruptedRunError.exit_code)


def _end_the_job(*_: object) -> NoReturn:
    _on_stop(signal.SIG_IGN)  # the first one is being dealt with
    raise KeyboardInterrupt


def _stop_again(lost: Any) -> None:
    """Repeat a Ctrl-C that came while Python ran a finalizer, which swallows what is raised in it.

    Set as ``sys.unraisablehook``; the alarm goes off when the finalizer is over.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, _end_the_job)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
    else:
        sys.__unraisablehook__(lost)


def _print_traceback(error: Exception) -> None:
    import traceback

    details = getattr(error, "details", None)
    text = details or "".join(traceback.format_exception(error))
    print(text, file=sys.stderr, end="")


def _run(arguments: Sequence[str]) -> int:
    parser = build_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        raise RequestError(
            f"'{arguments[0]}' is not a command{did_you_mean(arguments[0], _COMMANDS)} "
            f"The commands are {', '.join(_COMMANDS)}."
        )
    flags, rest = parser.parse_known_args(list(arguments))
    if flags.command is None:
        if rest:
            raise RequestError(f"unknown flag {rest[0]}. See modelbeam --help.")
        parser.print_help()
        return 0
    return _COMMANDS[flags.command](flags, rest)


def _job(flags: argparse.Namespace, rest: list[str], command: str) -> Any:
    from modelbeam.job import flags as options
    from modelbeam.job.description import build_job

    options.quiet_logs(flags.verbose)
    if rest:
        own = [f for f in flags_of(command) if f.startswith("--")]
        options.check_flags(rest, own)
    settings = {name: value for name, value in vars(flags).items() if name not in _TALK}
    if settings["batch_size"] is not None and settings["batch_size"].isdigit():
        settings["batch_size"] = int(settings["batch_size"])
    settings["beam_options"] = tuple(rest) or None
    job = build_job(settings, flags.config)
    global _beams_servers
    _beams_servers = not options.is_local(job.beam_options)
    return job


def flags_of(command: str) -> list[str]:
    """Every flag of a command, short ones included."""
    parser = build_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    actions = subparsers.choices[command]._actions
    return [flag for action in actions for flag in action.option_strings]


def _predict(flags: argparse.Namespace, rest: list[str]) -> int:
    from modelbeam.job.flags import is_local
    from modelbeam.local.start import start_worker
    from modelbeam.machine import available_cores

    # first of all, so that the model's process and this one import their libraries side by side
    workers = (flags.workers or available_cores()) if is_local(rest) else 1
    started = start_worker(workers) if not flags.config and workers >= 1 else None
    from modelbeam.engines.run import Submitted
    from modelbeam.errors import NothingPredictedError
    from modelbeam.report.progress import left_running, summary, watcher
    from modelbeam.run import run_job

    job = _job(flags, rest, "predict")
    try:
        told = watcher(quiet=flags.quiet, progress=not flags.no_progress)
        sys.unraisablehook = _stop_again
        _on_stop(_end_the_job)
        done = run_job(job, told, started, choose=_cancel_or_leave)
    except NothingPredictedError as error:
        if flags.json:
            _print_json(error.run.description)
        raise
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "Stopped. What is done is kept. Run the same command with --resume to finish."
        ) from None
    if isinstance(done, Submitted):
        if flags.json:
            _print_json(done.to_dict())
        if not flags.quiet:
            print(printable(left_running(done)), file=sys.stderr)
        return 0
    if flags.json:
        _print_json(done.description)
    if not flags.quiet:
        print(printable(summary(done)), file=sys.stderr)
    return 0


def _cancel_or_leave(job: Any) -> bool:
    """After Ctrl-C: whether to cancel the job. Without a terminal nobody can be asked: it is."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    _on_stop(_end_the_job)  # a second Ctrl-C, at the question, cancels
    print(f"\nThe job runs on {job.engine}{f' ({job.link})' if job.link else ''}.", file=sys.stderr)
    try:
        while True:
            print("Cancel it, or leave it running? [c/l] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline().strip().lower()
            if answer in ("c", "cancel", "l", "leave"):
                return answer.startswith("c")
            if not answer:  # Enter, or the end of input
                return True
    except KeyboardInterrupt:
        return True


def _check(flags: argparse.Namespace, rest: list[str]) -> int:
    from modelbeam.report.check import check_job

    def note(text: str) -> None:
        if not flags.quiet and not flags.no_progress:
            print(f"modelbeam: {printable(text)}", file=sys.stderr)

    found = check_job(_job(flags, rest, "check"), note)
    if flags.json:
        _print_json(found.to_dict())
    elif not flags.quiet:
        _say(printable(found.to_text()))
    if found.engine is not None and not found.engine.healthy:
        return RequestError.exit_code
    return 1 if found.read and found.failed == found.read else 0


def _describe(flags: argparse.Namespace, rest: list[str]) -> int:
    from modelbeam.report.check import describe_model

    if rest:
        known = [f for f in flags_of("describe") if f.startswith("--")]
        raise RequestError(f"unknown flag {rest[0]}{did_you_mean(rest[0], known) or '.'}")
    info = describe_model(flags.model)
    if flags.json:
        _print_json(info.to_dict())
        return 0
    import json

    _say(f"name          {info.qualified_name}")
    _say(f"display name  {info.display_name}")
    _say(f"version       {info.version}")
    _say(f"description   {info.description}")
    _say(f"interface     {info.interface}, predicts by {info.style}")
    _say(f"package       {info.distribution or 'none (a module by itself)'}")
    for title, schema in (("input", info.input_schema), ("output", info.output_schema)):
        _say(f"{title} schema")
        shown = json.dumps(schema, indent=2) if schema else "not expressible as JSON Schema"
        _say("\n".join("  " + line for line in shown.splitlines()))
    return 0


def _package(flags: argparse.Namespace, rest: list[str]) -> int:
    from modelbeam.package.build import build
    from modelbeam.package.image import check_directory, write_dockerfile
    from modelbeam.package.listing import package_list

    if rest:
        known = [f for f in flags_of("package") if f.startswith("--")]
        raise RequestError(f"unknown flag {rest[0]}{did_you_mean(rest[0], known) or '.'}")
    if flags.output:
        check_directory(flags.output)
    packages = package_list(flags.models)
    written = []
    if flags.output:
        built = build(packages, flags.output)
        written = [*built.wheels, built.requirements, write_dockerfile(built)]
    if flags.json:
        files = [str(path) for path in written]
        _print_json({**packages.to_dict(), **({"written": files} if files else {})})
        return 0
    _say(packages.to_text())
    for path in written:
        print(f"written  {os.path.relpath(path)}", file=sys.stderr)
    return 0


def _completion(flags: argparse.Namespace, rest: list[str]) -> int:
    import shtab

    if rest:
        raise RequestError(f"unknown argument {rest[0]}. See modelbeam completion --help.")
    _say(shtab.complete(build_parser(), shell=flags.shell))
    return 0


def _print_json(value: dict[str, Any]) -> None:
    import json

    _say(json.dumps(value))


def _say(text: str) -> None:
    """Print to stdout; if what reads it has ended, as with ``| head``, there is no more to say."""
    global _unwritable
    try:
        print(text)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        _unwritable = error


_COMMANDS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "predict": _predict,
    "check": _check,
    "describe": _describe,
    "package": _package,
    "completion": _completion,
}
