"""What goes to stdout, and tracebacks."""

from __future__ import annotations

import os
import sys
from typing import Any

from modelbeam.text import printable

unwritable: OSError | None = None
"""Why stdout could not be written, if it could not."""


def print_json(value: dict[str, Any]) -> None:
    """Print one object."""
    import json

    say(json.dumps(value))


def say(text: str) -> None:
    """Print to stdout; if what reads it has ended, as with ``| head``, there is no more to say."""
    global unwritable
    try:
        print(text)
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        unwritable = error


def print_traceback(error: Exception) -> None:
    """Print a traceback to stderr; of an exception of another process the one from there."""
    import traceback

    details = getattr(error, "details", None)
    text = details or "".join(traceback.format_exception(error))
    for line in text.splitlines():
        print(printable(line), file=sys.stderr)
