"""The columns of the output, for formats in which all records have the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from modelbeam import formats, storage
from modelbeam.errors import InputReadError, JobError, RequestError
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.layout import Layout, OutputColumn, of_rows, of_schema, together
from modelbeam.formats.several import flat_name
from modelbeam.job.task import Sample, Task
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.batch import Batch
from modelbeam.sources import source_of

SAMPLE = 100
"""Records that are predicted where a model does not say what it predicts, and read where a format
does not say what it holds."""

SAMPLED_FILES = 8

Predict = Callable[[Piece, int, Task], Sample]


class Named(NamedTuple):
    """An input and the columns that its file says; ``None`` where each record has its own."""

    piece: Piece
    columns: Layout | None


LOOKED_AT = 256
"""Inputs whose columns are looked at where not all must be known."""


def columns_of(pieces: Sequence[Piece], task: Task) -> list[Named]:
    """The columns that the inputs say.

    Of all inputs where these decide which columns the output has, else of so many, spread over all.

    Args:
        pieces: one of each input.
        task: what the splits are told.
    """

    def columns(piece: Piece) -> Layout | None:
        found = formats.find(piece.format, piece.reading)
        try:
            layout = found.columns(piece.path, piece.compression) if piece.size else ()
            return None if layout is None else (*layout, *_said(piece, layout))
        except JobError:  # its reader says so, with all other files done
            return ()

    if not (task.keep and formats.find(task.output.name).same_columns):
        pieces = pieces[:: max(1, len(pieces) // LOOKED_AT)]
    if not pieces:
        return []
    known = storage.in_parallel(columns, pieces, pieces[0].path)
    return [Named(piece, layout) for piece, layout in zip(pieces, known, strict=True)]


def first_readable(pieces: Sequence[Piece], records: int, wanted: Wanted) -> tuple[Piece, Batch]:
    """The first records of the first input that can be read; one that is damaged fails later.

    Raises:
        InputReadError: none of the first few can be read.
    """
    failed: InputReadError | None = None
    for piece in pieces[:SAMPLED_FILES]:
        try:
            return piece, source_of(piece.path).first(piece, records, wanted)
        except InputReadError as error:
            failed = failed or error
    if failed is None:
        raise ValueError("there is no input")
    raise failed


def _said(piece: Piece, layout: Layout) -> Layout:
    """The columns that only the directories of a file say."""
    import pyarrow as pa

    there = {column.name for column in layout}
    return tuple(
        OutputColumn(name, pa.string()) for name, _ in piece.partition if name not in there
    )


def layout_of(
    inputs: Sequence[Named], info: ModelInfo, task: Task, predict: Predict
) -> Layout | None:
    """The columns of a job's output: those that are kept, then those that are predicted.

    Args:
        inputs: what :func:`columns_of` found.
        info: of the model.
        task: what the splits are told.
        predict: predicts the first records of a piece, with the model.

    Returns:
        The columns; ``None`` if the format of the output needs none.

    Raises:
        RequestError: they cannot be known before the run.
    """
    output = formats.find(task.output.name)
    if not output.same_columns:
        return None
    pieces = [named.piece for named in inputs]
    predicted = predicted_columns(pieces, info, task, predict)
    kept = _kept(inputs, task) if task.keep else ()
    return together(kept, predicted)


def _kept(inputs: Sequence[Named], task: Task) -> Layout:
    """The columns that are kept, with the types that the inputs say."""
    found = together(*(named.columns for named in inputs if named.columns is not None))
    some = [named.piece for named in inputs if named.columns is None]
    for piece in some[:: max(1, len(some) // SAMPLED_FILES)]:
        with suppress(InputReadError):  # its reader says so, with all other files done
            batch = source_of(piece.path).first(piece, SAMPLE)
            found = together(found, of_rows(batch.records().records))
    if task.keep == "all":
        return found
    types = {column.name: column.type for column in found}
    return tuple(OutputColumn(name, types.get(name)) for name in dict.fromkeys(task.keep))


def predicted_columns(
    pieces: Sequence[Piece], info: ModelInfo, task: Task, predict: Predict
) -> Layout:
    """The columns of the predictions: those of the schema, or of some first records.

    Raises:
        RequestError: they cannot be known before the run.
    """
    if info.members:
        return _columns_of_several(pieces, info, task, predict)
    said = of_schema(info.output_schema)
    if said:
        names = dict(task.rename)
        return tuple(column._replace(name=names.get(column.name, column.name)) for column in said)
    rows = _first_rows(pieces, task, predict)
    if rows:
        return of_rows(rows)
    if not any(piece.size for piece in pieces):
        return ()
    raise _unknown_columns(info, task)


def _first_rows(pieces: Sequence[Piece], task: Task, predict: Predict) -> list[dict[str, Any]]:
    """What is predicted for the first records of the first file in which some can be."""
    bare = replace(task, keep=(), output=formats.Format("jsonl"))
    for piece in pieces[:SAMPLED_FILES]:
        if not piece.size:
            continue
        with suppress(InputReadError):
            lines = predict(piece, SAMPLE, bare).predictions.splitlines()
            if lines:
                return list(map(orjson.loads, lines))
    return []


def _columns_of_several(
    pieces: Sequence[Piece], info: ModelInfo, task: Task, predict: Predict
) -> Layout:
    """The columns of several models, with their names before those of the columns."""
    rows: list[dict[str, Any]] | None = None
    names = dict(task.rename)
    made: list[OutputColumn] = []
    for member in info.members:
        said = of_schema(member.output_schema)
        if said:
            called = [flat_name(member.name, column.name) for column in said]
            made += [
                column._replace(name=names.get(name, name), model=member.name)
                for column, name in zip(said, called, strict=True)
            ]
            continue
        if rows is None:
            rows = _first_rows(pieces, task, predict)
        found = of_rows([row[member.name] for row in rows if row[member.name] is not None])
        if not found and any(piece.size for piece in pieces):
            raise _unknown_columns(member, task)
        made += [
            column._replace(name=flat_name(member.name, column.name), model=member.name)
            for column in found
        ]
    return tuple(made)


def _unknown_columns(info: ModelInfo, task: Task) -> RequestError:
    what = f"--output: the columns of {task.output.name}"
    if not formats.find(task.output.name).same_columns:
        what = "--rename: the predicted columns"
    return RequestError(
        f"{what} must be known before the run; --model {info.target} has no output schema that "
        f"names them, and none of the first records could be predicted. Write JSON Lines (.jsonl) "
        f"without other names, or give the model a schema."
    )
