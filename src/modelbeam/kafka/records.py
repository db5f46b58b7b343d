"""Predictions and failures as messages."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from modelbeam.formats.jsonl.writer import LinesWriter
from modelbeam.kafka.batch import MessageBatch
from modelbeam.kafka.cluster import Limits
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.failures import Failure, error_line, moved
from modelbeam.predicting.outcome import Outcome

Headers = list[tuple[str, bytes | None]]

PREFIX = "modelbeam."
"""What the names of our headers begin with."""

LONGEST_TEXT = 4096
"""Bytes of an error's message in a header; the beginning of a longer one is kept."""

OVERHEAD = 256
"""Bytes of a message's frame and batch, at most, beside key, value and headers."""

_NO_TIME = 0
"""Of ``confluent_kafka``: the message has no time stamp."""


class Message(NamedTuple):
    """What is produced.

    Attributes:
        timestamp: in milliseconds since the epoch; 0 for now.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


class TooLargeError(ValueError):
    """A message is larger than its topic takes."""


class Maker:
    """Makes messages of what became of a batch.

    Args:
        model: what it says of itself.
        predictions, errors: what the topics take.
        form: whether an error's value is the original one, or an error line as in files.
        source: the input's URL, for error lines.
    """

    def __init__(
        self,
        model: ModelInfo,
        predictions: Limits,
        errors: Limits,
        form: Literal["original", "json"],
        source: str,
    ) -> None:
        self._name = model.name
        self._predictions, self._errors = predictions, errors
        self._form, self._source = form, source
        self._model = model_headers(model)

    def made(
        self, batch: MessageBatch, outcome: Outcome
    ) -> tuple[list[Message], list[tuple[Failure, Message]]]:
        """All messages of a batch: predictions, and failures with the error records.

        What cannot be written as JSON, or is larger than its topic takes, is a failure.
        """
        lines = io.BytesIO()
        unwritten = LinesWriter(lines).write(outcome)
        failures = outcome.failures + [moved(failure, outcome.rows) for failure in unwritten]
        values = lines.getvalue().split(b"\n")[:-1]
        predictions = []
        for row, value in zip(_written(outcome, unwritten, len(values)), values, strict=True):
            try:
                predictions.append(self._prediction(batch.messages[row], value))
            except TooLargeError as error:
                failures.append(Failure(row, "encode", "MessageTooLargeError", str(error)))
        failures.sort(key=lambda failure: failure.row)
        return predictions, [(failure, self._error(batch, failure)) for failure in failures]

    def _prediction(self, message: Any, value: bytes) -> Message:
        place = f"{message.topic()}/{message.partition()}/{message.offset()}".encode()
        own: Headers = [*self._model, (PREFIX + "source", place)]
        when, more = _time(message, self._predictions)
        headers: Headers = [*(message.headers() or ()), *own, *more]
        made = Message(message.key(), value, headers, when)
        if size_of(made) > self._predictions.largest:
            raise TooLargeError(
                f"the prediction makes a message of {size_of(made)} bytes, and its topic takes "
                f"{self._predictions.largest} (max.message.bytes)"
            )
        return made

    def _error(self, batch: MessageBatch, failure: Failure) -> Message:
        message = batch.messages[failure.row]
        own: Headers = [
            (PREFIX + "error.stage", failure.stage.encode()),
            (PREFIX + "error.type", failure.type.encode("utf-8", "replace")),
            (PREFIX + "error.message", cut(failure.error)),
            (PREFIX + "topic", message.topic().encode()),
            (PREFIX + "partition", b"%d" % message.partition()),
            (PREFIX + "offset", b"%d" % message.offset()),
            *self._model,
        ]
        when, more = _time(message, self._errors)
        value = message.value()
        if self._form == "json":
            place = batch.position(failure.row)
            original = batch.original(failure.row, parsed=failure.stage != "decode")
            value = error_line(self._source, place, self._name, failure, original)[:-1]
        headers: Headers = [*(message.headers() or ()), *own, *more]
        return shortened(
            Message(message.key(), value, headers, when), [*own, *more], self._errors.largest
        )


def model_headers(model: ModelInfo) -> Headers:
    """Which model it was."""
    headers: Headers = [
        (PREFIX + "model", model.name.encode()),
        (PREFIX + "model.version", model.version.encode()),
    ]
    if model.fingerprint:
        headers.append((PREFIX + "model.fingerprint", model.fingerprint.encode()))
    return headers


def _written(outcome: Outcome, unwritten: Sequence[Failure], lines: int) -> Iterator[int]:
    """The row of each line that was written."""
    lost = {failure.row for failure in unwritten}
    of_row = range(lines + len(lost)) if outcome.rows is None else outcome.rows
    return (row for at, row in enumerate(of_row) if at not in lost)


def cut(text: str) -> bytes:
    """A text as a header has it."""
    return text.encode("utf-8", "replace")[:LONGEST_TEXT]


def size_of(message: Message) -> int:
    """Bytes that a message takes in a batch of its own, at most, without compression."""
    headers = sum(len(name) + len(value or b"") + 12 for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers + OVERHEAD


def _time(message: Any, limits: Limits) -> tuple[int, Headers]:
    """The input's time, or now with a header that has it if the topic would not take it."""
    kind, when = message.timestamp()
    if kind == _NO_TIME or when < 0:
        return 0, []
    if limits.before is None and limits.after is None:
        return when, []
    late = int(time.time() * 1000) - when
    too_old = limits.before is not None and late > limits.before
    too_new = limits.after is not None and -late > limits.after
    return (0, [(PREFIX + "timestamp", b"%d" % when)]) if too_old or too_new else (when, [])


def shortened(message: Message, own: Headers, largest: int) -> Message:
    """An error record that its topic takes: key and headers are kept as long as there is room."""
    over = size_of(message) - largest
    if over <= 0:
        return message
    if message.value:
        whole = len(message.value)
        left = max(0, whole - over - 64)
        note: Headers = [(PREFIX + "value.cut", b"%d of %d bytes" % (left, whole))]
        message = message._replace(value=message.value[:left], headers=[*message.headers, *note])
    if size_of(message) > largest:  # the sender's own headers
        cut: Headers = [(PREFIX + "headers.cut", b"those of the input are left out")]
        message = message._replace(headers=[*own, *cut])
    if size_of(message) > largest:
        key = len(message.key or b"")
        note = [(PREFIX + "key.cut", b"it has %d bytes" % key)]
        message = message._replace(key=None, headers=[*message.headers, *note])
    return message
