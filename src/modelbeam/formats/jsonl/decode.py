"""Lines into dicts by ``orjson``, the reference for what is valid."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from modelbeam.formats.lines import LineBlock
from modelbeam.predicting.batch import Decoded
from modelbeam.predicting.failures import Failure


def decode_records(block: LineBlock, only: list[int] | None = None) -> Decoded:
    """Decode lines into dicts; blank lines are none, the last of duplicate keys wins.

    Args:
        block: the lines.
        only: which of them; ``None`` for all.
    """
    if only is None:
        found = _at_once(block)
        if found is not None:
            return Decoded(found, None, [])
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


_BRACE, _NEWLINE, _COMMA = b"{\n,"


def _at_once(block: LineBlock) -> list[Any] | None:
    """The records of lines that each hold one flat object, parsed as one array.

    It is certain if the text has as many braces as lines, one at the beginning of each, and the
    array as many objects: each of these begins with a brace, so each brace begins one, and what
    began in a line has ended before the next.
    """
    count = block.count
    text = bytearray(len(block.data) + 2)
    text[1:-1] = block.data
    inside = np.frombuffer(text, np.uint8)
    braces = np.flatnonzero(inside == _BRACE)
    if len(braces) != count or not count or braces[0] != 1:
        return None
    before = braces[1:] - 1
    if not (inside[before] == _NEWLINE).all():
        return None
    inside[before] = _COMMA
    text[0], text[-1] = b"[]"
    try:
        records: list[Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return records if len(records) == count and set(map(type, records)) == {dict} else None


def _json_problem(error: orjson.JSONDecodeError) -> str:
    if "UTF-8" in error.msg and "surrogates" in error.msg:
        return "the line is not valid UTF-8"
    return f"{error.msg} (column {error.colno})"


def _not_an_object(value: Any) -> str:
    words = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return f"a record is a JSON object; this line holds {words.get(type(value), 'a number')}"
