"""What columns a model needs, read off its input schema, and records checked against them."""

from __future__ import annotations

import enum
import operator
import types
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, Union

from modelbeam.failures import Failure

Kind = Literal["float", "int", "str", "bool", "any"]

_KINDS: dict[Any, Kind] = {float: "float", int: "int", str: "str", bool: "bool"}
_WORDS = {"float": "a number", "int": "an integer", "str": "a string", "bool": "true or false"}
_ACCEPTED: dict[Kind, frozenset[type]] = {
    "float": frozenset({float, int}),
    "int": frozenset({int}),
    "str": frozenset({str}),
    "bool": frozenset({bool}),
}
_INT64 = range(-(2**63), 2**63)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model's input.

    Attributes:
        name: as it stands in the data.
        kind: what its values are; ``any`` if the schema says more than a plain type.
        nullable: whether ``null`` is a value.
        required: whether every record must have it.
        above, at_least, below, at_most: bounds of a number, or ``None``.
    """

    name: str
    kind: Kind
    nullable: bool = False
    required: bool = True
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether the column has a bound."""
        return (self.above, self.at_least, self.below, self.at_most) != (None,) * 4

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value, or return ``None``."""
        if value is _MISSING:
            return f"column '{self.name}' is missing" if self.required else None
        if value is None:
            return None if self.nullable else f"column '{self.name}' is null"
        if self.kind == "any":
            return None
        if type(value) not in _ACCEPTED[self.kind] or (self.kind == "int" and value not in _INT64):
            return f"column '{self.name}' must be {_WORDS[self.kind]}, not {_show(value)}"
        for bound, holds, words in (
            (self.above, operator.gt, "greater than"),
            (self.at_least, operator.ge, "at least"),
            (self.below, operator.lt, "less than"),
            (self.at_most, operator.le, "at most"),
        ):
            if bound is not None and not holds(value, bound):
                return f"column '{self.name}' must be {words} {bound:g}, not {_show(value)}"
        return None


@dataclass(frozen=True, slots=True)
class Signature:
    """The columns of a model's input.

    Attributes:
        columns: in the order of the schema.
        exact: whether the columns say everything that the schema says; if not, records are
            validated by the schema itself, one at a time.
    """

    columns: tuple[Column, ...]
    exact: bool

    @property
    def required(self) -> list[str]:
        """The names of the columns that every record must have."""
        return [column.name for column in self.columns if column.required]


def from_schema(schema: Any) -> Signature | None:
    """Read the columns off an object of the ``schema`` library that describes a dict."""
    fields = getattr(schema, "schema", schema)
    if not isinstance(fields, dict):
        return None
    columns, exact = [], True
    for key, value in fields.items():
        required = type(key).__name__ != "Optional"
        name = key if isinstance(key, str) else getattr(key, "schema", None)
        if not isinstance(name, str) or type(key).__name__ in ("Forbidden", "Hook", "Regex"):
            exact = False
            continue
        kind, nullable = _plain_type(value)
        exact = exact and kind != "any" and not hasattr(key, "default")
        columns.append(Column(name, kind, nullable, required))
    return Signature(tuple(columns), exact)


def from_pydantic(model: Any) -> Signature | None:
    """Read the columns off a pydantic model class, of version 2 or 1."""
    fields = getattr(model, "model_fields", None)
    if fields is None:
        older = getattr(model, "__fields__", {})
        columns = tuple(
            Column(f.alias, "any", nullable=f.allow_none, required=bool(f.required))
            for f in older.values()
        )
        return Signature(columns, exact=False) if columns else None
    forbids = getattr(model, "model_config", {}).get("extra") == "forbid"
    has_validators = any(
        getattr(model.__pydantic_decorators__, name, None)
        for name in ("validators", "field_validators", "root_validators", "model_validators")
    )
    renames = any(
        decorator.info.mode == "before"
        for decorator in model.__pydantic_decorators__.model_validators.values()
    )
    listed, exact = [], not (forbids or has_validators)
    for name, field in fields.items():
        kind, nullable = _plain_type(field.annotation)
        bounds, whole = _bounds(field.metadata)
        alias = field.validation_alias or field.alias or name
        config = getattr(model, "model_config", {})
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        one_name = isinstance(alias, str) and (alias == name or not by_name)
        exact = exact and whole and kind != "any" and field.is_required() and one_name
        column = alias if isinstance(alias, str) else name
        required = field.is_required() and one_name and not renames
        listed.append(Column(column, kind, nullable, required, **bounds))
    return Signature(tuple(listed), exact)


def _plain_type(annotation: Any) -> tuple[Kind, bool]:
    """The kind that a type, a union of types or a ``schema.Or`` stands for, and if it has null."""
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "any", False
    for plain, kind in _KINDS.items():  # not by look-up: an annotation may be a list
        if annotation is plain:
            return kind, False
    if type(annotation).__name__ == "Or":
        members = list(annotation.args)
    elif typing.get_origin(annotation) in (Union, types.UnionType):
        members = list(typing.get_args(annotation))
    else:
        return "any", False
    nullable = None in members or type(None) in members
    kinds = {_plain_type(m)[0] for m in members if m is not None and m is not type(None)}
    if kinds == {"float", "int"}:
        return "float", nullable
    return (kinds.pop(), nullable) if len(kinds) == 1 else ("any", nullable)


def _bounds(metadata: Sequence[Any]) -> tuple[dict[str, float], bool]:
    names = {"Gt": "above", "Ge": "at_least", "Lt": "below", "Le": "at_most"}
    bounds, whole = {}, True
    for item in metadata:
        kind = type(item).__name__
        value = getattr(item, kind.lower(), None)
        if kind in names and isinstance(value, (int, float)):
            bounds[names[kind]] = float(value)
        else:
            whole = False
    return bounds, whole


def _show(value: Any) -> str:
    if isinstance(value, (list, dict)):  # never looked into: it may be nested a thousand deep
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return f"the string {value if len(value) <= 60 else value[:57] + '...'!r}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


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
            filter(None, (c.problem(record.get(c.name, _MISSING)) for c in columns)), None
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
    allowed = _ACCEPTED[column.kind]
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
                shown = _show(records[row].get(name))
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


def missing_columns(signature: Signature | None, records: list[dict[str, Any]]) -> list[str]:
    """The required columns that not one of the records has; empty if there are no records."""
    if signature is None or not records:
        return []
    return [name for name in signature.required if not any(name in record for record in records)]
