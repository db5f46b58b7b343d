"""What a split made of files wrote, as messages: predictions a line each, and error lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson

from modelbeam import storage
from modelbeam.kafka.cluster import Limits
from modelbeam.kafka.records import PREFIX, Headers, Message, cut, model_headers, shortened, size_of
from modelbeam.models.base import ModelInfo

_RECORD = b',"record":'
"""What stands before the record in an error line, and nowhere before it: in a text of JSON a quote
has a backslash, and the members before it are all texts and numbers."""

_BLOCK = 1 << 20


class LinesMaker:
    """Makes messages of lines.

    Args:
        info: of the model.
        predictions, errors: what the topics take.
        form: whether an error's value is the original record, or the error line.
    """

    def __init__(
        self,
        info: ModelInfo,
        predictions: Limits,
        errors: Limits,
        form: Literal["original", "json"],
    ) -> None:
        self._errors, self._form = errors, form
        self._model = model_headers(info)
        self.largest = predictions.largest - size_of(Message(None, None, self._model, 0))
        """Bytes that a prediction may have."""

    def predictions(self, path: str) -> Iterator[Message]:
        """The messages of a file of predictions."""
        for line in _lines(path):
            yield Message(None, line, self._model, 0)

    def errors(self, path: str, first: int) -> Iterator[Message]:
        """The messages of a file of error lines.

        Args:
            path: the file.
            first: how many lines or rows of the input are before those of the split.
        """
        for line in _lines(path):
            yield self._error(line, first)

    def _error(self, line: bytes, first: int) -> Message:
        said = orjson.loads(line)
        number = next((name for name in ("line", "row") if name in said), None)
        if number is not None and first:
            before, after = line.split(b'"%s":%d,' % (number.encode(), said[number]), 1)
            said[number] += first
            line = before + b'"%s":%d,' % (number.encode(), said[number]) + after
        own: Headers = [
            (PREFIX + "error.stage", said["stage"].encode()),
            (PREFIX + "error.type", said["type"].encode()),
            (PREFIX + "error.message", cut(said["error"])),
            (PREFIX + "source", said["source"].encode()),
            *((PREFIX + name, b"%d" % said[name]) for name in ("line", "row", "offset")
              if name in said),
            *self._model,
        ]  # fmt: skip
        value = line if self._form == "json" else _record(line, said)
        return shortened(Message(None, value, own, 0), own, self._errors.largest)


def _record(line: bytes, said: dict[str, Any]) -> bytes:
    """The record that failed: a text as it is, an object as it stands in the error line."""
    import base64

    if "record_base64" in said:
        return base64.b64decode(said["record_base64"])
    record = said.get("record")
    if isinstance(record, str):
        return record.encode()
    return line[line.index(_RECORD) + len(_RECORD) : -1]


def _lines(path: str) -> Iterator[bytes]:
    rest = b""
    with storage.open_read(path) as handle:
        while block := handle.read(_BLOCK):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            yield from lines
