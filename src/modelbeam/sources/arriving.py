"""Which of the files in a directory are complete, which are new, and which have changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelbeam import storage
from modelbeam.errors import InputNotFoundError
from modelbeam.formats.partition import Partition
from modelbeam.sources.files import find_inputs
from modelbeam.storage import FileInfo

_BEING_WRITTEN = re.compile(
    r".*(\.(tmp|temp|part|partial|filepart|crdownload|download|swp|inprogress|writing|_COPYING_)|~)",
    re.IGNORECASE,
)
"""Names that programs give to files which they still write: browsers, rsync, Hadoop, editors."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file as it was when it was taken.

    Attributes:
        path, size, mtime_ns: as :class:`.storage.FileInfo` has them.
        node: tells it from another file that has its name later; 0 where that cannot be told.
    """

    path: str
    size: int
    mtime_ns: int
    node: int = 0

    @classmethod
    def of(cls, info: FileInfo) -> Taken:
        """A file as it is now."""
        return cls(info.path, info.size, info.mtime_ns, _node_of(info.path))


class Arrivals:
    """The files that patterns name, as time goes on.

    Args:
        patterns: as ``--input`` has them.
        any_suffix: see :func:`.files.find_inputs`.
        settle: seconds that a file must be still before it is taken.
        excluded: what the run itself writes.
    """

    def __init__(
        self, patterns: Sequence[str], any_suffix: bool, settle: float, excluded: Sequence[str]
    ) -> None:
        self._patterns, self._any_suffix, self._settle = patterns, any_suffix, settle
        self._excluded = excluded
        self._known: dict[str, Taken] = {}
        self._still: dict[str, tuple[Taken, float]] = {}
        self._told: set[Taken] = set()
        self._unread: set[str] = set()
        self.waiting = 0
        self.changed: list[str] = []
        self.partitions: dict[str, Partition] = {}

    def note(self, files: Iterable[Taken], *, unread: bool = False) -> None:
        """These files are done, or could not be read and may be repaired."""
        for one in files:
            self._known[one.path] = one
            (self._unread.add if unread else self._unread.discard)(one.path)

    def ready(self) -> list[FileInfo]:
        """The files that are complete and new, in the order in which they were changed last.

        Beside that :attr:`waiting` is how many are not complete yet, :attr:`changed` has a
        sentence for each that has changed since it was taken, told once, and :attr:`partitions`
        what the directories say.
        """
        now, self.waiting, self.changed = time.monotonic(), 0, []
        still: dict[str, tuple[Taken, float]] = {}
        good: list[FileInfo] = []
        for info in self._found():
            one = Taken.of(info)
            known = self._known.get(info.path)
            if known is not None and (known == one or self._same_file(known, one)):
                continue
            before = self._still.get(info.path)
            since = before[1] if before is not None and before[0] == one else now
            still[info.path] = (one, since)
            old = time.time() - info.mtime_ns / 1e9 >= self._settle and before is None
            if old or now - since >= self._settle:
                good.append(info)
            else:
                self.waiting += 1
        self._still = still
        return sorted(good, key=lambda info: (info.mtime_ns, info.path))

    def _same_file(self, known: Taken, now: Taken) -> bool:
        """Whether it is what was taken, grown or changed; another file of its name is new."""
        if known.node != now.node or known.path in self._unread:
            return False
        if now not in self._told:
            self._told.add(now)
            self.changed.append(
                f"{now.path} has changed since it was taken ({known.size} bytes then, {now.size} "
                f"now); it is not read again, since that would predict records twice. Put new "
                f"records into a new file"
            )
        return True

    def _found(self) -> list[FileInfo]:
        found: dict[str, FileInfo] = {}
        for pattern in self._patterns:
            try:
                inputs, _, partitions = find_inputs(
                    [pattern], any_suffix=self._any_suffix, excluded=self._excluded
                )
            except (InputNotFoundError, FileNotFoundError):  # none yet, or one that has just gone
                continue
            found.update((info.path, info) for info in inputs)
            self.partitions.update(partitions)
        return [
            info
            for info in found.values()
            if not _BEING_WRITTEN.fullmatch(info.path.rpartition("/")[2])
        ]


def _node_of(path: str) -> int:
    """What tells a file from another one that has its name later, if that can be told."""
    if storage.is_url(path):
        return 0
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
