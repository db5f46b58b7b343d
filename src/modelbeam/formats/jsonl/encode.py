"""Predictions, and what is kept of the input, as lines."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import orjson

from modelbeam.predicting.failures import Failure, without_returns


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
        return value.model_dump(mode="json", by_alias=True)
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
