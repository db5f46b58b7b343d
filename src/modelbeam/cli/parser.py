"""All commands and flags; also what completion and the generated pages read."""

from __future__ import annotations

import argparse
import copy
import re
import sys
from typing import Any, NoReturn

from modelbeam._version import __version__
from modelbeam.errors import RequestError
from modelbeam.text import fold

_EPILOGS = {
    "modelbeam": """\
examples:
  modelbeam predict --model iris_model.iris_predict:IrisModel \
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
    "compare": """\
examples:
  modelbeam compare -m old=churn:Old -m new=churn.onnx -i data/*.csv -o differences.jsonl
  modelbeam compare -m old=churn:Old -m new=churn.onnx -i data/*.csv -o out/ --label churned
""",
    "retry": """\
examples:
  modelbeam retry out/
  modelbeam retry predictions.csv --model models/mended.joblib
""",
    "runs": """\
examples:
  modelbeam runs
  modelbeam runs nightly/ s3://bucket/predictions --depth 1
  modelbeam runs out/ --json

A run is found by what it leaves: run.json, predictions.run.json beside a single file, _modelbeam of
one that has not ended. A directory that holds a run is not looked into any further; nor are hidden
directories, links, and what is more than --depth directories below.

status: succeeded, failed; running; broken: it did not end, finish it with --resume; unfinished: it
is another machine's, which may still be at work; idle: a streaming run that nobody reads for now.
""",
    "report": """\
examples:
  modelbeam report out/
  modelbeam report predictions.jsonl --baseline yesterday.jsonl
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
    "config": """\
examples:
  modelbeam config --config job.yaml --keep id
  modelbeam config --schema > modelbeam.schema.json
""",
    "explain": """\
examples:
  modelbeam explain MB101
  modelbeam explain ColumnClashError
  modelbeam explain
""",
    "completion": """\
example:
  eval "$(modelbeam completion bash)"

It goes into ~/.bashrc; with zsh instead of bash, into ~/.zshrc, after compinit.
""",
}


class HelpFormatter(argparse.HelpFormatter):
    """Wraps where the terminal does: sentences between words, commands as a shell takes them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        del indent
        return "\n".join(
            part
            for block in re.split(r"\n(?=\n|  )|\n(?<=\n\n)", text.rstrip())
            for part in _folded(block, width)
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return fold(" ".join(text.split()), width).splitlines()


class FewFormatter(HelpFormatter):
    """Each flag in a line of its own, its value named once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = _SHORT_VALUES.get(action.dest, action.metavar)
        return f"{', '.join(action.option_strings)} {value}"


_SHORT_VALUES = {"models": "TARGET"}


def _folded(block: str, width: int) -> list[str]:
    """A sentence or two, or a command with two spaces before it, in lines that fit."""
    if not block.startswith("  "):
        return [fold(" ".join(block.split()), width)]
    if len(block) <= width:
        return [block]
    lines: list[str] = []
    for piece in re.split(r" (?=-)", block):  # a flag stays with its value
        if lines and len(lines[-1]) + len(piece) + 3 <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"      {piece}" if lines else piece)
    return [" \\\n".join(lines)]


FEW = {
    "models": "module:Class, module:function, a model file, directory or URL",
    "inputs": "a path, a glob, a directory or a URL; repeatable",
    "output": "a file by its suffix (.jsonl, .csv.gz), else a directory",
    "keep": "input columns that stand beside the predictions",
    "limit": "only the first N records: a trial run",
    "max_errors": "fail once more records than this failed",
    "label": "the input column of what is right",
    "resume": "finish a run that did not end, or failed",
    "overwrite": "replace an output that exists",
    "streaming": "go on as data arrives, until stopped",
    "batch_size": "records per model call, for models that take batches",
    "workers": "workers on this machine; default: one a core",
    "config": "the same settings from a YAML file",
    "schema": "the JSON Schema of configuration files, for editors",
    "json": "the result as one JSON object on stdout",
    "quiet": "neither progress nor summary",
    "verbose": "tracebacks and Beam's log",
    "help_all": "all flags: formats, errors, Kafka, speed, models",
}
"""What ``--help`` shows of a command that has many flags, by the names of the settings, in so few
words that it all fits a screen of 80 columns and 40 lines."""

_USAGE = "-m TARGET -i PATTERN -o PATH [...]"

_END_OF_FEW = """
Any other flag goes to Beam: --runner, --region ... See modelbeam {command} --help-all.

exit codes: 0 finished, 1 the job failed, 2 the request is wrong, 130 stopped.
"""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one paragraph, with exit code 2.

    Of a command with many flags ``--help`` shows the :data:`FEW`, and ``--help-all`` all.
    """

    def format_help(self) -> str:
        """What ``--help`` prints."""
        actions = {action.dest: action for action in self._actions}
        if "help_all" not in actions:
            return self.format_help_all()
        formatter = FewFormatter(self.prog)
        formatter.add_usage(f"%(prog)s {_USAGE}", self._actions, [])
        formatter.add_text(self.description)
        formatter.start_section("the flags that matter")
        for name, said in FEW.items():
            if name in actions:
                shown = copy.copy(actions[name])
                shown.help = said
                formatter.add_argument(shown)
        formatter.end_section()
        examples = (self.epilog or "").partition("\n\n")[0]
        formatter.add_text(examples + "\n" + _END_OF_FEW.format(command=self.prog.split()[-1]))
        return formatter.format_help()

    def format_help_all(self) -> str:
        """What ``--help-all`` prints."""
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}. See {self.prog} --help.")


class _HelpAll(argparse.Action):
    """Prints all flags, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        made = parser.format_help_all() if isinstance(parser, Parser) else parser.format_help()
        parser._print_message(made, sys.stdout)
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags; also what completion and the generated documentation read."""
    parser = _parser(
        None,
        "modelbeam",
        "Run any ML model over any data as an Apache Beam pipeline: on this machine, or with\n"
        "Beam's options on Flink, Spark or Dataflow.",
    )
    parser.add_argument("--version", action="version", version=f"modelbeam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    predict = _parser(commands, "predict", "Run a model over files and write the predictions.")
    _job_flags(predict)
    _model_flags(predict)
    _talk_flags(predict, progress=True)
    check = _parser(
        commands,
        "check",
        "Everything but the run: load the model, try the first records, print the plan.",
    )
    _job_flags(check)
    _model_flags(check)
    _talk_flags(check, progress=True)
    compare = _parser(
        commands,
        "compare",
        "Run two models over the same records; print where they agree, write where they do not.",
    )
    _job_flags(compare)
    _model_flags(compare)
    _talk_flags(compare, progress=True)
    add = compare.add_argument_group("the comparison").add_argument
    add("--label", metavar="COLUMN",
        help="the input column of what is right: the accuracy or error of each")  # fmt: skip
    add("--most", metavar="N", type=int, default=1000,
        help="how many of the records that differ most are written; default: 1000")  # fmt: skip
    retry = _parser(
        commands, "retry", "Predict the failed records of a finished run again, in their places."
    )
    retry.add_argument("output", metavar="OUTPUT", help="the --output of the run")
    retry.add_argument("-m", "--model", dest="models", metavar="[NAME=]TARGET",
        help=_MODEL_HELP + "; default: the run's")  # fmt: skip
    retry.add_argument("--workers", metavar="N", type=int,
        help="workers on this machine; default: one a core")  # fmt: skip
    retry.add_argument("--max-errors", metavar="N|P%",
        help="leave the output as it is if more records than this still fail")  # fmt: skip
    _talk_flags(retry, progress=True)
    runs = _parser(
        commands, "runs", "List the runs below some directories: finished, broken and running ones."
    )
    runs.add_argument("places", metavar="DIR", nargs="*",
        help="a directory, an output or a URL; default: the working directory")  # fmt: skip
    runs.add_argument("--depth", metavar="N", type=int, default=3,
        help="how many directories below it are looked into, one in the other; "
        "default: 3")  # fmt: skip
    runs.add_argument("--schema", action="store_true",
        help="print the JSON Schema of run.json instead")  # fmt: skip
    _talk_flags(runs, progress=False)
    report = _parser(
        commands, "report", "Draw the report of a run again, also of one that is not finished."
    )
    report.add_argument("output", metavar="OUTPUT", help="the --output of the run")
    report.add_argument("--baseline", metavar="RUN",
        help="compare with another run: its output")  # fmt: skip
    _talk_flags(report, progress=False)
    report.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    describe = _parser(
        commands, "describe", "Print a model's name, version, description and schemas."
    )
    describe.add_argument("-m", "--model", metavar="TARGET", required=True, help=_MODEL_HELP)
    _model_flags(describe)
    _talk_flags(describe, progress=False)
    package = _parser(
        commands, "package", "Show what workers need for a model, and how each of it travels."
    )
    package.add_argument("-m", "--model", dest="models", action="append", required=True,
        metavar="TARGET", help=_MODEL_HELP + "; repeatable")  # fmt: skip
    package.add_argument("-o", "--output", metavar="DIR",
        help="write wheels, requirements.txt and a Dockerfile there")  # fmt: skip
    _model_flags(package)
    _talk_flags(package, progress=False)
    config = _parser(
        commands, "config", "Print the settings of a job, from its file and its flags; run nothing."
    )
    _job_flags(config)
    _model_flags(config)
    _talk_flags(config, progress=False)
    config.add_argument_group("the schema").add_argument("--schema", action="store_true",
        help="the JSON Schema of configuration files, for editors")  # fmt: skip
    explain = _parser(
        commands, "explain", "Say what the code at the end of an error means, and what to do."
    )
    explain.add_argument("what", metavar="CODE", nargs="?",
        help="a code (MB101) or the type of an error or of a failed record; all of them if it is "
        "left out")  # fmt: skip
    explain.add_argument("--json", action="store_true", help="the same as one JSON object")
    completion = _parser(commands, "completion", "Print a completion script for your shell.")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    return parser


_MODEL_HELP = "a class or function as module:name, a model file, a directory or a URL"


def _parser(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    settings: dict[str, Any] = {
        "description": summary,
        "epilog": _EPILOGS[name],
        "formatter_class": HelpFormatter,
        "allow_abbrev": False,
    }
    if commands is None:
        return Parser(prog=name, **settings)
    made: argparse.ArgumentParser = commands.add_parser(name, help=summary, **settings)
    return made


def _job_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS,
        help="show all flags and exit")  # fmt: skip
    add = parser.add_argument_group("the job").add_argument
    add("-m", "--model", dest="models", action="append", metavar="[NAME=]TARGET",
        help=_MODEL_HELP + "; NAME is what error lines call it; repeatable")  # fmt: skip
    add("-i", "--input", dest="inputs", action="append", metavar="PATTERN",
        help="a path, a glob, a directory or a URL that Beam knows; repeatable")  # fmt: skip
    add("-o", "--output", metavar="PATH",
        help="with a data suffix (.jsonl, .jsonl.gz ...) one file, else a directory")  # fmt: skip
    add("--input-format", metavar="FORMAT",
        help="jsonl (ldjson, ndjson), json, csv ...; by default read off the suffix")  # fmt: skip
    add("--output-format", metavar="FORMAT",
        help="jsonl, json, csv, parquet, csv.gz ...; by default read off the suffix")  # fmt: skip
    add("--delimiter", metavar="CHAR",
        help="CSV: what separates fields (';', tab ...); by default found out")  # fmt: skip
    add("--encoding", metavar="NAME", help="CSV: latin-1, cp1252 ...; default: UTF-8")
    add("--columns", metavar="A,B,C", help="CSV: the columns of files without a header")
    add("--keep", metavar="all|COL,COL",
        help="input columns carried into the output beside the predictions")  # fmt: skip
    add("--rename", action="append", metavar="OLD=NEW",
        help="another name for a predicted column; repeatable")  # fmt: skip
    add("--route", metavar="COLUMN",
        help="with several models: a record goes to the one that this column names")  # fmt: skip
    add("--shards", metavar="N", type=int,
        help="so many output files of about equal size, in a directory")  # fmt: skip
    add("--limit", metavar="N", type=int, help="only the first N records of the input: a trial run")
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
    add("--max-wait", metavar="SECONDS", type=float,
        help="on Flink, Spark ...: cancel a job that waits so long and finishes no split; default: "
        "1800 where the engine tells that it waits, else no limit")  # fmt: skip
    add("--no-packages", dest="packages", action="store_false", default=None,
        help="on Flink, Spark ...: the workers have the model and its libraries installed; "
        "send nothing, only check")  # fmt: skip
    add("--config", metavar="FILE", help="the same settings from a YAML file; a flag wins over it")
    add = parser.add_argument_group("the report").add_argument
    add("--no-report", dest="report", action="store_false", default=None,
        help="collect nothing for a report, and draw none")  # fmt: skip
    add("--report-examples", metavar="N", type=int,
        help="so many failed or odd records of a kind are in the report; 0: no record; "
        "default: 5")  # fmt: skip
    add("--mask", metavar="COL,COL", help="columns of which no value is in the report")
    add("--baseline", metavar="RUN|last",
        help="compare with an earlier run: its output, or the last run of this one")  # fmt: skip
    add("--fail-on-drift", metavar="LIMIT", type=float,
        help="exit with 1, the output kept, if a column's population stability index against the "
        "baseline is larger; 0.25 is a large change")  # fmt: skip
    add("--metrics-file", metavar="PATH",
        help="write the figures of the run there, as Prometheus reads them")  # fmt: skip
    add = parser.add_argument_group("streaming and Kafka").add_argument
    add("--streaming", action="store_true", default=None,
        help="go on as data arrives, until stopped; otherwise up to what is there now")  # fmt: skip
    add("--errors", metavar="URL",
        help="where failed records go: kafka://HOST:PORT/TOPIC")  # fmt: skip
    add("--errors-format", choices=["original", "json"], metavar="FORM",
        help="an error record holds the original bytes (original, the default), or an error "
        "line as in files (json)")  # fmt: skip
    add("--stop-after", metavar="TIME", help="end a streaming run after 30s, 5m, 1h ...")
    add("--stop-when-idle", metavar="TIME",
        help="end a streaming run when nothing came for 30s, 5m, 1h ...")  # fmt: skip
    add("--metrics-port", metavar="[HOST:]PORT",
        help="while a streaming run goes on, answer /metrics (Prometheus) and /health there; for "
        "this machine alone unless a host is named (0.0.0.0:9100)")  # fmt: skip
    add("--stall-after", metavar="TIME",
        help="/health turns bad when there is something to read and nothing was committed for so "
        "long; default: 60s")  # fmt: skip
    add("--settle", metavar="TIME",
        help="streaming: a file, or a model that has changed, is taken once it has been still for "
        "so long; default: 10s")  # fmt: skip
    add("--segment", metavar="TIME",
        help="streaming from a topic into files: a segment is closed so long after its first "
        "record came; default: 1m")  # fmt: skip
    add("--segment-records", metavar="N", type=int,
        help="and before that once it holds so many records; default: 1000000")  # fmt: skip
    add("--state", metavar="DIR",
        help="streaming from files into a topic: where it is kept which files are in it; default: "
        "a directory of yours on this machine")  # fmt: skip
    add("--from", dest="start_from", metavar="earliest|latest|TIME",
        help="where a group without offsets begins; default: earliest")  # fmt: skip
    add("--group", metavar="NAME",
        help="consumer group; default: made of the model's name and the output")  # fmt: skip
    add("--kafka-config", metavar="FILE",
        help="librdkafka's settings, a name=value a line: TLS, SASL ...")  # fmt: skip
    add("--delivery", choices=["exactly-once", "at-least-once"], metavar="HOW",
        help="exactly-once (the default), with transactions, or at-least-once")  # fmt: skip
    add("--on-data-loss", choices=["fail", "earliest"], metavar="HOW",
        help="when records are gone before they were read: fail (the default), or go on at "
        "the earliest")  # fmt: skip
    add = parser.add_argument_group("speed and size").add_argument
    add("--batch-size", metavar="auto|N",
        help="records per model call, for models that take batches; default: auto")  # fmt: skip
    add("--workers", metavar="N", type=int, help="workers on this machine; default: one a core")
    add("--worker-mode", choices=["auto", "threads", "processes"], metavar="MODE",
        help="what workers on this machine are: threads, processes, or auto (the default), "
        "what pays for this model")  # fmt: skip
    add("--split-size", metavar="SIZE",
        help="bytes per split (64MB); default: by the size of the input, 1MB to 64MB")  # fmt: skip
    add("--max-record-size", metavar="SIZE",
        help="a longer line is a failed record; default: 32MB")  # fmt: skip


def _model_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the model").add_argument
    add("--features", metavar="COL,COL",
        help="the model's columns in its order, for a model that does not know them")  # fmt: skip
    add("--proba", action="store_true", default=None,
        help="class probabilities beside the class")  # fmt: skip
    add("--trusted-type", dest="trusted_types", action="append", metavar="NAME",
        help="a type in a .skops file that may be built, though skops does not know it; "
        "repeatable")  # fmt: skip
    add("--allow-version-mismatch", action="store_true", default=None,
        help="run a model that another version of its library has saved")  # fmt: skip


def _talk_flags(parser: argparse.ArgumentParser, *, progress: bool) -> None:
    add = parser.add_argument_group("output and logging").add_argument
    add("--json", action="store_true", help="the result as one JSON object on stdout")
    if progress:
        add("--no-progress", action="store_true", help="no progress bar or lines")
        add("-q", "--quiet", action="store_true", help="neither progress nor summary")
    add("-v", "--verbose", action="store_true", help="tracebacks and Beam's log")


def flags_of(command: str) -> list[str]:
    """Every flag of a command, short ones included."""
    parser = build_parser()
    subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    actions = subparsers.choices[command]._actions
    return [flag for action in actions for flag in action.option_strings]
