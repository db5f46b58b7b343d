"""``hdfs://``: Hadoop's file system through WebHDFS, the HTTP interface of its NameNode.

Beam's own file system for it lists one directory only, whatever the glob, and takes any refusal for
a file that is not there. It has no timeouts, and no rename over a file. WebHDFS renames over one in
one step, or only where there is none; so this store makes the promises that a local disk makes.

https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import quote, urlsplit

from modelbeam.errors import StorageError
from modelbeam.storage import base
from modelbeam.storage.base import (
    Entry,
    FileInfo,
    PreconditionError,
    Store,
    TransientError,
    retried,
    settings,
)
from modelbeam.storage.objects import ObjectReader, Piece, glob_pattern

Result = TypeVar("Result")

SPOOL = 8 << 20
"""Bytes of a file that are kept in memory until it is closed and sent; more are kept on disk."""

_CHUNK = 1 << 20
_OPTIONS = ("hdfs_host", "hdfs_port", "hdfs_user", "hdfs_full_urls")
_BUSY = re.compile(
    r"java\.(net|nio)\..*|org\.apache\.hadoop\.net\..*|java\.io\.(EOF|InterruptedIO)Exception|"
    r".*\.(BlockMissing|NotReplicatedYet|Retriable|SafeMode|Standby)Exception"
)
"""Java's exceptions that pass: one server of HDFS does not reach another, or begins."""

_BUSY_WORDS = ("Failed to find datanode", "could only be written to", "on local exception")
_FORBIDDEN = {"AccessControlException", "AuthorizationException", "SecurityException"}
_MISSING = {"FileNotFoundException", "ParentNotDirectoryException"}


class RefusedError(Exception):
    """An answer that is not the one hoped for.

    Args:
        status: of HTTP.
        java: the full name of the exception in HDFS, if it says one; ``kind`` is the end of it.
        said: its message.
    """

    def __init__(self, status: int, java: str, said: str) -> None:
        super().__init__(status, java, said)
        self.status, self.java, self.said = status, java, said
        self.kind = java.rpartition(".")[2]


class SourceError(Exception):
    """What is to be sent could not be read, for the reason that is the cause.

    It is no ``OSError``: to the HTTP library those mean that the connection is broken.
    """


class Connection(NamedTuple):
    """How to reach a NameNode: connections, the address of its WebHDFS, and Beam's flags."""

    session: Any
    address: str
    user: str
    full_urls: bool


class HdfsStore(Store):
    """The files behind ``hdfs://`` URLs. Directories are made where they are missing."""

    parallel = 16
    _reached = False

    def __init__(self) -> None:
        self._made: tuple[int, Connection | None] = (-1, None)
        try:
            import requests  # noqa: F401
        except ImportError:
            raise StorageError(
                "hdfs:// needs requests, which is not installed: pip install 'modelbeam[hdfs]'."
            ) from None

    def close(self) -> None:
        """Close the connections; more are made when they are needed."""
        _, made = self._made
        self._made = (-1, None)
        if made is not None:
            made.session.close()

    def _connected(self, url: str) -> Connection:
        version, made = self._made
        if made is None or version != settings.version:
            with settings.lock:
                version, made = self._made
                if made is None or version != settings.version:
                    made = self._connect(url)
                    self._made = (settings.version, made)
        return made

    def _connect(self, url: str) -> Connection:
        import requests
        from requests.adapters import HTTPAdapter

        given = settings.values("HadoopFileSystemOptions", _OPTIONS)
        missing = [name for name in _OPTIONS[:3] if not given[name]]
        if missing:
            raise StorageError(
                f"{url} cannot be reached: {' and '.join(missing)} must be set; pass "
                f"--hdfs_host=NAMENODE --hdfs_port=9870 --hdfs_user=NAME, where the port is that "
                f"of WebHDFS."
            )
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_connections=8, pool_maxsize=2 * self.parallel))
        address = f"http://{given['hdfs_host']}:{given['hdfs_port']}/webhdfs/v1"
        user, full_urls = str(given["hdfs_user"]), bool(given["hdfs_full_urls"])
        return Connection(session, address, user, full_urls)

    def _path(self, url: str) -> str:
        """The path inside HDFS."""
        rest = url.removeprefix("hdfs://")
        server, _, path = rest.partition("/")
        if self._connected(url).full_urls:
            rest = path
        elif ":" in server:
            raise StorageError(
                f"{url} names a server: write hdfs:///{path}, or pass --hdfs_full_urls. The "
                f"server is that of --hdfs_host and --hdfs_port."
            )
        return "/" + rest.strip("/")

    # Requests

    def _ask(self, url: str, request: Callable[[], Result]) -> Result:
        """Do one request, again while it fails for a reason that passes."""
        patience = base.PATIENCE_SECONDS if self._reached else base.FIRST_PATIENCE_SECONDS
        done = retried(request, lambda error: self._translated(error, url), url, patience)
        self._reached = True
        return done

    def _request(self, method: str, url: str, operation: str, **parameters: Any) -> Any:
        """Ask the NameNode, and what it says to ask."""
        to = self._connected(url)
        parameters = {"op": operation, "user.name": to.user, **parameters}
        place = to.address + quote(self._path(url), safe="/")
        redirect = operation != "CREATE"  # to a DataNode, which gets the data
        return self._send(to, method, place, params=parameters, allow_redirects=redirect)

    @staticmethod
    def _send(to: Connection, method: str, address: str, **settings: Any) -> Any:
        timeout = (base.CONNECT_SECONDS, base.REPLY_SECONDS)
        answer = to.session.request(method, address, timeout=timeout, **settings)
        if answer.status_code in (200, 201, 307):
            return answer
        try:
            said = answer.json()["RemoteException"]
            java = said.get("javaClassName") or said["exception"]
            refused = RefusedError(answer.status_code, java, said["message"])
        except (ValueError, LookupError, TypeError):
            refused = RefusedError(answer.status_code, "", answer.reason or "")
        raise refused

    def _translated(self, error: Exception, url: str) -> Exception:
        import requests
        from urllib3.exceptions import HTTPError

        if isinstance(error, RefusedError):
            return self._refusal(error, url)
        if isinstance(error, SourceError) and isinstance(error.__cause__, Exception):
            return error.__cause__
        if isinstance(error, requests.exceptions.InvalidURL):
            return StorageError(f"{url} cannot be reached: {error}.")
        if isinstance(error, (requests.RequestException, HTTPError, ConnectionError, TimeoutError)):
            asked = getattr(getattr(error, "request", None), "url", None)
            who = urlsplit(asked).netloc if asked else "HDFS"
            return TransientError(f"no answer from {who}: {type(error).__name__}")
        return error

    def _refusal(self, error: RefusedError, url: str) -> Exception:
        said = error.said.splitlines()[0].rstrip(".") if error.said else ""
        said = f"{error.status} {error.kind}: {said}"
        if error.kind in _MISSING:
            why = ", for what is above it is a file" if error.kind.startswith("Parent") else ""
            return FileNotFoundError(errno.ENOENT, f"no such file{why}", url)
        if error.kind == "FileAlreadyExistsException":
            return PreconditionError(said)
        busy = _BUSY.fullmatch(error.java) or any(words in error.said for words in _BUSY_WORDS)
        if busy or error.status in (408, 429) or (error.status >= 500 and error.status != 501):
            return TransientError(said)
        if error.kind in _FORBIDDEN or (error.status in (401, 403) and not error.kind):
            user = self._connected(url).user
            return StorageError(
                f"{url}: HDFS does not allow it to the user '{user}' ({said}). Name "
                f"another with --hdfs_user, or have the permissions changed."
            )
        if not error.kind:
            server = urlsplit(self._connected(url).address).netloc
            return StorageError(
                f"{url}: what answers at {server} is not WebHDFS ({said}). --hdfs_port is the "
                f"port of the NameNode's web pages, by default 9870."
            )
        return StorageError(f"{url}: HDFS refuses ({said}).")

    def _status(self, url: str) -> dict[str, Any]:
        """A file or directory as WebHDFS describes it."""
        answer = self._ask(url, lambda: self._request("GET", url, "GETFILESTATUS").json())
        found: dict[str, Any] = answer["FileStatus"]
        return found

    def _list(self, url: str) -> list[tuple[str, dict[str, Any]]]:
        """What is directly in a directory, by URL, sorted; nothing if there is no such one."""
        place = url if url.endswith("/") else url + "/"
        try:
            answer = self._ask(url, lambda: self._request("GET", url, "LISTSTATUS").json())
        except FileNotFoundError:
            return []
        found = answer["FileStatuses"]["FileStatus"]
        return sorted((place + f["pathSuffix"], f) for f in found if f["pathSuffix"])

    def _put(self, url: str, data: Callable[[], Any]) -> None:
        """Write a whole file; ``data()`` is what is sent, once for every try."""

        def send() -> None:
            named = self._request("PUT", url, "CREATE", overwrite="true").headers.get("Location")
            if not named:
                raise RefusedError(404, "", "no DataNode is named")
            self._send(self._connected(url), "PUT", named, data=data())

        with _in_the_way(url):
            self._ask(url, send)

    def _rename(self, source: str, target: str, options: str) -> None:
        """Move a file in one step.

        Raises:
            PreconditionError: there is a target, and ``options`` do not let it be overwritten.
        """
        tries = 0

        def rename() -> None:
            nonlocal tries
            tries += 1
            to = self._path(target)
            try:
                self._request("PUT", source, "RENAME", destination=to, renameoptions=options)
            except RefusedError as error:  # a reply was lost, and it is done?
                if tries == 1 or error.kind not in _MISSING or not self.exists(target):
                    raise

        self._ask(source, rename)

    # What a store does

    def stat(self, path: str) -> FileInfo:
        found = self._status(path)
        if found["type"] != "FILE":
            raise FileNotFoundError(errno.ENOENT, "no such file, but a directory", path)
        return _info(path, found)

    def exists(self, path: str) -> bool:
        try:
            self._status(path)
            return True
        except FileNotFoundError:
            return False

    def is_directory(self, path: str) -> bool:
        try:
            return bool(self._status(path)["type"] == "DIRECTORY")
        except FileNotFoundError:
            return False

    def expand(self, pattern: str) -> list[FileInfo]:
        with contextlib.suppress(FileNotFoundError):
            return [self.stat(pattern)]
        start = re.search(r"[*?\[]", pattern)
        if start is None:
            return []
        at = pattern.rindex("/", 0, start.start()) + 1
        found = self._walk(pattern[:at], pattern[at:].split("/"))
        wanted = re.compile(glob_pattern(pattern))
        return sorted(info for info in found if wanted.fullmatch(info.path))

    def _walk(self, directory: str, parts: list[str]) -> Iterator[FileInfo]:
        """The files that may match a glob, whose parts they are; no directory in vain."""
        endless = "**" in parts[0]
        part = re.compile(glob_pattern(parts[0]))
        for url, found in self._list(directory):
            fits = endless or part.fullmatch(url.rsplit("/", 1)[-1])
            if found["type"] == "FILE":
                if fits and (endless or len(parts) == 1):
                    yield _info(url, found)
            elif fits and (endless or len(parts) > 1):
                yield from self._walk(url, parts if endless else parts[1:])

    def files_in(self, directory: str) -> list[FileInfo]:
        return [_info(url, found) for url, found in self._list(directory) if _is_file(found)]

    def names_in(self, directory: str) -> list[str]:
        return [found["pathSuffix"] for _, found in self._list(directory)]

    def entries(self, directory: str) -> Iterator[Entry]:
        for _, found in self._list(directory):
            yield Entry(found["pathSuffix"], not _is_file(found))

    def open_read(self, path: str, end: int | None = None) -> BinaryIO:
        return cast(BinaryIO, ObjectReader(self, path, end))

    def piece(self, path: str, start: int, end: int, version: str | None = None) -> Piece:
        """Bytes ``[start, end)`` of a file, of that version if one is named."""

        def get() -> Piece:
            found = self._request("GET", path, "GETFILESTATUS").json()["FileStatus"]
            if not _is_file(found):
                raise FileNotFoundError(errno.ENOENT, "no such file, but a directory", path)
            size = found["length"]
            now = f"{found['fileId']} {size} {found['modificationTime']}"
            if version is not None and version != now:
                raise OSError(errno.ESTALE, "it was replaced while it was read", path)
            length = min(end, size) - start
            if length <= 0:
                return Piece(b"", size, now)
            data = self._request("GET", path, "OPEN", offset=start, length=length).content
            if len(data) != length:
                raise ConnectionError("the answer was cut short")
            return Piece(data, size, now)

        return self._ask(path, get)

    def create(self, path: str) -> BinaryIO:
        return cast(BinaryIO, HdfsWriter(self, path))

    def discard(self, handle: BinaryIO) -> None:
        cast(HdfsWriter, handle).discard()

    def send(self, path: str, file: Any) -> None:
        """Write all of an open local file to a new one, which nobody else writes."""

        def data() -> Any:
            file.seek(0)
            return iter(lambda: file.read(_CHUNK), b"")

        self._put(path, data)

    def write(self, path: str, content: bytes) -> None:
        with self._beside(path, content) as temporary:
            self.replace(temporary, path)

    def write_once(self, path: str, content: bytes) -> bool:
        with self._beside(path, content) as temporary:
            try:
                self._rename(temporary, path, "NONE")
                return True
            except PreconditionError:
                self.remove([temporary])
                return False

    @contextlib.contextmanager
    def _beside(self, path: str, content: bytes) -> Iterator[str]:
        """A temporary file with the content."""
        temporary = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        try:
            self._put(temporary, lambda: content)
            yield temporary
        except BaseException:
            with contextlib.suppress(Exception):
                self.remove([temporary])
            raise

    def make_directory(self, path: str) -> None:
        with _in_the_way(path):
            self._ask(path, lambda: self._request("PUT", path, "MKDIRS"))

    def replace(self, source: str, target: str) -> None:
        with _in_the_way(target):
            self._rename(source, target, "OVERWRITE")

    def remove(self, paths: Sequence[str]) -> None:
        for _ in self.in_parallel(lambda path: self._delete(path, "false"), paths):
            pass

    def remove_tree(self, path: str) -> None:
        self._delete(path, "true")

    def _delete(self, path: str, recursive: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(path, lambda: self._request("DELETE", path, "DELETE", recursive=recursive))

    def concatenate(self, sources: Sequence[tuple[str, int]], target: str) -> None:
        def data() -> Iterator[bytes]:
            for path, size in sources:
                try:
                    with self.open_read(path, size) as handle:
                        while part := handle.read(_CHUNK):
                            yield part
                except OSError as error:
                    raise SourceError(path) from error

        self._put(target, data)


class HdfsWriter(io.RawIOBase):
    """Keeps what is written until it is closed, then sends it; so it may be sent again.

    Leaving a ``with`` by an exception discards it.
    """

    def __init__(self, store: HdfsStore, path: str) -> None:
        super().__init__()
        self._store, self._path = store, path
        self._file: Any = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        self.discard()  # it was never closed: nobody knows whether it is whole

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def write(self, data: Any) -> int:
        """Take all of ``data``."""
        return int(self._file.write(data))

    def close(self) -> None:
        if self.closed:
            return
        try:
            if not self._file.closed:
                self._store.send(self._path, self._file)
        finally:
            self._file.close()
            super().close()

    def discard(self) -> None:
        """Drop what was written."""
        self._file.close()
        super().close()


@contextlib.contextmanager
def _in_the_way(url: str) -> Iterator[None]:
    """Nothing is to be overwritten but a file by a file."""
    try:
        yield
    except PreconditionError as error:
        raise OSError(errno.EEXIST, f"there is something in the way ({error})", url) from None


def _is_file(found: dict[str, Any]) -> bool:
    return bool(found["type"] == "FILE")


def _info(url: str, found: dict[str, Any]) -> FileInfo:
    return FileInfo(url, found["length"], found["modificationTime"] * 10**6)
