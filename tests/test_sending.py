"""Files into a topic, as far as no broker is needed; tests/engines has the rest."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbeam.errors import OutputExistsError, RequestError, ResumeError
from modelbeam.formats.base import Piece
from modelbeam.formats.jsonl.writer import ShortLinesWriter
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Silent
from modelbeam.kafka.cluster import Limits
from modelbeam.kafka.lines import LinesMaker
from modelbeam.kafka.sending import Mark
from modelbeam.local.into_topic import decided, mark_of
from modelbeam.predicting.failures import Failure, Position, error_line, original_text
from modelbeam.predicting.outcome import Outcome
from modelbeam.run import is_stream, run_job, stream_job
from modelbeam.sources.splits import Split


def job(**other: Any) -> Any:
    """A job from files into a topic of a broker that nobody asks."""
    own = {"models": ["small_models:Doubler"], "inputs": "in/*", "output": "kafka://nowhere:1/out"}
    return build_job({**own, "errors": "kafka://nowhere:1/errors", **other})


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"errors": None}, "say where failed records go"),
        ({"errors": "kafka://other:1/errors"}, "must be on the same cluster"),
        ({"errors": "kafka://nowhere:1/out"}, "must be two topics"),
        ({"output_format": "csv"}, "a message is one JSON object"),
        ({"beam_options": ["--runner=flink"]}, "go into a topic from this machine"),
        ({"shards": 3}, "is no directory of shards"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_asked(other, why):
    with pytest.raises(RequestError, match=why):
        run_job(job(**other))


@pytest.mark.parametrize("streaming", [False, True])
def test_into_a_topic_go_files_or_one_topic(streaming):
    assert is_stream(job(streaming=streaming)) == streaming
    both = job(inputs=["in.jsonl", "kafka://nowhere:1/in"], streaming=streaming)
    with pytest.raises(RequestError, match=r"one topic, or files, and --input .* is neither"):
        stream_job(both, Silent())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"errors": None}, "say where failed records go"),
        ({"errors": "kafka://elsewhere:1/errors"}, "must be on the same cluster"),
        ({"output_format": "csv"}, "a message is one JSON object"),
        ({"overwrite": True}, "--overwrite is for a run that ends by itself"),
        ({"limit": 3}, "--limit is for a run that ends by itself"),
    ],
)
def test_wrong_ends_of_files_that_arrive_are_refused_before_anybody_is_asked(wrong, said):
    with pytest.raises(RequestError, match=said):
        stream_job(job(streaming=True, **wrong), Silent())


def plan(*files: tuple[str, int, int]) -> list[Split]:
    """Splits, each a file: name, size, time."""
    return [
        Split(at, (Piece(path, 0, size, size, time, None, "jsonl", size),))
        for at, (path, size, time) in enumerate(files)
    ]


def mark(splits: list[Split], sent: int, of: int | None = None, settings: str = "s") -> Mark:
    """What a run says of itself that has sent so many."""
    number = len(splits) if of is None else of
    return replace(mark_of(splits, sent), splits=number, settings=settings, read=sent)


A, B, C, D = ("a", 5, 1), ("b", 6, 1), ("c", 7, 1), ("d", 8, 1)
PLAN = plan(A, B, C)
PLAIN, RESUME, OVERWRITE = job(), job(resume=True), job(overwrite=True)


def test_a_run_goes_on_where_the_mark_is_and_only_if_it_is_told_to():
    assert decided(None, PLAN, "s", PLAIN) == decided(None, PLAN, "s", RESUME) == 0
    assert decided(mark(PLAN, 0), PLAN, "s", PLAIN) == 0  # it was begun, and nothing is there
    assert decided(mark(PLAN, 2), PLAN, "s", RESUME) == 2
    assert decided(mark(PLAN, 2), PLAN, "s", OVERWRITE) == 0
    with pytest.raises(OutputExistsError, match=r"2 of 3 splits of this very run .* --resume to"):
        decided(mark(PLAN, 2), PLAN, "s", PLAIN)
    with pytest.raises(OutputExistsError, match="Add --overwrite to send all"):
        decided(mark(PLAN, 3), PLAN, "s", PLAIN)


def test_what_comes_behind_the_mark_may_change():
    mended, more = plan(A, B, ("c", 9, 2)), plan(A, B, C, D)
    assert decided(mark(PLAN, 2), mended, "s", RESUME) == 2
    assert decided(mark(PLAN, 3), more, "s", RESUME) == 3
    with pytest.raises(OutputExistsError):  # not the first three again
        decided(mark(PLAN, 3), more, "s", PLAIN)


@pytest.mark.parametrize("asked", [PLAIN, RESUME])
def test_another_run_is_not_mixed_with_one_that_was_not_finished(asked):
    changed = plan(A, ("b", 6, 2), C)
    for splits, settings in ((changed, "s"), (PLAN, "other"), (plan(D), "s"), ([], "s")):
        with pytest.raises(ResumeError, match="was not finished"):
            decided(mark(PLAN, 2), splits, settings, asked)
    assert decided(mark(PLAN, 3), plan(D, A), "s", asked) == 0  # a finished one is no obstacle
    for splits, settings in ((changed, "s"), (PLAN, "other")):  # unless it had these very files
        with pytest.raises(OutputExistsError, match="these files are in the topic"):
            decided(mark(PLAN, 3), splits, settings, asked)


_FILES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 2), st.integers(1, 2)), max_size=5
)


@given(one=_FILES, other=_FILES, sent=st.integers(0, 5))
def test_two_plans_have_the_same_mark_where_they_begin_with_the_same_splits(one, other, sent):
    sent = min(sent, len(one))
    same = one[:sent] == other[:sent]
    assert (mark_of(plan(*one), sent).chain == mark_of(plan(*other), sent).chain) is same


@given(st.builds(Mark, *[st.integers(0, 9)] * 3, *[st.text()] * 3, *[st.integers(0, 9)] * 4))
def test_a_mark_is_read_as_it_was_written_and_fits_beside_an_offset(made):
    assert Mark.read_from(made.sent, made.written()) == made
    assert Mark.read_from(3, "something else") is None
    assert Mark.read_from(3, '{"run": "of a lane"}') is None
    assert len(mark(PLAN, 3).written()) < 1000


LIMITS = Limits(1_000_000, None, None)
INFO: Any = SimpleNamespace(name="doubler", version="1", fingerprint="f")
_TEXTS = st.text() | st.sampled_from(['","record":', '\\","record":1', '{"record":2}', '"line":1,'])


@given(
    failed=st.lists(
        st.tuples(st.integers(1, 99), _TEXTS, st.dictionaries(_TEXTS, _TEXTS | st.integers())),
        max_size=4,
    ),
    first=st.integers(0, 3),
    parsed=st.booleans(),
)
def test_error_records_hold_the_original_and_the_place_in_the_whole_file(failed, first, parsed):
    originals = [
        json.dumps(record, indent=None, separators=(" , ", " : ")) for *_, record in failed
    ]
    lines = [
        error_line(
            '"line":1,',
            Position(line, 7),
            '","record":',
            Failure(0, "predict", why, why),
            original_text(original.encode(), parsed),
        )
        for (line, why, _), original in zip(failed, originals, strict=True)
    ]
    for form in ("original", "json"):
        maker = LinesMaker(INFO, LIMITS, LIMITS, form)
        made = [maker._error(line[:-1], first) for line in lines]
        for (line, why, _), original, message, before in zip(
            failed, originals, made, lines, strict=True
        ):
            headers = dict(message.headers)
            assert headers["modelbeam.line"] == b"%d" % (line + first)
            assert headers["modelbeam.error.type"] == why.encode("utf-8")
            if form == "original":
                assert message.value == original.encode()
            else:
                said = {**orjson.loads(before), "line": line + first}
                assert orjson.loads(message.value or b"") == said


def test_bytes_that_are_no_text_come_back(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    failure = Failure(0, "decode", "JSONDecodeError", "bad")
    original = original_text(b"\xff\x00", parsed=False)
    path.write_bytes(error_line("in", Position(1, 0), "m", failure, original))
    [message] = LinesMaker(INFO, LIMITS, LIMITS, "original").errors(str(path), 0)
    assert message.value == b"\xff\x00"


@given(lengths=st.lists(st.integers(0, 12), max_size=8), largest=st.integers(8, 20))
def test_a_prediction_that_is_too_long_fails_and_its_neighbours_do_not(lengths, largest):
    handle = io.BytesIO()
    writer = ShortLinesWriter(handle, largest)
    values = [{"y": "x" * length} for length in lengths]
    outcome = Outcome(len(values), values, False, None, None, [])
    failed = {failure.row for failure in writer.write(outcome)}
    lines = [json.dumps(value, separators=(",", ":")) for value in values]
    assert failed == {row for row, line in enumerate(lines) if len(line) > largest}
    assert handle.getvalue().decode().split("\n")[:-1] == [
        line for line in lines if len(line) <= largest
    ]
    assert writer.rows == len(lines) - len(failed)
