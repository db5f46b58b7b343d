"""Real commands that crash: their processes, what they publish, and input for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import environment, read_lines, write_lines


class Command:
    """A command of modelbeam in a process group of its own; none of it outlives the ``with``.

    Args:
        arguments: after the command.
        code: what runs instead of ``-m modelbeam``.
        env: of the environment, what differs.
        command: which one.
        settings: of ``Popen``.
    """

    def __init__(
        self,
        *arguments: object,
        env: dict[str, str],
        code: str | None = None,
        command: str = "predict",
        **settings: Any,
    ) -> None:
        start = ["-m", "modelbeam"] if code is None else ["-c", code]
        self.process = subprocess.Popen(
            [sys.executable, *start, command, *map(str, arguments)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**env),
            **settings,
        )
        self.group = self.process.pid
        self.stdout = self.stderr = ""

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.members():
            os.killpg(self.group, signal.SIGKILL)
        self.process.communicate()

    def members(self) -> list[int]:
        """The processes of the group that are alive."""
        if not os.path.isdir("/proc/self"):
            try:
                os.killpg(self.group, 0)
            except ProcessLookupError:
                return []
            return [self.group]
        alive = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.group and state not in "ZX":
                alive.append(int(stat.parent.name))
        return alive

    def read_until(self, text: str) -> None:
        """Read the lines of what it says on stderr until one has the text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return
        raise AssertionError(f"it ended and did not say {text!r}")

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        self.stdout, self.stderr = self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL every process of it."""
        os.killpg(self.group, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, "it had ended before it was killed"
        wait_until(lambda: not self.members(), seconds=5)


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> float:
    """Wait for a condition, and return how long that took; it is a failure if it does not come."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - began


def published(output: Path) -> dict[str, bytes]:
    """What a user sees of an output, without the description of the run and the report."""
    found = output.glob("*") if output.suffix == "" else output.parent.glob(output.stem + ".*")
    return {
        path.name: path.read_bytes()
        for path in sorted(found)
        if path.is_file() and not path.name.endswith(("run.json", "profile.json", "report.html"))
    }


def description(output: Path) -> dict[str, Any]:
    """The content of run.json."""
    path = output / "run.json" if output.suffix == "" else output.with_suffix(".run.json")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def state_of(output: Path) -> Path:
    """The state directory of an output."""
    return output / "_modelbeam" if output.suffix == "" else output.with_suffix("._modelbeam")


def manifests(output: Path) -> dict[str, tuple[bytes, int]]:
    """The splits that are committed: content and time of each manifest."""
    found = (state_of(output) / "manifests").glob("*.json")
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


class Small:
    """Six small files for the models that get into trouble.

    The one fatal record is in the last file; the trouble begins once all other splits are done.
    """

    def __init__(self, directory: Path) -> None:
        self.trouble = directory / "trouble"
        self.hidden = self.last = directory / "in" / "5.jsonl"
        self.input = self.last.parent
        self.input.mkdir()
        for file in range(6):
            rows = [{"x": -1.0 if file == n == 2 else file + n / 4} for n in range(8)]
            write_lines(self.input / f"{file}.jsonl", rows)
        self.last.write_text(self.last.read_text() + '{"x": 1.5, "fatal": true}\n')

    def start(self, output: Path, *flags: str, model: str = "Troubled", **settings: Any) -> Command:
        """Start a command that predicts the files."""
        env = {
            "TROUBLE": str(self.trouble),
            "TROUBLE_AFTER": str(state_of(output) / "manifests"),
            "HIDE": str(self.hidden),
            **settings.pop("env", {}),
        }
        own = [f"--model=crash_models:{model}", f"--input={self.input}", f"--output={output}"]
        own += ["--worker-mode=threads", "--workers=2", "--no-progress"]
        return Command(*own, *flags, env=env, **settings)

    def run(self, output: Path, *flags: str, **settings: Any) -> Command:
        """Run such a command to its end."""
        with self.start(output, *flags, **settings) as command:
            command.wait()
        return command

    def wait_for_trouble(self, output: Path) -> None:
        """Wait until the model is at the fatal record and all else is done."""
        wait_until(lambda: len(manifests(output)) == 5)
        time.sleep(0.3)

    def repair(self) -> None:
        """End the trouble, whichever it was."""
        self.trouble.unlink()
        hidden = Path(f"{self.hidden}.hidden")
        if hidden.exists():
            hidden.rename(self.hidden)

    def expected(self, output: Path) -> dict[str, bytes]:
        """What an undisturbed run publishes, worked out by hand."""
        made = {}
        for file in range(6):
            rows = read_lines(self.input / f"{file}.jsonl")
            lines = [f'{{"y":{2 * row["x"]}}}\n' for row in rows if row["x"] >= 0]
            made[f"predictions-{file:05d}-of-00006.jsonl"] = "".join(lines).encode()
        source = self.input / "2.jsonl"
        error = {
            "source": str(source),
            "line": 3,
            "offset": sum(len(line) + 1 for line in source.read_bytes().split(b"\n")[:2]),
            "model": "doubler",
            "stage": "predict",
            "type": "ValueError",
            "error": "x is negative: -1.0",
        }
        text = json.dumps(error, separators=(",", ":"))[:-1] + ',"record":{"x": -1.0}}\n'
        if output.suffix:
            return {"out.errors.jsonl": text.encode(), "out.jsonl": b"".join(made.values())}
        return {"_SUCCESS": b"", "errors-00002-of-00006.jsonl": text.encode(), **made}
