"""Some records at a time, seen as whoever works on them likes: the seam between data and models.

A format (or a stream, or a pipeline) makes batches; a predictor takes them; a writer gets the
predictions together with what is kept of the batch. Nobody but the batch itself knows what its
records were made of: lines of text, the columns of a row group, messages, dicts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, NamedTuple

import orjson

from modelbeam.models.signature import Signature
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.failures import Failure, Place, moved

Keep = Literal["all"] | tuple[str, ...]
"""``all`` or the names of the input columns that stand beside the predictions; may be empty."""


class Decoded(NamedTuple):
    """What could be read of a batch.

    Attributes:
        records: dicts, or a ``pyarrow.RecordBatch``.
        rows: the row of each record in its batch; ``None`` where every row is a record.
        failures: one for each record that could not be read, or that the model does not take.
    """

    records: Any
    rows: list[int] | None
    failures: list[Failure]

    @property
    def read(self) -> int:
        """How many records there were."""
        return len(self.records) + len(self.failures)


class Kept(ABC):
    """The columns of some records that go into the output beside their predictions."""

    @abstractmethod
    def __len__(self) -> int:
        """How many records."""

    @abstractmethod
    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records, by their indices."""

    @abstractmethod
    def names(self, row: int) -> set[str]:
        """The columns that one record has."""

    def clashing(self, names: Sequence[str]) -> Sequence[int]:
        """The rows that may have a column of one of these names; a quick look, no certainty."""
        wanted = set(names)
        return [row for row in range(len(self)) if wanted & self.names(row)]

    @abstractmethod
    def texts(self) -> Sequence[bytes]:
        """Each record's kept columns as the text of a JSON object."""

    @abstractmethod
    def dicts(self) -> list[dict[str, Any]]:
        """Each record's kept columns as a dict, which is the caller's own."""


class KeptDicts(Kept):
    """What is kept of dicts.

    Args:
        kept: one dict a record.
    """

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, rows: Sequence[int]) -> Kept:
        """The same of some of the records."""
        return KeptDicts([self._kept[row] for row in rows])

    def names(self, row: int) -> set[str]:
        """The members that one record has."""
        return set(self._kept[row])

    def texts(self) -> list[bytes]:
        """The dicts as JSON."""
        return [orjson.dumps(kept) for kept in self._kept]

    def dicts(self) -> list[dict[str, Any]]:
        """The dicts."""
        return self._kept


class Batch(ABC):
    """Some records of one source, in its order.

    A row is a record's place in the batch, from 0; rows that hold no record (a blank line) are
    possible.
    """

    @abstractmethod
    def records(self) -> Decoded:
        """The records as dicts, which are the caller's own: a model may change them."""

    def table(
        self, signature: Signature | None, validate: Callable[[dict[str, Any]], Any]
    ) -> Decoded:
        """The records as an Arrow batch of a signature's columns; what does not fit is a failure.

        Args:
            signature: the columns; without one they are those of the records.
            validate: called on each record where the signature does not say all; may raise.
        """
        decoded = self.records()
        batch, fitting, failures = to_batch(decoded.records, signature, validate)
        failures = decoded.failures + [moved(failure, decoded.rows) for failure in failures]
        return Decoded(batch, composed(decoded.rows, fitting), failures)

    def plain_table(self, signature: Signature) -> Decoded | None:
        """What :meth:`table` returns, where no code of the schema's has to see a record for it.

        ``None`` where it has to, or if that is not known.
        """
        return None

    def keep(self, names: Keep, rows: list[int] | None) -> Kept:
        """Some columns of some rows (``None``: of all), as they were before any model saw them."""
        decoded = self.records()
        records = decoded.records
        if rows is not None:
            by_row = dict(zip(decoded.rows or range(len(records)), records, strict=True))
            records = [by_row[row] for row in rows]
        if names != "all":
            records = [{name: one[name] for name in names if name in one} for one in records]
        return KeptDicts(records)

    def count(self) -> int:
        """How many records there are, those that cannot be read included."""
        return self.records().read

    def seen_by(self, signature: Signature | None) -> Batch:
        """The same records for a model of this signature, where that decides what they are.

        What was read and taken apart is shared; the values are converted for each model.
        """
        return self

    def names(self) -> Collection[str] | None:
        """The columns of all records, as far as they were read; ``None`` if each has its own."""
        return None

    @abstractmethod
    def position(self, row: int) -> Place:
        """Where the record of a row is in its source."""

    def source(self, row: int) -> str | None:
        """The file or URL of a row's record, if the batch holds records of several."""
        return None

    @abstractmethod
    def original(self, row: int, parsed: bool) -> dict[str, Any]:
        """The members of an error line that hold the record as it was.

        Args:
            row: which one.
            parsed: whether it could be read at all; otherwise its text or bytes are all there is.
        """


def composed(outer: list[int] | None, inner: list[int] | None) -> list[int] | None:
    """Rows of rows, where ``None`` stands for all of them in order."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return [outer[row] for row in inner]
