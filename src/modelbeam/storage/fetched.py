"""Files behind URLs as local ones, fetched once a process: for models, which open paths.

Each has a folder in the temporary directory, with a file that is locked as long as the process
lives. One that ends hard takes nothing away; whoever runs next does (:func:`clear`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress

from modelbeam.storage.base import Store

PREFIX = "modelbeam-fetched-"
_LOCK = ".lock"
_UNLOCKED_SECONDS = 3600.0
"""How old a folder without a lock must be to be taken for one that was left."""

_lock = threading.Lock()
_fetched: dict[tuple[int, str], str] = {}
_held: list[int] = []
"""Descriptors of locks: closed, and so given back, by the end of the process."""

_CHUNK = 8 << 20


def local_copy(store: Store, url: str) -> str:
    """See :func:`modelbeam.storage.local_copy`."""
    with _lock:  # one at a time: a model is fetched once, not once a thread
        known = (os.getpid(), url)
        if known not in _fetched:
            clear()
            _fetched[known] = fetch(store, url)
        return _fetched[known]


def clear() -> None:
    """Remove the folders of processes that are gone; never raises."""
    root = tempfile.gettempdir()
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(root) if entry.name.startswith(PREFIX)]
        for name in names:
            with suppress(OSError):  # another user's, or another process removes it as well
                _clear_folder(os.path.join(root, name))


def _clear_folder(folder: str) -> None:
    info = os.lstat(folder)
    if info.st_uid != os.geteuid():
        return
    try:
        descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:  # it is being made, or its process ended while it was
        if time.time() - info.st_mtime > _UNLOCKED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        if _take(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool | None:
    """Take a lock, which the system takes back when the process ends, however that is.

    Returns:
        Whether it could be had; ``None`` where files cannot be locked.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def new_folder() -> str:
    """A folder that all others leave alone as long as this process lives."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX)
        path = os.path.join(folder, _LOCK)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        taken = _take(descriptor)
        if taken is None or (taken and os.path.exists(path)):
            break
        os.close(descriptor)  # somebody was clearing, and took it for one that was left
    _held.append(descriptor)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: str, process: int) -> None:
    """At the end of the process that made it, and not of one that was forked from it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def fetch(store: Store, url: str) -> str:
    """The file or directory as it is now, in a folder of its own (:func:`new_folder`)."""
    plain = url.rstrip("/")
    folder = new_folder()
    target = os.path.join(folder, plain.rsplit("/", 1)[-1])
    try:
        if not url.endswith("/"):
            try:
                return _fetch_file(store, plain, target)
            except FileNotFoundError:
                if not store.is_directory(plain):
                    raise
        return _fetch_directory(store, plain, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fetch_directory(store: Store, url: str, target: str) -> str:
    files = [info.path for info in store.expand(url + "/**") if not info.path.endswith("/")]
    if not files:
        raise FileNotFoundError(2, "no such directory", url)
    for _ in store.in_parallel(
        lambda path: _fetch_file(store, path, os.path.join(target, path[len(url) + 1 :])), files
    ):
        pass
    return target


def _fetch_file(store: Store, url: str, target: str) -> str:
    part = target + ".part"
    with store.open_read(url) as source:
        head = source.read(_CHUNK)  # before anything is made here: it may not be there
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(part, "wb") as handle:
            handle.write(head)
            shutil.copyfileobj(source, handle, _CHUNK)
    os.replace(part, target)
    return target
