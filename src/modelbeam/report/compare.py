"""``modelbeam compare``: two models over the same records in one pass, and where they differ.

The run is one of several models, into a directory beside the output that is removed at the end; so
all that holds for runs holds for it: engines, failures, resuming.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import orjson

from modelbeam import formats, storage
from modelbeam._version import RUN_SCHEMA
from modelbeam.errors import OutputExistsError, RequestError
from modelbeam.job.description import Job
from modelbeam.job.prepare import Watcher
from modelbeam.job.result import Run
from modelbeam.local.start import Started
from modelbeam.predicting.compare import Comparison
from modelbeam.report.page import drawn
from modelbeam.run import run_job
from modelbeam.sinks.files.output import Output
from modelbeam.storage import join

NAMED = 20
"""Records that the page shows, of those that differ most."""

_FIXED = {"keep": (), "rename": (), "route": None, "output_format": None, "detach": False}
"""Settings that a comparison decides itself."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A finished comparison.

    Attributes:
        run: of the two models.
        found: what was found, as ``--json`` prints it.
        output: the file of the records that differ most.
    """

    run: Run
    found: dict[str, Any]
    output: str


def compare_job(
    job: Job,
    label: str | None = None,
    most: int = 1000,
    watcher: Watcher | None = None,
    started: Started | None = None,
) -> Compared:
    """Run two models and compare them.

    Args:
        job: with two models; its output is the file of differences, or a directory for it.
        label: the input column that holds what is right.
        most: how many records are written.
        watcher: told how it goes.
        started: a process for the model that was started ahead.

    Raises:
        RequestError: it cannot be compared; nothing ran.
        JobError: the run failed.
    """
    _check(job, label, most)
    file, about, scratch = _places(job)
    if not (job.overwrite or job.resume):
        for path in (file, about):
            if storage.exists(path):
                raise OutputExistsError(
                    f"--output {job.output}: {path} exists already. Add --overwrite to replace it."
                )
    done = cast(Run, run_job(job.comparing(scratch), watcher, started))  # it is never detached
    names = (str(job.models[0].name), str(job.models[1].name))
    comparison = Comparison(names, label, _labels_are_texts(job), most)
    for path in done.shards:
        with storage.open_read(path) as handle:
            for line in handle:
                comparison.add(orjson.loads(line))
    failed = done.description["counts"]["models"]
    about_run = {k: v for k, v in done.description.items() if k not in ("output", "files")}
    found = {
        "schema": RUN_SCHEMA,
        **comparison.to_dict(),
        "read": done.read,
        "failed": {name: failed[name]["failed"] for name in names},
        "seconds": done.seconds,
        "output": file,
        "run": about_run,
    }
    storage.write_atomically(file, b"".join(orjson.dumps(x) + b"\n" for x in comparison.worst()))
    if done.errors:
        kept = f"{formats.strip_suffix(file)}.errors.jsonl"
        found["errors"] = kept if job.single_file else join(job.output, "errors.jsonl")
        parts = [(path, storage.stat(path).size) for path in done.errors]
        storage.concatenate(parts, found["errors"])
    page = _describe(job, done, found, [*comparison.worst()][:NAMED])
    if page is not None:
        found["report"] = page
    storage.write_atomically(about, json.dumps(found, indent=2).encode())
    storage.remove_tree(scratch)
    return Compared(done, found, file)


def _describe(
    job: Job, done: Run, found: dict[str, Any], worst: list[dict[str, Any]]
) -> str | None:
    """Write the description of the run beside what was found, and its page.

    Returns:
        The path of the page; ``None`` if there is none.
    """
    files = [found["output"], *([found["errors"]] if "errors" in found else [])]
    run = {
        **{key: value for key, value in done.description.items() if key != "job"},
        "output": job.output,
        "files": files,
        "request": job.request(),
        "inputs": done.description["job"]["inputs"],
        "comparison": {**found, "largest": worst},
    }
    output = Output(job.output, job.single_file, formats.Format("jsonl"))
    page = drawn(run, None) if job.report else None
    if page is not None:
        storage.write_atomically(output.report_file, page)
        run["report"] = output.report_file
    storage.write_atomically(output.run_file, json.dumps(run, indent=2).encode())
    return output.report_file if page is not None else None


def _check(job: Job, label: str | None, most: int) -> None:
    if len(job.models) != 2:
        raise RequestError(
            f"compare takes two models, each with a name: -m a=TARGET -m b=TARGET; it was given "
            f"{len(job.models)}."
        )
    for name, default in _FIXED.items():
        if getattr(job, name) != default:
            raise RequestError(
                f"--{name.replace('_', '-')} is not for compare: it writes the whole record and "
                f"both predictions of those that differ most."
            )
    if most < 0:
        raise RequestError("--most is a number of records, 0 or more.")
    if job.single_file and formats.from_suffix(job.output) != formats.Format("jsonl"):
        raise RequestError(
            f"--output {job.output}: the records that differ are written as JSON Lines; name a "
            f".jsonl file, or a directory."
        )
    names = {one.name for one in job.models}
    if label in names:
        raise RequestError(f"--label {label} is a model's name as well; give the model another.")


def _places(job: Job) -> tuple[str, str, str]:
    """The file of differences, what was found, and where the run itself writes."""
    if job.single_file:
        base = formats.strip_suffix(job.output)
        return job.output, f"{base}.comparison.json", f"{base}._comparing"
    return (
        join(job.output, "differences.jsonl"),
        join(job.output, "comparison.json"),
        join(job.output, "_comparing"),
    )


def _labels_are_texts(job: Job) -> bool:
    """Whether the inputs are of a format whose values are all texts."""
    if job.input_format is not None:
        return formats.parse(job.input_format, "--input-format").name == "csv"
    kinds = [formats.from_suffix(pattern) for pattern in job.inputs]
    return any(kind is not None and kind.name == "csv" for kind in kinds)


def to_text(compared: Compared) -> str:
    """For people."""
    found = compared.found
    one, other = found["models"]
    failed = found["failed"]
    lines = [
        f"{found['read']:,} records read, {found['compared']:,} predicted by both; failed: "
        f"{one} {failed[one]:,}, {other} {failed[other]:,}",
        f"agreement  {_share(found['agreement'])} of the records that both predicted",
    ]
    for name, column in found["columns"].items():
        lines.append(f"\n{name}: {_share(column['agreement'])} equal")
        if "confusion" in column:
            lines += _table(column["confusion"], one, other)
        if "differences" in column:
            lines += _distribution(column["differences"], one, other)
    for name, only in found["columns_of_one_only"].items():
        lines.append(f"\npredicted by {name} only: {', '.join(only)}")
    if label := found.get("label"):
        lines.append(f"\nagainst {label['column']}")
        for name in (one, other):
            said = label[name]
            lines.append(f"  {name}: {_quality(said)}")
    lines.append(f"\nthe records that differ most are in {compared.output}")
    if "errors" in found:
        lines.append(f"failed records in {found['errors']}")
    if "report" in found:
        lines.append(f"report in {found['report']}")
    return "\n".join(lines)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _quality(said: dict[str, Any]) -> str:
    of = f"{said['labelled']:,} records, column {said['predicted_column']}"
    if "accuracy" in said:
        return f"accuracy {_share(said['accuracy'])} of {of}"
    return (
        f"mean absolute error {said['mean_absolute']:.6g}, root mean square error "
        f"{said['root_mean_square'] or 0:.6g} of {of}"
    )


def _table(pairs: list[dict[str, Any]], one: str, other: str) -> list[str]:
    """A confusion table: a row for each value of the first model, a column for the second's."""
    rows = sorted({pair["first"] for pair in pairs})
    columns = sorted({pair["second"] for pair in pairs})
    counts = {(pair["first"], pair["second"]): pair["count"] for pair in pairs}
    cells = [[f"{one} \\ {other}", *columns]]
    cells += [[row, *(f"{counts.get((row, column), 0):,}" for column in columns)] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns) + 1)]
    return [
        "  " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in cells
    ]


def _distribution(said: dict[str, Any], one: str, other: str) -> list[str]:
    quantiles = {key: value for key, value in said["quantiles"].items() if value is not None}
    lines = [
        f"  {other} - {one}: mean {said['mean']:.6g}, mean absolute {said['mean_absolute']:.6g}, "
        f"largest {said['largest']:.6g}"
    ]
    if quantiles:
        text = "  ".join(f"{float(key):.0%} {value:.6g}" for key, value in quantiles.items())
        lines.append(f"  quantiles: {text}")
    if said["infinite"]:
        lines.append(f"  {said['infinite']:,} with NaN or infinity in one of them")
    return lines
