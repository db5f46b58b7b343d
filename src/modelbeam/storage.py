"""Files by path: local ones through ``os``, URLs through Beam's ``FileSystems``.

Beam is imported only when a URL is met, so that local work never pays for it.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple


class FileInfo(NamedTuple):
    """A file as the plan sees it: ``size`` in bytes, ``mtime_ns`` in ns since the epoch."""

    path: str
    size: int
    mtime_ns: int


def is_url(path: str) -> bool:
    """Whether ``path`` belongs to Beam's ``FileSystems`` (``file://`` is an ordinary path)."""
    return "://" in path and not path.startswith("file://")


def normalize(path: str) -> str:
    """Strip ``file://``; everything else stays as it was given."""
    return path[len("file://") :] if path.startswith("file://") else path


def _filesystems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def _match(pattern: str) -> list[FileInfo]:
    result = _filesystems().match([pattern])[0]
    return [
        FileInfo(m.path, m.size_in_bytes, int((m.last_updated_in_seconds or 0) * 1e9))
        for m in result.metadata_list
    ]


def stat(path: str) -> FileInfo:
    """Look one file up.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_url(path):
        found = _match(path)
        if not found:
            raise FileNotFoundError(f"no such file: {path}")
        return found[0]
    status = os.stat(path)
    return FileInfo(path, status.st_size, status.st_mtime_ns)


def exists(path: str) -> bool:
    """Whether the file or directory is there."""
    return bool(_filesystems().exists(path)) if is_url(path) else os.path.lexists(path)


def is_directory(path: str) -> bool:
    """Whether ``path`` is a local directory, or a URL that ends in a slash."""
    return path.endswith("/") if is_url(path) else os.path.isdir(path)


def expand(pattern: str) -> list[FileInfo]:
    """The files that a path or glob names, sorted by path; empty if there are none.

    A file whose name happens to look like a glob is found by its plain name first.
    """
    if is_url(pattern):
        return sorted(_match(pattern))
    if os.path.isfile(pattern):
        return [stat(pattern)]
    return [stat(p) for p in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(p)]


def join(directory: str, *names: str) -> str:
    """``os.path.join`` that keeps URLs whole."""
    return (
        "/".join([directory.rstrip("/"), *names])
        if is_url(directory)
        else os.path.join(directory, *names)
    )


def open_read(path: str) -> BinaryIO:
    """Open for reading bytes as they are stored; never decompressed here."""
    if is_url(path):
        from apache_beam.io.filesystem import CompressionTypes

        handle: BinaryIO = _filesystems().open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        return handle
    return open(path, "rb", buffering=0)


def create(path: str) -> BinaryIO:
    """Open a new file for writing bytes as they are."""
    if is_url(path):
        from apache_beam.io.filesystem import CompressionTypes

        handle: BinaryIO = _filesystems().create(
            path, compression_type=CompressionTypes.UNCOMPRESSED
        )
        return handle
    return open(path, "wb", buffering=0)


def write_atomically(path: str, content: bytes) -> None:
    """Put ``content`` there so that a reader sees either nothing or all of it."""
    if is_url(path):  # an object store shows an object only once it is complete
        with create(path) as handle:
            handle.write(content)
        return
    temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        with open(temporary, "wb") as handle:
            handle.write(content)
        os.replace(temporary, path)
    except BaseException:
        remove([temporary])
        raise


def read_bytes(path: str) -> bytes:
    """The whole of a small file."""
    with open_read(path) as handle:
        parts = []
        while part := handle.read(1 << 20):
            parts.append(part)
        return b"".join(parts)


def make_directory(path: str) -> None:
    """Make a directory and its parents; nothing to do for object stores."""
    if not is_url(path):
        os.makedirs(path, exist_ok=True)


def replace(source: str, target: str) -> None:
    """Move a file, over whatever was at the target."""
    if is_url(source):
        if exists(target):
            _filesystems().delete([target])
        _filesystems().rename([source], [target])
    else:
        os.replace(source, target)


def remove(paths: Iterable[str]) -> None:
    """Remove files; those that are not there are no error."""
    for path in paths:
        if is_url(path):
            if exists(path):
                _filesystems().delete([path])
        else:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it; not being there is no error."""
    if is_url(path):
        found = [info.path for info in _match(path.rstrip("/") + "/**")]
        if found:
            _filesystems().delete(found)
    else:
        shutil.rmtree(path, ignore_errors=True)


def names_in(directory: str) -> list[str]:
    """The names (not paths) of what is directly in a directory, sorted; none if it is not there."""
    if is_url(directory):
        prefix = directory.rstrip("/") + "/"
        return sorted(info.path[len(prefix) :] for info in _match(prefix + "*"))
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def append_file(target: BinaryIO, source: str) -> None:
    """Copy a whole file to the end of an open local one, inside the kernel where it can."""
    with open_read(source) as handle:
        if hasattr(os, "copy_file_range") and not is_url(source):
            left = os.fstat(handle.fileno()).st_size
            try:
                while left > 0:
                    left -= os.copy_file_range(handle.fileno(), target.fileno(), left)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        shutil.copyfileobj(handle, target, 1 << 20)
