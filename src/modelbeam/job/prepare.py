"""From a job to all that running it needs: the plan, what resuming finds, the checks before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from modelbeam import formats, storage, text
from modelbeam.errors import (
    InputReadError,
    RequestError,
    ResumeError,
    SchemaMismatchError,
    TooManyErrorsError,
    did_you_mean,
)
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.layout import Layout
from modelbeam.formats.named import names_problem
from modelbeam.job import flags as options
from modelbeam.job.description import Job
from modelbeam.job.layout import (
    Named,
    Predict,
    columns_of,
    first_readable,
    layout_of,
    predicted_columns,
)
from modelbeam.job.result import Run
from modelbeam.job.task import Task, Totals
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
from modelbeam.models.options import FLAGS
from modelbeam.models.signature import WRONG_TYPE, missing_columns
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.renaming import check_rename
from modelbeam.profile.wants import Wants, rows_of_a_split
from modelbeam.sinks.files.output import Output, check_output
from modelbeam.sinks.files.publish import Publication, allowed_errors
from modelbeam.sinks.files.state import (
    JobRecord,
    check_resumable,
    earlier_plan,
    earlier_record,
)
from modelbeam.sources import source_of
from modelbeam.sources.splits import Split, default_split_size, in_shards, size_for_shards
from modelbeam.storage import FileInfo

FINER = 16
"""By how much smaller splits are tried, where there are fewer of them than shards."""

SAMPLE_RECORDS = 100
"""Records that are looked at before the job is started."""


class Watcher(Protocol):
    """What is told how the run goes: the progress bar, or nothing."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long; called a few times a second, before the rest."""

    def begin(self, plan: Plan) -> None:
        """The splits are known."""

    def update(self, totals: Totals) -> None:
        """Called ten times a second."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""

    def end(self) -> None:
        """The run is over, well or not."""


class Silent:
    """A watcher that says nothing."""

    def loading(self, seconds: float) -> None:
        """Say nothing."""

    def begin(self, plan: Plan) -> None:
        """Say nothing."""

    def update(self, totals: Totals) -> None:
        """Say nothing."""

    def lanes(self, progress: Any) -> None:
        """Say nothing."""

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Say nothing."""

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job comes to before it runs."""

    job: Job
    inputs: tuple[FileInfo, ...]
    splits: list[Split]
    split_size: int
    output: Output
    workers: int
    notes: tuple[str, ...] = ()
    """What a person should know of it: files that were left out."""
    layout: Layout | None = None
    """The output's columns, where all of its records have the same."""

    @property
    def bytes(self) -> int:
        """Bytes to be read, as they are stored."""
        return sum(info.size for info in self.inputs)


def check_places(job: Job, engine: str, example: str) -> None:
    """Refuse local paths where it is certain that the workers are on other machines.

    Of other engines the workers find out, and ``modelbeam check`` asks them.

    Args:
        job: what is to run.
        engine: its name for people.
        example: where files must be, such as ``gs://my-bucket``; empty if that is not certain.

    Raises:
        RequestError: a path is local and must not be.
    """
    if not example:
        return
    for flag, path in [*(("--input", path) for path in job.inputs), ("--output", job.output)]:
        if not storage.is_url(path):
            raise RequestError(
                f"{flag} {path} is on this machine, where {engine}'s workers do not see it. "
                f"Use a URL such as {example}/{path.strip('./').rsplit('/', 1)[-1]}."
            )


def output_of(job: Job) -> Output:
    """Where a job writes, and in which format."""
    if job.output == "-" or re.fullmatch(r"/dev/(stdout|stderr|fd/\d+|null)", job.output):
        raise RequestError(
            f"--output {job.output} is no file or directory; modelbeam commits and renames files: "
            f"name a file (predictions.jsonl), and print it afterwards."
        )
    output_format = (
        formats.parse(job.output_format, "--output-format")
        if job.output_format
        else formats.from_suffix(job.output) or formats.Format("jsonl")
    )
    return Output(job.output, job.single_file, output_format)


def make_plan(job: Job) -> Plan:
    """Find the inputs and cut them into splits, by their sizes alone.

    Raises:
        RequestError: an input matches nothing, or the output exists.
    """
    output = output_of(job)
    check_output(output, resume=job.resume, overwrite=job.overwrite)
    asked = formats.parse(job.input_format, "--input-format") if job.input_format else None
    source = source_of(job.inputs[0])
    source.configure(job.asked)
    earlier = earlier_record(output)[0] if job.resume else None
    inputs, notes, partitions = source.discover(
        job.inputs,
        any_suffix=asked is not None,
        excluded=[*output.own_files, *output.published()],
        earlier=earlier.inputs if earlier else None,
    )
    begun = earlier_plan(output) if earlier else None

    def cut(size: int | None) -> tuple[list[Split], int]:
        return source.plan(
            inputs,
            size,
            input_format=asked,
            earlier=begun,
            reading=job.reading,
            limit=job.limit,
            partitions=partitions,
        )

    size = (earlier.split_size if earlier else None) or job.split_size
    if job.shards is None:
        splits, split_size = cut(size)
    else:
        splits, split_size = _in_shards(job.shards, cut, inputs, size, planned=begun is not None)
    workers = job.workers or available_cores()
    if job.limit is not None:
        used = {piece.path for split in splits for piece in split.pieces}
        inputs = [info for info in inputs if info.path in used]
    return Plan(job, tuple(inputs), splits, split_size, output, workers, tuple(notes))


def _in_shards(
    shards: int,
    cut: Callable[[int | None], tuple[list[Split], int]],
    inputs: Sequence[FileInfo],
    size: int | None,
    *,
    planned: bool,
) -> tuple[list[Split], int]:
    """A plan with a split for each shard at least.

    Args:
        shards: how many are asked for.
        cut: makes a plan with splits of a size, and says what size it was.
        inputs: what is cut.
        size: of splits, if that is given or was chosen before.
        planned: whether the splits stand already; they are those of a run that is resumed.

    Raises:
        RequestError: the input cannot be cut into so many splits.
    """
    total = sum(info.size for info in inputs)
    if not planned:
        size = size_for_shards(total, size or default_split_size(inputs), shards)
    splits, used = cut(size)
    while len(splits) < shards and size is not None and size > 1 and not planned:
        size = max(1, size // FINER)
        splits, used = cut(size)
    if len(splits) < shards:
        raise RequestError(
            f"--shards {shards}: the input can be cut into {text.count(len(splits), 'part')} only. "
            f"Compressed files, arrays and row groups are not cut, nor is a record. Give "
            f"--shards {len(splits)} or fewer, or leave it out."
        )
    return in_shards(splits, shards), used


def make_record(plan: Plan, info: ModelInfo) -> JobRecord:
    """What resuming compares: everything that the predictions depend on."""
    job = plan.job
    settings = {
        "model": info.target,
        "model name": info.name,
        "model qualified name": info.qualified_name,
        "model version": info.version,
        "model code and files": info.fingerprint,
        "model arguments": job.model.arguments,
        **{FLAGS[name]: value for name, value in job.model.options.given().items()},
        "--keep": list(job.keep) if job.keep != "all" else "all",
        "--output-format": plan.output.format.suffix,
        "--batch-size": job.batch_size,
        "--max-record-size": job.max_record_size,
        **{flag: value for flag, value in job.reading.flags.items() if value is not None},
        **({"--rename": [f"{old}={new}" for old, new in job.rename]} if job.rename else {}),
        **({"--shards": job.shards} if job.shards is not None else {}),
        **({"--limit": job.limit} if job.limit is not None else {}),
        **_partition_of(plan),
        **_columns_of(plan.layout),
    }
    return JobRecord(settings, plan.split_size, plan.inputs)


def _partition_of(plan: Plan) -> dict[str, Any]:
    pieces = (piece for split in plan.splits for piece in split.pieces)
    names = {name for piece in pieces for name, _ in piece.partition}
    return {"columns of directories": sorted(names)} if names else {}


def _columns_of(layout: Layout | None) -> dict[str, Any]:
    if layout is None:
        return {}
    return {"output columns": [[c.name, str(c.type) if c.type else None] for c in layout]}


def make_task(plan: Plan, record: JobRecord) -> Task:
    """What every split is told."""
    job = plan.job
    return Task(
        state=plan.output.state,
        fingerprint=record.fingerprint,
        output=plan.output.format,
        keep=job.keep,
        batch_size=None if job.batch_size == "auto" else job.batch_size,
        max_record_size=job.max_record_size,
        record_timeout=job.record_timeout,
        max_crashes=job.max_crashes,
        asked=job.asked,
        layout=plan.layout,
        single=plan.output.single,
        rename=job.renames,
        again=job.again,
        profile=wants_of(plan),
        formats=_formats(plan),
    )


def wants_of(plan: Plan) -> Wants | None:
    """What is collected of each split for the report; ``None`` for nothing."""
    job = plan.job
    if not job.report or job.again is not None or job.compares:
        return None
    return Wants(rows_of_a_split(len(plan.splits)), job.report_examples, job.mask)


def make_publication(
    plan: Plan, record: JobRecord, info: ModelInfo, started: float, where: str, resumed: int = 0
) -> Publication:
    """What publishing is told."""
    runner = options.runner_of(plan.job.beam_options) or "DirectRunner"
    return Publication(
        output=plan.output,
        record=record,
        models=tuple(one.to_dict() for one in info.each),
        max_errors=plan.job.max_errors,
        runner=runner.rsplit(".", 1)[-1],
        workers=where,
        started=started,
        resumed=resumed,
        notes=plan.notes,
        request=plan.job.request(),
        report=plan.job.report and not plan.job.compares,  # a comparison has a page of its own
        profile=wants_of(plan),
        route=plan.job.route,
    )


def noted(plan: Plan, info: ModelInfo, predict: Predict) -> Plan:
    """The plan with all that is known once the model is loaded.

    Args:
        plan: as it was made by sizes.
        info: of the model.
        predict: predicts the first records of a piece, with the model.

    Raises:
        SchemaMismatchError: the model's columns are not those of the data.
        RequestError: the output's columns cannot be known.
    """
    warnings = [f"{warning}." for warning in info.warnings]
    starts = [p for split in plan.splits for p in split.pieces if p.start == 0]
    task = make_task(plan, make_record(plan, info))
    inputs = columns_of(starts, task)
    check_names(inputs, plan.job, info)
    if plan.job.rename:
        check_renamed(inputs, plan.job, info, task, predict)
    if info.members and plan.job.keep:
        check_models(inputs, plan, info, task, predict)
    plan = replace(plan, notes=(*plan.notes, *warnings, *check_fit(plan, info)))
    layout = layout_of(inputs, info, task, predict)
    problem = formats.find(plan.output.format.name).layout_problem(layout or ())
    if problem is not None:
        raise RequestError(f"--output {plan.output.path}: {problem}.")
    return replace(plan, layout=layout)


def check_names(inputs: Sequence[Named], job: Job, info: ModelInfo) -> None:
    """Refuse inputs with columns of one name, or without a name, where these are needed.

    Raises:
        RequestError: a file has such columns.
    """
    needed = Wanted(info.style, signature=info.signature).needed
    if info.route is not None and info.route not in needed:
        needed = (*needed, info.route)
    for piece, columns in inputs:
        problem = names_problem([c.name for c in columns or ()], needed, job.keep)
        if problem is not None:
            raise RequestError(f"--input {piece.path} {problem}.")


def check_renamed(
    inputs: Sequence[Named], job: Job, info: ModelInfo, task: Task, predict: Predict
) -> None:
    """Refuse ``--rename`` of what is not predicted, or to a name that another column has.

    Raises:
        RequestError: which name it is.
    """
    pieces = [named.piece for named in inputs]
    predicted = predicted_columns(pieces, info, replace(task, rename=()), predict)
    there = _input_columns(inputs, job)
    check_rename(job.renames, [column.name for column in predicted], job.keep, there)


def _input_columns(inputs: Sequence[Named], job: Job) -> set[str]:
    """The columns of the inputs, as far as they are known."""
    there = {column.name for named in inputs for column in named.columns or ()}
    if job.keep == "all":
        pieces = [named.piece for named in inputs]
        _, batch = first_readable(pieces, SAMPLE_RECORDS, Wanted("record", keep="all"))
        there.update(*batch.records().records)
    return there


def check_models(
    inputs: Sequence[Named], plan: Plan, info: ModelInfo, task: Task, predict: Predict
) -> None:
    """Refuse several models of which one is called like a kept column, in what is written.

    Raises:
        RequestError: which name it is, and what to do.
    """
    job = plan.job
    kept = _input_columns(inputs, job) if job.keep == "all" else set(job.keep)
    owners = {member.name: member.name for member in info.members}
    kind = formats.find(plan.output.format.name)
    if kind.same_columns and not kind.nests_models:
        pieces = [named.piece for named in inputs]
        predicted = predicted_columns(pieces, info, task, predict)
        owners = {
            column.name: next(n for n in owners if column.name.startswith(f"{n}."))
            for column in predicted
        }
    for column, name in owners.items():
        if column in kept:
            target = next(str(one.target) for one in info.members if one.name == name)
            raise RequestError(
                f"--model {name}={target}: '{column}' is a kept input column as well, and one "
                f"would hide the other; give the model another name, such as -m "
                f"{name}_model={target}, or choose the kept columns with --keep A,B."
            )


def distributions(plan: Plan, info: ModelInfo) -> tuple[str, ...]:
    """What workers need beside the model's package: what it named, formats', and the source's."""
    source = source_of(plan.job.inputs[0])
    return (*info.requires, *formats.brought_by(_formats(plan)), *source.requires)


def _formats(plan: Plan) -> tuple[str, ...]:
    used = {piece.format for split in plan.splits for piece in split.pieces}
    return tuple(sorted({*used, plan.output.format.name}))


def check_fit(plan: Plan, info: ModelInfo) -> list[str]:
    """Compare the columns that the model and ``--keep`` need with those of some records.

    Returns:
        A sentence for what the first records lack and others have: it is worth knowing, and the
        records that lack it become error lines.

    Raises:
        SchemaMismatchError: not one of the records that were looked at, at the beginning, in the
            middle and near the end of some of the inputs, has a column that all must have.
    """
    starts = [p for split in plan.splits for p in split.pieces if p.start == 0 and p.size]
    if not starts:
        return []
    found = _Columns(plan.job, info)
    wanted = Wanted("record", keep=plan.job.keep)
    start, batch = first_readable(starts, SAMPLE_RECORDS, wanted)
    found.look(batch)
    missing, looked = found.missing(), found.records
    if not missing or not looked:
        _check_types(starts, info)
        return []
    for piece in starts[:: max(1, len(starts) // SAMPLE_FILES)]:
        source = source_of(piece.path)
        with suppress(InputReadError):  # its reader says so, with all other files done
            found.look(source.first(piece, SAMPLE_RECORDS, wanted))
            for batch in source.elsewhere(piece):
                found.look(batch)
    columns = sorted(found.names)
    for what, names in found.missing().items():
        shown = ", ".join(_with_nearest(name, columns) for name in names)
        raise SchemaMismatchError(
            f"{what} {shown}, which none of the {found.records} records that were looked at has, "
            f"the first of them in {start.path}. Their columns are {', '.join(columns)}."
        )
    said = [c.name for one in info.each if one.signature for c in one.signature.null_without(())]
    whole = formats.find(start.format, start.reading).same_columns
    return [
        f"{what} {', '.join(map(repr, names))}, which none of the first {looked} records of "
        f"{start.path} has."
        + (
            ""
            if "--keep" in what
            else " It is null in files that lack it."
            if whole and set(names) <= set(said)
            else " Records that lack it become error lines."
        )
        for what, names in missing.items()
    ]


def _check_types(starts: Sequence[Piece], info: ModelInfo) -> None:
    """Refuse data whose columns are all of another type than a model of columns takes.

    Raises:
        SchemaMismatchError: a type is wrong in all of the first records of some of the inputs.
    """
    signature = info.signature
    if signature is None or not signature.typed:
        return
    wanted = Wanted("table", columns=tuple(signature.names), signature=signature)
    errors: list[str] = []
    for piece in starts[:: max(1, len(starts) // SAMPLE_FILES)]:
        batch = source_of(piece.path).first(piece, SAMPLE_RECORDS, wanted)
        decoded = batch.table(signature, lambda record: record)
        errors += [failure.error for failure in decoded.failures]
        if len(decoded.records) or not all(WRONG_TYPE in error for error in errors):
            return
    if errors:
        raise SchemaMismatchError(
            f"--model {info.target}: {errors[0]}, and so in all of the {len(errors)} records that "
            f"were looked at, the first of them in {starts[0].path}. Convert that column, or name "
            f"the right one."
        )


SAMPLE_FILES = 8
"""Inputs that are looked at where the first records of the first one lack a column."""


class _Columns:
    """The columns of the records that were looked at, and what they lack."""

    def __init__(self, job: Job, info: ModelInfo) -> None:
        self.names: set[str] = set()
        self.records = 0
        self._job, self._info = job, info
        self._lacking: dict[str, list[str]] | None = None

    def look(self, batch: Batch) -> None:
        """Look at some records."""
        records = batch.records().records
        if not records:
            return
        self.records += len(records)
        self.names.update(*records)
        lacking = {
            f"--model {one.target} needs": missing_columns(one.signature, records)
            for one in self._info.each
        }
        if self._info.route is not None:
            lacking["--route names"] = [n for n in [self._info.route] if n not in self.names]
        if self._job.keep != "all":
            lacking["--keep names"] = [n for n in self._job.keep if n not in self.names]
        before = self._lacking
        self._lacking = {
            what: [n for n in names if before is None or n in before[what]]
            for what, names in lacking.items()
        }

    def missing(self) -> dict[str, list[str]]:
        """Who needs what that no record has."""
        return {what: names for what, names in (self._lacking or {}).items() if names}


def _with_nearest(name: str, columns: list[str]) -> str:
    nearest = did_you_mean(name, columns).removeprefix("; ")
    return f"'{name}' ({nearest})" if nearest else f"'{name}'"


class Resumable:
    """What ``--resume`` finds.

    Attributes:
        done: the run, if it is finished already.
        resumes: whether there is an unfinished one to go on with.

    Raises:
        ResumeError: what is there was a different job, or cannot be resumed.
    """

    def __init__(self, plan: Plan, record: JobRecord) -> None:
        self.done: Run | None = None
        self.resumes = False
        if not plan.job.resume:
            return
        earlier, finished = earlier_record(plan.output)
        if earlier is None:
            return
        check_resumable(plan.output, earlier, record, finished=finished is not None)
        if finished is None:
            self.resumes = True
        elif finished["status"] == "succeeded":
            self.done = Run.of({**finished, "already_finished": True})
            check_max_errors(plan.job.max_errors, self.done)
        else:
            raise ResumeError(
                f"--resume: the run in {plan.output.path} ended without a prediction. Fix the "
                f"model or the data and run again with --overwrite."
            )


def check_max_errors(limit: str | None, run: Run) -> None:
    """Hold a limit against a run that was finished before.

    Raises:
        TooManyErrorsError: more of its records failed.
    """
    if limit is not None and run.failed > allowed_errors(limit, run.read):
        error = TooManyErrorsError(
            f"{run.failed} of {run.read} records failed in the finished run in {run.output}, more "
            f"than --max-errors {limit}. The error lines are in {', '.join(run.errors[:3])}."
        )
        error.run = run
        raise error


def kept_of(plan: Plan) -> str:
    """What a stop leaves, in a sentence or two."""
    done = plan.output.committed()
    if not done:
        return "Stopped. Nothing is kept, since no split was done."
    return (
        f"Stopped. {done} of {text.count(len(plan.splits), 'split')} are done and kept. "
        f"Run the same command with --resume to finish."
    )


def passed(limit: str | None, failed: int) -> bool:
    """Whether more records failed than a limit of ``N``; one of ``P%`` is for the end."""
    return limit is not None and not limit.endswith("%") and failed > int(limit)


SHARE_AFTER = 1_000
"""Records after which a limit of ``P%`` can end a run that goes on: of few one is many."""


def too_many_in_stream(
    limit: str | None, counts: Counts, kept: str, *, ended: bool
) -> TooManyErrorsError | None:
    """The error of a run that commits as it goes, if more records failed than a limit allows.

    Args:
        limit: ``N``, or ``P%`` of what this run has read: looked at once these are so many that it
            says something, and at the end.
        counts: of this run.
        kept: where its failed records are, in a sentence.
        ended: whether it has come to its own end.
    """
    failed = counts.most_failed
    if limit is None or failed <= allowed_errors(limit, counts.read):
        return None
    if limit.endswith("%") and not ended and counts.read < SHARE_AFTER:
        return None
    first = next(iter(counts.kinds), None)
    said = f" The first: {first.at}, {first.type}: {first.error}." if first is not None else ""
    return TooManyErrorsError(
        f"{failed:,} of {text.count(counts.read, 'record')} failed, more than --max-errors {limit}"
        f"{'' if ended else '; the run was stopped'}.{said} {kept}"
    )


def too_many_errors(limit: str | None, totals: Totals, output: Output) -> TooManyErrorsError | None:
    """The error for a limit of ``N`` that is passed while the job runs.

    A limit of ``P%`` is for the end, when it is known how many records there are.
    """
    failed = totals.counts.most_failed
    if not passed(limit, failed):
        return None
    examples = "; ".join(
        f"{kind.source} at byte {kind.place['offset']}, {kind.type}: {kind.error}"
        if "offset" in kind.place  # lines are those of a piece until the end
        else f"{kind.source}, {kind.type}: {kind.error}"
        for kind in totals.counts.kinds[:3]
    )
    return TooManyErrorsError(
        f"{text.count(failed, 'record')} failed so far, more than --max-errors {limit}; the job "
        f"was stopped. The first: {examples}. Nothing was published; the error lines of what was "
        f"done are in {output.error_lines}. Fix the data and use --overwrite, or allow more with "
        f"--resume --max-errors N."
    )
