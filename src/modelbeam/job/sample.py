"""What becomes of a file's first records, without a split and without writing anything."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import orjson

from modelbeam import formats
from modelbeam.formats.base import Piece
from modelbeam.formats.several import write_parts
from modelbeam.job.split import wanted
from modelbeam.job.task import Sample, Task
from modelbeam.job.warm import warm_formats
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.predicting.conform import misfits
from modelbeam.predicting.failures import Failure, moved
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.sources import source_of


def predict_sample(piece: Piece, records: int, task: Task, model: LoadedModel) -> Sample:
    """Predict the first records of a file.

    Args:
        piece: any of the file.
        records: how many, at most.
        task: how.
        model: loaded and ready.

    Raises:
        InputReadError: the file cannot be read.
    """
    warm_formats(task.formats, model.info.style)
    source = source_of(piece.path)
    source.configure(task.asked)
    batch = source.first(piece, records, wanted(task, model.info))
    outcome = outcome_of(batch, model, task.keep, task.batch_size, task.rename)
    made, bare = io.BytesIO(), io.BytesIO()
    unwritten = _write(made, outcome)
    _write(bare, replace(outcome, kept=None))
    rows = None if outcome.parts else outcome.rows
    failures = outcome.failures + [moved(failure, rows) for failure in unwritten]
    return Sample(
        outcome.read,
        outcome.read - made.getvalue().count(b"\n"),
        made.getvalue(),
        [
            (
                next(iter(batch.position(f.row)._asdict().values()), 0),
                *(f.stage, f.type, f"{f.model}: {f.error}" if f.model else f.error),
            )
            for f in sorted(failures, key=lambda failure: failure.row)
        ],
        misfits(model.info.output_schema, _as_the_model(bare.getvalue(), task, model.info)),
    )


def _write(handle: io.BytesIO, outcome: Outcome) -> list[Failure]:
    jsonl = formats.find("jsonl")
    if outcome.parts:
        return write_parts(jsonl.writer(handle), lambda: jsonl.writer(io.BytesIO()), outcome, None)
    return jsonl.writer(handle).write(outcome)


def _as_the_model(lines: bytes, task: Task, info: ModelInfo) -> list[dict[str, Any]]:
    """Predictions by the names that the model gave them."""
    names = {new: old for old, new in task.rename}
    rows = map(orjson.loads, lines.splitlines())
    if info.members:
        return list(rows)
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]
