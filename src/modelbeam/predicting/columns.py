"""Records as the columns that a model takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from modelbeam.models.signature import ACCEPTED, MISSING, Column, Signature, show
from modelbeam.predicting.failures import Failure


def to_batch(
    records: list[dict[str, Any]],
    signature: Signature | None,
    validate: Callable[[dict[str, Any]], Any] | None = None,
) -> tuple[Any, list[int] | None, list[Failure]]:
    """Turn records into an Arrow batch of the signature's columns.

    Integers in a float column are widened; nothing else is converted.

    Args:
        records: one dict a record.
        signature: the model's columns; without one, Arrow infers them from the records.
        validate: called on each record where the signature is not exact; raises if it is wrong.

    Returns:
        The ``pyarrow.RecordBatch`` of the records that fit; their indices, or ``None`` for all of
        them; and a failure (its ``row`` an index of ``records``) for each of the others.
    """
    failures: list[Failure] = []
    if validate is not None and not (signature is not None and signature.exact):
        _, fitting, failures = validated(records, validate)
        records = [records[i] for i in fitting]
        batch, rows, more = to_batch(records, signature)
        failures += [replace(failure, row=fitting[failure.row]) for failure in more]
        kept = fitting if rows is None else [fitting[i] for i in rows]
        return batch, kept, failures
    columns = signature.columns if signature else ()
    try:
        if all(_fits(records, column) for column in columns):
            return _arrow(records, columns), None, []
    except (OverflowError, ValueError, TypeError):
        pass  # the slow look below says which record it is
    fitting = []
    for row, record in enumerate(records):
        problem = next(
            filter(None, (c.problem(record.get(c.name, MISSING)) for c in columns)), None
        )
        if problem is None:
            fitting.append(row)
        else:
            failures.append(Failure(row, "validate", "SchemaValidationError", problem))
    try:
        return _arrow([records[i] for i in fitting], columns), fitting, failures
    except (OverflowError, ValueError, TypeError):
        return _arrow_of_one_type(records, fitting, columns, failures)


def _fits(records: list[dict[str, Any]], column: Column) -> bool:
    """Whether every record's value is plainly right, found without a Python loop over records."""
    if column.kind == "any" or column.bounded or column.kind == "int":
        return False
    found = set(map(type, map(dict.get, records, repeat(column.name))))
    allowed = ACCEPTED[column.kind]
    return found <= (allowed | {type(None)} if column.nullable and not column.required else allowed)


def _arrow(records: list[dict[str, Any]], columns: Sequence[Column]) -> Any:
    import pyarrow as pa

    if not columns:
        return pa.RecordBatch.from_pylist(records)
    kinds = {"float": pa.float64(), "int": pa.int64(), "str": pa.string(), "bool": pa.bool_()}
    arrays = []
    for column in columns:
        values = [record.get(column.name) for record in records]
        if column.kind == "float":
            values = [float(v) if type(v) is int else v for v in values]
        arrays.append(pa.array(values, type=kinds.get(column.kind)))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _arrow_of_one_type(
    records: list[dict[str, Any]],
    rows: list[int],
    columns: Sequence[Column],
    failures: list[Failure],
) -> tuple[Any, list[int], list[Failure]]:
    """Leave out the records whose values do not have the type that most have in their column."""
    import pyarrow as pa

    inferred = [c.name for c in columns if c.kind == "any"]
    if not columns:
        inferred = sorted({name for row in rows for name in records[row]})
    for name in inferred:
        found = Counter(filter(None, (_arrow_type(pa, records[row].get(name)) for row in rows)))
        usual = found.most_common(1)[0][0] if found else pa.null()
        fitting = []
        for row in rows:
            try:
                pa.array([records[row].get(name)], usual)
                fitting.append(row)
            except (pa.ArrowException, OverflowError, ValueError, TypeError):
                shown = show(records[row].get(name))
                message = f"column '{name}' is {shown}, not of the type {usual} of most others"
                failures.append(Failure(row, "validate", "SchemaValidationError", message))
        rows = fitting
    try:
        return _arrow([records[row] for row in rows], columns), rows, failures
    except (OverflowError, ValueError, TypeError) as error:
        failures += [Failure.of(row, "validate", error) for row in rows]
        return _arrow([], columns), [], failures


def _arrow_type(pa: Any, value: Any) -> Any | None:
    try:
        return pa.infer_type([value]) if value is not None else None
    except (OverflowError, ValueError, TypeError):
        return None


def validated(
    records: list[dict[str, Any]], validate: Callable[[dict[str, Any]], Any]
) -> tuple[list[Any], list[int], list[Failure]]:
    """Validate records one by one.

    Returns:
        What ``validate`` returned for those that fit, their indices, and a failure for each other.
    """
    values, fitting, failures = [], [], []
    for row, record in enumerate(records):
        try:
            values.append(validate(record))
            fitting.append(row)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failures.append(Failure.of(row, "validate", error))
    return values, fitting, failures
