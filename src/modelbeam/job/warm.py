"""All that modelbeam itself needs in a model's process is imported before the model's first call.

A library that one thread is in the midst of importing is seen half imported by another
(scikit-learn looks at ``sys.modules["polars"]`` to find out whether it was given a frame), and what
stands in ``sys.modules`` must not change under a model. So every path that a record may take is
taken once with a record of our own, before the model's first call.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterable
from typing import Any

from modelbeam import formats
from modelbeam.formats import compression
from modelbeam.formats.jsonl.batch import JsonBatch
from modelbeam.formats.jsonl.writer import LinesWriter
from modelbeam.formats.lines import LineBlock
from modelbeam.models.base import ModelInfo, Style
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.batch import Kept
from modelbeam.predicting.failures import error_line
from modelbeam.predicting.outcome import Outcome
from modelbeam.profile.collector import Collector
from modelbeam.profile.wants import Wants

_LINES = b'{"f": 0.5, "i": 1, "s": "a", "b": true, "l": [1]}\n' * 2
_ODD = b'{"f": 0, "i": 0.5}\n{}\nnull\n{\n\xff\n'
_SIGNATURE = Signature(
    (Column("f", "float"), Column("i", "int"), Column("s", "str"), Column("b", "bool")), exact=True
)
_ANY = Signature((Column("f", "any"), Column("l", "any")), exact=False)


def warm_up(info: ModelInfo) -> None:
    """Import what a model of this style can need of ours; call it before the model's first call."""
    for name in formats.COMPRESSIONS.values():
        stream = io.BytesIO()
        with compression.compressed(stream, name) as packed:
            packed.write(_LINES)
        stream.seek(0)
        compression.decompressed(stream, name).read(1)
    for lines in (_LINES, _LINES + _ODD):
        batch = JsonBatch(LineBlock(lines, 0, 0, lines.count(b"\n")))
        decoded = batch.records()
        for failure in decoded.failures:
            original = batch.original(failure.row, parsed=False)
            error_line("", batch.position(failure.row), "", failure, original)
        if info.style == "table":
            for signature in (
                _SIGNATURE,
                Signature(_SIGNATURE.columns[:2], exact=True),
                _ANY,
                None,
            ):
                batch.table(signature, dict)
    for kept in (batch.keep("all", [0, 1]), batch.keep(("l",), [0, 1]), None):
        _write([{"y": 0.5}, {"y": {"a": [math.nan, object()]}}], False, kept)
        if info.style == "table":
            _write_tables(kept)


_warm: set[str] = set()
_warming = threading.Lock()


def warm_formats(names: Iterable[str], style: Style) -> None:
    """Import what some formats need beside that; once, while all other threads wait."""
    with _warming:
        for name in names:
            if name not in _warm:
                formats.find(name).warm_up(style)
                _warm.add(name)


def warm_profile(style: Style) -> None:
    """Import what collecting for the report needs beside that; once, as above."""
    with _warming:
        if "a profile" in _warm:
            return
        _warm.add("a profile")
        columns = style == "table"
        batch = JsonBatch(LineBlock(_LINES, 0, 0, _LINES.count(b"\n")))
        decoded = batch.table(_SIGNATURE, dict) if columns else batch.records()
        collector = Collector(Wants())
        collector.decoded("", decoded)
        made = [decoded.records] if columns else decoded.records
        collector.predicted("", batch, "", Outcome(2, made, columns, None, None, []), [])
        collector.to_bytes()


def _write(values: list[Any], table: bool, kept: Kept | None) -> None:
    LinesWriter(io.BytesIO()).write(Outcome(2, values, table, None, kept, []))


def _write_tables(kept: Kept | None) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute

    columns = [
        pa.array([0.5, 1.5]),
        pa.array([0.5, math.nan]),
        pa.array(np.array([0.5, 1.5], np.float32)),
        pa.array(["a", None]),
        pa.array(["a", "b"]),
        pa.array([1, 2]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([[0.5], []]),
        pa.array([{"a": 1}, None]),
        pa.array([0, 1], pa.timestamp("us", "UTC")),
    ]
    names = [str(number) for number in range(len(columns))]
    for name, column in zip(names, columns, strict=True):
        batch = pa.RecordBatch.from_arrays([column], [name])
        _write([batch], True, kept)
        _write([batch.take(np.array([1, 0]))], True, kept)
    _write([pa.Table.from_arrays(columns, names)], True, kept)
