"""JSON Lines straight into Arrow columns, for models that take columns.

The work is done by ``columns.c``, built with the package where there is a C compiler, and else by
Polars. Either way a line is taken only where it is certain that the reference, ``orjson`` and
:func:`modelbeam.models.signature.to_batch`, would say the same; other lines are left to it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from modelbeam.formats.lines import LineBlock
from modelbeam.models.shapes import FLOATS
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.columns import array_of

_PLACE = 4
_COLON = 58

Places = np.ndarray[Any, np.dtype[np.int32]]


class Columns(NamedTuple):
    """What was certain of a block.

    Attributes:
        batch: a ``pyarrow.RecordBatch`` of the signature's columns.
        rows: the line of each row; ``None`` where every line is a row.
        doubtful: the lines that the reference must look at.
        places: for each row and each name that was asked for (each once), the bytes of the block
            where the member's text begins and ends, -1 if there is none: (rows, names, 2); ``None``
            if none was asked for or if they are not known. See :func:`cut`.
    """

    batch: Any
    rows: list[int] | None
    doubtful: list[int]
    places: Places | None = None


def decode(block: LineBlock, signature: Signature, keep: Sequence[str] = ()) -> Columns | None:
    """Decode a block, or return ``None`` if the reference must do all of it.

    Args:
        block: the lines.
        signature: the columns.
        keep: members whose places are wanted too.
    """
    if not signature.columns or not signature.exact:
        return None
    native = library()
    if native is None:
        if any(column.bounded for column in signature.columns):
            return None
        batch = decode_polars(block, signature.columns)
        if batch is None or _has_doubtful_numbers(signature.columns, batch):
            return None
        return Columns(batch, None, [])
    if any(_kind_in_c(column) is None for column in signature.columns):
        return _decode_with_open_columns(native, block, signature.columns, keep)
    return _decode_native(native, block, signature.columns, keep)


def _decode_with_open_columns(
    native: Any, block: LineBlock, columns: tuple[Column, ...], keep: Sequence[str]
) -> Columns | None:
    """Decode a block with columns that may hold anything; only their values are parsed here.

    What type they have follows from all lines, so a doubt about one is a doubt about the block.
    """
    import pyarrow as pa

    typed = tuple(column for column in columns if _kind_in_c(column) is not None)
    names = [column.name for column in columns if column not in typed]
    needed = frozenset(c.name for c in columns if c not in typed and c.required)
    noted = list(dict.fromkeys([*keep, *names]))
    found = _decode_native(native, block, typed, noted, needed)
    if found is None or found.doubtful or found.places is None:
        return None
    places = found.places[:, [noted.index(name) for name in names]]
    texts = cut(block, places, names).to_pylist()
    records = orjson.loads(b"[" + b",".join(texts) + b"]")
    arrays = []
    for column in columns:
        if column in typed:
            array = found.batch.column(column.name)
        else:
            array = array_of(column, [record.get(column.name) for record in records])
        if array is None:
            return None
        arrays.append(array)
    batch = pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
    places = found.places[:, : len(dict.fromkeys(keep))]
    return Columns(batch, found.rows, [], places if keep else None)


def places_of(block: LineBlock, keep: Sequence[str]) -> Columns | None:
    """The places of some members of each line; ``None`` where only the reference can tell."""
    native = library()
    return None if native is None else _decode_native(native, block, (), keep)


def _kind_in_c(column: Column) -> tuple[int, Any] | None:
    """``kind`` and the type of ``values`` in ``columns.c``; ``None`` if there is none."""
    if column.kind == "any":
        return (5, np.int32) if column.shape == FLOATS else None
    return {
        "float": (0, np.float64),
        "int": (1, np.int64),
        "bool": (2, np.uint8),
        "str": (3, np.int32),
    }[column.kind]


class _Column(ctypes.Structure):
    """``column`` of ``columns.c``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("nullable", ctypes.c_int64),
        ("required", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("text", ctypes.c_void_p),
        ("text_length", ctypes.c_int64),
        ("text_kept", ctypes.c_int64),
        ("nulls", ctypes.c_int64),
        ("seen", ctypes.c_int64),
        ("places", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
    )


@functools.cache
def library() -> Any | None:
    """The built ``columns.c`` with its tables, or ``None`` if it was not built."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_columns" + suffix)
        if path.exists():
            try:
                library: Any = ctypes.CDLL(str(path))
                library.modelbeam_cut.restype = None
            except (OSError, AttributeError):  # built elsewhere, for another libc; or too old
                continue
            library.modelbeam_locale.restype = ctypes.c_void_p
            library.modelbeam_decode.restype = None
            library.modelbeam_decode.argtypes = [
                ctypes.c_char_p, ctypes.c_int64, ctypes.POINTER(_Column), ctypes.c_int64,
                ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                ctypes.c_void_p,
            ]  # fmt: skip
            library.modelbeam_cut.argtypes = [
                ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            library.powers = _powers_of_five()
            library.locale = library.modelbeam_locale()
            return library
    return None


def _powers_of_five() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """128-bit mantissas of 5**-342 … 5**308 as ``columns.c`` wants them: (651, 2), high word first.

    Lemire (2021), section 7: positive powers are cut off, reciprocals rounded up.
    """
    table = np.empty((651, 2), np.uint64)
    for row, exponent in enumerate(range(-342, 309)):
        if exponent >= 0:
            power = 5**exponent
            shift = power.bit_length() - 128
            power = power >> shift if shift > 0 else power << -shift
        else:
            divisor = 5**-exponent
            power = (1 << (divisor.bit_length() + 127)) // divisor + 1
        table[row] = power >> 64, power & (2**64 - 1)
    return table


def _decode_native(
    library: Any,
    block: LineBlock,
    columns: tuple[Column, ...],
    keep: Sequence[str],
    needed: frozenset[str] = frozenset(),
) -> Columns | None:
    """Decode a block in C; lines without a kept member that is needed are doubtful."""
    import pyarrow as pa

    data, room = block.data, block.count + 1
    if len(data) >= 2**31 or not _is_utf8(data):
        return None
    keep = list(dict.fromkeys(keep))
    if any(b"\\" in orjson.dumps(name) for name in keep):  # it may be written in other ways too
        keep = []
    names = [column.name for column in columns]
    only_kept = [name for name in keep if name not in names]
    arrays = []
    described = (_Column * (len(columns) + len(only_kept)))()
    for column, one in zip(columns, described, strict=False):
        name = orjson.dumps(column.name)[1:-1]
        if b"\\" in name:
            return None
        one.kind, numpy_type = _kind_in_c(column) or (_PLACE, np.uint8)
        values = np.empty(room, numpy_type)
        valid = np.empty(room, np.uint8)
        text = (
            np.empty(len(data) // 2 + 1, np.float64)
            if column.kind == "any"
            else np.empty(len(data) if column.kind == "str" else 0, np.uint8)
        )
        arrays.append((values, valid, text))
        one.name, one.name_length = name, len(name)
        one.nullable = column.nullable
        one.required = column.required or column.filled  # what is filled in is the schema's matter
        one.values, one.valid, one.text = values.ctypes.data, valid.ctypes.data, text.ctypes.data
    for kept, one in zip(only_kept, described[len(columns) :], strict=True):
        name = orjson.dumps(kept)[1:-1]
        one.name, one.name_length, one.kind = name, len(name), _PLACE
        one.required = kept in needed
    places = np.empty((room, len(keep), 2), np.int32)
    for i, kept in enumerate(keep):
        one = described[[*names, *only_kept].index(kept)]
        one.places, one.stride = places.ctypes.data + 8 * i, 2 * len(keep)
    row_lines, doubtful = np.empty(room, np.int32), np.empty(room, np.int32)
    totals = np.zeros(4, np.int64)
    library.modelbeam_decode(
        data, len(data), described, len(described), library.powers.ctypes.data, library.locale,
        row_lines.ctypes.data, doubtful.ctypes.data, totals.ctypes.data,
    )  # fmt: skip
    rows, doubts, lines, _ = (int(total) for total in totals)
    if lines != block.count:
        return None
    made = [
        _arrow_array(pa, one, column, rows, *array)
        for one, column, array in zip(described, columns, arrays, strict=False)
    ]
    batch = pa.RecordBatch.from_arrays(made, names=[column.name for column in columns])
    lines_of_rows, left, places = row_lines[:rows], doubtful[:doubts], places[:rows]
    bad = _out_of_bounds(columns, arrays, rows)
    if bad is not None:
        batch = batch.filter(pa.array(~bad))
        left = np.sort(np.concatenate((left, lines_of_rows[bad])))
        lines_of_rows, places = lines_of_rows[~bad], places[~bad]
    whole = len(lines_of_rows) == lines
    return Columns(
        batch, None if whole else lines_of_rows.tolist(), left.tolist(), places if keep else None
    )


def cut(block: LineBlock, places: Places, keep: Sequence[str]) -> Any:
    """The members that are kept of each row, as the text of a JSON object; nothing is parsed.

    Args:
        block: the lines.
        places: as :class:`Columns` has them.
        keep: their names, in the order of the result; those that a row lacks are left out.

    Returns:
        A ``pyarrow.LargeBinaryArray``, one text a row, each in one line.
    """
    import pyarrow as pa

    native = library()
    if native is None:
        raise RuntimeError("places are known only to the decoder in C")
    heads = [orjson.dumps(name) + b":" for name in dict.fromkeys(keep)]
    ends = np.cumsum([len(head) for head in heads], dtype=np.int32)
    rows = len(places)
    places = np.ascontiguousarray(places)
    length = int((places[:, :, 1] - places[:, :, 0]).sum(dtype=np.int64))
    text = np.empty(length + rows * (2 + sum(map(len, heads)) + len(heads)), np.uint8)
    offsets = np.empty(rows + 1, np.int64)
    native.modelbeam_cut(
        block.data, places.ctypes.data, rows, len(heads), b"".join(heads),
        ends.ctypes.data, text.ctypes.data, offsets.ctypes.data,
    )  # fmt: skip
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), rows, buffers)


_EXACT = 2.0**53
"""An integer up to this is the double that it was decoded into."""


def _out_of_bounds(
    columns: tuple[Column, ...], arrays: list[tuple[Any, Any, Any]], rows: int
) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Which rows have a value that is not certainly within its column's bounds, if any has."""
    bad = np.zeros(rows, np.bool_)
    for column, (values, valid, _) in zip(columns, arrays, strict=True):
        if not column.bounded and not column.lossless:
            continue
        values, good = values[:rows], np.ones(rows, np.bool_)
        if column.above is not None:
            good &= values > column.above
        if column.at_least is not None:
            good &= values >= column.at_least
        if column.below is not None:
            good &= values < column.below
        if column.at_most is not None:
            good &= values <= column.at_most
        if column.kind == "float":
            good &= np.abs(values) <= _EXACT
        bad |= ~good & (valid[:rows] != 0)
    return bad if bad.any() else None


def _has_doubtful_numbers(columns: Sequence[Column], batch: Any) -> bool:
    """Whether a number that must be exact may have been an integer that is no double."""
    found = [batch.column(c.name) for c in columns if c.lossless and c.kind == "float"]
    return any((np.abs(np.asarray(column)) > _EXACT).any() for column in found)


def _arrow_array(
    pa: Any, described: _Column, column: Column, rows: int, values: Any, valid: Any, text: Any
) -> Any:
    """An Arrow array over what was decoded, without a copy except of booleans and nulls."""
    mask = valid[:rows] == 0 if described.nulls else None
    if column.kind in ("str", "any"):
        bitmap = pa.array(mask == 0).buffers()[1] if mask is not None else None
        buffers, text = [bitmap, pa.py_buffer(values)], text[: described.text_length]
        if column.kind == "str":
            buffers.append(pa.py_buffer(text))
            return pa.Array.from_buffers(pa.string(), rows, buffers, described.nulls)
        kind = pa.list_(pa.float64())
        return pa.Array.from_buffers(
            kind, rows, buffers, described.nulls, children=[pa.array(text)]
        )
    values = values[:rows]
    return pa.array(values.view(np.bool_) if column.kind == "bool" else values, mask=mask)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def decode_polars(block: LineBlock, columns: tuple[Column, ...]) -> Any | None:
    """Decode a whole block with Polars, or return ``None`` where a doubt remains.

    Polars reads one line a row and rejects what ``orjson`` rejects, numbers and booleans included,
    with these exceptions, each looked for here: blank lines are skipped (rows are counted), a
    missing value is null (nulls are counted), the first of duplicate keys wins (keys are counted),
    and lone surrogates pass (``\\ud`` is looked for). Strings may stand for anything there, so
    columns of strings are left to the reference.
    """
    import polars as pl

    kinds = {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean}
    if any(column.kind not in kinds for column in columns):
        return None
    data = block.data
    escaped = b"\\" in data
    if escaped and (b"\\ud" in data or b"\\uD" in data):
        return None
    try:
        frame = pl.read_ndjson(data, schema={c.name: kinds[c.kind] for c in columns})
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if frame.height != block.count:
        return None
    colons = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _COLON))
    if any(frame.get_column(column.name).null_count() for column in columns):
        return None
    if colons != block.count * len(columns):
        names = [orjson.dumps(column.name) for column in columns]
        if escaped or any(data.count(name) != block.count for name in names):
            return None
    return frame.rechunk().to_arrow().to_batches()[0]
