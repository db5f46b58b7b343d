"""What people read of a streaming run: a line while it goes on, and its end."""

from __future__ import annotations

import time
from typing import Any

from modelbeam.engines.run import Submitted
from modelbeam.job.prepare import Silent
from modelbeam.job.result import Run
from modelbeam.job.task import Totals
from modelbeam.local.lanes import LanesProgress
from modelbeam.report.progress import SECONDS_BETWEEN_LINES, Lines, Notes, failure_lines
from modelbeam.run import StreamWatcher
from modelbeam.text import count


class StreamLines(Lines):
    """A line on stderr every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._before = (time.monotonic(), 0)
        self._said = ""

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

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Write a line if it is time and something has happened."""
        more = f", {count(waiting, 'file')} not complete" if waiting else ""
        self._say(f"{_so_far(totals)}, {count(runs, 'run')}{more}")

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """Write a line if it is time and something has happened."""
        more = f", {count(waiting, 'offset')} in no segment yet" if waiting else ""
        self._say(f"{_so_far(totals)}, {count(number, 'segment')}{more}")

    def _say(self, said: str) -> None:
        now = time.monotonic()
        if now >= self._due and said != self._said:
            self._due, self._said = now + SECONDS_BETWEEN_LINES, said
            self.note(said)


def _so_far(totals: Totals) -> str:
    return f"{count(totals.counts.read, 'record')}, {totals.counts.failed:,} failed"


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


def stream_watcher(*, quiet: bool, progress: bool) -> StreamWatcher:
    """The right one."""
    if quiet:
        return Silent()
    return StreamLines() if progress else Notes()


def left_streaming(job: Submitted) -> str:
    """What a person needs to know of lanes that go on without this process."""
    lines = [f"the job {job.name} runs on {job.engine} until it is cancelled there"]
    if job.link:
        lines.append(f"its page: {job.link}")
    lines.append("the same command, given again, takes over from it; nothing is lost or doubled")
    return "\n".join(lines)


def stream_summary(run: Run) -> str:
    """The end of a streaming run in a few lines."""
    about: dict[str, Any] = run.description
    kind = next((kind for kind in ("run", "segment") if f"{kind}s" in about), None)
    if kind is not None:
        end = " (stopped)" if about["end"] == "stopped" else ""
        group = f"the group {about['group']} is where the segments end" if "group" in about else ""
        lines = [
            f"{count(run.read, 'record')} read, {run.predicted:,} predicted, {run.failed:,} "
            f"failed in {run.seconds:.1f} s, {count(about[f'{kind}s'], kind)}{end}",
            *failure_lines(about),
            f"predictions and failed records in {run.output}, a directory a {kind}",
            group,
        ]
        return "\n".join(filter(None, lines))
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
