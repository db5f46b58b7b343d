"""logfmt for modelbeam: a record is a line of ``key=value`` pairs, https://brandur.org/logfmt."""

from __future__ import annotations

import json
import re
from typing import Any, BinaryIO

from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.encode import plain_rows
from modelbeam.formats.layout import Layout
from modelbeam.formats.lines import LineBlock, LinesBatch, LinesFormat
from modelbeam.predicting.batch import Batch, Decoded, Keep
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome

_PAIR = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')


class Logfmt(LinesFormat):
    """Lines of ``key=value``; a value that reads as a JSON number, true, false or null is one."""

    name = "logfmt"

    def batch(self, block: LineBlock, keep: Keep = ()) -> Batch:  # noqa: ARG002
        """The records of a block of lines."""
        return LogfmtBatch(block)

    def writer(self, handle: BinaryIO, layout: Layout | None = None, part: int = 0) -> Writer:  # noqa: ARG002
        """Write such lines."""
        return LogfmtWriter(handle)


class LogfmtBatch(LinesBatch):
    """Some lines as records."""

    def records(self) -> Decoded:
        """The records; a line that is no pairs fails, a blank one is no record."""
        records, rows, failures = [], [], []
        for row, line in enumerate(self.block.lines):
            if not line.strip():
                continue
            try:
                records.append(_parsed(line.decode("utf-8").strip()))
                rows.append(row)
            except ValueError as error:
                failures.append(Failure.of(row, "decode", error))
        return Decoded(records, rows, failures)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The record, or the line if it could not be read."""
        if not parsed:
            return super().original(row, parsed)
        return {"record": _parsed(self.block.raw(row).decode("utf-8").strip())}


class LogfmtWriter(Writer):
    """A line a prediction, after the pairs that are kept of its record."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def write(self, outcome: Outcome) -> list[Failure]:
        """Write the predictions; those that have no text are failures."""
        predictions, rows, failures = plain_rows(outcome)
        if outcome.kept is not None:
            kept = outcome.kept.take(rows).dicts()
            predictions = [{**k, **p} for k, p in zip(kept, predictions, strict=True)]
        for prediction in predictions:
            line = " ".join(f"{key}={_written(value)}" for key, value in prediction.items())
            self._handle.write(line.encode("utf-8") + b"\n")
        self.rows += len(predictions)
        return failures

    def close(self) -> None:
        """Nothing belongs at the end."""


def _parsed(line: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    at = 0
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None:
            raise ValueError(f"no key=value at column {at + 1}")
        key, text = pair.groups()
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        record[key] = value if not isinstance(value, (dict, list)) else text
        at = pair.end()
    return record


def _written(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r'[^\s="]+', value):
        return value
    return json.dumps(value, ensure_ascii=False)
