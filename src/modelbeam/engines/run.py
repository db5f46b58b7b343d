"""Running a job on an engine: submit it, follow it to its end or leave it, find it again."""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from modelbeam import engines, storage
from modelbeam.beam import causes
from modelbeam.engines.base import Engine, RemoteJob, Status
from modelbeam.errors import (
    EngineError,
    EngineUnreachableError,
    InterruptedRunError,
    JobError,
    JobNotFoundError,
    ModelbeamError,
    OutputExistsError,
    RequestError,
    WorkerDiedError,
)
from modelbeam.job import flags as options
from modelbeam.job.deaths import Deaths
from modelbeam.job.description import Job
from modelbeam.job.prepare import (
    Plan,
    Resumable,
    Watcher,
    distributions,
    make_publication,
    make_record,
    make_task,
    noted,
    too_many_errors,
)
from modelbeam.job.result import Run, finished_run
from modelbeam.job.task import Totals
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.models.base import ModelInfo
from modelbeam.package.staging import Staged, stage
from modelbeam.sinks.files.manifest import Manifest, to_json
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.publish import finish, is_frozen
from modelbeam.sinks.files.state import (
    JobRecord,
    State,
    begun_record,
    check_resumable,
    earlier_record,
)
from modelbeam.sources.splits import PLAN_FILE, to_lines
from modelbeam.storage import join

POLL_SECONDS = 1.0
"""Between two questions to the engine, at most; a young job is asked more often."""

_YOUNG_SHARE = 0.05
"""Of its age, the most that a job's end may be noticed late."""

WAIT_SECONDS = 8.0
"""After how long of waiting a person is told for what."""

MAX_WAIT_SECONDS = 1800.0
"""How long a job may wait, by its engine's own word, if nothing else is asked for."""

WAIT_AGAIN_SECONDS = 60.0
"""When the same is told once more."""

PATIENCE_SECONDS = 120.0
"""How long an engine may not answer before the submitting process gives up on it."""

Choice = Callable[[RemoteJob], bool]
"""Asks, after Ctrl-C, whether to cancel the job (else it is left running)."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was left running on its engine.

    Attributes:
        engine: its name.
        name: the job's there.
        link: its page, or ``None``.
        output: where the predictions will be.
    """

    engine: str
    name: str
    link: str | None
    output: str

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "status": "submitted",
            "engine": self.engine,
            "job": self.name,
            "link": self.link,
            "output": self.output,
        }


def always_cancel(_: RemoteJob) -> bool:
    """The choice where nobody can be asked."""
    return True


def check_detach(job: Job, engine: Engine) -> None:
    """Refuse to leave a job that ends with this process.

    Raises:
        RequestError: it would.
    """
    if job.detach and not engine.outlives(job.beam_options):
        raise RequestError(
            "--detach: the job would end with this process, which its workers or its job server "
            "are a part of. Leave --detach out, or give the job a cluster."
        )


class RemoteRun:
    """One run on an engine.

    Args:
        plan: the job's.
        added: flags that the engine's preflight found.
        watcher: told of the progress.
        now: when it started, in seconds since the epoch.
        choose: asked after Ctrl-C.
        started: a process for the model that was started ahead, for one worker.
    """

    def __init__(
        self,
        plan: Plan,
        added: list[str],
        watcher: Watcher,
        now: float,
        choose: Choice,
        started: Started | None,
    ) -> None:
        self._plan, self._watcher, self._started, self._choose = plan, watcher, now, choose
        self._added, self._process = added, started
        self._job = plan.job
        self._flags = plan.job.beam_options
        self._engine = engines.remote_engine(self._flags)
        self._name = os.urandom(8).hex()
        self._staged: Staged | None = None
        self._resumed = 0
        self._deaths = Deaths(plan.output.state, self._name, plan.job.max_crashes)

    def run(self) -> Run | Submitted:
        """Run it.

        Raises:
            RequestError: the request is wrong; nothing was submitted.
            JobError: the job failed.
            InterruptedRunError: it was cancelled.
        """
        check_detach(self._job, self._engine)
        info = self._load()
        record = make_record(self._plan, info)
        running = still_running(self._plan.output)
        if running is not None:
            if not self._job.resume:
                raise busy(self._plan.output, running)
            self._check_same(record)
            self._watcher.note(f"the job is still running on {running.engine}: following it")
            self._watcher.begin(self._plan)
            return self._follow(running)
        resumable = Resumable(self._plan, record)
        if resumable.done is not None:
            return resumable.done
        state = State(self._plan.output, record, fresh=not resumable.resumes)
        try:
            if is_frozen(self._plan.output):
                return finished_run(finish(self._plan.output))
            self._watcher.begin(self._plan)
            for note in self._plan.notes:
                self._watcher.note(note)
            return self._submit_and_follow(info, record)
        except (JobError, RequestError) as error:
            if not isinstance(error, EngineUnreachableError):
                state.discard_if_empty()
            raise
        finally:
            self._watcher.end()
            state.close()

    def _submit_and_follow(self, info: ModelInfo, record: JobRecord) -> Run | Submitted:
        """Submit it, and again with care if workers died while they predicted."""
        apart = self._engine.is_loopback(self._flags)
        before: frozenset[str] | None = None
        while True:
            try:
                return self._follow(self._submit(info, record, apart))
            except WorkerDiedError:
                traces = self._deaths.traces()
                if traces == before:  # not one split was begun this time
                    raise
                before, apart = traces, True
                self._watcher.note(
                    "a worker died while it predicted: submitting the job again, with the model "
                    "in processes of its own"
                )
                self._watcher.begin(self._plan)

    def _load(self) -> ModelInfo:
        """Load the model here, in a process that ends again, to see that it can be."""
        pool = WorkerPool(self._job.model, 1, "threads", self._process)
        try:
            info = pool.wait_loaded(self._watcher.loading)
            self._plan = noted(self._plan, info, pool.sample)
            return info
        finally:
            self._watcher.end()
            pool.close(kill=True)

    def _check_same(self, record: JobRecord) -> None:
        """Only the same job is followed.

        It has perhaps committed nothing yet, and is to replace an output that is still there.
        """
        output = self._plan.output
        with suppress(FileNotFoundError):  # it has just been published
            check_resumable(output, begun_record(output), record, finished=False)

    def _submit(self, info: ModelInfo, record: JobRecord, apart: bool) -> RemoteJob:
        from modelbeam.beam.chain import build_remote
        from modelbeam.beam.on_worker import WorkerJob
        from modelbeam.beam.options import remote_options
        from modelbeam.beam.private import new_pipeline

        output = self._plan.output
        if self._staged is None:
            self._staged = stage(
                self._job,
                self._watcher.note,
                distributions(self._plan, info),
                loopback=self._engine.is_loopback(self._flags),
            )
            self._resumed = output.committed()
        staged = self._staged
        storage.write_atomically(join(output.state, PLAN_FILE), to_lines(self._plan.splits))
        bare = replace(record, inputs=())  # the workers read them from the state
        work = WorkerJob(
            model=self._job.model.filled(),
            task=make_task(self._plan, record),
            publication=make_publication(
                self._plan, bare, info, self._started, self._engine.title, self._resumed
            ),
            splits=len(self._plan.splits),
            versions=staged.versions,
            flags=options.storage_flags(self._flags),
            run=self._name,
            apart=apart,
        )
        defaults = [f"--job_name={unique_name(info)}", *staged.flags, *self._added]
        if info.style != "table":
            defaults += self._engine.process_flags(self._flags)
        made = remote_options(self._flags, defaults)
        flags = [*self._flags, *defaults]
        pipeline = new_pipeline(made)
        build_remote(pipeline, work)
        job = self._engine.submit(pipeline, flags)
        if job.identity:
            storage.write_atomically(join(output.state, _IDENTITY), to_json(job.identity))
        self._watcher.note(f"submitted to {job.engine} as {job.name}")
        return job

    def _follow(self, job: RemoteJob) -> Run | Submitted:
        """Follow it to its end, unless it is to be left."""
        try:
            if self._job.detach:
                return self._left(job)
            return self._followed(job)
        except KeyboardInterrupt:
            self._watcher.end()  # nothing is to be drawn over the question
            if not self._engine.outlives(self._flags) or self._choose(job):
                try:
                    self._cancel(job)
                except EngineError as error:
                    raise InterruptedRunError(
                        f"Stopped. The job may go on: {error}. Run the same command with --resume "
                        f"to follow it, or to finish it if it ended."
                    ) from None
                raise InterruptedRunError(
                    f"The job was cancelled on {job.engine}. What is done is kept. Run the same "
                    f"command with --resume to finish."
                ) from None
            return self._left(job)
        finally:
            self._watcher.end()
            job.close()

    def _left(self, job: RemoteJob) -> Submitted:
        return left(job, self._plan.output.path)

    def _cancel(self, job: RemoteJob) -> None:
        """Cancel it and wait for its end, so that nothing is written after this returns."""
        job.cancel()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if job.poll().over:
                    return
            except EngineError:
                return
            time.sleep(POLL_SECONDS / 4)

    def _followed(self, job: RemoteJob) -> Run:
        counted = _Counted(self._plan)
        linked = False
        waiting = _Waiting(job.engine)
        for status in self._statuses(job):
            totals = counted.update(status)
            if job.link and not linked:
                linked = True
                self._watcher.note(f"its page: {job.link}")
            self._watcher.update(totals)
            if told := waiting.told(status, totals):
                self._watcher.note(told)
            limit = self._job.max_wait or (MAX_WAIT_SECONDS if status.waits else None)
            if limit is not None and waiting.seconds > limit:
                self._cancel(job)
                raise JobError(
                    f"The job waited {waiting.seconds:.0f} s for {job.engine} and was cancelled "
                    f"(--max-wait): {waiting.reason}. What is done is kept. Run the same command "
                    f"with --resume to finish."
                )
            if error := too_many_errors(self._job.max_errors, totals, self._plan.output):
                self._cancel(job)
                raise error
            if status.over:
                break
        finished = self._published()
        if finished is not None:
            return finished_run(finished)
        raise self._failure(job, status)

    def _statuses(self, job: RemoteJob) -> Iterator[Status]:
        """What the engine answers, again and again; that it does not for a while is no failure."""
        began = time.monotonic()
        silent_since = None
        while True:
            try:
                status = job.poll()
                silent_since = None
                yield status
            except JobNotFoundError:
                if self._published() is not None:
                    yield Status("done")
                raise JobError(
                    f"{job.engine} no longer knows the job {job.name}; it may have been "
                    f"restarted. What is done is kept. Run the same command with --resume."
                ) from None
            except EngineUnreachableError as error:
                silent_since = silent_since or time.monotonic()
                if self._published() is not None:
                    yield Status("done")
                if time.monotonic() - silent_since > PATIENCE_SECONDS:
                    raise EngineUnreachableError(
                        f"Lost {job.engine}: {error}. The job {job.name} may go on. Run the "
                        f"same command with --resume to follow it, or to finish it if it ended."
                    ) from None
            age = time.monotonic() - began
            time.sleep(min(POLL_SECONDS, 0.1 + _YOUNG_SHARE * age))

    def _published(self) -> dict[str, Any] | None:
        """The description of this very run, once it is published and its state is gone.

        Until then the output that it replaces is there.
        """
        output = self._plan.output
        if storage.exists(join(output.state, PLAN_FILE)):
            return None
        _, description = earlier_record(output)
        return description

    def _failure(self, job: RemoteJob, status: Status) -> ModelbeamError:
        where = f" ({job.link})" if job.link else ""
        again = "What is done is kept. Run the same command with --resume to finish."
        if status.state == "cancelled":
            return JobError(f"The job was cancelled on {job.engine}{where}. {again}")
        if status.state == "done":
            return JobError(
                f"The job ended on {job.engine}{where}, and {self._plan.output.path} does not hold "
                f"its result. Is it on storage that the workers share with this machine? {again}"
            )
        try:
            text = job.cause()
        except EngineError as unreachable:
            text = str(unreachable)
        failure = causes.decode(text)
        kind = JobError if failure or not self._deaths.traces() else WorkerDiedError
        failure = failure or kind(
            f"The job failed on {job.engine}{where}: {causes.paragraph(text)}. {again}"
        )
        failure.details = text
        return failure


def left(job: RemoteJob, output: str) -> Submitted:
    """What there is to say of a job that is left running."""
    with suppress(EngineError):
        job.poll()  # for the link, if the engine has it already
    return Submitted(job.engine, job.name, job.link, output)


def end_of(job: RemoteJob, status: Status, again: str) -> ModelbeamError:
    """The error for a job that was cancelled or has failed, as the engine tells it.

    Args:
        job: which one.
        status: its last one.
        again: a sentence on what to do.
    """
    where = f" ({job.link})" if job.link else ""
    if status.state == "cancelled":
        return JobError(f"The job was cancelled on {job.engine}{where}. {again}")
    try:
        text = job.cause()
    except EngineError as unreachable:
        text = str(unreachable)
    failure = causes.decode(text) or JobError(
        f"The job failed on {job.engine}{where}: {causes.paragraph(text)}. {again}"
    )
    failure.details = text
    return failure


_IDENTITY = "engine.json"
"""In the state directory: how to find the job that was submitted."""


def still_running(output: Output) -> RemoteJob | None:
    """The job that an earlier process submitted for this output, if its engine still runs it.

    An engine that does not answer is taken for one that is gone: should the job go on after all,
    the commit protocol keeps the output whole.
    """
    path = join(output.state, _IDENTITY)
    if not storage.exists(path):
        return None
    try:
        identity = json.loads(storage.read_bytes(path))
        job = engines.find(identity["engine"]).attach(identity)
        if not job.poll().over:
            return job
        job.close()
    except (EngineError, ValueError, KeyError):
        return None
    return None


def busy(output: Output, job: RemoteJob) -> OutputExistsError:
    """The error for an output that a job on an engine still writes."""
    where = f", {job.link}" if job.link else ""
    return OutputExistsError(
        f"--output {output.path}: the job {job.name} is still running on {job.engine}{where}. "
        f"Add --resume to follow it, or cancel it there first."
    )


def unique_name(info: ModelInfo) -> str:
    """Unique, and such that every engine takes it (Dataflow: lower case, digits and dashes)."""
    model = re.sub(r"[^a-z0-9]+", "-", info.name.lower()).strip("-")[:30]
    user = re.sub(r"[^a-z0-9]+", "-", _user().lower()).strip("-")[:12]
    stamp = time.strftime("%m%d-%H%M%S", time.gmtime())
    parts = [part for part in ("modelbeam", model, user, stamp, os.urandom(2).hex()) if part]
    return "-".join(parts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


class _Waiting:
    """Tells for what a job waits, when it has waited for a moment, and again once in a while."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._since: float | None = None
        self._said: str | None = None
        self._due = 0.0
        self.reason = ""

    @property
    def seconds(self) -> float:
        """How long it has waited by now, at a stretch."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def told(self, status: Status, totals: Totals) -> str | None:
        """A line, if it is time for one."""
        begun = totals.splits > 0 or totals.counts.read > 0
        if status.over or (begun and status.waits is None):
            self._since = self._said = None
            return None
        now = time.monotonic()
        self._since = self._since or now
        self.reason = reason = status.waits or (
            "no split is done yet. The workers install packages and load the model first; if "
            "they do not start at all, 'modelbeam check' with the same flags tells why"
        )
        if now - self._since < WAIT_SECONDS or (reason == self._said and now < self._due):
            return None
        self._said, self._due = reason, now + WAIT_AGAIN_SECONDS
        return f"waiting for {self._engine} for {now - self._since:.0f} s: {reason}"


class _Counted:
    """Totals while a job runs: the engine's own figures, and the manifests as far as they go.

    Engines differ in what they tell before a task ends; the manifests, where this machine sees
    them, are as exact as can be. Listing them is done at most a tenth of the time.
    """

    def __init__(self, plan: Plan) -> None:
        self._directory = join(plan.output.state, "manifests")
        self._bytes = {split.key + ".json": split.bytes for split in plan.splits}
        self._seen: set[str] = set()
        self._totals = Totals()
        self._due = 0.0

    def update(self, status: Status) -> Totals:
        """The totals by now."""
        began = time.monotonic()
        if began >= self._due:
            for name in storage.names_in(self._directory):
                if name.endswith(".json") and name not in self._seen:
                    self._read(name)
            self._due = time.monotonic() + 9 * (time.monotonic() - began)
        totals = self._totals.copy()
        totals.tasks = status.tasks
        totals.splits = min(max(totals.splits, status.splits or 0), len(self._bytes))
        totals.counts.read = max(totals.counts.read, status.read or 0)
        totals.counts.failed = max(totals.counts.failed, status.failed or 0)
        return totals

    def _read(self, name: str) -> None:
        try:
            manifest = Manifest.from_bytes(storage.read_bytes(join(self._directory, name)))
        except (OSError, ValueError, KeyError, TypeError):  # published and gone, or half there
            return
        self._seen.add(name)
        self._totals.add(manifest.counts, self._bytes.get(name, 0))
