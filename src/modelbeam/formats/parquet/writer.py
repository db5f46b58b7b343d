"""Predictions, beside what is kept of their records, as a file of Parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from modelbeam import formats
from modelbeam.formats.binary import created, path_only
from modelbeam.formats.layout import Layout
from modelbeam.formats.parquet.reader import opened
from modelbeam.formats.typed import TypedWriter, WholeWrites

GROUP_ROWS = 1 << 17
GROUP_BYTES = 64 << 20
"""Rows and bytes after which a row group is written."""


class ParquetFileWriter(TypedWriter):
    """Writes row groups.

    Args:
        handle: where to.
        layout: the columns.
    """

    def __init__(self, handle: BinaryIO, layout: Layout) -> None:
        fitting = (column._replace(type=storable(column.type)) for column in layout)
        super().__init__(tuple(fitting), GROUP_ROWS, GROUP_BYTES)
        self._file = new(handle, self._schema)

    def _write(self, table: Any) -> None:
        self._file.write_table(table, max(1, len(table)))

    def _end(self) -> None:
        self._file.close()


def new(handle: BinaryIO, schema: Any) -> Any:
    """Arrow's own writer; only columns of texts and bytes have dictionaries.

    Numbers seldom repeat, and to find that out takes three times as long as to write them; where
    they do, Zstandard makes them as small.
    """
    from pyarrow import parquet

    into = WholeWrites(handle)
    texts = _of_bytes(schema)
    return parquet.ParquetWriter(into, schema, compression="zstd", use_dictionary=texts)


def _of_bytes(schema: Any) -> list[str]:
    """The paths of the columns that Parquet holds as bytes."""
    from pyarrow import parquet

    made = io.BytesIO()
    with parquet.ParquetWriter(made, schema):
        pass
    columns = parquet.ParquetFile(made).schema
    kinds = (columns.column(at) for at in range(len(columns)))
    return [kind.path for kind in kinds if kind.physical_type.endswith("BYTE_ARRAY")]


def storable(kind: Any) -> Any:
    """The type in which Parquet holds the values of a type; ``None`` if as text."""
    import pyarrow as pa
    from pyarrow import parquet

    types = pa.types
    if kind is None or types.is_string(kind):
        return kind
    if types.is_primitive(kind) and not types.is_interval(kind):
        return kind
    if types.is_fixed_size_list(kind):  # Arrow does not read them again if one is null
        kind = pa.list_(kind.value_type)
    try:
        nothing = pa.schema([("", kind)]).empty_table()
        parquet.write_table(nothing, io.BytesIO())
    except pa.ArrowException:
        return None
    return kind


def join(parts: Sequence[str], target: str) -> None:
    """Write the rows of several files, which have one schema, into one; memory stays bounded."""
    writer = None
    with created(target) as handle:
        for part in parts:
            with opened(path_only(part, formats.compression_of(part), "parquet")) as file:
                if writer is None:
                    writer = new(handle, file.schema_arrow)
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group), GROUP_ROWS)
        if writer is not None:
            writer.close()
