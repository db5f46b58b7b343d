"""A real job service and real external workers, each in a process of its own, and jobs on them.

Both are Beam's own and need neither Java nor Docker. Engines of other makes: ``tests/engines``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from commands import environment
from crashing import Command, Small, manifests, published, state_of, wait_until

PYTHON_FIRST = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
"""Beam's pool starts its workers as ``python``."""


class Service:
    """A module of Beam's that serves, in a session of its own; its children end with it.

    Args:
        module: what to run.
        arguments: of its command line.
        port: where it will listen.
        directory: where it runs and logs.
        env: of the environment, what differs.
    """

    def __init__(
        self, module: str, *arguments: str, port: int, directory: Path, env: dict[str, str]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        with (directory / f"{module.rpartition('.')[2]}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**{"PATH": PYTHON_FIRST, **env}),
                cwd=directory,
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "it ended before it served"
        with contextlib.suppress(OSError), socket.create_connection(("localhost", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """End it and its children, as ``kill -9`` does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def job_service(directory: Path) -> Service:
    """Start a job service; its jobs run in it, their workers elsewhere. It finds no Docker."""
    port = free_port()
    arguments = [f"--port={port}", f"--pid_file={directory / f'{port}.pid'}"]
    arguments.append(f"--staging_dir={directory / 'staged'}")
    module = "apache_beam.runners.portability.local_job_service_main"
    path = os.path.dirname(sys.executable)
    return Service(module, *arguments, port=port, directory=directory, env={"PATH": path})


def worker_pool(directory: Path, **env: str) -> Service:
    """Start what starts external workers, one a job, with this environment."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    return Service(module, f"--service_port={port}", port=port, directory=directory, env=env)


class Engine:
    """A job service with external workers, for the models of ``crash_models``.

    Attributes:
        env: the environment of the workers, and of commands.
        service, pool: the processes.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = directory / "gate"
        self.env = {"TROUBLE": str(self._gate), "RECORD_LOG": str(directory / "log")}
        self.service = job_service(directory / "service")
        self.pool = worker_pool(directory / "pool", **self.env)

    def flags(self, environment: str = "EXTERNAL", pool: Service | None = None) -> list[str]:
        """Beam's flags for a job here, on workers of this kind."""
        flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{self.service.port}"]
        flags.append(f"--environment_type={environment}")
        if environment == "EXTERNAL":
            port = (pool or self.pool).port
            flags += [f"--environment_config=localhost:{port}", "--no-packages"]
        return flags

    def at_the_gate(self, does: str) -> None:
        """What a model does at a fatal record: ``gate`` is to wait for another word."""
        new = self._gate.with_suffix(".new")
        new.write_text(does)
        new.replace(self._gate)

    def clear(self) -> None:
        """End a worker that still waits, and let the next ones pass."""
        if self._gate.exists():
            self.at_the_gate("exit")
            time.sleep(0.2)
            self._gate.unlink()

    def stop(self) -> None:
        """End all of it."""
        self.pool.kill()
        self.service.kill()


class Jobs(Small):
    """Six small files, and commands that predict them on an engine.

    The one fatal record is the last of the last file; what is done there says the engine's gate.
    """

    def __init__(self, directory: Path, engine: Engine) -> None:
        super().__init__(directory)
        self.engine = engine

    def arguments(self, output: Path, *flags: str, model: str = "Troubled") -> list[str]:
        """Of ``modelbeam predict``; the flags say which engine, the usual one if none does."""
        own = [f"--model=crash_models:{model}", f"--input={self.input}", f"--output={output}"]
        where = [] if any(f.startswith("--runner") for f in flags) else self.engine.flags()
        return [*own, *where, *flags]

    def start(self, output: Path, *flags: str, model: str = "Troubled", **settings: Any) -> Command:
        """Start a command."""
        env = {**self.engine.env, **settings.pop("env", {})}
        return Command(*self.arguments(output, *flags, model=model), env=env, **settings)

    def wait_for_trouble(self, output: Path) -> None:
        """Wait until the model is at the fatal record and all else is done."""
        wait_until(lambda: committed(output) == 5, seconds=90)
        time.sleep(0.3)

    def detach(self, output: Path) -> Command:
        """Submit a job that waits at the fatal record, all else done."""
        self.engine.at_the_gate("gate")
        command = self.run(output, "--detach")
        assert command.process.returncode == 0, command.stderr
        self.wait_for_trouble(output)
        return command

    def finish_here(self, output: Path) -> None:
        """Run the job on this machine."""
        command = self.run(output, "--runner=DirectRunner")
        assert command.process.returncode == 0, command.stderr

    def wait_published(self, output: Path) -> None:
        """Wait until a job that nobody follows has published."""
        wait_until(lambda: not state_of(output).exists() and published(output), seconds=90)


def identity(output: Path) -> dict[str, str]:
    """What the state of a job says of where it runs."""
    found: dict[str, str] = json.loads((state_of(output) / "engine.json").read_bytes())
    return found


def committed(output: Path) -> int:
    """How many splits are done."""
    return len(manifests(output))


_CONTROLLED = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from modelbeam.cli import main
main()
"""
"""Ctrl-C, typed at a terminal, reaches those whose controlling terminal it is."""


class Terminal:
    """``modelbeam predict`` in a terminal; none of it outlives the ``with``.

    Args:
        arguments: after ``predict``.
        env: of the environment, what differs.
    """

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLED, "predict", *arguments],
            start_new_session=True,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment(TERM="xterm", COLUMNS="120", **env),
        )
        os.close(theirs)
        self._bytes = b""

    @property
    def seen(self) -> str:
        """All that it showed."""
        return self._bytes.decode(errors="replace")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        """Type at it; ``\\x03`` is Ctrl-C."""
        os.write(self._ours, keys.encode())

    def read_until(self, text: str, times: int = 1) -> None:
        """Read what it shows until that is there so many times."""
        wait_until(lambda: self._read() and self.seen.count(text) >= times)

    def wait(self) -> int:
        """Read to the end, and return the exit code."""
        wait_until(lambda: self._read() and self.process.poll() is not None)
        self._read()
        return self.process.returncode

    def _read(self) -> bool:
        while select.select([self._ours], [], [], 0)[0]:
            try:
                self._bytes += os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                break
        return True
