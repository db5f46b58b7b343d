"""A run over files as they arrive: a small run for what is new, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from modelbeam import text
from modelbeam._version import RUN_SCHEMA
from modelbeam.errors import InputReadError, JobError, RequestError
from modelbeam.job.description import Job
from modelbeam.job.prepare import output_of, too_many_in_stream
from modelbeam.job.result import Run
from modelbeam.job.task import Totals
from modelbeam.local.renewal import Renewal
from modelbeam.local.small_runs import SmallRuns, undisturbed
from modelbeam.local.start import Started
from modelbeam.models.base import ModelInfo
from modelbeam.sinks.ledger import Entry, Ledger
from modelbeam.sources import source_of
from modelbeam.sources.arriving import Arrivals, Taken
from modelbeam.sources.files import Files
from modelbeam.storage import FileInfo

LOOK_SECONDS = 0.5
"""Between two looks at the inputs, at least."""

FILES_A_RUN = 10_000
"""Files of one small run, at most."""


class ArrivingWatcher(Protocol):
    """What is told how it goes."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Called about twice a second."""

    def note(self, text: str) -> None:
        """Something happened that a person wants to know once."""


class ArrivingRun:
    """One run over files as they arrive.

    Args:
        job: what to do; its output is a directory.
        watcher: told how it goes.
        now: when it started, in seconds since the epoch.
        started: a process for the model that was started ahead.
        asked: set when a person wants the model to be loaded anew.
    """

    def __init__(
        self,
        job: Job,
        watcher: ArrivingWatcher,
        now: float,
        started: Started | None,
        asked: threading.Event | None = None,
    ) -> None:
        self._asked = asked or threading.Event()
        self._job, self._watcher, self._now = job, watcher, now
        self._ledger = Ledger(job.output.rstrip("/") if len(job.output) > 1 else job.output)
        self._renewal = Renewal(job.model, job.settle, watcher.note)
        self._small = SmallRuns(
            job, self._renewal.model, self._ledger, started, watcher, self._tell
        )
        self._totals = Totals()
        self._runs = self._waits = 0
        self._failed: list[str] = []
        self._alone = 0

    def run(self) -> Run:
        """Run until it is stopped, or nothing has come for long enough.

        Raises:
            RequestError: the request is wrong; nothing ran.
            JobError: it cannot go on; what is in the ledger stays.
        """
        job = self._job
        if job.single_file:
            raise RequestError(
                f"--output {job.output}: a run over files as they arrive writes a directory; name "
                f"one."
            )
        if not isinstance(source_of(job.inputs[0]), Files):
            raise RequestError("--input: files as they arrive and a topic take a command each.")
        output_of(job)
        self._ledger.open()
        asked = job.input_format is not None
        arrivals = Arrivals(job.inputs, asked, job.settle, [self._ledger.output])
        self._ledger.clear()
        for entry in self._ledger.entries:
            arrivals.note(entry.files, unread=entry.error is not None)
        self._ledger.hold()
        try:
            self._opened()
            self._small.make_ready()
            self._renewal.begin(self._small, self._asked)
            self._go_on(arrivals)
            self._check_errors(ended=True)
            return self._result("ended")
        except KeyboardInterrupt:
            if self._small.info is None:
                raise
            return self._result("stopped")
        finally:
            self._small.close()
            self._renewal.end()
            self._ledger.close()

    def _go_on(self, arrivals: Arrivals) -> None:
        job, active = self._job, time.monotonic()
        while True:
            self._small.hand_over()
            for _, entry in self._ledger.read():  # of another process that watches the same
                arrivals.note(entry.files, unread=entry.error is not None)
            self._entered()
            ready = arrivals.ready()
            for sentence in arrivals.changed:
                self._watcher.note(sentence)
            if ready:
                self._small.make_ready()  # again, if a run that failed has ended its processes
                most = 1 if self._alone else FILES_A_RUN
                self._take(ready[:most], arrivals)
                self._entered()
                self._check_errors()
            if ready or arrivals.waiting:
                active = time.monotonic()
            self._waits = arrivals.waiting
            self._tell()
            if job.stop_after is not None and time.time() - self._now > job.stop_after:
                return
            idle = job.stop_when_idle
            quiet = not ready and not arrivals.waiting
            if idle is not None and quiet and time.monotonic() - active >= idle:
                return
            if not ready:
                time.sleep(LOOK_SECONDS)

    def _tell(self) -> None:
        self._watcher.arrived(self._totals, self._runs, self._waits)

    def _take(self, files: Sequence[FileInfo], arrivals: Arrivals) -> None:
        """Predict some files and put them into the ledger, or say which one cannot be read.

        Where one of several cannot, each is taken alone, as the next ones.
        """
        done, named = Totals(), tuple(map(Taken.of, files))
        partitions = {one.path: arrivals.partitions.get(one.path, ()) for one in files}
        try:
            made = self._small.run(files, partitions)
            entry, done = Entry(made.work, named, made.counts), made.totals
        except (RequestError, InputReadError) as error:  # any other is not the file's
            if isinstance(error, RequestError) and not self._ledger.entries:
                raise  # the first files: it is the request that is wrong
            if len(files) > 1:
                self._alone = len(files)
                return
            why = str(error).replace(" Fix it and run the same command again.", "")
            self._failed.append(why)
            self._watcher.note(why)
            entry = Entry("", named, error=why)
        self._alone = max(0, self._alone - 1)
        before = len(self._ledger.entries)
        with undisturbed():
            if self._ledger.put(entry):
                self._runs += 1
                self._totals.add(done.counts, done.bytes)
            else:
                self._ledger.discard(entry.work)
        for one in self._ledger.entries[before:]:
            arrivals.note(one.files, unread=one.error is not None)

    def _opened(self) -> None:
        """The ledger has been read for the first time."""

    def _entered(self) -> None:
        """There may be entries of the ledger that were not there before."""

    @property
    def _kept(self) -> str:
        """Where failed records are, in a sentence."""
        return f"All of them are in {self._ledger.output}."

    def _check_errors(self, *, ended: bool = False) -> None:
        limit, counts = self._job.max_errors, self._totals.counts
        if error := too_many_in_stream(limit, counts, self._kept, ended=ended):
            raise error

    def _described(self, end: str) -> dict[str, Any]:
        """What ``--json`` prints."""
        info: ModelInfo | None = self._small.info
        assert info is not None
        counts, seconds = self._totals.counts, time.time() - self._now
        return {
            "schema": RUN_SCHEMA,
            "status": "failed" if self._failed else "succeeded",
            "end": end,
            "model": info.to_dict(),
            "output": self._ledger.output,
            "runs": self._runs,
            "entries": len(self._ledger.entries),
            "counts": {
                "read": counts.read,
                "predicted": counts.predicted,
                "failed": counts.failed,
            },
            "failures": [kind.to_dict() for kind in counts.kinds],
            "crashes": list(self._small.crashes.described()),
            "unread": self._failed,
            "reloads": [one.to_dict() for one in self._renewal.reloads],
            "seconds": round(seconds, 3),
        }

    def _result(self, end: str) -> Run:
        description = self._described(end)
        counts = self._totals.counts
        if self._failed and end == "ended":
            number = text.count(len(self._failed), "file")
            raise JobError(
                f"{number} could not be read, the first: {self._failed[0]} All others are done. "
                f"A file that is repaired is taken by the same command."
            )
        return Run(
            read=counts.read,
            predicted=counts.predicted,
            failed=counts.failed,
            shards=(),
            errors=(),
            output=description["output"],
            seconds=description["seconds"],
            failures=tuple(description["failures"]),
            description=description,
        )
