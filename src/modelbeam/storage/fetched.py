"""Files behind URLs as local ones, fetched once a process: for models, which open paths."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading

from modelbeam.storage.base import Store

_lock = threading.Lock()
_fetched: dict[tuple[int, str], str] = {}
_CHUNK = 8 << 20
_place: list[str] = []


def keep_in(directory: str) -> None:
    """Fetch into a directory of the process that started this one, which removes it at its end."""
    _place[:] = [directory]


def new_folder() -> str:
    """An empty directory for what is fetched, of the user alone; it goes with the process."""
    folder = tempfile.mkdtemp(prefix="modelbeam-", dir=_place[0] if _place else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def local_copy(store: Store, url: str) -> str:
    """See :func:`modelbeam.storage.local_copy`."""
    with _lock:  # one at a time: a model is fetched once, not once a thread
        known = (os.getpid(), url)
        if known not in _fetched:
            _fetched[known] = _fetch(store, url)
        return _fetched[known]


def _fetch(store: Store, url: str) -> str:
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
