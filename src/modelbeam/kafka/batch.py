"""Messages as the batch that models are given: each value is the text of a JSON object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from modelbeam.formats.jsonl.batch import JsonBatch
from modelbeam.formats.lines import LineBlock
from modelbeam.models.signature import Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept, composed
from modelbeam.predicting.failures import Failure, moved, original_text


class Offset(NamedTuple):
    """The place of a message."""

    topic: str
    partition: int
    offset: int


class MessageBatch(Batch):
    """Some messages.

    Their values are handed to the decoder of JSON Lines as one block. That a value is null, empty
    or too long, or has a line break where JSON does not allow one, is found out before.

    Args:
        messages: of ``confluent_kafka``, none of them an error.
        longest: bytes that a record may have.
        keep: columns that will be kept.
    """

    def __init__(self, messages: Sequence[Any], longest: int, keep: Keep = ()) -> None:
        self.messages = messages
        self._values: list[bytes | None] = [message.value() for message in messages]
        self._failures: list[Failure] = []
        rows: list[int] = []
        lines: list[bytes] = []
        for row, value in enumerate(self._values):
            line = self._line(row, value, longest)
            if line is not None:
                rows.append(row)
                lines.append(line)
        self._rows = rows if len(rows) < len(messages) else None
        self._inner_of = {row: at for at, row in enumerate(rows)} if self._failures else None
        self._lines = JsonBatch(LineBlock(b"\n".join(lines), 0, 0, len(lines), _lines=lines), keep)

    def _line(self, row: int, value: bytes | None, longest: int) -> bytes | None:
        """The value as one line, or ``None`` after noting why it cannot be one."""
        if value and b"\n" not in value and len(value) <= longest and not value.isspace():
            return value
        kind, why = _problem(value, longest)
        if kind:
            self._failures.append(Failure(row, "decode", kind, why))
            return None
        return (value or b"").replace(b"\n", b" ")  # in valid JSON it is white space

    def _outer(self, decoded: Decoded) -> Decoded:
        failures = [moved(failure, self._rows) for failure in decoded.failures]
        return Decoded(
            decoded.records, composed(self._rows, decoded.rows), self._failures + failures
        )

    def records(self) -> Decoded:
        """The records as dicts."""
        return self._outer(self._lines.records())

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns."""
        return self._outer(self._lines.table(signature, validate))

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Members of the values, their texts as they are."""
        if self._inner_of is not None:
            chosen = self._rows or [] if rows is None else rows
            rows = [self._inner_of[row] for row in chosen]
        return self._lines.keep(names, rows)

    def position(self, row: int) -> Offset:
        """Topic, partition and offset."""
        message = self.messages[row]
        return Offset(message.topic(), message.partition(), message.offset())

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The value."""
        value = self._values[row]
        if value is None:
            return {"record": None}
        return original_text(value.replace(b"\n", b" ") if parsed else value, parsed)


def _problem(value: bytes | None, longest: int) -> tuple[str, str]:
    """Why a value is no record, as the type and the text of an error; empty if it may be one."""
    if value is None:
        return "TombstoneError", "the message has no value (a tombstone)"
    if len(value) > longest:
        return (
            "RecordTooLongError",
            f"the value has {len(value)} bytes, more than --max-record-size ({longest})",
        )
    if not value or value.isspace():
        return "EmptyValueError", "the value of the message is empty"
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return "JSONDecodeError", str(error)
    return "", ""
