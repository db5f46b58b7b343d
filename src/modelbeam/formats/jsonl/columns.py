"""JSON Lines straight into Arrow columns, for models that take columns.

The work is done by ``columns.c``, built with the package where there is a C compiler, and else by
Polars. Either way a line is taken only where it is certain that the reference, ``orjson`` and
:func:`modelbeam.models.signature.to_batch`, would say the same; other lines are left to it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from modelbeam.formats.jsonl.texts import Texts
from modelbeam.formats.lines import LineBlock
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.columns import array_of, type_of

_PLACE, _LIST, _STRUCT = 4, 5, 6
_COLON, _COMMA, _BRACKET = b":,["

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
    if not signature.columns or not signature.decodable:
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
    records = orjson.loads(b"[" + b",".join(cut(block, places, names)) + b"]")
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


def _kind_in_c(column: Column) -> int | None:
    """``kind`` in ``columns.c``, or ``None`` if there is none for the column."""
    if column.kind == "any":
        return None if column.inside is None else _LIST if column.is_list else _STRUCT
    return {"float": 0, "int": 1, "bool": 2, "str": 3}[column.kind]


class _Column(ctypes.Structure):
    """``column`` of ``columns.c``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("nullable", ctypes.c_int64),
        ("required", ctypes.c_int64),
        ("bounded", ctypes.c_int64),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
        ("least", ctypes.c_int64),
        ("most", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("text", ctypes.c_void_p),
        ("length", ctypes.c_int64),
        ("kept", ctypes.c_int64),
        ("seen", ctypes.c_int64),
        ("places", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("child_count", ctypes.c_int64),
        ("closed", ctypes.c_int64),
        ("known", ctypes.c_void_p),
        ("known_room", ctypes.c_int64),
        ("known_count", ctypes.c_int64),
        ("next_long", ctypes.c_void_p),
    )


_MEMBER = 24
"""Bytes of a ``member`` of ``columns.c``, or more."""

_KNOWN_MEMBERS, _KNOWN_MEMBERS_INSIDE = 512, 64
"""Members of a line, and of an object in it, whose names are remembered from one to the next."""


@functools.cache
def library() -> Any | None:
    """The built ``columns.c`` with its tables, or ``None`` if it was not built."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_columns" + suffix)
        if path.exists():
            try:
                library: Any = ctypes.CDLL(str(path))
                for function in ("modelbeam_columns", "modelbeam_cut", "modelbeam_line_ends"):
                    getattr(library, function).restype = None
            except (OSError, AttributeError):  # built elsewhere, for another libc; or too old
                continue
            library.modelbeam_locale.restype = ctypes.c_void_p
            library.modelbeam_columns.argtypes = [
                ctypes.c_char_p, ctypes.c_int64, ctypes.POINTER(_Column), ctypes.c_int64,
                ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                ctypes.c_void_p,
            ]  # fmt: skip
            library.modelbeam_cut.argtypes = [
                ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            library.modelbeam_line_ends.argtypes = [
                ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
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
    nodes = [_Node(column, room, needed=column.name in needed) for column in columns]
    kept = [_Node(Column(name, "any"), 0, needed=name in needed) for name in only_kept]
    line = _Node(Column("", "any"), room, children=[*nodes, *kept])
    described = _describe(data, line)
    if described is None:
        return None
    places = np.empty((room, len(keep), 2), np.int32)
    for i, name in enumerate(keep):
        one = described[1 + [*names, *only_kept].index(name)]
        one.places, one.stride = places.ctypes.data + 8 * i, 2 * len(keep)
    row_lines, doubtful = np.empty(room, np.int32), np.empty(room, np.int32)
    totals = np.zeros(4, np.int64)
    library.modelbeam_columns(
        data, len(data), described, len(described), library.powers.ctypes.data, library.locale,
        row_lines.ctypes.data, doubtful.ctypes.data, totals.ctypes.data,
    )  # fmt: skip
    rows, doubts, lines, _ = (int(total) for total in totals)
    if lines != block.count:
        return None
    batch = pa.RecordBatch.from_arrays(
        [_array(pa, n, rows, type_of(n.column)) for n in nodes], names=names
    )
    return Columns(
        batch,
        None if rows == lines else row_lines[:rows].tolist(),
        doubtful[:doubts].tolist(),
        places[:rows] if keep else None,
    )


@dataclass(slots=True)
class _Node:
    """A column, or a part of a nested one, with the memory that it is decoded into.

    Attributes:
        column: what it is.
        room: how many slots it may have.
        needed: whether a record must have it, whatever the column says.
        children: its parts.
        described: what ``columns.c`` knows of it.
        values, valid, text, known: as there.
    """

    column: Column
    room: int
    needed: bool = False
    children: list[_Node] = field(default_factory=list)
    described: Any = None
    values: Any = None
    valid: Any = None
    text: Any = None
    known: Any = None


def _describe(data: bytes, line: _Node) -> Any | None:
    """What ``columns.c`` takes; ``None`` if a name may be written with escapes.

    Args:
        data: the lines.
        line: the object that each of them holds; it must live as long as the result is used.
    """
    nodes = [line]
    items = -1
    for node in nodes:  # which grows meanwhile
        column = node.column
        if column.inside is not None:
            if column.is_list and items < 0:
                signs = np.frombuffer(data, np.uint8)
                items = sum(int(np.count_nonzero(signs == sign)) for sign in (_COMMA, _BRACKET))
            room = items + 1 if column.is_list else node.room
            node.children = [_Node(part, room) for part in column.inside]
        nodes += node.children
    described = (_Column * len(nodes))()
    size = ctypes.sizeof(_Column)
    at = 1
    for node, one in zip(nodes, described, strict=True):
        name = orjson.dumps(node.column.name)[1:-1]
        if b"\\" in name:
            return None
        node.described, one.name, one.name_length = one, name, len(name)
        one.child_count = len(node.children)
        one.children = ctypes.addressof(described) + at * size
        at += len(node.children)
        kind = _STRUCT if node is line else _kind_in_c(node.column)
        one.kind = _PLACE if kind is None else kind
        _give_room(node, len(data), _KNOWN_MEMBERS if node is line else _KNOWN_MEMBERS_INSIDE)
        one.required |= node.needed
    return described


def _give_room(node: _Node, length: int, known: int) -> None:
    """Describe a column and where its values go."""
    column, one = node.column, node.described
    if one.kind == _PLACE:
        return
    one.nullable, one.closed = column.nullable, column.closed
    one.required = column.required or column.filled  # what is filled in is the schema's matter
    if one.kind == _STRUCT:
        node.known = np.empty(known * _MEMBER, np.uint8)
        one.known, one.known_room = node.known.ctypes.data, known
    else:
        node.values = np.empty(node.room, _VALUES[one.kind])
        one.values = node.values.ctypes.data
    if one.kind == _STRING:
        node.text = np.empty(length, np.uint8)
        one.text = node.text.ctypes.data
    if one.nullable or not one.required:
        node.valid = np.empty(node.room, np.uint8)
        one.valid = node.valid.ctypes.data
    if column.bounded or column.lossless:
        one.bounded = 1
        if column.kind == "int":
            one.least, one.most = _integers_within(column)
        else:
            one.low, one.high = _doubles_within(column)


_STRING = 3
_VALUES = {0: np.float64, 1: np.int64, 2: np.uint8, _STRING: np.int32, _LIST: np.int32}


def lines(block: LineBlock) -> Texts:
    """The lines of a block, as they are but for their newlines."""
    native = library()
    if native is None:
        return Texts(block.data, *block.spans())
    ends = np.empty(block.count, np.int64)
    native.modelbeam_line_ends(block.data, len(block.data), block.count, ends.ctypes.data)
    return Texts(block.data, np.concatenate(([0], ends[:-1] + 1))[: len(ends)], ends)


_EXACT = 2.0**53 - 1
"""An integer up to this is the double that it was decoded into; 2**53 may have been one more."""


def _doubles_within(column: Column) -> tuple[float, float]:
    """The least and the greatest double within a column's bounds that it is certain of."""
    low, high = (-_EXACT, _EXACT) if column.lossless else (-math.inf, math.inf)
    for bound, strict in ((column.at_least, False), (column.above, True)):
        if bound is not None:
            least = _nearest(bound)
            if least < bound or (strict and least == bound):
                least = math.nextafter(least, math.inf)
            low = least if math.isnan(least) else max(low, least)
    for bound, strict in ((column.at_most, False), (column.below, True)):
        if bound is not None:
            most = _nearest(bound)
            if most > bound or (strict and most == bound):
                most = math.nextafter(most, -math.inf)
            high = most if math.isnan(most) else min(high, most)
    # a double at a bound as large as this may have been an integer beyond it
    if _EXACT < abs(low) < math.inf:
        low = math.nextafter(low, math.inf)
    if _EXACT < abs(high) < math.inf:
        high = math.nextafter(high, -math.inf)
    return low, high


def _nearest(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _integers_within(column: Column) -> tuple[int, int]:
    """The least and the greatest integer of 64 bits within a column's bounds."""
    least, most = -(2**63), 2**63 - 1
    given = (column.above, column.at_least, column.below, column.at_most)
    bounds = [None if b is None or abs(b) == math.inf else b for b in given]
    if any(bound is not None and bound != bound for bound in bounds) or (
        math.inf in given[:2] or -math.inf in given[2:]
    ):
        return 1, 0
    above, at_least, below, at_most = bounds
    if above is not None:
        least = max(least, math.floor(above) + 1)
    if at_least is not None:
        least = max(least, math.ceil(at_least))
    if below is not None:
        most = min(most, math.ceil(below) - 1)
    if at_most is not None:
        most = min(most, math.floor(at_most))
    return (least, most) if least <= most else (1, 0)


def _array(pa: Any, node: _Node, slots: int, kind: Any) -> Any:
    """An Arrow array over what was decoded, without a copy except of booleans."""
    one, values = node.described, node.values
    bitmap = None
    if node.valid is not None and not node.valid[:slots].all():
        bitmap = pa.array(node.valid[:slots] != 0).buffers()[1]
    buffers, children = [bitmap], None
    if one.kind == _STRUCT:
        children = [
            _array(pa, child, slots, kind.field(at).type) for at, child in enumerate(node.children)
        ]
    elif one.kind in (_LIST, _STRING):
        values[slots] = one.length
        buffers.append(pa.py_buffer(values))
        if one.kind == _STRING:
            buffers.append(pa.py_buffer(node.text[: one.length]))
        else:
            children = [_array(pa, node.children[0], one.length, kind.value_type)]
    elif node.column.kind == "bool":
        buffers.append(pa.array(values[:slots].view(np.bool_)).buffers()[1])
    else:
        buffers.append(pa.py_buffer(values))
    nulls = 0 if bitmap is None else -1
    return pa.Array.from_buffers(kind, slots, buffers, nulls, children=children)


def cut(block: LineBlock, places: Places, keep: Sequence[str]) -> Texts:
    """The members that are kept of each row, as the text of a JSON object; nothing is parsed.

    Args:
        block: the lines.
        places: as :class:`Columns` has them.
        keep: their names, in the order of the result; those that a row lacks are left out.

    Returns:
        One text a row, each in one line.
    """
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
    return Texts(text[: int(offsets[-1])].tobytes(), offsets[:-1], offsets[1:])


def _has_doubtful_numbers(columns: Sequence[Column], batch: Any) -> bool:
    """Whether a number that must be exact may have been an integer that is no double."""
    found = [batch.column(c.name) for c in columns if c.lossless and c.kind == "float"]
    return any((np.abs(np.asarray(column)) > _EXACT).any() for column in found)


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
