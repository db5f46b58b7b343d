"""JSON Lines (also LDJSON, NDJSON), https://jsonlines.org: reading, decoding and encoding.

A split is read in blocks of whole lines. ``orjson`` decodes a line into a dict and is the reference
for what is valid; :mod:`.jsonl_columns` decodes a block for models that take columns.
"""

from __future__ import annotations

import enum
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import orjson

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import compression
from modelbeam.formats.base import Split
from modelbeam.predicting.failures import Failure, Position, without_returns

BLOCK_BYTES = 2 << 20
"""Bytes of one block. Measured: 1 MiB pays more for each call, 4 MiB only takes more memory."""

LONG_LINE_HEAD = 1024
"""Bytes of an overlong line that its error line shows."""

_NEWLINE = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class LineBlock:
    """Whole lines of one split.

    Attributes:
        data: the bytes; only the last line of a file may lack its newline.
        offset: where ``data`` starts in the (decompressed) file.
        line: how many lines of the split come before it.
        count: how many lines it has, blank ones included.
        marked: whether a byte-order mark stood before ``data``, and was left out.
    """

    data: bytes
    offset: int
    line: int
    count: int
    marked: bool = False
    _lines: list[bytes] | None = field(default=None, repr=False)
    _starts: Any = field(default=None, repr=False)

    @property
    def lines(self) -> list[bytes]:
        """Each line without its newline."""
        if self._lines is None:
            self._lines = self.data.split(b"\n")
            if not self._lines[-1]:
                self._lines.pop()
        return self._lines

    def position(self, row: int) -> Position:
        """Where the line is: from 1 in its split, and its offset in the file."""
        if self._starts is None:
            ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _NEWLINE)
            self._starts = np.concatenate(([0], ends + 1))
        offset = self.offset + int(self._starts[row])
        return Position(self.line + row + 1, 0 if self.marked and row == 0 else offset)

    def raw(self, row: int) -> bytes:
        """The record's original bytes, without the line's end."""
        return self.lines[row].removesuffix(b"\r")


class LongLine(NamedTuple):
    """A line that is longer than a record may be; only its beginning was kept.

    ``line`` counts from 0 in its split; ``length`` is in bytes, without the newline.
    """

    line: int
    offset: int
    length: int
    head: bytes


class BlockReader:
    """Iterates over the lines whose first byte is in a split, in blocks; memory stays bounded.

    Args:
        split: what to read.
        longest: bytes that a line may have; a longer one is skimmed over.
        size: bytes a block; may be changed between two blocks.

    Raises:
        InputReadError: the file vanished, has changed since the plan was made, cannot be read, or
            its compression is damaged.
    """

    def __init__(self, split: Split, longest: int, size: int = BLOCK_BYTES) -> None:
        self.size = size
        self._split, self._longest = split, longest

    def __iter__(self) -> Iterator[LineBlock | LongLine]:
        split = self._split
        with _reading(split):
            _check_unchanged(split)
            if not split.size:
                return  # not even the frame of a compression
            handle = storage.open_read(split.path, split.end or split.size)
        with handle:
            with _reading(split):
                reader = _Reader(split, handle)
            while True:
                with _reading(split):  # not around the yield: what the caller raises is not ours
                    block = reader.next_block(self._longest, self.size)
                if block is None:
                    break
                yield block
        with _reading(split):
            _check_unchanged(split)


def first_block(path: str, compression_name: str | None, wanted: int) -> LineBlock:
    """The first lines of a file, as many as hold ``wanted`` records or fewer.

    Raises:
        InputReadError: the file cannot be read.
    """
    split = Split(0, path, 0, None, 0, 0, compression_name)
    first = LineBlock(b"", 0, 0, 0)
    with _reading(split):
        if storage.stat(path).size:
            with storage.open_read(path) as handle:
                reader = _Reader(split, handle)
                for _ in range(2):  # a last line without a newline is a block of its own
                    block = reader.next_block(BLOCK_BYTES, BLOCK_BYTES)
                    if not isinstance(block, LineBlock):
                        break
                    first = replace(first, data=first.data + block.data) if first.data else block
    lines, records = 0, 0
    for line in first.lines:
        lines += 1
        records += bool(line.strip())
        if records == wanted:
            break
    return replace(first, data=b"\n".join(first.lines[:lines]), count=lines, _lines=None)


@contextmanager
def _reading(split: Split) -> Iterator[None]:
    """Turn what reading may raise into one message that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputReadError(
            f"The input {split.path} has vanished since the job was planned. Put it back and run "
            f"the same command with --resume."
        ) from None
    except Exception as error:
        if isinstance(error, InputReadError) or not _is_reading_error(error):
            raise
        damaged = f" ({split.compression}: truncated or damaged)" if split.compression else ""
        raise InputReadError(
            f"The input {split.path} cannot be read{damaged}: {error}. Mend it and run the same "
            f"command with --resume."
        ) from error


def _is_reading_error(error: Exception) -> bool:
    return isinstance(error, (OSError, EOFError, zlib.error)) or type(error).__name__ == "ZstdError"


def _check_unchanged(split: Split) -> None:
    now = storage.stat(split.path)
    if (now.size, now.mtime_ns) != (split.size, split.mtime_ns):
        raise InputReadError(
            f"The input {split.path} changed while the job ran ({split.size} bytes when it was "
            f"planned, {now.size} now). Run again with --overwrite once it is complete."
        )


def count_lines(data: bytes) -> int:
    """How many newlines there are; three times as fast as ``bytes.count`` on short lines."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))


class _Reader:
    """Cuts what it reads of a split into blocks of whole lines."""

    def __init__(self, split: Split, handle: BinaryIO) -> None:
        self._plain = split.compression is None
        self._handle = (
            handle if self._plain else compression.decompressed(handle, str(split.compression))
        )
        self._end = split.end if self._plain else None
        self._position: int | None = split.start
        self._line = 0
        self._back = b""
        if split.start:
            self._position = self._seek_first_line(split.start, cast(int, split.end))

    def next_block(self, longest: int, size: int) -> LineBlock | LongLine | None:
        """The next lines, or ``None`` after the last one that belongs to the split."""
        size = min(size, longest)
        while self._position is not None and (self._end is None or self._position < self._end):
            data = self._back or self._handle.read(size)
            self._back = b""
            if not data:
                return None
            if len(data) > longest:  # then it is the first line that may be too long
                newline = data.find(b"\n")
                if newline > longest or newline < 0:
                    return self._skim(data, newline, size)
            cut = data.rfind(b"\n") + 1
            if self._end is not None and self._position + cut > self._end:
                cut = data.find(b"\n", self._end - 1 - self._position) + 1
            if cut == 0:
                more = self._handle.read(max(size, len(data)))  # twice as much each time
                if more:
                    self._back = data + more
                    continue
                cut = len(data)
            self._unread(data, cut)
            return self._block(data[:cut])
        return None

    def _block(self, data: bytes) -> LineBlock:
        position, line = cast(int, self._position), self._line
        count = count_lines(data)
        count += not data.endswith(b"\n")
        self._position = position + len(data)
        self._line += count
        if position == 0 and data.startswith(_BOM):
            return LineBlock(data[len(_BOM) :], len(_BOM), line, count, marked=True)
        return LineBlock(data, position, line, count)

    def _unread(self, data: bytes, cut: int) -> None:
        if cut == len(data):
            return
        if self._plain:
            self._handle.seek(cast(int, self._position) + cut)
        else:
            self._back = data[cut:]

    def _skim(self, data: bytes, newline: int, size: int) -> LongLine:
        """Read on to the end of a line that is too long, keeping only its beginning."""
        found = LongLine(self._line, cast(int, self._position), newline, data[:LONG_LINE_HEAD])
        length = 0
        while newline < 0:
            length += len(data)
            data = self._handle.read(size)
            if not data:
                break
            newline = data.find(b"\n")
        if newline >= 0:
            length += newline
            self._back = data[newline + 1 :]
        self._position = found.offset + length + 1
        self._line += 1
        return found._replace(length=length)

    def _seek_first_line(self, start: int, end: int) -> int | None:
        """Go to the first line that starts in ``[start, end)``; ``None`` if there is none."""
        position = start - 1
        self._handle.seek(position)
        while position < end - 1:
            chunk = self._handle.read(min(64 << 10, end - 1 - position))
            if not chunk:
                return None
            newline = chunk.find(b"\n")
            if newline >= 0:
                self._handle.seek(position + newline + 1)
                return position + newline + 1
            position += len(chunk)
        return None


class Decoded(NamedTuple):
    """A block's records: dicts or an Arrow batch, the line of each, and the lines that failed.

    ``rows`` is ``None`` where every line is a record.
    """

    records: Any
    rows: list[int] | None
    failures: list[Failure]


def decode_records(block: LineBlock, only: list[int] | None = None) -> Decoded:
    """Decode lines into dicts; blank lines are none, the last of duplicate keys wins.

    Args:
        block: the lines.
        only: which of them; ``None`` for all.
    """
    if only is None:
        try:
            records = list(map(orjson.loads, block.lines))
            if set(map(type, records)) <= {dict}:
                return Decoded(records, None, [])
        except orjson.JSONDecodeError:
            pass
    records, rows, failures = [], [], []
    for row in range(len(block.lines)) if only is None else only:
        line = block.lines[row]
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip():
                failures.append(Failure(row, "decode", "JSONDecodeError", _json_problem(error)))
            continue
        if type(record) is dict:
            records.append(record)
            rows.append(row)
        else:
            failures.append(Failure(row, "decode", "NotAnObjectError", _not_an_object(record)))
    return Decoded(records, rows, failures)


def _json_problem(error: orjson.JSONDecodeError) -> str:
    if "UTF-8" in error.msg and "surrogates" in error.msg:
        return "the line is not valid UTF-8"
    return f"{error.msg} (column {error.colno})"


def _not_an_object(value: Any) -> str:
    words = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return f"a record is a JSON object; this line holds {words.get(type(value), 'a number')}"


class Encoded(NamedTuple):
    """Lines ready to be written, how many there are, and the predictions that JSON cannot hold.

    A failure's ``row`` is the index of the prediction among those that were to be encoded.
    """

    data: bytes
    lines: int
    failures: list[Failure]


def encode_records(
    predictions: Sequence[dict[str, Any]], kept: Sequence[bytes] | None = None
) -> Encoded:
    """Encode dicts as lines.

    Args:
        predictions: one dict a record.
        kept: for each, the JSON object whose members stand before the prediction's.
    """
    lines = _dumps_all(predictions)
    if lines is not None:
        return Encoded(_joined(lines, kept), len(predictions), [])
    lines, good, failures = [], [], []
    for row, prediction in enumerate(predictions):
        try:
            name = _not_finite(prediction)
            if name:
                raise ValueError(f"{name} is NaN or infinite, which JSON cannot hold")
            lines.append(_dumps(prediction))
            good.append(row)
        except (TypeError, ValueError, RecursionError) as error:
            failures.append(Failure.of(row, "encode", error))
    kept = [kept[row] for row in good] if kept is not None else None
    return Encoded(_joined(lines, kept), len(good), failures)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, _plain_value, orjson.OPT_SERIALIZE_NUMPY)


def _plain_value(value: Any) -> Any:
    """What ``orjson`` does not know by itself, as something that it knows."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _dumps_all(predictions: Sequence[dict[str, Any]]) -> list[bytes] | bytes | None:
    """All predictions as lines, joined if that was for nothing; ``None`` if one has a problem."""
    try:
        array = orjson.dumps(predictions)[1:-1]
    except (TypeError, RecursionError):
        try:
            array = _dumps(predictions)[1:-1]
        except (TypeError, RecursionError):
            return None
    if b"null" in array and any(map(_not_finite, predictions)):
        return None
    if array.count(b"},{") == len(predictions) - 1:  # then these are all between two predictions
        return array.replace(b"},{", b"}\n{") + b"\n"
    return list(map(_dumps, predictions))


def encode_table(batch: Any, kept: Sequence[bytes] | None = None) -> Encoded:
    """Encode an Arrow batch or table as lines, as :func:`encode_records` would its rows."""
    import pyarrow as pa

    data = _encode_labels(batch)
    if data is None:
        if not all(_plain(pa, column_type) for column_type in batch.schema.types) or any(
            _has_not_finite(batch.column(i)) for i in range(batch.num_columns)
        ):
            return encode_records(batch.to_pylist(), kept)
        import io

        import polars as pl

        buffer = io.BytesIO()
        cast(pl.DataFrame, pl.from_arrow(batch)).write_ndjson(buffer)
        data = buffer.getvalue()
    return Encoded(_joined(data, kept), batch.num_rows, [])


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')
_LARGEST_EXACT = 1e18
"""Above it a JSON integer may have become a float, which is not written back as it was."""


def selected(record: dict[str, Any], line: bytes, names: Sequence[str]) -> bytes:
    """The JSON object of some members of a record, their values as they were written.

    Args:
        record: the record.
        line: its text.
        names: the members, in the order of the result; those that it lacks are left out.
    """
    chosen = {name: record[name] for name in names if name in record}
    for value in chosen.values():
        if isinstance(value, (list, dict)) or (
            isinstance(value, float) and not -_LARGEST_EXACT < value < _LARGEST_EXACT
        ):
            texts = _member_texts(without_returns(line))
            return b"{" + b",".join(orjson.dumps(n) + b":" + texts[n] for n in chosen) + b"}"
    return orjson.dumps(chosen)


def _member_texts(record: bytes) -> dict[str, bytes]:
    """The text of each member's value of a valid record; the last of duplicate keys wins."""
    texts: dict[str, bytes] = {}
    depth, key, start = 0, "", 0
    for token in _TOKEN.finditer(record):
        first = token[0][:1]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        if depth == 1 and first == b":":
            start = token.end()
        elif start and (depth == 0 or (depth == 1 and first == b",")):
            texts[key] = record[start : token.start()].strip()
            start = 0
        elif depth == 1 and not start and first == b'"':
            key = orjson.loads(token[0])
    return texts


def _joined(lines: list[bytes] | bytes, kept: Sequence[bytes] | None) -> bytes:
    """Lines, given one by one or joined already, with what is kept of the input before each."""
    if kept is None and not isinstance(lines, list):
        return lines
    if not isinstance(lines, list):
        lines = bytes(lines).split(b"\n")[:-1]
    if kept is not None:
        lines = [_splice(before, line) for before, line in zip(kept, lines, strict=True)]
    return b"\n".join(lines) + b"\n" if lines else b""


def _splice(before: bytes, after: bytes) -> bytes:
    """Join the members of two JSON objects, the texts as they are."""
    before = before.strip()[:-1].rstrip()
    if before == b"{":
        return after
    return before + (b"}" if after == b"{}" else b"," + after[1:])


def _not_finite(value: Any, name: str = "") -> str | None:
    """The path of the first NaN or infinity in a prediction, or ``None``."""
    if isinstance(value, dict):
        pairs = ((f"{name}.{k}" if name else str(k), v) for k, v in value.items())
        return next(filter(None, (_not_finite(v, k) for k, v in pairs)), None)
    if isinstance(value, (list, tuple)):
        found = (_not_finite(v, f"{name}[{i}]") for i, v in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(value, (float, np.floating)):
        return None if math.isfinite(value) else (name or "the prediction")
    if isinstance(value, np.ndarray):
        return _not_finite(value.tolist(), name)
    if hasattr(value, "model_dump"):
        return _not_finite(value.model_dump(), name)
    if is_dataclass(value) and not isinstance(value, type):
        return _not_finite({f.name: getattr(value, f.name) for f in fields(value)}, name)
    return _not_finite(value.value, name) if isinstance(value, enum.Enum) else None


def _plain(pa: Any, kind: Any) -> bool:
    """Whether Polars writes a column of this Arrow type just as ``orjson`` would its values."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_float64(kind)
    )


def _has_not_finite(column: Any) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type):
        return False
    return not pc.all(pc.is_finite(column), min_count=0).as_py()


def _encode_labels(batch: Any) -> bytes | None:
    """Lines of a batch that is one column of labels (dictionary-encoded), each encoded once."""
    import pyarrow as pa

    if batch.num_columns != 1 or not isinstance(batch.column(0), pa.DictionaryArray):
        return None
    column = batch.column(0)
    if not _plain(pa, column.type) or column.null_count or column.dictionary.null_count:
        return None
    name = batch.schema.names[0]
    labels = [_dumps({name: label}) + b"\n" for label in column.dictionary.to_pylist()]
    lines = pa.array(labels, pa.large_binary()).take(column.indices)
    ends = np.frombuffer(lines.buffers()[1], np.int64)
    return memoryview(lines.buffers()[2])[ends[0] : ends[len(lines)]]  # type: ignore[return-value]
