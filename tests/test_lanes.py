"""Lanes on engines, as far as no engine and no broker is needed; tests/engines has the rest."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from modelbeam.beam.lanes import _Turns
from modelbeam.engines import find
from modelbeam.engines.base import LaneEngine
from modelbeam.engines.lanes import RemoteLanes
from modelbeam.errors import RequestError
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Silent
from modelbeam.kafka.address import Topic
from modelbeam.kafka.cluster import Limits
from modelbeam.kafka.identity import Numbered
from modelbeam.kafka.lane import Lane, LaneJob
from modelbeam.kafka.tally import Tally
from modelbeam.models.base import ModelInfo
from modelbeam.run import stream_job


def job(*flags: str, **settings: Any) -> Any:
    """A job between topics of a broker that nobody asks."""
    ends = {"inputs": "kafka://nowhere:1/in", "output": "kafka://nowhere:1/out"}
    more = {"errors": "kafka://nowhere:1/errors", "streaming": True, "beam_options": list(flags)}
    return build_job({"models": ["small_models:Doubler"], **ends, **more, **settings})


@pytest.mark.parametrize("runner", ["spark", "SparkRunner", "prism", "DataflowRunner"])
def test_engines_that_run_no_lanes_are_refused_before_anything_is_asked(runner):
    with pytest.raises(RequestError, match="does not run lanes from topic to topic"):
        stream_job(job(f"--runner={runner}", "--job_endpoint=nowhere:1"), Silent())


def test_until_now_from_topic_to_topic_is_not_done_on_an_engine():
    with pytest.raises(RequestError, match="with --streaming only"):
        stream_job(job("--runner=flink", "--flink_master=nowhere:1", streaming=False), Silent())


def test_lanes_here_are_not_left():
    with pytest.raises(RequestError, match="--detach is for jobs on an engine"):
        stream_job(job(detach=True), Silent())


def test_lanes_in_threads_of_this_process_are_not_left():
    flags = ["--runner=flink", "--flink_master=nowhere:1", "--environment_type=LOOPBACK"]
    with pytest.raises(RequestError, match="would end with this process"):
        stream_job(job(*flags, detach=True), Silent())


@pytest.mark.parametrize(
    ("flags", "workers", "slots", "partitions", "lanes"),
    [
        ([], None, 4, 8, 4),
        ([], None, 4, 3, 3),
        ([], None, None, 8, 2),
        ([], 6, 4, 8, 6),
        ([], 6, 4, 5, 5),
        (["--parallelism=3"], None, 4, 8, 3),
        (["--parallelism", "3"], 5, 4, 8, 5),
    ],
)
def test_how_many_lanes(flags, workers, slots, partitions, lanes):
    class Engine:
        def lane_slots(self, _):
            return slots

        def lane_flags(self, _):
            return []

    assert isinstance(Engine(), LaneEngine)
    made = job("--runner=flink", *flags, workers=workers)
    assert RemoteLanes(made, Silent(), 0.0, None)._number(Engine(), partitions) == lanes


def test_flink_runs_lanes():
    assert isinstance(find("flink"), LaneEngine)


_COUNT = st.integers(0, 2**53)


@given(st.builds(Tally, _COUNT, _COUNT, st.text(), _COUNT), st.text(min_size=1), st.text())
def test_a_tally_counts_for_its_own_run_alone(tally, run, other):
    written = tally.written(run)
    assert Tally.read_from(written, run) == tally
    if other != run:
        assert Tally.read_from(written, other) == Tally()


@given(
    st.one_of(
        st.none(),
        st.text(),
        st.recursive(
            st.one_of(st.none(), st.integers(), st.text()),
            lambda some: st.lists(some) | st.dictionaries(st.text(), some),
        ).map(json.dumps),
    )
)
def test_what_others_write_beside_an_offset_is_no_tally(text):
    assert Tally.read_from(text, "a run") == Tally()


@given(st.integers(0, 2**61), st.floats(0, 1))
def test_nothing_is_split_off_a_lane_while_its_turn_goes_on(start, fraction):
    tracker = _Turns().create_tracker(OffsetRange(start, 2**62))
    assert tracker.try_claim(start)
    assert tracker.try_split(fraction) is None
    assert tracker.try_claim(start + 1)  # the turn is over
    if fraction:
        assert tracker.try_split(fraction) is None
    primary, rest = tracker.try_split(0)
    tracker.check_done()
    assert (primary.stop, rest) == (rest.start, OffsetRange(start + 2, 2**62))
    assert tracker.try_split(0) is None


def test_a_lane_that_ends_is_done():
    tracker = _Turns().create_tracker(OffsetRange(6, 2**62))
    assert tracker.try_claim(6)
    with pytest.raises(ValueError, match="not done"):
        tracker.check_done()
    assert not tracker.try_claim(2**62)
    tracker.check_done()


def lane_of(run: str) -> Lane:
    """A lane that is not connected."""
    topic, limits = Topic("nowhere:1", "in"), Limits(1 << 20, None, None)
    told = LaneJob(topic, topic, topic, "group", {}, (), None, 1 << 20, True, "original",
                   False, None, (limits, limits), run)  # fmt: skip
    model = SimpleNamespace(info=ModelInfo("model", "model", "record", version="1"))
    return Lane(told, model, lambda _: None, lambda: True, Numbered("group", 3))


@pytest.mark.parametrize("run", ["", "a run"])
def test_beside_an_offset_stands_what_a_run_on_an_engine_has_done_and_nothing_else(run):
    lane = lane_of(run)
    lane._tallies[2] = Tally(7, 1)
    place = lane._place(2, 40)
    assert (place.topic, place.partition, place.offset) == ("in", 2, 40)
    written = Tally.read_from(place.metadata, "a run")
    assert written == (Tally(7, 1, "group-engine-3", 800) if run else Tally())
    assert bool(place.metadata) == bool(run)
    lane.close()


@pytest.mark.parametrize(("changes", "owns"), [(0, True), (2, False)])
def test_a_partition_that_was_away_meanwhile_may_have_been_done_by_another(changes, owns):
    lane = lane_of("")
    place, sought = TopicPartition("in", 0, 5), []
    lane._consumer = SimpleNamespace(
        assignment=lambda: [place],
        committed=lambda *_, **__: [place],
        get_watermark_offsets=lambda *_, **__: (0, 10),
        assign=lambda _: None,
        resume=lambda _: None,
        seek=sought.append,
        close=lambda: None,
    )
    before = lane._changes
    if changes:
        lane._revoked(lane._consumer, [place])
        lane._assigned(lane._consumer, [place])
    assert lane._owns([0], before) is owns
    assert [place.offset for place in sought] == ([] if owns else [5])
    lane.close()
