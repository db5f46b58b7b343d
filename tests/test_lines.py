"""Cutting files into splits, and splits into blocks of lines: every line once, in its place."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import threading
import tracemalloc
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from crashing import wait_until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelbeam import storage
from modelbeam.errors import InputReadError
from modelbeam.formats import lines as of_lines
from modelbeam.formats.base import Piece
from modelbeam.formats.lines import (
    LONG_LINE_HEAD,
    BlockReader,
    LineBlock,
    LongLine,
    first_block,
)
from modelbeam.sources.splits import plan_splits

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

BOM = b"\xef\xbb\xbf"
PLENTY = 1 << 20
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstd.compress,
}
SAMPLE = b"".join(b'{"x": %d}\n' % (7919 * n % 10007) for n in range(5000))


class Line(NamedTuple):
    """A line as a reader reports it: its number counts from 1 in the whole file."""

    number: int
    offset: int
    text: bytes | None  # None: longer than a record may be
    length: int


def pieces_of(path: Path, split_size: int = 1 << 40) -> list[Piece]:
    splits = plan_splits([storage.stat(str(path))], split_size)
    return [piece for split in splits for piece in split.pieces]


def read(pieces: list[Piece], longest: int = PLENTY, size: int = PLENTY) -> list[Line]:
    """All lines of a file, numbered as publishing numbers them: by the splits' own counts."""
    lines: list[Line] = []
    for piece in pieces:
        before, count = len(lines), 0
        for block in BlockReader(piece, longest, size):
            assert block.line == count
            if isinstance(block, LongLine):
                lines.append(Line(before + block.line + 1, block.offset, None, block.length))
                count += 1
                continue
            assert len(block.lines) == block.count or block.data == b""
            for row, text in enumerate(block.lines):
                number, offset = block.position(row)
                lines.append(Line(before + number, offset, text, len(text)))
            if block.data == b"":  # a file that is a byte-order mark and nothing else
                lines.append(Line(before + 1, 0, b"", 0))
            count = block.line + block.count
        assert len(lines) == before + count
    return lines


def expected(content: bytes, longest: int = PLENTY) -> list[Line]:
    lines, offset = [], 0
    for number, text in enumerate(content.split(b"\n"), 1):
        start = offset
        offset += len(text) + 1
        if start == len(content):
            break
        if len(text) > longest:
            lines.append(Line(number, start, None, len(text)))
            continue
        text = text.removeprefix(BOM) if start == 0 else text
        lines.append(Line(number, start, text, len(text)))
    return lines


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to be written over and over."""
    return tmp_path_factory.mktemp("lines") / "lines.jsonl"


some_line = st.one_of(
    st.sampled_from([b"", b"{}", b"\r", b" ", b'{"x": 1}\r', BOM, BOM + b"{}"]),
    st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"-")),
)
contents = st.builds(
    lambda bom, lines, end: bom + b"\n".join(lines) + end,
    st.sampled_from([b"", b"", BOM]),
    st.lists(some_line, max_size=12),
    st.sampled_from([b"", b"\n", b"\n\n"]),
)
careful = settings(max_examples=300, deadline=None)


@careful
@given(contents, st.integers(1, 40), st.integers(1, 50))
@example(b"{}\n{}\n", 3, 50)
@example(b"", 1, 1)
@example(b"\n\n\n", 1, 1)
def test_every_line_is_read_once_however_the_file_is_cut(
    scratch: Path, content: bytes, split_size: int, size: int
) -> None:
    scratch.write_bytes(content)
    assert read(pieces_of(scratch, split_size), size=size) == expected(content)


@careful
@given(contents, st.integers(1, 40), st.integers(1, 50), st.integers(1, 15))
@example(b"aaaaa\nbbbbbbbb\n", 40, 5, 5)
def test_exactly_the_lines_over_the_limit_are_long_however_the_file_is_cut(
    scratch: Path, content: bytes, split_size: int, size: int, longest: int
) -> None:
    scratch.write_bytes(content)
    assert read(pieces_of(scratch, split_size), longest, size) == expected(content, longest)


@careful
@given(contents, st.integers(1, 40), st.integers(1, 50))
def test_each_split_owns_the_lines_whose_first_byte_is_in_it(
    scratch: Path, content: bytes, split_size: int, size: int
) -> None:
    scratch.write_bytes(content)
    starts = [line.offset for line in expected(content)]
    for piece in pieces_of(scratch, split_size):
        owned = [start for start in starts if piece.start <= start < piece.end]
        assert [line.offset for line in read([piece], size=size)] == owned


@settings(careful, max_examples=100)
@given(
    contents,
    st.integers(1, 50),
    st.integers(1, 15),
    st.sampled_from(sorted(COMPRESS)),
    st.booleans(),
)
def test_compressed_lines_are_read_as_plain_ones(
    scratch: Path, content: bytes, size: int, longest: int, suffix: str, ahead: bool
) -> None:
    packed = scratch.with_name(f"lines.jsonl.{suffix}")
    packed.write_bytes(COMPRESS[suffix](content))
    splits = pieces_of(packed, split_size=1)
    assert len(splits) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_lines, "WORTH_A_THREAD", 0 if ahead else 1 << 40)
        assert read(splits, size=size) == expected(content)
        assert read(splits, longest, size) == expected(content, longest)


def unpacking() -> list[str]:
    """The threads that unpack."""
    return [one.name for one in threading.enumerate() if one.name.startswith("unpacking")]


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
def test_one_block_and_no_more_is_unpacked_while_another_is_used(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_lines, "WORTH_A_THREAD", 0)
    path = tmp_path / f"lines.jsonl.{suffix}"
    path.write_bytes(COMPRESS[suffix](SAMPLE))
    real, made = of_lines._Reader.next_block, []

    def noted(reader: of_lines._Reader, longest: int, size: int) -> LineBlock | LongLine | None:
        block = real(reader, longest, size)
        made.append(size)
        return block

    monkeypatch.setattr(of_lines._Reader, "next_block", noted)
    reader = BlockReader(pieces_of(path)[0], PLENTY, size=4000)
    blocks = iter(reader)
    found, asked = b"", [4000]  # a block has the size with which the one before it was asked for
    for number in range(4):
        asked.append(reader.size)
        block = next(blocks)
        assert isinstance(block, LineBlock)
        found += block.data
        reader.size += 100
        wait_until(lambda: len(made) >= len(asked))  # while this one is in use
        assert made == asked
        assert len(made) == number + 2
    blocks.close()  # type: ignore[attr-defined]
    assert SAMPLE.startswith(found)
    assert unpacking() == []


def test_a_byte_order_mark_is_no_part_of_the_first_line_and_of_no_other(scratch: Path) -> None:
    scratch.write_bytes(BOM + b"{}\n" + BOM + b"{}\n")
    assert [line.text for line in read(pieces_of(scratch))] == [b"{}", BOM + b"{}"]


def test_an_empty_file_has_no_lines(scratch: Path) -> None:
    scratch.write_bytes(b"")
    assert read(pieces_of(scratch)) == []


def test_the_carriage_return_of_a_line_end_is_no_part_of_the_record(scratch: Path) -> None:
    scratch.write_bytes(b'{"x": 1}\r\n{"x": 2}\r\n')
    (block,) = BlockReader(pieces_of(scratch)[0], PLENTY)
    assert isinstance(block, LineBlock)
    assert [block.raw(row) for row in range(block.count)] == [b'{"x": 1}', b'{"x": 2}']


@pytest.mark.parametrize("line", [b"{}", b'{"x": 1, "y": 2}'])
def test_a_first_line_of_a_split_has_its_own_offset(scratch: Path, line: bytes) -> None:
    content = line + b"\n" + line + b"\n"
    scratch.write_bytes(content)
    lines = read(pieces_of(scratch, split_size=len(line) + 1))
    assert [found.offset for found in lines] == [0, len(line) + 1]


def test_a_long_line_over_many_splits_is_one_line_and_its_neighbours_are_whole(
    scratch: Path,
) -> None:
    content = b'{"x": 1}\n' + b"y" * 5000 + b'\n{"x": 2}\n' + b"z" * 3000
    scratch.write_bytes(content)
    assert read(pieces_of(scratch, split_size=100), longest=64, size=16) == [
        Line(1, 0, b'{"x": 1}', 8),
        Line(2, 9, None, 5000),
        Line(3, 5010, b'{"x": 2}', 8),
        Line(4, 5019, None, 3000),
    ]


def test_a_long_line_shows_its_beginning(scratch: Path) -> None:
    text = bytes(range(65, 91)) * 1000
    scratch.write_bytes(text)
    (found,) = BlockReader(pieces_of(scratch)[0], longest=2000)
    assert isinstance(found, LongLine)
    assert found.head == text[:LONG_LINE_HEAD]


def test_a_long_line_is_never_in_memory_as_a_whole(scratch: Path) -> None:
    with scratch.open("wb") as handle:
        handle.write(b"{}\n")
        for _ in range(40):
            handle.write(b"x" * (1 << 20))
        handle.write(b"\n{}\n")
    tracemalloc.start()
    try:
        lines = read(pieces_of(scratch, split_size=16 << 20), longest=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [line.length for line in lines] == [2, 40 << 20, 2]
    assert peak < 16 << 20


def test_blocks_are_as_small_as_was_asked_and_the_size_may_change_between_them(
    scratch: Path,
) -> None:
    scratch.write_bytes(b"0123456\n" * 100)
    reader = BlockReader(pieces_of(scratch)[0], PLENTY, size=16)
    counts = []
    for block in reader:
        assert isinstance(block, LineBlock)
        counts.append(block.count)
        reader.size = 80
    assert counts == [2] + [10] * 9 + [8]


def test_what_the_caller_raises_is_not_a_reading_error(scratch: Path) -> None:
    scratch.write_bytes(b"{}\n")

    def call() -> None:
        for _ in BlockReader(pieces_of(scratch)[0], PLENTY):
            raise OSError("the caller's")

    with pytest.raises(OSError, match="the caller's") as raised:
        call()
    assert not isinstance(raised.value, InputReadError)


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
def test_members_that_follow_one_another_are_one_stream(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"members.jsonl.{suffix}"
    cuts = [0, 1001, 1001, 30003, len(SAMPLE)]  # inside of lines, and an empty member
    members = [COMPRESS[suffix](SAMPLE[a:b]) for a, b in pairwise(cuts)]
    path.write_bytes(b"".join(members))
    assert read(pieces_of(path), size=4096) == expected(SAMPLE)


def _checked(data: bytes, suffix: str) -> bytes:
    """Compressed so that the format itself can tell a changed byte."""
    if suffix == "zst":
        return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})
    return COMPRESS[suffix](data)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one byte": lambda packed: packed[:1],
    "the header": lambda packed: packed[:8],
    "half": lambda packed: packed[: len(packed) // 2],
    "all but a byte": lambda packed: packed[:-1],
    "a changed byte": lambda packed: _flipped(packed, len(packed) // 2),
    "no compression at all": lambda _: SAMPLE,
    "random bytes": lambda _: bytes(n * n % 251 for n in range(5000)),
    "a damaged second member": lambda packed: packed + b"X" + packed[1:],
    "something else behind it": lambda packed: packed + SAMPLE,
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("suffix", sorted(COMPRESS))
def test_a_damaged_compressed_file_is_an_error_that_names_it(
    tmp_path: Path, suffix: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"damaged.jsonl.{suffix}"
    path.write_bytes(DAMAGES[damage](_checked(SAMPLE, suffix)))
    said = []
    for worth in (1 << 40, 0):
        monkeypatch.setattr(of_lines, "WORTH_A_THREAD", worth)
        with pytest.raises(InputReadError, match=re.escape(str(path))) as raised:
            read(pieces_of(path))
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert "truncated or damaged" in said[0]
    assert "--resume" in said[0]
    assert unpacking() == []


def test_a_file_that_vanished_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    path.write_bytes(SAMPLE)
    splits = pieces_of(path)
    path.unlink()
    with pytest.raises(InputReadError, match=re.escape(str(path)) + " has vanished"):
        read(splits)


def test_a_file_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "directory.jsonl"
    path.mkdir()
    with pytest.raises(InputReadError, match=re.escape(str(path)) + " cannot be read"):
        read(pieces_of(path))


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"{}\n")


def _touched(path: Path) -> None:
    then = path.stat().st_mtime_ns
    os.utime(path, ns=(then, then + 1_000_000_000))


@pytest.mark.parametrize("change", [_longer, _touched])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changed_is_an_error_that_names_it(
    tmp_path: Path, change: Callable[[Path], None], when: str
) -> None:
    path = tmp_path / "changed.jsonl"
    path.write_bytes(SAMPLE)
    split = pieces_of(path, split_size=len(SAMPLE) // 2)[0]
    reader = iter(BlockReader(split, PLENTY, size=4096))
    if when == "while":
        next(reader)
    change(path)
    with pytest.raises(InputReadError, match=re.escape(str(path)) + " changed"):
        list(reader)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize(("wanted", "lines"), [(1, 2), (2, 5), (3, 6), (9, 6)])
def test_the_first_records_are_found_past_blank_lines(
    tmp_path: Path, suffix: str, wanted: int, lines: int
) -> None:
    path = tmp_path / f"first.jsonl{suffix}"
    content = BOM + b"\n1\n\n \r\n2\n3\n"
    path.write_bytes(COMPRESS[suffix[1:]](content) if suffix else content)
    (piece,) = pieces_of(path)
    block = first_block(piece.path, piece.compression, wanted)
    assert len(block.lines) == lines
    assert block.lines == [line.text for line in expected(content)][:lines]


def test_the_splits_of_many_files_are_in_the_order_of_the_files_and_cover_each(
    tmp_path: Path,
) -> None:
    for name, size in (("b", 1000), ("a", 0), ("c", 7)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n" * size)
    infos = [storage.stat(str(tmp_path / f"{name}.jsonl")) for name in "bac"]
    splits = plan_splits(infos, split_size=300)
    assert [split.index for split in splits] == list(range(len(splits)))
    pieces = [piece for split in splits for piece in split.pieces]
    by_file = [(p, list(found)) for p, found in groupby(pieces, key=lambda piece: piece.path)]
    assert [path for path, _ in by_file] == [info.path for info in infos]
    for info, (_, found) in zip(infos, by_file, strict=True):
        assert [found[0].start, found[-1].end] == [0, info.size]
        assert all(a.end == b.start for a, b in pairwise(found))
