"""Starting the process that will hold the model; light, so that it can be the first thing done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

from modelbeam.machine import available_cores, module_path

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Started(NamedTuple):
    """A process that waits for its model, the socket to it, and the number of workers it is for."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    workers: int

    def end(self) -> None:
        """End it; it may have ended already."""
        self.process.kill()
        self.process.wait()
        self.socket.close()


def start_worker(workers: int) -> Started:
    """Start a process that serves :mod:`modelbeam.local.process`.

    Args:
        workers: on how many cores the job runs; it bounds the threads of OpenMP, BLAS and Polars.
    """
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.settimeout(None)  # Beam's client of gs:// sets a default for all sockets
    code = (
        f"import sys; sys.path[:] = {module_path()!r}; "
        f"from modelbeam.local.process import main; main({theirs.fileno()})"
    )
    # The child starts with SIGINT blocked, so that Ctrl-C never interrupts its start-up.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**environment(workers), **os.environ},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    theirs.close()
    return Started(process, ours, workers)


def environment(workers: int) -> dict[str, str]:
    """Variables for the model's process; what the user has set already wins.

    N workers must not start N times as many threads of OpenMP or BLAS. And glibc is told to keep
    the memory of a block for the next one: giving it back and faulting it in again costs a tenth
    of the processor time of a fast model.
    """
    threads = str(max(1, available_cores() // workers))
    wanted = dict.fromkeys(_THREAD_VARIABLES, threads)
    wanted["POLARS_MAX_THREADS"] = str(workers)
    wanted["MALLOC_MMAP_THRESHOLD_"] = str(64 << 20)
    wanted["MALLOC_TRIM_THRESHOLD_"] = str(256 << 20)
    return wanted
