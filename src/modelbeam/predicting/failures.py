"""One record that failed, and the line that it becomes in the errors file."""

from __future__ import annotations

import base64
import linecache
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from modelbeam.models.signature import hint
from modelbeam.text import as_utf8, describe

Stage = Literal["decode", "validate", "predict", "encode"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one record of a batch has no prediction.

    Attributes:
        row: the record's index in its batch (a line's index in its block).
        stage: what was being done: ``decode``, ``validate``, ``predict`` or ``encode``.
        type: the exception's class name.
        error: its message.
        frames: file, line and function of its traceback from the model's own code on, outermost
            first; the last few.
        model: the name of the model that failed, where a job has several.
    """

    row: int
    stage: Stage
    type: str
    error: str
    frames: tuple[tuple[str, int, str], ...] = ()
    model: str = ""

    @property
    def where(self) -> str:
        """The innermost line of the model's own code: ``housing/model.py:28 in predict``."""
        if not self.frames:
            return ""
        own = os.path.dirname(self.frames[0][0])
        inside = [
            f for f in self.frames if f[0].startswith(own) and _LIBRARIES not in f[0][len(own) :]
        ]
        file, line, function = inside[-1] if inside else self.frames[0]
        return f"{'/'.join(file.rsplit(os.sep, 2)[-2:])}:{line} in {function}"

    @classmethod
    def of(cls, row: int, stage: Stage, error: BaseException) -> Failure:
        """The failure that an exception is."""
        if stage == "predict" and is_schema_error(error):
            stage = "validate"
        text = describe(error)
        advice = hint(text) if stage == "validate" else None
        text = f"{text} ({advice})" if advice else text
        return cls(row, stage, type(error).__name__, text, _frames(error))


FRAMES = 8
"""Frames of a traceback that are kept."""

_LIBRARIES = f"{os.sep}site-packages{os.sep}"
_BETWEEN = re.compile(r"[/\\](pydantic(_core)?|ml_base)[/\\]|[/\\]schema\.py$")
"""Libraries that stand between us and a model's code; by themselves they tell a user nothing."""

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep


def _frames(error: BaseException) -> tuple[tuple[str, int, str], ...]:
    """The frames of the model's code and of what that called: all that are not modelbeam's."""
    found: list[tuple[str, int, str]] = []
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        between = not found and _BETWEEN.search(code.co_filename)
        if not between and not code.co_filename.startswith((_OURS, "<")):
            found.append((code.co_filename, frame.tb_lineno, code.co_name))
        frame = frame.tb_next
    return tuple(found if len(found) <= FRAMES else [found[0], *found[1 - FRAMES :]])


def traceback_of(failure: Failure) -> str:
    """The frames as text, a line each with its source line if that can be read."""
    lines = []
    for file, line, function in failure.frames:
        source = linecache.getline(file, line).strip()
        lines.append(f"{file}:{line} in {function}" + (f": {source}" if source else ""))
    return as_utf8("\n".join(lines))


def moved(failure: Failure, rows: Sequence[int] | None) -> Failure:
    """The failure with its row in the outer numbering; ``None`` if that is the same."""
    return failure if rows is None else replace(failure, row=rows[failure.row])


def column_clash(row: int, column: str) -> Failure:
    """The failure of a prediction that would hide a column which is kept of the input."""
    message = f"column '{column}' is both kept and predicted; choose with --keep A,B"
    return Failure(row, "encode", "ColumnClashError", message)


class Place(Protocol):
    """Where a record is in its source; each kind of source has a named tuple of its own.

    The first number counts from 1; in a piece of a file it counts from the piece's beginning, until
    the output is published.
    """

    def _asdict(self) -> dict[str, Any]:
        """The members of an error line that say where it is."""


class Position(NamedTuple):
    """The place of a line: its number and the byte offset of its first byte in the file."""

    line: int
    offset: int


def is_schema_error(error: BaseException) -> bool:
    """Whether a model's exception says that the record does not fit its input schema."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return not names.isdisjoint({"MLModelSchemaValidationException", "SchemaError"}) or (
        type(error).__name__ == "ValidationError" and "pydantic" in type(error).__module__
    )


def error_line(
    source: str, place: Place, model: str, failure: Failure, original: Mapping[str, Any]
) -> bytes:
    """One line of the errors file, with its newline.

    Args:
        source: the file.
        place: where the record is in it.
        model: the model's name.
        failure: what went wrong.
        original: the members that hold the record; see :meth:`.batch.Batch.original`.
    """
    line: dict[str, Any] = {
        "source": as_utf8(source),
        **place._asdict(),
        "model": failure.model or model,
        "stage": failure.stage,
        "type": failure.type,
        "error": failure.error,
        **original,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def original_text(raw: bytes, parsed: bool) -> dict[str, Any]:
    """A record that was text, as the members of its error line.

    ``record`` is the original object, byte for byte, if it could be ``parsed``; else the original
    text; bytes that are not UTF-8 are base64 under ``record_base64``.
    """
    if parsed:
        return {"record": orjson.Fragment(without_returns(raw))}
    try:
        return {"record": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"record_base64": base64.b64encode(raw).decode("ascii")}


def without_returns(record: bytes) -> bytes:
    """The text of a valid record, where a carriage return can only be white space, without any."""
    return record.replace(b"\r", b" ")
