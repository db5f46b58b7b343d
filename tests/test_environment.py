"""A run works from any start: closed or broken streams, threads, forks; it listens on nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import beside, environment, read_lines, write_lines

import modelbeam
from modelbeam import JobError
from modelbeam.errors import ModelLoadError
from modelbeam.local import mode, worker

COMMAND = f"{sys.executable} -m modelbeam predict -m small_models:Doubler -i in.jsonl -o out.jsonl"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three records."""
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "in.jsonl", [{"x": float(x)} for x in range(3)])
    return tmp_path


@pytest.mark.parametrize(
    "start",
    [
        f"{COMMAND} <&- >&- 2>&-",
        f"{COMMAND} 2>&-",
        f"{COMMAND} --json <&- >&-",
        f"{COMMAND} 2>/dev/full",
        f"{COMMAND} --json -q >/dev/full",
        f"{COMMAND} --json 2>&1 | true",
        f"env -i PYTHONPATH=$PYTHONPATH {COMMAND}",
        f"env -u HOME PYTHONPATH=$PYTHONPATH {COMMAND} </dev/null 2>&1 | cat",
    ],
)
def test_a_run_works_whatever_its_streams_are(start: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {start}"],
        env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line["y"] for line in read_lines("out.jsonl")] == [0.0, 2.0, 4.0]
    assert beside(os.listdir()) == ["in.jsonl", "out.jsonl", "out.run.json"]
    if start.endswith(" >/dev/full"):
        assert (
            "stdout cannot be written: No space left on device; the run is complete" in done.stderr
        )


def test_what_is_asked_for_on_stdout_and_cannot_be_written_is_an_error() -> None:
    command = f"{sys.executable} -m modelbeam describe -m small_models:Doubler > /dev/full"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True)
    assert done.returncode == 1
    assert b"stdout cannot be written" in done.stderr


ODD_STARTS = """
import asyncio, io, multiprocessing, os, sys, threading, warnings
import modelbeam

def run(name):
    done = modelbeam.predict(model="small_models:Doubler", input="in.jsonl", output=name + ".jsonl")
    assert done.predicted == 3

def child(name):
    warnings.simplefilter("ignore")
    pid = os.fork()
    if pid == 0:
        try:
            run(name)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

async def in_a_loop():
    run("loop")

class Cell(io.StringIO):
    def fileno(self):
        raise io.UnsupportedOperation("fileno")

if __name__ == "__main__":
    child("forked-before")
    thread = threading.Thread(target=run, args=["thread"])
    thread.start()
    thread.join()
    asyncio.run(in_a_loop())
    sys.stdout, sys.stderr = Cell(), Cell()
    run("notebook")
    sys.stdout = sys.stderr = sys.stdin = None
    run("none")
    child("forked-after")
"""


def test_predict_works_in_threads_loops_notebooks_and_forked_children() -> None:
    Path("odd.py").write_text(ODD_STARTS)
    done = subprocess.run(
        [sys.executable, "odd.py"], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    names = ["forked-after", "forked-before", "loop", "none", "notebook", "thread"]
    assert [json.loads(Path(f"{n}.run.json").read_text())["counts"]["read"] for n in names] == [
        3
    ] * 6


def _listening(pid: int) -> set[str]:
    """The sockets on which a process or one of its children listens."""
    pids, inodes = [pid], set()
    for one in pids:
        listed = subprocess.run(["pgrep", "-P", str(one)], capture_output=True, text=True).stdout
        pids += map(int, listed.split())
        try:
            for fd in os.listdir(f"/proc/{one}/fd"):
                name = os.readlink(f"/proc/{one}/fd/{fd}")
                if name.startswith("socket:["):
                    inodes.add(name[8:-1])
        except OSError:
            continue
    found = set()
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(f"{kind} {words[1]}")
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["good", "failed", "stopped"])
def test_a_local_run_listens_on_nothing_and_leaves_nothing_behind(here: Path, end: str) -> None:
    temporary = here / "temporary"
    temporary.mkdir()
    write_lines(here / "in.jsonl", [{"x": float(x)} for x in range(3)] * 20)
    command = [sys.executable, "-m", "modelbeam", "predict", "-m", "cli_models:Slow"]
    command += ["-i", "in.jsonl", "-o", "out", "--split-size", "100"]
    command += ["--max-errors", "-1"] if end == "failed" else []
    process = subprocess.Popen(
        command, env=environment(TMPDIR=str(temporary)), stderr=subprocess.PIPE, text=True
    )
    seen: set[str] = set()
    began = time.monotonic()
    while process.poll() is None:
        seen |= _listening(process.pid)
        if end == "stopped" and time.monotonic() > began + 2.5:
            process.terminate()
        time.sleep(0.05)
    _, said = process.communicate()
    assert seen == set()
    assert os.listdir(temporary) == [], said


def test_a_listener_that_dies_ends_the_job_with_one_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an answer does that cannot be unpickled."""

    def dies(*_: object) -> None:
        raise AttributeError("no such class here")

    monkeypatch.setattr(worker.Worker, "_reply", dies)
    began = time.monotonic()
    with pytest.raises(JobError, match=r"cannot be used .AttributeError: no such class here"):
        modelbeam.predict(model="small_models:Doubler", input="in.jsonl", output="out.jsonl")
    assert time.monotonic() - began < 20


def test_a_meter_that_dies_reports_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> float:
        raise RuntimeError("no clock")

    monkeypatch.setattr(mode, "seconds_in_calls", dies)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    reported: list[mode.Shares] = []
    meter = mode.Meter(False, reported.append)
    meter.begin()
    meter._thread.join(10)
    assert [(shares.model, shares.interpreter) for shares in reported] == [(0.0, 0.0)]


def test_a_pipeline_that_dies_ends_the_job_with_one_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dies(*_: object) -> None:
        raise RuntimeError("no pipeline")

    monkeypatch.setattr("modelbeam.beam.chain.build_local", dies)
    with pytest.raises(JobError, match="RuntimeError: no pipeline"):
        modelbeam.predict(model="small_models:Doubler", input="in.jsonl", output="out.jsonl")


def test_a_sign_of_life_that_dies_at_once_ends_the_job_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_SIGN_OF_LIFE", "at once")
    with pytest.raises((JobError, ModelLoadError), match=r"\(RuntimeError: no sign of life"):
        modelbeam.predict(model="nasty_models:NoSignOfLife", input="in.jsonl", output="out.jsonl")
    assert capfd.readouterr().err == ""
    assert os.listdir() == ["in.jsonl"]


def test_a_sign_of_life_that_dies_in_a_call_costs_no_record(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "once").touch()
    monkeypatch.setenv("NO_SIGN_OF_LIFE", str(here / "once"))
    run = modelbeam.predict(model="nasty_models:NoSignOfLife", input="in.jsonl", output="out.jsonl")
    assert (run.predicted, run.failed) == (3, 0)
    (crash,) = run.description["crashes"]
    assert "RuntimeError: no sign of life" in crash["ending"]
    assert crash["records"] == 0


READ_ONLY = (
    'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD" && cd "$PWD" && exec "$@"'
)


@pytest.fixture
def read_only(here: Path) -> Iterator[list[str]]:
    """What a command begins with for which the working directory is read-only."""
    if os.geteuid() != 0:
        here.chmod(0o555)
        yield []
        here.chmod(0o755)
        return
    start = ["unshare", "--mount", "sh", "-c", READ_ONLY, "read-only"]
    if shutil.which("unshare") is None or subprocess.run([*start, "true"]).returncode:
        pytest.skip("root may write everywhere, and nothing can be mounted here")
    yield start


def test_a_run_works_in_a_working_directory_that_is_read_only(
    read_only: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert subprocess.run([*read_only, "touch", "x"], capture_output=True).returncode
    place = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "modelbeam", "predict", "-m", "small_models:Doubler"]
    command += ["-i", "in.jsonl", "-o"]

    def run(output: str) -> subprocess.CompletedProcess[str]:
        settings = environment(TMPDIR=str(place))
        settings.pop("HOME", None)
        return subprocess.run(
            [*read_only, *command, output], env=settings, capture_output=True, text=True, timeout=60
        )

    done = run(str(place / "out.jsonl"))
    assert done.returncode == 0, done.stderr
    assert [line["y"] for line in read_lines(place / "out.jsonl")] == [0.0, 2.0, 4.0]
    assert beside(os.listdir(place)) == ["out.jsonl", "out.run.json"]
    refused = run("out.jsonl")
    assert refused.returncode == 1
    assert re.fullmatch(
        r"modelbeam: --output out\.jsonl cannot be written: "
        r"(Read-only file system|Permission denied) .*\n",
        refused.stderr,
    )
    assert os.listdir() == ["in.jsonl"]
