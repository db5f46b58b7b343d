"""The commit protocol without processes: attempts, manifests, publishing and its repetition.

All of it on local files and on object stores, see ``stores.py``; how stores fail is in
``test_stores.py``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import predictions_of, split_of
from stores import Root

from modelbeam import models, storage
from modelbeam.errors import OutputWriteError, ReconciliationError
from modelbeam.formats import Format, from_suffix
from modelbeam.job.result import Run
from modelbeam.job.split import predict_split
from modelbeam.job.task import Task
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.predicting.counts import Calls, Counts, Kind, Tally
from modelbeam.predicting.failures import Failure, Position, error_line, original_text
from modelbeam.report import page
from modelbeam.report.progress import summary
from modelbeam.sinks.files import publish
from modelbeam.sinks.files.attempt import Files
from modelbeam.sinks.files.manifest import Manifest, Written, find_manifest
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.state import JobRecord, State, earlier_record
from modelbeam.sources.splits import Split, plan_splits

RECORDS = 6
RECORD = JobRecord({"model": "m"}, 1 << 20, ())


class Crash(BaseException):
    """The process is gone: nothing that would tidy up may run after it."""


class Job:
    """A job of two splits of one file, and what its attempts and its publisher would do."""

    def __init__(self, root: Root, *, single: bool = False, source: str = "in.jsonl") -> None:
        self.root = root
        self.output = Output(root / ("out.jsonl" if single else "out"), single, Format("jsonl"))
        self.source = source
        self.splits = [split_of(i, source, 100 * i, 100 * i + 100) for i in range(2)]
        self.publication = publish.Publication(
            self.output, RECORD, ({},), None, "Runner", "1 thread", 0.0, 0
        )
        self.state = State(self.output, RECORD, fresh=True)
        self.sink = Files(self.output.state, self.output.format, RECORD.fingerprint)
        self.state.close()

    def begin(self, split: int, failing: set[int], said: str = "") -> Callable[[], Manifest]:
        """Write an attempt's files; what is returned commits it."""
        attempt = self.sink.attempt(self.splits[split])
        counts = Counts()
        for row in range(RECORDS):
            counts.read += 1
            n = split * RECORDS + row
            if row not in failing:
                attempt.write(predictions_of([{"n": n, "by": said}]))
                counts.predicted += 1
                continue
            failure, position = Failure(row, "predict", "E", said), Position(row + 1, 100 * split)
            counts.add_failure(failure, position, self.source)
            raw = json.dumps({"n": n}).encode()
            attempt.write_errors(
                error_line(self.source, position, "m", failure, original_text(raw, True))
            )
        return lambda: attempt.commit(counts, RECORDS)

    def publish(self) -> dict[str, Any]:
        """Publish, or go on publishing."""
        return publish.publish(self.publication, self.splits)

    def visible(self) -> dict[str, bytes]:
        """What a user sees, by name."""
        return self.root.files("" if self.output.single else "out")

    def _lines(self, prefix: str, name: str) -> list[dict[str, Any]]:
        visible = self.visible()
        if self.output.single:
            return [json.loads(line) for line in visible.get(name, b"").splitlines()]
        shards = [data for shard, data in visible.items() if shard.startswith(prefix)]
        return [json.loads(line) for data in shards for line in data.splitlines()]

    def predictions(self) -> list[dict[str, Any]]:
        """The published predictions."""
        return self._lines("predictions-", "out.jsonl")

    def errors(self) -> list[dict[str, Any]]:
        """The published error lines."""
        return self._lines("errors-", "out.errors.jsonl")

    def records(self) -> list[int]:
        """The ``n`` of every record in predictions and errors."""
        errors = [line["record"] for line in self.errors()]
        return sorted(line["n"] for line in self.predictions() + errors)


@pytest.fixture(params=[False, True], ids=["directory", "single file"])
def job(root: Root, request: pytest.FixtureRequest) -> Job:
    """A job with an empty state."""
    return Job(root, single=request.param)


def committed(root: Root, name: str, single: bool) -> Job:
    """A job in a directory of its own, whose splits are both committed, with failures in both."""
    if root.server is None:
        Path(root / name).mkdir()
    made = Job(Root(root / name, root.server), single=single)
    for split in range(2):
        made.begin(split, {1, 4})()
    return made


def without_times(visible: dict[str, bytes]) -> dict[str, bytes]:
    """The files but the description of the run and its page, which tell the time and the paths."""
    return {
        name: data
        for name, data in visible.items()
        if not name.endswith(("run.json", "report.html"))
    }


@contextmanager
def failing_at(call: int, function: str, error: BaseException) -> Iterator[list[int]]:
    """Let one call of a function of ``storage``, counted from 0, raise instead of being done."""
    real, calls = getattr(storage, function), [0]

    def raising(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == call + 1:
            raise error
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, function, raising)
        yield calls


def placing(job: Job) -> str:
    """The function of ``storage`` that puts a file where a user sees it."""
    return "copy" if storage.keeps_sources(job.root.url) else "replace"


# Attempts that disagree


DISAGREEING = [{0, 1, 2}, {2, 3}, set()]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)], ids=str)
def test_three_attempts_leave_every_record_once_and_the_last_counts(job: Job, order: Any) -> None:
    commits = [job.begin(0, failing, f"attempt {i}") for i, failing in enumerate(DISAGREEING)]
    job.begin(1, set())()
    for attempt in order:
        commits[attempt]()
    job.publish()
    assert job.records() == list(range(2 * RECORDS))
    failed = {line["record"]["n"] for line in job.errors()}
    assert failed == DISAGREEING[order[-1]]
    assert {line["by"] for line in job.predictions()[: RECORDS - len(failed)]} == {
        f"attempt {order[-1]}"
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_two_attempts_at_each_split_leave_every_record_once(job: Job, order: Any) -> None:
    for split in range(2):
        commits = [job.begin(split, failing) for failing in ({0, 5}, {5, 3})]
        for attempt in order:
            commits[attempt]()
    run = job.publish()
    assert job.records() == list(range(2 * RECORDS))
    assert run["counts"] == {"read": 12, "predicted": 8, "failed": 4}


def test_an_attempt_without_failures_leaves_no_errors_of_an_earlier_one(job: Job) -> None:
    job.begin(0, {0, 1})()
    job.begin(0, set())()
    job.begin(1, set())()
    job.publish()
    assert job.errors() == []
    assert len(job.predictions()) == 2 * RECORDS


def test_a_model_that_fails_at_random_leaves_every_record_once(root: Root) -> None:
    lines = "".join(f'{{"n": {n}, "x": 1.0}}\n' for n in range(200))
    storage.write_atomically(root / "in.jsonl", lines.encode())
    output = Output(root / "out", False, Format("jsonl"))
    splits = plan_splits([storage.stat(root / "in.jsonl")], 1000)
    assert len(splits) > 3
    State(output, RECORD, fresh=True).close()
    task = Task(output.state, RECORD.fingerprint, output.format, (), None, 1 << 20)
    model = models.load("crash_models:Flaky", None, {"seed": 5})
    for split in splits * 3:
        predict_split(split, task, model)
    publication = publish.Publication(output, RECORD, ({},), None, "Runner", "1 thread", 0.0, 0)
    run = publish.publish(publication, splits)
    texts = [(name, data.splitlines()) for name, data in root.files("out").items()]
    predicted = [json.loads(t) for name, ts in texts if name[0] == "p" for t in ts]
    errors = [json.loads(t) for name, ts in texts if name[0] == "e" for t in ts]
    counts = run["counts"]
    assert (counts["read"], counts["predicted"]) == (200, len(predicted))
    assert counts["failed"] == len(errors)
    assert sorted(r["n"] for r in predicted + [e["record"] for e in errors]) == list(range(200))
    assert min(len(predicted), len(errors)) > 50


def test_the_size_of_calls_is_that_of_all_splits(tmp_path: Path) -> None:
    """In ``run.json`` and in the summary, also of splits whose manifests an earlier run wrote."""

    class Narrow(LoadedModel):
        info = ModelInfo("t", "narrow", "batch")

        def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
            if len(records) > 40:
                raise MemoryError
            return records

    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(300)))
    output = Output(str(tmp_path / "out"), False, Format("jsonl"))
    [whole] = plan_splits([storage.stat(str(path))], 1 << 20)
    ends = path.read_text().index('{"n": 30}'), path.stat().st_size
    [piece] = whole.pieces
    cut = [replace(piece, start=start, end=end) for start, end in itertools.pairwise((0, *ends))]
    splits = [Split(at, (one,)) for at, one in enumerate(cut)]
    State(output, RECORD, fresh=True).close()
    task = Task(output.state, RECORD.fingerprint, output.format, (), None, 1 << 20)
    model = Narrow()
    for split in splits:  # 30 records, and 270: 135, 67 and 33 at once
        predict_split(split, task, model)
    said = Narrow.info.to_dict()
    publication = publish.Publication(output, RECORD, (said,), None, "R", "1 thread", 0.0, 0)
    described = publish.publish(publication, splits)
    assert described["models"] == [{**said, "batch_size": 33, "halved": 3}]
    assert described["counts"] == {"read": 300, "predicted": 300, "failed": 0}
    shown = summary(Run.of(described))
    assert "1 thread, up to 33 records a call, halved 3 times since memory ran out)" in shown


def test_an_attempt_that_crashed_before_its_manifest_counts_nothing(job: Job) -> None:
    def crash(split: int, failing: set[int]) -> None:
        with failing_at(0, "write_atomically", Crash()), pytest.raises(Crash):
            job.begin(split, failing, "crashed")()

    crash(0, {0, 1, 2})
    job.begin(0, {3}, "retry")()
    job.begin(1, set(), "other")()
    crash(1, {4})
    job.publish()
    assert job.records() == list(range(2 * RECORDS))
    assert {line["by"] for line in job.predictions()} == {"retry", "other"}


def test_a_zombie_that_commits_after_the_choice_is_frozen_changes_nothing(job: Job) -> None:
    zombie = job.begin(0, {0, 1, 2}, "zombie")
    job.begin(0, {3}, "first")()
    job.begin(1, set(), "first")()
    with failing_at(0, placing(job), Crash()), suppress(Crash):
        job.publish()
    zombie()
    job.publish()
    assert job.records() == list(range(2 * RECORDS))
    assert {line["by"] for line in job.predictions()} == {"first"}
    assert [line["record"]["n"] for line in job.errors()] == [3]


def test_a_zombie_that_writes_after_the_end_is_an_error_to_itself_only(job: Job) -> None:
    zombie = job.begin(0, {0}, "zombie")
    for split in range(2):
        job.begin(split, set(), "first")()
    job.publish()
    before = job.visible()
    if job.root.server is None:
        with pytest.raises(OSError, match="No such file"):
            zombie()
    else:  # it writes where nobody looks
        zombie()
        assert not job.output.unfinished()
    assert job.visible() == before


# Attempts and manifests


def test_counts_that_do_not_add_up_are_never_committed(job: Job) -> None:
    attempt = job.sink.attempt(job.splits[0])
    attempt.write(predictions_of([{}]))
    with pytest.raises(ReconciliationError, match="2 records read, 1 predicted"):
        attempt.commit(Counts(read=2, predicted=1), 2)
    attempt.abandon()
    assert job.output.committed() == 0


def test_lines_that_are_not_as_many_as_were_counted_are_never_committed(job: Job) -> None:
    attempt = job.sink.attempt(job.splits[0])
    attempt.write(predictions_of([{}]))
    with pytest.raises(ReconciliationError, match="1 written"):
        attempt.commit(Counts(read=2, predicted=2), 2)
    attempt.abandon()
    assert job.output.committed() == 0


def test_an_abandoned_attempt_leaves_no_file(job: Job) -> None:
    attempt = job.sink.attempt(job.splits[0])
    attempt.write(predictions_of([{}]))
    attempt.write_errors(b"{}\n")
    attempt.abandon()
    assert storage.names_in(storage.join(job.output.state, "attempts")) == []


def test_an_attempt_whose_manifest_cannot_be_written_is_removed_when_abandoned(job: Job) -> None:
    attempt = job.sink.attempt(job.splits[0])
    attempt.write(predictions_of([{}]))
    full = OSError(28, "No space left on device")
    with failing_at(0, "write_atomically", full), pytest.raises(OSError, match="No space"):
        attempt.commit(Counts(read=1, predicted=1), 1)
    attempt.abandon()
    assert storage.names_in(storage.join(job.output.state, "attempts")) == []


def test_a_split_without_records_is_an_empty_shard(root: Root) -> None:
    job = Job(root)
    job.sink.attempt(job.splits[0]).commit(Counts(), 0)
    job.begin(1, set())()
    run = job.publish()
    assert run["status"] == "succeeded"
    assert {n: len(d.splitlines()) for n, d in without_times(job.visible()).items()} == {
        "_SUCCESS": 0,
        "predictions-00000-of-00002.jsonl": 0,
        "predictions-00001-of-00002.jsonl": RECORDS,
    }


ODD_PATHS = ["in.jsonl", 'a "quoted" \\ path.jsonl', "grün.jsonl", "latin-\udce9.jsonl"]


@pytest.mark.parametrize("path", ODD_PATHS, ids=ascii)
def test_a_manifest_is_read_as_it_was_written(path: str) -> None:
    kinds = [Kind("predict", "E", "bad", 2, path, {"line": 3, "offset": 40}, "bad")]
    manifest = Manifest(
        split_of(3, path, 10, None, 99, 123456789, "gzip").key,
        path,
        "stamp",
        "f" * 20,
        Written("a.jsonl", 12),
        Written("a.errors.jsonl", 34),
        Counts(4, 2, 2, kinds, models={"a": Tally(4, 2, 2)}, calls={"a": Calls(3, 1)}),
        5,
        0.25,
    )
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_a_manifest_of_another_job_or_another_state_of_the_file_is_none(job: Job) -> None:
    job.begin(0, {0})()
    split, state = job.splits[0], job.output.state
    assert find_manifest(state, split, RECORD.fingerprint) is not None
    assert find_manifest(state, split, "another") is None
    (piece,) = split.pieces
    changed = Split(0, (replace(piece, size=piece.size + 1),))
    assert find_manifest(state, changed, RECORD.fingerprint) is None
    touched = Split(0, (replace(piece, mtime_ns=8),))
    assert find_manifest(state, touched, RECORD.fingerprint) is None


@pytest.mark.parametrize(
    "damage",
    [lambda path: storage.remove([path]), lambda path: storage.write_atomically(path, b"{}\n")],
    ids=["missing", "short"],
)
@pytest.mark.parametrize("kind", ["predictions", "errors"])
def test_a_manifest_whose_file_is_missing_or_short_is_refused(
    job: Job, kind: str, damage: Callable[[str], Any]
) -> None:
    manifest = job.begin(0, {2})()
    job.begin(1, {2})()
    damage(storage.join(job.output.state, "attempts", getattr(manifest, kind).name))
    assert find_manifest(job.output.state, job.splits[0], RECORD.fingerprint) is None
    with pytest.raises(ReconciliationError, match=r"split 0 .* has no manifest"):
        job.publish()
    assert job.visible() == {}


def test_a_split_that_was_not_committed_is_not_published(job: Job) -> None:
    job.begin(0, set())()
    with pytest.raises(ReconciliationError, match=r"split 1 .* has no manifest"):
        job.publish()
    assert job.visible() == {}


# Publishing


def test_error_lines_are_numbered_as_in_the_whole_file(job: Job) -> None:
    job.begin(0, {0, 5})()
    job.begin(1, {2})()
    run = job.publish()
    assert [line["line"] for line in job.errors()] == [1, 6, 9]
    assert [line["offset"] for line in job.errors()] == [0, 0, 100]
    assert run["failures"][0]["line"] == 1


@pytest.mark.parametrize("path", ODD_PATHS, ids=ascii)
def test_error_lines_are_numbered_whatever_the_path_is(root: Root, path: str) -> None:
    job = Job(root, source=path)
    job.begin(0, set())()
    job.begin(1, {2})()
    job.publish()
    assert [line["line"] for line in job.errors()] == [9]


def test_the_first_of_each_kind_of_failure_is_numbered_as_in_the_whole_file(job: Job) -> None:
    job.begin(0, set())()
    job.begin(1, {3, 4}, "why")()
    assert job.publish()["failures"] == [
        {
            "stage": "predict",
            "type": "E",
            "message": "why",
            "count": 2,
            "source": "in.jsonl",
            "line": RECORDS + 4,
            "offset": 100,
            "error": "why",
            "where": "",
            "traceback": "",
        }
    ]


def test_publishing_leaves_no_state_and_no_temporary_files(job: Job) -> None:
    job.begin(0, {0})()
    job.begin(1, set())()
    job.publish()
    names = ["out.errors.jsonl", "out.jsonl", "out.report.html", "out.run.json"]
    if not job.output.single:
        names = ["_SUCCESS", "errors-00000-of-00002.jsonl", "predictions-00000-of-00002.jsonl"]
        names += ["predictions-00001-of-00002.jsonl", "report.html", "run.json"]
    assert list(job.visible()) == names
    assert not storage.exists(job.output.state)


def test_a_run_has_a_page_and_its_description_names_it(job: Job) -> None:
    job.begin(0, {0})()
    job.begin(1, set())()
    run = job.publish()
    assert run["report"] == job.output.report_file
    drawn = job.visible()["out.report.html" if job.output.single else "report.html"].decode()
    assert f"Succeeded; 1 of {2 * RECORDS} records failed" in drawn


def test_a_page_that_cannot_be_drawn_fails_nothing_and_an_older_one_goes(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> str:
        raise ValueError("two\nlines\x1b")

    job.begin(0, {0})()
    job.begin(1, set())()
    job.publish()
    assert any(name.endswith("report.html") for name in job.visible())
    job = Job(job.root, single=job.output.single)
    job.begin(0, {0})()
    job.begin(1, set())()
    monkeypatch.setattr(page, "draw", failing)
    run = job.publish()
    assert run["status"] == "succeeded"
    assert "report" not in run
    assert not any(name.endswith("report.html") for name in job.visible())
    assert capsys.readouterr().err == ("modelbeam: the report could not be drawn: two lines\\x1b\n")


def test_a_page_is_left_out_where_it_is_not_wanted(job: Job) -> None:
    job.begin(0, set())()
    job.begin(1, set())()
    job.publication = replace(job.publication, report=False)
    assert "report" not in job.publish()
    assert not any(name.endswith("report.html") for name in job.visible())


SINGLE = pytest.mark.parametrize("single", [False, True], ids=["directory", "single file"])


@SINGLE
@pytest.mark.parametrize("function", ["place", "write_atomically", "write_once"])
def test_publishing_fails_at_any_call_and_is_repeated(
    root: Root, single: bool, function: str
) -> None:
    whole = committed(root, "whole", single)
    whole.publish()
    for call in itertools.count():
        job = committed(root, f"failed-at-{call}", single)
        called = placing(job) if function == "place" else function
        with failing_at(call, called, OSError(5, "Input/output error")) as calls:
            try:
                job.publish()
                break
            except OutputWriteError:
                pass
        assert calls[0] > call
        assert "_SUCCESS" not in job.visible()
        if called == "replace":
            assert job.visible() == {}
        job.publish()
        assert without_times(job.visible()) == without_times(whole.visible())
    assert call >= {"place": 3, "write_atomically": 1 if single else 2, "write_once": 1}[function]
    assert without_times(job.visible()) == without_times(whole.visible())


@pytest.mark.parametrize(
    ("single", "shape"), [(True, "same files"), (False, "same files"), (False, "other files")]
)
@pytest.mark.parametrize("function", ["place", "remove", "write_atomically"])
def test_publishing_over_an_output_fails_at_any_call_and_says_what_is_there(
    root: Root, single: bool, function: str, shape: str
) -> None:
    outcomes = set()
    for call in itertools.count():
        first = committed(root, f"over-{call}", single)
        first.publish()
        if shape == "other files":
            for split in range(2):
                shards = [first.output.shard("predictions", split, of) for of in (2, 3)]
                storage.replace(*shards)
        before = first.visible()
        again = Job(first.root, single=single)
        again.publication = replace(again.publication, started=1.0)
        for split in range(2):
            again.begin(split, {1} if shape == "same files" else set(), "again")()
        called = placing(again) if function == "place" else function
        with failing_at(call, called, OSError(28, "No space left on device")):
            try:
                again.publish()
                break
            except OutputWriteError as error:
                message = str(error)
        assert "No space left on device" in message
        assert "with --resume" in message
        if "as it was" in message:
            assert again.visible() == before
            outcomes.add("old")
        else:
            assert "is published in part" in message
            assert "_SUCCESS" not in again.visible()
            outcomes.add("between")
        again.publish()
        assert {line["by"] for line in again.predictions()} == {"again"}
        assert not [name for name in again.visible() if "00003" in name]
        assert single or "_SUCCESS" in again.visible()
    assert outcomes, "it never failed"
    assert {line["by"] for line in again.predictions()} == {"again"}


def test_renaming_that_cannot_be_undone_is_said(root: Root) -> None:
    job = committed(root, "undo", False)
    if placing(job) == "copy":
        return
    real, calls = storage.replace, [0]

    def breaks(source: str, target: str) -> None:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(30, "Read-only file system")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "replace", breaks)
        with pytest.raises(OutputWriteError, match=r"is published in part: Read-only .*_SUCCESS"):
            job.publish()
    assert len(job.visible()) == 1
    job.publish()
    assert len(job.records()) == 2 * RECORDS


@SINGLE
@pytest.mark.parametrize(
    "function", ["place", "write_atomically", "write_once", "concatenate", "remove", "create"]
)
def test_publishing_is_killed_at_any_call_and_is_repeated(
    root: Root, single: bool, function: str
) -> None:
    whole = committed(root, "whole", single)
    whole.publish()
    for call in itertools.count():
        job = committed(root, f"killed-at-{call}", single)
        called = placing(job) if function == "place" else function
        try:
            with failing_at(call, called, Crash()):
                job.publish()
            break
        except Crash:
            assert "_SUCCESS" not in job.visible() or not publish.is_frozen(job.output) or call
        job.publish()
        assert without_times(job.visible()) == without_times(whole.visible())
    assert without_times(job.visible()) == without_times(whole.visible())


@pytest.mark.parametrize("reverse", [False, True], ids=["a to z", "z to a"])
@SINGLE
def test_a_run_killed_while_its_state_is_removed_is_a_finished_run(
    root: Root, single: bool, reverse: bool
) -> None:
    real = storage.remove_tree

    def remove_some(path: str) -> None:
        files = [info.path for info in storage.expand(storage.join(path, "**"))]
        for file in sorted(files, reverse=reverse):
            if left[0] == 0:
                raise Crash
            left[0] -= 1
            storage.remove([file])
        return real(path)

    for count in itertools.count():
        left = [count]
        job = committed(root, f"killed-after-{count}", single)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "remove_tree", remove_some)
            try:
                job.publish()
                break
            except Crash:
                pass
        _, finished = earlier_record(job.output)
        assert publish.is_frozen(job.output) or finished is not None, f"after {count} files"
    assert count >= 4


@SINGLE
def test_publishing_over_an_earlier_run_leaves_none_of_its_files(root: Root, single: bool) -> None:
    first = committed(root, "x", single)
    first.publish()
    for name in ("predictions-00006-of-00007.jsonl", "errors-00006-of-00007.jsonl", "notes.txt"):
        storage.write_atomically(first.root / (name if single else f"out/{name}"), b"not ours")
    again = Job(first.root, single=single)
    for split in range(2):
        again.begin(split, set(), "again")()
    again.publish()
    assert {line["by"] for line in again.predictions()} == {"again"}
    assert "notes.txt" in again.visible()
    if single:
        assert again.errors() == []
        assert "predictions-00006-of-00007.jsonl" in again.visible()
    else:
        assert not [n for n in again.visible() if n.startswith("errors") or "00007" in n]


# Files


def test_write_atomically_leaves_only_the_file(tmp_path: Path) -> None:
    storage.write_atomically(str(tmp_path / "a"), b"one")
    storage.write_atomically(str(tmp_path / "a"), b"two")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"two"}


def test_write_atomically_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_atomically(str(tmp_path / "a"), b"one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_atomically(str(tmp_path / "a"), b"two")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"one"}


@pytest.mark.parametrize(
    ("path", "forced", "base"),
    [
        ("a.jsonl", None, "a"),
        ("a.b.jsonl.gz", None, "a.b"),
        ("out.d/x.json", None, "out.d/x"),
        ("out.d/x.jsonl.zst", None, "out.d/x"),
        ("./x.jsonl", None, "./x"),
        ("a.jsonl", "jsonl.gz", "a"),
        ("my.data.jsonl", "jsonl.gz", "my.data"),
        ("./x.jsonl", "jsonl.gz", "./x"),
        ("out.d/x.jsonl", "jsonl.gz", "out.d/x"),
        ("x.jsonl.gz", "jsonl", "x"),
    ],
)
def test_the_companions_of_a_single_file_stand_beside_it(
    path: str, forced: str | None, base: str
) -> None:
    written = Format(*{"jsonl": ("jsonl",), "jsonl.gz": ("jsonl", "gzip")}[forced or "jsonl"])
    found = from_suffix(path)
    assert found is not None
    output = Output(path, True, written if forced else found)
    assert output.run_file == base + ".run.json"
    assert output.errors_file == base + ".errors.jsonl"
    assert output.state == base + "._modelbeam"


def test_the_files_of_a_directory_are_named_by_kind_and_place() -> None:
    output = Output("dir", False, Format("jsonl", "gzip"))
    assert output.state == "dir/_modelbeam"
    assert output.run_file == "dir/run.json"
    assert output.success_file == "dir/_SUCCESS"
    assert output.shard("predictions", 4, 13) == "dir/predictions-00004-of-00013.jsonl.gz"
    assert output.shard("errors", 4, 13) == "dir/errors-00004-of-00013.jsonl"
