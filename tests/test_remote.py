"""Jobs on an engine: the same output, left and found again, crashes, Ctrl-C, wrong workers."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from commands import environment, shards, write_lines
from crashing import Command, description, manifests, published
from services import Engine, Jobs, Terminal, committed, identity, job_service, worker_pool

import modelbeam
from modelbeam import engines
from modelbeam.engines import run as remote
from modelbeam.errors import EngineUnreachableError


@pytest.fixture
def jobs(tmp_path: Path, engine: Engine) -> Any:
    """Six small files; the model passes its fatal record, unless it is told otherwise."""
    engine.at_the_gate("pass")
    yield Jobs(tmp_path, engine)
    engine.clear()


def check_failed(command: Command, output: Path, *words: str, code: int = 1) -> None:
    """One paragraph without a trace, this exit code, and nothing published."""
    assert command.process.returncode == code, command.stderr
    last = command.stderr.splitlines()[-1]
    assert last.startswith("modelbeam: "), command.stderr
    for word in words:
        assert word in last, command.stderr
    assert "Traceback" not in command.stderr
    assert 'File "' not in command.stderr
    assert "[modelbeam:" not in command.stderr
    assert command.stdout == ""
    assert published(output) == {}


def check_resumed(jobs: Jobs, output: Path, splits: int, *flags: str) -> None:
    """``--resume`` finishes the job, and redoes only what was not done."""
    jobs.engine.at_the_gate("pass")
    command = jobs.run(output, "--resume", *flags)
    assert command.process.returncode == 0, command.stderr
    assert description(output)["splits_resumed"] == splits
    assert published(output) == jobs.expected(output)


# The same output as on this machine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, one of them compressed, with records that fail and broken lines."""
    directory = tmp_path_factory.mktemp("data")
    rows = [{"x": n / 8 - 5.0, "id": f"é{n}"} for n in range(600)]
    with write_lines(directory / "a.jsonl", rows).open("a") as handle:
        handle.write('\n{"x": 1.0\n{"x": 1.0, "id": null}')
    lines = "".join(f'{{"x": {n}}}\n' if n != 9 else '{"x": "nine"}\n' for n in range(40))
    (directory / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return directory


@pytest.fixture(scope="module")
def here(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runs on this machine publish: ``out`` and ``out.jsonl``."""
    directory = tmp_path_factory.mktemp("here")
    for name in ("out", "out.jsonl"):
        modelbeam.predict(
            model="small_models:Doubler",
            input=str(data),
            output=str(directory / name),
            keep="all",
            split_size=4000,
        )
    return directory


@pytest.mark.parametrize(
    ("name", "where"), [("out", "EXTERNAL"), ("out.jsonl", "LOOPBACK"), ("out", "embed")]
)
def test_the_output_is_that_of_this_machine(
    name: str, where: str, data: Path, here: Path, engine: Engine, tmp_path: Path, modelbeam: Any
) -> None:
    flags = engine.flags(where)
    if where == "embed":
        flags = ["--runner=PortableRunner", "--job_endpoint=embed"]
    job = [f"--input={data}", f"--output={tmp_path / name}", "--keep=all", "--split-size=4000"]
    done = modelbeam("predict", "-m", "small_models:Doubler", *job, *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert published(tmp_path / name) == published(here / name)
    ours, theirs = description(tmp_path / name), description(here / name)
    for same in ("counts", "failures", "splits", "bytes_read", "job", "models", "software"):
        assert ours[same] == theirs[same], same
    counts = {"read": 642, "predicted": 600, "failed": 42}
    assert ours["counts"] == counts
    assert (ours["runner"], theirs["runner"]) == ("PortableRunner", "DirectRunner")
    assert ours["workers"] == "the job service"
    assert ours["splits_resumed"] == 0
    assert json.loads(done.stdout) == ours
    assert "642 records read, 600 predicted, 42 failed" in done.stderr


# Left running, and found again


def test_a_detached_job_is_followed_to_its_end(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    submitted = jobs.detach(output)
    assert submitted.stdout == ""
    name = identity(output)["job"]
    *_, runs, again = submitted.stderr.splitlines()
    assert runs == f"the job {name} runs on the job service"
    assert again == "the same command with --resume follows it to its end"
    for flags in ([], ["--overwrite"]):
        refused = jobs.run(output, *flags)
        words = [f"the job {name} is still running on the job service", "Add --resume"]
        check_failed(refused, output, *words, code=2)
    assert committed(output) == 5
    with jobs.start(output, "--resume") as command:
        command.read_until("following it")
        jobs.engine.at_the_gate("pass")
        assert command.wait() == 0, command.stderr
    assert published(output) == jobs.expected(output)
    assert description(output)["splits_resumed"] == 0
    again = jobs.run(output, "--resume")
    assert again.process.returncode == 0, again.stderr
    assert "nothing to do: the run was finished at " in again.stderr


def test_a_detached_job_needs_nobody(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    submitted = jobs.run(output, "--detach", "--json", "--quiet")
    assert submitted.process.returncode == 0, submitted.stderr
    said = json.loads(submitted.stdout)
    assert said.pop("job").startswith("job-")
    engine = "the job service"
    assert said == {"status": "submitted", "engine": engine, "link": None, "output": str(output)}
    assert submitted.stderr == ""
    jobs.wait_published(output)
    assert published(output) == jobs.expected(output)


@pytest.mark.parametrize(
    "flags",
    [
        ["--runner=DirectRunner"],
        ["--runner=PortableRunner", "--job_endpoint=embed"],
        ["--runner=PortableRunner", "--job_endpoint={}", "--environment_type=LOOPBACK"],
    ],
    ids=["local", "embed", "loopback"],
)
def test_a_job_that_would_end_with_its_process_is_not_detached(
    flags: list[str], jobs: Jobs, tmp_path: Path
) -> None:
    flags = [flag.format(f"localhost:{jobs.engine.service.port}") for flag in flags]
    refused = jobs.run(tmp_path / "out", "--detach", *flags)
    check_failed(refused, tmp_path / "out", "--detach", code=2)
    assert not (tmp_path / "out").exists()


def test_the_process_that_submitted_is_killed(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("gate")
    with jobs.start(output) as command:
        jobs.wait_for_trouble(output)
        command.kill()
    jobs.engine.at_the_gate("pass")
    follower = jobs.run(output, "--resume")
    assert follower.process.returncode == 0, follower.stderr
    jobs.wait_published(output)
    assert published(output) == jobs.expected(output)


# Crashes


def test_a_worker_is_killed(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("kill")
    failed = jobs.run(output, "--max-crashes=0")
    words = ["More than 0 records or processes (--max-crashes)", str(jobs.last), "--resume"]
    check_failed(failed, output, *words)
    assert failed.stderr.count("submitting the job again") == 1
    assert committed(output) == 5
    check_resumed(jobs, output, 5)


def test_the_job_service_is_killed(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    for name, value in jobs.engine.env.items():
        monkeypatch.setenv(name, value)
    service = job_service(tmp_path / "service")
    flags = jobs.engine.flags()[:-1]
    flags[1] = f"--job_endpoint=localhost:{service.port}"

    def kill() -> None:
        jobs.wait_for_trouble(output)
        service.kill()

    killer = threading.Thread(target=kill)
    jobs.engine.at_the_gate("gate")
    killer.start()
    try:
        with pytest.raises(EngineUnreachableError, match=r"Lost the job service.*resume=True"):
            modelbeam.predict(
                model="crash_models:Troubled",
                input=str(jobs.input),
                output=str(output),
                packages=False,
                beam_options=flags,
            )
    finally:
        service.kill()
    killer.join()
    assert published(output) == {}
    jobs.engine.clear()
    check_resumed(jobs, output, 5)


def test_an_output_that_is_written_anew_keeps_the_old_one_when_the_job_fails(
    jobs: Jobs, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    jobs.finish_here(output)
    before = published(output), description(output)
    jobs.engine.at_the_gate("kill")
    failed = jobs.run(output, "--overwrite", f"--input={jobs.last}", "--max-crashes=0")
    assert failed.process.returncode == 1, failed.stderr
    assert (published(output), description(output)) == before


def test_a_job_that_replaces_an_output_is_followed_before_it_has_committed_anything(
    jobs: Jobs, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    jobs.finish_here(output)
    jobs.input = jobs.last
    jobs.engine.at_the_gate("gate")
    submitted = jobs.run(output, "--overwrite", "--detach")
    assert submitted.process.returncode == 0, submitted.stderr
    other = jobs.run(output, "--resume", "--keep=all")
    assert other.process.returncode == 2, other.stderr
    assert "the run in" in other.stderr
    assert "--keep: was nothing, is all" in other.stderr
    with jobs.start(output, "--resume") as command:
        command.read_until("following it")
        jobs.engine.at_the_gate("pass")
        assert command.wait() == 0, command.stderr
    assert description(output)["splits"] == 1
    assert [row["y"] for row in shards(output)] == [10, 10.5, 11, 11.5, 12, 12.5, 13, 13.5, 3]


# Ctrl-C


def state_at_the_engine(output: Path) -> str:
    """How the job of an output is, as the job service says."""
    found = identity(output)
    job = engines.find(found["engine"]).attach(found)
    try:
        return job.poll().state
    finally:
        job.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_ctrl_c_without_a_terminal_cancels(number: int, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("gate")
    with jobs.start(output) as command:
        jobs.wait_for_trouble(output)
        began = time.monotonic()
        os.kill(command.group, number)
        command.wait()
        assert time.monotonic() - began < 8
    check_failed(command, output, "was cancelled on the job service", "--resume", code=130)
    assert state_at_the_engine(output) == "cancelled"
    if number == signal.SIGINT:
        jobs.engine.clear()  # Beam's job service lets the workers of a cancelled job go on
        check_resumed(jobs, output, 5)


@pytest.mark.parametrize("answer", ["what?\nl\n", "c\n", "\n", "\x03"])
def test_ctrl_c_at_a_terminal_asks(answer: str, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("gate")
    with Terminal(jobs.arguments(output), jobs.engine.env) as terminal:
        jobs.wait_for_trouble(output)
        terminal.type("\x03")
        terminal.read_until("[c/l] ")
        asked = len(terminal.seen)
        time.sleep(0.3)
        terminal.read_until("")
        assert terminal.seen[asked:] == "", "something is drawn over the question"
        for line in answer.splitlines(keepends=True):
            terminal.type(line)
        code = terminal.wait()
    last = terminal.seen[asked:]
    assert "Traceback" not in last
    if "l" in answer:
        assert code == 0, last
        assert "runs on the job service" in last
        assert state_at_the_engine(output) == "running"
        jobs.engine.at_the_gate("pass")
        jobs.wait_published(output)
        assert published(output) == jobs.expected(output)
    else:
        assert code == 130, last
        assert "The job was cancelled on the job service" in last
        assert state_at_the_engine(output) == "cancelled"
        assert published(output) == {}


# What is wrong on the workers


def test_workers_that_are_not_what_was_submitted(jobs: Jobs, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = (Path(__file__).parent / "models" / "small_models.py").read_text()
    (other / "small_models.py").write_text(text + "# changed\n")
    output = tmp_path / "out"
    path = os.pathsep.join([str(other), environment()["PYTHONPATH"]])
    pool = worker_pool(tmp_path / "pool", **{**jobs.engine.env, "PYTHONPATH": path})
    try:
        flags = jobs.engine.flags(pool=pool)
        failed = jobs.run(output, *flags)
        check_failed(failed, output, "its small_models.py has other contents", "image of your own")
        assert not output.exists()
    finally:
        pool.kill()
    check_resumed(jobs, output, 0)


def test_a_model_that_does_not_load_on_the_workers(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    failed = jobs.run(output, model="OnlyHere", env={"ONLY_HERE": "1"})
    words = ["loading the model on ", "crash_models:OnlyHere raised KeyError", "'ONLY_HERE'"]
    check_failed(failed, output, *words)
    assert not output.exists()
    repaired = jobs.run(
        output,
        *jobs.engine.flags("LOOPBACK"),
        "--resume",
        model="OnlyHere",
        env={"ONLY_HERE": "1"},
    )
    assert repaired.process.returncode == 0, repaired.stderr
    assert published(output) == jobs.expected(output)


CWD = Path("/proc/self/cwd")
"""A path that is another one for each process."""


@pytest.mark.skipif(not CWD.exists(), reason="there is no /proc")
@pytest.mark.parametrize("what", ["output", "input"])
def test_workers_that_do_not_see_the_files(what: str, jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    if what == "output":
        failed = jobs.run(CWD / "out", cwd=tmp_path)
        text = "does not see /proc/self/cwd/out/_modelbeam, where the job keeps its state. --output"
    else:
        jobs.input = CWD / "in"
        failed = jobs.run(output, cwd=tmp_path)
        text = "/proc/self/cwd/in/0.jsonl"
    check_failed(failed, output, text)
    assert not output.exists()


def test_an_input_that_vanishes(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("gate")
    with jobs.start(output) as command:
        jobs.wait_for_trouble(output)
        away = jobs.last.rename(tmp_path / "away")
        jobs.engine.at_the_gate("pass")
        command.wait()
    check_failed(command, output, str(jobs.last), "--resume")
    assert committed(output) == 5
    away.rename(jobs.last)
    check_resumed(jobs, output, 5)


def test_too_many_errors_stop_the_job(jobs: Jobs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    jobs.engine.at_the_gate("gate")
    failed = jobs.run(output, "--max-errors=0")
    check_failed(failed, output, "more than --max-errors 0", "x is negative: -1.0")
    assert state_at_the_engine(output) == "cancelled"
    done = len(manifests(output))
    jobs.engine.clear()
    check_resumed(jobs, output, done, "--max-errors=1")
