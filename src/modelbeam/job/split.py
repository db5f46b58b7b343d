"""One split from its first byte to its manifest: read, decode, predict, encode, write, commit."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from modelbeam.errors import OutputWriteError, ReconciliationError
from modelbeam.formats.base import Split
from modelbeam.formats.jsonl import columns as jsonl_columns
from modelbeam.formats.jsonl.decode import decode_records
from modelbeam.formats.jsonl.encode import Encoded, encode_records, encode_table, selected
from modelbeam.formats.jsonl.lines import BLOCK_BYTES, BlockReader, LineBlock, LongLine, count_lines
from modelbeam.job.task import Progress, Report, Task
from modelbeam.models.base import LoadedModel
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import (
    Failure,
    Position,
    column_clash,
    error_line,
    without_returns,
)
from modelbeam.predicting.predictor import predict
from modelbeam.sinks.files.attempt import Attempt
from modelbeam.sinks.files.manifest import Manifest

RECORD_BLOCK = 256 << 10
"""Bytes that a block of records one by one has at most: its dicts then stay in the cache, which
is worth a third of the time of a fast model."""

LARGEST_BLOCK = 64 << 20
"""Bytes that a block may have to hold a large ``--batch-size``."""


def predict_split(
    split: Split, task: Task, model: LoadedModel, report: Report | None = None
) -> Manifest:
    """Predict every record of a split and commit the result.

    Args:
        split: which part of which file.
        task: how.
        model: loaded and ready.
        report: called before each block with the progress so far.

    Returns:
        The manifest, which is on disk when this returns.

    Raises:
        JobError: the split cannot be done (input, output, counts); nothing of it is committed.
    """
    attempt = Attempt(task.state, split, task.output)
    try:
        counts, lines = _predict_into(attempt, split, task, model, report)
        return attempt.commit(task.fingerprint, counts, lines)
    except OSError as error:
        attempt.abandon()
        raise OutputWriteError(
            f"The output cannot be written: {error.strerror or error} "
            f"({error.filename or task.state}). Nothing was published. Make room or mend it, "
            f"then run the same command with --resume."
        ) from error
    except BaseException:
        attempt.abandon()
        raise


def _predict_into(
    attempt: Attempt, split: Split, task: Task, model: LoadedModel, report: Report | None
) -> tuple[Counts, int]:
    """Predict block by block; return the counts and how many lines the split owns."""
    counts = Counts()
    lines = 0
    reader = BlockReader(split, task.max_record_size, first_block_size(model.info.style))
    for block in reader:
        if report is not None:  # before the block: should the model kill the process, it is known
            done = 0 if split.compression else block.offset - split.start
            report(Progress(counts, done, block.offset))
        started = time.monotonic()
        if isinstance(block, LongLine):
            _reject_long_line(attempt, split, task, model, block, counts)
            lines = block.line + 1
        else:
            _predict_block(attempt, split, task, model, block, counts)
            lines = block.line + block.count
            reader.size = next_block_size(
                model.info.style, task.batch_size, block, reader.size, time.monotonic() - started
            )
    return counts, lines


def first_block_size(style: str) -> int:
    """Bytes of a split's first block."""
    return {"record": 64 << 10, "batch": 256 << 10, "table": BLOCK_BYTES}[style]


def next_block_size(
    style: str, batch_size: int | None, block: LineBlock, size: int, seconds: float
) -> int:
    """Bytes of the next block.

    Records one by one: as much as takes a quarter of a second or so, for the sake of progress and
    of knowing where a crash was. Batches: enough for ``batch_size`` records; never by time, since
    what a model makes of a record may depend, in the last digits, on the batch around it.
    """
    if style == "record":
        if seconds < 0.125:
            return min(size * 2, RECORD_BLOCK)
        return max(size // 2, 4 << 10) if seconds > 0.5 else size
    if batch_size is not None and block.count:
        wanted = batch_size * len(block.data) // block.count
        return min(max(wanted, first_block_size(style)), LARGEST_BLOCK)
    return size


def _predict_block(
    attempt: Attempt,
    split: Split,
    task: Task,
    model: LoadedModel,
    block: LineBlock,
    counts: Counts,
) -> None:
    outcome = predict_lines(block, task, model)
    failures = sorted(outcome.failures, key=lambda failure: failure.row)
    if outcome.read != outcome.predicted + len(failures):
        raise ReconciliationError(
            f"{split.path}, after byte {block.offset}: {outcome.read} records were read, "
            f"{outcome.predicted} predicted and {len(failures)} failed. This is a defect of "
            f"modelbeam; nothing was published. Please report it."
        )
    if outcome.data:
        attempt.write_predictions(outcome.data, count_lines(outcome.data))
    lines = []
    for failure in failures:
        position, raw = block.position(failure.row), block.raw(failure.row)
        lines.append(error_line(split.path, position, model.info.name, failure, raw))
        counts.add_failure(failure, position, split.path)
    if lines:
        attempt.write_errors(b"".join(lines))
    counts.predicted += outcome.predicted
    counts.read += outcome.read


def _reject_long_line(
    attempt: Attempt,
    split: Split,
    task: Task,
    model: LoadedModel,
    line: LongLine,
    counts: Counts,
) -> None:
    failure = Failure(
        0,
        "decode",
        "RecordTooLongError",
        f"the line has {line.length} bytes, more than --max-record-size "
        f"({task.max_record_size}); 'record' is its beginning",
    )
    position = Position(line.line + 1, line.offset)
    head = _whole_characters(line.head)
    text = error_line(
        split.path, position, model.info.name, failure, head, record_bytes=line.length
    )
    attempt.write_errors(text)
    counts.add_failure(failure, position, split.path)
    counts.read += 1


def _whole_characters(head: bytes) -> bytes:
    """The beginning of a text without the character that was cut in two at its end."""
    for cut in range(min(4, len(head))):
        try:
            return head[: len(head) - cut].decode("utf-8").encode()
        except UnicodeDecodeError:
            continue
    return head


@dataclass(slots=True)
class Outcome:
    """A block's encoded predictions, and a failure (its ``row`` a line) for every other record."""

    data: bytes
    read: int
    predicted: int
    failures: list[Failure]


def predict_lines(block: LineBlock, task: Task, model: LoadedModel) -> Outcome:
    """Decode, predict and encode one block of lines."""
    records, rows, failures = _decode(block, model)
    count = len(records)
    read = count + len(failures)
    if count == 0:
        return Outcome(b"", read, 0, failures)
    kept = _kept(block, rows, records, task.keep)
    made = predict(model, records, task.batch_size)
    failures = failures + [_moved(failure, rows) for failure in made.failures]
    if kept is not None and made.rows is not None:
        kept = [kept[row] for row in made.rows]
    encoded = _encode(made.values, kept, model.info.style == "table")
    lines = _composed(rows, made.rows)
    failures += [_moved(failure, lines) for failure in encoded.failures]
    return Outcome(encoded.data, read, encoded.lines, failures)


def _decode(block: LineBlock, model: LoadedModel) -> tuple[Any, list[int] | None, list[Failure]]:
    """Records as the model takes them, the line of each (``None``: every line), and failures."""
    if model.info.style != "table":
        return decode_records(block)
    signature = model.info.signature
    certain = None
    if signature is not None and signature.exact:
        certain = jsonl_columns.decode(block, signature)
    if certain is not None and not certain.doubtful:
        return certain.batch, certain.rows, []
    decoded = decode_records(block, certain.doubtful if certain else None)
    batch, fitting, failures = to_batch(decoded.records, signature, model.validate)
    rows = _composed(decoded.rows, fitting)
    failures = decoded.failures + [_moved(failure, decoded.rows) for failure in failures]
    if certain is not None:
        batch, rows = _merged(certain, batch, rows or [])
    return batch, rows, failures


def _merged(certain: jsonl_columns.Columns, batch: Any, rows: list[int]) -> tuple[Any, list[int]]:
    """The rows of two batches in the order of their lines."""
    if not rows:
        return certain.batch, certain.rows or []
    import pyarrow as pa

    lines = np.array([*(certain.rows or []), *rows])
    order = np.argsort(lines, kind="stable")
    both = pa.Table.from_batches([certain.batch, batch.cast(certain.batch.schema)])
    return both.take(order).combine_chunks().to_batches()[0], lines[order].tolist()


def _kept(
    block: LineBlock, rows: list[int] | None, records: Any, keep: str | tuple[str, ...]
) -> list[bytes] | None:
    """For each record the JSON object of the columns that go into the output, as its text."""
    if not keep:
        return None
    lines = block.lines if rows is None else [block.lines[row] for row in rows]
    if keep == "all":
        return [without_returns(line) for line in lines]
    dicts = records if isinstance(records, list) else map(orjson.loads, lines)
    return [selected(d, line, keep) for d, line in zip(dicts, lines, strict=True)]


def _encode(values: list[Any], kept: list[bytes] | None, tables: bool) -> Encoded:
    """Encode what the model made, in order; a prediction that would hide a kept column fails."""
    encode = encode_table if tables else encode_records
    parts: list[bytes] = []
    failures: list[Failure] = []
    lines = at = 0
    pieces: list[Any] = values if tables else [values]
    for piece in pieces:
        size = len(piece)
        rows: Sequence[int] = range(at, at + size)
        before = None
        if kept is not None:
            before = kept[at : at + size]
            clashes = _clashes(before, piece, tables)
            if clashes:
                failures += [_moved(failure, rows) for failure in clashes]
                lost = {failure.row for failure in clashes}
                good = [row for row in range(size) if row not in lost]
                before = [before[row] for row in good]
                piece = (
                    piece.take(np.array(good, np.int64)) if tables else [piece[row] for row in good]
                )
                rows = [rows[row] for row in good]
        encoded = encode(piece, before)
        parts.append(encoded.data)
        lines += encoded.lines
        failures += [_moved(failure, rows) for failure in encoded.failures]
        at += size
    return Encoded(parts[0] if len(parts) == 1 else b"".join(parts), lines, failures)


def _clashes(kept: list[bytes], piece: Any, table: bool) -> list[Failure]:
    """The predictions that have a column which is kept of the input too."""
    names = piece.schema.names if table else set().union(*piece)
    names = [name for name in names if isinstance(name, str)]  # others fail when encoded
    tokens = [json.dumps(name, ensure_ascii=False).encode("utf-8", "replace") for name in names]
    failures = []
    for row, text in enumerate(kept):
        if b"\\" not in text and not any(token in text for token in tokens):
            continue
        both = orjson.loads(text).keys() & (names if table else piece[row].keys())
        if both:
            failures.append(column_clash(row, min(both)))
    return failures


def _moved(failure: Failure, rows: Sequence[int] | None) -> Failure:
    """The failure with its row in the outer numbering."""
    if rows is None:
        return failure
    return replace(failure, row=rows[failure.row])


def _composed(outer: list[int] | None, inner: list[int] | None) -> list[int] | None:
    """Rows of rows, where ``None`` stands for all of them in order."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return [outer[row] for row in inner]
