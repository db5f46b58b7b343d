"""A run from files into a topic: splits as in any job, sent in their order, each in a transaction.

What the workers write goes to a directory of this machine first, where it is read from when its
turn has come, so a transaction is open only while it is written. How far the run is stands with
Kafka alone (:mod:`modelbeam.kafka.sending`); what is in the directory may be lost.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from modelbeam import storage
from modelbeam.errors import (
    InputReadError,
    JobError,
    NothingPredictedError,
    OutputExistsError,
    RequestError,
    ResumeError,
    TooManyErrorsError,
)
from modelbeam.job.description import Job
from modelbeam.job.prepare import (
    Plan,
    Watcher,
    make_plan,
    make_publication,
    make_record,
    make_task,
    noted,
    passed,
)
from modelbeam.job.result import Run
from modelbeam.job.task import Progress, Totals
from modelbeam.kafka import address
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import Cluster
from modelbeam.kafka.lines import LinesMaker
from modelbeam.kafka.records import Message
from modelbeam.kafka.sending import Mark, Sender
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.local.stream import DEFAULT_DELIVERY, ends_of
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.counts import Counts
from modelbeam.sinks import Manifest
from modelbeam.sinks.files.manifest import Manifest as FilesManifest
from modelbeam.sinks.files.publish import allowed_errors, describe_run
from modelbeam.sinks.files.state import State
from modelbeam.sources import source_of
from modelbeam.sources.files import Files
from modelbeam.sources.splits import Split
from modelbeam.storage import join

AHEAD = 2
"""Splits a worker that may be predicted before their turn to be sent."""


def chained(before: str, text: str) -> str:
    """A digest of a text behind all those that are in the digest before it."""
    return hashlib.sha256(f"{before}\n{text}".encode("utf-8", "surrogateescape")).hexdigest()[:20]


def mark_of(splits: Sequence[Split], sent: int) -> Mark:
    """What a mark says of the first splits of a plan, without any counts."""
    mark, last = Mark(), ""
    for split in splits[:sent]:
        mark = behind(mark, split, last)
        last = split.pieces[-1].path
    return mark


def behind(mark: Mark, split: Split, last: str) -> Mark:
    """The mark once one more split is sent.

    Args:
        mark: the one before.
        split: what is sent.
        last: the file at whose end, or in which, the split before ended.
    """
    paths = mark.paths
    for piece in split.pieces:
        if piece.path != last:
            paths = chained(paths, piece.path)
            last = piece.path
    chain = chained(mark.chain, f"{split.key} {split.stamp}")
    return replace(mark, sent=mark.sent + 1, chain=chain, paths=paths)


def decided(mark: Mark | None, splits: Sequence[Split], settings: str, job: Job) -> int:
    """How many of a plan's splits are in the topics already, and are not sent.

    Args:
        mark: of the last run of the group, if there is one.
        splits: of the run that is asked for.
        settings: the fingerprint of its model and settings.
        job: whose ``resume`` and ``overwrite`` count.

    Raises:
        OutputExistsError: some of it is there, and neither flag was given.
        ResumeError: what is there in part is of another run.
    """
    if mark is None or not mark.sent or job.overwrite:
        return 0
    there = mark_of(splits, mark.sent)
    parts = f"{mark.sent} of {mark.splits} splits"
    where = f"--output {job.output}"
    group = "or give this one a --group of its own"
    if mark.sent <= len(splits) and there.chain == mark.chain and settings == mark.settings:
        if job.resume:
            return mark.sent
        rest = "" if mark.sent == len(splits) else "--resume to send the rest, "
        raise OutputExistsError(
            f"{where}: {parts} of this very run ({mark.read:,} records) are in the topic already. "
            f"Add {rest}--overwrite to send all of it again, {group}."
        )
    if not mark.finished:
        raise ResumeError(
            f"{where}: a run over other files, with another model or other settings has sent "
            f"{parts} and was not finished. Finish it with its own command and --resume, begin "
            f"this one with --overwrite (what is in the topic stays), {group}."
        )
    if there.paths == mark.paths:
        raise OutputExistsError(
            f"{where}: these files are in the topic, as they were before, or with another model or "
            f"other settings. Add --overwrite to send their predictions all the same, {group}."
        )
    return 0


class IntoTopicRun:
    """One run from files into a topic.

    Args:
        job: what to do.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
    """

    def __init__(self, job: Job, watcher: Watcher, now: float, started: Started | None) -> None:
        self._job, self._watcher, self._now, self._started = job, watcher, now, started
        self._target, self._errors = self._checked()
        self._group = f"{job.consumer_group}-files"
        self._workers = job.workers or available_cores()
        self._crashes = Crashes(job.record_timeout, job.max_crashes)
        self._totals = Totals()
        self._pool: WorkerPool | None = None
        self._still = 0

    def _checked(self) -> tuple[Topic, Topic]:
        job = self._job
        if not all(isinstance(source_of(path), Files) for path in job.inputs):
            raise RequestError("--input: into a topic go files, or one topic, but not both.")
        if job.output_format not in (None, "jsonl"):
            raise RequestError(
                f"--output-format {job.output_format}: a message is one JSON object; leave it out."
            )
        return ends_of(job)

    def run(self) -> Run:
        """Run to the end.

        Raises:
            RequestError: the request is wrong; nothing was sent.
            JobError: it failed; what is sent stays, and ``--resume`` sends the rest.
            KeyboardInterrupt: it was stopped; it says what is sent.
        """
        job = self._job
        settings = address.read_settings(job.kafka_config) if job.kafka_config else {}
        cluster = Cluster(self._target.brokers, settings)
        cluster.partitions(self._target, "--output")
        cluster.partitions(self._errors, "--errors")
        found = cluster.limits([self._target.name, self._errors.name])
        limits = found[self._target.name], found[self._errors.name]
        sender = Sender(
            *(cluster, settings, self._target, self._group, limits),
            exactly_once=job.delivery == DEFAULT_DELIVERY,
        )
        state: State | None = None
        sent: Mark | None = None
        try:
            before = sender.look()
            plan = self._planned(before)
            info = self._load()
            assert self._pool is not None
            plan = noted(plan, info, self._pool.sample)
            record = make_record(plan, info)
            done = decided(before, plan.splits, record.fingerprint, job)
            if done == len(plan.splits):
                sent = self._begun(before, plan, record.fingerprint, done)
                return self._result(plan, info, sent, already=True)
            state = self._state(plan, info)
            before = sender.open()  # another one may have come further meanwhile; it ends now
            goes_on = job if job.overwrite else job.model_copy(update={"resume": True})
            done = decided(before, plan.splits, record.fingerprint, goes_on)
            begun = sent = self._begun(before, plan, record.fingerprint, done)
            self._watcher.begin(plan)
            for note in plan.notes:
                self._watcher.note(note)
            maker = LinesMaker(info, *limits, job.errors_format)
            for mark in self._sent(plan, info, sender, maker, begun):
                sent = mark
            self._check_errors(sent, at_end=True)
            return self._result(plan, info, sent)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_stopped(sent)) from None
        finally:
            self._watcher.end()
            if self._pool is not None:
                self._pool.close(kill=True)
            sender.close()
            if state is not None:
                with suppress(OSError):
                    storage.remove_tree(self._spool)
                state.close()

    # Before anything is sent

    @property
    def _spool(self) -> str:
        """What the workers write to; of this user alone, and the same at every start."""
        folder = os.path.join(tempfile.gettempdir(), f"modelbeam-into-{os.getuid()}")
        name = hashlib.sha256(f"{self._target.url} {self._group}".encode()).hexdigest()[:16]
        return os.path.join(folder, name)

    def _planned(self, mark: Mark | None) -> Plan:
        """The plan, cut as the run was that is gone on with, if it is that."""
        files = {"output": self._spool, "output_format": "jsonl", "errors": None, "report": False}
        own = self._job.model_copy(update={**files, "resume": False, "overwrite": True})
        plan = make_plan(own)
        if mark is not None and mark.split_size not in (0, plan.split_size):
            other = make_plan(own.model_copy(update={"split_size": mark.split_size}))
            if mark_of(other.splits, mark.sent).chain == mark.chain:
                return replace(other, job=own)
        return plan

    def _load(self) -> ModelInfo:
        started, self._started = self._started, None
        mode = self._job.worker_mode
        self._pool = WorkerPool(self._job.model, self._workers, mode, started, self._crashes)
        return self._pool.wait_loaded(self._watcher.loading)

    def _begun(self, before: Mark | None, plan: Plan, settings: str, done: int) -> Mark:
        """The mark that the run begins behind."""
        mark = before if before is not None and done else Mark()
        return replace(
            mark,
            splits=len(plan.splits),
            split_size=plan.split_size,
            settings=settings,
            writer=os.urandom(8).hex(),
        )

    def _state(self, plan: Plan, info: ModelInfo) -> State:
        folder = os.path.dirname(self._spool)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise RequestError(
                f"{folder} may be read or written by others, and predictions wait there until they "
                f"are sent. Remove it, or set TMPDIR to a directory of your own."
            )
        try:
            return State(plan.output, make_record(plan, info), fresh=True)
        except OutputExistsError:
            raise OutputExistsError(
                f"--output {self._target.url}: another modelbeam process of this machine is "
                f"sending as the group {self._group}. Wait for it to end, or give this one a "
                f"--group of its own."
            ) from None

    # Sending

    def _sent(
        self, plan: Plan, info: ModelInfo, sender: Sender, maker: LinesMaker, mark: Mark
    ) -> Iterator[Mark]:
        """Predict and send what is not sent, split by split; yields each mark that is committed."""
        assert self._pool is not None
        task = replace(make_task(plan, make_record(plan, info)), largest=maker.largest)
        todo = deque(plan.splits[mark.sent :])
        last = plan.splits[mark.sent - 1].pieces[-1].path if mark.sent else ""
        self._totals.resumed = self._totals.splits = mark.sent
        self._totals.bytes = sum(split.bytes for split in plan.splits[: mark.sent])
        self._pool.open(self, len(todo))
        threads = ThreadPoolExecutor(self._workers * AHEAD)
        ahead: deque[tuple[Split, Future[Manifest]]] = deque()
        try:
            while todo or ahead:
                while todo and len(ahead) < self._workers * AHEAD:
                    split = todo.popleft()
                    ahead.append((split, threads.submit(self._pool.predict, split, task)))
                split, future = ahead.popleft()
                manifest = self._waited(future)
                first = mark.units if split.pieces[0].path == last else 0
                mark = self._marked(mark, split, manifest, last, first)
                self._check_errors(mark)
                self._send(plan, sender, maker, manifest, first, mark)
                last = split.pieces[-1].path
                self._totals.add(Counts(), split.bytes)
                self._totals.counts.add(manifest.counts, first)
                self._watcher.update(self._totals)
                yield mark
        except BaseException as error:
            if not isinstance(error, InputReadError):
                self._pool.close(kill=True)  # a stop does not wait for the splits in hand
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _waited(self, future: Future[Manifest]) -> FilesManifest:
        assert self._pool is not None
        try:
            manifest = self._pool.wait(
                future, lambda: self._watcher.update(self._totals), self._watcher.note
            )
        except InputReadError as error:
            raise _unread(error) from None
        assert isinstance(manifest, FilesManifest)
        return manifest

    def _marked(
        self, mark: Mark, split: Split, manifest: FilesManifest, last: str, first: int
    ) -> Mark:
        counts, alone = manifest.counts, len(split.pieces) == 1
        return replace(
            behind(mark, split, last),
            units=first + manifest.units if alone else 0,
            read=mark.read + counts.read,
            predicted=mark.predicted + counts.predicted,
            failed=mark.failed + counts.failed,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def _send(
        self,
        plan: Plan,
        sender: Sender,
        maker: LinesMaker,
        manifest: FilesManifest,
        first: int,
        mark: Mark,
    ) -> None:
        attempts = join(plan.output.state, "attempts")
        predictions = join(attempts, manifest.predictions.name)
        errors = join(attempts, manifest.errors.name) if manifest.errors is not None else None

        def messages() -> Iterator[tuple[str, Message]]:
            for message in maker.predictions(predictions):
                yield self._target.name, message
            for message in maker.errors(errors, first) if errors is not None else ():
                yield self._errors.name, message

        size = manifest.predictions.bytes + (manifest.errors.bytes if manifest.errors else 0)
        sender.send(messages, size, mark)
        with suppress(OSError):
            storage.remove([path for path in (predictions, errors) if path is not None])

    def _check_errors(self, mark: Mark, *, at_end: bool = False) -> None:
        """Hold the limit: one of N before a split is sent, one of P% at the end."""
        limit = self._job.max_errors
        over = limit is not None and at_end and mark.failed > allowed_errors(limit, mark.read)
        if over or passed(limit, mark.failed):
            raise TooManyErrorsError(
                f"{mark.failed} of {mark.read} records failed, more than --max-errors {limit}; the "
                f"run was stopped. What was sent before is in {self._target.url}, its failed "
                f"records in {self._errors.url}. To go on, allow more with --resume."
            )

    # What the pool asks; see :class:`.pool.Work`.

    def bytes_left(self) -> int:
        """Of the splits that are not sent."""
        return 1 << 40

    def progressed(self, split: Split, progress: Progress) -> None:
        """Splits are counted when they are sent."""

    def _result(self, plan: Plan, info: ModelInfo, mark: Mark, *, already: bool = False) -> Run:
        if not mark.read:
            raise NothingPredictedError("No record was found in the input; nothing was sent.")
        if not mark.predicted:
            raise NothingPredictedError(
                f"Not one of {mark.read} records could be predicted. All of them are in "
                f"{self._errors.url}."
            )
        counts = self._totals.counts
        counts.read, counts.predicted, counts.failed = mark.read, mark.predicted, mark.failed
        workers = "nothing ran"
        if self._pool is not None and not already:
            workers = self._pool.workers_text()
        publication = make_publication(
            plan, make_record(plan, info), info, self._now, workers, self._totals.resumed
        )
        publication = replace(publication, crashes=self._crashes.described())
        description: dict[str, Any] = {
            **describe_run(publication, plan.splits, counts, [], succeeded=True),
            "output": self._target.url,
            "errors": self._errors.url,
            "group": self._group,
            "delivery": self._job.delivery,
        }
        if already:
            description |= {"already_finished": True, "finished": mark.at}
        run = Run.of(description)
        return replace(run, errors=(self._errors.url,) if mark.failed else ())


def _stopped(sent: Mark | None) -> str:
    if sent is None or not sent.sent:
        return "Stopped. Nothing was sent."
    return (
        f"Stopped. {sent.sent} of {sent.splits} splits are in the topic. Run the same command with "
        f"--resume to finish."
    )


def _unread(error: InputReadError) -> JobError:
    """That a file cannot be read ends the run: the order of what is sent is that of the plan."""
    made = InputReadError(f"{error} What comes before it is sent.")
    made.damaged, made.path, made.details = error.damaged, error.path, error.details
    return made
