"""The ledger of a run over files as they arrive: numbered entries, each the commit of a small run.

An entry is put only if no other has its number, so of two processes that watch the same directory
one has the files and the other looks again; as the log of Delta Lake does it. It names the files
that were taken and the directory that their predictions wait in; that directory is then moved to
where people look. Whoever comes next finishes a move that was not.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from modelbeam import storage
from modelbeam.errors import OutputExistsError
from modelbeam.sinks.files.manifest import to_json
from modelbeam.sinks.files.state import LOCK
from modelbeam.sinks.locks import hold
from modelbeam.sources.arriving import Taken
from modelbeam.storage import join

ABANDONED_SECONDS = 24 * 3600
"""How old the directory of a run is that nobody finishes any more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One small run.

    Attributes:
        work: the directory that its predictions were written to, below the ledger's.
        files: what it read.
        counts: ``read``, ``predicted``, ``failed``.
        error: why its files could not be read; there are no predictions then.
    """

    work: str
    files: tuple[Taken, ...]
    counts: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return to_json({**asdict(self), "files": [asdict(taken) for taken in self.files]})

    @classmethod
    def from_bytes(cls, content: bytes) -> Entry:
        """Read what :meth:`to_bytes` made."""
        data = json.loads(content)
        files = tuple(Taken(**taken) for taken in data["files"])
        return cls(data["work"], files, data["counts"], data["error"])


class Ledger:
    """The ledger in an output directory.

    Args:
        output: the directory.
    """

    def __init__(self, output: str) -> None:
        self.output = output
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
                raise OutputExistsError(
                    f"--output {self.output} holds something else than a run over files as they "
                    f"arrive. Name another directory."
                )
        storage.make_directory(self._log)
        self.read()

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
            number = len(self.entries)
            content = storage.read_if_there(self._path(number))
            if content is None:
                return new
            entry = Entry.from_bytes(content)
            self.entries.append(entry)
            new.append((number, entry))
            self._show(number, entry)

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
        won = storage.write_once(self._path(len(self.entries)), content) == content
        self.read()
        return won

    def _show(self, number: int, entry: Entry) -> None:
        """Move the predictions of an entry to where people look; may be done again and by two."""
        source, target = self.work(entry.work), self.place(number)
        names = storage.names_in(source)
        if entry.error is not None or not names:
            return
        storage.make_directory(target)
        last = ("run.json", "_SUCCESS")  # in this order
        shards = [name for name in names if name not in last and not name.startswith("_modelbeam")]
        move = storage.copy if storage.keeps_sources(source) else _replaced
        for name in [*sorted(shards), *(name for name in last if name in names)]:
            path = join(source, name)
            try:
                if name == "run.json":
                    moved = _with_place(storage.read_bytes(path), source, target)
                    storage.write_atomically(join(target, name), moved)
                else:
                    move(path, join(target, name), storage.stat(path).size)
            except FileNotFoundError:  # another process has just done it
                continue
        storage.remove_tree(source)

    def discard(self, name: str) -> None:
        """Remove the predictions of a run that is in no entry."""
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


def _with_place(description: bytes, source: str, target: str) -> bytes:
    """A run's description with its files where they are now."""

    def moved(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(source):
            return target + value[len(source) :]
        return value

    data = json.loads(description)
    data["output"] = moved(data["output"])
    data["files"] = [moved(path) for path in data["files"]]
    return to_json(data)
