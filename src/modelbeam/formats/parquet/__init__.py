"""Apache Parquet, https://parquet.apache.org.

======================= ==========================================================================
:mod:`.reader`          row groups of a file, in batches
:mod:`.writer`          a file of predictions; several put together
======================= ==========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted, Writer
from modelbeam.formats.layout import Layout, OutputColumn
from modelbeam.predicting.batch import Batch
from modelbeam.storage import FileInfo

MAGIC = b"PAR1"
ENCRYPTED = b"PARE"


class Parquet(FileFormat):
    """Rows in groups, each by columns; a piece is some of the groups."""

    name = "parquet"
    same_columns = True

    def problem(self, head: bytes, whole: bool) -> str | None:
        """A file that does not begin as Parquet does is told."""
        if head.startswith(ENCRYPTED):
            return "is encrypted Parquet, which is not read: decrypt it first"
        if head.startswith(MAGIC) or not head:
            return None
        return "is not Parquet, which begins with PAR1"

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """Groups of rows by the footer; what is compressed as a whole is one piece."""
        from modelbeam.formats.parquet.reader import cuts

        if compression is not None or not file.size:
            return [Cut(0, None, file.size)]
        return cuts(file, size)

    def count(self, piece: Piece, most: int) -> int:
        """What the footer says."""
        from modelbeam.formats.parquet.reader import count

        return min(most, count(piece))

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        from modelbeam.formats.parquet.reader import ParquetReader

        return ParquetReader(piece, wanted)

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first rows of a file."""
        from modelbeam.formats.parquet.reader import first_rows

        return first_rows(path, compression, records, wanted or Wanted("record"))

    def warm_up(self, style: str) -> None:
        """Write some rows, and read them."""
        import io

        from pyarrow import parquet

        from modelbeam.formats.parquet.writer import ParquetFileWriter
        from modelbeam.formats.rows import warm_up

        made = warm_up(style, ParquetFileWriter)
        list(parquet.ParquetFile(io.BytesIO(made)).iter_batches())

    def columns(self, path: str, compression: str | None) -> Layout:
        """The columns of the file's schema, with their types."""
        from modelbeam.formats.parquet.reader import schema_of
        from modelbeam.formats.rows import normal

        schema = schema_of(path, compression)
        return tuple(OutputColumn(field.name, normal(field.type)) for field in schema or ())

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write rows."""
        from modelbeam.formats.parquet.writer import ParquetFileWriter

        return ParquetFileWriter(handle, layout or ())

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Write the row groups of all parts into one file."""
        from modelbeam.formats.parquet.writer import join

        join([path for path, _ in parts], target)
