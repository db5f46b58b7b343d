"""The predictions of a finished run as a table in memory, whatever format they are written in.

Parquet, Arrow and Avro say the types themselves. Of CSV the run knows those of the columns that it
wrote; a column whose type it does not know is text. Of JSON a column has the type that holds all of
its values; where no type does, it is text: each value as JSON has it, texts as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from modelbeam import formats, storage
from modelbeam.errors import RequestError
from modelbeam.formats.base import Wanted
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.sources import source_of

_WHOLE = 1 << 62
"""Bytes of a split or a record: no limit."""


def arrow_table(shards: tuple[str, ...], description: dict[str, Any]) -> Any:
    """All predictions, in the order of the input.

    Args:
        shards: the files of predictions.
        description: of the run, as ``run.json`` has it.

    Returns:
        A ``pyarrow.Table``.

    Raises:
        RequestError: the run has no files of predictions of its own.
        InputReadError: one of them cannot be read.
    """
    import pyarrow as pa

    if "job" not in description:
        raise RequestError(
            f"The predictions of a streaming run are no table; they are in "
            f"{description['output']}, which goes on growing."
        )
    settings = description["job"]["settings"]
    kind = formats.parse(settings["--output-format"].removeprefix("."), "--output-format")
    types = dict(settings.get("output columns") or ())
    parts = [part for path in shards for part in _parts(path, kind)]
    if kind.name == "csv":
        parts = [Part(part.rows, _typed(part.table, types)) for part in parts]
    if not parts:
        return pa.table({name: pa.array([], _type(said)) for name, said in types.items()})
    return _joined(parts)


class Part(NamedTuple):
    """Some rows as a table; how many there are, a table without columns does not know."""

    rows: int
    table: Any


def _parts(path: str, kind: formats.Format) -> Iterator[Part]:
    """A file's rows as tables, each with the types of its own values."""
    source = source_of(path)
    told = Reading(",", "utf-8", None) if kind.name == "csv" else AS_IT_SAYS
    info = storage.stat(path)
    splits, _ = source.plan([info], _WHOLE, input_format=kind, earlier=None, reading=told)
    wanted = Wanted("record", longest=_WHOLE, keep="all")
    for piece in (piece for split in splits for piece in split.pieces):
        for batch in source.reader(piece, wanted):
            kept = batch.keep("all", None)
            if len(kept):
                rows = kept.table if isinstance(kept, KeptTable) else kept.dicts()
                yield Part(len(kept), _as_table(rows))


def _as_table(rows: Any) -> Any:
    import pyarrow as pa

    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, pa.Table):
        return rows
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _array([row.get(name) for row in rows]) for name in names})


def _array(values: list[Any]) -> Any:
    """Values in the type that holds them all, or as text."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, str, orjson.OPT_NON_STR_KEYS).decode()


def _joined(parts: list[Part]) -> Any:
    """One table, with all columns of all."""
    import pyarrow as pa

    schema = parts[0].table.schema
    if all(part.table.schema.equals(schema) for part in parts):
        return pa.concat_tables([part.table for part in parts])
    names = dict.fromkeys(name for part in parts for name in part.table.schema.names)
    return pa.table({name: _column(parts, name) for name in names})


def _column(tables: list[Part], name: str) -> Any:
    """A column of several tables, in the type that holds the values of all of them."""
    import pyarrow as pa

    parts = [
        table.column(name) if name in table.schema.names else pa.nulls(rows)
        for rows, table in tables
    ]
    try:
        schemas = [pa.schema([("", part.type)]) for part in parts]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        made = [_cast(part, kind) for part in parts]
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        kind = pa.string()
        made = [pa.array(map(_text, part.to_pylist()), kind) for part in parts]
    return pa.chunked_array(
        [chunk for part in made for chunk in getattr(part, "chunks", [part])], kind
    )


def _cast(part: Any, kind: Any) -> Any:
    import pyarrow as pa

    if part.type == kind:
        return part
    if pa.types.is_nested(kind):
        return pa.array(part.to_pylist(), kind)
    if pa.types.is_string(kind) and not (
        pa.types.is_null(part.type) or pa.types.is_large_string(part.type)
    ):
        raise TypeError("a text as JSON has it is another one than Arrow's")
    return part.cast(kind)


# CSV


def _typed(table: Any, types: dict[str, str | None]) -> Any:
    """The texts of a CSV file in the types of the columns that the run wrote."""
    import pyarrow as pa

    made = {}
    for name in table.schema.names:
        column, kind = table.column(name), _type(types.get(name))
        try:
            made[name] = _parsed(column, kind)
        except (pa.ArrowException, ValueError, TypeError, orjson.JSONDecodeError):
            made[name] = column
    return pa.table(made)


def _parsed(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if column.type == kind:
        return column
    if pa.types.is_nested(kind):
        texts = column.to_pylist()
        return pa.array(
            [None if text in (None, "") else orjson.loads(text) for text in texts], kind
        )
    if pa.types.is_string(column.type):
        texts = [None if text == "" else text for text in column.to_pylist()]
        column = pa.array(texts, pa.string())
    return column.cast(kind)


def _type(said: str | None) -> Any:
    """An Arrow type by the text that Arrow writes of it; text where it cannot be read."""
    import pyarrow as pa

    if said is None:
        return pa.string()
    if said.startswith("list<item: ") and said.endswith(">"):
        return pa.list_(_type(said[len("list<item: ") : -1]))
    try:
        return pa.type_for_alias(said)
    except ValueError:
        return pa.string()
