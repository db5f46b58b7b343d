"""Small files of lines, read as if they were one: their lines are in the same batches.

What a call of a model costs is then paid once for many files. Where a record is, and in which file,
is still told file by file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from modelbeam import storage
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.lines import (
    LineBlock,
    LinesReader,
    check_unchanged,
    reading,
    whole_block,
)
from modelbeam.predicting.batch import Batch
from modelbeam.predicting.failures import Position


@dataclass(slots=True)
class JoinedBlock(LineBlock):
    """The lines of several files.

    Attributes:
        paths: the files.
        parts: what each of them holds.
        rows: the row at which each begins.
    """

    paths: tuple[str, ...] = ()
    parts: tuple[LineBlock, ...] = ()
    rows: tuple[int, ...] = ()

    def position(self, row: int) -> Position:
        """Where the line is in its own file."""
        part = bisect_right(self.rows, row) - 1
        return self.parts[part].position(row - self.rows[part])

    def source(self, row: int) -> str | None:
        """Its own file."""
        return self.paths[bisect_right(self.rows, row) - 1]


def joined(found: Sequence[tuple[str, LineBlock]], offset: int, line: int) -> JoinedBlock:
    """The blocks of several files as one.

    Args:
        found: a file's path and all of its lines, each; none is empty.
        offset: how many bytes come before them.
        line: how many lines come before them.
    """
    blocks = tuple(block for _, block in found)
    data = b"".join(b.data if b.data.endswith(b"\n") else b.data + b"\n" for b in blocks)
    ends = list(accumulate(block.count for block in blocks))
    return JoinedBlock(
        data,
        offset,
        line,
        ends[-1],
        paths=tuple(path for path, _ in found),
        parts=blocks,
        rows=(0, *ends[:-1]),
    )


class JoinedBlocks:
    """Iterates over the lines of several small files, in blocks of about ``size`` bytes.

    Args:
        pieces: the files, each whole and no longer than a record may be.
        size: bytes a block; may be changed between two blocks.

    Raises:
        InputReadError: as :class:`.lines.BlockReader`.
    """

    def __init__(self, pieces: Sequence[Piece], size: int) -> None:
        self.size = size
        self._pieces = pieces

    def __iter__(self) -> Iterator[LineBlock]:
        found: list[tuple[str, LineBlock]] = []
        held = offset = line = 0
        for piece, block in storage.in_parallel(_read, self._pieces, self._pieces[0].path):
            if not block.count:
                continue
            if found and held + len(block.data) > self.size:
                made = joined(found, offset, line)
                yield made
                offset, line = offset + held, line + made.count
                found, held = [], 0
            found.append((piece.path, block))
            held += len(block.data)
        if found:
            yield joined(found, offset, line)


def _read(piece: Piece) -> tuple[Piece, LineBlock]:
    """A file's lines; whether it changed is seen after it was read, which is soon enough."""
    with reading(piece):
        data, now = b"", None
        if piece.size:
            data, now = storage.read_small(piece.path, piece.size)
        check_unchanged(piece, now)
    return piece, whole_block(data)


class JoinedReader(LinesReader):
    """Reads several small files.

    Args:
        pieces: the files.
        wanted: how.
        batch: makes a batch of a block.
    """

    def __init__(
        self, pieces: Sequence[Piece], wanted: Wanted, batch: Callable[[LineBlock], Batch]
    ) -> None:
        whole = replace(pieces[0], bytes=sum(piece.bytes for piece in pieces))
        super().__init__(whole, wanted, batch, lambda _, __, size: JoinedBlocks(pieces, size))

    def progress(self) -> tuple[int, int]:
        """Bytes of all files so far, and where the last batch begins in its first file."""
        return super().progress()[0], 0
