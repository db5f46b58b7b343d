"""Where records end: a line's end inside quotes ends none.

A quote opens a quoted field only where a field begins; elsewhere it is a plain character. Inside, a
doubled quote is a quote, and another one closes the field (RFC 4180). So whether a line's end is
inside quotes follows from all that comes before it, and data is always looked at from the beginning
of a record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

QUOTE = 0x22
RETURN = 0x0D


class Ends(NamedTuple):
    """Where the records of some data end.

    Attributes:
        ends: the places after the end of each whole record.
        plain: whether every quote is where it should be, so that any reader of CSV understands the
            data alike.
        quoted: whether there are quotes at all.
    """

    ends: Any
    plain: bool
    quoted: bool


def record_ends(data: bytes, delimiter: int, newline: int) -> Ends:
    """Find the ends of records in data that begins with a record.

    Args:
        data: what follows the last end is no whole record, or the last one of its file.
        delimiter, newline: the bytes that separate fields and end lines.
    """
    array = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(array == newline)
    if b'"' not in data:
        return Ends(newlines + 1, True, False)
    quotes = np.flatnonzero(array == QUOTE)
    opening, closing = quotes[0::2], quotes[1::2]
    before = array[opening - 1]
    begins = (before == delimiter) | (before == newline) | (before == QUOTE)
    if begins[1:].all() and (begins[0] or opening[0] == 0):
        # then quotes open and close, or are doubled, by turns
        odd = np.searchsorted(quotes, newlines) & 1
        return Ends(newlines[odd == 0] + 1, _closed(array, closing, delimiter, newline), True)
    opened, closed = _quoted(data, quotes.tolist(), delimiter, newline)
    earlier = np.searchsorted(opened, newlines) - 1
    inside = (earlier >= 0) & (np.append(closed, -1)[earlier] > newlines)
    return Ends(newlines[~inside] + 1, False, True)


def _closed(array: Any, closing: Any, delimiter: int, newline: int) -> bool:
    """Whether a field ends after each closing quote."""
    inner = closing[closing < len(array) - 1]
    after = array[inner + 1]
    ends = (after == delimiter) | (after == newline) | (after == QUOTE)
    returns = inner[after == RETURN]
    follows = array[np.minimum(returns + 2, len(array) - 1)]
    ends[after == RETURN] = (follows == newline) | (returns + 2 >= len(array))
    return bool(ends.all())


def _quoted(data: bytes, quotes: list[int], delimiter: int, newline: int) -> tuple[Any, Any]:
    """Where quoted fields open and close, one quote after the other."""
    opened, closed = [], []
    inside, doubled = False, -1
    for at in quotes:
        if not inside:
            if at == 0 or data[at - 1] in (delimiter, newline):
                inside = True
                opened.append(at)
        elif at != doubled:
            if data[at + 1 : at + 2] == b'"':
                doubled = at + 1
            else:
                inside = False
                closed.append(at)
    if inside:
        closed.append(len(data))
    return np.array(opened, np.int64), np.array(closed, np.int64)


def skim(chunks: Iterable[bytes], delimiter: int, newline: int) -> tuple[int, int, int, bytes]:
    """Read on to the end of a record that is too long to be held.

    Args:
        chunks: its bytes, and those that follow, from its beginning.
        delimiter, newline: the bytes that separate fields and end lines.

    Returns:
        Its length without and with its line's end, how many lines it has, and what of the last
        chunk follows it.
    """
    length = lines = 0
    begins, inside = True, False
    pending = False  # a quote inside quotes, whose next byte is not known yet
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            if pending:
                pending = False
                if chunk[at] == QUOTE:
                    at += 1
                    continue
                inside, begins = False, False
            if inside:
                quote = chunk.find(b'"', at)
                stop = len(chunk) if quote < 0 else quote + 1
                lines += chunk.count(newline, at, stop)
                pending = quote >= 0
                at = stop
                continue
            if begins and chunk[at] == QUOTE:
                inside, begins = True, False
                at += 1
                continue
            ends = [chunk.find(byte, at) for byte in (delimiter, newline)]
            stop = min((end for end in ends if end >= 0), default=-1)
            if stop < 0:
                begins = False
                at = len(chunk)
            elif chunk[stop] == newline:
                return length + stop, length + stop + 1, lines + 1, chunk[stop + 1 :]
            else:
                begins = True
                at = stop + 1
        length += len(chunk)
    return length, length, lines + 1, b""
