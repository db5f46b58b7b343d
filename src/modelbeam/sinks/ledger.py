"""The ledger of a run that goes on into files: numbered entries, each the commit of a small run.

An entry is put only if no other has its number, so of two processes that watch the same directory
one has the files and the other looks again; as the log of Delta Lake does it. It names the files
that were taken and the directory that their predictions wait in; that directory is then moved to
where people look. Whoever comes next finishes a move that was not.

Of a topic an entry holds the offsets that were taken and, for every partition, where the next ones
begin. Whoever puts an entry has read all before it, and takes from where the last of them ends; so
no offset is in two entries, whatever two processes believe of themselves. The first entry takes
nothing: it says where each partition begins, once for all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO

from modelbeam import storage
from modelbeam.errors import OutputExistsError
from modelbeam.sinks.files.manifest import to_json
from modelbeam.sinks.files.state import LOCK
from modelbeam.sinks.locks import hold
from modelbeam.sources.arriving import Taken
from modelbeam.storage import join

_ENTRY = re.compile(r"\d{8}\.json")

ABANDONED_SECONDS = 24 * 3600
"""How old the directory of a run is that nobody finishes any more."""


def same_topic(one: str, other: str) -> bool:
    """Whether two identities can be the same topic's; a broker may not always tell all of it."""
    (cluster, _, topic), (their_cluster, _, theirs) = one.partition("/"), other.partition("/")
    return cluster == their_cluster and (topic == theirs or not topic or not theirs)


@dataclass(frozen=True, slots=True)
class Offsets:
    """What of a topic is in an entry, and in all entries up to it.

    Attributes:
        topic: its name.
        identity: tells it from another topic of that name; see :meth:`.cluster.Cluster.identity`.
        taken: of each partition that the entry has something of, the first offset and the one
            after the last.
        next: of each partition, the offset at which the next entry begins; before it is put only
            what differs from the entry before.
        lost: what was gone before it was read, a sentence each.
        settings: the fingerprint of the model and the settings of the last entry with predictions.
        layout: the columns of its predictions, see :func:`.layout.to_json`: those of all entries
            with the same settings.
    """

    topic: str
    identity: str
    taken: dict[int, tuple[int, int]] = field(default_factory=dict)
    next: dict[int, int] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    settings: str = ""
    layout: list[list[str | None]] | None = None

    def follows(self, before: Offsets) -> bool:
        """Whether it takes up where an earlier one ends, in every partition, with its columns."""
        if self.taken and not same_topic(self.identity, before.identity):
            return False
        if self.settings == before.settings and self.layout != before.layout:
            return False
        return all(
            before.next.get(partition, first) == first
            for partition, (first, _) in self.taken.items()
        )

    def after(self, before: Offsets) -> Offsets:
        """The same with what an earlier one knows of the other partitions."""
        ends = {partition: end for partition, (_, end) in self.taken.items()}
        return replace(self, next={**before.next, **self.next, **ends})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Offsets:
        """Read what ``asdict`` and JSON made of it."""
        taken = {int(one): (first, end) for one, (first, end) in data["taken"].items()}
        following = {int(one): offset for one, offset in data["next"].items()}
        return cls(**{**data, "taken": taken, "next": following, "lost": tuple(data["lost"])})


@dataclass(frozen=True, slots=True)
class Entry:
    """One small run.

    Attributes:
        work: the directory that its predictions were written to, below the ledger's; empty if
            there are none.
        files: what it read.
        counts: ``read``, ``predicted``, ``failed``.
        error: why its files could not be read; there are no predictions then.
        offsets: what it has of a topic, if it is not of files.
    """

    work: str
    files: tuple[Taken, ...]
    counts: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    offsets: Offsets | None = None

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return to_json({**asdict(self), "files": [asdict(taken) for taken in self.files]})

    @classmethod
    def from_bytes(cls, content: bytes) -> Entry:
        """Read what :meth:`to_bytes` made."""
        data = json.loads(content)
        files = tuple(Taken(**taken) for taken in data["files"])
        offsets = Offsets.from_json(data["offsets"]) if data.get("offsets") else None
        return cls(data["work"], files, data["counts"], data["error"], offsets)


class Ledger:
    """The ledger in an output directory.

    Args:
        output: the directory.
        topic: whether it is of a topic and not of files. Then only the last entry is read of those
            that are there, since it says all that is to be known of the others.

    Attributes:
        entries: those that were read; of a topic the last one.
    """

    def __init__(self, output: str, *, topic: bool = False) -> None:
        self.output, self._topic = output, topic
        self._number = 0
        self._state = join(output, "_modelbeam")
        self._log = join(self._state, "log")
        self.entries: list[Entry] = []
        self._at_work: BinaryIO | None = None

    def open(self) -> None:
        """Read it, or begin one in a directory that has nothing else.

        Raises:
            OutputExistsError: there is something else.
        """
        if storage.exists(self.output) and not storage.is_directory(self._log):
            others = [n for n in storage.names_in(self.output) if n != "_modelbeam"]
            if others or storage.exists(join(self._state, "job.json")):
                raise self._something_else()
        storage.make_directory(self._log)
        if self._topic:
            names = filter(_ENTRY.fullmatch, storage.names_in(self._log))
            self._number = max((int(name[:8]) for name in names), default=0)
        self.read()
        if any((entry.offsets is not None) != self._topic for entry in self.entries):
            raise self._something_else()

    def _something_else(self) -> OutputExistsError:
        what = "over a topic" if self._topic else "over files as they arrive"
        return OutputExistsError(
            f"--output {self.output} holds something else than a run {what}. Name another "
            f"directory."
        )

    def hold(self) -> None:
        """Have whoever asks told that somebody is at work here, until :meth:`close`.

        Raises:
            OutputExistsError: a run of another kind is.
        """
        try:
            self._at_work = hold(join(self._state, LOCK), shared=True)
        except BlockingIOError:
            raise OutputExistsError(
                f"--output {self.output}: another modelbeam process is writing it. Wait for it to "
                f"end."
            ) from None

    def close(self) -> None:
        """This process is not at work here any more."""
        if self._at_work is not None:
            self._at_work.close()
            self._at_work = None

    def read(self) -> list[tuple[int, Entry]]:
        """Read the entries that are new, and finish what they left to do.

        Returns:
            Each with its number.
        """
        new: list[tuple[int, Entry]] = []
        while True:
            number = self._number
            content = storage.read_if_there(self._path(number))
            if content is None:
                return new
            entry = Entry.from_bytes(content)
            self.entries.append(entry)
            self._number += 1
            new.append((number, entry))
            self._show(number, entry)
            if self._topic:
                del self.entries[:-1]  # the last one says all

    def _path(self, number: int) -> str:
        return join(self._log, f"{number:08d}.json")

    def place(self, number: int) -> str:
        """Where people find the predictions of an entry."""
        return join(self.output, f"{number:08d}")

    def work(self, name: str) -> str:
        """Where the predictions of a run are until they are committed."""
        return join(self._state, "work", name)

    def put(self, entry: Entry) -> bool:
        """Commit an entry; whether it was this one that got the next number."""
        content = entry.to_bytes()
        won = storage.write_once(self._path(self._number), content) == content
        self.read()
        return won

    @property
    def last(self) -> Offsets:
        """Where the next entry of a topic begins."""
        found = self.entries[-1].offsets
        if found is None:
            raise self._something_else()
        return found

    def put_after(self, last: Offsets, entry: Entry) -> bool:
        """Commit an entry of a topic, if what it takes begins where the ledger ends.

        It is tried with one number after the other, as long as those who got them took other
        partitions. If one of them took the same, the entry and its predictions are dropped.

        Args:
            last: what the ledger said when the entry was begun.
            entry: what is to be committed; what it says of other partitions is filled in here.

        Returns:
            Whether it was this one that was put.
        """
        offsets = entry.offsets
        while offsets is not None and offsets.follows(last):
            if self.put(replace(entry, offsets=offsets.after(last))):
                return True
            if not offsets.taken:  # where to begin has been said by another
                return False
            last = self.last
        self.discard(entry.work)
        return False

    def _show(self, number: int, entry: Entry) -> None:
        """Move the predictions of an entry to where people look; may be done again and by two."""
        if entry.error is not None or not entry.work:
            return
        source, target = self.work(entry.work), self.place(number)
        names = storage.names_in(source)
        if not names:
            return
        storage.make_directory(target)
        last = ("run.json", "_SUCCESS")  # in this order
        shards = [name for name in names if name not in last and not name.startswith("_modelbeam")]
        move = storage.copy if storage.keeps_sources(source) else _replaced
        for name in [*sorted(shards), *(name for name in last if name in names)]:
            path = join(source, name)
            try:
                if name == "run.json":
                    moved = _with_place(storage.read_bytes(path), source, target, entry)
                    storage.write_atomically(join(target, name), moved)
                else:
                    move(path, join(target, name), storage.stat(path).size)
            except FileNotFoundError:  # another process has just done it
                continue
        storage.remove_tree(source)

    def discard(self, name: str) -> None:
        """Remove the predictions of a run that is in no entry, if it has any."""
        if name:
            storage.remove_tree(self.work(name))

    def clear(self) -> None:
        """Remove what processes left that were killed in a run, once it is certainly old."""
        root = self.work("")
        if storage.is_url(root):
            return
        known = {entry.work for entry in self.entries}
        for name in storage.names_in(root):
            with contextlib.suppress(OSError):
                age = time.time() - os.stat(self.work(name)).st_mtime
                if name not in known and age > ABANDONED_SECONDS:
                    self.discard(name)


def _replaced(source: str, target: str, _: int) -> None:
    storage.replace(source, target)


def _with_place(description: bytes, source: str, target: str, entry: Entry) -> bytes:
    """A run's description with its files where they are now, and with its offsets."""

    def moved(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(source):
            return target + value[len(source) :]
        return value

    data = json.loads(description)
    data["output"] = moved(data["output"])
    data["files"] = [moved(path) for path in data["files"]]
    if entry.offsets is not None:
        data["offsets"] = {
            f"{entry.offsets.topic}/{partition}": [first, end]
            for partition, (first, end) in entry.offsets.taken.items()
        }
    return to_json(data)
