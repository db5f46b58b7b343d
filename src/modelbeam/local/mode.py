"""Threads or processes: measured on the first blocks of a run, decided before others join in.

Threads of one process share what can run side by side. What cannot is the model, which is in one
call at a time, and whatever holds Python's interpreter lock. The larger of the two shares bounds
what threads can do: at 0.25 four of them are four times as fast, at 1.0 no faster than one.
Processes have no such bound, but each loads a model of its own first.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelbeam.models.turns import seconds_in_calls

MEASURED_SECONDS = 0.2
"""How long is measured, at most: a call of the model may take longer than that."""

_NAP = 0.001
_HELD = 0.0005
"""A sleeper that gets the interpreter lock this much late has had to wait for it.

Measured: a loop over dicts holds it 0.7 to 0.9 of the time by this mark (0.1 to 0.2 by one of
2 ms), columns 0.1 to 0.3.
"""

STARTS_PAID = 2.0
"""Processes must save so many times what starting one of them takes."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What bounds threads, as shares (0 to 1) of the time that the first blocks took.

    Attributes:
        model: the model was in a call that no other thread could make meanwhile.
        interpreter: the interpreter lock was held.
        seconds: how long was measured.
        bytes: of the input that were done by then; 0 if not known.
        start: seconds of processor time that this process took to start and load the model.
    """

    model: float
    interpreter: float
    seconds: float
    bytes: int
    start: float

    @property
    def serial(self) -> float:
        """The share that threads cannot do side by side."""
        return max(self.model, self.interpreter)


class Meter:
    """Measures the first split of a process.

    Args:
        thread_safe: whether the model's calls may overlap.
        report: called once, from a thread of the meter's own.
    """

    def __init__(self, thread_safe: bool, report: Callable[[Shares], None]) -> None:
        self._thread_safe, self._report = thread_safe, report
        self._start = time.process_time()
        self._done = threading.Event()
        self._seen: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._measure, name="meter", daemon=True)

    def begin(self) -> None:
        """The first split begins."""
        self._thread.start()

    def note(self, done: int) -> None:
        """So many bytes of the split are done."""
        self._seen.append((time.perf_counter(), done))

    def end(self) -> None:
        """The split is done, or has failed."""
        self._done.set()

    def _measure(self) -> None:
        shares = Shares(model=0.0, interpreter=0.0, seconds=0.0, bytes=0, start=self._start)
        try:
            shares = self._shares()
        finally:  # whatever happens, the job does not wait for ever
            self._report(shares)

    def _shares(self) -> Shares:
        began = time.perf_counter()
        before = seconds_in_calls()
        naps = held = 0
        while not self._done.is_set() and time.perf_counter() - began < MEASURED_SECONDS:
            delayed, slept = _run_delay(), time.perf_counter()
            time.sleep(_NAP)
            late = time.perf_counter() - slept - _NAP - (_run_delay() - delayed)
            naps += 1
            held += late > _HELD
        seconds = time.perf_counter() - began
        calls = min(1.0, (seconds_in_calls() - before) / seconds)
        done = [done for at, done in self._seen if at <= began + seconds]
        return Shares(
            model=0.0 if self._thread_safe else calls,
            interpreter=held / naps if naps else 0.0,
            seconds=seconds,
            bytes=done[-1] if done else 0,
            start=self._start,
        )


def _run_delay() -> float:
    """Seconds that this thread has waited for a core, where Linux tells; it is no one's lock."""
    if sys.platform == "linux":
        path = "/proc/thread-self/schedstat"
        with contextlib.suppress(OSError, ValueError, IndexError), open(path, "rb") as handle:
            return int(handle.read().split()[1]) / 1e9
    return 0.0


def processes_pay(shares: Shares, workers: int, left: int) -> bool:
    """Whether processes are worth their start.

    Args:
        shares: as measured.
        workers: threads or processes.
        left: bytes of input that are left.
    """
    if not shares.bytes:  # not one block in all that time: there is much to do, or it is compressed
        return shares.serial > 1 / workers
    one = shares.seconds * left / shares.bytes
    saved = one * (max(shares.serial, 1 / workers) - 1 / workers)
    return saved > STARTS_PAID * shares.start


def reason(shares: Shares) -> str:
    """Why processes were taken, for the summary."""
    if shares.model >= shares.interpreter:
        return f"the model's own time is {shares.model:.0%} of the work"
    return f"Python's interpreter lock is held {shares.interpreter:.0%} of the time"
