"""Records as the columns that a model takes.

What becomes of a record depends on the record and the schema alone, never on the others of its
batch; only the Arrow type of a column that the schema leaves open is theirs in common. See
``docs/types.md``, "Records into columns".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from modelbeam.models.shapes import FLOATS, Shape
from modelbeam.models.signature import ACCEPTED, MISSING, Column, Signature, is_exact, is_floats
from modelbeam.models.turns import is_ctrl_c
from modelbeam.predicting import lattice
from modelbeam.predicting.failures import Failure
from modelbeam.text import describe

Validate = Callable[[dict[str, Any]], Any]


class SchemaValidationError(Exception):
    """A record does not fit the columns of the model."""


@dataclass(slots=True)
class Parts:
    """Records that no single Arrow schema has: several batches instead of one.

    Attributes:
        batches: each a ``pyarrow.RecordBatch``.
        rows: for each of them the places of its rows among all of the records.
    """

    batches: list[Any]
    rows: list[list[int]]

    def __len__(self) -> int:
        return sum(map(len, self.rows))


def to_batch(
    records: list[dict[str, Any]],
    signature: Signature | None,
    validate: Validate | None = None,
) -> tuple[Any, list[int] | None, list[Failure]]:
    """Turn records into an Arrow batch of the signature's columns.

    Args:
        records: one dict a record; may be changed.
        signature: the model's columns; without one, the columns are all that the records have.
        validate: what the schema makes of a record, or raises, where the signature cannot tell.

    Returns:
        The ``pyarrow.RecordBatch`` of the records that fit, or :class:`Parts` if values of theirs
        have no common type; their indices, or ``None`` for all of them; and a failure (its ``row``
        an index of ``records``) for each of the others.
    """
    if signature is None or not signature.columns:
        return _all_columns(records, validate)
    columns = signature.columns
    if (signature.exact or validate is None) and all(_fits(records, c) for c in columns):
        made = _one_batch(columns, [[r.get(c.name) for r in records] for c in columns])
        if made is not None:
            return made, None, []
    found: list[list[Any]] = []
    rows, failures = [], []
    for row, record in enumerate(records):
        try:
            values = _values(record, signature, validate)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            failures.append(Failure.of(row, "validate", error))
            continue
        if isinstance(values, str):
            failures.append(_misfit(row, values))
        else:
            found.append(values)
            rows.append(row)
    by_column = [list(values) for values in zip(*found, strict=True)] or [[] for _ in columns]
    return _batches(columns, by_column, rows, failures)


def _misfit(row: int, problem: str) -> Failure:
    return Failure(row, "validate", SchemaValidationError.__name__, problem)


def _all_columns(
    records: list[dict[str, Any]], validate: Validate | None
) -> tuple[Any, list[int] | None, list[Failure]]:
    """The columns of all of the records, in the order in which they come up."""
    rows: list[int] = list(range(len(records)))
    failures: list[Failure] = []
    if validate is not None:
        records, rows, failures = validated(records, validate)
    if not set(map(type, records)) <= {dict} or _problem_of_names(
        dict.fromkeys(itertools.chain.from_iterable(records))
    ):
        problems = list(map(_problem_of_names, records))
        failures += [_misfit(r, found) for r, found in zip(rows, problems, strict=True) if found]
        records = [r for r, found in zip(records, problems, strict=True) if not found]
        rows = [r for r, found in zip(rows, problems, strict=True) if not found]
    names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
    columns = [Column(name, "any", nullable=True, required=False) for name in names]
    values = [[record.get(name) for record in records] for name in names]
    batch, fitting, failures = _batches(columns, values, rows, failures)
    return batch, fitting if failures else None, failures


def _problem_of_names(record: Any) -> str | None:
    if not isinstance(record, dict):
        return f"the schema makes a {type(record).__name__} of the record, which has no columns"
    for name in record:
        if not isinstance(name, str):
            return f"the record has a key that is not a string: {name!r}"
        if not name.isascii() and name.encode(errors="replace").decode() != name:
            return f"the record has a key that is no text: {name!r}"
    return None


def _fits(records: list[dict[str, Any]], column: Column) -> bool:
    """Whether every record's value is plainly right, found without much Python for each."""
    if column.kind == "any" and column.shape != FLOATS:
        return not column.required or all(column.name in record for record in records)
    values = [record.get(column.name) for record in records]
    found = set(map(type, values))
    if type(None) in found:
        found.discard(type(None))
        may_lack = not column.required and not column.filled
        if not (column.nullable and may_lack) and any(
            (value is None and column.problem(record.get(column.name, MISSING)) is not None)
            or (column.filled and column.name not in record)
            for record, value in zip(records, values, strict=True)
        ):
            return False
    if column.kind == "any":
        return all(value is None or is_floats(value) for value in values)
    if not found <= ACCEPTED[column.kind]:
        return False
    if column.lossless and int in found and not all(map(is_exact, values)):
        return False
    if column.bounded or column.kind == "int":
        numbers = [value for value in values if value is not None]
        if numbers and (column.problem(min(numbers)) or column.problem(max(numbers))):
            return False
    return True


def _values(
    record: dict[str, Any], signature: Signature, validate: Validate | None
) -> list[Any] | str:
    """The value of each column, or what is wrong with the record; raises what the schema raises."""
    columns = signature.columns
    if signature.exact or validate is None:
        given = [record.get(column.name, MISSING) for column in columns]
        problem = next(filter(None, map(Column.problem, columns, given)), None)
        if problem is None and not (signature.fills and _lacks_a_default(columns, given)):
            return [_as_kind(c, v) for c, v in zip(columns, given, strict=True)]
        if validate is None or (problem is not None and not signature.converts):
            return problem or "a field is missing"
    if not signature.converts:
        record = _as_tables_have_it(record, signature)
    valid = validate(record)
    if not isinstance(valid, dict):
        raise SchemaValidationError(f"the schema makes a {type(valid).__name__} of the record")
    found = []
    for column in signature.columns:
        value = valid.get(column.member or column.name)
        if column.kind == "any":
            value = lattice.as_arrow_has_it(value)
        value = _as_kind(column, value)
        found.append(value)
    return found


def _lacks_a_default(columns: Sequence[Column], given: list[Any]) -> bool:
    return any(v is MISSING and c.filled for c, v in zip(columns, given, strict=True))


def _as_tables_have_it(record: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """The part of a record that a table shows: no other fields, integers as floats."""
    if signature.whole:
        names = {column.name for column in signature.columns}
        record = {name: value for name, value in record.items() if name in names}
    else:
        record = dict(record)
    for column in signature.columns:
        shape = column.shape if column.kind == "any" else column.kind
        if column.name in record:
            record[column.name] = _widened(record[column.name], shape, column.truth)
    return record


def _widened(value: Any, shape: Shape, truth: bool = False) -> Any:
    if shape == "float" and not truth:
        return float(value) if type(value) is int else value
    if isinstance(shape, tuple):
        if shape[0] == "list" and type(value) is list:
            return [_widened(member, shape[1]) for member in value]
        if shape[0] == "struct" and type(value) is dict:
            inner = dict(shape[1])
            return {name: _widened(member, inner.get(name)) for name, member in value.items()}
    return value


def _as_kind(column: Column, value: Any) -> Any:
    """A value that the schema takes as its column's Arrow type has it.

    Raises:
        SchemaValidationError: the type does not hold it.
    """
    if value is None or value is MISSING:
        return None
    try:
        if column.kind == "any":
            if column.shape != FLOATS:
                return value
            if None in value:
                return [None if member is None else float(member) for member in value]
            return list(map(float, value))
        if column.kind == "float":
            return float(value)
        if column.kind == "int":
            value = int(value)
            if not -(2**63) <= value < 2**63:
                raise OverflowError
        elif column.kind == "str":
            value.encode()
    except (OverflowError, ValueError, TypeError, AttributeError) as error:
        problem = column.problem(value) or f"column '{column.name}': {error}"
        raise SchemaValidationError(problem) from None
    return value


def _one_batch(columns: Sequence[Column], values: list[list[Any]]) -> Any | None:
    """A batch of plain columns, or ``None`` if Arrow finds something wrong with a value."""
    import pyarrow as pa

    arrays = [
        array_of(c, [_as_kind(c, v) for v in found] if _has_floats(c) else found)
        for c, found in zip(columns, values, strict=True)
    ]
    if any(array is None for array in arrays):
        return None
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _batches(
    columns: Sequence[Column], values: list[list[Any]], rows: list[int], failures: list[Failure]
) -> tuple[Any, list[int], list[Failure]]:
    """Arrow batches of validated values; a value that no Arrow type holds fails its record."""
    arrays: list[Any] = [array_of(c, found) for c, found in zip(columns, values, strict=True)]
    if all(array is not None for array in arrays):
        return _record_batch(columns, arrays, len(rows)), rows, failures
    doubtful = [i for i, array in enumerate(arrays) if array is None]
    doubtful.sort(key=lambda i: columns[i].name)  # one record, one message, whatever came first
    good, types = [], []
    for at, row in enumerate(rows):
        try:
            for i in doubtful:
                values[i][at] = lattice.as_arrow_has_it(values[i][at])
            types.append([_type_in(columns[i], values[i][at]) for i in doubtful])
            good.append(at)
        except Exception as error:
            failures.append(_misfit(row, describe(error)))
    batches, parts = [], []
    todo = [[good[at] for at in part] for part in _partition(types)][::-1]
    while todo:
        part = todo.pop()
        chosen = [[found[at] for at in part] for found in values]
        try:
            made = [array_of(c, found, True) for c, found in zip(columns, chosen, strict=True)]
        except Exception as error:  # decimals of too many digits together, say
            if len(part) > 1:
                todo += [[at] for at in reversed(part)]
            else:
                failures.append(_misfit(rows[part[0]], describe(error)))
            continue
        batches.append(_record_batch(columns, made, len(part)))
        parts.append(part)
    if len(parts) == 1:
        return batches[0], [rows[at] for at in parts[0]], failures
    fitting = sorted(at for part in parts for at in part)
    places = {at: place for place, at in enumerate(fitting)}
    inner = [[places[at] for at in part] for part in parts]
    return Parts(batches, inner), [rows[at] for at in fitting], failures


def _type_in(column: Column, value: Any) -> lattice.Type:
    """What must agree for two values to stand in one array of a column."""
    import pyarrow as pa

    declared = type_of(column)
    try:
        if declared is None:
            return lattice.type_of(value)
        pa.array([value], declared)
    except lattice.NoTypeError as error:
        raise lattice.NoTypeError(f"column '{column.name}' {error}") from None
    except (OverflowError, ValueError, TypeError) as error:
        message = f"column '{column.name}' does not fit {declared}: {error}"
        raise lattice.NoTypeError(message) from None
    return lattice.NULL


MOST_COMPARED = 32
"""Parts of a batch that a record is compared with, so that the time stays linear."""


def _partition(types: list[list[lattice.Type]]) -> list[list[int]]:
    """Records by what their types have in common; each joins the first part that it fits into."""
    parts: list[list[int]] = []
    commons: list[list[lattice.Type]] = []
    for at, own in enumerate(types):
        oldest = max(len(parts) - MOST_COMPARED, 0)
        for i in range(oldest, len(parts)):
            merged = list(map(lattice.common_type, commons[i], own))
            if all(common is not None for common in merged):
                commons[i] = merged  # type: ignore[assignment]
                parts[i].append(at)
                break
        else:
            parts.append([at])
            commons.append(own)
    return parts or [[]]


def array_of(column: Column, values: list[Any], sure: bool = False) -> Any | None:
    """An Arrow array of values, or ``None`` where a closer look is needed; not if it was taken."""
    import pyarrow as pa

    declared = type_of(column)
    try:
        array = pa.array(values, declared)
    except (OverflowError, ValueError, TypeError, RecursionError):
        if sure:
            raise
        return None
    if sure or declared is not None:
        return array
    return array if _is_of_json(array.type) and not _mixes(array.type, values) else None


def _mixes(found: Any, values: list[Any]) -> bool:
    """Whether there may be booleans among the numbers, which Arrow takes for 0.0 and 1.0."""
    text = str(found)
    return ("double" in text or "int64" in text) and _has_boolean(values)


def _has_boolean(values: Collection[Any]) -> bool:
    kinds = set(map(type, values))
    if bool in kinds:
        return True
    inside: list[Any] = []
    if dict in kinds:
        inside += itertools.chain.from_iterable(v.values() for v in values if type(v) is dict)
    if list in kinds:
        inside += itertools.chain.from_iterable(v for v in values if type(v) is list)
    return bool(inside) and _has_boolean(inside)


def _is_of_json(found: Any, depth: int = 0) -> bool:
    """Whether an inferred type is one that JSON values make."""
    import pyarrow as pa

    if depth > lattice.DEEPEST:
        return False
    if pa.types.is_nested(found):
        known = pa.types.is_list(found) or pa.types.is_struct(found)
        return known and all(
            _is_of_json(found.field(i).type, depth + 1) for i in range(found.num_fields)
        )
    return found in (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())


def _record_batch(columns: Sequence[Column], arrays: list[Any], count: int) -> Any:
    import pyarrow as pa

    if not columns:  # of objects without members; a batch of no arrays would have no rows
        return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _has_floats(column: Column) -> bool:
    return column.kind == "float" or column.shape == FLOATS


def type_of(column: Column) -> Any | None:
    """The Arrow type of a column; ``None`` where it follows from the values."""
    return _arrow_type(column.kind if column.kind != "any" else column.shape)


def _arrow_type(shape: Shape) -> Any | None:
    """The Arrow type of a kind or a shape; ``None`` where it follows from the values."""
    import pyarrow as pa

    if shape is None or shape == "any":
        return None
    if isinstance(shape, tuple):
        if shape[0] == "list":
            return pa.list_(_arrow_type(shape[1]))
        return pa.struct([(name, _arrow_type(member)) for name, member in shape[1]])
    return {
        "float": pa.float64(),
        "int": pa.int64(),
        "str": pa.string(),
        "bool": pa.bool_(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "duration": pa.duration("us"),
        "binary": pa.binary(),
    }[shape]


def in_order(made: list[tuple[Any, list[int]]]) -> list[Any]:
    """Results of several batches in the order of their records.

    Args:
        made: for each result, an Arrow batch or table, the places of its rows.

    Returns:
        Arrow batches whose rows are in the order of the places.
    """
    import numpy as np
    import pyarrow as pa

    if not made:
        return []
    tables = [
        piece if isinstance(piece, pa.Table) else pa.Table.from_batches([piece])
        for piece, _ in made
    ]
    places = np.array([place for _, rows in made for place in rows], np.int64)
    order = np.argsort(places, kind="stable")
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return list(pa.concat_tables(tables).take(order).combine_chunks().to_batches())
    # models may return other types for other types: then as many rows at a time as are alike
    owner = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(owner)) + 1, [len(owner)]))
    done = [0] * len(tables)
    pieces = []
    for start, stop in itertools.pairwise(starts.tolist()):
        table, count = int(owner[start]), stop - start
        pieces += tables[table].slice(done[table], count).to_batches()
        done[table] += count
    return pieces


def validated(
    records: list[dict[str, Any]], validate: Validate
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
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            failures.append(Failure.of(row, "validate", error))
    return values, fitting, failures
