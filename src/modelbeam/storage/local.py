"""Local files, through ``os``."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from modelbeam.storage.base import Entry, FileInfo, Listed, Store


class LocalStore(Store):
    """The file system of this machine."""

    def stat(self, path: str) -> FileInfo:
        status = os.stat(path)
        return FileInfo(path, status.st_size, status.st_mtime_ns)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def expand(self, pattern: str) -> list[FileInfo]:
        if os.path.isfile(pattern):
            return [self.stat(pattern)]
        found = sorted(glob.glob(pattern, recursive=True))
        return [self.stat(path) for path in found if os.path.isfile(path)]

    def files_in(self, directory: str) -> list[FileInfo]:
        found: list[FileInfo] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_file():
                        status = entry.stat()
                        info = Listed(entry.path, status.st_size, status.st_mtime_ns)
                        info.identity = status.st_dev, status.st_ino
                        found.append(info)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found)

    def has_files(self, directory: str, suffix: str) -> bool:
        try:
            with os.scandir(directory) as entries:
                return any(entry.name.endswith(suffix) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def names_in(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, directory: str) -> Iterator[Entry]:
        """As the base says; a link to a directory is none, so that nobody walks in circles."""
        try:
            with os.scandir(directory) as found:
                for entry in found:
                    yield Entry(entry.name, entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return

    def open_read(self, path: str, end: int | None = None) -> BinaryIO:  # noqa: ARG002
        return open(path, "rb", buffering=0)

    def read_small(self, path: str, size: int) -> tuple[bytes, FileInfo]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, size)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return data, FileInfo(path, status.st_size, status.st_mtime_ns)

    def read_head(self, path: str, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)

    def create(self, path: str) -> BinaryIO:
        return open(path, "wb", buffering=0)

    def discard(self, handle: BinaryIO) -> None:
        handle.close()

    def write(self, path: str, content: bytes) -> None:
        temporary = self._temporary(path)
        try:
            with open(temporary, "wb") as handle:
                handle.write(content)
            os.replace(temporary, path)
        except BaseException:
            self.remove([temporary])
            raise

    def write_once(self, path: str, content: bytes) -> bool:
        temporary = self._temporary(path)
        try:
            with open(temporary, "wb") as handle:
                handle.write(content)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if os.path.lexists(path):
                    return False
                os.replace(temporary, path)
            return True
        finally:
            self.remove([temporary])

    @staticmethod
    def _temporary(path: str) -> str:
        return f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        with self.create(target) as handle:
            for path, _ in sources:
                append(handle, path)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
"""What file systems without hard links answer."""


def append(target: BinaryIO, source: str) -> None:
    """Copy a whole local file to the end of an open one, inside the kernel where it can."""
    with open(source, "rb", buffering=0) as handle:
        if hasattr(os, "copy_file_range"):
            left = os.fstat(handle.fileno()).st_size
            try:
                while left > 0:
                    copied = os.copy_file_range(handle.fileno(), target.fileno(), left)
                    if not copied:
                        break
                    left -= copied
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        shutil.copyfileobj(handle, target, 1 << 20)
