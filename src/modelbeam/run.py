"""Running a job: from its description to a published output, or to one clear error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modelbeam import engines, formats
from modelbeam.commit import (
    JobRecord,
    Output,
    State,
    check_output,
    check_resumable,
    earlier_record,
    remove_state,
)
from modelbeam.errors import (
    JobError,
    ModelbeamError,
    NothingPredictedError,
    ResumeError,
    SchemaMismatchError,
    TooManyErrorsError,
    did_you_mean,
)
from modelbeam.job import Job, build_job
from modelbeam.models.base import ModelInfo
from modelbeam.models.signature import missing_columns
from modelbeam.plan import Split, default_split_size, find_inputs, plan_splits
from modelbeam.publish import Publication, finish, is_frozen
from modelbeam.spawn import Started, available_cores, collector_paused
from modelbeam.storage import FileInfo
from modelbeam.tasks import Task
from modelbeam.workers import Totals, WorkerPool

SAMPLE_RECORDS = 100
"""Records that are looked at before the job is started."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        read, predicted, failed: records; ``read == predicted + failed``.
        shards: the files of predictions, in the order of the input.
        errors: the files of error lines.
        output: where it all is.
        seconds: from start to finish.
        failures: for each stage and type of failure ``stage``, ``type``, ``count`` and the first
            one's ``source``, ``line``, ``offset`` and ``error``.
        description: all of ``run.json``.
    """

    read: int
    predicted: int
    failed: int
    shards: tuple[str, ...]
    errors: tuple[str, ...]
    output: str
    seconds: float
    failures: tuple[dict[str, Any], ...]
    description: dict[str, Any]

    @classmethod
    def of(cls, description: dict[str, Any]) -> Run:
        """Read it from the content of ``run.json``."""
        counts, files = description["counts"], description["files"]
        errors = tuple(f for f in files if _is_errors_file(f))
        return cls(
            read=counts["read"],
            predicted=counts["predicted"],
            failed=counts["failed"],
            shards=tuple(f for f in files if f not in errors),
            errors=errors,
            output=description["output"],
            seconds=description["seconds"],
            failures=tuple(description["failures"]),
            description=description,
        )


def _is_errors_file(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.startswith("errors-") or name.endswith(".errors.jsonl")


class Watcher(Protocol):
    """What is told how the run goes: the progress bar, or nothing."""

    def begin(self, plan: Plan) -> None:
        """The splits are known."""

    def update(self, totals: Totals) -> None:
        """Called ten times a second."""

    def end(self) -> None:
        """The run is over, well or not."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, plan: Plan) -> None:
        """Say nothing."""

    def update(self, totals: Totals) -> None:
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

    @property
    def bytes(self) -> int:
        """Bytes to be read, as they are stored."""
        return sum(info.size for info in self.inputs)


def make_plan(job: Job) -> Plan:
    """Find the inputs and cut them into splits, by their sizes alone.

    Raises:
        RequestError: an input matches nothing, or the output exists.
    """
    output_format = (
        formats.parse(job.output_format, "--output-format")
        if job.output_format
        else formats.from_suffix(job.output) or formats.Format("jsonl")
    )
    output = Output(job.output, job.single_file, output_format)
    check_output(output, resume=job.resume, overwrite=job.overwrite)
    inputs = find_inputs(
        job.inputs, any_suffix=job.input_format is not None, excluded=output.own_files
    )
    if job.input_format is None:
        for info in inputs:
            formats.from_suffix(info.path)  # a format that this version cannot read is an error
    earlier = earlier_record(output)[0] if job.resume else None
    split_size = (earlier.split_size if earlier else None) or job.split_size
    split_size = split_size or default_split_size(inputs)
    workers = job.workers or available_cores()
    return Plan(job, tuple(inputs), plan_splits(inputs, split_size), split_size, output, workers)


def make_record(plan: Plan, info: ModelInfo) -> JobRecord:
    """What resuming compares: everything that the predictions depend on."""
    job = plan.job
    settings = {
        "model": info.target,
        "model name": info.name,
        "model qualified name": info.qualified_name,
        "model version": info.version,
        "model arguments": job.model.arguments,
        "--keep": list(job.keep) if job.keep != "all" else "all",
        "--output-format": plan.output.format.suffix,
        "--batch-size": job.batch_size,
        "--max-record-size": job.max_record_size,
    }
    return JobRecord(settings, plan.split_size, plan.inputs)


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
    )


def make_publication(plan: Plan, record: JobRecord, info: ModelInfo, started: float) -> Publication:
    """What publishing is told."""
    runner = engines.runner_of(plan.job.beam_options) or "DirectRunner"
    return Publication(
        output=plan.output,
        record=record,
        model=info.to_dict(),
        max_errors=plan.job.max_errors,
        runner=runner.rsplit(".", 1)[-1],
        workers=f"workers of {runner}",
        started=started,
        resumed=0,
    )


def check_fit(plan: Plan, info: ModelInfo) -> None:
    """Compare the columns that the model and ``--keep`` need with those of the first records.

    Raises:
        SchemaMismatchError: not one of the first records has a column that all must have.
    """
    from modelbeam.formats import jsonl

    for split in plan.splits:
        if split.start == 0 and split.size:
            block = jsonl.first_block(split.path, split.compression, SAMPLE_RECORDS)
            records = jsonl.decode_records(block).records
            columns = sorted({name for record in records for name in record})
            wanted = {f"--model {info.target} needs": missing_columns(info.signature, records)}
            if plan.job.keep != "all" and records:
                wanted["--keep names"] = [n for n in plan.job.keep if n not in columns]
            for what, missing in wanted.items():
                if missing:
                    raise SchemaMismatchError(
                        f"{what} {', '.join(_with_nearest(name, columns) for name in missing)}, "
                        f"which none of the first {len(records)} records of {split.path} has. "
                        f"Their columns are {', '.join(columns)}."
                    )
            return


def _with_nearest(name: str, columns: list[str]) -> str:
    nearest = did_you_mean(name, columns).removeprefix("; ")
    return f"'{name}' ({nearest})" if nearest else f"'{name}'"


def run_job(job: Job, watcher: Watcher | None = None, started: Started | None = None) -> Run:
    """Run a job to its end.

    Args:
        job: what to do.
        watcher: told of the plan and the progress.
        started: a process for the model that was started ahead.

    Raises:
        RequestError: the request is wrong; nothing ran.
        JobError: the job failed; what was done is kept for ``resume``.
        KeyboardInterrupt: Ctrl-C; all processes are gone when this is raised.
    """
    now = time.time()
    engines.check_flags(job.beam_options)
    plan = make_plan(job)
    if not engines.is_local(job.beam_options):
        return _run_remote(plan, now)
    return _LocalRun(plan, watcher or Silent(), now, started).run()


class _LocalRun:
    """One run on Beam's local runner, with the model in processes of its own.

    The model's process and Beam's import start at the same moment; the pipeline begins and waits
    until the model is loaded and everything is checked. Nothing is written before that.
    """

    def __init__(self, plan: Plan, watcher: Watcher, now: float, started: Started | None) -> None:
        self._plan, self._watcher, self._started = plan, watcher, now
        job = plan.job
        self._pool = WorkerPool(job.model, plan.workers, job.worker_mode, started)

    def run(self) -> Run:
        state: State | None = None
        pool = self._pool
        try:
            pipeline = threading.Thread(target=self._pipeline, name="pipeline", daemon=True)
            pipeline.start()
            info = pool.wait_loaded()
            check_fit(self._plan, info)
            record = make_record(self._plan, info)
            resumable = Resumable(self._plan, record)
            if resumable.done is not None:
                remove_state(self._plan.output)  # if a crash left a rest of it
                return resumable.done
            state = State(self._plan.output, record, fresh=not resumable.resumes)
            if is_frozen(self._plan.output):
                return finished_run(finish(self._plan.output))
            self._watcher.begin(self._plan)
            publication = make_publication(self._plan, record, info, self._started)
            pool.open(make_task(self._plan, record), len(self._plan.splits), publication)
            self._wait()
        except BaseException:
            pool.close(kill=True)
            if state is not None:
                state.discard_if_empty()
            raise
        finally:
            self._watcher.end()
            pool.close(kill=True)
            if state is not None:
                state.close()
        return finished_run(pool.run)

    def _pipeline(self) -> None:
        """Run Beam in its own thread, so that the main one can always answer Ctrl-C."""
        plan, pool = self._plan, self._pool
        try:
            with collector_paused():
                import apache_beam as beam

                from modelbeam.pipeline import PredictSplit, PublishSplits, build

            threads = min(len(plan.splits), plan.workers * 2)
            options = engines.local_options(plan.job.beam_options, threads)
            pipeline = beam.Pipeline(options=options)
            work = PredictSplit(plan.job.model, None, pool.name)
            build(pipeline, plan.splits, work, PublishSplits(plan.splits, None, pool.name))
            pipeline.run().wait_until_finish()
            if pool.run is None:
                raise JobError("The pipeline ended without publishing. Run again with --resume.")
        except BaseException as error:
            pool.stop(error)  # of no effect after the first failure

    def _wait(self) -> None:
        pool = self._pool
        limit = self._plan.job.max_errors
        while not pool.wait_finished(0.1):
            totals = pool.totals()
            self._watcher.update(totals)
            if limit is not None and not limit.endswith("%") and totals.counts.failed > int(limit):
                raise too_many_errors(limit, totals)
        if pool.failure is not None:
            raise pool.failure


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
        else:
            raise ResumeError(
                f"--resume: the run in {plan.output.path} ended with every record failed. Mend "
                f"the model or the data and run again with --overwrite."
            )


def too_many_errors(limit: str, totals: Totals) -> TooManyErrorsError:
    """The error for a limit that is passed while the job runs."""
    examples = "; ".join(
        f"{kind.source} at byte {kind.offset}, {kind.type}: {kind.error}"
        for kind in totals.counts.kinds[:3]
    )
    return TooManyErrorsError(
        f"{totals.counts.failed} records failed so far, more than --max-errors {limit}; the job "
        f"was stopped. The first: {examples}. Nothing was published; mend the data and use "
        f"--overwrite, or allow more with --resume --max-errors N."
    )


def finished_run(description: dict[str, Any] | None) -> Run:
    """The run that a description tells of.

    Raises:
        NothingPredictedError: there were records and every one failed.
    """
    if description is None:
        raise JobError("The pipeline ended without publishing. Run again with --resume.")
    run = Run.of(description)
    if run.description["status"] != "succeeded":
        first = run.failures[0]
        error = NothingPredictedError(
            f"Not one of {run.read} records could be predicted. The first: {first['source']}:"
            f"{first['line']} {first['type']}: {first['error']}. All of them are in "
            f"{run.errors[0]}{' and others' if len(run.errors) > 1 else ''}."
        )
        error.run = run  # type: ignore[attr-defined]
        raise error
    return run


def _run_remote(plan: Plan, now: float) -> Run:
    """Run on another runner: its workers load the model and publish by themselves.

    The state directory must be visible to all of them, and the model installed where they are.
    """
    import apache_beam as beam

    from modelbeam.pipeline import PredictSplit, PublishSplits, build

    job = plan.job
    pool = WorkerPool(job.model, 1, "threads")
    try:
        info = pool.wait_loaded()
    finally:
        pool.close()
    check_fit(plan, info)
    record = make_record(plan, info)
    resumable = Resumable(plan, record)
    if resumable.done is not None:
        return resumable.done
    state = State(plan.output, record, fresh=not resumable.resumes)
    try:
        if is_frozen(plan.output):
            return finished_run(finish(plan.output))
        publication = make_publication(plan, record, info, now)
        pipeline = beam.Pipeline(options=engines.remote_options(job.beam_options))
        work = PredictSplit(job.model, make_task(plan, record), None)
        build(pipeline, plan.splits, work, PublishSplits(plan.splits, publication, None))
        try:
            pipeline.run().wait_until_finish()
        except ModelbeamError:
            raise
        except Exception as error:
            raise JobError(f"The job failed on {publication.runner}: {error}") from error
    except BaseException:
        state.discard_if_empty()
        raise
    finally:
        state.close()
    _, description = earlier_record(plan.output)
    return finished_run(description)


def predict(
    *,
    model: str | dict[str, Any],
    input: str | list[str],
    output: str,
    input_format: str | None = None,
    output_format: str | None = None,
    keep: Literal["all"] | list[str] | None = None,
    batch_size: int | Literal["auto"] | None = None,
    workers: int | None = None,
    worker_mode: Literal["auto", "threads", "processes"] | None = None,
    max_errors: int | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    split_size: int | str | None = None,
    max_record_size: int | str | None = None,
    beam_options: list[str] | None = None,
    on_progress: Callable[[Totals], None] | None = None,
) -> Run:
    """Run a model over files; the same as ``modelbeam predict``.

    Args:
        model: ``[NAME=]module:Class``, or ``{"target": …, "arguments": {…}}``.
        input: paths, globs, directories or URLs.
        output: one file if it has a data suffix, else a directory of shards.
        input_format: by default read off the suffixes.
        output_format: by default read off the suffix, else JSON Lines.
        keep: input columns that stand beside the predictions.
        batch_size: records a call for models that take batches.
        workers: cores to use; all by default.
        worker_mode: threads or processes; what pays for this model by default.
        max_errors: ``N`` or ``"P%"``: fail once more records than this failed.
        resume: finish an earlier run of the same job.
        overwrite: replace an output that exists.
        split_size: bytes a split, such as ``"64MB"``.
        max_record_size: bytes that a record may have.
        beam_options: flags for Beam's ``PipelineOptions``.
        on_progress: called ten times a second with the totals so far.

    Returns:
        The finished run.

    Raises:
        RequestError: the request is wrong; nothing ran.
        JobError: the job failed; ``resume=True`` continues it.
    """
    job = build_job(
        {
            "models": [model],
            "inputs": input,
            "output": output,
            "input_format": input_format,
            "output_format": output_format,
            "keep": keep,
            "batch_size": batch_size,
            "workers": workers,
            "worker_mode": worker_mode,
            "max_errors": max_errors,
            "resume": resume,
            "overwrite": overwrite,
            "split_size": split_size,
            "max_record_size": max_record_size,
            "beam_options": beam_options,
        }
    )
    watcher = Silent()
    if on_progress is not None:
        watcher.update = on_progress  # type: ignore[method-assign, assignment]
    return run_job(job, watcher)
