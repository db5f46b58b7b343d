"""Predictions, beside what is kept of their records, as a file of Avro."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from modelbeam import formats, storage
from modelbeam.formats import compression
from modelbeam.formats.avro.container import MARKER, Frames
from modelbeam.formats.avro.types import avro_schema, nested, storable
from modelbeam.formats.binary import created
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.layout import Layout, OutputColumn
from modelbeam.formats.typed import TypedWriter
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
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
        fitting = tuple(column._replace(type=storable(column.type)) for column in layout)
        super().__init__(fitting, BLOCK_ROWS, BLOCK_BYTES)
        self._models: dict[str, list[OutputColumn]] = {}
        for column in fitting:
            if column.model:
                self._models.setdefault(column.model, []).append(column)
        self._nested = nested(fitting)
        self._handle, self._made = handle, io.BytesIO()
        self._into: Any = None

    def _begin(self, codec: str) -> Any:
        import fastavro.write

        schema = avro_schema(self._nested)
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
        columns = [_numbers(self._of_model(table, name)) for name in self._nested.names]
        rows = pa.table(columns, names=self._nested.names)
        for record in rows.to_pylist(maps_as_pydicts="lossy"):
            self._into.write(record)
        self._into.flush()
        self._put()

    def _of_model(self, table: Any, name: str) -> Any:
        """A column; of several models all columns of one, null where all of them are."""
        import pyarrow as pa

        own = self._models.get(name)
        if own is None:
            return table.column(name)
        arrays = [table.column(column.name).combine_chunks() for column in own]
        empty = np.logical_and.reduce([np.asarray(array.is_null()) for array in arrays])
        names = [column.own_name for column in own]
        return pa.StructArray.from_arrays(arrays, names, mask=pa.array(empty))

    def write(self, outcome: Outcome) -> list[Failure]:
        """Take the predictions of a batch; what is kept of an earlier run has records of models."""
        if self._models and isinstance(outcome.kept, KeptTable):
            outcome = replace(outcome, kept=KeptTable(self._flat(outcome.kept.table)))
        return super().write(outcome)

    def _flat(self, rows: Any) -> Any:
        """The same rows with columns of their own for what each model has in its record."""
        import pyarrow as pa

        arrays: list[Any] = []
        names: list[str] = []
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            inner = column.flatten() if name in self._models else [column]
            arrays += inner
            if name in self._models:
                names += [f"{name}.{column.type.field(at).name}" for at in range(len(inner))]
            else:
                names.append(name)
        return pa.RecordBatch.from_arrays(arrays, names=names)

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
