"""Several models in one job: each sees every record, or the records that a column sends to it.

A model of several is a model like any other: it is loaded from a target that holds the targets of
its members, and has no call of its own. What is made of a batch is made by the members, one after
another, each with its own validation, failures and names; the records are read and taken apart once
(:class:`Seen`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from modelbeam import models
from modelbeam.errors import NotAModelError, did_you_mean
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.options import Options
from modelbeam.models.signature import Column, Signature
from modelbeam.models.target import Target
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept
from modelbeam.predicting.failures import Failure, Place
from modelbeam.predicting.results import copied


class UnknownRouteError(Exception):
    """A record names none of the job's models."""


class Several(LoadedModel):
    """Models that run as one.

    Args:
        target: of all of them.
        members: the models, with different names.
        route: the column that names the model of a record; ``None`` if each model sees each record.
    """

    def __init__(self, target: Target, members: Sequence[LoadedModel], route: str | None) -> None:
        self.members = tuple(members)
        self.turns.thread_safe = all(member.turns.thread_safe for member in members)
        self.info = info_of(target, [member.info for member in members], route)


def load(target: Target, arguments: dict[str, Any]) -> Several:
    """Load each model.

    Args:
        target: whose ``of`` are the models' targets.
        arguments: ``models``, for each a mapping of ``name``, ``arguments`` and ``options``;
            ``route``; and ``compares``.

    Raises:
        ModelError: one of them cannot be loaded; the message names it.
    """
    loaded = [models.load(*one) for one in each(target, arguments)]
    made = Several(target, loaded, arguments["route"])
    made.compares = arguments["compares"]
    return made


def each(
    target: Target, arguments: dict[str, Any]
) -> list[tuple[Target, str, dict[str, Any], Options]]:
    """What :func:`modelbeam.models.load` takes, for each of several models."""
    return [
        (one, said["name"], said["arguments"], Options(**_tuples(said["options"])))
        for one, said in zip(target.of, arguments["models"], strict=True)
    ]


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}


def info_of(target: Target, members: Sequence[ModelInfo], route: str | None) -> ModelInfo:
    """What is said of several models together."""
    styles = [member.style for member in members]
    said = json.dumps([[member.name, member.fingerprint] for member in members])
    names = ", ".join(member.name for member in members)
    return ModelInfo(
        target=str(target),
        name=names,
        qualified_name=json.dumps([member.qualified_name for member in members]),
        version=", ".join(member.version for member in members),
        interface="several models",
        style="table" if "table" in styles else "batch" if "batch" in styles else "record",
        signature=_together(members, route),
        output_schema=_nested(members),
        fingerprint=hashlib.blake2b(said.encode(), digest_size=12).hexdigest(),
        requires=tuple(dict.fromkeys(name for member in members for name in member.requires)),
        warnings=tuple(f"{m.name}: {warning}" for m in members for warning in m.warnings),
        members=tuple(members),
        route=route,
    )


def _together(members: Sequence[ModelInfo], route: str | None) -> Signature | None:
    """The columns that are read for all of them; the types are each model's own."""
    columns: dict[str, Column] = {}
    for member in members:
        if member.signature is None:
            return None
        for column in member.signature.columns:
            columns.setdefault(column.name, Column(column.name, "any", True, False))
    if route is not None:
        columns.setdefault(route, Column(route, "any", True, False))
    exact = all(member.signature is not None and member.signature.exact for member in members)
    return Signature(tuple(columns.values()), exact)


def _nested(members: Sequence[ModelInfo]) -> dict[str, Any] | None:
    """The output schema, if all have one that refers to nothing outside of itself."""
    schemas = [member.output_schema for member in members]
    if not all(isinstance(schema, dict) and "$defs" not in schema for schema in schemas):
        return None
    each_ = {
        member.name: {"anyOf": [schema, {"type": "null"}]}
        for member, schema in zip(members, schemas, strict=True)
    }
    return {"type": "object", "properties": each_}


class Seen:
    """A batch as the members see it; what is the same for several is made once.

    Args:
        batch: as it was read.
        model: of several models.

    Attributes:
        unrouted: a failure for each record that goes to no model.
    """

    def __init__(self, batch: Batch, model: LoadedModel) -> None:
        self._batch, self._columns = batch, _Columns()
        self._dicts: dict[int, Decoded] = {}
        self._rows: dict[str, set[int]] | None = None
        self.unrouted: list[Failure] = []
        if model.info.route is not None:
            self._send(model.info.route, [member.info.name for member in model.members])

    def _send(self, column: str, names: list[str]) -> None:
        rows: dict[str, set[int]] = {name: set() for name in names}
        plain = self._batch.seen_by(None)
        decoded = plain.records()
        self.unrouted += decoded.failures
        places = range(len(decoded.records)) if decoded.rows is None else decoded.rows
        for record, row in zip(decoded.records, places, strict=True):
            name = record.get(column)
            if isinstance(name, str) and name in rows:
                rows[name].add(row)
            else:
                said = _no_route(column, record, names)
                self.unrouted.append(Failure(row, "validate", UnknownRouteError.__name__, said))
        self._rows = rows

    def by(self, member: LoadedModel) -> Batch:
        """The records that one model sees."""
        batch = self._batch.seen_by(member.info.signature)
        if self._rows is not None:
            return Chosen(batch, self._rows[member.info.name])
        return _Shared(batch, self._columns, batch is self._batch)


def _no_route(column: str, record: dict[str, Any], names: list[str]) -> str:
    of = f"the models are {', '.join(names)}"
    if column not in record:
        return f"column '{column}' is missing, which names the model; {of}"
    value = record[column]
    if isinstance(value, str):
        nearest = did_you_mean(value, names).removesuffix("?").removeprefix("; ")
        return f"column '{column}' is '{value[:80]}', which is no model; {of}" + (
            f" ({nearest}?)" if nearest else ""
        )
    shown = "null" if value is None else f"no text, but {str(value)[:80]}"
    return f"column '{column}' is {shown}; {of}"


class _Columns:
    """What was decoded for one model and may be used for another."""

    def __init__(self) -> None:
        self.tables: list[tuple[Signature, Decoded]] = []
        self.records: Decoded | None = None


class _View(Batch):
    """A batch that shows what another one does, but for what a subclass changes."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def count(self) -> int:
        """How many records there are."""
        return self._batch.count()

    def names(self) -> Any:
        """The columns of all records."""
        return self._batch.names()

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some columns of some rows."""
        return self._batch.keep(names, rows)

    def position(self, row: int) -> Place:
        """Where a record is."""
        return self._batch.position(row)

    def source(self, row: int) -> str | None:
        """The file that a record is in."""
        return self._batch.source(row)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The record as it was."""
        return self._batch.original(row, parsed)


class _Shared(_View):
    """A batch of which some was decoded for another model already.

    Args:
        batch: as the model sees it.
        done: what was decoded; it is added to.
        alike: whether the records are the same dicts for every model.
    """

    def __init__(self, batch: Batch, done: _Columns, alike: bool) -> None:
        super().__init__(batch)
        self._done, self._alike = done, alike

    def records(self) -> Decoded:
        """The records as dicts, which are the caller's own."""
        if not self._alike:
            return self._batch.records()
        if self._done.records is None:
            self._done.records = self._batch.records()
        decoded = self._done.records
        return decoded._replace(
            records=[copied(record) for record in decoded.records], failures=[*decoded.failures]
        )

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns; shared where no model's own code had to look at one."""
        if signature is None or not signature.exact:
            return self._batch.table(signature, validate)
        for known, decoded in self._done.tables:
            if known == signature:
                return decoded
        asked = False

        def note(record: dict[str, Any]) -> Any:
            nonlocal asked
            asked = True
            return validate(record)

        decoded = self._batch.table(signature, note)
        if not asked and not decoded.failures:
            self._done.tables.append((signature, decoded))
        return decoded

    def plain_table(self, signature: Signature) -> Decoded | None:
        """The records as columns, if no schema's code has to see them."""
        return self._batch.plain_table(signature)


class Chosen(_View):
    """Some records of a batch.

    Args:
        batch: all of them.
        rows: those that are meant.
    """

    def __init__(self, batch: Batch, rows: Iterable[int]) -> None:
        super().__init__(batch)
        self._chosen = set(rows)

    def count(self) -> int:
        """How many records were chosen."""
        return len(self._chosen)

    def records(self) -> Decoded:
        """The records that were chosen, and those of them that this model does not take."""
        decoded = self._batch.records()
        places = range(len(decoded.records)) if decoded.rows is None else decoded.rows
        pairs = [
            (record, row)
            for record, row in zip(decoded.records, places, strict=True)
            if row in self._chosen
        ]
        failures = [failure for failure in decoded.failures if failure.row in self._chosen]
        return Decoded([record for record, _ in pairs], [row for _, row in pairs], failures)


def all_rows(each: Sequence[list[int]]) -> list[int]:
    """The rows that any of several models has predicted, in order."""
    if all(rows == each[0] for rows in each[1:]):
        return each[0]
    return sorted({row for rows in each for row in rows})


def check_names(names: Sequence[str | None]) -> None:
    """Refuse models that cannot be told apart.

    Raises:
        NotAModelError: one has no name, or two have the same.
    """
    if None in names:
        raise NotAModelError(
            "--model: with several models each has a name: -m a=TARGET -m b=TARGET."
        )
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise NotAModelError(
            f"--model: two models have the name '{twice}'; give each its own: "
            f"-m {twice}=TARGET -m {twice}_2=TARGET."
        )
