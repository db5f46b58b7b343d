"""Counts, sizes, durations and messages for people."""

from __future__ import annotations

import re
import textwrap

NARROWEST = 20
"""Characters in which words are still put into lines."""


def fold(line: str, width: int | None, hang: int = 0) -> str:
    """A line as several that a terminal can show, broken between words.

    A word that is longer, such as a path, stays whole; the terminal breaks it.

    Args:
        line: without a newline.
        width: of the terminal; ``None`` where there is none, and nothing is to be changed.
        hang: spaces before all lines but the first.
    """
    if width is None or len(line) <= width:
        return line
    hang = hang if width - hang >= NARROWEST else 2
    lines = textwrap.wrap(
        line,
        max(width, NARROWEST),
        subsequent_indent=" " * hang,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or line


def count(number: int, noun: str) -> str:
    """``1 file``, ``2,000 files``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def size(number: float) -> str:
    """Bytes for people: ``415 MB`` (1024-based)."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """``9 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


LONGEST_MESSAGE = 2000
"""Characters of an exception's message that an error line keeps."""


def describe(error: BaseException) -> str:
    """An exception's own words, or its class name if it has none."""
    try:
        text = str(error)
    except Exception:
        text = ""
    text = as_utf8(text or type(error).__name__)
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + " …"


def as_utf8(text: str) -> str:
    """The text with lone surrogates (of a path that is not UTF-8) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that turn the direction of writing around."""


def printable(text: str) -> str:
    """The text for a terminal: names of files and values of records do not steer it."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", as_utf8(text))
