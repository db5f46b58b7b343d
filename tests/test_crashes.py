"""Real processes that are killed, die or run out of disk: no record is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import environment, read_lines, write_lines
from crashing import Command, Small, description, manifests, published, state_of, wait_until

from modelbeam.errors import ModelLoadError
from modelbeam.job.description import ModelSpec
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started, start_worker
from modelbeam.sinks.files.state import JobRecord
from modelbeam.sources.splits import plan_splits


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Input for a model that is in no trouble yet."""
    return Small(tmp_path)


# Killed at random moments, and resumed each time


class Work:
    """Input for ``Recorded``, whose log tells which records its processes were given."""

    def __init__(self, directory: Path, files: int, records: int) -> None:
        self.log = directory / "log"
        self.input = directory / "in"
        self.input.mkdir()
        for file in range(files):
            numbers = range(file * records, (file + 1) * records)
            rows = [{"n": n, "x": -1.0 if n % 50 == 7 else n / 4} for n in numbers]
            write_lines(self.input / f"{file:02d}.jsonl", rows)

    def start(self, output: Path, *flags: str, seconds: float = 0.008) -> Command:
        """Start a command that takes so many seconds a record."""
        env = {"RECORD_LOG": str(self.log), "RECORD_SECONDS": str(seconds)}
        own = ["--model=crash_models:Recorded", f"--input={self.input}", f"--output={output}"]
        return Command(*own, "--workers=2", *flags, env=env)

    def finish(self, output: Path, *flags: str) -> dict[str, bytes]:
        """Run a command that takes no time of its own to its end, and return what it published."""
        with self.start(output, *flags, seconds=0) as command:
            assert command.wait() == 0, command.stderr
        return published(output)

    def worked_on(self) -> set[int]:
        """The records that the model was given since this was asked the last time."""
        seen = set(map(int, self.log.read_text().split())) if self.log.exists() else set()
        self.log.unlink(missing_ok=True)
        return seen

    def done(self, output: Path) -> set[int]:
        """The records whose splits are committed: the lines that begin in one."""
        numbers = set()
        committed = manifests(output)
        planned = []
        if committed:
            begun = (state_of(output) / "job.json").read_text()
            record = JobRecord.from_dict(json.loads(begun))
            planned = plan_splits(record.inputs, record.split_size)
        for split in planned:
            if split.key + ".json" not in committed:
                continue
            (piece,) = split.pieces
            data = Path(piece.path).read_bytes()
            first = data.find(b"\n", piece.start - 1) + 1 if piece.start else 0
            last = data.find(b"\n", piece.end - 1) + 1
            numbers |= {json.loads(line)["n"] for line in data[first:last].splitlines()}
        return numbers


def kill_and_resume(work: Work, output: Path, *flags: str, kills: int) -> None:
    """Kill a run at random moments, resume it each time and at last to its end.

    What was committed before stays as it is, and its records are never predicted again.
    """
    moments = random.Random(kills)
    for kill in range(kills):
        before, done = manifests(output), work.done(output)
        with work.start(output, *flags, *(["--resume"] if kill else [])) as command:
            if kill % 4 == 3:
                time.sleep(moments.uniform(0, 1))  # while it starts
            else:
                wait_until(lambda: work.log.exists() and work.log.stat().st_size)
                time.sleep(moments.uniform(0, 0.5))
            command.kill()
        assert before.items() <= manifests(output).items()
        assert not work.worked_on() & done
        assert published(output) == {}
    done, splits = work.done(output), len(manifests(output))
    assert splits > 10
    work.finish(output, *flags, "--resume")
    assert not work.worked_on() & done
    assert description(output)["splits_resumed"] == splits
    assert not state_of(output).exists()


def test_twenty_kills_of_all_processes_leave_the_bytes_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path, files=64, records=16)
    expected = work.finish(tmp_path / "undisturbed")
    assert sum(name.startswith("predictions-") for name in expected) == 64
    assert sum(name.startswith("errors-") for name in expected) == 21
    work.worked_on()
    kill_and_resume(work, tmp_path / "out", "--worker-mode=processes", kills=20)
    assert published(tmp_path / "out") == expected


def test_kills_of_a_run_into_a_single_file_leave_the_bytes_of_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path, files=1, records=800)
    size = (work.input / "00.jsonl").stat().st_size // 48
    flags = [f"--split-size={size}", "--worker-mode=threads"]
    expected = work.finish(tmp_path / "undisturbed" / "out.jsonl", *flags)
    assert description(tmp_path / "undisturbed" / "out.jsonl")["splits"] >= 40
    work.worked_on()
    kill_and_resume(work, tmp_path / "out.jsonl", *flags, kills=5)
    assert published(tmp_path / "out.jsonl") == expected
    lines = [line["line"] for line in read_lines(tmp_path / "out.errors.jsonl")]
    assert lines == list(range(8, 800, 50))


# What kills the group before a function of ``storage`` is called with a path that ends so.
KILLED = """
import os, signal
from modelbeam import storage
name, ending = os.environ["KILLED_BEFORE"].split()
function = getattr(storage, name)
def killed(*arguments):
    if any(str(argument).endswith(ending) for argument in arguments):
        os.killpg(0, signal.SIGKILL)
    return function(*arguments)
setattr(storage, name, killed)
from modelbeam.cli import main
main()
"""

STEPS_TO_A_DIRECTORY = [
    "write_once publish.json",
    "replace predictions-00000-of-00006.jsonl",
    "replace errors-00002-of-00006.jsonl",
    "replace predictions-00005-of-00006.jsonl",
    "replace profile.json",
    "replace run.json",
    "write_atomically _SUCCESS",
    "remove_tree _modelbeam",
]
STEPS_TO_A_FILE = [
    "write_once publish.json",
    "replace out.errors.jsonl",
    "replace out.jsonl",
    "replace out.profile.json",
    "replace out.run.json",
    "remove_tree _modelbeam",
]


@pytest.mark.parametrize(
    ("name", "steps"),
    [("out", STEPS_TO_A_DIRECTORY), ("out.jsonl", STEPS_TO_A_FILE)],
    ids=["directory", "single file"],
)
def test_a_kill_at_every_step_of_publishing_is_made_good(
    tmp_path: Path, small: Small, name: str, steps: list[str]
) -> None:
    output = tmp_path / name
    for number, step in enumerate(steps):
        resume = ["--resume"] if number else []
        command = small.run(output, *resume, code=KILLED, env={"KILLED_BEFORE": step})
        assert command.process.returncode == -signal.SIGKILL, (step, command.stderr)
        complete = name == "out" and step.startswith("remove_tree")
        assert (output / "_SUCCESS").exists() == complete
    command = small.run(output, "--resume")
    assert command.process.returncode == 0, command.stderr
    assert published(output) == small.expected(output)
    assert description(output)["splits"] == 6
    assert manifests(output) == {}


@pytest.mark.parametrize("trouble", ["sleep", "hold the interpreter lock"])
def test_the_workers_die_with_the_main_process(tmp_path: Path, small: Small, trouble: str) -> None:
    small.trouble.write_text(trouble)
    with small.start(tmp_path / "out") as command:
        small.wait_for_trouble(tmp_path / "out")
        assert len(command.members()) == 2
        os.kill(command.group, signal.SIGKILL)
        seconds = wait_until(lambda: not command.members(), seconds=3)
    print(f"the workers were gone after {seconds:.2f} s")


def test_a_worker_dies_with_the_main_process_while_the_model_is_loaded(
    tmp_path: Path, small: Small
) -> None:
    small.trouble.write_text("hold the interpreter lock")
    with small.start(tmp_path / "out", model="TroubledWhileLoading") as command:
        wait_until(lambda: len(command.members()) == 2)
        time.sleep(1)
        os.kill(command.group, signal.SIGKILL)
        wait_until(lambda: not command.members(), seconds=3)


def test_a_pipeline_that_outlives_its_pool_does_nothing() -> None:
    from modelbeam.beam.in_pool import PredictSplitInPool

    work = PredictSplitInPool("a pool that is gone")
    work.setup()
    assert list(work.process(0)) == []


# What goes wrong in the middle of a run, and is repaired


def fail_and_resume(
    small: Small, output: Path, words: list[str], repair: Callable[[], Any], **settings: Any
) -> None:
    """Run into trouble, fix it, resume, and compare with an undisturbed run."""
    failed = small.run(output, **settings)
    assert failed.process.returncode == 1, failed.stderr
    assert [word for word in words if word not in failed.stderr] == [], failed.stderr
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert failed.stdout == ""
    assert published(output) == {}
    assert failed.members() == []
    done = len(manifests(output))
    repair()
    settings = {name: settings[name] for name in settings if name == "model"}
    resumed = small.run(output, "--resume", **settings)
    assert resumed.process.returncode == 0, resumed.stderr
    assert published(output) == small.expected(output)
    assert description(output)["splits_resumed"] == done


DEATHS = [("segfault", "killed by SIGSEGV"), ("exit", "exited with code 3")]


@pytest.mark.parametrize(
    ("trouble", "words", "mode"),
    [("segfault", "killed by SIGSEGV", "threads"), ("exit", "exited with code 3", "processes")],
)
def test_a_record_that_kills_its_process_is_an_error_line(
    tmp_path: Path, small: Small, trouble: str, words: str, mode: str
) -> None:
    small.trouble.write_text(trouble)
    done = small.run(tmp_path / "out", f"--worker-mode={mode}")
    assert done.process.returncode == 0, done.stderr
    assert f"{small.last} after byte 0: over 1 record, now failed" in done.stderr
    expected = small.expected(tmp_path / "out")
    last = expected["predictions-00005-of-00006.jsonl"].splitlines(keepends=True)
    expected["predictions-00005-of-00006.jsonl"] = b"".join(last[:-1])
    found = published(tmp_path / "out")
    error = json.loads(found.pop("errors-00005-of-00006.jsonl"))
    assert found == expected
    assert (error["line"], error["type"]) == (9, "ProcessDiedError")
    assert words in error["error"]
    assert error["record"] == {"x": 1.5, "fatal": True}


def test_a_worker_that_the_system_kills_is_started_again(tmp_path: Path, small: Small) -> None:
    small.trouble.write_text("wait")
    with small.start(tmp_path / "out") as command:
        small.wait_for_trouble(tmp_path / "out")
        (worker,) = set(command.members()) - {command.group}
        os.kill(worker, signal.SIGKILL)
        small.repair()
        assert command.wait() == 0, command.stderr
    assert published(tmp_path / "out") == small.expected(tmp_path / "out")
    (crash,) = description(tmp_path / "out")["crashes"]
    assert crash["ending"].startswith("was killed by SIGKILL (by the system for want of memory")
    assert crash["records"] == 0
    assert crash["peak_memory"] > 10 << 20
    assert "over no record by itself, so all went on" in command.stderr


@pytest.mark.parametrize(("trouble", "words"), DEATHS, ids=["SIGSEGV", "os._exit"])
def test_a_model_that_dies_while_it_is_loaded_is_a_wrong_request(
    tmp_path: Path, small: Small, trouble: str, words: str
) -> None:
    small.trouble.write_text(trouble)
    failed = small.run(tmp_path / "out", model="TroubledWhileLoading")
    assert failed.process.returncode == 2
    assert "crash_models:TroubledWhileLoading: its process died" in failed.stderr
    assert words in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_before_it_is_given_a_model_is_an_error(
    tmp_path: Path, small: Small
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'modelbeam.local.process' in str(sys.orig_argv): os._exit(9)\n"
    )
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    failed = small.run(tmp_path / "out", env={"PYTHONPATH": path})
    assert failed.process.returncode == 2, (failed.process.returncode, failed.stderr)
    assert "exited with code 9" in failed.stderr


def test_a_worker_that_is_dead_from_the_start_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dead(workers: int) -> Started:
        started = start_worker(workers)
        started.process.kill()
        started.process.wait()
        return started

    class AtOnce(threading.Thread):
        """What it does is done before ``start`` returns, as on a busy machine."""

        def start(self) -> None:
            super().start()
            self.join(10)

    monkeypatch.setattr("modelbeam.local.pool.start_worker", dead)
    monkeypatch.setattr("modelbeam.local.worker.threading.Thread", AtOnce)
    pool = WorkerPool(ModelSpec.model_validate({"target": "crash_models:Troubled"}), 2, "threads")
    try:
        with pytest.raises(ModelLoadError, match="SIGKILL"):
            pool.wait_loaded()
    finally:
        pool.close(kill=True)


def test_an_input_that_vanishes_while_it_is_read_is_named(tmp_path: Path, small: Small) -> None:
    small.trouble.write_text("hide the input")
    words = [f"The input {small.last} has vanished", "--resume"]
    fail_and_resume(small, tmp_path / "out", words, small.repair)


def test_an_input_that_vanishes_while_the_model_is_loaded_is_named(
    tmp_path: Path, small: Small
) -> None:
    small.trouble.write_text("hide the input")
    small.hidden = small.input / "0.jsonl"
    words = [f"The input {small.hidden} has vanished", "--resume"]
    fail_and_resume(small, tmp_path / "out", words, small.repair, model="TroubledWhileLoading")


# Disks


def mount(*arguments: object) -> str | None:
    """Call ``mount``; returns why it did not work, or ``None`` if it did."""
    if shutil.which("mount") is None:
        return "there is no command 'mount'"
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()


class Disk:
    """A place that can hold only so much: a small file system, or else a limit to file sizes."""

    def __init__(self, path: Path, kilobytes: int, file_kilobytes: int) -> None:
        path.mkdir()
        self.path, self.words = path, "No space left on device"
        self.settings: dict[str, Any] = {}
        problem = mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", path)
        self.mounted = problem is None
        if not self.mounted:
            print(f"no small file system ({problem}): the sizes of files are limited instead")
            limit = file_kilobytes << 10
            self.words = "File too large"
            self.settings["preexec_fn"] = lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, limit)
            )

    def fill(self) -> None:
        """Leave no room at all."""
        with contextlib.suppress(OSError):
            (self.path / "rubbish").write_bytes(b"0" * (1 << 20))

    def repair(self) -> None:
        """Make room."""
        (self.path / "rubbish").unlink(missing_ok=True)
        if self.mounted:
            assert mount("-o", "remount,size=64m", self.path) is None

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int, int], Disk]]:
    """Make a disk with so many kilobytes, and so many a file where no disk can be made."""
    made: list[Disk] = []

    def make(kilobytes: int, file_kilobytes: int) -> Disk:
        made.append(Disk(tmp_path / "disk", kilobytes, file_kilobytes))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def large(small: Small) -> Small:
    """The same with some 60 KB of predictions a file, and no fatal record."""
    for file in range(6):
        rows = [{"x": -1.0 if file == n == 2 else 10000.5 + n} for n in range(4000)]
        write_lines(small.input / f"{file}.jsonl", rows)
    return small


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_a_disk_that_fills_up_while_splits_are_written(
    large: Small, disk: Callable[[int, int], Disk], name: str
) -> None:
    place = disk(200, 32)
    words = [place.words, str(place.path / "out"), "--resume"]
    fail_and_resume(large, place.path / name, words, place.repair, **place.settings)


def test_a_disk_that_fills_up_while_the_file_is_published(
    large: Small, disk: Callable[[int, int], Disk]
) -> None:
    place = disk(600, 200)
    words = [place.words, f"{place.path / 'out.jsonl'} cannot be published", "--resume"]
    fail_and_resume(large, place.path / "out.jsonl", words, place.repair, **place.settings)


def test_a_disk_that_is_full_before_anything_runs(
    small: Small, disk: Callable[[int, int], Disk]
) -> None:
    place = disk(64, 0)
    place.fill()
    words = [place.words, f"--output {place.path / 'out'} cannot be written"]
    fail_and_resume(small, place.path / "out", words, place.repair, **place.settings)


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path, small: Small) -> None:
    (tmp_path / "file").write_text("not a directory")
    output = tmp_path / "file" / "out"
    failed = small.run(output)
    assert failed.process.returncode == 1
    assert f"--output {output} cannot be written: Not a directory" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "not a directory"


def test_an_output_on_a_read_only_disk_cannot_be_written(
    small: Small, disk: Callable[[int, int], Disk]
) -> None:
    place = disk(1000, 1000)
    if place.mounted:
        assert mount("-o", "remount,ro", place.path) is None
    elif os.geteuid() == 0:
        pytest.skip("nothing can be mounted here, and root may write everywhere else")
    else:
        place.path.chmod(0o555)
    failed = small.run(place.path / "out")
    assert failed.process.returncode == 1
    assert f"--output {place.path / 'out'} cannot be written" in failed.stderr
    assert re.search("Read-only file system|Permission denied", failed.stderr)
    assert failed.stderr.count("\n") == 1
    assert list(place.path.iterdir()) == []
