"""What columns a model needs, read off its input schema, and records checked against them."""

from __future__ import annotations

import enum
import operator
import re
import types
import typing
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Union

from modelbeam.models import shapes
from modelbeam.models.shapes import FLOATS, Shape

Kind = Literal["float", "int", "str", "bool", "any"]


_KINDS: dict[Any, Kind] = {float: "float", int: "int", str: "str", bool: "bool"}


_WORDS = {"float": "a number", "int": "an integer", "str": "a string", "bool": "true or false"}


ACCEPTED: dict[Kind, frozenset[type]] = {
    "float": frozenset({float, int}),
    "int": frozenset({int}),
    "str": frozenset({str}),
    "bool": frozenset({bool}),
}


_PLAIN: dict[Kind, type] = {"float": float, "int": int, "str": str, "bool": bool}


WRONG_TYPE = " must be "
"""What is said of a value of another type, between the column's name and the type."""


_INT64 = range(-(2**63), 2**63)


MISSING = object()


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a model's input.

    Attributes:
        name: as it stands in the data.
        kind: what its values are; ``any`` if the schema says more than a plain type.
        nullable: whether ``null`` is a value.
        required: whether every record must have it.
        above, at_least, below, at_most: bounds of a number, or ``None``.
        filled: whether the schema puts a value where there is none.
        truth: whether ``true`` and ``false`` count as integers, as they do in Python.
        shape: what the values are made of, where it is more than a plain type and known.
        member: what a validated record calls it, if not by its name.
        lossless: whether an integer in a column of floats must be one of them exactly.
        parts: where the schema says all of what is inside: the members of an object, or what the
            items of a list are; see :meth:`inside`.
        closed: whether an object may have no other members.
        narrow: whether floats of fewer bits may be given as they are: the model's kind makes a
            matrix of its own type of them.
    """

    name: str
    kind: Kind
    nullable: bool = False
    required: bool = True
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    filled: bool = field(default=False, compare=False)
    truth: bool = field(default=False, compare=False)
    shape: Shape = field(default=None, compare=False)
    member: str | None = field(default=None, compare=False)
    lossless: bool = field(default=False, compare=False)
    parts: tuple[Column, ...] | None = field(default=None, compare=False)
    closed: bool = field(default=False, compare=False)
    narrow: bool = field(default=False, compare=False)

    @property
    def inside(self) -> tuple[Column, ...] | None:
        """The members of an object or, one column, the items of a list; ``None`` if not known."""
        return _NUMBERS if self.parts is None and self.shape == FLOATS else self.parts

    @property
    def is_list(self) -> bool:
        """Whether the values are known to be lists."""
        return isinstance(self.shape, tuple) and self.shape[0] == "list"

    @property
    def bounded(self) -> bool:
        """Whether the column has a bound."""
        return (self.above, self.at_least, self.below, self.at_most) != (None,) * 4

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with a value, or return ``None``."""
        if value is MISSING:
            return f"column '{self.name}' is missing" if self.required else None
        if value is None:
            return None if self.nullable else f"column '{self.name}' is null"
        if self.kind == "any":
            if self.shape == FLOATS and not is_floats(value):
                return f"column '{self.name}' must be a list of numbers, not {show(value)}"
            return None
        if not self._is_kind(value):
            return f"column '{self.name}' must be {_WORDS[self.kind]}, not {show(value)}"
        if self.kind == "int" and int(value) not in _INT64:
            return f"column '{self.name}' must be an integer of 64 bits, not {show(value)}"
        if self.lossless and self.kind == "float" and not is_exact(value):
            return f"column '{self.name}' must be a number, and {show(value)} is no double exactly"
        for bound, holds, words in (
            (self.above, operator.gt, "greater than"),
            (self.at_least, operator.ge, "at least"),
            (self.below, operator.lt, "less than"),
            (self.at_most, operator.le, "at most"),
        ):
            if bound is not None and not holds(value, bound):
                return f"column '{self.name}' must be {words} {bound:g}, not {show(value)}"
        return None

    def all_plain(self, values: list[Any]) -> bool:
        """Whether values are of just the type that the column names; some others may be right."""
        if self.kind != "any":
            return not self.bounded and {_PLAIN[self.kind]}.issuperset(map(type, values))
        if self.shape == FLOATS:
            return all(type(v) is list and {float}.issuperset(map(type, v)) for v in values)
        return not any(value is MISSING for value in values)

    def _is_kind(self, value: Any) -> bool:
        allowed = ACCEPTED[self.kind]
        if type(value) in allowed:
            return True
        if isinstance(value, bool):
            return self.truth
        return isinstance(value, tuple(allowed))  # numpy.float64, a str that is an enum


_NUMBERS = (Column("item", "float"),)


def is_exact(value: Any) -> bool:
    """Whether a number is one that a double has."""
    if not isinstance(value, int) or -(2**53) <= value <= 2**53:
        return True
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def is_floats(value: Any) -> bool:
    """Whether a value is a list of numbers and of nothing else."""
    return type(value) is list and ACCEPTED["float"].issuperset(map(type, value))


@dataclass(frozen=True, slots=True)
class Signature:
    """The columns of a model's input.

    Attributes:
        columns: in the order of the schema.
        exact: whether a record that the columns find nothing wrong with is certainly one that the
            schema takes as it is; if not, every record is validated by the schema itself.
        converts: whether the schema may take, with another value, what the columns reject; then
            records that they reject are validated by the schema too.
        whole: whether the schema looks at nothing but the columns.
        ignores: whether it takes other fields and leaves them out.
        typed: whether data whose columns are of other types throughout is refused before a run.
        nested: whether a record is certainly one that the schema takes as it is, if the columns,
            and all that is inside of them, are of the very types that are named.
    """

    columns: tuple[Column, ...]
    exact: bool
    converts: bool = field(default=False, compare=False)
    whole: bool = field(default=True, compare=False)
    ignores: bool = field(default=False, compare=False)
    typed: bool = field(default=False, compare=False)
    nested: bool = field(default=False, compare=False)

    @property
    def decodable(self) -> bool:
        """Whether records of the right types can be told without the schema's own code."""
        return self.exact or self.nested

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    @property
    def required(self) -> list[str]:
        """The names of the columns that every record must have."""
        return [column.name for column in self.columns if column.required]

    def null_without(self, names: Collection[str]) -> list[Column]:
        """The columns that are null in a file whose records have only columns of these names.

        A file that says which columns it has says of the others that nothing is known. What the
        schema fills by itself is left to it.
        """
        return [c for c in self.columns if c.nullable and c.required and c.name not in names]

    @property
    def fills(self) -> bool:
        """Whether the schema puts values into records that lack them."""
        return any(column.filled for column in self.columns)

    def plainly_valid(self, records: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """What an exact schema makes of records that are right by the types of their values alone.

        Returns:
            The records, without the fields that the schema ignores; ``None`` if some may be wrong.
        """
        plain = {dict}.issuperset(map(type, records))  # others may do as they please
        whole = plain and {len(self.columns)}.issuperset(map(len, records))
        for column in self.columns:
            values = _values_of(records, column.name) if plain else None
            if values is None:
                whole = False
                values = [record.get(column.name, MISSING) for record in records]
                if not column.required and not column.filled:
                    values = [value for value in values if value is not MISSING]
            if column.nullable:
                values = [value for value in values if value is not None]
            if not column.all_plain(values):
                return None
        if whole:  # as many members as columns, and each column is there
            return records
        names = {column.name for column in self.columns}
        others = not all(map(names.issuperset, records))
        if others and not self.ignores:
            return None
        if not others:
            return records
        return [{n: v for n, v in record.items() if n in names} for record in records]


def _values_of(records: list[dict[str, Any]], name: str) -> list[Any] | None:
    """The values of a member that all records have; ``None`` if one lacks it."""
    try:
        return list(map(operator.itemgetter(name), records))
    except KeyError:
        return None


def from_schema(schema: Any) -> Signature | None:
    """Read the columns off an object of the ``schema`` library that describes a dict."""
    fields = getattr(schema, "schema", schema)
    if not isinstance(fields, dict):
        return None
    columns: list[Column] = []
    exact = nested = whole = not _validates_its_own_way(type(schema))
    ignores = getattr(schema, "_ignore_extra_keys", None) is True
    for key, value in fields.items():
        name = _name_of_key(key)
        if name is None:
            exact = nested = whole = False
            continue
        column = _schema_column(name, key, value, type(schema))
        plain = column.kind != "any" or value is object or value == [float]
        exact = exact and plain
        nested = nested and (plain or column.parts is not None)
        columns.append(column)
    return Signature(tuple(columns), exact, whole=whole, ignores=ignores, nested=nested)


def _schema_column(name: str, key: Any, value: Any, library: Any) -> Column:
    """A column of the ``schema`` library."""
    kind, nullable = _plain_type(value)
    return Column(
        name,
        kind,
        nullable or value is object,
        required=type(key).__name__ != "Optional",
        filled=hasattr(key, "default"),
        truth=kind in ("int", "float") and _takes(library, value, True),
        shape=shapes.of_schema(value, _name_of_key) if kind == "any" else None,
        parts=_parts_of_schema(value, library) if kind == "any" else None,
        closed=True,
    )


def _parts_of_schema(value: Any, library: Any) -> tuple[Column, ...] | None:
    """What is inside of a list or an object, if plain types are all that is said of it."""
    if shapes.of_schema(value, _name_of_key) is None:
        return None
    if type(value).__name__ == "Or":
        others = [member for member in value.args if member is not None]
        one = len(others) == 1 and type(value).__module__ == "schema"
        return _parts_of_schema(others[0], library) if one else None
    if type(value) is list and len(value) == 1:
        return _all_known([_schema_column("item", "item", value[0], library)])
    if type(value) is dict and value:
        names = [str(_name_of_key(key)) for key in value]
        columns = [
            _schema_column(name, key, member, library)
            for name, (key, member) in zip(names, value.items(), strict=True)
        ]
        return _all_known(columns) if len(set(names)) == len(names) else None
    return None


def _all_known(columns: Sequence[Column]) -> tuple[Column, ...] | None:
    """The columns, if all are of plain types or known inside."""
    known = all(column.kind != "any" or column.parts is not None for column in columns)
    return tuple(columns) if known else None


def _validates_its_own_way(cls: type) -> bool:
    """Whether a schema's class is a user's, with a ``validate`` that nothing is known of."""
    return any("validate" in vars(c) and c.__module__ != "schema" for c in cls.__mro__)


def _name_of_key(key: Any) -> str | None:
    """The name that a key of a schema stands for; ``None`` if it is more than a name."""
    name = key if isinstance(key, str) else getattr(key, "schema", None)
    if not isinstance(name, str) or type(key).__name__ in ("Forbidden", "Hook", "Regex"):
        return None
    return name


def _takes(library: Any, schema: Any, value: Any) -> bool:
    """Whether a schema takes a value; releases of the library differ about ``int`` and ``True``."""
    try:
        library(schema).validate(value)
    except Exception:
        return False
    return True


def from_pydantic(model: Any) -> Signature | None:
    """Read the columns off a pydantic model class, of version 2 or 1."""
    fields = getattr(model, "model_fields", None)
    if fields is None:
        return _from_pydantic_1(model)
    if getattr(model, "__pydantic_root_model__", False):
        return None
    columns, plain, understood = _pydantic_columns(model, 0)
    exact = understood and all(plain)
    known = all(p or column.parts is not None for p, column in zip(plain, columns, strict=True))
    return Signature(columns, exact, converts=True, nested=understood and known)


def _pydantic_columns(model: Any, depth: int) -> tuple[tuple[Column, ...], list[bool], bool]:
    """The columns of a pydantic model.

    Returns:
        Them; of each whether its kind says what values it takes; and whether nothing else is said.
    """
    config = getattr(model, "model_config", {})
    understood = not _has_code_of_its_own(model, config)
    columns, all_plain = [], []
    for name, one in model.model_fields.items():
        column, clear = _pydantic_column(model, config, name, one, depth)
        plain = (
            column.kind != "any"
            or one.annotation in (Any, object)
            or _without_null(one.annotation) in (list[float], list[float])
        )
        understood = understood and clear
        columns.append(column)
        all_plain.append(plain)
    return tuple(columns), all_plain, understood


def _pydantic_column(
    model: Any, config: dict[str, Any], name: str, one: Any, depth: int
) -> tuple[Column, bool]:
    """A field as a column, and whether nothing more is said of it but what is inside."""
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    validators = model.__pydantic_decorators__.model_validators
    renames = any(one.info.mode == "before" for one in validators.values())
    kind, nullable = _plain_type(one.annotation)
    bounds, understood = _bounds(one.metadata)
    if bounds and kind not in ("float", "int"):
        bounds, understood = {}, False
    alias = one.validation_alias or one.alias or name
    one_name = isinstance(alias, str) and (alias == name or not by_name)
    checks_defaults = one.validate_default or config.get("validate_default")
    strict = config.get("strict") or any(type(item).__name__ == "Strict" for item in one.metadata)
    column = Column(
        alias if isinstance(alias, str) else name,
        kind,
        nullable or one.annotation in (Any, object),
        required=one.is_required() and one_name and not renames,
        **bounds,
        filled=not one.is_required() and (one.default is not None or bool(checks_defaults)),
        shape=shapes.of_annotation(one.annotation) if kind == "any" else None,
        member=name,
        # a strict model inside another one is no object, but something of its class
        parts=_parts_of_annotation(one.annotation, depth) if kind == "any" and not strict else None,
    )
    return column, understood and one_name


_DEEPEST = 32


def _parts_of_annotation(annotation: Any, depth: int) -> tuple[Column, ...] | None:
    """What is inside of a list or a model, if plain types are all that is said of it."""
    annotation = _without_null(annotation)
    shape = shapes.of_annotation(annotation)
    if shape is None or depth > _DEEPEST:
        return None
    if typing.get_origin(annotation) is list:
        (item,) = typing.get_args(annotation)
        kind, nullable = _plain_type(item)
        inside = _parts_of_annotation(item, depth + 1) if kind == "any" else None
        shape = shapes.of_annotation(item) if kind == "any" else None
        return _all_known(
            [Column("item", kind, nullable, shape=shape, parts=inside, lossless=_is_union(item))]
        )
    if not isinstance(annotation, type) or shape[0] != "struct" or not shape[1]:
        return None
    config = getattr(annotation, "model_config", {})
    columns, _, understood = _pydantic_columns(annotation, depth + 1)
    fields = getattr(annotation, "model_fields", {}).values()
    if not understood or config.get("strict") or len({c.name for c in columns}) < len(columns):
        return None
    if any(one.exclude or getattr(one, "exclude_if", None) for one in fields):
        return None
    return _all_known(
        [
            replace(column, lossless=_is_union(one.annotation))
            for column, one in zip(columns, fields, strict=True)
        ]
    )


def _is_union(annotation: Any) -> bool:
    """Whether it is integers and floats, so that an integer stays one that no double may be."""
    return _plain_type(annotation)[0] == "float" and _without_null(annotation) is not float


def _without_null(annotation: Any) -> Any:
    """What an annotation says but for null."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return members[0] if len(members) == 1 else annotation


_TEXT_RULES = (
    "str_strip_whitespace",
    "str_to_lower",
    "str_to_upper",
    "str_min_length",
    "str_max_length",
)


def _has_code_of_its_own(model: Any, config: dict[str, Any]) -> bool:
    """Whether a pydantic model may reject or change values that have the types of its fields."""
    decorators = model.__pydantic_decorators__
    validators = ("validators", "field_validators", "root_validators", "model_validators")
    serializers = ("field_serializers", "model_serializers")  # a validated record has been dumped
    if any(getattr(decorators, name, None) for name in validators + serializers):
        return True
    if config.get("extra") == "forbid" or any(config.get(rule) for rule in _TEXT_RULES):
        return True
    own = [cls for cls in model.__mro__ if not cls.__module__.startswith(("pydantic.", "builtins"))]
    methods = ("__init__", "__new__", "model_post_init", "model_validate")
    hooks = ("__get_pydantic_core_schema__", "__setattr__", "__get_validators__")
    for cls in own:
        for name in (*methods, *hooks):
            found = vars(cls).get(name)
            # what pydantic itself puts there for private attributes is harmless
            if found is not None and "pydantic" not in getattr(found, "__module__", ""):
                return True
    return False


def _from_pydantic_1(model: Any) -> Signature | None:
    columns = []
    for one in getattr(model, "__fields__", {}).values():
        annotation = getattr(one, "outer_type_", None)
        kind, nullable = _plain_type(annotation)
        shape = shapes.of_annotation(annotation) if kind == "any" else None
        columns.append(
            Column(
                one.alias,
                kind,
                nullable or one.allow_none,
                required=bool(one.required),
                filled=not one.required and one.default is not None,
                shape=shape,
                member=one.name,
            )
        )
    return Signature(tuple(columns), exact=False, converts=True) if columns else None


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


def _bounds(metadata: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """Bounds of a number, by the names of :class:`Column`; and whether that is all there is."""
    names = {"Gt": "above", "Ge": "at_least", "Lt": "below", "Le": "at_most"}
    bounds: dict[str, Any] = {}
    understood = True
    for item in metadata:
        kind = type(item).__name__
        value = getattr(item, kind.lower(), None)
        if kind in names and type(value) in (int, float) and names[kind] not in bounds:
            bounds[names[kind]] = value
        elif kind != "Strict":  # what is not converted is left to pydantic anyway
            understood = False
    return bounds, understood


def show(value: Any) -> str:
    if isinstance(value, (list, dict)):  # never looked into: it may be nested a thousand deep
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, str):
        return f"the string {value if len(value) <= 60 else value[:57] + '...'!r}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def missing_columns(signature: Signature | None, records: list[dict[str, Any]]) -> list[str]:
    """The required columns that not one of the records has; empty if there are no records."""
    if signature is None or not records:
        return []
    return [name for name in signature.required if not any(name in record for record in records)]


_INTEGER_FOR_FLOAT = re.compile(r"(?<![\w.])(-?\d+) should be instance of 'float'")


def hint(error: str) -> str | None:
    """What to write where the ``schema`` library rejects integers for floats, or ``None``.

    Args:
        error: what a model's exception says.
    """
    found = _INTEGER_FOR_FLOAT.search(error)
    if found is None:
        return None
    return (
        f"{found[1]} is an integer in the data; a schema that takes integers too has Or(int, float)"
    )
