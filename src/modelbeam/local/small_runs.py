"""Small runs of the batch kind, one after the other, for what goes on into files.

Each predicts some inputs into a directory of its own, below the ledger's, where nobody looks. What
makes it count is the entry in the ledger that names it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from modelbeam import formats, storage
from modelbeam.formats.layout import Layout
from modelbeam.formats.partition import Partition
from modelbeam.job.description import Job
from modelbeam.job.prepare import (
    Plan,
    make_publication,
    make_record,
    make_task,
    noted,
    output_of,
)
from modelbeam.job.task import Progress, Totals
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.machine import available_cores
from modelbeam.models.base import ModelInfo
from modelbeam.sinks.files.publish import publish
from modelbeam.sinks.files.state import State
from modelbeam.sinks.ledger import Ledger
from modelbeam.sources import source_of
from modelbeam.sources.splits import Split
from modelbeam.storage import FileInfo


@dataclass(slots=True)
class Decided:
    """The columns of an output, decided by one small run for those that follow it.

    Attributes:
        settings: the fingerprint of the model and the settings that they were decided for.
        layout: the columns, where all records have the same.
    """

    settings: str
    layout: Layout | None


@dataclass(slots=True)
class Made:
    """What a small run came to.

    Attributes:
        work: its directory.
        totals: of its records.
        decided: the columns that it has.
    """

    work: str
    decided: Decided
    totals: Totals = field(default_factory=Totals)

    @property
    def counts(self) -> dict[str, int]:
        """As entries have them."""
        counts = self.totals.counts
        return {"read": counts.read, "predicted": counts.predicted, "failed": counts.failed}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, Any]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda *which: caught.append(which)) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    for number, frame in caught[:1]:
        answer = before[signal.Signals(number)]
        if callable(answer):
            answer(number, frame)


class SmallRuns:
    """The model's processes, and one small run at a time.

    Args:
        job: what to do; its output is a directory.
        ledger: where the runs are committed.
        started: a process for the model that was started ahead.
        loading: told for how many seconds the model has been loading.

    Attributes:
        crashes: of the processes.
    """

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        started: Started | None,
        loading: Callable[[float], None],
    ) -> None:
        self._job, self._ledger, self._started, self._loading = job, ledger, started, loading
        self._workers = job.workers or available_cores()
        self.crashes = Crashes(job.record_timeout, job.max_crashes)
        self._pool: WorkerPool | None = None
        self._left = 0

    @property
    def info(self) -> ModelInfo | None:
        """What the model says of itself, once it has been loaded."""
        return self._pool.info if self._pool is not None else None

    def load(self) -> ModelInfo:
        """Load the model, if no process has it: at first, and after a run that failed.

        Raises:
            ModelError: it could not be.
        """
        if self._pool is not None and self._pool.failure is None and self._pool.info is not None:
            return self._pool.info
        self.close()
        started, self._started = self._started, None
        self._pool = WorkerPool(
            self._job.model, self._workers, self._job.worker_mode, started, self.crashes
        )
        info = self._pool.wait_loaded(self._loading)
        self._pool.open(self, 1 << 30)
        return info

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close(kill=True)

    def run(
        self,
        inputs: Sequence[FileInfo],
        partitions: Mapping[str, Partition] | None = None,
        decided: Decided | None = None,
    ) -> Made:
        """Predict some inputs into a directory that nobody looks at yet, and count them.

        Args:
            inputs: files, or partitions of a topic.
            partitions: what the directories of each say.
            decided: the columns of the output, if an earlier run has them.

        Raises:
            RequestError: they do not fit the model or the output.
            JobError: it failed, and nothing of it is left.
        """
        info = self.load()
        assert self._pool is not None
        pool, job = self._pool, self._job
        name = os.urandom(8).hex()
        work = self._ledger.work(name)
        output = replace(output_of(job), path=work)
        asked = formats.parse(job.input_format, "--input-format") if job.input_format else None
        splits, size = source_of(job.inputs[0]).plan(
            inputs,
            job.split_size,
            input_format=asked,
            earlier=None,
            reading=job.reading,
            partitions=partitions,
        )
        plan = Plan(job, tuple(inputs), splits, size, output, self._workers)
        settings = make_record(plan, info).fingerprint
        if decided is not None and decided.settings == settings:
            plan = replace(plan, layout=decided.layout)
        else:
            plan = noted(plan, info, pool.sample)
        made = Made(name, Decided(settings, plan.layout))
        record = make_record(plan, info)
        began = time.time()
        state = State(output, record, fresh=True)
        threads = ThreadPoolExecutor(self._workers * 2)
        try:
            state.write_plan(splits)
            task = make_task(plan, record)
            self._left = sum(split.bytes for split in splits)
            done = threads.map(lambda one: pool.predict(one, task), splits)
            for split, manifest in zip(splits, done, strict=True):
                made.totals.add(manifest.counts, split.bytes)
                self._left -= split.bytes
            publication = make_publication(plan, record, info, began, "this machine")
            publish(replace(publication, workers=pool.workers_text(), max_errors=None), splits)
            return made
        except BaseException as error:
            if not isinstance(error, Exception):  # a stop does not wait for the splits in hand
                pool.close(kill=True)
            threads.shutdown(cancel_futures=True)
            with contextlib.suppress(OSError):
                storage.remove_tree(work)
            raise
        finally:
            threads.shutdown(wait=False)
            state.close()

    # What the pool asks; see :class:`.pool.Work`.

    def bytes_left(self) -> int:
        """Of the small run that goes on."""
        return self._left

    def progressed(self, split: Split, progress: Progress) -> None:
        """Small runs are counted when they are done."""
