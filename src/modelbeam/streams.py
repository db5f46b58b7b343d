"""The standard streams of a process, whatever they were when it was started."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


def prepare() -> None:
    """Have all three standard streams there, and let no trouble with stderr end anything.

    A stream that was closed is ``/dev/null`` from here on, so that no file of ours is opened under
    its number. What cannot be written to stderr (a full disk, a pipe whose reader is gone) is
    dropped: a run is worth more than what is said of it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if not isinstance(sys.stderr, Patient):
        sys.stderr = Patient(sys.stderr)


def draws(stream: Any) -> bool:
    """Whether a stream is a terminal on which a line can be drawn over."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") not in ("dumb", "unknown")
    except (AttributeError, ValueError):
        return False


def width(stream: Any) -> int | None:
    """How many characters a line of a terminal has; ``None`` where the stream is no terminal."""
    try:
        if not stream.isatty():
            return None
        asked = os.environ.get("COLUMNS", "")
        columns = int(asked) if asked.isdigit() else os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return None
    return columns or None


class Patient:
    """A text stream that drops what cannot be written.

    Args:
        stream: the real one.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or do as if."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or do as if."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
