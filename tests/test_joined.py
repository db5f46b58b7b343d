"""Small files that are read together: each record as if its file was read by itself."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam.errors import InputReadError
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.joined import JoinedBlocks, JoinedReader
from modelbeam.formats.jsonl import JsonLines
from modelbeam.sources import source_of

LINES = st.sampled_from(
    [b'{"x": 1.5}', b"", b"  ", b'{"x": "\xff"}', b"[1]", b"{", b'{"x": 2}\r', b"\xef\xbb\xbf{}"]
)
FILES = st.lists(
    st.tuples(st.booleans(), st.lists(LINES, max_size=4), st.sampled_from([b"", b"\n"])), min_size=1
)


def pieces(folder: Path, contents: list[bytes]) -> list[Piece]:
    """A whole piece for each file of such a content."""
    made = []
    for number, content in enumerate(contents):
        path = folder / f"{number:03d}.jsonl"
        path.write_bytes(content)
        info = path.stat()
        size = len(content)
        made.append(Piece(str(path), 0, size, size, info.st_mtime_ns, None, "jsonl", size))
    return made


def told(reader: Any, path: str | None = None) -> list[tuple[Any, ...]]:
    """Where each record and each failure is, what it is, and how it was written."""
    found: list[tuple[Any, ...]] = []
    for batch in reader:
        decoded = batch.records()
        rows = range(len(decoded.records)) if decoded.rows is None else decoded.rows
        places = [(row, record) for row, record in zip(rows, decoded.records, strict=True)]
        places += [(failure.row, failure.error) for failure in decoded.failures]
        for row, what in sorted(places, key=lambda place: place[0]):
            source = batch.source(row) or path
            found.append((source, batch.position(row), what, batch.original(row, False)))
    return found


@settings(deadline=None)
@given(files=FILES, size=st.sampled_from([1, 20, 1 << 20]))
def test_each_record_is_where_it_is_in_its_own_file(
    tmp_path_factory: pytest.TempPathFactory, files: Any, size: int
) -> None:
    contents = [
        (b"\xef\xbb\xbf" if marked else b"") + b"\n".join(lines) + end
        for marked, lines, end in files
    ]
    several = pieces(tmp_path_factory.mktemp("files"), contents)
    kind, wanted = JsonLines(), Wanted("record")
    alone = [kind.reader(piece, wanted) for piece in several]
    expected = [one for p, r in zip(several, alone, strict=True) for one in told(r, p.path)]
    together = JoinedReader(several, wanted, kind.batch)
    together._blocks = JoinedBlocks(several, size)
    assert told(together) == expected
    assert together.units == sum(reader.units for reader in alone)


@pytest.mark.parametrize(("change", "said"), [(os.remove, "vanished"), (None, "changed")])
def test_a_file_that_is_not_as_it_was_is_named(tmp_path: Path, change: Any, said: str) -> None:
    several = pieces(tmp_path, [b'{"x": 1.0}\n'] * 5)
    (change or (lambda path: Path(path).write_bytes(b"{}\n")))(several[3].path)
    with pytest.raises(InputReadError, match=rf"003\.jsonl.*{said}"):
        list(JoinedReader(several, Wanted("table"), JsonLines().batch))


def test_what_may_not_be_read_together_is_not(tmp_path: Path) -> None:
    small = pieces(tmp_path, [b'{"x": 1.0}\n'] * 7)
    limited = replace(small[2], records=1)
    named = replace(small[4], partition=(("day", "1"),))
    mixed = [*small[:2], limited, small[3], named, *small[5:]]
    source = source_of(small[0].path)

    def groups(wanted: Wanted, **more: Any) -> list[int]:
        return [len(opened.pieces) for opened in source.open(mixed, wanted, **more)]

    assert groups(Wanted("table")) == [2, 1, 1, 1, 2]
    assert groups(Wanted("table"), joined=False) == [1] * 7
    assert groups(Wanted("table", longest=5)) == [1] * 7  # its lines are too long


def test_a_model_is_called_once_for_several_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(640):
        text = '{"x": 1.5}\n' if number != 30 else '{"x": 1.5}\n\n{"x": "no"}\n'
        (tmp_path / "in" / f"{number:03d}.jsonl").write_text(text)
    run = modelbeam.predict(
        model="small_models:CallSize", input=tmp_path / "in", output=tmp_path / "out"
    )
    assert (run.read, run.predicted, run.failed) == (641, 640, 1)
    (error,) = map(json.loads, next((tmp_path / "out").glob("errors-*")).read_text().splitlines())
    assert (Path(error["source"]).name, error["line"], error["offset"]) == ("030.jsonl", 3, 12)
    shards = sorted((tmp_path / "out").glob("predictions-*"))
    calls = [line["records"] for shard in shards for line in read_lines(shard)]
    assert min(calls[:600]) > 5  # a split's, not a file's
