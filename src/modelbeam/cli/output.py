"""What goes to stdout, and tracebacks."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from modelbeam import streams
from modelbeam.text import fold, printable

unwritable: OSError | None = None
"""Why stdout could not be written, if it could not."""


def print_json(value: dict[str, Any], indent: int | None = None) -> None:
    """Print one object."""
    import json

    say(json.dumps(value, indent=indent))


def say(text: str, hang: int | None = None) -> None:
    """Print to stdout; if what reads it has ended, as with ``| head``, there is no more to say.

    Args:
        text: a line or several.
        hang: on a terminal, lines that are too long for it go on after so many spaces; ``None``
            leaves them to the terminal.
    """
    global unwritable
    if hang is not None:
        width = streams.width(sys.stdout)
        text = "\n".join(fold(line, width, hang) for line in text.splitlines())
    try:
        print(text)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        unwritable = error


def tell(text: str) -> None:
    """Print a message of one or more lines to stderr; on a terminal, words are not broken."""
    width = streams.width(sys.stderr)
    for line in printable(text).split("\n"):
        indent = len(line) - len(line.lstrip())
        print(fold(line, width, indent + 2 if indent else 0), file=sys.stderr)


def show(flags: argparse.Namespace, content: dict[str, Any], said: str) -> int:
    """Say what a command came to, as its flags want it; returns the exit code."""
    if flags.json:
        print_json(content)
    if not flags.quiet:
        tell(said)
    return 0


def print_traceback(error: Exception) -> None:
    """Print a traceback to stderr; of an exception of another process the one from there."""
    import traceback

    details = getattr(error, "details", None)
    text = details or "".join(traceback.format_exception(error))
    for line in text.splitlines():
        print(printable(line), file=sys.stderr)
