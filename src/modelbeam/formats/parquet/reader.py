"""Row groups of a file, in batches."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats.base import Cut, Piece, Wanted
from modelbeam.formats.binary import path_only, rows_a_batch, seekable, whole
from modelbeam.formats.lines import reading
from modelbeam.formats.rows import Rows, RowsBatch, RowsReader, normalized
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.storage import FileInfo

AHEAD_LOCAL, AHEAD_FAR = 256 << 10, 8 << 20
"""Bytes of a column that are read at once: a column of a large row group is never in memory whole.

Of what is behind a URL more, since each time is a request.
"""


@contextmanager
def opened(piece: Piece) -> Iterator[Any]:
    """A file as ``pyarrow.parquet.ParquetFile``.

    Raises:
        InputReadError: it cannot be read, or is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with whole(piece, "Parquet"), seekable(piece) as handle:
        far = storage.is_url(piece.path) and piece.compression is None
        asked = {"pre_buffer": False, "buffer_size": AHEAD_FAR if far else AHEAD_LOCAL}
        file = parquet.ParquetFile(pa.PythonFile(handle, mode="r"), **asked)
        wanted = pa.schema([_any_size(field) for field in file.schema_arrow])
        if wanted.equals(file.schema_arrow):
            yield file
            return
        footer = _plain_footer(handle)
        source = pa.PythonFile(handle, mode="r")
        yield _AnySize(parquet.ParquetFile(source, metadata=footer, **asked), wanted)


def _any_size(field: Any) -> Any:
    """A field with lists of any size where it has lists of a fixed one."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        kind = pa.list_(_any_size(kind.value_field))
    elif pa.types.is_large_list(kind):
        kind = pa.large_list(_any_size(kind.value_field))
    elif pa.types.is_struct(kind):
        kind = pa.struct([_any_size(one) for one in kind])
    return field.with_type(kind) if kind != field.type else field


def _plain_footer(handle: Any) -> Any:
    """The footer of a file without the Arrow schema that its writer has put into it.

    That schema says that lists have a fixed size, and Arrow then refuses them where one is null;
    Parquet itself has lists of any size.
    """
    from pyarrow import parquet

    handle.seek(-8, io.SEEK_END)
    size = int.from_bytes(handle.read(4), "little")
    handle.seek(-8 - size, io.SEEK_END)
    footer = handle.read(size).replace(b"\x0cARROW:schema", b"\x0cARROW.schema")
    alone = b"PAR1" + footer + size.to_bytes(4, "little") + b"PAR1"
    return parquet.read_metadata(io.BytesIO(alone))


class _AnySize:
    """A file whose lists of a fixed size are read as lists of any; its other types are as they are.

    Args:
        file: read by what Parquet says of its types.
        schema: the types that are wanted.
    """

    def __init__(self, file: Any, schema: Any) -> None:
        self._file, self.schema_arrow = file, schema
        self.metadata, self.num_row_groups = file.metadata, file.num_row_groups

    def iter_batches(self, *asked: Any, **named: Any) -> Iterator[Any]:
        """Rows, as the file itself gives them."""
        return map(self._typed, self._file.iter_batches(*asked, **named))

    def _typed(self, rows: Any) -> Any:
        import pyarrow as pa

        schema = pa.schema([self.schema_arrow.field(name) for name in rows.schema.names])
        return rows.cast(schema)


def cuts(file: FileInfo, size: int) -> list[Cut]:
    """The pieces of about ``size`` bytes of a file: some row groups each."""
    one = [Cut(0, None, file.size)]
    try:
        with opened(path_only(file.path, None, "parquet")) as opened_file:
            footer = opened_file.metadata
            sizes = shares(footer, file.size)
    except InputReadError:
        return one  # its reader says why
    pieces: list[Cut] = []
    start = held = 0
    for group, stored in enumerate(sizes):
        if held and held + stored / 2 > size:
            pieces.append(Cut(start, group, held))
            start, held = group, 0
        held += stored
    pieces.append(Cut(start, len(sizes), held))
    return pieces if len(pieces) > 1 else one


def shares(footer: Any, size: int) -> list[int]:
    """Bytes of each row group as it is stored, about: its share of the file's size.

    What the footer says of each column is not asked: of a damaged one Arrow ends the process.
    """
    unpacked = [max(1, footer.row_group(n).total_byte_size) for n in range(footer.num_row_groups)]
    return [size * one // sum(unpacked) for one in unpacked]


def count(piece: Piece) -> int:
    """The rows of a piece."""
    if not piece.size:
        return 0
    with opened(piece) as file:
        footer = file.metadata
        groups = range(footer.num_row_groups)[piece.start : piece.end]
        return sum(footer.row_group(group).num_rows for group in groups)


def schema_of(path: str, packed: str | None) -> Any | None:
    """The Arrow schema of a file; ``None`` if it is empty."""
    if not storage.stat(path).size:
        return None
    with opened(path_only(path, packed, "parquet")) as file:
        return file.schema_arrow


def first_rows(path: str, packed: str | None, records: int, wanted: Wanted) -> Batch:
    """The first rows of a file, so many or fewer."""
    piece = path_only(path, packed, "parquet")
    with reading(piece):
        if not storage.stat(path).size:
            return DictsBatch([])
    with opened(piece) as file:
        for rows in file.iter_batches(batch_size=records):
            if rows.num_rows:
                rows.validate(full=True)
                return RowsBatch(normalized(rows), 0, wanted)
    return DictsBatch([])


class ParquetReader(RowsReader):
    """Reads some row groups of a file, only the columns that are needed."""

    what = "Parquet"

    def _rows(self) -> Iterator[Rows]:
        piece = self._piece
        with opened(piece) as file:
            names = self._needed(file.schema_arrow.names)
            sizes = shares(file.metadata, piece.size)
            for group in range(file.metadata.num_row_groups)[piece.start : piece.end]:
                about = file.metadata.row_group(group)
                size = rows_a_batch(about.total_byte_size, about.num_rows, self._wanted)
                first = 0
                for rows in file.iter_batches(size, [group], names):
                    others = None if names is None else _Whole(piece, group, size, first)
                    first += rows.num_rows
                    # Arrow reads 'a.b' as well for 'a'
                    yield rows if names is None else rows.select(names), others
                self._done += sizes[group]


class _Whole:
    """All columns of the rows of one batch, read when one of them failed."""

    def __init__(self, piece: Piece, group: int, size: int, first: int) -> None:
        self._piece, self._group, self._size, self._first = piece, group, size, first

    def __call__(self) -> Any:
        at = 0
        with opened(self._piece) as file:
            for rows in file.iter_batches(self._size, [self._group]):
                if at == self._first:
                    return rows
                at += rows.num_rows
        return None
