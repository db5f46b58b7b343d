"""Predictions, beside what is kept of their records, as a file of Avro."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from modelbeam import formats, storage
from modelbeam.formats import compression
from modelbeam.formats.avro.container import MARKER, Frames
from modelbeam.formats.avro.types import avro_schema, storable
from modelbeam.formats.binary import created
from modelbeam.formats.layout import Layout
from modelbeam.formats.typed import TypedWriter
from modelbeam.storage import write_all

BLOCK_ROWS = 4096
BLOCK_BYTES = 1 << 20
"""Rows and bytes that are encoded at once; a block has about :data:`INTERVAL` bytes."""

INTERVAL = 64 << 10


class AvroWriter(TypedWriter):
    """Writes blocks, packed with deflate, which every reader knows.

    The marker follows from the schema: so all parts of a file have the same, and a job that is run
    again writes the same bytes. A file without blocks names no codec: some readers unpack nothing.

    Args:
        handle: where to.
        layout: the columns.
    """

    def __init__(self, handle: BinaryIO, layout: Layout) -> None:
        super().__init__(
            tuple(column._replace(type=storable(column.type)) for column in layout),
            BLOCK_ROWS,
            BLOCK_BYTES,
        )
        self._handle, self._made = handle, io.BytesIO()
        self._into: Any = None

    def _begin(self, codec: str) -> Any:
        import fastavro.write

        schema = avro_schema(self._schema)
        marker = hashlib.sha256(json.dumps(schema).encode()).digest()[:MARKER]
        return fastavro.write.Writer(
            self._made, schema, codec, sync_interval=INTERVAL, sync_marker=marker
        )

    def _put(self) -> None:
        write_all(self._handle, self._made.getvalue())
        self._made.seek(0)
        self._made.truncate()

    def _write(self, table: Any) -> None:
        import pyarrow as pa

        self._into = self._into or self._begin("deflate")
        columns = [_numbers(column) for column in table.columns]
        rows = pa.table(columns, names=table.schema.names)
        for record in rows.to_pylist(maps_as_pydicts="lossy"):
            self._into.write(record)
        self._into.flush()
        self._put()

    def _end(self) -> None:
        if self._into is None:
            self._begin("null")
            self._put()


def _numbers(column: Any) -> Any:
    """Times as the numbers that they are in Avro: Python's end with the year 9999."""
    import pyarrow as pa

    kind = _number(column.type)
    if kind == column.type:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:
        return column


def _number(kind: Any) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(kind) or types.is_time64(kind):
        return pa.int64()
    if types.is_date32(kind) or types.is_time32(kind):
        return pa.int32()
    if types.is_list(kind):
        return pa.list_(_number(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([(field.name, _number(field.type)) for field in kind])
    return kind


def join(parts: Sequence[str], target: str) -> None:
    """Put the blocks of several files, which :class:`AvroWriter` wrote, into one."""
    empty: bytes | bool | None = None
    with created(target) as into:
        for part in parts:
            packed = formats.compression_of(part)
            with storage.open_read(part) as handle:
                frames = Frames(
                    handle if packed is None else compression.decompressed(handle, packed)
                )
                for number, block in enumerate(frames.blocks()):
                    if number == 0 and empty is not False:
                        write_all(into, frames.header.raw)
                        empty = False
                    write_all(into, block.raw)
                if empty is None:
                    empty = frames.header.raw
        if isinstance(empty, bytes):
            write_all(into, empty)
