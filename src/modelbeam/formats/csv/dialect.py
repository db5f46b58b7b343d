"""How a CSV file is written, found out from its beginning where that is certain."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import BinaryIO

from modelbeam.formats.csv.fields import CsvError, split
from modelbeam.formats.csv.records import record_ends
from modelbeam.formats.named import names_problem
from modelbeam.formats.reading import Reading

DELIMITERS = ",;\t|"
HEAD = 64 << 10
LONGEST_HEADER = 16 << 20
LOOKED_AT = 50
"""Records that are looked at to find the delimiter."""

_BOM = codecs.BOM_UTF8


class DialectError(ValueError):
    """The file is no CSV, or it is not certain how it is to be read; the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: between fields.
        newline: the byte that ends lines: a newline (with or without a return before it), or a
            return if there are no newlines.
        encoding: of the text.
        names: the columns, ``""`` for one without a name.
        empty: how many further fields a record may have, if nothing is in them.
        start: where the first record begins.
        lines: how many lines come before it.
        header: the header, as it stands in the file; empty if there is none.
    """

    delimiter: str
    newline: int
    encoding: str
    names: tuple[str, ...]
    empty: int
    start: int
    lines: int
    header: bytes = b""

    @property
    def separator(self) -> int:
        """The delimiter's byte."""
        return ord(self.delimiter)


def read_head(handle: BinaryIO) -> tuple[bytes, bool]:
    """The beginning of a file, with all of its header; and whether that is the whole file."""
    head = b""
    while len(head) < LONGEST_HEADER:
        more = handle.read(max(HEAD, len(head)))
        if not more:
            return head, True
        head += more
        newline = newline_of(head)
        body = head.removeprefix(_BOM).lstrip(b"\r\n")
        if all(len(record_ends(body, ord(d), newline).ends) for d in DELIMITERS):
            break
    return head, False


def newline_of(head: bytes) -> int:
    """The byte that ends lines: a return only if there is no newline."""
    return 0x0D if b"\r" in head and b"\n" not in head else 0x0A


def dialect_of(head: bytes, whole: bool, reading: Reading) -> Dialect | None:
    """How a file is written that begins like this; ``None`` if there is nothing in it.

    Args:
        head: its beginning.
        whole: whether that is all of it.
        reading: what was told.

    Raises:
        DialectError: it is not certain, or the header cannot be used.
    """
    encoding = reading.encoding or "utf-8"
    newline = newline_of(head)
    start = len(_BOM) if head.startswith(_BOM) else 0
    body = head[start:]
    blank = len(body) - len(body.lstrip(b"\r\n"))
    if reading.columns is None:  # the header is the first line that is not blank
        start += blank
        body = body[blank:]
    if not body.strip(b"\r\n"):
        return None
    delimiter = reading.delimiter or _delimiter(body, whole, newline, reading)
    if encoding != "utf-8":
        _check_delimiter(delimiter, encoding)
    if reading.columns is not None:
        return Dialect(delimiter, newline, encoding, reading.columns, 0, start, 0)
    ends = record_ends(body, ord(delimiter), newline).ends
    if not len(ends) and not whole:
        raise DialectError("has a header that does not end; a quote in it may never be closed")
    end = int(ends[0]) if len(ends) else len(body)
    raw = body[:end]
    try:
        names = [n or "" for n in split(_text(raw, encoding), delimiter)]
    except UnicodeDecodeError:
        raise DialectError(
            f"has a header that is not {encoding.upper()}; name its encoding (--encoding cp1252)"
        ) from None
    except CsvError as error:
        raise DialectError(f"has a header that is no CSV: {error}") from None
    named = list(names)
    while named and not named[-1]:
        named.pop()
    if not named:
        raise DialectError("has a header without a name; --columns A,B names the columns")
    if problem := names_problem(named, (), ()):
        raise DialectError(problem)
    lines = head.count(newline, 0, start + end)
    empty = len(names) - len(named)
    return Dialect(delimiter, newline, encoding, tuple(named), empty, start + end, lines, raw)


def _text(raw: bytes, encoding: str) -> str:
    return raw.rstrip(b"\n").rstrip(b"\r").decode(encoding)


def _delimiter(body: bytes, whole: bool, newline: int, reading: Reading) -> str:
    """What separates the fields, if only one character can."""
    wanted = len(reading.columns) if reading.columns else None
    counts: dict[str, list[int]] = {}
    for delimiter in DELIMITERS:
        ends = record_ends(body, ord(delimiter), newline).ends.tolist()
        if whole and (not ends or ends[-1] < len(body)):
            ends.append(len(body))
        starts = [0, *ends]
        found = []
        for begin, end in zip(starts, ends[:LOOKED_AT], strict=False):
            raw = body[begin:end].rstrip(b"\r\n")
            if not raw.strip():
                continue
            try:
                found.append(len(split(raw.decode("latin-1"), delimiter)))
            except CsvError:
                found.append(0)
        if found and found[0] == (wanted or max(found[0], 2)):
            counts[delimiter] = found
    alike = [d for d, found in counts.items() if set(found) == {found[0]}]
    likely = alike or list(counts)
    if wanted == 1 or not likely:
        return ","
    if len(likely) == 1:
        return likely[0]
    names = {"\t": "tab"}
    shown = " or ".join(f"'{names.get(d, d)}'" for d in likely)
    raise DialectError(f"may be separated by {shown}; say which with --delimiter")


def _check_delimiter(delimiter: str, encoding: str) -> None:
    """Refuse a separator whose byte may be the second half of a character."""
    for byte in range(128, 256):
        text = (bytes([byte]) + delimiter.encode()).decode(encoding, "replace")
        if not text.endswith(delimiter):
            raise DialectError(
                f"cannot be cut at '{delimiter}', which is a part of characters in {encoding}; "
                f"convert it: iconv -f {encoding} -t UTF-8"
            )
