"""Progress in a notebook: a bar in the cell's own output, without widgets."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from typing import Any

from modelbeam import streams
from modelbeam.job.prepare import Plan, Silent
from modelbeam.job.task import Totals
from modelbeam.text import count, duration, printable

BETWEEN = 0.25
"""Seconds between two pictures of a bar."""

WIDTH = 24
"""Characters of a bar that is text."""

LOADING_SECONDS = 2.0
"""For how long a model may load before a person is told."""


def in_kernel() -> bool:
    """Whether this is a kernel of Jupyter, so that a cell shows what is displayed."""
    ipython = sys.modules.get("IPython")
    found = getattr(ipython, "get_ipython", None)  # not there while another thread imports it
    shell = found() if found is not None else None
    return shell is not None and hasattr(shell, "kernel")


def bar_of(progress: bool | None, words: Callable[[str], str] = str) -> Silent:
    """What is told of a run that was started from Python.

    Args:
        progress: whether there is to be a bar; ``None`` for one in a notebook only.
        words: makes of a sentence for the command line one for the caller.
    """
    if progress is None:
        progress = in_kernel()
    if not progress:
        return Silent()
    return KernelBar(words) if in_kernel() else TextBar(words)


class _Bar(Silent):
    """Where a run is, as a share and a line of text."""

    def __init__(self, words: Callable[[str], str] = str) -> None:
        self._words = words
        self._plan: Plan | None = None
        self._began = self._due = 0.0

    def _show(self, share: float, text: str) -> None:
        raise NotImplementedError

    def loading(self, seconds: float) -> None:
        """Count the seconds of a model that loads for long."""
        if seconds >= LOADING_SECONDS:
            self._draw(0.0, f"loading the model ({seconds:.0f} s)")

    def begin(self, plan: Plan) -> None:
        """Draw an empty bar."""
        self._plan, self._began = plan, time.monotonic()
        self._show(0.0, "starting")

    def update(self, totals: Totals) -> None:
        """Move the bar."""
        size = self._plan.bytes if self._plan is not None else 0
        share = min(1.0, totals.bytes / size) if size else 0.0
        seconds = time.monotonic() - self._began
        parts = [count(totals.counts.read, "record"), f"{totals.counts.failed:,} failed"]
        if seconds >= LOADING_SECONDS and totals.counts.read:
            parts.append(f"{totals.counts.read / seconds:,.0f}/s")
        if seconds >= LOADING_SECONDS and 0 < share < 1:
            parts.append(f"{duration(seconds / share - seconds)} left")
        self._draw(share, ", ".join(parts))

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Say how far a run over files as they arrive is."""
        left = f", {count(waiting, 'file')} not complete" if waiting else ""
        self._draw(0.0, f"{count(totals.counts.read, 'record')}, {count(runs, 'run')}{left}")

    def lanes(self, progress: Any) -> None:
        """Say how far a run over a topic is."""
        counts = progress.counts
        self._draw(0.0, f"{count(counts.read, 'record')}, {counts.failed:,} failed")

    def note(self, text: str) -> None:
        """Write a line."""
        print(f"modelbeam: {printable(self._words(text))}", file=sys.stderr, flush=True)

    def _draw(self, share: float, text: str) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + BETWEEN
            self._show(share, text)


class KernelBar(_Bar):
    """A bar that is displayed, and displayed anew; it goes away at the end."""

    def __init__(self, words: Callable[[str], str] = str) -> None:
        super().__init__(words)
        self._handle: Any = None

    def _show(self, share: float, text: str) -> None:
        bar = (
            f'<progress value="{share:.3f}" max="1" style="width: 16em"></progress> '
            f"{share:.0%} {html.escape(text)}"
        )
        self._display({"text/plain": as_text(share, text), "text/html": bar})

    def _display(self, pictures: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(pictures, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(pictures, raw=True)

    def end(self) -> None:
        """Leave nothing: what the call returns shows itself."""
        if self._handle is not None:
            self._display({"text/plain": "", "text/html": ""})
            self._handle = None


class TextBar(_Bar):
    """A bar on one line of stderr; where that is no terminal, a line now and then."""

    def __init__(self, words: Callable[[str], str] = str) -> None:
        super().__init__(words)
        self._terminal = streams.draws(sys.stderr)
        self._length = 0

    def _show(self, share: float, text: str) -> None:
        line = as_text(share, text)
        if self._terminal:
            sys.stderr.write("\r" + line.ljust(self._length))
            self._length = len(line)
        else:
            self._due = time.monotonic() + 20 * BETWEEN
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Write a line over the bar."""
        self.end()
        super().note(text)

    def end(self) -> None:
        """Take the bar away."""
        if self._terminal and self._length:
            sys.stderr.write("\r" + " " * self._length + "\r")
            sys.stderr.flush()
        self._length = 0


def as_text(share: float, text: str) -> str:
    """A bar of characters that every terminal and log has."""
    full = round(share * WIDTH)
    return f"{share:4.0%} [{'#' * full}{'.' * (WIDTH - full)}] {text}"
