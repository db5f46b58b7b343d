"""Splits: the units of work of a job over files, planned by sizes alone."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

from modelbeam import formats
from modelbeam.errors import InputReadError
from modelbeam.formats.base import Cut, Piece
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.storage import FileInfo

MIB = 1 << 20

SPLITS_WANTED = 64
SMALLEST_SPLIT = 1 * MIB
LARGEST_SPLIT = 64 * MIB

COMPRESSED = 4
"""How many times as much work a byte of a compressed file is taken for."""

PLAN_FILE = "plan.jsonl"
"""In a job's state, for an engine's workers and for resuming: the splits, one a line."""


@dataclass(frozen=True, slots=True)
class Split:
    """One piece of work: a piece of one file, or several small files, whole.

    Attributes:
        index: place in the plan, from 0; it orders the shards.
        pieces: what is read, in order.
        part: which part of its shard it is, from 0; always the first, unless so many shards were
            asked for.
    """

    index: int
    pieces: tuple[Piece, ...]
    part: int = 0

    @property
    def key(self) -> str:
        """A name that is the same in every plan that holds just these pieces."""
        places = (
            f"{p.path}\0{p.start}\0{p.end if p.compression is None else ''}"
            + ("" if p.records is None else f"\0first {p.records}")
            for p in self.pieces
        )
        rest = "\0\0rest" if self.part else ""  # of a shard: a first part may have a header
        return _digest("\0\0".join(places) + rest)

    @property
    def stamp(self) -> str:
        """A digest of the sizes and modification times of the files: it tells if one changed."""
        return _digest(" ".join(f"{piece.size} {piece.mtime_ns}" for piece in self.pieces))

    @property
    def bytes(self) -> int:
        """How much of the files, as they are stored, this split reads."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        more = len(self.pieces) - 1
        others = f" and {more} more file{'s' if more > 1 else ''}" if more else ""
        return self.pieces[0].place + others

    def to_json(self) -> str:
        """The split as it crosses a shuffle."""
        part = {"part": self.part} if self.part else {}
        pieces = [{name: getattr(piece, name) for name in _FIELDS} for piece in self.pieces]
        return json.dumps({"index": self.index, "pieces": pieces, **part})

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        return cls(data["index"], tuple(map(_piece, data["pieces"])), data.get("part", 0))


_FIELDS = tuple(field.name for field in fields(Piece))


def _piece(data: dict[str, Any]) -> Piece:
    delimiter, encoding, columns = data["reading"]
    columns = None if columns is None else tuple(columns)
    partition = tuple((name, value) for name, value in data["partition"])
    told = Reading(delimiter, encoding, columns)
    return Piece(**{**data, "reading": told, "partition": partition})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def to_lines(splits: Iterable[Split]) -> bytes:
    """A plan as ``plan.jsonl`` holds it."""
    return "".join(split.to_json() + "\n" for split in splits).encode()


def from_lines(content: bytes) -> list[Split]:
    """Read what :func:`to_lines` made."""
    return [Split.from_json(line.decode()) for line in content.splitlines()]


def default_split_size(files: Sequence[FileInfo]) -> int:
    """Bytes per split: some 64 splits a job, none under 1 MiB or over 64 MiB.

    It follows from the inputs' sizes alone, never from the machine, so that a run may be resumed
    elsewhere.
    """
    total = sum(info.size for info in files)
    return min(max(total // SPLITS_WANTED, SMALLEST_SPLIT), LARGEST_SPLIT)


def plan_splits(
    files: Sequence[FileInfo],
    split_size: int,
    *,
    input_format: formats.Format | None = None,
    known: Mapping[str, formats.Format] | None = None,
    reading: Reading = AS_IT_SAYS,
    first: int | None = None,
) -> list[Split]:
    """Cut large files into pieces and put small ones together, in order.

    Small files share a split as long as there are still some 64 splits, so that many of them cost
    no more than one large file, and few of them are still done side by side.

    Args:
        files: the inputs.
        split_size: bytes per split, about.
        input_format: of all files; by default each file's suffix tells.
        known: the format and compression of files that were looked at, by path.
        reading: how the files are to be read, where they do not say it.
        first: how many records of the last file are read, which has so many; ``None`` for all.
    """
    room = min(split_size, sum(info.size for info in files) // SPLITS_WANTED)
    splits: list[Split] = []
    small: list[Piece] = []
    taken = 0
    for info in files:
        kind = (known or {}).get(info.path) or named(info, input_format)
        found = _pieces(info, split_size, kind, reading)
        if first is not None and info is files[-1]:
            found = _first(found, first)
        pieces = list(found)
        work = info.size * (COMPRESSED if pieces[0].compression else 1)
        if small and (len(pieces) > 1 or taken + work > room):
            splits.append(Split(len(splits), tuple(small)))
            small, taken = [], 0
        if len(pieces) > 1:
            splits += [Split(len(splits) + i, (piece,)) for i, piece in enumerate(pieces)]
        else:
            small += pieces
            taken += work
    if small:
        splits.append(Split(len(splits), tuple(small)))
    return splits


def size_for_shards(total: int, size: int, shards: int) -> int:
    """A split size that is no larger, and of which each of so many shards holds a whole number."""
    shard = max(1, -(-total // shards))
    return max(1, -(-shard // -(-shard // size)))


def in_shards(splits: Sequence[Split], shards: int) -> list[Split]:
    """The same splits as parts of so many shards, no fewer than one each.

    Each shard ends where a split does, as near as possible to its share of the bytes to be read.
    """
    ends = list(accumulate(map(_work, splits)))
    starts: list[int] = []
    for shard in range(shards):
        share = shard * ends[-1] / shards
        at = bisect_left(ends, share) + 1 if shard else 0
        if at > 1 and share - (ends[at - 2]) < ends[at - 1] - share:
            at -= 1
        earliest = starts[-1] + 1 if starts else 0
        starts.append(min(max(at, earliest), len(splits) - (shards - shard)))
    begins = set(starts)
    made: list[Split] = []
    for split in splits:
        part = 0 if split.index in begins else made[-1].part + 1
        made.append(replace(split, part=part))
    return made


def _work(split: Split) -> int:
    return sum(piece.bytes * (COMPRESSED if piece.compression else 1) for piece in split.pieces)


def named(info: FileInfo, input_format: formats.Format | None) -> formats.Format:
    """The format of a file by its name."""
    by_suffix = input_format or formats.from_suffix(info.path) or formats.Format("jsonl")
    return formats.Format(by_suffix.name, formats.compression_of(info.path))


def planned_again(
    earlier: Sequence[Split],
    files: Sequence[FileInfo],
    split_size: int,
    *,
    input_format: formats.Format | None = None,
    known: Mapping[str, formats.Format] | None = None,
    reading: Reading = AS_IT_SAYS,
) -> list[Split]:
    """The plan of a run that is resumed, in which only files that changed are cut again.

    All others stay in the pieces and splits that they were in, also where a file that was repaired
    has more pieces now. The arguments are those of :func:`plan_splits`, after the earlier plan.
    """
    settings: dict[str, Any] = {"input_format": input_format, "known": known, "reading": reading}
    if [*dict.fromkeys(p.path for s in earlier for p in s.pieces)] != [i.path for i in files]:
        return plan_splits(files, split_size, **settings)  # another job; resuming will refuse it
    now = {info.path: info for info in files}
    again: dict[str, list[Piece]] = {}
    splits: list[tuple[Piece, ...]] = []
    for split in earlier:
        together: list[Piece] = []
        for piece in split.pieces:
            info = now[piece.path]
            if (info.size, info.mtime_ns) == (piece.size, piece.mtime_ns):
                together.append(piece)
            elif piece.path not in again:
                kind = (known or {}).get(piece.path) or named(info, input_format)
                made = again[piece.path] = list(_pieces(info, split_size, kind, reading))
                if len(made) == 1:
                    together += made
                else:
                    splits += [tuple(together)] if together else []
                    splits += [(one,) for one in made]
                    together = []
        splits += [tuple(together)] if together else []
    return [Split(index, pieces) for index, pieces in enumerate(splits)]


def needed(
    files: Sequence[FileInfo],
    limit: int,
    kind_of: Callable[[FileInfo], formats.Format],
    reading: Reading,
) -> tuple[Sequence[FileInfo], int | None]:
    """The files that hold the first records.

    Args:
        files: all of them.
        limit: how many records are wanted.
        kind_of: looks at a file.
        reading: how the files are to be read, where they do not say it.

    Returns:
        The files, and how many records are wanted of the last one; ``None`` if there are fewer.
    """
    for at, info in enumerate(files):
        kind = kind_of(info)
        piece = _piece_of(info, kind, reading, Cut(0, None, info.size))
        try:
            count = formats.find(kind.name, reading).count(piece, limit) if info.size else 0
        except InputReadError:  # the run says so, and counts again when it is mended
            return files[: at + 1], None
        if count >= limit:
            return files[: at + 1], limit
        limit -= count
    return files, None


def _first(pieces: Iterable[Piece], records: int) -> Iterator[Piece]:
    """The pieces that hold so many records, the last one with how many of it."""
    for piece in pieces:
        count = formats.find(piece.format, piece.reading).count(piece, records)
        if count >= records:
            yield replace(piece, records=records)
            return
        records -= count
        yield piece


def _pieces(info: FileInfo, size: int, kind: formats.Format, reading: Reading) -> Iterator[Piece]:
    cuts = formats.find(kind.name, reading).cuts(info, kind.compression, size)
    return (_piece_of(info, kind, reading, cut) for cut in cuts)


def _piece_of(info: FileInfo, kind: formats.Format, reading: Reading, cut: Cut) -> Piece:
    return Piece(
        info.path,
        cut.start,
        cut.end,
        info.size,
        info.mtime_ns,
        kind.compression,
        kind.name,
        cut.bytes,
        reading,
    )
