"""One run of a job on this machine: its task, how far it is, its publication, and how it ended.

The steps of Beam's pipeline hand their work to it by its name (:mod:`modelbeam.beam.pools`); the
processes are the pool's. The model is often ready before Beam is imported: the first splits are
begun ahead then, and the steps are given what became of them.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from modelbeam.beam.pools import pools
from modelbeam.errors import InputReadError, ModelbeamError, is_damage
from modelbeam.job.task import Progress, Task, Totals
from modelbeam.local.pool import StoppedError, WorkerPool
from modelbeam.sinks import Manifest, sink_of
from modelbeam.sinks.files.publish import Publication, publish
from modelbeam.sources.splits import Split


class Coordinator:
    """What the steps of a local job see of it, and what its owner does.

    Args:
        pool: the processes that predict.
        splits: all of the job.

    Attributes:
        name: by which the steps find it.
        run: the description of the finished run.
        damaged: one for each input that could not be read.
    """

    def __init__(self, pool: WorkerPool, splits: list[Split]) -> None:
        self.splits = splits
        self.name = os.urandom(6).hex()
        self.run: dict[str, Any] | None = None
        self.damaged: list[InputReadError] = []
        self._pool = pool
        self._changed = pool.changed
        self._task: Task | None = None
        self._publication: Publication | None = None
        self._progress: dict[int, Progress] = {}
        self._done = Totals()
        self._predicted = 0
        self._bytes = 0
        self._ahead: dict[int, Future[Manifest | None]] = {}
        self._arrived = False
        pools[self.name] = self

    @property
    def failure(self) -> ModelbeamError | None:
        """What ended the run first, if anything did: a process, a split, or the publishing."""
        return self._pool.failure

    # What the job's owner does.

    def open(self, task: Task, size: int, publication: Publication) -> None:
        """Let :meth:`predict` begin.

        Args:
            task: what is the same for every split.
            size: how many bytes they have.
            publication: what :meth:`publish` needs; how many workers there are, and how many
                splits were done before, is filled in here.
        """
        self._pool.wait_loaded()
        with self._changed:
            self._publication, self._task, self._bytes = publication, task, size
            self._changed.notify_all()
        self._pool.open(self, len(self.splits))
        for _ in range(min(self._pool.workers, len(self.splits))):
            threading.Thread(target=self._begin_ahead, name="ahead", daemon=True).start()

    def _begin_ahead(self) -> None:
        """Do one split after the other until the pipeline is there to say which comes next."""
        while True:
            with self._changed:
                number = len(self._ahead)
                if self._arrived or self.failure is not None or number == len(self.splits):
                    return
                split = self.splits[number]
                begun = self._ahead[split.index] = Future()
            try:
                begun.set_result(self._predict(split))
            except BaseException as error:
                begun.set_exception(error)
                return

    def totals(self) -> Totals:
        """How far the whole job is."""
        with self._changed:
            now = self._done.copy()
            for progress in self._progress.values():
                now.add(progress.counts, progress.bytes)
                now.splits -= 1
        return now

    def wait_finished(self, seconds: float) -> bool:
        """Wait that long for the run to end, well or not, and return whether it did."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.run is not None or self.failure is not None, seconds
            )

    def close(self) -> None:
        """The steps find it no more, and all processes end at once."""
        pools.pop(self.name, None)
        self._pool.close(kill=True)

    # What the steps do; see :class:`modelbeam.beam.pools.Pool`.

    def predict(self, split: Split) -> Manifest | None:
        """Have a split predicted and committed, unless it is, and count it.

        Returns:
            ``None`` if its input is damaged: that is told at the end, with all others done.

        Raises:
            JobError: the split failed; :attr:`failure` has the first one.
        """
        with self._changed:
            self._arrived = True
            begun = self._ahead.get(split.index)
        return self._predict(split) if begun is None else begun.result()

    def _predict(self, split: Split) -> Manifest | None:
        task = self._wait_open()
        manifest: Manifest | None
        manifest = sink_of(task.state, task.output, task.fingerprint).committed(split)
        if manifest is not None:  # by an earlier run
            with self._changed:
                self._done.add(manifest.counts, split.bytes)
                self._done.resumed += 1
            return manifest
        try:
            manifest = self._pool.predict(split, task)
        except InputReadError as error:
            if not is_damage(error):
                raise
            with self._changed:
                self._progress.pop(split.index, None)
                self.damaged.append(error)
            return None
        with self._changed:
            self._progress.pop(split.index, None)
            self._predicted += manifest.counts.read
            self._done.add(manifest.counts, split.bytes)
        return manifest

    def _wait_open(self) -> Task:
        """Wait until the model is loaded and everything checked; what every split is told."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure or self._task)
            if self.failure is not None or self._task is None:
                raise StoppedError("The job was stopped.")
            return self._task

    def stop(self, error: BaseException) -> None:
        """Note the first failure; no further split is begun."""
        self._pool.stop(error)

    def publish(self) -> None:
        """Publish; then :attr:`run` describes the run, or :attr:`failure` says why not."""
        if self._publication is None or self.failure is not None:
            return
        self._pool.retire()
        try:
            hint = self._pool.hint(self._predicted)
            known = replace(
                self._publication,
                notes=(*self._publication.notes, *([hint] if hint else [])),
                resumed=self._done.resumed,
                workers=self._pool.workers_text(),
                crashes=self._pool.crashes.described(),
            )
            run = publish(known, self.splits)
        except Exception as error:
            self.stop(error)
            return
        with self._changed:
            self.run = run
            self._changed.notify_all()

    # What the pool asks; see :class:`.pool.Work`.

    def bytes_left(self) -> int:
        """Bytes of input in splits that are not done."""
        return self._bytes - self._done.bytes

    def progressed(self, split: Split, progress: Progress) -> None:
        """A split has come so far."""
        with self._changed:
            self._progress[split.index] = progress
