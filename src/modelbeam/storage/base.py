"""What all stores have in common: their interface, and the one place where requests are retried."""

from __future__ import annotations

import itertools
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = "storage"
"""How the names of threads begin that ask a store."""

PATIENCE_SECONDS = 300.0
"""How long one operation is tried again before it is given up."""

FIRST_PATIENCE_SECONDS = 20.0
"""The same for a store that has not answered anything yet: its address may be wrong."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 15.0
"""Seconds between two tries; each is twice the one before, and a random part of that is waited."""

CONNECT_SECONDS, REPLY_SECONDS = 10.0, 60.0
"""How long a store may take to connect, and to send the next bytes of an answer."""


class FileInfo(NamedTuple):
    """A file as the plan sees it: ``size`` in bytes, ``mtime_ns`` in ns since the epoch."""

    path: str
    size: int
    mtime_ns: int


class Listed(FileInfo):
    """A local file that was listed: its device and number are known too."""

    identity: tuple[int, int]


class Entry(NamedTuple):
    """Something in a directory: its name, and whether it is a directory itself."""

    name: str
    is_directory: bool


class TransientError(Exception):
    """The store did not answer, or asked to come again: the request may be repeated."""


class PreconditionError(Exception):
    """The request was conditional, and the condition does not hold."""


class Settings:
    """Beam's flags that say how stores are reached; :func:`modelbeam.storage.configure` sets them.

    ``version`` changes with each setting, so that clients made before are not used any more.
    """

    def __init__(self) -> None:
        self.flags: tuple[str, ...] = ()
        self.version = 0
        self.lock = threading.RLock()
        self.options_of_this_worker: Callable[[], Any] = lambda: None
        """Beam's options where this process is a worker of its; :mod:`modelbeam.beam` knows."""

    def set(self, flags: Sequence[str]) -> None:
        """Take new flags."""
        with self.lock:
            if tuple(flags) != self.flags:
                self.flags = tuple(flags)
                self.version += 1

    def values(self, options: str, names: Iterable[str]) -> dict[str, Any]:
        """What the flags say, by name.

        Where none are set, and Beam runs here as a worker of some engine, its options are asked:
        they came with the job.

        Args:
            options: the class in Beam's ``pipeline_options`` that has them.
            names: without dashes.
        """
        import argparse

        if not self.flags and (beams := self.options_of_this_worker()) is not None:
            from apache_beam.options import pipeline_options

            view = beams.view_as(getattr(pipeline_options, options))
            return {name: getattr(view, name, None) for name in names}
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name in names:
            switch: Any = {"action": "store_true"} if name in _SWITCHES else {}
            parser.add_argument(f"--{name}", default=None, **switch)
        return vars(parser.parse_known_args(list(self.flags))[0])


_SWITCHES = {"s3_disable_ssl", "no_auth", "hdfs_full_urls"}

settings = Settings()


def retried(
    ask: Callable[[], Result],
    translate: Callable[[Exception], Exception],
    path: str,
    patience: float = PATIENCE_SECONDS,
) -> Result:
    """Do one request, again and again while it fails for a reason that passes.

    Every request is such that repeating it is harmless, since a reply may be lost after the store
    has done what was asked.

    Args:
        ask: makes the request.
        translate: gives for what ``ask`` raised the error to raise, a :class:`TransientError` if
            the request is worth repeating.
        path: what it is about, for the error.
        patience: for how many seconds it is.

    Raises:
        OSError: it still failed after that.
        Exception: what ``translate`` gave.
    """
    deadline = time.monotonic() + patience
    pause = FIRST_PAUSE
    while True:
        try:
            return ask()
        except Exception as error:
            translated = translate(error)
            if not isinstance(translated, TransientError):
                if translated is error:
                    raise
                raise translated from error
            wait = random.uniform(pause / 2, pause)
            if time.monotonic() + wait > deadline:
                raise OSError(
                    5, f"the store still fails after {patience:.0f} s ({translated})", path
                ) from error
        time.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


class Store(ABC):
    """Files of one kind: local ones, those of one scheme, or all that Beam knows.

    Paths are whole: local paths or URLs. What is not there raises ``FileNotFoundError``, what goes
    wrong otherwise ``OSError`` or :class:`.errors.StorageError`.
    """

    keeps_sources = False
    """Whether renaming would be copying here, so that whoever can should copy and delete at once
    later."""

    parallel = 1
    """Requests that are worth making at the same time."""

    def in_parallel(
        self, function: Callable[[Item], Result], items: Iterable[Item], width: int | None = None
    ) -> Iterator[Result]:
        """Map over items in order, with several calls at once; see the function of that name."""
        width = min(self.parallel, width or self.parallel)
        if width == 1:
            yield from map(function, items)
            return
        items = iter(items)
        threads = ThreadPoolExecutor(width, _THREADS)
        waiting: deque[Future[Result]] = deque()
        try:
            for item in itertools.islice(items, 4 * width):
                waiting.append(threads.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
                for item in itertools.islice(items, 1):
                    waiting.append(threads.submit(function, item))
        finally:
            # one that nobody has gone through may be collected in a thread of its own
            own = threading.current_thread().name.startswith(_THREADS)
            threads.shutdown(wait=not own, cancel_futures=True)

    @abstractmethod
    def stat(self, path: str) -> FileInfo:
        """Look one file up."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether the file or directory is there."""

    @abstractmethod
    def is_directory(self, path: str) -> bool:
        """Whether it is one."""

    @abstractmethod
    def expand(self, pattern: str) -> list[FileInfo]:
        """The files that a path or glob names, sorted by path."""

    @abstractmethod
    def files_in(self, directory: str) -> list[FileInfo]:
        """The files directly in a directory, sorted by path; none if it is not there."""

    def has_files(self, directory: str, suffix: str) -> bool:
        """Whether a directory has files whose names end so."""
        return any(info.path.endswith(suffix) for info in self.files_in(directory))

    @abstractmethod
    def names_in(self, directory: str) -> list[str]:
        """The names of files and directories directly in a directory, sorted."""

    def entries(self, directory: str) -> Iterator[Entry]:
        """What is directly in a directory, in any order, one after another as it is read.

        Where only Beam can list, directories are not told.
        """
        return (Entry(name, False) for name in self.names_in(directory))

    @abstractmethod
    def open_read(self, path: str, end: int | None = None) -> BinaryIO:
        """Open for reading; ``end`` is where the reader will stop, or shortly after."""

    def read_small(self, path: str, size: int) -> tuple[bytes, FileInfo]:
        """The first ``size`` bytes, and what the file was once they were read."""
        return self.read_head(path, size), self.stat(path)

    def read_head(self, path: str, size: int) -> bytes:
        """The first ``size`` bytes, or all if there are fewer."""
        with self.open_read(path, size) as handle:
            return handle.read(size)

    @abstractmethod
    def create(self, path: str) -> BinaryIO:
        """Open a new file for writing; it may be seen only once it is closed."""

    @abstractmethod
    def discard(self, handle: BinaryIO) -> None:
        """Close what :meth:`create` opened without keeping what was written."""

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Put a small file in place, whole."""

    @abstractmethod
    def write_once(self, path: str, content: bytes) -> bool:
        """Put a small file in place unless there is one, and return whether it was put."""

    @abstractmethod
    def make_directory(self, path: str) -> None:
        """Make a directory and its parents."""

    @abstractmethod
    def replace(self, source: str, target: str) -> None:
        """Move a file over whatever is at the target."""

    def copy(self, source: str, target: str, size: int) -> None:
        """Copy a file of that size over whatever is at the target; only if ``keeps_sources``."""
        raise NotImplementedError

    @abstractmethod
    def remove(self, paths: Sequence[str]) -> None:
        """Remove files; those that are not there are no error."""

    @abstractmethod
    def remove_tree(self, path: str) -> None:
        """Remove a directory with all that is in it."""

    @abstractmethod
    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        """Write files (path and size) one after the other into a new one."""
