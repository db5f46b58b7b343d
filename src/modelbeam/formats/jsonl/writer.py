"""Predictions as a file of lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.encode import encode_records, encode_table
from modelbeam.formats.lines import count_lines
from modelbeam.predicting.failures import Failure, moved
from modelbeam.predicting.outcome import Outcome
from modelbeam.storage import write_all


class LinesWriter(Writer):
    """Writes each prediction as a line, after what is kept of its record.

    Args:
        handle: where to.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def write(self, outcome: Outcome) -> list[Failure]:
        """Encode and write the predictions of a batch."""
        encode: Any = encode_table if outcome.table else encode_records
        kept = outcome.kept.texts() if outcome.kept is not None else None
        failures: list[Failure] = []
        at = 0
        for piece in outcome.values if outcome.table else [outcome.values]:
            rows: Sequence[int] = range(at, at + len(piece))
            encoded = encode(piece, None if kept is None else kept[at : at + len(piece)])
            failures += [moved(failure, rows) for failure in encoded.failures]
            if encoded.data:
                self.rows += count_lines(encoded.data)
                self.put(encoded.data)
            at += len(piece)
        return failures

    def put(self, lines: Any) -> None:
        """Write whole lines."""
        write_all(self._handle, lines)

    def close(self) -> None:
        """Nothing belongs at the end."""


class ShortLinesWriter(LinesWriter):
    """Writes lines that are no longer than so many bytes; a longer one fails.

    Args:
        handle: where to.
        largest: bytes that a line may have, without its end.
    """

    def __init__(self, handle: BinaryIO, largest: int) -> None:
        super().__init__(handle)
        self._largest = largest

    def write(self, outcome: Outcome) -> list[Failure]:
        """Encode a batch, and write the lines that are short enough."""
        made = io.BytesIO()
        failures = LinesWriter(made).write(outcome)
        lines = made.getvalue().split(b"\n")[:-1]
        lost = {failure.row for failure in failures}
        rows = (row for row in range(len(lines) + len(lost)) if row not in lost)
        good: list[bytes] = []
        for row, line in zip(rows, lines, strict=True):
            if len(line) <= self._largest:
                good.append(line)
                continue
            why = (
                f"the prediction has {len(line)} bytes, and its topic takes {self._largest} beside "
                f"its headers (max.message.bytes)"
            )
            failures.append(Failure(row, "encode", "MessageTooLargeError", why))
        if good:
            self.rows += len(good)
            self.put(b"\n".join([*good, b""]))
        return failures
