"""Predictions, beside what is kept of their records, as a file of Avro."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any, BinaryIO

from modelbeam.formats.avro.container import MARKER
from modelbeam.formats.avro.types import avro_schema, storable
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
    again writes the same bytes.

    Args:
        handle: where to.
        layout: the columns.
        header: whether the file begins here.
    """

    def __init__(self, handle: BinaryIO, layout: Layout, header: bool) -> None:
        import fastavro.write

        super().__init__(
            tuple(column._replace(type=storable(column.type)) for column in layout),
            BLOCK_ROWS,
            BLOCK_BYTES,
        )
        self._handle, self._made = handle, io.BytesIO()
        schema = avro_schema(self._schema)
        marker = hashlib.sha256(json.dumps(schema).encode()).digest()[:MARKER]
        self._into = fastavro.write.Writer(
            self._made, schema, "deflate", sync_interval=INTERVAL, sync_marker=marker
        )
        if header:
            write_all(handle, self._made.getvalue())
        self._forget()

    def _forget(self) -> None:
        self._made.seek(0)
        self._made.truncate()

    def _write(self, table: Any) -> None:
        for record in table.to_pylist(maps_as_pydicts="lossy"):
            self._into.write(record)
        self._into.flush()
        write_all(self._handle, self._made.getvalue())
        self._forget()

    def _end(self) -> None:
        """Nothing belongs at the end."""
