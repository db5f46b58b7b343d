"""One split from its first byte to its manifest: read, predict, write, commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from modelbeam import storage
from modelbeam.errors import InputReadError, OutputWriteError, ReconciliationError
from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.job.again import Again, Earlier
from modelbeam.job.task import Progress, Report, Task
from modelbeam.job.warm import warm_formats
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.counts import Counts, Tally
from modelbeam.predicting.failures import Failure, error_line, moved
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.predicting.several import Chosen
from modelbeam.sinks import Attempt, Manifest, sink_of
from modelbeam.sources import source_of
from modelbeam.sources.splits import Split


def predict_split(
    split: Split, task: Task, model: LoadedModel, report: Report | None = None
) -> Manifest:
    """Predict every record of a split and commit the result.

    Args:
        split: which parts of which files.
        task: how.
        model: loaded and ready.
        report: called before each batch with the progress so far.

    Returns:
        The manifest, which is on disk when this returns.

    Raises:
        JobError: the split cannot be done (input, output, counts); nothing of it is committed.
    """
    warm_formats(task.formats, model.info.style)
    sink = sink_of(
        task.state, task.output, task.fingerprint, task.layout, task.single, task.largest
    )
    attempt = sink.attempt(split)
    try:
        counts, units = _predict_into(attempt, split, task, model, report)
        return attempt.commit(counts, units)
    except OSError as error:
        attempt.abandon()
        raise OutputWriteError(
            f"The output cannot be written: {error.strerror or error} "
            f"({error.filename or task.state}). Nothing was published. Make room or fix it, "
            f"then run the same command with --resume."
        ) from error
    except BaseException:
        attempt.abandon()
        raise


def _predict_into(
    attempt: Attempt, split: Split, task: Task, model: LoadedModel, report: Report | None
) -> tuple[Counts, int]:
    """Predict batch by batch; return the counts and how many lines or rows the split covers."""
    counts = Counts()
    units = done = 0
    again = Again(Earlier.read(task.again, split), attempt) if task.again else None
    with closing(_opened(split, task, model.info)) as opened:
        for number, (piece, reader, batches) in enumerate(opened):
            for batch in _noting(batches, piece, task):
                if report is not None:  # before the batch: should the process die, we know where
                    read, offset = reader.progress()
                    report(Progress(counts, done + read, piece.path, offset))
                started = time.monotonic()
                if again is None:
                    _predict_batch(attempt, piece, task, model, reader, batch, counts)
                else:
                    rows, failed = again.failed_rows(batch, number)
                    again.attempt.rows = earlier = [row for row in rows if row not in failed]
                    some = Chosen(batch, failed)
                    _predict_batch(again.attempt, piece, task, model, reader, some, counts)
                    counts.read += len(earlier)
                    counts.predicted += len(earlier)
                reader.took(time.monotonic() - started)
            units += reader.units
            done += piece.bytes
    if again is not None:
        again.end()
    return counts, units


_Opened = tuple[Piece, Reader, Iterable[Batch]]


def _opened(split: Split, task: Task, info: ModelInfo) -> Generator[_Opened, None, None]:
    """The pieces in order, each with its reader and its batches; some are read ahead, together."""
    sources = {piece: source_of(piece.path) for piece in split.pieces}
    ahead = {piece for piece, source in sources.items() if source.reads_ahead(piece)}
    if len(sources) == 1:
        ahead.clear()

    def opened(piece: Piece) -> _Opened:
        source = sources[piece]
        source.configure(task.asked)
        reader = source.reader(piece, wanted(task, info))
        if piece not in ahead:
            return piece, reader, reader
        batches: list[Batch] = []
        try:
            batches.extend(reader)
        except InputReadError as error:
            return piece, reader, _failing(batches, error)
        return piece, reader, batches

    if ahead:
        yield from storage.in_parallel(opened, split.pieces, split.pieces[0].path)
    else:
        yield from map(opened, split.pieces)


def _failing(batches: list[Batch], error: InputReadError) -> Iterator[Batch]:
    yield from batches
    raise error


def _noting(batches: Iterable[Batch], piece: Piece, task: Task) -> Iterator[Batch]:
    """The batches; that a file is damaged is noted, so that it may be mended and resumed."""
    try:
        yield from batches
    except InputReadError as error:
        if error.damaged:
            sink_of(task.state, task.output, task.fingerprint).note_damaged(piece.path)
        raise


def wanted(task: Task, info: ModelInfo) -> Wanted:
    """What a reader is asked for, for this model."""
    columns = None
    if info.members and info.signature is not None:
        columns = tuple(column.name for column in info.signature.columns)
        if not all(one.signature is not None and one.signature.exact for one in info.members):
            columns = None
    elif info.signature is not None and info.signature.exact:
        columns = tuple(column.name for column in info.signature.columns)
    return Wanted(
        info.style, task.batch_size, task.max_record_size, columns, task.keep, info.signature
    )


def _predict_batch(
    attempt: Attempt,
    piece: Piece,
    task: Task,
    model: LoadedModel,
    reader: Reader,
    batch: Batch,
    counts: Counts,
) -> None:
    outcome = outcome_of(batch, model, task.keep, task.batch_size, task.rename)
    written, unwritten = attempt.write(outcome)
    rows = None if outcome.parts else outcome.rows
    failures = outcome.failures + [moved(failure, rows) for failure in unwritten]
    failures.sort(key=lambda failure: failure.row)
    failed = len(failures)
    whole = True
    if outcome.parts:
        failed, whole = _count_models(outcome, unwritten, failures, counts)
    if outcome.read != written + failed or not whole:
        raise ReconciliationError(
            f"{piece.path}, after byte {reader.progress()[1]}: {outcome.read} records were read, "
            f"{written} predicted and {failed} failed. This is a defect of modelbeam; "
            f"nothing was published. Please report it."
        )
    lines = []
    for failure in failures:
        position = batch.position(failure.row)
        original = batch.original(failure.row, parsed=failure.stage != "decode")
        lines.append(error_line(piece.path, position, model.info.name, failure, original))
        counts.note_failure(failure, position, piece.path)
    if lines:
        attempt.write_errors(b"".join(lines))
    counts.failed += failed
    counts.recovered += outcome.recovered
    counts.predicted += written
    counts.read += outcome.read


def _count_models(
    outcome: Outcome, unwritten: list[Failure], failures: list[Failure], counts: Counts
) -> tuple[int, bool]:
    """Count for each of several models what became of its records.

    Returns:
        How many records no model has predicted, and whether all is accounted for.
    """
    lost: dict[str, set[int]] = {name: set() for name, _ in outcome.parts}
    for failure in unwritten:
        lost[failure.model].add(failure.row)
    failed = Counter(failure.model for failure in failures)
    without = {failure.row for failure in failures}
    whole = True
    for name, part in outcome.parts:
        predicted = part.predicted - len(lost[name])
        whole = whole and part.read == predicted + failed[name]
        counts.of_model(name).add(Tally(part.read, predicted, failed[name]))
        if without:
            without -= set(part.rows or ()) - lost[name]
    return len(without), whole
