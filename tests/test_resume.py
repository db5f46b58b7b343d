"""Resuming and overwriting: what is done again, what is not, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import beside, environment, read_lines, shards, write_lines

import modelbeam
from modelbeam import storage
from modelbeam.errors import (
    InputReadError,
    NothingPredictedError,
    OutputExistsError,
    OutputWriteError,
    ResumeError,
    TooManyErrorsError,
)

MODEL = "crash_models:Recorded"
SETTINGS: dict[str, Any] = {"model": MODEL, "input": "in", "output": "out", "split_size": "200"}
FLAGS = ["predict", "-m", MODEL, "-i", "in", "-o", "out"]
RECORDS = 40
FAILING = 33


def records(count: int = RECORDS, start: int = 0, failing: int | None = None) -> list[Any]:
    """Records with the numbers from ``start``."""
    return [{"n": n, "x": -1.0 if n == failing else n / 2} for n in range(start, start + count)]


def predict(**settings: Any) -> modelbeam.Run:
    """Run the job of these tests, with some settings changed."""
    return modelbeam.predict(**{**SETTINGS, **settings})


def worked_on() -> list[int]:
    """The ``n`` of the records that the model was given since this was asked the last time."""
    log = Path(os.environ["RECORD_LOG"])
    seen = [int(line) for line in log.read_text().split()] if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(set(seen))  # what fails is given to it once more


def files(directory: str = "out") -> list[str]:
    """The names of what a user sees in a directory, beside the report."""
    return beside(name for name in os.listdir(directory) if "_modelbeam" not in name)


def manifests() -> dict[str, int]:
    """The manifests of an unfinished run, and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in Path("out/_modelbeam/manifests").iterdir()}


def counts(run: modelbeam.Run) -> tuple[int, int, int]:
    """Records read, predicted and failed."""
    return run.read, run.predicted, run.failed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two input files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECORD_LOG", str(tmp_path / "log"))
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in" / "a.jsonl", records(20))
    write_lines(tmp_path / "in" / "b.jsonl", records(20, 20, FAILING))
    return tmp_path


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run whose splits are all done and which --max-errors stopped."""
    path = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("RECORD_LOG", str(path / "log"))
        (path / "in").mkdir()
        write_lines(path / "in" / "a.jsonl", records(20))
        write_lines(path / "in" / "b.jsonl", records(20, 20, FAILING))
        with pytest.raises(TooManyErrorsError):
            predict(max_errors="0%")
        assert worked_on() == list(range(RECORDS))
    return path


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_run: Path) -> Path:
    """A copy of it as the working directory."""
    path = tmp_path / "job"
    shutil.copytree(stopped_run, path)
    monkeypatch.chdir(path)
    monkeypatch.setenv("RECORD_LOG", str(path / "log"))
    return path


# What is refused


def version_2(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The model is another version."""
    patch.setenv("MODEL_VERSION", "2.0")
    return {}


def append(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """An input has grown."""
    with open("in/a.jsonl", "a") as handle:
        handle.write('{"n": 99, "x": 1.0}\n')
    return {}


def touch(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """An input has been written again with as many bytes."""
    os.utime("in/b.jsonl")
    return {}


def add(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """There is an input more."""
    write_lines(Path("in/c.jsonl"), records(1))
    return {}


def remove(_: pytest.MonkeyPatch) -> dict[str, Any]:
    """There is an input less."""
    os.remove("in/a.jsonl")
    return {}


CHANGES: list[tuple[Any, str]] = [
    (version_2, "model version: was 1.0, is 2.0"),
    ({"model": "crash_models:Flaky"}, "model: was crash_models:Recorded, is crash_models:Flaky"),
    ({"model": f"other={MODEL}"}, "model name: was doubler, is other"),
    (
        {"model": {"target": MODEL, "arguments": {"seconds": 0.5}}},
        "model arguments: was",
    ),
    ({"keep": ["n"]}, "keep: was nothing, is ['n']"),
    ({"output_format": "jsonl.gz"}, "output_format: was .jsonl, is .jsonl.gz"),
    ({"batch_size": 7}, "batch_size: was auto, is 7"),
    ({"max_record_size": "1MB"}, "max_record_size: was 33554432, is 1048576"),
    (append, "input in/a.jsonl has changed (390 bytes then, 410 now)"),
    (touch, "input in/b.jsonl has changed (modified since)"),
    (add, "input in/c.jsonl is new"),
    (remove, "input in/a.jsonl is gone"),
]


@pytest.mark.parametrize(("change", "difference"), CHANGES, ids=[text for _, text in CHANGES])
@pytest.mark.usefixtures("stopped")
def test_resuming_another_job_is_refused_with_what_differs(
    monkeypatch: pytest.MonkeyPatch, change: Any, difference: str
) -> None:
    before = manifests()
    settings = change(monkeypatch) if callable(change) else change
    with pytest.raises(ResumeError) as refused:
        predict(resume=True, **settings)
    assert difference in str(refused.value)
    assert "overwrite=True" in str(refused.value)
    assert refused.value.exit_code == 2
    assert worked_on() == []
    assert manifests() == before
    assert files() == []


@pytest.mark.usefixtures("stopped")
def test_all_that_differs_is_named() -> None:
    with pytest.raises(ResumeError, match=r"batch_size: .*; keep: .*\. Run it as it was"):
        predict(resume=True, keep="all", batch_size=2)


@pytest.mark.usefixtures("stopped")
def test_a_refused_run_may_still_be_resumed_as_it_was() -> None:
    with pytest.raises(ResumeError):
        predict(resume=True, keep="all")
    assert counts(predict(resume=True)) == (RECORDS, RECORDS - 1, 1)
    assert worked_on() == []


@pytest.mark.usefixtures("stopped")
def test_a_refusal_on_the_command_line_is_exit_code_2(
    modelbeam: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = modelbeam(*FLAGS, "--resume", "--no-progress", env={"MODEL_VERSION": "2.0"})
    assert done.returncode == 2
    assert "model version: was 1.0, is 2.0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.usefixtures("here")
def test_a_finished_run_of_another_job_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    predict()
    before = Path("out/run.json").read_bytes()
    monkeypatch.setenv("MODEL_VERSION", "2.0")
    with pytest.raises(ResumeError, match=r"model version: was 1\.0, is 2\.0"):
        predict(resume=True)
    append(monkeypatch)
    monkeypatch.setenv("MODEL_VERSION", "1.0")
    with pytest.raises(ResumeError, match=r"in/a\.jsonl has changed"):
        predict(resume=True)
    assert Path("out/run.json").read_bytes() == before


@pytest.mark.usefixtures("here")
def test_what_modelbeam_did_not_write_is_not_resumed() -> None:
    Path("out").mkdir()
    Path("out/run.json").write_text('{"someone": "else"}')
    with pytest.raises(ResumeError, match="not modelbeam's"):
        predict(resume=True)
    assert files() == ["run.json"]


# What is not refused


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 1},
        {"workers": 3, "worker_mode": "threads", "max_errors": "50%"},
        {"worker_mode": "processes", "max_errors": 1, "split_size": "1MB"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("stopped")
def test_how_a_job_is_run_may_change_and_nothing_is_predicted_again(
    settings: dict[str, Any],
) -> None:
    splits = len(manifests())
    run = predict(resume=True, **settings)
    assert worked_on() == []
    assert counts(run) == (RECORDS, RECORDS - 1, 1)
    assert run.description["splits_resumed"] == run.description["splits"] == splits
    assert [line["y"] for line in shards(Path("out"))] == [
        float(n) for n in range(RECORDS) if n != FAILING
    ]
    assert [line["record"]["n"] for line in shards(Path("out"), "errors")] == [FAILING]


@pytest.mark.usefixtures("stopped")
def test_only_the_splits_that_are_not_done_are_predicted() -> None:
    for path in Path("out/_modelbeam/manifests").iterdir():
        manifest = json.loads(path.read_bytes())
        if manifest["place"] == "in/b.jsonl":
            path.unlink()
            done_again = manifest["counts"]["read"]
    before = len(manifests())
    run = predict(resume=True)
    assert worked_on() == list(range(20, 20 + done_again))
    assert run.description["splits_resumed"] == before
    assert counts(run) == (RECORDS, RECORDS - 1, 1)


@pytest.mark.usefixtures("stopped")
def test_a_resumed_run_is_byte_for_byte_an_undisturbed_one() -> None:
    predict(resume=True)
    predict(output="undisturbed")
    assert files("out") == files("undisturbed")
    for name in files("out"):
        if name not in ("run.json", "report.html"):
            assert Path("out", name).read_bytes() == Path("undisturbed", name).read_bytes()


def test_a_damaged_file_is_mended_and_the_run_resumed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.remove("in/b.jsonl")
    long = [{**record, "pad": os.urandom(500).hex()} for record in records(200, 100)]
    whole = gzip.compress("".join(json.dumps(record) + "\n" for record in long).encode())
    damaged = here / "in" / "b.jsonl.gz"
    damaged.write_bytes(whole[:-10])
    monkeypatch.setenv("RECORD_SECONDS", "0.002")
    with pytest.raises(InputReadError, match=r"in/b\.jsonl\.gz cannot be read .*gzip: truncated"):
        predict(split_size="1MB", worker_mode="threads")
    assert files() == []
    assert len(manifests()) == 1
    worked_on()
    damaged.write_bytes(whole)
    run = predict(resume=True)
    assert worked_on() == list(range(100, 300))
    assert counts(run) == (220, 220, 0)
    assert run.description["splits_resumed"] == 1


@pytest.mark.usefixtures("stopped")
def test_an_input_that_changed_before_it_was_done_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in Path("out/_modelbeam/manifests").iterdir():
        if json.loads(path.read_bytes())["place"].startswith("in/a.jsonl"):
            path.unlink()
    append(monkeypatch)
    run = predict(resume=True)
    assert worked_on() == [*range(20), 99]
    assert run.read == RECORDS + 1


@pytest.mark.usefixtures("here")
def test_resuming_a_finished_run_does_nothing() -> None:
    first = predict()
    worked_on()
    before = {name: Path("out", name).stat().st_mtime_ns for name in files()}
    again = predict(resume=True)
    assert (again.seconds, again.shards, again.errors) == (
        first.seconds,
        first.shards,
        first.errors,
    )
    assert worked_on() == []
    assert {name: Path("out", name).stat().st_mtime_ns for name in files()} == before


@pytest.mark.usefixtures("here")
def test_resuming_a_finished_run_says_so(
    modelbeam: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    predict(split_size=None)
    done = modelbeam(*FLAGS, "--resume", "--no-progress")
    assert done.returncode == 0
    assert re.search("already|finished", done.stderr), done.stderr


@pytest.mark.parametrize("output", ["out", "new/out.jsonl"])
@pytest.mark.usefixtures("here")
def test_resuming_where_nothing_is_just_runs(output: str) -> None:
    Path("new").mkdir()
    assert counts(predict(resume=True, output=output)) == (RECORDS, RECORDS - 1, 1)
    assert worked_on() == list(range(RECORDS))


# Outputs that exist


@pytest.mark.usefixtures("stopped")
def test_an_unfinished_run_is_refused_with_both_ways_out() -> None:
    before = manifests()
    with pytest.raises(OutputExistsError, match=r"unfinished run \(\d+ splits are done\)") as error:
        predict()
    assert "resume=True" in str(error.value)
    assert "overwrite=True" in str(error.value)
    assert error.value.exit_code == 2
    assert manifests() == before


@pytest.mark.parametrize("output", ["out", "out.jsonl"])
@pytest.mark.usefixtures("here")
def test_a_finished_run_is_refused_before_anything_runs(output: str) -> None:
    predict(output=output)
    worked_on()
    with pytest.raises(OutputExistsError, match="overwrite=True") as error:
        predict(output=output)
    assert error.value.exit_code == 2
    assert worked_on() == []


@pytest.mark.usefixtures("stopped")
def test_overwriting_an_unfinished_run_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_VERSION", "2.0")
    run = predict(overwrite=True, split_size="1MB", keep=["n"])
    assert worked_on() == list(range(RECORDS))
    assert run.description["splits_resumed"] == 0
    assert [line["n"] for line in shards(Path("out"))] == [
        n for n in range(RECORDS) if n != FAILING
    ]
    assert files() == [
        "_SUCCESS",
        "errors-00001-of-00002.jsonl",
        "predictions-00000-of-00002.jsonl",
        "predictions-00001-of-00002.jsonl",
        "run.json",
    ]


def test_overwriting_a_finished_run_leaves_no_stale_shards_and_all_foreign_files(
    here: Path,
) -> None:
    assert len(predict(split_size="100").shards) > 6
    Path("out/notes.txt").write_text("mine")
    Path("out/mine").mkdir()
    write_lines(here / "in" / "b.jsonl", records(20, 20))
    predict(overwrite=True, split_size="1MB")
    assert files() == [
        "_SUCCESS",
        "mine",
        "notes.txt",
        "predictions-00000-of-00002.jsonl",
        "predictions-00001-of-00002.jsonl",
        "run.json",
    ]
    assert Path("out/notes.txt").read_text() == "mine"
    assert len(shards(Path("out"))) == RECORDS


def test_overwriting_a_single_file_leaves_no_stale_errors(here: Path) -> None:
    predict(output="out.jsonl")
    assert Path("out.errors.jsonl").exists()
    write_lines(here / "in" / "b.jsonl", records(5, 20))
    predict(output="out.jsonl", overwrite=True)
    assert beside(p.name for p in here.glob("out*")) == ["out.jsonl", "out.run.json"]
    assert len(read_lines("out.jsonl")) == 25


@pytest.mark.usefixtures("here")
def test_an_output_is_only_replaced_once_the_new_one_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predict()
    before = {name: Path("out", name).read_bytes() for name in files()}
    monkeypatch.setenv("MODEL_VERSION", "2.0")
    with pytest.raises(TooManyErrorsError):
        predict(overwrite=True, max_errors="0%", keep=["n"])
    assert {name: Path("out", name).read_bytes() for name in files()} == before
    worked_on()
    run = predict(resume=True, keep=["n"])
    assert worked_on() == []
    assert run.description["models"][0]["version"] == "2.0"
    assert shards(Path("out"))[0] == {"n": 0, "y": 0.0}


def test_a_second_process_on_the_same_output_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TROUBLE", str(here / "trouble"))
    (here / "trouble").write_text("wait")
    write_lines(here / "in" / "b.jsonl", [{"x": 7.5, "fatal": True}])
    model = "crash_models:Troubled"
    first = subprocess.Popen(
        [sys.executable, "-m", "modelbeam", "predict", "-m", model, "-i", "in", "-o", "out", "-q"],
        env=environment(),
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not os.path.exists("out/_modelbeam/job.json"):
            time.sleep(0.02)
        for flag in ("resume", "overwrite"):
            with pytest.raises(OutputExistsError, match="another modelbeam process") as error:
                predict(model=model, **{flag: True})
            assert error.value.exit_code == 2
        assert first.poll() is None
        (here / "trouble").unlink()
        assert first.wait(30) == 0
    finally:
        first.kill()
        first.wait()
    assert [line["y"] for line in shards(Path("out"))] == [*map(float, range(20)), 15.0]


# Limits


@pytest.mark.parametrize(("output", "limit"), [("out", "0"), ("out.jsonl", "2%")])
@pytest.mark.usefixtures("here")
def test_too_many_errors_publish_nothing_and_a_higher_limit_finishes(
    output: str, limit: str
) -> None:
    with pytest.raises(TooManyErrorsError, match=r"in/b\.jsonl.*x is negative") as error:
        predict(output=output, max_errors=limit)
    assert error.value.exit_code == 1
    assert files(".") == ["in", "log"] + (["out"] if output == "out" else [])
    assert output == "out.jsonl" or files() == []
    run = predict(output=output, resume=True, max_errors="3")
    assert counts(run) == (RECORDS, RECORDS - 1, 1)


@pytest.mark.usefixtures("here")
def test_a_job_that_fails_prints_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TooManyErrorsError):
        predict(max_errors="0%")
    for thread in threading.enumerate():
        if thread.name == "pipeline":
            thread.join(30)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("here")
def test_too_many_errors_on_the_command_line_are_exit_code_1(
    modelbeam: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = modelbeam(*FLAGS, "--max-errors", "1%", "--no-progress")
    assert done.returncode == 1
    assert "1 of 40 records failed, more than --max-errors 1%" in done.stderr
    assert "in/b.jsonl:14" in done.stderr
    assert "--resume" in done.stderr
    worked_on()
    done = modelbeam(*FLAGS, "--max-errors", "3%", "--no-progress", "--resume")
    assert done.returncode == 0
    assert worked_on() == []
    assert "2 of 2 splits resumed" in done.stderr


@pytest.fixture
def hopeless(here: Path) -> Path:
    """A working directory in whose input every record fails."""
    for name in ("a", "b"):
        write_lines(here / "in" / f"{name}.jsonl", [{"n": n, "x": -1.0} for n in range(5)])
    return here


def test_when_every_record_fails_the_errors_are_published_without_success(hopeless: Path) -> None:
    with pytest.raises(NothingPredictedError, match="Not one of 10 records") as error:
        predict(split_size=None)
    assert error.value.exit_code == 1
    assert files() == [
        "errors-00000-of-00002.jsonl",
        "errors-00001-of-00002.jsonl",
        "run.json",
    ]
    assert json.loads(Path("out/run.json").read_bytes())["status"] == "failed"
    with pytest.raises(ResumeError, match="ended without a prediction"):
        predict(resume=True)
    write_lines(hopeless / "in" / "a.jsonl", records(5))
    assert predict(overwrite=True, split_size=None).predicted == 5
    assert "_SUCCESS" in files()
    assert "errors-00000-of-00002.jsonl" not in files()


def test_when_every_record_fails_a_single_file_is_not_written(hopeless: Path) -> None:
    with pytest.raises(NothingPredictedError, match=r"out\.errors\.jsonl"):
        predict(output="out.jsonl")
    assert beside(p.name for p in hopeless.glob("out*")) == ["out.errors.jsonl", "out.run.json"]
    assert len(read_lines("out.errors.jsonl")) == 10


@pytest.mark.usefixtures("hopeless")
def test_a_failed_run_whose_publishing_is_repeated_is_still_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "replace", full)
        with pytest.raises(OutputWriteError, match="No space left"):
            predict()
    assert files() == []
    with pytest.raises(NothingPredictedError):
        predict(resume=True)
    assert "_SUCCESS" not in files()
