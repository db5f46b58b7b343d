"""This machine and this process: cores, where modules are found, the garbage collector."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from going through all that an import makes, again and again.

    It saves a tenth of the time of importing Beam or scikit-learn.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def module_path() -> list[str]:
    """Where the workers look for modules: as here, with the working directory last.

    Last, since a file of the user's may be called like a module that some library imports.
    """
    here = os.getcwd()
    return [*(entry or here for entry in sys.path), *([] if here in sys.path else [here])]


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def call_threads() -> int:
    """Threads of one call of a library: cores by workers, as the model's process was told."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else available_cores()


def identity() -> dict[str, Any]:
    """This process, so that others on this machine can tell whether it lives; plain data."""
    return {"host": _host(), "pid": os.getpid(), "began": _began(os.getpid())}


def lives(process: Mapping[str, Any]) -> bool | None:
    """Whether a process lives; ``None`` if it is one of another machine.

    Args:
        process: as :func:`identity` gave it there.
    """
    if process.get("host") != _host():
        return None
    pid = process.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return _began(pid) == process.get("began")  # else its number was given to another one


def _host() -> str:
    """The machine, and since when it runs: pids begin anew when it starts."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return f"{socket.gethostname()} {handle.read().strip()}"
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; nothing where there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            return handle.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError):
        return ""
