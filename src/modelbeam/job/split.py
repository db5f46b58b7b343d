"""One split from its first byte to its manifest: read, predict, write, commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing

from modelbeam.errors import InputReadError, OutputWriteError, ReconciliationError
from modelbeam.formats.base import Reader, Wanted
from modelbeam.job.again import Again, Earlier
from modelbeam.job.task import Progress, Report, Task
from modelbeam.job.warm import warm_formats, warm_profile
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.counts import Counts, Tally
from modelbeam.predicting.failures import Failure, error_line, moved
from modelbeam.predicting.outcome import Outcome, outcome_of
from modelbeam.predicting.several import Chosen, Seen
from modelbeam.profile.collector import Collector
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
    if task.profile is not None:
        warm_profile(model.info.style)
    profile = None if task.profile is None else Collector(task.profile)
    try:
        counts, units = _predict_into(attempt, split, task, model, report, profile)
        return attempt.commit(counts, units, None if profile is None else profile.to_bytes())
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
    attempt: Attempt,
    split: Split,
    task: Task,
    model: LoadedModel,
    report: Report | None,
    profile: Collector | None,
) -> tuple[Counts, int]:
    """Predict batch by batch; return the counts and how many lines or rows the split covers."""
    counts = Counts()
    units = done = 0
    again = Again(Earlier.read(task.again, split), attempt) if task.again else None
    source = source_of(split.pieces[0].path)
    source.configure(task.asked)
    opened = source.open(split.pieces, wanted(task, model.info), joined=again is None)
    with closing(opened):
        for number, (pieces, reader, batches) in enumerate(opened):
            path = pieces[0].path
            for batch in _timed(_noting(batches, path, task), profile):
                if report is not None:  # before the batch: should the process die, we know where
                    read, offset = reader.progress()
                    report(Progress(counts, done + read, batch.source(0) or path, offset))
                started = time.monotonic()
                if again is None:
                    _predict_batch(attempt, path, task, model, reader, batch, counts, profile)
                else:
                    failed, kept = again.choose(batch, number)
                    some = Chosen(batch, failed)
                    _predict_batch(again.attempt, path, task, model, reader, some, counts)
                    counts.read += len(kept)
                    counts.predicted += len(kept)
                    _count_kept(batch, kept, model, counts)
                reader.took(time.monotonic() - started)
            units += reader.units
            done += sum(piece.bytes for piece in pieces)
    if again is not None:
        again.end()
    return counts, units


def _count_kept(batch: Batch, kept: list[int], model: LoadedModel, counts: Counts) -> None:
    """Count for each of several models the records that it had predicted in the earlier run."""
    if not model.members or not kept:
        return
    seen = Seen(Chosen(batch, kept), model)
    for member in model.members:
        number = len(kept) if model.info.route is None else seen.by(member).count()
        counts.of_model(member.info.name).add(Tally(number, number, 0))


def _timed(batches: Iterable[Batch], profile: Collector | None) -> Iterator[Batch]:
    """The batches; how long reading each of them takes is noted."""
    if profile is None:
        yield from batches
        return
    coming = iter(batches)
    while True:
        began = time.perf_counter()
        batch = next(coming, None)
        profile.spent("read", time.perf_counter() - began)
        if batch is None:
            return
        yield batch


def _noting(batches: Iterable[Batch], path: str, task: Task) -> Iterator[Batch]:
    """The batches; that a file is damaged is noted, so that it may be mended and resumed."""
    try:
        yield from batches
    except InputReadError as error:
        if error.damaged:
            sink = sink_of(task.state, task.output, task.fingerprint)
            sink.note_damaged(error.path or path)
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
    path: str,
    task: Task,
    model: LoadedModel,
    reader: Reader,
    batch: Batch,
    counts: Counts,
    profile: Collector | None = None,
) -> None:
    began = time.perf_counter()
    outcome = outcome_of(batch, model, task.keep, task.batch_size, task.rename, profile)
    before = time.perf_counter()
    written, unwritten = attempt.write(outcome)
    if profile is not None:
        profile.spent("encode", time.perf_counter() - before)
        profile.predicted(path, batch, model.info.name, outcome, unwritten)
    rows = None if outcome.parts else outcome.rows
    failures = outcome.failures + [moved(failure, rows) for failure in unwritten]
    failures.sort(key=lambda failure: failure.row)
    failed = len(failures)
    whole = True
    if outcome.parts:
        failed, whole = _count_models(outcome, unwritten, failures, counts)
    if outcome.read != written + failed or not whole:
        raise ReconciliationError(
            f"{batch.source(0) or path}, after byte {reader.progress()[1]}: "
            f"{outcome.read} records were read, {written} predicted and {failed} failed. "
            f"This is a defect of modelbeam; nothing was published. Please report it."
        )
    lines = []
    for failure in failures:
        position = batch.position(failure.row)
        original = batch.original(failure.row, parsed=failure.stage != "decode")
        source = batch.source(failure.row) or path
        lines.append(error_line(source, position, model.info.name, failure, original))
        counts.note_failure(failure, position, source)
        if profile is not None:
            profile.failed(source, failure, model.info.name, position._asdict(), original)
    if lines:
        attempt.write_errors(b"".join(lines))
    if profile is not None:
        profile.done(outcome.read, failed, time.perf_counter() - began)
    counts.failed += failed
    for name, one in outcome.parts or ((model.info.name, outcome),):
        counts.note_calls(name, one.calls)
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
