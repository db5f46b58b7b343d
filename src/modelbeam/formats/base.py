"""What every format has in common."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """One piece of work: the lines of one file whose first byte is in ``[start, end)``.

    Attributes:
        index: place in the plan, from 0; it orders the shards.
        path: the file.
        start: first byte.
        end: byte after the last one; ``None`` for a compressed file, which is read to its end.
        size: the whole file's size in bytes when the plan was made.
        mtime_ns: its modification time in nanoseconds when the plan was made.
        compression: ``gzip``, ``bzip2``, ``zstd`` or ``None``.
    """

    index: int
    path: str
    start: int
    end: int | None
    size: int
    mtime_ns: int
    compression: str | None

    @property
    def key(self) -> str:
        """A name that is the same in every plan that holds this piece of this file."""
        identity = f"{self.path}\0{self.start}\0{self.end if self.compression is None else ''}"
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:20]

    @property
    def bytes(self) -> int:
        """How much of the file, as it is stored, this split reads."""
        return self.size if self.end is None else self.end - self.start

    def to_json(self) -> str:
        """The split as it crosses a shuffle."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))
