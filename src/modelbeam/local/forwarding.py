"""Files as they arrive, into a topic: a ledger of small runs, and how much of it is in the topic.

The small runs are those of :mod:`.arriving`, in a directory of this command's own. What they
predicted is sent in the order of the ledger, a shard with its error lines in one transaction, which
holds a mark as well: how many entries are in the topics, and how many shards of the next one. So
the ledger has each file once, and the mark has each shard once; whoever comes next finds the shards
that are not sent where they were made, and sends just these.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from modelbeam import storage
from modelbeam.errors import JobError, RequestError
from modelbeam.job.description import Job
from modelbeam.job.result import Run
from modelbeam.kafka import address
from modelbeam.kafka.cluster import Cluster
from modelbeam.kafka.lines import LinesMaker
from modelbeam.kafka.records import Message
from modelbeam.kafka.sending import Mark, Messages, Sender
from modelbeam.local.arriving import ArrivingRun, ArrivingWatcher
from modelbeam.local.start import Started
from modelbeam.local.stream import DEFAULT_DELIVERY, ends_of
from modelbeam.models.base import ModelInfo
from modelbeam.sources.arriving import Arrivals
from modelbeam.storage import FileInfo, join


def state_of(job: Job) -> str:
    """Where the ledger of a run into a topic is, unless ``--state`` says it."""
    root = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state"
    )
    digest = hashlib.sha256(f"{job.output} {job.consumer_group}".encode()).hexdigest()[:8]
    return os.path.join(root, "modelbeam", f"{job.consumer_group}-{digest}")


class ForwardingRun(ArrivingRun):
    """One run over files as they arrive, into a topic.

    Args:
        job: what to do.
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
        if job.output_format not in (None, "jsonl"):
            raise RequestError(
                f"--output-format {job.output_format}: a message is one JSON object; leave it out."
            )
        self._target, self._errors = ends_of(job)
        self._group = f"{job.consumer_group}-arriving"
        self._delivery, self._form = job.delivery, job.errors_format
        self._place = job.state or state_of(job)
        settings = address.read_settings(job.kafka_config) if job.kafka_config else {}
        cluster = Cluster(self._target.brokers, settings)
        cluster.partitions(self._target, "--output")
        cluster.partitions(self._errors, "--errors")
        found = cluster.limits([self._target.name, self._errors.name])
        self._limits = found[self._target.name], found[self._errors.name]
        self._sender = Sender(
            *(cluster, settings, self._target, self._group, self._limits),
            exactly_once=job.delivery == DEFAULT_DELIVERY,
        )
        self._mark = Mark()
        files = {"output": self._place, "errors": None, "output_format": "jsonl", "report": False}
        super().__init__(job.model_copy(update=files), watcher, now, started, asked)

    def run(self) -> Run:
        """Run until it is stopped, or nothing has come for long enough.

        Raises:
            RequestError: the request is wrong; nothing ran.
            JobError: it cannot go on; what is sent stays, and the same command goes on from there.
        """
        if not storage.is_url(self._place):
            _make_private(self._place)
        try:
            return super().run()
        finally:
            self._sender.close()

    def _opened(self) -> None:
        """The ledger is read: take over from any other, and see how far the topic is."""
        mark = self._sender.open()
        entries = len(self._ledger.entries)
        if mark is not None and mark.sent > entries:
            raise RequestError(
                f"--output {self._target.url}: a run of the group {self._group} has sent "
                f"{mark.sent} small runs of files, and {self._place}, where it is kept which files "
                f"they were, has {entries}. Name the directory that it had with --state, or begin "
                f"anew with a --group of its own."
            )
        if mark is None and entries:
            mark = self._forgotten(entries)
        if mark is None:  # from now on a mark that is missing has been forgotten by the brokers
            self._put(Mark(), tuple, 0)
        else:
            self._mark = mark
        if self._mark.sent:  # of one that was killed before it could; all others were before
            self._remove(self._mark.sent - 1)

    def _forgotten(self, entries: int) -> Mark:
        """How far it is, where the brokers do not know it any more."""
        waiting = (n for n in range(entries) if storage.names_in(self._ledger.place(n)))
        first = next(waiting, entries)
        if first < entries and self._delivery == DEFAULT_DELIVERY:
            raise RequestError(
                f"--output {self._target.url}: the brokers have forgotten how far the group "
                f"{self._group} is (offsets.retention.minutes), so the predictions in "
                f"{self._ledger.place(first)} may be in the topic or not. If they are, remove that "
                f"directory; if not, run once with --delivery at-least-once, which sends them."
            )
        self._put(Mark(first), tuple, 0)
        return self._mark

    def _take(self, files: Sequence[FileInfo], arrivals: Arrivals) -> None:
        info = self._small.info
        assert info is not None
        self._small.largest = LinesMaker(info, *self._limits, self._form).largest
        super()._take(files, arrivals)

    def _entered(self) -> None:
        """Send what is in the ledger and not in the topic."""
        while self._mark.sent < len(self._ledger.entries):
            number = self._mark.sent
            entry = self._ledger.entries[number]
            shards = self._shards(number) if entry.work and entry.error is None else []
            for place in range(self._mark.splits, len(shards)):
                self._send(number, place, shards)
                self._tell()
            if self._mark.sent == number:  # nothing was in it
                self._put(Mark(number + 1), tuple, 0)
            self._remove(number)

    def _shards(self, number: int) -> list[tuple[str | None, str | None]]:
        """The files of a small run: predictions and error lines, of each split what there is."""
        folder = self._ledger.place(number)
        names = storage.names_in(folder)
        if "run.json" not in names:
            raise JobError(
                f"{folder} was removed, or {self._place} is another directory than it was; its "
                f"predictions are not in {self._target.url} yet. To begin anew, with all files, "
                f"give the run a --group of its own."
            )
        found: dict[str, dict[str, str]] = {}
        for name in names:
            kind, _, split = name.partition("-")
            if kind in ("predictions", "errors"):
                found.setdefault(split, {})[kind] = join(folder, name)
        return [(one.get("predictions"), one.get("errors")) for _, one in sorted(found.items())]

    def _send(
        self, number: int, place: int, shards: Sequence[tuple[str | None, str | None]]
    ) -> None:
        """Send one shard, with its error lines."""
        predictions, errors = shards[place]
        maker = LinesMaker(self._info_of(number), *self._limits, self._form)

        def messages() -> Iterator[tuple[str, Message]]:
            for message in maker.predictions(predictions) if predictions is not None else ():
                yield self._target.name, message
            for message in maker.errors(errors, 0) if errors is not None else ():
                yield self._errors.name, message

        size = sum(storage.stat(path).size for path in shards[place] if path is not None)
        last = place + 1 == len(shards)
        self._put(Mark(number + 1) if last else Mark(number, splits=place + 1), messages, size)

    def _put(self, mark: Mark, messages: Callable[[], Messages], size: int) -> None:
        """Send messages with a mark, all or nothing."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        mark = replace(mark, writer=os.urandom(8).hex(), at=now)
        try:
            self._sender.send(messages, size, mark)
        except JobError as error:
            error.args = (str(error).replace(" with --resume", " again"),)
            raise
        self._mark = mark

    def _info_of(self, number: int) -> ModelInfo:
        """Which model made a small run; it may be another one than predicts now."""
        content = storage.read_bytes(join(self._ledger.place(number), "run.json"))
        settings = json.loads(content)["job"]["settings"]
        return ModelInfo(
            settings["model"],
            settings["model name"],
            "record",
            version=settings["model version"],
            fingerprint=settings["model code and files"],
        )

    def _remove(self, number: int) -> None:
        storage.remove_tree(self._ledger.place(number))

    @property
    def _kept(self) -> str:
        return f"All of them are in {self._errors.url}."

    def _described(self, end: str) -> dict[str, Any]:
        return {
            **super()._described(end),
            "output": self._target.url,
            "errors": self._errors.url,
            "group": self._group,
            "delivery": self._delivery,
            "state": self._place,
        }


def _make_private(folder: str) -> None:
    """Predictions wait there until they are sent.

    Raises:
        RequestError: it cannot be made, or others may write it.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.stat(folder)
    except OSError as error:
        raise RequestError(
            f"{folder}, where it is kept which files are in the topic, cannot be made "
            f"({error.strerror}). Name another directory with --state."
        ) from None
    if stat.S_IMODE(found.st_mode) & stat.S_IWOTH:
        raise RequestError(
            f"{folder} may be written by others, and predictions wait there until they are sent. "
            f"Name a directory of your own with --state."
        )
