"""One record that failed, and the line that it becomes in the errors file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

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
    """

    row: int
    stage: Stage
    type: str
    error: str

    @classmethod
    def of(cls, row: int, stage: Stage, error: BaseException) -> Failure:
        """The failure that an exception is."""
        if stage == "predict" and is_schema_error(error):
            stage = "validate"
        return cls(row, stage, type(error).__name__, describe(error))


def column_clash(row: int, column: str) -> Failure:
    """The failure of a prediction that would hide a column which is kept of the input."""
    message = f"column '{column}' is both kept and predicted; choose with --keep A,B"
    return Failure(row, "encode", "ColumnClashError", message)


class Position(NamedTuple):
    """Where a record is: its line from 1 (in the split until it is published) and byte offset."""

    line: int
    offset: int


def is_schema_error(error: BaseException) -> bool:
    """Whether a model's exception says that the record does not fit its input schema."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return not names.isdisjoint({"MLModelSchemaValidationException", "SchemaError"}) or (
        type(error).__name__ == "ValidationError" and "pydantic" in type(error).__module__
    )


def error_line(
    source: str, position: Position, model: str, failure: Failure, raw: bytes, **extra: Any
) -> bytes:
    """One line of the errors file, with its newline.

    ``record`` is the original object, byte for byte, wherever the text could be parsed; else the
    original text; bytes that are not UTF-8 are base64 under ``record_base64``.
    """
    line: dict[str, Any] = {
        "source": as_utf8(source),
        "line": position.line,
        "offset": position.offset,
        "model": model,
        "stage": failure.stage,
        "type": failure.type,
        "error": failure.error,
        **extra,
    }
    if failure.stage != "decode":
        line["record"] = orjson.Fragment(without_returns(raw))
    else:
        try:
            line["record"] = raw.decode("utf-8")
        except UnicodeDecodeError:
            line["record_base64"] = base64.b64encode(raw).decode("ascii")
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def without_returns(record: bytes) -> bytes:
    """The text of a valid record, where a carriage return can only be white space, without any."""
    return record.replace(b"\r", b" ")
