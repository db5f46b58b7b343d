"""Avro container files, https://avro.apache.org/docs/1.12.0/specification.

======================= ==========================================================================
:mod:`.container`       the header, and blocks found by the marker between them
:mod:`.reader`          blocks of a file, in batches
:mod:`.types`           what Avro's types are in Arrow, and the reverse
:mod:`.writer`          a file of predictions; several put together
======================= ==========================================================================

Records are decoded and encoded by ``fastavro``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import BinaryIO

from modelbeam.formats.base import Cut, FileFormat, Piece, Reader, Wanted, Writer
from modelbeam.formats.layout import Layout
from modelbeam.predicting.batch import Batch
from modelbeam.storage import FileInfo


class Avro(FileFormat):
    """Records in blocks; a piece is the blocks that begin in a range of bytes."""

    name = "avro"
    same_columns = True
    nests_models = True

    def __init__(self) -> None:
        import fastavro  # noqa: F401 - whoever asks for the format is told that it is missing

    def problem(self, head: bytes, whole: bool) -> str | None:
        """A file that does not begin as Avro does is told; also a codec that is not there."""
        from modelbeam.formats.avro.container import problem

        return problem(head)

    def cuts(self, file: FileInfo, compression: str | None, size: int) -> Sequence[Cut]:
        """Ranges of bytes; what is compressed as a whole is one piece."""
        pieces = max(1, round(file.size / size))
        if compression is not None or pieces == 1:
            return [Cut(0, None, file.size)]
        ends = [file.size * number // pieces for number in range(pieces + 1)]
        return [Cut(start, end, end - start) for start, end in itertools.pairwise(ends)]

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece."""
        from modelbeam.formats.avro.reader import AvroReader

        return AvroReader(piece, wanted)

    def first(
        self, path: str, compression: str | None, records: int, wanted: Wanted | None = None
    ) -> Batch:
        """The first records of a file."""
        from modelbeam.formats.avro.reader import first_records

        return first_records(path, compression, records, wanted or Wanted("record"))

    def columns(self, path: str, compression: str | None) -> Layout:
        """The fields of the schema, with their types in Arrow."""
        from modelbeam.formats.avro.reader import columns_of

        return columns_of(path, compression)

    def warm_up(self, style: str) -> None:
        """Write some rows, and read them."""
        from modelbeam.formats.avro.reader import decoded
        from modelbeam.formats.avro.writer import AvroWriter
        from modelbeam.formats.rows import warm_up

        decoded(warm_up(style, AvroWriter))

    def layout_problem(self, layout: Layout) -> str | None:
        """A column or a model whose name Avro does not allow is told."""
        from modelbeam.formats.avro.types import column_problem

        return next(filter(None, map(column_problem, layout)), None)

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:
        """Write records."""
        from modelbeam.formats.avro.writer import AvroWriter

        return AvroWriter(handle, layout or ())

    def join(self, parts: Sequence[tuple[str, int]], target: str) -> None:
        """Put the blocks of all parts into one file."""
        from modelbeam.formats.avro.writer import join

        join([path for path, _ in parts], target)
