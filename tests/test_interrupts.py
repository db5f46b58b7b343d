"""Ctrl-C and SIGTERM: the command ends at once, leaves no process behind, and can be resumed."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from crashing import Command, Small, description, manifests, published, wait_until

CTRL_C_SECONDS = 4.0
"""Ctrl-C ends within 2 seconds; twice that is allowed for a busy machine."""


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Input for a model that is in no trouble yet."""
    return Small(tmp_path)


def name(value: Any) -> str:
    """A signal's or another value's name in a test's."""
    return getattr(value, "name", str(value))


def interrupt(command: Command, number: int, to: str = "group") -> None:
    """Send a signal to the ``group`` or the ``main process``, and measure the time to the end."""
    began = time.monotonic()
    (os.killpg if to == "group" else os.kill)(command.group, number)
    command.wait()
    seconds = time.monotonic() - began
    print(f"{signal.Signals(number).name} to the {to}: {seconds:.2f} s")
    assert seconds < CTRL_C_SECONDS
    check_stopped(command)


def check_stopped(command: Command) -> None:
    """The command said so in one line, and left no process."""
    assert command.process.returncode == 130, command.stderr
    assert command.stderr.startswith("modelbeam: Stopped."), command.stderr
    assert command.stderr.count("\n") == 1, command.stderr
    assert command.stdout == ""
    wait_until(lambda: not command.members(), seconds=1)


@pytest.mark.parametrize("to", ["group", "main process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=name)
def test_ctrl_c_in_the_middle_of_a_run(tmp_path: Path, small: Small, number: int, to: str) -> None:
    small.trouble.write_text("wait")
    output = tmp_path / "out"
    with small.start(output) as command:
        small.wait_for_trouble(output)
        interrupt(command, number, to)
    assert "--resume" in command.stderr
    assert published(output) == {}
    small.repair()
    resumed = small.run(output, "--resume")
    assert resumed.process.returncode == 0, resumed.stderr
    assert description(output)["splits_resumed"] == 5
    assert published(output) == small.expected(output)


@pytest.mark.parametrize("trouble", ["sleep", "hold the interpreter lock"])
def test_ctrl_c_while_the_model_hears_nothing(tmp_path: Path, small: Small, trouble: str) -> None:
    small.trouble.write_text(trouble)
    with small.start(tmp_path / "out") as command:
        small.wait_for_trouble(tmp_path / "out")
        interrupt(command, signal.SIGINT)
    assert "--resume" in command.stderr
    assert len(manifests(tmp_path / "out")) == 5


@pytest.mark.parametrize("trouble", ["sleep", "hold the interpreter lock"])
def test_ctrl_c_while_the_model_is_loaded_and_hears_nothing(
    tmp_path: Path, small: Small, trouble: str
) -> None:
    small.trouble.write_text(trouble)
    with small.start(tmp_path / "out", model="TroubledWhileLoading") as command:
        wait_until(lambda: len(command.members()) > 1)
        time.sleep(5)  # nothing outside tells when the command waits; before, it has less to say
        interrupt(command, signal.SIGINT)
    assert "Stopped. Nothing is kept, since no split was done." in command.stderr
    assert not (tmp_path / "out").exists()


def handles_signals(command: Command) -> bool:
    """Whether the command has come so far that it handles SIGTERM by itself."""
    status = Path(f"/proc/{command.group}/status")
    if not status.exists():
        time.sleep(0.2)
        return True
    caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


MOMENTS = [(signal.SIGINT, moment) for moment in (0, 0.1, 0.3, 0.6, 0.9)]
MOMENTS += [(signal.SIGTERM, moment) for moment in (0.05, 0.4)]


@pytest.mark.parametrize(("number", "moment"), MOMENTS, ids=name)
def test_ctrl_c_while_the_command_starts(
    tmp_path: Path, small: Small, number: int, moment: float
) -> None:
    small.trouble.write_text("wait")
    with small.start(tmp_path / "out") as command:
        wait_until(lambda: handles_signals(command))
        time.sleep(moment)
        interrupt(command, number)
    assert published(tmp_path / "out") == {}


# Interrupts itself while a module is imported in the main process.
INTERRUPTED = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from modelbeam.cli import main
main()
"""


@pytest.mark.parametrize("module", ["modelbeam.job.flags", "uuid", "pydantic", "modelbeam.run"])
def test_ctrl_c_while_a_module_is_imported(tmp_path: Path, small: Small, module: str) -> None:
    small.trouble.write_text("wait")
    command = small.run(tmp_path / "out", code=INTERRUPTED, env={"INTERRUPTED_AT": module})
    check_stopped(command)


# Interrupts itself in a finalizer, where Python swallows whatever is raised.
FINALIZED = """
import os, signal
from modelbeam import run
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
run_job = run.run_job
def finalize_and_run(*arguments, **settings):
    Finalized()
    return run_job(*arguments, **settings)
run.run_job = finalize_and_run
from modelbeam.cli import main
main()
"""


def test_ctrl_c_in_a_finalizer_is_not_lost(tmp_path: Path, small: Small) -> None:
    small.trouble.write_text("wait")
    check_stopped(small.run(tmp_path / "out", code=FINALIZED))


def test_ctrl_c_again_and_again(tmp_path: Path, small: Small) -> None:
    small.trouble.write_text("sleep")
    with small.start(tmp_path / "out") as command:
        small.wait_for_trouble(tmp_path / "out")
        for _ in range(8):
            if command.process.poll() is None:
                os.killpg(command.group, signal.SIGINT)
                time.sleep(0.003)
        command.wait()
    check_stopped(command)
    assert len(manifests(tmp_path / "out")) == 5


# Publishes one file every fifth of a second.
SLOWED = """
import time
from modelbeam import storage
replace = storage.replace
def slow(*arguments):
    replace(*arguments)
    time.sleep(0.2)
storage.replace = slow
from modelbeam.cli import main
main()
"""


def test_ctrl_c_in_the_middle_of_publishing(tmp_path: Path, small: Small) -> None:
    output = tmp_path / "out"
    with small.start(output, code=SLOWED) as command:
        wait_until(lambda: published(output))
        interrupt(command, signal.SIGINT)
    assert "--resume" in command.stderr
    assert "Nothing was published" not in command.stderr or published(output) == {}
    assert "_SUCCESS" not in published(output)
    assert small.run(output, "--resume").process.returncode == 0
    assert published(output) == small.expected(output)
