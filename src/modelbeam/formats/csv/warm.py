"""Every path that a record may take, taken once with a record of our own."""

from __future__ import annotations

import io

from modelbeam.formats.base import Wanted
from modelbeam.formats.csv.batch import CsvBatch
from modelbeam.formats.csv.blocks import RecordBlock
from modelbeam.formats.csv.dialect import dialect_of
from modelbeam.formats.csv.records import record_ends
from modelbeam.formats.csv.writer import CsvWriter
from modelbeam.formats.layout import OutputColumn
from modelbeam.formats.reading import AS_IT_SAYS
from modelbeam.models.signature import Column, Signature
from modelbeam.predicting.outcome import Outcome

_FILE = b'f,i,s,b\n0.5,1,a,true\n"1",2,"b",false\n1,1.0,,0\n'
_SIGNATURE = Signature(
    (Column("f", "float"), Column("i", "int"), Column("s", "str", True), Column("b", "bool")),
    exact=True,
)


def warm_up(style: str) -> None:
    """Read and write."""
    dialect = dialect_of(_FILE, True, AS_IT_SAYS)
    if dialect is None:
        return
    data = _FILE[dialect.start :]
    found = record_ends(data, dialect.separator, dialect.newline)
    wanted = Wanted(style, keep="all", signature=_SIGNATURE)
    batch = CsvBatch(RecordBlock(data, 0, 0, 3, dialect=dialect, found=found), wanted)
    rows = batch.records().rows
    if style == "table":
        batch.table(Signature(_SIGNATURE.columns[:1], exact=True), dict)
        rows = batch.table(_SIGNATURE, dict).rows
    kept = batch.keep("all", rows)
    kept.take([0]).texts()
    batch.original(0, parsed=True)
    layout = tuple(map(OutputColumn, "fisby"))
    rows_only = Outcome(3, [{"y": 0.5}, {"y": [1]}, {"y": None}], False, None, kept, [])
    CsvWriter(io.BytesIO(), layout, header=True).write(rows_only)
    if style == "table":
        import pyarrow as pa

        for values in ([0.5, None, 1.5], ["a", "b,", ""], [True, False, None]):
            made = pa.RecordBatch.from_arrays([pa.array(values)], ["y"])
            table = Outcome(3, [made], True, None, kept, [])
            CsvWriter(io.BytesIO(), layout, header=True).write(table)
