"""Columns that the directories of a file say: ``month=01/part-0.csv``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import orjson

from modelbeam.errors import RequestError
from modelbeam.formats.base import Reader, Wanted
from modelbeam.formats.csv.fields import NUMBER, NotThatError, converter
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.named import KINDS
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.batch import Batch, Decoded, Keep, Kept
from modelbeam.predicting.failures import Failure, Place

NULL = "__HIVE_DEFAULT_PARTITION__"

Partition = tuple[tuple[str, "str | None"], ...]
"""The columns with their values, which are texts."""


def partition_of(path: str, root: str) -> Partition:
    """The columns that the directories between a root and a file say.

    Raises:
        RequestError: one of them comes twice.
    """
    found: list[tuple[str, str | None]] = []
    if "=" not in path or not path.startswith(root):
        return ()
    for folder in path[len(root) :].split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            found.append((unquote(name), None if value == NULL else unquote(value)))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"--input {path}: two of its directories say what '{twice}' is.")
    return tuple(found)


class PartitionReader(Reader):
    """Adds what the directories say to the records of a file, as far as it is asked for.

    Args:
        make: makes the reader of the file.
        partition: the columns.
        wanted: what is asked for.
    """

    def __init__(
        self, make: Callable[[Wanted], Reader], partition: Partition, wanted: Wanted
    ) -> None:
        self._partition, self._wanted = partition, wanted
        self._reader = make(without(wanted, partition))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches in order."""
        for batch in self._reader:
            self.units = self._reader.units
            yield with_partition(batch, self._partition, self._wanted)

    def took(self, seconds: float) -> None:
        """Pass it on."""
        self._reader.took(seconds)

    def progress(self) -> tuple[int, int]:
        """That of the file."""
        return self._reader.progress()


def without(wanted: Wanted, partition: Partition) -> Wanted:
    """What is asked of the file itself."""
    signature = wanted.signature
    if signature is None:
        return wanted
    names = {name for name, _ in partition}
    return wanted._replace(signature=_without(signature, names))


def _without(signature: Signature, names: set[str]) -> Signature:
    columns = tuple(column for column in signature.columns if column.name not in names)
    return Signature(columns, signature.exact, signature.converts, signature.whole, True)


def with_partition(batch: Batch, partition: Partition, wanted: Wanted) -> Batch:
    """A batch with what of a partition is asked for; the same one if that is nothing."""
    signature, keep = wanted.signature, wanted.keep
    typed = {column.name: column for column in signature.columns} if signature else None
    given = {name: value for name, value in partition if typed is None or name in typed}
    kept = {name: value for name, value in partition if keep == "all" or name in keep}
    if not given and not kept:
        return batch
    return PartitionBatch(batch, given, kept, typed or {}, partition)


class PartitionBatch(Batch):
    """Records with columns that have one value for all of them.

    A file may have such a column itself; a record in which that is another value is a failure.

    Args:
        batch: of the file.
        given: the columns that the model is given.
        kept: those that are kept.
        typed: the model's columns by name.
        partition: all that the file's directories say.
    """

    def __init__(
        self,
        batch: Batch,
        given: dict[str, str | None],
        kept: dict[str, str | None],
        typed: dict[str, Column],
        partition: Partition = (),
    ) -> None:
        self._batch, self._kept, self._partition = batch, kept, partition
        self._texts, self._typed = {**kept, **given}, typed
        self._given = {name: _value(typed.get(name), text) for name, text in given.items()}

    def count(self) -> int:
        """How many records there are."""
        return self._batch.count()

    def seen_by(self, signature: Signature | None) -> Batch:
        """The same records for another model; it may need others of these columns."""
        own = signature and _without(signature, {name for name, _ in self._partition})
        typed = {column.name: column for column in signature.columns} if signature else None
        given = {n: value for n, value in self._partition if typed is None or n in typed}
        inner = self._batch.seen_by(own)
        return PartitionBatch(inner, given, self._kept, typed or {}, self._partition)

    def records(self) -> Decoded:
        """The records with the columns that the model is given."""
        found = self._batch.records()
        rows = range(len(found.records)) if found.rows is None else found.rows
        good: list[Any] = []
        left: list[int] = []
        failures = list(found.failures)
        for record, row in zip(found.records, rows, strict=True):
            other = next((n for n in self._texts if n in record and self._differs(n, record)), None)
            if other is not None:
                said = (
                    f"column '{other}' is {record[other]!r} in the file, and its directory says "
                    f"{self._texts[other]!r}"
                )
                failures.append(Failure(row, "decode", "PartitionMismatchError", said))
                continue
            for name, value in self._given.items():
                if name not in record or name in self._typed:
                    record[name] = value
            good.append(record)
            left.append(row)
        if len(failures) == len(found.failures):
            return Decoded(good, found.rows, failures)
        return Decoded(good, left, failures)

    def _differs(self, name: str, record: dict[str, Any]) -> bool:
        text, value = self._texts[name], record[name]
        if value is None or text is None:
            return value is not text
        given = self._given.get(name, text)
        if str(value) == text or value == given:
            return False
        if isinstance(value, str):
            return bool(_value(self._typed.get(name), value) != given)
        number = isinstance(value, (int, float)) and NUMBER.fullmatch(text) is not None
        return not (number and float(text) == value)

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns; by way of dicts where the file may have such columns itself."""
        there = self._batch.names()
        if signature is None or not signature.exact or there is None:
            return super().table(signature, validate)
        if not self._texts.keys().isdisjoint(there):
            return super().table(signature, validate)
        if not self._given:
            return self._batch.table(signature, validate)
        own = _without(signature, set(self._given))
        if not own.columns:
            return super().table(signature, validate)
        found = self._batch.table(own, lambda record: validate({**record, **self._given}))
        columns = {name: found.records.column(name) for name in found.records.schema.names}
        for column in signature.columns:
            if column.name in self._given:
                made = _constant(column, self._given[column.name], len(found.records))
                if made is None:
                    return super().table(signature, validate)
                columns[column.name] = made
        import pyarrow as pa

        names = [column.name for column in signature.columns]
        batch = pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)
        return Decoded(batch, found.rows, found.failures)

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """What is kept of the file, and what its directories say."""
        kept = self._batch.keep(names, rows)
        if not self._kept:
            return kept
        if isinstance(kept, KeptTable):
            return KeptTable(_appended(kept.table, self._kept))
        return KeptWith(kept, self._kept)

    def position(self, row: int) -> Place:
        """That in the file."""
        return self._batch.position(row)

    def source(self, row: int) -> str | None:
        """The file that a record is in."""
        return self._batch.source(row)

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The record as it is in the file."""
        return self._batch.original(row, parsed)


class KeptWith(Kept):
    """What is kept of records, and columns that have one value for all of them.

    Args:
        kept: of each record, which may have such a column itself.
        columns: by name.
    """

    def __init__(self, kept: Kept, columns: dict[str, str | None]) -> None:
        self._kept, self._columns = kept, columns

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records."""
        return KeptWith(self._kept.take(rows), self._columns)

    def names(self, row: int) -> set[str]:
        """The columns that one record has."""
        return self._kept.names(row) | self._columns.keys()

    def clashing(self, names: Sequence[str]) -> Sequence[int]:
        """All rows if one of ours has such a name."""
        if self._columns.keys() & set(names):
            return range(len(self))
        return self._kept.clashing(names)

    def texts(self) -> list[bytes]:
        """Each record's columns as JSON, ours behind those of the file."""
        made = []
        for row, text in enumerate(self._kept.texts()):
            there = self._kept.names(row)
            added = {n: value for n, value in self._columns.items() if n not in there}
            before = text.strip()[:-1].rstrip()
            comma = b"," if len(before) > 1 and added else b""
            made.append(before + comma + orjson.dumps(added)[1:])
        return made

    def dicts(self) -> list[dict[str, Any]]:
        """Each record's columns as a dict."""
        return [{**one, **{n: v for n, v in self._columns.items() if n not in one}}
                for one in self._kept.dicts()]  # fmt: skip


def _value(column: Column | None, text: str | None) -> Any:
    """A text as the model's schema has it, if it is such a value."""
    convert = None if column is None or text is None else converter(column)
    if convert is None or text is None:
        return text
    try:
        return convert(text)
    except NotThatError:
        return text  # the model's schema says what is wrong


def _constant(column: Column, value: Any, count: int) -> Any | None:
    """A column of one value; ``None`` if it is not of the model's type."""
    import pyarrow as pa

    if column.kind not in KINDS or column.problem(value) is not None:
        return None
    return pa.repeat(pa.scalar(value, getattr(pa, KINDS[column.kind])()), count)


def _appended(table: Any, columns: dict[str, str | None]) -> Any:
    import pyarrow as pa

    for name, value in columns.items():
        if name not in table.schema.names:
            made = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
            table = table.append_column(name, made)
    return table


_HIDDEN = re.compile(r"\.|_(?!.*=)")


def is_hidden(path: str, root: str) -> bool:
    """Whether a directory between a root and a file is none of data: ``.x``, ``_temporary``."""
    folders = path[len(root) :].split("/")[:-1] if path.startswith(root) else []
    return any(_HIDDEN.match(folder) for folder in folders)
