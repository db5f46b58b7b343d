"""Arrow IPC, https://arrow.apache.org/docs/format/Columnar.html: files and streams.

A file has a footer that knows its record batches; a stream is read from its beginning to its end.
Which of them something is, is told by its first bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from modelbeam import formats, storage
from modelbeam.errors import InputReadError
from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted, Writer
from modelbeam.formats.binary import created, path_only, rows_a_batch, seekable, whole
from modelbeam.formats.layout import Layout, OutputColumn
from modelbeam.formats.lines import reading
from modelbeam.formats.rows import Rows, RowsBatch, RowsReader, normal, normalized, warm_up
from modelbeam.formats.typed import TypedWriter, WholeWrites
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.storage import FileInfo

FILE = b"ARROW1"
STREAM = b"\xff\xff\xff\xff"
OLD = b"FEA1"

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20
"""Rows and bytes after which a record batch is written."""


class Arrow(FileFormat):
    """Record batches. Both kinds are read; a file is written."""

    name = "arrow"
    same_columns = True

    def problem(self, head: bytes, whole: bool) -> str | None:
        """What begins as neither kind is told."""
        if head.startswith(OLD):
            return "is Feather of version 1, which is not read: write it again with version 2"
        if not head or head.startswith((FILE, STREAM)):
            return None
        return "is not Arrow IPC, which begins with ARROW1, or as a stream with four bytes of 255"

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """Record batches of a file; a stream, or what is compressed as a whole, is one piece."""
        one = [Cut(0, None, file.size)]
        pieces = max(1, round(file.size / size))
        if compression is not None or pieces == 1:
            return one
        try:
            with _opened(path_only(file.path, None, self.name)) as source:
                count = source.count or 1
        except InputReadError:
            return one  # its reader says why
        pieces = min(pieces, count)
        if pieces == 1:
            return one
        ends = [count * number // pieces for number in range(pieces + 1)]
        share = file.size // pieces  # how large each batch is, the footer does not say
        last = file.size - share * (pieces - 1)
        return [Cut(ends[n], ends[n + 1], share if n + 1 < pieces else last) for n in range(pieces)]

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        return ArrowReader(piece, wanted)

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first rows of a file."""
        piece = path_only(path, compression, self.name)
        with reading(piece):
            if not storage.stat(path).size:
                return DictsBatch([])
        import pyarrow as pa

        some: list[Any] = []
        with _opened(piece) as source:
            for rows in source.batches(0, None):
                rows.validate(full=True)
                some.append(rows.slice(0, records))
                records -= len(some[-1])
                if not records:
                    break
        found = pa.Table.from_batches(some, source.schema).unify_dictionaries().combine_chunks()
        batches = found.to_batches()
        if not batches:
            return DictsBatch([])
        return RowsBatch(normalized(batches[0]), 0, wanted or Wanted("record"))

    def columns(self, path: str, compression: str | None) -> Layout:
        """The columns of the schema, with their types."""
        if not storage.stat(path).size:
            return ()
        with _opened(path_only(path, compression, self.name)) as source:
            return tuple(OutputColumn(field.name, normal(field.type)) for field in source.schema)

    def warm_up(self, style: str) -> None:
        """Write some rows, and read them."""
        import pyarrow as pa

        made = warm_up(style, lambda handle, layout: self.writer(handle, layout))
        list(_Source(pa, io.BytesIO(made)).batches(0, None))

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write a file."""
        return ArrowWriter(handle, layout or (), stream=False)

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Write the record batches of all parts into one file."""
        self._join([path for path, _ in parts], target, stream=False)

    def _join(self, parts: Sequence[str], target: str, stream: bool) -> None:
        into = None
        with created(target) as handle:
            for part in parts:
                packed = formats.compression_of(part)
                with _opened(path_only(part, packed, self.name)) as source:
                    if into is None:
                        into = _new(handle, source.schema, stream)
                    for rows in source.batches(0, None):
                        into.write_batch(rows)
            if into is not None:
                into.close()


class ArrowStream(Arrow):
    """The same, written as a stream."""

    name = "arrows"
    like = "arrow"

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write a stream."""
        return ArrowWriter(handle, layout or (), stream=True)

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Write the record batches of all parts into one stream."""
        self._join([path for path, _ in parts], target, stream=True)


class _Ends(io.RawIOBase):
    """A handle that notes whether more was asked of it than it has."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.at_end = False

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._handle.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self.at_end = len(data) < size
        return data


class _Source:
    """A file or a stream that was opened.

    Attributes:
        schema: of its rows.
        count: how many record batches it has; ``None`` where only reading it tells.
    """

    def __init__(self, pa: Any, handle: BinaryIO) -> None:
        self._pa, self._handle = pa, handle
        begins = handle.read(len(FILE))
        handle.seek(0)
        self.count: int | None = None
        self._tail = _Ends(handle)
        if begins == FILE:
            self._reader = pa.ipc.open_file(pa.PythonFile(handle, mode="r"))
            self.count = self._reader.num_record_batches
        else:
            self._reader = pa.ipc.open_stream(pa.PythonFile(self._tail, mode="r"))
        self.schema = self._reader.schema

    def batches(self, start: int, end: int | None, names: list[str] | None = None) -> Iterator[Any]:
        """Some record batches, of a stream all; of a file only the columns that are named."""
        if self.count is not None:
            reader = self._reader
            if names is not None:
                fields = [self.schema.names.index(name) for name in names]
                options = self._pa.ipc.IpcReadOptions(included_fields=fields)
                handle = self._pa.PythonFile(self._handle, mode="r")
                reader = self._pa.ipc.open_file(handle, options=options)
            for number in range(self.count)[start:end]:
                yield reader.get_batch(number)
            return
        while True:
            try:
                yield self._reader.read_next_batch()
            except StopIteration:
                break
        if self._tail.at_end:
            raise OSError("the stream has no end mark, so it was cut off")


@contextmanager
def _opened(piece: Piece) -> Iterator[_Source]:
    import pyarrow as pa
    import pyarrow.ipc

    with whole(piece, "Arrow IPC"), seekable(piece) as handle:
        yield _Source(pa, handle)


class ArrowReader(RowsReader):
    """Reads some record batches, each of which is in memory as a whole."""

    what = "Arrow IPC"

    def _rows(self) -> Iterator[Rows]:
        piece = self._piece
        with _opened(piece) as source:
            names = self._needed(source.schema.names)
            batches = source.batches(piece.start, piece.end, names)
            for number, batch in enumerate(batches, piece.start):
                batch.validate(full=True)
                size = rows_a_batch(batch.nbytes, batch.num_rows, self._wanted)
                for first in range(0, batch.num_rows, size):
                    rows = batch.slice(first, size)
                    if names is None:
                        yield rows, None
                    elif source.count is None:
                        yield rows.select(names), partial(_same, rows)
                    else:
                        yield rows.select(names), _Whole(piece, number, first, size)
                self._done = (
                    piece.bytes
                    * (number + 1 - piece.start)
                    // max(1, (source.count or number + 2) - piece.start)
                )


def _same(rows: Any) -> Any:
    return rows


class _Whole:
    """All columns of some rows of a file, read when one of them failed."""

    def __init__(self, piece: Piece, number: int, first: int, size: int) -> None:
        self._piece, self._number, self._first, self._size = piece, number, first, size

    def __call__(self) -> Any:
        with _opened(self._piece) as source:
            [rows] = source.batches(self._number, self._number + 1)
            return rows.slice(self._first, self._size)


class ArrowWriter(TypedWriter):
    """Writes record batches.

    Args:
        handle: where to.
        layout: the columns; labels (dictionaries) are written as their values, since the batches of
            a file cannot have dictionaries of their own.
        stream: whether it is a stream.
    """

    def __init__(self, handle: BinaryIO, layout: Layout, stream: bool) -> None:
        plain = (c._replace(type=c.type and _without_labels(c.type)) for c in layout)
        super().__init__(tuple(plain), GROUP_ROWS, GROUP_BYTES)
        self._into = _new(handle, self._schema, stream)

    def _write(self, table: Any) -> None:
        self._into.write_table(table.combine_chunks())

    def _end(self) -> None:
        self._into.close()


def _new(handle: BinaryIO, schema: Any, stream: bool) -> Any:
    """Arrow's own writer."""
    import pyarrow.ipc

    make = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    return make(WholeWrites(handle), schema)


def _without_labels(kind: Any) -> Any:
    """A type with the values of dictionaries in place of these, at any depth."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _without_labels(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_labels(field.type)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        inner = kind.value_field.with_type(_without_labels(kind.value_type))
        return pa.list_(inner) if types.is_list(kind) else pa.large_list(inner)
    return kind
