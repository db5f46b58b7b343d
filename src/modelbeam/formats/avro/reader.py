"""Blocks of a file, in batches."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import orjson

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.avro.container import Block, DamagedError, Frames, Header
from modelbeam.formats.avro.types import columns_of as columns_of_schema
from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.formats.binary import BATCH_BYTES, MOST_ROWS, path_only
from modelbeam.formats.jsonl.encode import encode_records
from modelbeam.formats.jsonl.values import plain_value
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.layout import Layout
from modelbeam.formats.lines import check_unchanged, reading
from modelbeam.formats.named import names_problem
from modelbeam.formats.rows import RowPosition, as_kind
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept, KeptDicts
from modelbeam.predicting.dicts import DictsBatch
from modelbeam.predicting.failures import Failure


def decoded(content: bytes) -> list[Any]:
    """The records of a whole file."""
    import fastavro

    return list(fastavro.reader(io.BytesIO(content)))


def _opened(piece: Piece, handle: BinaryIO) -> Frames:
    packed = piece.compression
    return Frames(handle if packed is None else compression.decompressed(handle, packed))


def _columns(header: Header) -> Layout:
    """The columns that a schema says.

    Raises:
        DamagedError: it is none of Avro.
    """
    try:
        return columns_of_schema(header.schema)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"its schema is none ({type(error).__name__}: {error})") from error


def columns_of(path: str, packed: str | None) -> Layout:
    """The columns of a file; none if it is empty."""
    piece = path_only(path, packed, "avro")
    with reading(piece):
        if not storage.stat(path).size:
            return ()
        with storage.open_read(path) as handle:
            return _columns(_opened(piece, handle).header)


def first_records(path: str, packed: str | None, wanted: int, asked: Wanted) -> Batch:
    """The first records of a file, so many or fewer."""
    piece = path_only(path, packed, "avro")
    with reading(piece):
        if not storage.stat(path).size:
            return DictsBatch([])
        with storage.open_read(path) as handle:
            frames = _opened(piece, handle)
            some: list[Block] = []
            for block in frames.blocks():
                some.append(block)
                if sum(one.records for one in some) >= wanted:
                    break
            records = _records(frames.header, some)[:wanted]
            columns = _columns(frames.header)
    return AvroBatch(records, 0, columns, asked)


def _records(header: Header, blocks: list[Block]) -> list[Any]:
    """The records of some blocks.

    Raises:
        DamagedError: they are no records of the schema.
    """
    try:
        records = decoded(header.raw + b"".join(block.raw for block in blocks))
    except Exception as error:  # of the codec's library, of what stands where a length should be …
        if len(blocks) > 1:
            return [record for block in blocks for record in _records(header, [block])]
        [block] = blocks
        with suppress(Exception):  # times that Python does not have stay numbers
            return decoded(header.without_times().raw + block.raw)
        said = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(
            f"the block at byte {block.offset} cannot be decoded ({said})"
        ) from error
    if len(records) != sum(block.records for block in blocks):
        raise DamagedError(f"the block at byte {blocks[0].offset} has another number of records")
    return records


class AvroReader(Reader):
    """Reads the blocks that begin in a piece.

    Args:
        piece: which part of a file.
        wanted: what is asked for.
    """

    def __init__(self, piece: Piece, wanted: Wanted) -> None:
        self._piece, self._wanted = piece, wanted
        self._offset = piece.start

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        piece = self._piece
        with reading(piece):
            check_unchanged(piece)
            if not piece.size:
                return
            handle = storage.open_read(piece.path)
        with handle:
            with reading(piece):
                frames = _opened(piece, handle)
                columns = _columns(frames.header)
                names = [column.name for column in columns]
                if problem := names_problem(names, self._wanted.needed, self._wanted.keep):
                    raise InputReadError(f"The input {piece.path} {problem}.")
                there = frames.seek(piece.start)
            end = piece.end if piece.compression is None else None
            blocks = frames.blocks(end) if there else iter(())
            size = self._wanted.batch_size or MOST_ROWS[self._wanted.style]
            while True:
                with reading(piece):
                    some = _some(blocks, size)
                    records = _records(frames.header, some) if some else []
                if not some:
                    break
                self._offset = some[0].offset
                for first in range(0, len(records), size):
                    part = records[first : first + size]
                    before, self.units = self.units, self.units + len(part)
                    yield AvroBatch(part, before, columns, self._wanted)
        with reading(piece):
            check_unchanged(piece)

    def progress(self) -> tuple[int, int]:
        """Bytes of the piece that are done, and where the last block begins."""
        return (0 if self._piece.compression else self._offset - self._piece.start), self._offset


def _some(blocks: Iterator[Block], records: int) -> list[Block]:
    """Enough blocks for a batch."""
    some: list[Block] = []
    for block in blocks:
        some.append(block)
        if sum(one.records for one in some) >= records:
            break
        if sum(len(one.raw) for one in some) >= BATCH_BYTES:
            break
    return some


class AvroBatch(Batch):
    """Some records of a file, as Python has them.

    Args:
        records: what was decoded.
        before: how many records of the piece come before them.
        columns: of the file.
        wanted: the columns that the model has and that are kept.
    """

    def __init__(self, records: list[Any], before: int, columns: Layout, wanted: Wanted) -> None:
        self._records, self._before, self._columns = records, before, columns
        self._signature = wanted.signature

    def records(self) -> Decoded:
        """The records, numbers in the type that the schema says where that is exact."""
        failures: list[Failure] = []
        rows: list[int] | None = None
        found = [dict(one) for one in self._records if isinstance(one, dict)]
        if len(found) < len(self._records):  # a union of records and other types
            rows = [row for row, one in enumerate(self._records) if isinstance(one, dict)]
            failures = [
                Failure(row, "decode", "NotARecordError", "a record has fields; this is none")
                for row, one in enumerate(self._records)
                if not isinstance(one, dict)
            ]
        signature = self._signature
        if signature is not None:
            missing = [column.name for column in signature.null_without(self.names())]
            for column in signature.columns:
                for record in found if column.kind in ("float", "int") else ():
                    if column.name in record:
                        record[column.name] = as_kind(column, record[column.name])
            for record in found if missing else ():
                record.update(dict.fromkeys(missing))
        return Decoded(found, rows, failures)

    def seen_by(self, signature: Signature | None) -> AvroBatch:
        """The same records with values as another model's columns say."""
        other = copy.copy(self)
        other._signature = signature
        return other

    def count(self) -> int:
        """How many records there are."""
        return len(self._records)

    def names(self) -> list[str]:
        """The fields of the schema."""
        return [column.name for column in self._columns]

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some fields, as columns where Arrow has their types."""
        import pyarrow as pa

        chosen = self._records if rows is None else [self._records[row] for row in rows]
        there = {column.name: column.type for column in self._columns}
        wanted = list(there) if names == "all" else [n for n in dict.fromkeys(names) if n in there]
        if there and all(there[name] is not None for name in wanted):
            try:
                arrays = [
                    pa.array([_valued(one[name], there[name]) for one in chosen], there[name])
                    for name in wanted
                ]
                if arrays:
                    return KeptTable(pa.RecordBatch.from_arrays(arrays, wanted))
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                pass  # a value that its type does not hold
        keep_all = names == "all"
        dicts = [{n: v for n, v in one.items() if keep_all or n in wanted} for one in chosen]
        return KeptValues(dicts)

    def position(self, row: int) -> RowPosition:
        """The record, from 1 in its piece."""
        return RowPosition(self._before + row + 1)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The record as an object."""
        return {"record": _plain(self._records[row])}


class KeptValues(KeptDicts):
    """What is kept of records whose values are Python's, of which JSON does not have all."""

    def take(self, rows: Any) -> Kept:
        """The same of some of the records."""
        return KeptValues([self._kept[row] for row in rows])

    def texts(self) -> list[bytes]:
        """The records as JSON."""
        encoded = encode_records(self._kept)
        if not encoded.failures:
            return bytes(encoded.data).splitlines()
        return [orjson.dumps(_plain(one)) for one in self._kept]  # NaN, which becomes null

    def dicts(self) -> list[dict[str, Any]]:
        """The records as dicts of what JSON has."""
        return [orjson.loads(text) for text in self.texts()]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.loads(orjson.dumps(value, plain_value, options))


def _valued(value: Any, kind: Any) -> Any:
    """A value as Arrow takes it for a type."""
    return value if value is None else _maker(kind)(value)


def _maker(kind: Any) -> Callable[[Any], Any]:
    import pyarrow as pa

    types = pa.types
    if types.is_map(kind):
        return lambda value: [(k, _valued(v, kind.item_type)) for k, v in value.items()]
    if types.is_list(kind):
        return lambda value: [_valued(one, kind.value_type) for one in value]
    if types.is_struct(kind):
        return lambda value: {f.name: _valued(value[f.name], f.type) for f in kind}
    return str if types.is_string(kind) else lambda value: value
