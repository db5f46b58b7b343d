"""What ``s3://`` and ``gs://`` have in common: names that are only names, whole objects, no rename.

A store of this kind shows an object once all of it is there, replaces one at once, and reads what
was written last. It has neither directories nor renames, and lists in pages. Every request here is
such that it may be repeated, since a reply may be lost after the store did what was asked.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import re
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar, cast

from modelbeam.errors import StorageError
from modelbeam.storage import base
from modelbeam.storage.base import Entry, FileInfo, PreconditionError, Store, retried

Result = TypeVar("Result")

MIB = 1 << 20

FIRST_BLOCK, LARGEST_BLOCK = 256 << 10, 4 * MIB
"""Bytes that a reader asks for at once: the more, the longer it has read on without a jump."""

PART = 8 * MIB
"""Bytes of a file that are sent at once; a file with fewer is one request."""

PAGE = 1000
"""Names that one request lists; no store gives more."""

AHEAD = 2
"""Blocks that are fetched while one is being used."""

_fetching: dict[int, ThreadPoolExecutor] = {}


class Name(NamedTuple):
    """A URL taken apart."""

    bucket: str
    key: str


class Page(NamedTuple):
    """A page of a listing: objects, common prefixes, and where the next page begins."""

    files: list[FileInfo]
    prefixes: list[str]
    token: str | None


class Piece(NamedTuple):
    """A part of an object: its bytes, the whole object's size, and what tells its versions apart.

    ``data`` is empty, and ``size`` unknown, where the part begins at or after the object's end.
    """

    data: bytes
    size: int | None
    version: str | None


class Pieces(Protocol):
    """A store whose files :class:`ObjectReader` reads."""

    def stat(self, path: str) -> FileInfo:
        """See :class:`.base.Store`."""

    def piece(self, path: str, start: int, end: int, version: str | None = None) -> Piece:
        """Bytes ``[start, end)`` of a file, of that version if one is named."""


class ObjectStore(Store):
    """An object store; the methods that begin with an underscore are one request each."""

    keeps_sources = True
    parallel = 32
    scheme: str
    delete_at_once: int
    """Objects that one request deletes."""

    _reached = False

    def name(self, url: str) -> Name:
        """Take a URL apart.

        Raises:
            StorageError: it has no bucket.
        """
        bucket, _, key = url.removeprefix(f"{self.scheme}://").partition("/")
        if not bucket:
            raise StorageError(f"{url} names no bucket; write {self.scheme}://BUCKET/PATH.")
        return Name(bucket, key)

    def url(self, bucket: str, key: str) -> str:
        """Put a URL together."""
        return f"{self.scheme}://{bucket}/{key}"

    @abstractmethod
    def close(self) -> None:
        """Close the connections; more are made when they are needed."""

    @abstractmethod
    def _translated(self, error: Exception, url: str) -> Exception:
        """What a request raised, as the error to raise."""

    @abstractmethod
    def _head(self, url: str) -> FileInfo:
        """Look an object up."""

    @abstractmethod
    def _get(self, url: str, start: int, end: int, version: str | None) -> Piece:
        """Get bytes ``[start, end)`` of an object, of that version if one is named."""

    @abstractmethod
    def _put(self, url: str, data: Any, once: bool) -> None:
        """Put a whole object, with ``once`` only if there is none."""

    @abstractmethod
    def _list(
        self, bucket: str, prefix: str, delimiter: str, token: str | None, limit: int
    ) -> Page:
        """List one page."""

    @abstractmethod
    def _copy(self, source: str, target: str, size: int) -> None:
        """Copy an object; makes several requests if it must."""

    @abstractmethod
    def _delete(self, bucket: str, keys: list[str]) -> list[str]:
        """Delete objects, and return the keys for which that has to be tried again."""

    @abstractmethod
    def upload(self, url: str) -> Upload:
        """Begin to send an object in parts."""

    def ask(self, url: str, request: Callable[[], Result]) -> Result:
        """Do one request, again while it fails for a reason that passes."""
        patience = base.PATIENCE_SECONDS if self._reached else base.FIRST_PATIENCE_SECONDS
        done = retried(request, lambda error: self._translated(error, url), url, patience)
        self._reached = True
        return done

    def stat(self, path: str) -> FileInfo:
        return self.ask(path, lambda: self._head(path))

    def exists(self, path: str) -> bool:
        if not path.endswith("/") and self.name(path).key:
            try:
                self.stat(path)
                return True
            except FileNotFoundError:
                pass
        return self.is_directory(path)

    def is_directory(self, path: str) -> bool:
        bucket, key = self.name(path.rstrip("/") + "/")
        page = self.ask(path, lambda: self._list(bucket, key, "", None, 1))
        return bool(page.files)

    def _pages(self, url: str, delimiter: str = "") -> Iterator[Page]:
        bucket, prefix = self.name(url)
        token: str | None = None
        while True:
            at = token
            page = self.ask(url, lambda at=at: self._list(bucket, prefix, delimiter, at, PAGE))  # type: ignore[misc]
            yield page
            token = page.token
            if not token:
                return

    def expand(self, pattern: str) -> list[FileInfo]:
        if not pattern.endswith("/"):
            try:
                return [self.stat(pattern)]
            except FileNotFoundError:
                pass
        bucket, key = self.name(pattern)
        start = re.search(r"[*?\[]", key)
        if start is None:
            return []
        wanted = re.compile(glob_pattern(key))
        found = []
        for page in self._pages(self.url(bucket, key[: start.start()])):
            found += [info for info in page.files if wanted.fullmatch(self.name(info.path).key)]
        return sorted(found)

    def files_in(self, directory: str) -> list[FileInfo]:
        place = directory.rstrip("/") + "/"
        found = []
        for page in self._pages(place, "/"):
            found += [info for info in page.files if info.path != place]
        return sorted(found)

    def has_files(self, directory: str, suffix: str) -> bool:
        pages = self._pages(directory.rstrip("/") + "/", "/")
        return any(info.path.endswith(suffix) for info in next(pages).files)

    def names_in(self, directory: str) -> list[str]:
        place = directory.rstrip("/") + "/"
        names = set()
        for page in self._pages(place, "/"):
            names |= {info.path[len(place) :] for info in page.files if info.path != place}
            names |= {url[len(place) :].rstrip("/") for url in page.prefixes}
        return sorted(names)

    def entries(self, directory: str) -> Iterator[Entry]:
        place = directory.rstrip("/") + "/"
        for page in self._pages(place, "/"):
            for info in page.files:
                if info.path != place:
                    yield Entry(info.path[len(place) :], False)
            for url in page.prefixes:
                yield Entry(url[len(place) :].rstrip("/"), True)

    def open_read(self, path: str, end: int | None = None) -> BinaryIO:
        reader = ObjectReader(self, path, end)
        return cast(BinaryIO, reader)

    def piece(self, path: str, start: int, end: int, version: str | None = None) -> Piece:
        """Bytes ``[start, end)`` of an object."""
        try:
            return self.ask(path, lambda: self._get(path, start, end, version))
        except PreconditionError:
            raise OSError(errno.ESTALE, "it was replaced while it was read", path) from None

    def create(self, path: str) -> BinaryIO:
        return cast(BinaryIO, ObjectWriter(self, path))

    def discard(self, handle: BinaryIO) -> None:
        cast(ObjectWriter, handle).discard()

    def write(self, path: str, content: Any) -> None:
        self.ask(path, lambda: self._put(path, content, False))

    def write_once(self, path: str, content: bytes) -> bool:
        try:
            self.ask(path, lambda: self._put(path, content, True))
            return True
        except PreconditionError:
            return False  # perhaps by ourselves, if the reply was lost: the reader will see

    def make_directory(self, path: str) -> None:
        pass

    def replace(self, source: str, target: str) -> None:
        self.copy(source, target, self.stat(source).size)
        self.remove([source])

    def copy(self, source: str, target: str, size: int) -> None:
        self._copy(source, target, size)

    def remove(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), self.delete_at_once):
            some = paths[start : start + self.delete_at_once]
            keys = [self.name(path).key for path in some]
            left = [keys]

            def delete(left: list[list[str]] = left, url: str = some[0]) -> None:
                left[0] = self._delete(self.name(url).bucket, left[0])
                if left[0]:
                    raise ConnectionError(f"{len(left[0])} objects were not deleted")

            self.ask(some[0], delete)

    def remove_tree(self, path: str) -> None:
        for page in list(self._pages(path.rstrip("/") + "/")):
            self.remove([info.path for info in page.files])


class Upload:
    """A file that is sent in parts, and is there once :meth:`finish` returns."""

    def part(self, number: int, data: Any) -> None:
        """Send a part; ``number`` counts from 1. May be called from another thread."""
        raise NotImplementedError

    def finish(self, size: int) -> None:
        """Make one object of the parts, which has ``size`` bytes."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the parts."""
        raise NotImplementedError


def glob_pattern(glob: str) -> str:
    """A regular expression for a glob: ``*`` and ``?`` stay within a directory, ``**`` does not."""
    out = ""
    at = 0
    for token in re.finditer(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]", glob):
        out += re.escape(glob[at : token.start()])
        at = token.end()
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        out += known.get(token[0]) or fnmatch.translate(token[0]).replace("(?s:", "(?:")
    return re.sub(r"\\[Zz](?=.)", "", out + re.escape(glob[at:]))


class ObjectReader(io.RawIOBase):
    """Reads an object in blocks, the next one while this one is being used.

    All blocks are of one version of the object: should it be replaced in the meantime, reading
    fails. Nothing is asked before the first read.

    Args:
        store: the store.
        path: the object.
        end: where the caller will stop, or shortly after.
    """

    def __init__(self, store: Pieces, path: str, end: int | None) -> None:
        super().__init__()
        self._store, self._path, self._end = store, path, end
        self._position = 0
        self._size: int | None = None
        self._version: str | None = None
        self._blocks: list[tuple[int, bytes]] = []  # the newest last
        self._ahead: deque[tuple[int, int, Future[Piece]]] = deque()
        self._block_size = FIRST_BLOCK if end is None else LARGEST_BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            if self._size is None:
                self._size = self._store.stat(self._path).size
            offset += self._size
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read(1 << 62)

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as asked for, fewer only at the end."""
        wanted = 1 << 62 if size is None or size < 0 else size
        first = self._read_some(wanted)
        if len(first) == wanted or not first:
            return first
        parts = [first]
        wanted -= len(first)
        while wanted and (part := self._read_some(wanted)):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def _read_some(self, wanted: int) -> bytes:
        if wanted == 0 or (self._size is not None and self._position >= self._size):
            return b""
        data = self._buffered(wanted)
        if not data:
            self._fetch(wanted)
            data = self._buffered(wanted)
        self._position += len(data)
        return data

    def _buffered(self, wanted: int) -> bytes:
        for start, block in reversed(self._blocks):
            at = self._position - start
            if 0 <= at < len(block):
                return block if at == 0 and wanted >= len(block) else block[at : at + wanted]
        return b""

    def _fetch(self, wanted: int) -> None:
        """Get the block at the position, and have the next ones fetched meanwhile."""
        position = self._position
        if self._ahead and self._ahead[0][0] <= position < self._ahead[0][1]:
            start, _, coming = self._ahead.popleft()
            data, size, version = coming.result()
            self._block_size = min(2 * self._block_size, LARGEST_BLOCK)
        else:
            self._ahead.clear()
            start, end = position, position + self._length(position, wanted)
            data, size, version = self._store.piece(self._path, start, end, self._version)
        self._version = self._version or version
        # what begins after the object's end has no size; then the end is here or before
        self._size = size if size is not None else (self._size or position)
        self._blocks = [*self._blocks[-1:], (start, data)]
        self._fetch_ahead(start + len(data))

    def _fetch_ahead(self, after: int) -> None:
        stop = self._size or 0
        if self._end is not None:
            stop = min(stop, self._end)
        at = self._ahead[-1][1] if self._ahead else after
        while len(self._ahead) < AHEAD and at < stop:
            end = at + self._length(at, 0)
            store, path, version = self._store, self._path, self._version
            coming = _threads().submit(store.piece, path, at, end, version)
            self._ahead.append((at, end, coming))
            at = end

    def _length(self, position: int, wanted: int) -> int:
        length = max(self._block_size, min(wanted, LARGEST_BLOCK))
        if self._end is not None:
            rest = self._end - position
            if rest >= FIRST_BLOCK:
                return min(length, rest + FIRST_BLOCK)  # the last line goes on after the end
            return min(length, FIRST_BLOCK)
        return length

    def close(self) -> None:
        for *_, coming in self._ahead:
            coming.cancel()
        self._ahead.clear()
        self._blocks = []
        super().close()


def _threads() -> ThreadPoolExecutor:
    """Threads of this very process: those of one that forked are not in its child."""
    found = _fetching.get(os.getpid())
    return found or _fetching.setdefault(os.getpid(), ThreadPoolExecutor(16, "read-ahead"))


class ObjectWriter(io.RawIOBase):
    """Sends an object: a small one when it is closed, a large one in parts as it is written.

    Leaving a ``with`` by an exception discards it.

    Args:
        store: the store.
        path: the object, which nobody else writes.
    """

    def __init__(self, store: ObjectStore, path: str) -> None:
        super().__init__()
        self._store, self._path = store, path
        self._waiting = bytearray()
        self._size = 0
        self._parts = 0
        self._upload: Upload | None = None
        self._sender: ThreadPoolExecutor | None = None
        self._sending: list[Future[None]] = []

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        """Take all of ``data``."""
        if self.closed:
            raise ValueError("write to a closed file")
        self._waiting += data
        length = memoryview(data).nbytes
        self._size += length
        if len(self._waiting) >= PART << (self._parts // 1000):
            self._send()
        return length

    def _send(self) -> None:
        """Send what is waiting as a part, while the caller goes on; two at most are under way."""
        if self._upload is None or self._sender is None:
            self._upload = self._store.upload(self._path)
            self._sender = ThreadPoolExecutor(2, "upload")
        while len(self._sending) >= 2:
            self._sending.pop(0).result()
        self._parts += 1
        self._sending.append(self._sender.submit(self._upload.part, self._parts, self._waiting))
        self._waiting = bytearray()

    def close(self) -> None:
        """Send the rest; the object is there when this returns."""
        if self.closed:
            return
        try:
            if self._upload is None:
                self._store.write(self._path, bytes(self._waiting))
            else:
                if self._waiting:
                    self._send()
                for sent in self._sending:
                    sent.result()
                self._upload.finish(self._size)
        except BaseException:
            self.discard()
            raise
        finally:
            self._end()

    def discard(self) -> None:
        """Leave nothing of it."""
        if self.closed:
            return
        upload = self._upload
        self._end()
        if upload is not None:
            upload.abort()

    def _end(self) -> None:
        self._waiting = bytearray()
        if self._sender is not None:
            self._sender.shutdown(wait=True, cancel_futures=True)
        super().close()

    def __del__(self) -> None:
        """Nothing: what was not closed is not to appear."""
