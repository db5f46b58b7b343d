"""What a failure on a worker comes to: from the engine's traces to one paragraph.

A worker's exception reaches the submitting process as text only: inside a Python trace, inside a
Java trace, quoted by one engine and cut by another. What modelbeam raises on a worker therefore
carries itself along in one word that survives this (``[modelbeam:…]``, JSON in URL-safe base64);
all other failures are read off the trace as well as it goes.
"""

from __future__ import annotations

import base64
import json
import re

from modelbeam import errors
from modelbeam.errors import JobError, ModelbeamError

_MARK = re.compile(r"\[modelbeam:([A-Za-z0-9_=-]+)\]")

_PYTHON_ERROR = re.compile(r"^(?:[a-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b.*$")
"""The last line of a Python trace: the exception's type, perhaps dotted, and its message."""

_JAVA_ERROR = re.compile(r"^(?:Caused by: )?((?:[a-z_]\w*\.)+[A-Z][\w$]*)(?:: (.*))?$")

_WORKER_LOST = (
    "TaskManager",
    "SDK harness",
    "connection lost",
    "Lost connection",
    "UNAVAILABLE",
    "Connection refused",
    "ExecutorLostFailure",
    "call already cancelled",
    "CANCELLED",
    "half-closed",
)

_HUNG_UP = "Channel closed prematurely"
"""The same, as the Python of Beam's own job service says it."""

MAX_LENGTH = 1200
"""Characters of a message that a person is shown."""


def encode(error: ModelbeamError) -> str:
    """The message with which a worker raises ``error``; :func:`decode` finds it in any trace."""
    content = json.dumps([type(error).__name__, str(error)]).encode()
    return f"{error} [modelbeam:{base64.urlsafe_b64encode(content).decode()}]"


def decode(text: str) -> ModelbeamError | None:
    """The first of our own errors that an engine's text carries."""
    for found in _MARK.finditer(text):
        try:
            name, message = json.loads(base64.urlsafe_b64decode(found[1]))
        except ValueError:  # cut short
            continue
        kind = getattr(errors, name, JobError)
        ours = isinstance(kind, type) and issubclass(kind, ModelbeamError)
        return kind(message) if ours else JobError(message)
    return None


def paragraph(text: str) -> str:
    """One sentence of an engine's text: the exception at its root, without the stack."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines()]
    ours = _last_python_error(lines)
    java = [match for line in lines if (match := _JAVA_ERROR.match(line)) and match[2]]
    root = ours or (f"{java[-1][1].rsplit('.', 1)[-1]}: {java[-1][2]}" if java else "")
    root = root or next((line for line in lines if line), "it gave no reason")
    if re.search(r"\bdocker\b", root):
        return (
            "the workers run in Docker unless told otherwise, and Docker did not start one. Start "
            "Docker there, or say where the workers are with --environment_type=EXTERNAL or "
            "PROCESS and --environment_config"
        )
    if "No client connected within timeout" in root or "No module named 'modelbeam" in root:
        return (
            "no worker could begin: it does not start, or does not have modelbeam. If it has, its "
            "own log says why; if not, leave out --no-packages, so that modelbeam is sent, or "
            "install it where the workers run"
        )
    lost = not ours and any(sign.lower() in text.lower() for sign in _WORKER_LOST)
    if lost or _HUNG_UP in ours:
        root = f"a worker was lost ({root})"
    root = root.rstrip(". ")
    return root if len(root) <= MAX_LENGTH else root[: MAX_LENGTH - 3] + "..."


def _last_python_error(lines: list[str]) -> str:
    """The last line of the first Python trace; ``[while running 'step']`` is no news to a user."""
    for start, line in enumerate(lines):
        if line.endswith("Traceback (most recent call last):"):
            for later in lines[start + 1 :]:
                if _PYTHON_ERROR.match(later):
                    return re.sub(r" \[while running .*?\]$", "", later)
    return ""
