"""Segments of a topic, as far as no broker is needed; tests/engines has the rest."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbeam.errors import OutputExistsError, RequestError
from modelbeam.formats import layout
from modelbeam.formats.layout import OutputColumn
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Silent
from modelbeam.local.segments import share
from modelbeam.run import stream_job
from modelbeam.sinks.ledger import Entry, Ledger, Offsets

_WAITING = st.dictionaries(st.integers(0, 40), st.integers(0, 10_000), max_size=12)


@given(waiting=_WAITING, most=st.integers(1, 20_000))
def test_a_segment_takes_all_it_may_and_leaves_no_partition_behind_for_another(waiting, most):
    shares = share(waiting, most)
    assert shares.keys() == waiting.keys()
    assert sum(shares.values()) == min(most, sum(waiting.values()))
    for partition, number in shares.items():
        assert number <= waiting[partition]
        if number < waiting[partition]:  # no other has got more than one offset more
            assert all(other <= number + 1 for other in shares.values())


class Writer:
    """A process that makes segments, one step at a time."""

    def __init__(self, output: str) -> None:
        self.ledger = Ledger(output, topic=True)
        self.ledger.open()
        self.known: Offsets | None = None
        self.made: Entry | None = None

    def begin(self, starts: dict[int, int]) -> None:
        """Say where each partition begins, unless that is said."""
        if not self.ledger.entries:
            self.ledger.put(Entry("", (), offsets=Offsets("t", "c/1", next=starts)))

    def look(self, ends: dict[int, int]) -> None:
        """Predict what came since the last entry that it knows, up to some ends."""
        self.ledger.read()
        self.known = self.ledger.last
        taken = {
            partition: (at, end)
            for partition, end in ends.items()
            if (at := self.known.next.get(partition, 0)) < end
        }
        name = f"{id(self)}-{len(taken)}-{sum(ends.values())}"
        Path(self.ledger.work(name)).mkdir(parents=True, exist_ok=True)
        (Path(self.ledger.work(name)) / "predictions-00000-of-00001.jsonl").write_text("")
        self.made = Entry(name, (), {"read": 1}, offsets=Offsets("t", "c/1", taken))

    def put(self) -> bool:
        """Commit what it predicted, whatever others have done meanwhile."""
        assert self.known is not None
        assert self.made is not None
        return self.ledger.put_after(self.known, self.made)


_STEP = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["look", "put", "kill"]),
    st.dictionaries(st.integers(0, 3), st.integers(0, 5), min_size=1),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEP, max_size=25))
def test_whatever_processes_do_and_believe_each_offset_is_in_one_entry(steps):
    with tempfile.TemporaryDirectory() as output:
        writers = [Writer(output) for _ in range(3)]
        for number, writer in enumerate(writers):
            writer.begin({0: number, 1: 7 * number})
        ends = dict.fromkeys(range(4), 0) | {0: 2, 1: 14}
        for which, step, more in steps:
            writer = writers[which]
            if step == "look":
                ends = {one: end + more.get(one, 0) for one, end in ends.items()}
                writer.look({one: ends[one] for one in more})
            elif step == "put" and writer.made is not None:
                before = dict(writer.ledger.last.next)
                put, taken = writer.put(), writer.made.offsets.taken
                fits = all(before.get(one, at) == at for one, (at, _) in taken.items())
                assert not put or fits  # of another one's entries it may not have known yet
                writer.made = None
            elif step == "kill":
                writers[which] = Writer(output)
        log = Path(output, "_modelbeam", "log")
        entries = [Entry.from_bytes(path.read_bytes()) for path in sorted(log.iterdir())]
        at = dict(entries[0].offsets.next)
        assert at == {0: 0, 1: 0}
        for entry in entries[1:]:
            for partition, (first, end) in entry.offsets.taken.items():
                assert first == at.get(partition, 0)
                at[partition] = end
            assert entry.offsets.next == at
            shown = Path(output, f"{entries.index(entry):08d}")
            assert (shown / "predictions-00000-of-00001.jsonl").exists()


def test_a_restart_reads_the_last_entry_alone_and_shows_what_was_not(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path))
    writer.begin({0: 5})
    for end in (8, 9, 10):
        writer.look({0: end})
        assert writer.put()
    writer.look({0: 12})
    offsets = writer.made.offsets.after(writer.ledger.last)
    log = tmp_path / "_modelbeam" / "log"
    killed = Entry(writer.made.work, (), offsets=offsets)  # after the entry, before it was shown
    (log / "00000004.json").write_bytes(killed.to_bytes())
    (log / "00000001.json").write_text("not looked at")
    again = Writer(str(tmp_path))
    assert [entry.offsets.next for entry in again.ledger.entries] == [{0: 12}]
    assert (tmp_path / "00000004" / "predictions-00000-of-00001.jsonl").exists()


def test_of_a_process_that_died_before_it_committed_nothing_counts(tmp_path: Path) -> None:
    one, other = Writer(str(tmp_path)), Writer(str(tmp_path))
    one.begin({0: 0})
    one.look({0: 3})
    other.look({0: 4})
    assert other.put()
    assert not one.put()
    assert list((tmp_path / "_modelbeam" / "work").iterdir()) == []


_KIND = st.sampled_from(
    [
        *(None, pa.int64(), pa.string(), pa.timestamp("us", "UTC"), pa.decimal128(9, 2)),
        *(pa.list_(pa.float32()), pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.bool_())),
    ]
)


@given(st.none() | st.lists(st.tuples(st.text(), _KIND)))
def test_columns_are_kept_with_their_types(columns):
    made = columns and tuple(OutputColumn(*column) for column in columns)
    kept = layout.to_json(made if columns is not None else None)
    assert layout.from_json(json.loads(json.dumps(kept))) == (
        None if columns is None else tuple(made or ())
    )


def job(**other: Any) -> Any:
    """A job from a topic of a broker that nobody asks into a directory."""
    own = {"models": ["small_models:Doubler"], "inputs": "kafka://nowhere:1/in", "output": "out"}
    return build_job({**own, "streaming": True, **other})


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"output": "out.jsonl"}, "writes a directory of segments"),
        ({"inputs": ["kafka://nowhere:1/a", "kafka://nowhere:1/b"]}, "segments are of one topic"),
        ({"limit": 5}, "--limit is for a run that ends by itself"),
        ({"shards": 5}, "--shards is for a run that ends by itself"),
        ({"overwrite": True}, "--overwrite is for a run that ends by itself"),
        ({"errors": "kafka://nowhere:1/errors"}, "failed records go beside the predictions"),
        ({"segment": "soon"}, "not a duration"),
        ({"segment_records": 0}, "--segment-records 0"),
        ({"beam_options": ["--runner=flink"]}, "each record is in it once"),
    ],
)
def test_what_is_no_place_for_segments_is_refused_before_anything_is_asked(other, why):
    with pytest.raises(RequestError, match=why):
        stream_job(job(**other), Silent())


def test_a_directory_of_files_as_they_arrive_is_none_of_segments(tmp_path: Path) -> None:
    Ledger(str(tmp_path / "files")).open()
    Ledger(str(tmp_path / "files")).put(Entry("", (), error="unread"))
    with pytest.raises(OutputExistsError, match="than a run over a topic"):
        Ledger(str(tmp_path / "files"), topic=True).open()
    Writer(str(tmp_path / "topic")).begin({0: 0})
    with pytest.raises(OutputExistsError, match="than a run over files as they arrive"):
        Ledger(str(tmp_path / "topic")).open()
