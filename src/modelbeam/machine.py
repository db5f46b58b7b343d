"""This machine and this process: cores, where modules are found, the garbage collector."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
