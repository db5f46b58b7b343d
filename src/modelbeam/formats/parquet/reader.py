"""Row groups of a file, in batches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Cut, Piece, Reader, Wanted
from modelbeam.formats.lines import check_unchanged, reading
from modelbeam.formats.named import names_problem
from modelbeam.formats.rows import RowsBatch
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.storage import FileInfo

BATCH_BYTES = 4 << 20
"""Bytes of a batch, about, as the row groups say them."""

MOST_ROWS = {"record": 4096, "batch": 16384, "table": 65536}


@contextmanager
def opened(piece: Piece) -> Iterator[Any]:
    """A file as ``pyarrow.parquet.ParquetFile``.

    Raises:
        InputReadError: it cannot be read, or is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with ExitStack() as stack, whole(piece):
        handle = stack.enter_context(storage.open_read(piece.path))
        if piece.compression is not None:  # the footer is at the end
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(compression.decompressed(handle, piece.compression), unpacked)
            handle = unpacked
        yield parquet.ParquetFile(pa.PythonFile(handle, mode="r"), pre_buffer=False)


@contextmanager
def whole(piece: Piece) -> Iterator[None]:
    """Turn what a damaged file raises into one message that names it."""
    import pyarrow as pa

    with reading(piece):
        try:
            yield
        except pa.ArrowException as error:
            raise _damaged(error) from error
        except OSError as error:
            if error.errno is not None or type(error) is not OSError:
                raise
            raise _damaged(error) from error  # Arrow's own, which has no number


def _damaged(error: Exception) -> OSError:
    return OSError(f"damaged Parquet: {' '.join(str(error).split())}")


def cuts(file: FileInfo, size: int) -> list[Cut]:
    """The pieces of about ``size`` bytes of a file: some row groups each."""
    one = [Cut(0, None, file.size)]
    try:
        with opened(_piece(file.path, None)) as opened_file:
            footer = opened_file.metadata
            sizes = [_stored(footer.row_group(n)) for n in range(footer.num_row_groups)]
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


def _stored(group: Any) -> int:
    """Bytes of a row group as it is stored."""
    return sum(group.column(n).total_compressed_size for n in range(group.num_columns))


def _piece(path: str, packed: str | None) -> Piece:
    return Piece(path, 0, None, 0, 0, packed, "parquet", 0)


def schema_of(path: str, packed: str | None) -> Any | None:
    """The Arrow schema of a file; ``None`` if it is empty."""
    if not storage.stat(path).size:
        return None
    with opened(_piece(path, packed)) as file:
        return file.schema_arrow


def first_rows(path: str, packed: str | None, records: int, wanted: Wanted) -> Batch:
    """The first rows of a file, so many or fewer."""
    piece = _piece(path, packed)
    with reading(piece):
        if not storage.stat(path).size:
            return DictsBatch([])
    with opened(piece) as file:
        for rows in file.iter_batches(batch_size=records):
            if rows.num_rows:
                return RowsBatch(rows, 0, wanted)
    return DictsBatch([])


class ParquetReader(Reader):
    """Reads some row groups of a file, only the columns that are needed.

    Args:
        piece: which row groups.
        wanted: what of them.
    """

    def __init__(self, piece: Piece, wanted: Wanted) -> None:
        self._piece, self._wanted = piece, wanted
        self._done = 0
        self._row = 0

    def __iter__(self) -> Iterator[Batch]:
        piece = self._piece
        with reading(piece):
            check_unchanged(piece)
        if not piece.size:
            return
        with opened(piece) as file:
            groups = range(file.metadata.num_row_groups)[piece.start : piece.end]
            wanted = self._wanted
            if problem := names_problem(file.schema_arrow.names, wanted.needed, wanted.keep):
                raise InputReadError(f"The input {piece.path} {problem}.")
            names = self._needed(file.schema_arrow.names)
        # not around the yield: what the caller raises is not ours
        stack = ExitStack()
        with stack:
            file = stack.enter_context(opened(piece))
            for group in groups:
                about = file.metadata.row_group(group)
                size = self._rows(about)
                batches = file.iter_batches(size, [group], names)
                first = 0
                while True:
                    with whole(piece):
                        rows = next(batches, None)
                    if rows is None:
                        break
                    if names is not None:
                        rows = rows.select(names)  # Arrow reads 'a.b' as well for 'a'
                    self._row, self.units = self.units, self.units + rows.num_rows
                    if rows.num_rows:
                        others = None if names is None else _Whole(piece, group, size, first)
                        yield RowsBatch(rows, self._row, self._wanted, others)
                    first += rows.num_rows
                self._done += _stored(about)
        with reading(piece):
            check_unchanged(piece)

    def _needed(self, names: list[str]) -> list[str] | None:
        """The columns that are read; ``None`` for all."""
        wanted = self._wanted
        if wanted.columns is None or wanted.keep == "all":
            return None
        needed = {*wanted.columns, *wanted.keep}
        found = [name for name in names if name in needed]
        return found if found and len(found) < len(names) else None

    def _rows(self, about: Any) -> int:
        """How many rows a batch has: enough for a call of the model, in bounded memory."""
        bytes_a_row = max(1, about.total_byte_size // max(1, about.num_rows))
        fitting = max(1, BATCH_BYTES // bytes_a_row)
        size = min(fitting, MOST_ROWS[self._wanted.style])
        asked = self._wanted.batch_size
        if asked is not None and self._wanted.style != "record":
            size = max(asked, size // asked * asked)
        return int(size)

    def progress(self) -> tuple[int, int]:
        """Bytes of the row groups that are done, and the row where the last batch begins."""
        return self._done, self._row


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
