"""Texts that stand in one piece of memory, so that none of them has to be an object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from modelbeam.predicting.failures import without_returns


class Texts(Sequence[bytes]):
    """Texts of JSON objects, perhaps with white space around them.

    Args:
        data: where they stand; what is between them is of no account.
        begins: where each begins, in bytes.
        ends: where each ends.
    """

    def __init__(self, data: bytes, begins: Any, ends: Any) -> None:
        self.data = data
        self.begins = np.ascontiguousarray(begins, np.int64)
        self.ends = np.ascontiguousarray(ends, np.int64)

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """The same texts, put together."""
        if isinstance(texts, Texts):
            return texts
        texts = list(texts)
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        return cls(b"".join(texts), np.concatenate(([0], ends[:-1])) if texts else ends, ends)

    @property
    def size(self) -> int:
        """The bytes of all."""
        return int((self.ends - self.begins).sum())

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> Texts: ...

    def __getitem__(self, row: int | slice) -> bytes | Texts:
        if isinstance(row, slice):
            return Texts(self.data, self.begins[row], self.ends[row])
        return without_returns(self.data[self.begins[row] : self.ends[row]])

    def __iter__(self) -> Iterator[bytes]:
        for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True):
            yield without_returns(self.data[begin:end])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: Sequence[int]) -> Texts:
        """Some of them, by their indices."""
        places = np.asarray(rows, np.int64)
        return Texts(self.data, self.begins[places], self.ends[places])

    def holding(self, parts: Iterable[bytes]) -> Sequence[int]:
        """The rows whose text holds one of some parts."""
        # without its last byte, which in a name is a quote: the search leaps over more at a time
        found = [part for part in parts if part[:-1] in self.data and part in self.data]
        if not found:
            return ()
        return [row for row, text in enumerate(self) if any(part in text for part in found)]
