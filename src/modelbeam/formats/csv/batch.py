"""A block of records as the batch that models are given."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelbeam.formats.base import Wanted
from modelbeam.formats.csv.blocks import RecordBlock
from modelbeam.formats.csv.fields import CsvError, NotThatError, converter, misfit, split
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.lines import LinesBatch
from modelbeam.formats.named import nulls
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.batch import Decoded, Keep, Kept, KeptDicts
from modelbeam.predicting.failures import Failure, original_text


class HeaderAgainError(ValueError):
    """The header stands in the middle, as where files were put together."""


class CsvBatch(LinesBatch):
    """The records of a block; their values are texts unless the model's schema says otherwise.

    Args:
        block: the records.
        wanted: the columns that the model has and that are kept.
    """

    block: RecordBlock

    def __init__(self, block: RecordBlock, wanted: Wanted) -> None:
        super().__init__(block)
        self._signature, self._keep = wanted.signature, wanted.keep
        self._split: tuple[list[list[str | None]], list[int], list[Failure]] | None = None
        self._strings: Any = None
        self._shared: CsvBatch | None = None

    def records(self) -> Decoded:
        """The records as dicts."""
        fields, rows, failures = self._fields()
        failures = list(failures)
        names = self.block.dialect.names
        records = [dict(zip(names, one, strict=False)) for one in fields]
        if "" in names:
            for record in records:
                del record[""]
        columns = [c for c in (self._signature.columns if self._signature else ()) if c.name]
        for column in columns:
            if column.name in names and column.kind != "str":
                failures += self._converted(column, records, rows)
        missing = [c.name for c in (self._signature.null_without(names) if self._signature else ())]
        for record in records if missing else ():
            record.update(dict.fromkeys(missing))
        if len(failures) > len(self._fields()[2]):
            lost = {failure.row for failure in failures}
            good = [at for at, row in enumerate(rows) if row not in lost]
            records, rows = [records[at] for at in good], [rows[at] for at in good]
            failures = _first_each(failures)
        return Decoded(records, rows, failures)

    def seen_by(self, signature: Signature | None) -> CsvBatch:
        """The same fields, converted as another model's columns say."""
        other = copy.copy(self)
        other._signature = signature
        other._shared = self
        return other

    def names(self) -> tuple[str, ...]:
        """The columns of the header."""
        return self.block.dialect.names

    def count(self) -> int:
        """How many records there are, whatever they hold."""
        fields, _, failures = self._fields()
        return len(fields) + len(failures)

    def _converted(
        self, column: Column, records: list[dict[str, Any]], rows: list[int]
    ) -> list[Failure]:
        """Make values of the texts of a column; a failure for each that is none of its type."""
        convert = converter(column)
        name = column.name
        failures = []
        # what has code of its own may take more than its type says
        strict = self._signature is not None and (
            self._signature.exact or not self._signature.converts
        )
        for record, row in zip(records, rows, strict=True):
            text = record[name]
            if text is None:
                continue
            if text == "" and column.kind != "any":
                record[name] = None
            elif convert is not None:
                try:
                    record[name] = convert(text)
                except NotThatError:
                    if strict:
                        said = misfit(column, text)
                        failures.append(Failure(row, "validate", "WrongTypeError", said))
        return failures

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as columns; where not all is certain, by way of dicts."""
        if signature is not None and signature.exact:
            batch = self._columns(signature)
            if batch is not None:
                return Decoded(batch, None, [])
        return super().table(signature, validate)

    def _columns(self, signature: Signature) -> Any | None:
        """The model's columns, or ``None`` where a closer look is needed."""
        import pyarrow as pa

        names = self.block.dialect.names
        missing = signature.null_without(names)
        if not all(column.name in names or column in missing for column in signature.columns):
            return None
        strings = self._all_strings()
        if strings is None:
            return None
        arrays = [
            nulls(column, len(strings))
            if column in missing
            else _typed(column, strings.column(column.name))
            for column in signature.columns
        ]
        if any(array is None for array in arrays):
            return None
        return pa.RecordBatch.from_arrays(arrays, names=[c.name for c in signature.columns])

    def _all_strings(self) -> Any | None:
        """All needed columns as texts, by Arrow; ``None`` where it may see another thing."""
        if self._shared is not None:
            return self._shared._all_strings()
        if self._strings is None:
            self._strings = _strings(self.block, self._needed()) or False
        return self._strings or None

    def _needed(self) -> list[str]:
        names = [name for name in self.block.dialect.names if name]
        if self._keep == "all" or self._signature is None:
            return names
        wanted = {*self._keep, *(column.name for column in self._signature.columns)}
        return [name for name in names if name in wanted]

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some columns, as the texts that they are."""
        there = [n for n in self.block.dialect.names if n and (names == "all" or n in names)]
        if names != "all":
            there = [name for name in dict.fromkeys(names) if name in there]
        if self._strings and set(there) <= set(self._strings.schema.names):
            chosen = self._strings.select(there)
            if rows is not None:
                chosen = chosen.take(np.array(rows, np.int64))
            return KeptTable(chosen)
        fields, found, _ = self._fields()
        by_row = dict(zip(found, fields, strict=True))
        some = [by_row[row] for row in (found if rows is None else rows)]
        places = [(name, self.block.dialect.names.index(name)) for name in there]
        return KeptDicts([{name: one[place] for name, place in places} for one in some])

    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The record as an object of texts, or its text if it could not be read."""
        dialect = self.block.dialect
        raw = self.block.raw(row)
        if parsed:
            fields = split(raw.decode(dialect.encoding), dialect.delimiter)
            named = zip(dialect.names, fields, strict=False)
            return {"record": {name: value for name, value in named if name}}
        if dialect.encoding != "utf-8":
            try:
                return {"record": raw.decode(dialect.encoding)}
            except UnicodeDecodeError:
                pass
        return original_text(raw, parsed=False)

    def _fields(self) -> tuple[list[list[str | None]], list[int], list[Failure]]:
        """The fields of each record that has as many as there are columns; and the failures."""
        if self._shared is not None:
            return self._shared._fields()
        if self._split is None:
            self._split = self._split_all()
        return self._split

    def _split_all(self) -> tuple[list[list[str | None]], list[int], list[Failure]]:
        block, dialect = self.block, self.block.dialect
        found, rows, failures = [], [], []
        width, most = len(dialect.names), len(dialect.names) + dialect.empty
        names = list(dialect.names) + [None] * dialect.empty
        for row in range(len(block.bounds[0])):
            raw = block.raw(row)
            try:
                fields = split(raw.decode(dialect.encoding), dialect.delimiter)
            except UnicodeDecodeError:
                what = f"the record is not valid {dialect.encoding.upper()}"
                failures.append(Failure(row, "decode", "UnicodeDecodeError", what))
                continue
            except CsvError as error:
                failures.append(Failure.of(row, "decode", error))
                continue
            if not width <= len(fields) <= most or any(fields[width:]):
                if most > 1 and len(fields) == 1 and not raw.strip():
                    continue  # a blank line
                counted = f"{len(fields)} field{'s' if len(fields) != 1 else ''}"
                columns = f"{width} column{'s' if width != 1 else ''}"
                said = f"the record has {counted}, and there are {columns}"
                failures.append(Failure(row, "decode", CsvError.__name__, said))
            elif fields[0] == names[0] and [f or "" for f in fields[:width]] == names[:width]:
                said = "the header again, as where files are put together"
                failures.append(Failure(row, "decode", HeaderAgainError.__name__, said))
            else:
                found.append(fields[:width])
                rows.append(row)
        return found, rows, failures


def _first_each(failures: Sequence[Failure]) -> list[Failure]:
    """One failure a record."""
    by_row: dict[int, Failure] = {}
    for failure in failures:
        by_row.setdefault(failure.row, failure)
    return sorted(by_row.values(), key=lambda failure: failure.row)


def _strings(block: RecordBlock, needed: list[str]) -> Any | None:
    """Columns of a block as texts, read by Arrow; ``None`` where anything is unusual."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    dialect = block.dialect
    data = block.data
    if not block.found.plain or not len(data) or dialect.newline != 0x0A:
        return None
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return None  # Arrow takes a lone return for a line's end
    if dialect.encoding != "utf-8":
        try:
            data = data.decode(dialect.encoding).encode()
        except UnicodeDecodeError:
            return None
    spare = [f"\0{number}" for number in range(dialect.empty)]
    unnamed = [name or f"\0unnamed{at}" for at, name in enumerate(dialect.names)]
    if not needed:
        return None
    try:
        table = csv.read_csv(
            io.BytesIO(data),
            csv.ReadOptions(
                use_threads=False, block_size=len(data) + 64, column_names=[*unnamed, *spare]
            ),
            csv.ParseOptions(
                delimiter=dialect.delimiter,
                newlines_in_values=block.found.quoted,
                ignore_empty_lines=len(dialect.names) + dialect.empty > 1,
            ),
            csv.ConvertOptions(
                column_types={name: pa.string() for name in [*needed, *spare]},
                include_columns=[*needed, *spare],
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowException:
        return None
    if table.num_rows != len(block.bounds[0]):
        return None
    if any(table.column(name).null_count != table.num_rows for name in spare):
        return None
    first = needed[0]
    if pc.any(pc.equal(table.column(first), first)).as_py():
        return None  # perhaps the header again
    table = table.select(needed).combine_chunks()
    batches = table.to_batches()
    return batches[0] if len(batches) == 1 else None


def _typed(column: Column, strings: Any) -> Any | None:
    """An Arrow array of a column's type, or ``None`` where a closer look is needed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if strings.null_count and not column.nullable:
        return None
    try:
        if column.kind == "str":
            made = strings
        elif column.kind == "float":
            made = pc.cast(strings, pa.float64())
            if not pc.all(pc.is_finite(made)).as_py() and made.null_count < len(made):
                return None
        elif column.kind == "int":
            if not pc.all(pc.match_substring_regex(strings, "^-?[0-9]{1,18}$")).as_py():
                return None
            made = pc.cast(strings, pa.int64())
        else:
            return None
        if column.bounded and made.null_count < len(made):
            ends = pc.min_max(made).as_py()
            if column.problem(ends["min"]) or column.problem(ends["max"]):
                return None
    except pa.ArrowException:
        return None
    return made
