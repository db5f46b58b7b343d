"""Files of every other scheme (``azfs://`` …), through Beam's ``FileSystems``.

Nothing is presumed of these stores but that a rename puts a whole file in place. Two publishers at
once over an existing output are safe only on the others: here a target is deleted before a file
can be renamed to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from modelbeam.errors import StorageError
from modelbeam.storage.base import FileInfo, Store, TransientError, retried, settings


class BeamStore(Store):
    """What Beam's ``FileSystems`` reach."""

    parallel = 16

    def __init__(self) -> None:
        self._version = -1

    def _ask(self, path: str, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of ``FileSystems``."""
        filesystems = self._filesystems(path)
        return retried(
            lambda: getattr(filesystems, name)(*arguments, **named),
            lambda error: _translated(error, path),
            path,
        )

    def _filesystems(self, path: str) -> Any:
        try:
            from apache_beam.io.filesystems import FileSystems

            with settings.lock:
                if self._version != settings.version and settings.flags:
                    from apache_beam.options.pipeline_options import PipelineOptions

                    FileSystems.set_options(PipelineOptions(list(settings.flags)))
                self._version = settings.version
            FileSystems.get_filesystem(path)
        except (ImportError, ValueError) as error:
            scheme = path.partition("://")[0]
            extra = {"azfs": "azure", "abfs": "azure"}.get(scheme)
            remedy = f"pip install 'apache-beam[{extra}]'" if extra else "use another scheme"
            if "is not set" in str(error):
                remedy = f"pass it as a flag, such as --{str(error).split()[0]}=…"
            raise StorageError(f"{path} cannot be reached: {error}; {remedy}.") from error
        return FileSystems

    def _match(self, pattern: str) -> list[FileInfo]:
        result = self._ask(pattern, "match", [pattern])[0]
        return [
            FileInfo(m.path, m.size_in_bytes, int((m.last_updated_in_seconds or 0) * 1e9))
            for m in result.metadata_list
        ]

    def stat(self, path: str) -> FileInfo:
        for info in self._match(path):
            if info.path == path:
                return info
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def exists(self, path: str) -> bool:
        return bool(self._ask(path, "exists", path))

    def is_directory(self, path: str) -> bool:
        return path.endswith("/")

    def expand(self, pattern: str) -> list[FileInfo]:
        return sorted(self._match(pattern))

    def files_in(self, directory: str) -> list[FileInfo]:
        return sorted(self._match(directory.rstrip("/") + "/*"))

    def names_in(self, directory: str) -> list[str]:
        return [info.path.rsplit("/", 1)[-1] for info in self.files_in(directory)]

    def open_read(self, path: str, end: int | None = None) -> BinaryIO:  # noqa: ARG002
        from apache_beam.io.filesystem import CompressionTypes

        plain = CompressionTypes.UNCOMPRESSED
        try:
            return cast(BinaryIO, self._ask(path, "open", path, compression_type=plain))
        except OSError:
            if not self.exists(path):
                raise FileNotFoundError(errno.ENOENT, "no such file", path) from None
            raise

    def create(self, path: str) -> BinaryIO:
        from apache_beam.io.filesystem import CompressionTypes

        plain = CompressionTypes.UNCOMPRESSED
        return cast(BinaryIO, self._ask(path, "create", path, compression_type=plain))

    def discard(self, handle: BinaryIO) -> None:
        handle.close()

    def write(self, path: str, content: bytes) -> None:
        temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        with self.create(temporary) as handle:
            handle.write(content)
        self.replace(temporary, path)

    def write_once(self, path: str, content: bytes) -> bool:
        """As the interface has it, as far as Beam allows: another may come between."""
        if self.exists(path):
            return False
        self.write(path, content)
        return True

    def make_directory(self, path: str) -> None:
        with contextlib.suppress(OSError):  # it is there already, or there is no such thing
            self._ask(path, "mkdirs", path)

    def replace(self, source: str, target: str) -> None:
        """Move a file. The target is deleted only while the source is certain to be there."""
        if self.exists(target):
            self.stat(source)
            self.remove([target])
        try:
            self._ask(source, "rename", [source], [target])
        except OSError:
            if not self.exists(source):
                raise FileNotFoundError(errno.ENOENT, "no such file", source) from None
            raise

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            if self.exists(path):
                with contextlib.suppress(FileNotFoundError):
                    self._ask(path, "delete", [path])

    def remove_tree(self, path: str) -> None:
        if self.exists(path):  # a directory, where there is such a thing
            with contextlib.suppress(OSError):
                self._ask(path, "delete", [path.rstrip("/")])
        found = [info.path for info in self._match(path.rstrip("/") + "/**")]
        if found:
            self._ask(path, "delete", found)

    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        with self.create(target) as handle:
            for path, _ in sources:
                with self.open_read(path) as source:
                    shutil.copyfileobj(source, handle, 4 << 20)


def _translated(error: Exception, path: str) -> Exception:
    """What ``FileSystems`` raised, as an ``OSError``."""
    causes: list[BaseException] = [error]
    details = getattr(error, "exception_details", None) or {}
    causes += [cause for cause in details.values() if isinstance(cause, BaseException)]
    if error.__cause__ is not None:
        causes.append(error.__cause__)
    for cause in causes:
        if isinstance(cause, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, "no such file", path)
        if isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__name__ in (
            "ConnectionError",
            "ConnectTimeout",
            "ReadTimeout",
            "ChunkedEncodingError",
        ):
            return TransientError(f"{type(cause).__name__}: {cause}")
    if isinstance(error, OSError):
        return error
    text = "; ".join(str(cause) for cause in details.values()) or str(error)
    return OSError(errno.EIO, text, path)
