"""Files by path: local, ``s3://``, ``gs://``, ``hdfs://`` by stores of our own, the rest by Beam.

What a store's library needs is imported only when a URL of it is met, so that local work never
pays for it. Beam is needed for none of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, TypeVar

from modelbeam.errors import RequestError, StorageError
from modelbeam.storage import base, fetched, local
from modelbeam.storage.base import Entry as Entry
from modelbeam.storage.base import FileInfo as FileInfo
from modelbeam.storage.base import Listed as Listed
from modelbeam.storage.base import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

_STORES = {
    "s3": "modelbeam.storage.s3:S3Store",
    "gs": "modelbeam.storage.gcs:GcsStore",
    "hdfs": "modelbeam.storage.hdfs:HdfsStore",
}
_BEAM = "modelbeam.storage.beam:BeamStore"

_local = local.LocalStore()
_stores: dict[str, Store] = {}


def is_url(path: str) -> bool:
    """Whether ``path`` is a URL (``file://`` is an ordinary path)."""
    return "://" in path and not path.startswith("file://")


def normalize(path: str) -> str:
    """Strip ``file://``; everything else stays as it was given."""
    return path[len("file://") :] if path.startswith("file://") else path


def configure(flags: Sequence[str]) -> None:
    """Say how stores are reached, in this process.

    Args:
        flags: Beam's (``--s3_endpoint_url=…``, ``--hdfs_host=…``); others are passed over. They may
            hold secrets and are kept in memory only.
    """
    base.settings.set(flags)


def configuration() -> tuple[str, ...]:
    """What :func:`configure` was given, for another process of this job."""
    return base.settings.flags


def store_of(path: str) -> Store:
    """The store that a path belongs to."""
    if not is_url(path):
        return _local
    scheme = path.partition("://")[0]
    found = _stores.get(scheme)
    if found is None:
        with base.settings.lock:
            found = _stores.get(scheme) or _stores.setdefault(scheme, _make_store(scheme))
    return found


def _make_store(scheme: str) -> Store:
    module, _, name = _STORES.get(scheme, _BEAM).partition(":")
    made: Store = getattr(importlib.import_module(module), name)()
    return made


@contextlib.contextmanager
def asked_for(flag: str) -> Iterator[None]:
    """While a job is planned, make what a store refuses an error of the request.

    Args:
        flag: with its value, such as ``--input s3://bucket/in``.

    Raises:
        RequestError: a store could not be reached or did not let us.
    """
    try:
        yield
    except StorageError as error:
        raise RequestError(f"{flag}: {error}") from error
    except OSError as error:
        raise RequestError(f"{flag}: {error.strerror or error}.") from error


def stat(path: str) -> FileInfo:
    """Look one file up.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return store_of(path).stat(path)


def exists(path: str) -> bool:
    """Whether the file or directory is there."""
    return store_of(path).exists(path)


def is_directory(path: str) -> bool:
    """Whether there is such a directory; in an object store, anything whose name begins so."""
    return store_of(path).is_directory(path)


def expand(pattern: str) -> list[FileInfo]:
    """The files that a path or glob names, sorted by path; empty if there are none.

    A file whose name happens to look like a glob is found by its plain name first.
    """
    return store_of(pattern).expand(pattern)


def join(directory: str, *names: str) -> str:
    """``os.path.join`` that keeps URLs whole."""
    return (
        "/".join([directory.rstrip("/"), *names])
        if is_url(directory)
        else os.path.join(directory, *names)
    )


def open_read(path: str, end: int | None = None) -> BinaryIO:
    """Open for reading bytes as they are stored; never decompressed here.

    Args:
        path: the file.
        end: where the reader will stop, or shortly after; then not much more is fetched.
    """
    return store_of(path).open_read(path, end)


def read_small(path: str, size: int) -> tuple[bytes, FileInfo]:
    """The first ``size`` bytes of a small file, and what the file was once they were read."""
    return store_of(path).read_small(path, size)


def read_head(path: str, size: int) -> bytes:
    """The first ``size`` bytes of a file, or all if there are fewer."""
    return store_of(path).read_head(path, size)


def create(path: str) -> BinaryIO:
    """Open a new file for writing bytes as they are; an object is there once it is closed."""
    return store_of(path).create(path)


def write_all(handle: BinaryIO, data: bytes) -> None:
    """Write all of ``data``, of which an unbuffered file may take a part at a time."""
    written = handle.write(data)
    while written is not None and written < len(data):
        data = data[written:]
        written = handle.write(data)


def discard(path: str, handle: BinaryIO) -> None:
    """Close what :func:`create` opened, and leave nothing of it."""
    store_of(path).discard(handle)
    remove([path])


def write_atomically(path: str, content: bytes) -> None:
    """Put ``content`` there so that a reader sees either nothing or all of it."""
    store_of(path).write(path, content)


def write_once(path: str, content: bytes) -> bytes:
    """Put ``content`` there unless something is; of several processes one succeeds.

    Returns:
        What is there now.
    """
    return content if store_of(path).write_once(path, content) else read_bytes(path)


def read_bytes(path: str) -> bytes:
    """The whole of a small file."""
    with open_read(path) as handle:
        parts = []
        while part := handle.read(1 << 20):
            parts.append(part)
        return b"".join(parts)


def read_if_there(path: str) -> bytes | None:
    """The whole of a small file, or ``None`` if there is none."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


def make_directory(path: str) -> None:
    """Make a directory and its parents; nothing to do for object stores."""
    store_of(path).make_directory(path)


def keeps_sources(path: str) -> bool:
    """Whether :func:`replace` would be a copy here, so that :func:`copy` is the better choice."""
    return store_of(path).keeps_sources


def replace(source: str, target: str) -> None:
    """Move a file, over whatever was at the target."""
    store_of(source).replace(source, target)


def copy(source: str, target: str, size: int) -> None:
    """Copy an object of ``size`` bytes inside its store, over whatever was at the target."""
    store_of(source).copy(source, target, size)


def remove(paths: Iterable[str]) -> None:
    """Remove files of one store; those that are not there are no error."""
    listed = list(paths)
    if listed:
        store_of(listed[0]).remove(listed)


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it; not being there is no error."""
    store_of(path).remove_tree(path)


def files_in(directory: str) -> list[FileInfo]:
    """The files directly in a directory, sorted by path; none if it is not there."""
    return store_of(directory).files_in(directory)


def has_files(directory: str, suffix: str) -> bool:
    """Whether there are files in a directory whose names end so; one request, however many."""
    return store_of(directory).has_files(directory, suffix)


def names_in(directory: str) -> list[str]:
    """The names (not paths) of what is directly in a directory, sorted; none if it is not there."""
    return store_of(directory).names_in(directory)


def entries_in(directory: str) -> Iterator[Entry]:
    """What is directly in a directory, in any order; read on only as far as it is asked for."""
    return store_of(directory).entries(directory)


def concatenate(sources: Sequence[tuple[str, int]], target: str) -> None:
    """Write files (path and size in bytes) one after the other into a new one of the same store."""
    store_of(target).concatenate(sources, target)


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], path: str, width: int | None = None
) -> Iterator[Result]:
    """Map ``function`` over ``items`` in order, with as many requests at once as the store likes.

    The first failure ends it; what has not been begun by then is not done.

    Args:
        function: makes requests.
        items: what it is called with.
        path: anything in the store.
        width: how many requests at once at most, if the store would like more.
    """
    return store_of(path).in_parallel(function, items, width)


def local_copy(url: str) -> str:
    """A file or directory behind a URL as a local path; fetched once a process.

    The name stays, so that its suffix still tells what it is. A local path is returned as it is.

    Raises:
        FileNotFoundError: there is neither a file nor a directory of that name.
    """
    if not is_url(url):
        return normalize(url)
    return fetched.local_copy(store_of(url), url)


def clear_local_copies() -> None:
    """Remove what processes fetched that are gone; one that was killed could not."""
    fetched.clear()
