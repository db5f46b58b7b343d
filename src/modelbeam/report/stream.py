"""What people read of a run over a topic: a line while it goes on, and its end."""

from __future__ import annotations

import sys
import time
from typing import Any

from modelbeam.engines.run import Submitted
from modelbeam.local.lanes import LanesProgress, LanesWatcher
from modelbeam.local.stream import Streamed
from modelbeam.report.progress import LOADING_SECONDS, failure_lines
from modelbeam.text import count, printable

SECONDS_BETWEEN_LINES = 5.0


class Quiet:
    """Says nothing."""

    def loading(self, seconds: float) -> None:
        """Say nothing."""

    def lanes(self, progress: LanesProgress) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class NotesOnly(Quiet):
    """Says only what a person wants to know once."""

    def note(self, text: str) -> None:
        """Write a line."""
        print(f"modelbeam: {printable(text)}", file=sys.stderr, flush=True)


class StreamLines(NotesOnly):
    """A line on stderr every few seconds; on a terminal one line that changes."""

    def __init__(self) -> None:
        self._due = 0.0
        self._before = (time.monotonic(), 0)
        self._loading_due = LOADING_SECONDS

    def loading(self, seconds: float) -> None:
        """Say how long the model has been loading."""
        if seconds >= self._loading_due:
            self._loading_due = seconds + SECONDS_BETWEEN_LINES
            self.note(f"Loading the model ({seconds:.0f} s)")

    def lanes(self, progress: LanesProgress) -> None:
        """Write a line if it is time."""
        now = time.monotonic()
        if now < self._due:
            return
        since, read = self._before
        rate = (progress.counts.read - read) / max(now - since, 1e-3)
        self._before = (now, progress.counts.read)
        first, self._due = self._due == 0.0, now + SECONDS_BETWEEN_LINES
        if not first:
            self.note(line(progress, rate))


def line(progress: LanesProgress, rate: float) -> str:
    """How a run over a topic goes, in one line."""
    parts = [
        count(progress.counts.read, "record"),
        f"{progress.counts.failed:,} failed",
        f"{rate:,.0f}/s",
        f"{count(progress.lanes, 'lane')} on {count(progress.partitions, 'partition')}",
    ]
    middle, most = progress.latency(0.5), progress.latency(0.99)
    if middle is not None and most is not None:
        parts.append(f"latency {middle:,.0f} ms (p99 {most:,.0f} ms)")
    return ", ".join(parts)


def stream_watcher(*, quiet: bool, progress: bool) -> LanesWatcher:
    """The right one."""
    if quiet:
        return Quiet()
    return StreamLines() if progress else NotesOnly()


def left_streaming(job: Submitted) -> str:
    """What a person needs to know of lanes that go on without this process."""
    lines = [f"the job {job.name} runs on {job.engine} until it is cancelled there"]
    if job.link:
        lines.append(f"its page: {job.link}")
    lines.append("the same command, given again, takes over from it; nothing is lost or doubled")
    return "\n".join(lines)


def stream_summary(run: Streamed) -> str:
    """The end of a run over a topic in a few lines."""
    about: dict[str, Any] = run.description
    rate = round(run.read / max(run.seconds, 1e-3))
    end = "" if about["end"] == "ended" else f" ({about['end']})"
    lines = [
        f"{count(run.read, 'record')} read, {run.predicted:,} predicted, {run.failed:,} failed in "
        f"{run.seconds:.1f} s ({rate:,}/s, {count(about['lanes'], 'lane')}){end}",
        *failure_lines(about),
        f"predictions in {about['output']}, failed records in {about['errors']}",
        f"offsets of {about['input']} are committed for the group {about['group']}",
    ]
    if about["delivery"] != "exactly-once":
        lines.append("delivery at least once: after a crash some records may be there twice")
    return "\n".join(lines)
