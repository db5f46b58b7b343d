"""Running a job: from its description to a published output, or to one clear error."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, overload

from typing_extensions import Required, TypedDict, Unpack

from modelbeam import engines, storage
from modelbeam.calls import as_arguments, in_arguments
from modelbeam.engines.lanes import RemoteLanes
from modelbeam.engines.run import Choice, RemoteRun, Submitted, always_cancel, busy, still_running
from modelbeam.errors import ModelbeamError, OutputExistsError, RequestError
from modelbeam.job.description import Job, build_job, listening_place
from modelbeam.job.prepare import Plan, Silent, Watcher, check_places, make_plan, output_of
from modelbeam.job.result import Run
from modelbeam.job.task import Totals
from modelbeam.kafka import address
from modelbeam.local.arriving import ArrivingRun, ArrivingWatcher
from modelbeam.local.forwarding import ForwardingRun
from modelbeam.local.into_topic import IntoTopicRun
from modelbeam.local.lanes import LanesWatcher
from modelbeam.local.monitor import monitored
from modelbeam.local.run import LocalRun
from modelbeam.local.segments import SegmentsRun, SegmentsWatcher
from modelbeam.local.start import Started
from modelbeam.local.stream import StreamRun
from modelbeam.notebook import bar_of
from modelbeam.sources import source_of


def run_job(
    job: Job,
    watcher: Watcher | None = None,
    started: Started | None = None,
    choose: Choice = always_cancel,
) -> Run | Submitted:
    """Run a job to its end, or until it is left running on its engine.

    Args:
        job: what to do.
        watcher: told of the plan and the progress.
        started: a process for the model that was started ahead.
        choose: asked, after Ctrl-C, whether to cancel a job that runs on an engine.

    Raises:
        RequestError: the request is wrong; nothing ran.
        JobError: the job failed; what was done is kept for ``resume``.
        KeyboardInterrupt: Ctrl-C; all processes are gone when this is raised.
    """
    if job.metrics_port is not None:
        raise RequestError(
            "--metrics-port is for runs that go on; add --streaming, or leave it out."
        )
    now = time.time()
    if address.is_topic(job.output):
        job = job.model_copy(update={"report": False})  # there is no place for one
    engines.check_flags(job.beam_options)
    storage.configure(job.beam_options)
    told = watcher or Silent()
    # by its name: what draws stands above what runs
    after = importlib.import_module(AFTER).Aftermath(job, told.note) if _is_told(job) else None
    try:
        done = _run_job(job, told, now, started, choose)
    except ModelbeamError as error:
        if after is not None:
            after.failed(error)
        raise
    if after is not None and isinstance(done, Run):
        after.finished(done)
    return done


AFTER = "modelbeam.report.after"
"""What is done once a run is over."""


def _is_told(job: Job) -> bool:
    return (job.report and not job.compares) or job.metrics_file is not None


def _run_job(
    job: Job, watcher: Watcher, now: float, started: Started | None, choose: Choice
) -> Run | Submitted:
    engine = engines.engine_of(job.beam_options)
    if engine is not None:
        if address.is_topic(job.output):
            raise RequestError(
                "--output: files go into a topic from this machine; leave the --runner out."
            )
        check_places(job, engine.title, engine.example_url)
        added = engine.preflight(job.beam_options)
        plan = _planned(job.on_any_machine())
        done = RemoteRun(plan, added, watcher, now, choose, started).run()
        if isinstance(done, Run):
            source_of(job.inputs[0]).finished(plan.inputs)
        return done
    if job.detach:
        raise RequestError("--detach is for jobs on an engine; give a --runner with it.")
    if address.is_topic(job.output):
        try:
            return IntoTopicRun(job, watcher or Silent(), now, started).run()
        finally:
            if started is not None:  # whatever became of it
                started.end()
    plan = _planned(job)
    running = still_running(plan.output)
    if running is not None:
        raise busy(plan.output, running)
    run = LocalRun(plan, watcher, now, started).run()
    source_of(job.inputs[0]).finished(plan.inputs)
    return run


def stream_job(
    job: Job,
    watcher: StreamWatcher,
    started: Started | None = None,
    asked: threading.Event | None = None,
) -> Run | Submitted:
    """Run a job that goes on as data arrives, or goes from topic to topic.

    It runs to its end, or until it is left running on its engine.

    Args:
        job: what to do.
        watcher: told how it goes.
        started: a process for the model that was started ahead.
        asked: set when a person wants the model to be loaded anew.

    Raises:
        RequestError: the request is wrong; nothing ran.
        JobError: it failed; what is committed stays, and the same job goes on from there.
    """
    now = time.time()
    place = listening_place(job.metrics_port) if job.metrics_port is not None else None
    try:
        with monitored(watcher, place, job.stall_after, job.inputs[0]) as told:
            return _streamed(job, told, started, now, asked or threading.Event())
    finally:
        if started is not None:  # whatever became of it
            started.end()


def _streamed(
    job: Job,
    watcher: StreamWatcher,
    started: Started | None,
    now: float,
    asked: threading.Event,
) -> Run | Submitted:
    engines.check_flags(job.beam_options)
    storage.configure(job.beam_options)
    from_topic = any(map(address.is_topic, job.inputs))
    if engines.engine_of(job.beam_options) is not None:
        if not from_topic and address.is_topic(job.output):
            raise RequestError(
                "--output: files go into a topic from this machine; leave the --runner out."
            )
        if not address.is_topic(job.output):
            raise RequestError(
                "--streaming into files is done on this machine; leave the --runner out. Several "
                "machines may write the same directory: each "
                f"{'record' if from_topic else 'file'} is in it once."
            )
        return RemoteLanes(job, watcher, now, started).run()
    if job.detach:
        raise RequestError("--detach is for jobs on an engine; give a --runner with it.")
    if address.is_topic(job.output):
        run = StreamRun if from_topic else ForwardingRun
        return run(job, watcher, now, started, asked).run()
    kind = SegmentsRun if from_topic else ArrivingRun
    return kind(job, watcher, now, started, asked).run()


def is_stream(job: Job) -> bool:
    """Whether a job goes on as data arrives, or goes from topic to topic."""
    from_topic = any(map(address.is_topic, job.inputs))
    return job.streaming or (from_topic and address.is_topic(job.output))


class StreamWatcher(LanesWatcher, ArrivingWatcher, SegmentsWatcher, Protocol):
    """What is told how a stream goes."""


def _planned(job: Job) -> Plan:
    """The plan; of an output that a job on an engine still writes it is said which job."""
    try:
        return make_plan(job)
    except OutputExistsError:
        output = output_of(job)
        running = still_running(output)
        if running is None:
            raise
        raise busy(output, running) from None


class Settings(TypedDict, total=False):
    """What :func:`predict` takes beside ``detach``; see there."""

    model: Required[Any]
    input: Required[str | list[str]]
    output: Required[str]
    input_format: str | None
    output_format: str | None
    delimiter: str | None
    encoding: str | None
    columns: list[str] | None
    keep: Literal["all"] | list[str] | None
    rename: dict[str, str] | list[str] | None
    route: str | None
    shards: int | None
    limit: int | None
    batch_size: int | Literal["auto"] | None
    workers: int | None
    worker_mode: Literal["auto", "threads", "processes"] | None
    record_timeout: float | None
    max_crashes: int | None
    max_wait: float | None
    max_errors: int | str | None
    streaming: bool
    errors: str | None
    errors_format: Literal["original", "json"] | None
    stop_after: float | str | None
    stop_when_idle: float | str | None
    settle: float | str | None
    segment: float | str | None
    segment_records: int | None
    state: str | None
    start_from: str | None
    group: str | None
    kafka_config: str | None
    delivery: Literal["exactly-once", "at-least-once"] | None
    on_data_loss: Literal["fail", "earliest"] | None
    metrics_port: int | str | None
    stall_after: float | str | None
    resume: bool
    overwrite: bool
    split_size: int | str | None
    max_record_size: int | str | None
    packages: bool
    beam_options: list[str] | None
    features: list[str] | None
    proba: bool
    trusted_types: list[str] | None
    allow_version_mismatch: bool
    report: bool
    report_examples: int | None
    mask: list[str] | None
    baseline: str | None
    fail_on_drift: float | None
    metrics_file: str | None
    on_progress: Callable[[Totals], None] | None
    progress: bool | None


@overload
def predict(*, detach: Literal[False] = False, **settings: Unpack[Settings]) -> Run: ...


@overload
def predict(*, detach: Literal[True], **settings: Unpack[Settings]) -> Submitted: ...


@overload
def predict(*, detach: bool, **settings: Unpack[Settings]) -> Run | Submitted: ...


def predict(
    *,
    model: Any,
    input: str | list[str],
    output: str,
    input_format: str | None = None,
    output_format: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    columns: list[str] | None = None,
    keep: Literal["all"] | list[str] | None = None,
    rename: dict[str, str] | list[str] | None = None,
    route: str | None = None,
    shards: int | None = None,
    limit: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    workers: int | None = None,
    worker_mode: Literal["auto", "threads", "processes"] | None = None,
    record_timeout: float | None = None,
    max_crashes: int | None = None,
    max_wait: float | None = None,
    max_errors: int | str | None = None,
    streaming: bool = False,
    errors: str | None = None,
    errors_format: Literal["original", "json"] | None = None,
    stop_after: float | str | None = None,
    stop_when_idle: float | str | None = None,
    settle: float | str | None = None,
    segment: float | str | None = None,
    segment_records: int | None = None,
    state: str | None = None,
    start_from: str | None = None,
    group: str | None = None,
    kafka_config: str | None = None,
    delivery: Literal["exactly-once", "at-least-once"] | None = None,
    on_data_loss: Literal["fail", "earliest"] | None = None,
    metrics_port: int | str | None = None,
    stall_after: float | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    split_size: int | str | None = None,
    max_record_size: int | str | None = None,
    detach: bool = False,
    packages: bool = True,
    beam_options: list[str] | None = None,
    features: list[str] | None = None,
    proba: bool = False,
    trusted_types: list[str] | None = None,
    allow_version_mismatch: bool = False,
    report: bool = True,
    report_examples: int | None = None,
    mask: list[str] | None = None,
    baseline: str | None = None,
    fail_on_drift: float | None = None,
    metrics_file: str | None = None,
    on_progress: Callable[[Totals], None] | None = None,
    progress: bool | None = None,
) -> Run | Submitted:
    """Run a model over files; the same as ``modelbeam predict``.

    Args:
        model: ``[NAME=]module:Class``, a class, a function or a fitted model itself, or
            ``{"target": …, "arguments": {…}}``; or a list of them, each with a name.
        input: paths, globs, directories or URLs.
        output: one file if it has a data suffix, else a directory of shards.
        input_format: by default read off the suffixes.
        output_format: by default read off the suffix, else JSON Lines.
        delimiter: between fields of CSV; found out by default.
        encoding: of CSV; UTF-8 by default.
        columns: of CSV files without a header.
        keep: input columns that stand beside the predictions.
        rename: names of predicted columns in the output, by the name that the model gives them.
        route: with several models, the column that names the model of a record.
        shards: how many files of predictions a directory gets; by default as many as come of
            cutting the input.
        limit: only so many records, the first ones.
        batch_size: records per call for models that take batches.
        workers: on this machine; by default one a core.
        worker_mode: what they are: threads or processes; by default what pays for this model.
        record_timeout: seconds that a record may take; one that takes longer is a failed record.
        max_crashes: how many records may kill the model's process or run out of time; 10 by
            default.
        max_wait: seconds that a job on an engine may wait without going on; then it is cancelled.
            1800 by default where the engine tells that it waits, else no limit.
        max_errors: ``N`` or ``"P%"``: fail once more records than this failed.
        streaming: go on as data arrives, in a topic or as files, until stopped.
        errors: the topic where failed records go, if the output is a topic.
        errors_format: whether an error record holds the original bytes, which is the default, or an
            error line as in files.
        stop_after: seconds, or such as ``"5m"``, after which a streaming run ends.
        stop_when_idle: seconds without anything new after which a streaming run ends.
        settle: seconds that a file must be still before a streaming run takes it; 10 by default.
        segment: seconds, or such as ``"5m"``, after which a segment of a topic is closed; a minute
            by default.
        segment_records: how many records close it before; a million by default.
        state: of a streaming run of files into a topic, the directory that holds which files are in
            it; by default one of this user on this machine.
        start_from: ``earliest``, ``latest`` or a time: where a group without offsets begins.
        group: the consumer group; made of the model's name and the output by default.
        kafka_config: a file of librdkafka's settings.
        delivery: exactly once by default.
        on_data_loss: what to do when records are gone before they were read; fail by default.
        metrics_port: where a streaming run answers ``/metrics`` and ``/health``: a port of this
            machine, or ``"HOST:PORT"``.
        stall_after: seconds after which ``/health`` turns bad if there is something to read and
            nothing was committed; 60 by default.
        resume: finish an earlier run of the same job.
        overwrite: replace an output that exists.
        split_size: bytes per split, such as ``"64MB"``.
        max_record_size: bytes that a record may have.
        detach: submit to an engine and return at once.
        packages: whether an engine's workers are sent what the model needs.
        beam_options: flags for Beam's ``PipelineOptions``.
        features: the model's columns in its order, where the model does not know them.
        proba: whether class probabilities stand beside the class.
        trusted_types: types in a ``.skops`` file that may be built.
        allow_version_mismatch: whether a model of another version of its library is run.
        report: whether is collected what a report shows, and the report drawn.
        report_examples: how many failed or odd records of a kind are in the report; 5 by default.
        mask: columns of which no value is in the report.
        baseline: the output of an earlier run to compare with, or ``"last"``.
        fail_on_drift: raise if a column's population stability index is larger.
        metrics_file: where the figures of the run are written, as Prometheus reads them.
        on_progress: called ten times a second with the totals so far.
        progress: whether a bar is shown; by default in a notebook, if ``on_progress`` is not given.

    Returns:
        The finished run; with ``detach`` the job that was left running.

    Raises:
        RequestError: the request is wrong; nothing ran.
        JobError: the job failed; ``resume=True`` continues it.
    """
    settings: dict[str, Any] = {
        "models": model,
        "inputs": input,
        "output": output,
        "input_format": input_format,
        "output_format": output_format,
        "delimiter": delimiter,
        "encoding": encoding,
        "columns": columns,
        "keep": keep,
        "rename": rename,
        "route": route,
        "shards": shards,
        "limit": limit,
        "batch_size": batch_size,
        "workers": workers,
        "worker_mode": worker_mode,
        "record_timeout": record_timeout,
        "max_crashes": max_crashes,
        "max_wait": max_wait,
        "max_errors": max_errors,
        "streaming": streaming,
        "errors": errors,
        "errors_format": errors_format,
        "stop_after": stop_after,
        "stop_when_idle": stop_when_idle,
        "settle": settle,
        "segment": segment,
        "segment_records": segment_records,
        "state": state,
        "start_from": start_from,
        "group": group,
        "kafka_config": kafka_config,
        "delivery": delivery,
        "on_data_loss": on_data_loss,
        "metrics_port": metrics_port,
        "stall_after": stall_after,
        "resume": resume,
        "overwrite": overwrite,
        "split_size": split_size,
        "max_record_size": max_record_size,
        "detach": detach,
        "packages": packages,
        "beam_options": beam_options,
        "features": features,
        "proba": proba or None,
        "trusted_types": trusted_types,
        "allow_version_mismatch": allow_version_mismatch or None,
        "report": report,
        "report_examples": report_examples,
        "mask": mask,
        "baseline": baseline,
        "fail_on_drift": fail_on_drift,
        "metrics_file": metrics_file,
    }
    given = {**settings, "model": model, "input": input}
    try:
        job = build_job(settings)
        shown = False if on_progress is not None and progress is None else progress
        watcher = bar_of(shown, lambda text: as_arguments(text, given))
        if is_stream(job):
            return stream_job(job, watcher)
        if on_progress is not None:
            watcher.update = _both(watcher.update, on_progress)  # type: ignore[method-assign, assignment]
        return run_job(job, watcher)
    except (ModelbeamError, KeyboardInterrupt) as error:
        in_arguments(error, given)
        raise


def _both(
    one: Callable[[Totals], None], other: Callable[[Totals], None]
) -> Callable[[Totals], None]:
    """What tells both."""

    def tell(totals: Totals) -> None:
        one(totals)
        other(totals)

    return tell
