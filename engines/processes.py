"""Processes that are started, waited for and ended by their id; free ports."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class EngineError(Exception):
    """An engine could not be prepared or started; the message has the end of its log."""


class Process:
    """A process in a session of its own, so that its children can be found whatever they do.

    Args:
        name: what messages call it.
        command: what to run.
        log: file for what it prints.
        environment: variables beside those of this process.
        directory: where it runs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        _guard.tell(f"+{self.pid}")

    @property
    def alive(self) -> bool:
        """Whether the process itself still runs."""
        return self._popen.poll() is None

    def wait(self, seconds: float) -> None:
        """Wait until it has ended by itself."""
        self._popen.wait(seconds)

    def members(self) -> list[int]:
        """Ids of the process and of all that it started, as far as they live."""
        return _members(self.pid)

    def kill(self) -> None:
        """End it and its children at once, as ``kill -9`` does."""
        end = time.monotonic() + 5
        while self.members() and time.monotonic() < end:  # one may have started another just now
            self._signal(signal.SIGKILL)
            self._popen.wait()
            time.sleep(0.02)
        self._popen.wait()  # one that ended by itself a moment ago is no member any more
        _guard.tell(f"-{self.pid}")

    def ask_to_end(self) -> None:
        """Ask it and its children to end, and return at once."""
        self._signal(signal.SIGTERM)

    def stop(self, patience: float = 5) -> None:
        """Ask it and its children to end, then make them."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(patience)
        self.kill()

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: int) -> None:
        _signal_members(self.pid, number)


class _Guard:
    """A process that ends what this one has started, if this one is killed before it can."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[str] | None = None

    def tell(self, line: str) -> None:
        if self._popen is None:
            command = [sys.executable, __file__]
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, text=True, start_new_session=True
            )
            atexit.register(self._popen.communicate)
        if self._popen.stdin is not None:
            self._popen.stdin.write(f"{line}\n")
            self._popen.stdin.flush()


_guard = _Guard()


def _be_the_guard() -> None:
    sessions: set[int] = set()
    for line in sys.stdin:  # ends when the other process does, however it does
        change = sessions.add if line[0] == "+" else sessions.discard
        change(int(line[1:]))
    for session in sessions:
        _signal_members(session, signal.SIGKILL)


def _signal_members(session: int, number: int) -> None:
    for pid in _members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _members(session: int) -> list[int]:
    return [pid for pid in _all_pids() if _session(pid) == session]


def _all_pids() -> Iterator[int]:
    """Ids of all processes, without those that have ended and wait to be asked for."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, state = line.split()
        if not state.startswith("Z"):
            yield int(pid)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    ready: Callable[[], bool], what: str, processes: Sequence[Process], seconds: float = 90
) -> None:
    """Wait until ``ready()``; an ``OSError`` of it counts as not yet.

    Raises:
        EngineError: a process ended before, or the time is over.
    """
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if ready():
                return
        ended = next((process for process in processes if not process.alive), None)
        if ended is not None or time.monotonic() > end:
            why = f"{ended.name} ended" if ended else f"not ready after {seconds:.0f} s"
            logs = [f"{process.log}:\n{process.tail()}" for process in processes]
            raise EngineError("\n".join([f"{what} did not start: {why}.", *logs]))
        time.sleep(0.1)


def answers(port: int) -> bool:
    """Whether something listens on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


if __name__ == "__main__":
    _be_the_guard()
