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

from modelbeam.formats.jsonl import table
from modelbeam.formats.jsonl.values import careful, needs_care, plain_value, rows_of
from modelbeam.predicting.failures import Failure, moved, without_returns
from modelbeam.predicting.outcome import Outcome


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


_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def _dumps(value: dict[str, Any]) -> bytes:
    if needs_care(value.values()):
        value = careful(value)
    return orjson.dumps(value, plain_value, _OPTIONS)


def _dumps_all(predictions: Sequence[dict[str, Any]]) -> list[bytes] | bytes | None:
    """All predictions as lines, joined if that was for nothing; ``None`` if one has a problem."""
    try:
        array = orjson.dumps(predictions)[1:-1]
    except (TypeError, RecursionError):
        try:
            if any(needs_care(prediction.values()) for prediction in predictions):
                predictions = [careful(prediction) for prediction in predictions]
            array = orjson.dumps(predictions, plain_value, orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        except (TypeError, ValueError, RecursionError):
            return None
    if b"null" in array and any(map(_not_finite, predictions)):
        return None
    if array.count(b"},{") == len(predictions) - 1:  # then these are all between two predictions
        return array.replace(b"},{", b"}\n{") + b"\n"
    return list(map(_dumps, predictions))


def encode_table(batch: Any, kept: Sequence[bytes] | None = None) -> Encoded:
    """Encode an Arrow batch or table as lines, as :func:`encode_records` would its rows.

    A column with a value that has no JSON at all is looked at row by row, so that only the records
    which have such a value fail.
    """
    chunked = hasattr(batch, "to_batches")
    batches = batch.combine_chunks().to_batches() if chunked else [batch]
    if len(batches) > 1:
        return _rows(batch.to_batches(), kept)
    for one in batches:
        try:
            data = table.encode(one, kept)
        except (ValueError, TypeError):
            break
        if data is not None:
            return Encoded(cast(bytes, data), one.num_rows, [])
    return _rows(batches, kept)


def plain_rows(outcome: Outcome) -> tuple[list[dict[str, Any]], list[int], list[Failure]]:
    """Predictions as dicts of what JSON has, for writers of other formats.

    Returns:
        The dicts, the index of each among the predictions, and a failure for each other one.
    """
    encoded = [
        encode_table(piece) if outcome.table else encode_records(piece)
        for piece in (outcome.values if outcome.table else [outcome.values])
    ]
    rows = [orjson.loads(line) for one in encoded for line in bytes(one.data).splitlines()]
    failures: list[Failure] = []
    at = 0
    for one in encoded:
        failures += [moved(f, range(at, at + f.row + 1)) for f in one.failures]
        at += one.lines + len(one.failures)
    lost = {failure.row for failure in failures}
    return rows, [row for row in range(at) if row not in lost], failures


def _rows(batches: Sequence[Any], kept: Sequence[bytes] | None) -> Encoded:
    """The same, row by row."""
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    good: list[int] = []
    at = 0
    for batch in batches:
        try:
            rows += rows_of(batch)
            good += range(at, at + batch.num_rows)
        except TypeError:
            for row in range(batch.num_rows):
                try:
                    rows += rows_of(batch.slice(row, 1))
                    good.append(at + row)
                except TypeError as error:
                    failures.append(Failure.of(at + row, "encode", error))
        at += batch.num_rows
    if kept is not None and failures:
        kept = [kept[row] for row in good]
    encoded = encode_records(rows, kept)
    failures += [moved(failure, good) for failure in encoded.failures]
    return Encoded(encoded.data, encoded.lines, failures)


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def selected(line: bytes, names: Sequence[str]) -> bytes:
    """The JSON object of some members of a record, their values as they were written.

    Args:
        line: the record's text, which is valid.
        names: the members, in the order of the result; those that it lacks are left out.
    """
    texts = member_texts(without_returns(line))
    chosen = [n for n in dict.fromkeys(names) if n in texts]
    return b"{" + b",".join(orjson.dumps(n) + b":" + texts[n] for n in chosen) + b"}"


def member_texts(record: bytes) -> dict[str, bytes]:
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
