"""Predictions, after what is kept of their records, as a file of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson

from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.encode import member_texts, plain_rows
from modelbeam.formats.kept import KeptTable
from modelbeam.formats.layout import Layout, UnknownColumnError, unknown
from modelbeam.predicting.batch import Kept
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.storage import write_all

_SPECIAL = set('",\t\n\r')


class CsvWriter(Writer):
    """Writes a record a prediction, with the columns of the layout in its order.

    Args:
        handle: where to.
        layout: the columns.
        header: whether they are named first.
        delimiter: a comma or a tab, which is in quotes both ways.
    """

    def __init__(
        self, handle: BinaryIO, layout: Layout, header: bool, delimiter: str = ","
    ) -> None:
        self._handle, self._delimiter = handle, delimiter
        self._names = [column.name for column in layout]
        self._known = set(self._names)
        if header and self._names:
            line = delimiter.join(quoted(name) for name in self._names) + "\n"
            write_all(handle, line.encode())

    def write(self, outcome: Outcome) -> list[Failure]:
        """Write the predictions of a batch."""
        if outcome.table:
            done = self._write_columns(outcome)
            if done:
                return []
        rows, good, failures = plain_rows(outcome)
        kept = _texts_of(outcome.kept, good)
        lines = []
        for at, (row, prediction) in enumerate(zip(good, rows, strict=True)):
            texts = {name: text_of(value) for name, value in prediction.items()}
            if kept is not None:
                texts = {**kept[at], **texts}
            other = next((name for name in texts if name not in self._known), None)
            if other is not None:
                said = unknown(other)
                failures.append(Failure(row, "encode", UnknownColumnError.__name__, said))
                continue
            lines.append(self._delimiter.join([texts.get(name, "") for name in self._names]) + "\n")
        if lines:
            write_all(self._handle, "".join(lines).encode())
        self.rows += len(lines)
        return failures

    def close(self) -> None:
        """Nothing belongs at the end."""

    def _write_columns(self, outcome: Outcome) -> bool:
        """Write columns without a look at each value; not if one of them needs that."""
        blocks = []
        at = 0
        for piece in outcome.values:
            kept = None if outcome.kept is None else outcome.kept.take(range(at, at + len(piece)))
            block = self._block(piece, kept)
            if block is None:
                return False
            blocks.append(block)
            at += len(piece)
        for block in blocks:
            write_all(self._handle, block)
        self.rows += at
        return True

    def _block(self, piece: Any, kept: Kept | None) -> Any | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        columns: dict[str, Any] = {}
        if kept is not None:
            if not isinstance(kept, KeptTable):
                return None
            columns.update(zip(kept.table.schema.names, kept.table.columns, strict=True))
        columns.update(zip(piece.schema.names, piece.columns, strict=True))
        if not columns.keys() <= self._known or not len(piece):
            return None
        texts = []
        for name in self._names:
            column = columns.get(name)
            text = pa.scalar("") if column is None or column.type == pa.null() else _column(column)
            if text is None:
                return None
            texts.append(text)
        if all(isinstance(text, pa.StringScalar) for text in texts):
            return None
        texts[-1] = pc.binary_join_element_wise(texts[-1], "\n", "")
        lines = pc.binary_join_element_wise(*texts, self._delimiter) if len(texts) > 1 else texts[0]
        if isinstance(lines, pa.Scalar):
            return None
        ends = np.frombuffer(lines.buffers()[1], np.int32)[
            lines.offset : lines.offset + len(lines) + 1
        ]
        return memoryview(lines.buffers()[2])[int(ends[0]) : int(ends[-1])]


def quoted(text: str) -> str:
    """A text as a field, in quotes where it would be read as another thing without."""
    if not text:
        return '""'
    if _SPECIAL.isdisjoint(text) and text[0] != " " and text[-1] != " ":
        return text
    return '"' + text.replace('"', '""') + '"'


def text_of(value: Any) -> str:
    """A plain value as a field: nothing for null, JSON for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, str):
        return quoted(value)
    text = orjson.dumps(value).decode()
    return quoted(text) if isinstance(value, (list, dict)) else text


def _texts_of(kept: Kept | None, rows: Sequence[int]) -> list[dict[str, str]] | None:
    """The fields of what is kept of some records; numbers as they were written."""
    if kept is None:
        return None
    made = []
    for text in kept.take(rows).texts():
        fields = {}
        for name, value in member_texts(text).items():
            number = value[:1] not in b'"{[tfn'
            fields[name] = value.decode() if number else text_of(orjson.loads(value))
        made.append(fields)
    return made


def _column(column: Any) -> Any | None:
    """A column as fields, or ``None`` if its type needs a look at each value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    kind = column.type
    if pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type):
        column, kind = column.cast(pa.string()), pa.string()
    if pa.types.is_string(kind):
        needs = pc.match_substring_regex(column, '[",\\t\\r\\n]|^ | $|^$')
        if pc.any(needs).as_py():
            inner = pc.replace_substring(column, '"', '""')
            marked = pc.binary_join_element_wise('"', inner, '"', "")
            column = pc.if_else(needs, marked, column)
    elif pa.types.is_boolean(kind):
        column = pc.if_else(column, "true", "false")
    elif pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64()):
        numbers = column
        if column.null_count:
            numbers = column.fill_null(0)
        values = numbers.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return None
        written = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
        made = pa.array(written[1:-1].split(b","), pa.binary()).cast(pa.string())
        column = pc.if_else(column.is_valid(), made, None) if column.null_count else made
    else:
        return None
    return pc.coalesce(column, "") if column.null_count else column
