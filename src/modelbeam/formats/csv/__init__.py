"""CSV: RFC 4180, with other separators, encodings and line ends where they are used.

======================= ==========================================================================
:mod:`.dialect`         how a file is written: separator, line ends, header
:mod:`.records`         where records end; quotes decide
:mod:`.blocks`          blocks of whole records, and where a file may be cut
:mod:`.fields`          a record into texts, a text into a value
:mod:`.batch`           a block of records as the batch that models are given
:mod:`.writer`          a file of predictions
:mod:`.warm`            every path once, before a model's first call
======================= ==========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, cast

from modelbeam.errors import InputReadError
from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted, Writer
from modelbeam.formats.layout import Layout, OutputColumn
from modelbeam.formats.lines import LineBlock, LinesReader
from modelbeam.formats.named import names_problem
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.predicting.batch import Batch
from modelbeam.storage import FileInfo


class Csv(FileFormat):
    """Records of fields.

    Args:
        reading: how files are to be read, where they do not say it.
    """

    name = "csv"
    delimiter = ","

    def __init__(self, reading: Reading = AS_IT_SAYS) -> None:
        self._reading = reading

    def told(self, reading: Reading) -> FileFormat:
        """The same, told a delimiter, an encoding, names of columns."""
        return type(self)(reading)

    def problem(self, head: bytes, whole: bool) -> str | None:
        """JSON Lines under this name are told; also a header that cannot be used."""
        from modelbeam.formats.csv.dialect import DialectError, dialect_of

        if head.lstrip()[:2] in (b'{"', b"[{"):
            return "holds JSON, not CSV: give --input-format jsonl (or json), or call it .jsonl"
        try:
            dialect_of(head, whole, self._reading)
        except DialectError as error:
            if whole or "does not end" not in str(error):  # its reader reads further
                return str(error)
        return None

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Iterable[Cut]:
        """Ranges of bytes between records; what is compressed or behind a URL is one piece."""
        from modelbeam.formats.csv.blocks import cuts

        if compression is not None:
            return [Cut(0, None, file.size)]
        return cuts(file, size, self._reading)

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        from modelbeam.formats.csv.batch import CsvBatch
        from modelbeam.formats.csv.blocks import RecordBlock, RecordBlocks

        def batch(block: LineBlock) -> Batch:
            names = cast(RecordBlock, block).dialect.names
            if problem := names_problem(names, wanted.needed, wanted.keep):
                raise InputReadError(f"The input {piece.path} {problem}.")
            return CsvBatch(cast(RecordBlock, block), wanted)

        return LinesReader(piece, wanted, batch, RecordBlocks)

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first records of a file."""
        from modelbeam.formats.csv.batch import CsvBatch
        from modelbeam.formats.csv.blocks import first_records
        from modelbeam.predicting.dicts import DictsBatch

        block = first_records(path, compression, self._reading, records)
        return DictsBatch([]) if block is None else CsvBatch(block, wanted or Wanted("record"))

    def warm_up(self, style: str) -> None:
        """Read and write some records."""
        from modelbeam.formats.csv.warm import warm_up

        warm_up(style)

    def columns(self, path: str, compression: str | None) -> Layout:
        """The columns of the header; they hold texts."""
        import pyarrow as pa

        from modelbeam.formats.csv.blocks import dialect_in

        dialect = dialect_in(path, compression, self._reading)
        names = () if dialect is None else dialect.names
        return tuple(OutputColumn(name, pa.string()) for name in names)

    same_columns = True

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write records; the first part begins with a header."""
        from modelbeam.formats.csv.writer import CsvWriter

        return CsvWriter(handle, layout or (), part == 0, self.delimiter)


class Tsv(Csv):
    """The same, written with tabs between the fields."""

    name = "tsv"
    like = "csv"
    delimiter = "\t"
