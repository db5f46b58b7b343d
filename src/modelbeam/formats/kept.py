"""What is kept of records that are columns already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from modelbeam.predicting.batch import Kept


class KeptTable(Kept):
    """Columns of Arrow.

    Args:
        table: a ``pyarrow.Table`` or ``RecordBatch``, a row a record.
    """

    def __init__(self, table: Any) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records."""
        import numpy as np

        if isinstance(rows, range) and rows.step == 1:
            return KeptTable(self.table.slice(rows.start, len(rows)))
        return KeptTable(self.table.take(np.array(rows, np.int64)))

    def names(self, row: int) -> set[str]:
        """The columns, which all records have."""
        return set(self.table.schema.names)

    def clashing(self, names: Sequence[str]) -> Sequence[int]:
        """All rows or none."""
        return range(len(self)) if set(names) & self.names(0) else ()

    def texts(self) -> list[bytes]:
        """Each record's columns as JSON."""
        from modelbeam.formats.jsonl.encode import encode_table
        from modelbeam.formats.jsonl.values import plain_value

        if not self.table.num_columns:
            return [b"{}"] * len(self)
        encoded = encode_table(self.table)
        if not encoded.failures:
            return bytes(encoded.data).splitlines()
        # NaN and infinity, which JSON has not, are null
        return [orjson.dumps(row, plain_value, orjson.OPT_NON_STR_KEYS) for row in self.dicts()]

    def dicts(self) -> list[dict[str, Any]]:
        """Each record's columns as a dict."""
        from modelbeam.formats.jsonl.values import rows_of

        return rows_of(self.table)
