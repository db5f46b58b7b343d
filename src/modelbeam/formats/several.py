"""The predictions of several models, put together for a writer.

In formats whose records have members of their own each model has one (``{"a": {…}, "b": {…}}``); in
those in which all records have the same columns its columns bear its name (``a.species``). Where a
model has no prediction for a record, that is null.

A prediction that the format cannot hold must not take those of other models with it. So what is not
certain to fit is first written for nothing, a model at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.values import rows_of
from modelbeam.formats.layout import Layout
from modelbeam.predicting.failures import Failure, column_clash
from modelbeam.predicting.outcome import Outcome
from modelbeam.predicting.several import all_rows


def flat_name(model: str, column: str) -> str:
    """What a column of one of several models is called where records are flat."""
    return f"{model}.{column}"


def write_parts(
    writer: Writer, trial: Callable[[], Writer], outcome: Outcome, layout: Layout | None
) -> list[Failure]:
    """Write what several models have predicted for a batch.

    Args:
        writer: of the file.
        trial: makes a writer of the same format whose output goes nowhere.
        outcome: with parts.
        layout: the columns, in formats that are flat.

    Returns:
        A failure for each prediction that is not written, with its model and the batch's row.
    """
    failures: list[Failure] = []
    parts = []
    for name, part in outcome.parts:
        named = _flat(name, part) if layout is not None else part
        if not _fits(named, layout):
            bad = trial().write(replace(named, rows=None, kept=None))
            rows = part.rows or []
            failures += [replace(one, row=rows[one.row], model=name) for one in bad]
            named = without(named, {one.row for one in bad})
        parts.append((name, named))
    whole = joined(outcome, parts, nested=layout is None)
    clashes = _clashes(whole, [name for name, _ in parts], layout)
    refused = clashes or writer.write(whole)
    if clashes:
        lost = {one.row for one in clashes}
        left = without(whole, lost)
        places = [at for at in range(whole.predicted) if at not in lost]
        refused = refused + [replace(f, row=places[f.row]) for f in writer.write(left)]
    rows = whole.rows or []
    for failure in refused:  # what is kept does not fit: no model's prediction can be written
        row = rows[failure.row]
        failures += [
            replace(failure, row=row, model=name)
            for name, part in parts
            if row in set(part.rows or ())
        ]
    return failures


def _clashes(whole: Outcome, models: list[str], layout: Layout | None) -> list[Failure]:
    """Records with a kept column that is called like a model; flat names were looked at before."""
    if whole.kept is None or layout is not None:
        return []
    found = []
    for row in whole.kept.clashing(models):
        both = whole.kept.names(row) & set(models)
        if both:
            found.append(column_clash(row, min(both)))
    return found


def joined(outcome: Outcome, parts: list[tuple[str, Outcome]], *, nested: bool) -> Outcome:
    """One outcome of several: a prediction for each record that one model has predicted."""
    rows = all_rows([part.rows or [] for _, part in parts])
    kept = outcome.kept
    before = outcome.rows or []
    if kept is not None and len(rows) < len(before):
        places = {row: at for at, row in enumerate(before)}
        kept = kept.take([places[row] for row in rows])
    table = all(part.table for _, part in parts)
    values = (_tables if table else _dicts)(parts, rows, nested)
    return replace(outcome, values=values, table=table, rows=rows, kept=kept, parts=())


def _dicts(parts: list[tuple[str, Outcome]], rows: list[int], nested: bool) -> list[Any]:
    made: list[dict[str, Any]] = [{} for _ in rows]
    for name, part in parts:
        values = part.values
        if part.table:
            values = [
                row for piece in part.values for batch in _batches(piece) for row in rows_of(batch)
            ]
        by_row = dict(zip(part.rows or (), values, strict=True))
        for one, row in zip(made, rows, strict=True):
            if nested:
                one[name] = by_row.get(row)
            elif row in by_row:
                one.update(by_row[row])
    return made


def _tables(parts: list[tuple[str, Outcome]], rows: list[int], nested: bool) -> list[Any]:
    import pyarrow as pa

    arrays: list[Any] = []
    names: list[str] = []
    for name, part in parts:
        pieces = [batch for piece in part.values for batch in _batches(piece)]
        if not pieces:
            if nested:
                arrays.append(pa.nulls(len(rows)))
                names.append(name)
            continue
        whole = pa.Table.from_batches(_same_types(pieces)).combine_chunks()
        [batch] = whole.to_batches() or [pa.RecordBatch.from_pylist([], whole.schema)]
        take = None
        if part.rows != rows:
            there = np.full(max(rows, default=-1) + 1, -1)
            there[np.array(part.rows, np.int64)] = np.arange(len(part.rows or ()))
            found = there[np.array(rows, np.int64)]
            take = pa.array(found, mask=found < 0)
        if nested and batch.num_columns:
            columns, called = [batch.to_struct_array()], [name]
        else:
            columns, called = batch.columns, batch.schema.names
        arrays += [column if take is None else column.take(take) for column in columns]
        names += called
    return [pa.RecordBatch.from_arrays(arrays, names=names)] if rows else []


def _batches(piece: Any) -> list[Any]:
    return piece.combine_chunks().to_batches() if hasattr(piece, "to_batches") else [piece]


def _same_types(pieces: list[Any]) -> list[Any]:
    """Batches of one schema: a model may return other types, or orders, from call to call."""
    import pyarrow as pa

    if all(piece.schema.equals(pieces[0].schema) for piece in pieces):
        return pieces
    try:
        schema = pa.unify_schemas([p.schema for p in pieces], promote_options="permissive")
        tables = [pa.Table.from_batches([piece]) for piece in pieces]
        one = pa.concat_tables(tables, promote_options="permissive").cast(schema)
    except pa.ArrowException:
        rows = [row for piece in pieces for row in rows_of(piece)]
        one = pa.Table.from_pylist(rows)
    return list(one.to_batches())


def _flat(name: str, part: Outcome) -> Outcome:
    """The same with the names that its columns have where records are flat."""
    if part.table:
        values = [
            piece.rename_columns([flat_name(name, one) for one in piece.schema.names])
            for piece in part.values
        ]
    else:
        values = [
            {flat_name(name, str(key)): value for key, value in one.items()} for one in part.values
        ]
    return replace(part, values=values)


def without(part: Outcome, lost: set[int]) -> Outcome:
    """The same without some predictions, by their indices."""
    if not lost:
        return part
    good = [at for at in range(part.predicted) if at not in lost]
    rows = None if part.rows is None else [part.rows[at] for at in good]
    kept = None if part.kept is None else part.kept.take(good)
    if not part.table:
        return replace(part, values=[part.values[at] for at in good], rows=rows, kept=kept)
    values, at = [], 0
    for piece in part.values:
        some = [place - at for place in good if at <= place < at + len(piece)]
        values.append(piece.take(np.array(some, np.int64)))
        at += len(piece)
    return replace(part, values=values, rows=rows, kept=kept)


def _fits(part: Outcome, layout: Layout | None) -> bool:
    """Whether the format certainly holds every one of these predictions."""
    if not part.table:
        return False
    import pyarrow as pa
    import pyarrow.compute as pc

    types = None if layout is None else {column.name: column.type for column in layout}
    for piece in part.values:
        for field, column in zip(piece.schema, piece.columns, strict=True):
            kind = field.type
            if types is not None and types.get(field.name) != kind:
                return False
            if pa.types.is_floating(kind):
                if pc.any(pc.invert(pc.is_finite(column))).as_py():
                    return False
            elif not (
                pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)
            ):
                return False
    return True


def dicts_of(outcome: Outcome) -> tuple[list[tuple[int, dict[str, Any]]], list[Failure]]:
    """Predictions as dicts, kept columns first, each with its record's row in the batch.

    Of several models each has a member; a kept column that is called like one makes the
    predictions of all of them failures.

    Returns:
        The predictions, and all failures.
    """
    failures = list(outcome.failures)
    if outcome.parts:
        whole = joined(outcome, list(outcome.parts), nested=True)
        clashes = _clashes(whole, [name for name, _ in outcome.parts], None)
        rows = whole.rows or []
        for clash in clashes:
            row = rows[clash.row]
            failures += [
                replace(clash, row=row, model=name)
                for name, part in outcome.parts
                if row in set(part.rows or ())
            ]
        outcome = without(whole, {clash.row for clash in clashes})
    values = outcome.values
    if outcome.table:
        values = [row for piece in values for row in piece.to_pylist()]
    kept = [{}] * len(values) if outcome.kept is None else outcome.kept.dicts()
    rows = list(range(outcome.read)) if outcome.rows is None else outcome.rows
    return [
        (row, {**before, **value}) for row, before, value in zip(rows, kept, values, strict=False)
    ], failures
