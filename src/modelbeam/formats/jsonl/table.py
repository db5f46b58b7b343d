"""Columns of Arrow as lines, by ``encode.c`` where it was built.

Numbers are written by ``orjson``, a whole column at a time; strings straight from their buffers; of
a dictionary each label once. The rest is joining, which a few lines of C do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from modelbeam.formats.jsonl.columns import library
from modelbeam.formats.jsonl.texts import Texts
from modelbeam.formats.jsonl.values import plain_value, rows_of_column, shortest

_TOKENS, _TEXT32, _TEXT64, _LABELS = range(4)
_WORST = 6
"""Bytes that one byte of a string may become: a backslash, ``u00`` and two digits."""


class NotFiniteError(ValueError):
    """A column holds NaN or infinity, which JSON cannot hold."""


class _Column(ctypes.Structure):
    """``out_column`` of ``encode.c``."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_int64),
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
    )


class _Part(NamedTuple):
    """A column as ``encode.c`` takes it: buffers, and the bytes that it may take at most."""

    kind: int
    data: Any
    room: int
    offsets: Any = None
    indices: Any = None
    valid: Any = None


def encode(batch: Any, kept: Sequence[bytes] | None) -> memoryview | None:
    """The lines of a ``pyarrow.RecordBatch``; ``None`` where ``encode.c`` was not built.

    Args:
        batch: the predictions.
        kept: for each row the text of a JSON object whose members stand before the prediction's.

    Raises:
        NotFiniteError, TypeError, UnicodeEncodeError: some value has no JSON; a look at each row
            says which.
    """
    native = library()
    if native is None:
        return None
    rows = batch.num_rows
    names = [orjson.dumps(name) + b":" for name in batch.schema.names]
    parts = [_part(batch.column(index)) for index in range(batch.num_columns)]
    columns = (_Column * max(len(parts), 1))()
    room = rows * (3 + sum(len(name) + 5 for name in names)) + sum(part.room for part in parts)
    for one, name, part in zip(columns, names, parts, strict=False):
        one.kind, one.name, one.name_length = part.kind, name, len(name)
        one.data, one.offsets = _address(part.data), _address(part.offsets)
        one.indices, one.valid = _address(part.indices), _address(part.valid)
    before: tuple[Any, ...] = (None, None, None)
    if kept is not None:
        texts = Texts.of(kept)
        if len(texts) != rows:
            raise ValueError(f"{len(texts)} texts are kept of {rows} records")
        before = (texts.data, texts.begins.ctypes.data, texts.ends.ctypes.data)
        room += texts.size
    out = np.empty(room + 16, np.uint8)
    function = native.modelbeam_lines
    function.restype = ctypes.c_int64
    function.argtypes = _ARGUMENTS
    written = function(columns, len(parts), rows, *before, out.ctypes.data)
    return out[:written].data


_ARGUMENTS = [
    ctypes.POINTER(_Column), ctypes.c_int64, ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p,
    ctypes.c_void_p, ctypes.c_void_p,
]  # fmt: skip


def _address(buffer: Any) -> int | None:
    if buffer is None:
        return None
    if isinstance(buffer, bytes):
        return ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p).value
    if hasattr(buffer, "ctypes"):
        address: int = buffer.ctypes.data
        return address
    return int(buffer.address)


def _part(column: Any) -> _Part:
    import pyarrow as pa

    kind = column.type
    valid = None
    if column.null_count:
        valid = np.asarray(column.is_valid(), np.uint8)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        wide = np.int64 if pa.types.is_large_string(kind) else np.int32
        _, ends, data = column.buffers()
        offsets = np.frombuffer(ends, wide)[column.offset : column.offset + len(column) + 1]
        size = int(offsets[-1] - offsets[0]) if len(offsets) else 0
        code = _TEXT64 if wide is np.int64 else _TEXT32
        return _Part(code, data, size * _WORST + 2 * len(column), offsets, None, valid)
    if pa.types.is_dictionary(kind) and not column.dictionary.null_count:
        return _labels(column, valid)
    if (flat := _flat(pa, column)) is not None:
        tokens = _numbers(flat)
    elif valid is None and (matrix := _matrix(pa, column)) is not None:
        tokens = _numbers(matrix)
    elif pa.types.is_struct(kind) and kind.num_fields and len(column):
        tokens = _objects(pa, column)
    else:
        values = rows_of_column(column)
        tokens = orjson.dumps(values, plain_value, orjson.OPT_SERIALIZE_NUMPY)
        if b"null" in tokens and not_finite(values):
            raise NotFiniteError
        valid = None  # nulls are among the tokens
    return _Part(_TOKENS, tokens[1:], len(tokens), valid=valid)


def _objects(pa: Any, column: Any) -> bytes:
    """Objects by the members that all of them have, each as a line would be."""
    names = [column.type.field(at).name for at in range(column.type.num_fields)]
    lines = bytes(encode(pa.RecordBatch.from_arrays(column.flatten(), names=names), None) or b"")
    return b"[" + lines[:-1].replace(b"\n", b",") + b"]"


def not_finite(value: Any) -> bool:
    """Whether NaN or an infinity is in it, at any depth."""
    if isinstance(value, float):
        return not np.isfinite(value)
    if isinstance(value, (list, tuple)):
        return any(map(not_finite, value))
    return isinstance(value, dict) and any(map(not_finite, value.values()))


def _numbers(values: Any) -> bytes:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise NotFiniteError
        if values.dtype.itemsize == 2:
            values = shortest(values)
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)


_FLOATS = {"halffloat": "f2", "float": "f4", "double": "f8"}


def _flat(pa: Any, column: Any) -> Any:
    """The numbers of a column (anything where they are null), or ``None`` if it has others."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return np.asarray(column.fill_null(False) if column.null_count else column)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    dtype = np.dtype(_FLOATS.get(str(kind), str(kind)))
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(len(column), dtype)
    values = np.frombuffer(buffer, dtype, len(column) + column.offset)[column.offset :]
    if column.null_count and dtype.kind == "f":
        values = np.where(np.asarray(column.is_valid()), values, dtype.type(0))
    return values


def _matrix(pa: Any, column: Any) -> Any:
    """Lists of numbers that are all of one length, as a matrix; else ``None``."""
    kind = column.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not len(column) or not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return None
    values = column.flatten()
    if values.null_count or len(values) % len(column) or not len(values):
        return None
    width = len(values) // len(column)
    if not fixed:
        ends = np.asarray(column.offsets)
        if not (np.diff(ends) == width).all():
            return None
    flat = _flat(pa, values)
    return None if flat is None else flat.reshape(len(column), width)


def _labels(column: Any, valid: Any) -> _Part:
    texts = [
        orjson.dumps(label, plain_value, orjson.OPT_SERIALIZE_NUMPY)
        for label in rows_of_column(column.dictionary)
    ]
    if b"null" in texts:
        raise NotFiniteError  # or a label that is null: rows tell
    indices = column.indices.fill_null(0) if column.null_count else column.indices
    ends = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=ends[1:])
    longest = max(map(len, texts), default=0)
    numbers = np.asarray(indices, np.int32)
    return _Part(_LABELS, b"".join(texts) or b" ", longest * len(column), ends, numbers, valid)
