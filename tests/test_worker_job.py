"""The steps on a worker, called by hand: again after publishing, and where something is missing."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_models
from commands import split_of, write_lines
from crashing import published

import modelbeam
from modelbeam.beam import causes, chain
from modelbeam.beam.on_worker import PredictSplit, PublishSplits, WorkerJob, _ReadPlan
from modelbeam.beam.on_worker import told as told_on_worker
from modelbeam.engines import run as remote
from modelbeam.engines.base import Status
from modelbeam.errors import (
    EngineUnreachableError,
    InterruptedRunError,
    InvisibleStateError,
    JobError,
    JobNotFoundError,
    ModelbeamError,
    ReconciliationError,
    TooManyErrorsError,
    WorkerDiedError,
    WorkerVersionError,
)
from modelbeam.package import versions

EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorkerJob, Path]:
    """What the workers of a job were told, and its output; its state is gone."""
    directory = tmp_path_factory.mktemp("done")
    write_lines(directory / "in.jsonl", [{"x": n - 1.0} for n in range(4)])
    told = []
    with pytest.MonkeyPatch.context() as patch:
        build = chain.build_remote
        patch.setattr(chain, "build_remote", lambda p, work: (told.append(work), build(p, work)))
        run(directory / "in.jsonl", directory / "out")
    return told[0], directory / "out"


def run(data: Path, output: Path, **settings: Any) -> Any:
    """Run a job on Beam's embedded job service."""
    return modelbeam.predict(
        model="small_models:Doubler",
        input=str(data),
        output=str(output),
        beam_options=EMBEDDED,
        **settings,
    )


SPLIT = split_of(0, "/x.jsonl", 0, 9, 9).to_json()


def take_all_steps(work: WorkerJob) -> list[Any]:
    """What an engine does when it repeats a job; what the steps yield."""
    yielded = list(_ReadPlan(work).process(None))
    yielded += PredictSplit(work).process(SPLIT)
    return [*yielded, PublishSplits(work).process((0, [0]))]


def why(call: Any, *arguments: Any) -> ModelbeamError | None:
    """The error of ours with which a step raises."""
    with pytest.raises(RuntimeError) as raised:
        list(call(*arguments) or [])
    return causes.decode(str(raised.value))


def test_steps_that_an_engine_repeats_after_publishing_do_nothing(
    done: tuple[WorkerJob, Path],
) -> None:
    work, output = done
    before = published(output), (output / "run.json").read_bytes()
    assert take_all_steps(work) == [None]
    assert (published(output), (output / "run.json").read_bytes()) == before
    assert not (output / "_modelbeam").exists()


def test_the_pipeline_is_as_small_for_many_inputs_as_for_one(
    done: tuple[WorkerJob, Path],
) -> None:
    work, output = done
    assert work.publication.record.inputs == ()  # Dataflow takes a pipeline of 10 MB
    (told,) = json.loads((output / "run.json").read_bytes())["job"]["inputs"]
    assert told[0] == str(output.parent / "in.jsonl")


def test_another_runs_output_is_not_taken_for_ours(done: tuple[WorkerJob, Path]) -> None:
    work, _ = done
    later = dataclasses.replace(work.publication, started=work.publication.started + 60)
    theirs = dataclasses.replace(work, publication=later)
    for step in (_ReadPlan(theirs).process, PublishSplits(theirs).process):
        assert isinstance(why(step, (0, [0])), InvisibleStateError)
    assert isinstance(why(PredictSplit(theirs).process, SPLIT), InvisibleStateError)


def test_a_worker_that_does_not_see_the_state(done: tuple[WorkerJob, Path], tmp_path: Path) -> None:
    work, _ = done
    output = dataclasses.replace(work.publication.output, path=str(tmp_path / "elsewhere"))
    elsewhere = dataclasses.replace(
        work,
        task=dataclasses.replace(work.task, state=output.state),
        publication=dataclasses.replace(work.publication, output=output),
    )
    error = why(PredictSplit(elsewhere).process, SPLIT)
    assert isinstance(error, InvisibleStateError)
    assert f"does not see {tmp_path}/elsewhere/_modelbeam" in str(error)


def test_a_worker_of_other_versions_does_nothing(done: tuple[WorkerJob, Path]) -> None:
    versions._found.cache_clear()
    other = dataclasses.replace(done[0], versions={"pyarrow": "0.1", "python": "2.7"})
    error = why(_ReadPlan(other).process, None)
    assert isinstance(error, WorkerVersionError)
    assert "Python" in str(error)
    assert "the submission 0.1" in str(error)


def test_splits_that_did_not_arrive_are_not_published(
    done: tuple[WorkerJob, Path], tmp_path: Path
) -> None:
    work, _ = done
    (tmp_path / "plan.jsonl").write_text("")
    task = dataclasses.replace(work.task, state=str(tmp_path))
    lacking = dataclasses.replace(work, task=task, splits=3)
    error = why(PublishSplits(lacking).process, (0, [0, 1, 1]))
    assert isinstance(error, ReconciliationError)
    assert "2 of 3 splits arrived" in str(error)


MAPPED = """
import ctypes, pickle, sys
from modelbeam.beam.on_worker import PredictSplit

class Info(ctypes.Structure):  # struct mallinfo2 of glibc's malloc.h
    _names = "arena ordblks smblks hblks a b c d e f"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.argtypes = Info, [ctypes.c_size_t]
libc.malloc.restype = ctypes.c_void_p
def mapped():
    before = libc.mallinfo2().hblks
    libc.malloc(16 << 20)
    return libc.mallinfo2().hblks - before
work = pickle.load(open(sys.argv[1], "rb"))
at_first = mapped()
assert PredictSplit(work)._ready()
print(at_first, mapped())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="there is no glibc")
@pytest.mark.parametrize(
    ("variables", "said"), [({}, "1 0"), ({"MALLOC_TRIM_THRESHOLD_": "9"}, "1 1")]
)
def test_a_workers_memory_is_kept_for_the_next_block(
    variables: dict[str, str], said: str, done: tuple[WorkerJob, Path], tmp_path: Path
) -> None:
    (tmp_path / "plan.jsonl").write_text("")
    task = dataclasses.replace(done[0].task, state=str(tmp_path))
    (tmp_path / "work").write_bytes(pickle.dumps(dataclasses.replace(done[0], task=task)))
    command = [sys.executable, "-c", MAPPED, tmp_path / "work"]
    path = {"PYTHONPATH": str(Path(small_models.__file__).parent)}
    ran = subprocess.run(
        command, env={**os.environ, **path, **variables}, capture_output=True, text=True
    )
    assert ran.stdout.strip() == said, ran.stderr  # whether 16 MB are mapped: before, after


def test_a_workers_model_error_is_the_jobs() -> None:
    with pytest.raises(RuntimeError) as raised, told_on_worker("loading the model"):
        raise modelbeam.errors.ModelLoadError("--model m:M raised KeyError.")
    error = causes.decode(str(raised.value))
    assert type(error) is JobError
    assert str(error).startswith("loading the model on ")


# The submitting process, with a stand-in for the job


class StandIn:
    """A job whose engine answers what it is told, one answer a question, the last one for ever."""

    engine, name, link, identity = "Stand-in", "job-1", "http://job/1", {"engine": "none"}

    def __init__(self, *answers: Status | Exception, cancel: Exception | None = None) -> None:
        self.answers, self._cancel = list(answers), cancel
        self.cancelled = self.closed = False

    def poll(self) -> Status:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def cause(self) -> str:
        raise EngineUnreachableError("it went away")

    def cancel(self) -> None:
        if self._cancel is not None:
            raise self._cancel
        self.cancelled = True
        self.answers = [Status("cancelled")]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a job followed that never touches its output; its last question is the end."""
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.2)
    data = write_lines(tmp_path / "in.jsonl", [{"x": 1.0}])

    def call(job: StandIn, **settings: Any) -> Any:
        monkeypatch.setattr(remote.RemoteRun, "_submit", lambda *_: job)
        try:
            return run(data, tmp_path / "out", **settings)
        finally:
            assert job.closed
            assert not (tmp_path / "out" / "_SUCCESS").exists()

    return call


AWAY = EngineUnreachableError("http://job does not answer")


def test_an_engine_may_be_silent_for_a_while(follow: Any) -> None:
    with pytest.raises(JobError, match=r"failed on Stand-in \(http://job/1\): it went away\."):
        follow(StandIn(Status("running"), AWAY, AWAY, Status("running"), AWAY, Status("failed")))


def test_a_job_whose_workers_never_come_back_is_not_submitted_for_ever(
    follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [frozenset({"a.begun"}), frozenset({"a.begun", "b.begun"}), frozenset({"b.begun"})]
    traces = iter([one for one in left for _ in range(2)] + [left[-1]] * 9)  # two looks a time
    monkeypatch.setattr(remote.Deaths, "traces", lambda _: next(traces))
    with pytest.raises(WorkerDiedError, match=r"failed on Stand-in .*resume=True"):
        follow(StandIn(Status("failed")))
    assert len(list(traces)) == 7, "it was submitted four times"


def test_an_engine_that_stays_silent_is_given_up(follow: Any, tmp_path: Path) -> None:
    with pytest.raises(
        EngineUnreachableError, match=r"Lost Stand-in: http://job does .*resume=True"
    ):
        follow(StandIn(Status("running"), AWAY))
    assert (tmp_path / "out" / "_modelbeam" / "job.json").exists(), "the job may go on"


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (JobNotFoundError("who?"), "Stand-in no longer knows the job job-1"),
        (Status("cancelled"), r"The job was cancelled on Stand-in \(http://job/1\)"),
        (Status("done"), "does not hold its result. Is it on storage that the workers share"),
    ],
)
def test_a_job_that_ended_without_an_output(last: Any, words: str, follow: Any) -> None:
    with pytest.raises(JobError, match=words + ".*resume=True"):
        follow(StandIn(Status("running"), last))


def test_more_errors_than_allowed_cancel_the_job(follow: Any) -> None:
    job = StandIn(Status("running", failed=2), Status("running", failed=3))
    with pytest.raises(TooManyErrorsError, match="3 records failed so far, more than max_errors=2"):
        follow(job, max_errors=2)
    assert job.cancelled


def test_ctrl_c_when_the_engine_does_not_answer(follow: Any) -> None:
    job = StandIn(KeyboardInterrupt(), cancel=AWAY)  # type: ignore[arg-type]
    with pytest.raises(
        InterruptedRunError, match=r"The job may go on: http://job does not .*resume=True"
    ):
        follow(job)


def test_figures_never_exceed_the_plan(follow: Any) -> None:
    seen = []
    job = StandIn(Status("running", splits=9, read=5, failed=1, tasks=2), Status("failed"))
    with pytest.raises(JobError):
        follow(job, on_progress=lambda t: seen.append((t.splits, t.counts.read, t.tasks)))
    assert seen[0] == (1, 5, 2)
