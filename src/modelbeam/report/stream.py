"""What people read of a streaming run: a line while it goes on, and its end."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any, Protocol

from modelbeam.engines.run import Submitted
from modelbeam.job.prepare import Silent
from modelbeam.job.result import Run
from modelbeam.job.task import Totals
from modelbeam.local.lanes import LanesProgress
from modelbeam.local.renewal import named
from modelbeam.report.progress import (
    LOADING_SECONDS,
    RATE_WINDOW,
    SECONDS_BETWEEN_LINES,
    Lines,
    Notes,
    failure_lines,
)
from modelbeam.run import StreamWatcher
from modelbeam.text import count, fold, printable

SECONDS_BETWEEN_LOOKS = 0.5
"""How often the line on a terminal is made anew."""


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


class StreamStatus:
    """One line on a terminal that is always new; what is said once stands above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self._console = Console(stderr=True)
        self._status = Status("", console=self._console)
        self._shown = False
        self._due = 0.0
        self._seen: deque[tuple[float, int]] = deque()

    def loading(self, seconds: float) -> None:
        """Count the seconds, if there are many."""
        if seconds >= LOADING_SECONDS:
            self._show(f"Loading the model ({seconds:.0f} s)")

    def lanes(self, progress: LanesProgress) -> None:
        """Say how it goes."""
        if self._is_due():
            self._show(line(progress, self._rate(progress.counts.read)))

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """Say how it goes."""
        if self._is_due():
            self._show(files_line(totals, runs, waiting))

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """Say how it goes."""
        if self._is_due():
            self._show(segments_line(totals, number, waiting))

    def note(self, text: str) -> None:
        """Write a line above."""
        written = fold(f"modelbeam: {printable(text)}", self._console.width)
        self._console.print(written, highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Take the line away; the summary stands in its place."""
        self._status.stop()

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + SECONDS_BETWEEN_LOOKS
        return True

    def _rate(self, read: int) -> float:
        now = time.monotonic()
        self._seen.append((now, read))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return (read - before) / max(now - then, 1e-3)

    def _show(self, text: str) -> None:
        from rich.text import Text

        room = max(8, self._console.width - 3)  # beside the spinner
        self._status.update(Text(text if len(text) <= room else text[: room - 1] + "…"))
        if not self._shown:
            self._shown = True
            self._status.start()


def files_line(totals: Totals, runs: int, waiting: int) -> str:
    """How a run over files goes, in one line."""
    more = f", {count(waiting, 'file')} not complete" if waiting else ""
    return f"{_so_far(totals)}, {count(runs, 'run')}{more}"


def segments_line(totals: Totals, number: int, waiting: int) -> str:
    """How a run from a topic into segments goes, in one line."""
    more = f", {count(waiting, 'offset')} in no segment yet" if waiting else ""
    return f"{_so_far(totals)}, {count(number, 'segment')}{more}"


def _so_far(totals: Totals) -> str:
    return f"{count(totals.counts.read, 'record')}, {totals.counts.failed:,} failed"


def line(progress: LanesProgress, rate: float) -> str:
    """How a run over a topic goes, in one line."""
    parts = [
        count(progress.counts.read, "record"),
        f"{progress.counts.failed:,} failed",
        f"{rate:,.0f}/s",
    ]
    if progress.lag is not None:
        parts.append(f"lag {progress.lag:,}")
    middle, most = progress.latency(0.5), progress.latency(0.99)
    if middle is not None and most is not None:
        parts.append(f"latency {middle:,.0f} ms (p99 {most:,.0f} ms)")
    parts.append(f"{count(progress.lanes, 'lane')} on {count(progress.partitions, 'partition')}")
    models = dict.fromkeys(named(one.model) for one in progress.each if one.model is not None)
    return ", ".join([*parts, *models])


class StreamTeller(StreamWatcher, Protocol):
    """A watcher that may leave something on the terminal."""

    def end(self) -> None:
        """Nothing comes any more."""


def stream_watcher(*, quiet: bool, progress: bool) -> StreamTeller:
    """The right one for where stderr goes."""
    if quiet:
        return Silent()
    if not progress:
        return Notes()
    return StreamStatus() if sys.stderr.isatty() else StreamLines()


def left_streaming(job: Submitted) -> str:
    """What a person needs to know of lanes that go on without this process."""
    lines = [f"the job {job.name} runs on {job.engine} until it is cancelled there"]
    if job.link:
        lines.append(f"its page: {job.link}")
    lines.append("the same command, given again, takes over from it; nothing is lost or doubled")
    return "\n".join(lines)


def _how(about: dict[str, Any]) -> list[str]:
    """How long records took, how many are left, and which models there were."""
    lines = []
    middle, most = about["latency_ms"]["p50"], about["latency_ms"]["p99"]
    if middle is not None:
        lines.append(f"from time stamp to commit: {middle:,.0f} ms (p50), {most:,.0f} ms (p99)")
    if about["lag"]:
        lines.append(f"{count(about['lag'], 'record')} of {about['input']} left to read")
    for one in about.get("reloads", ()):
        version = " ".join(filter(None, [one["version"], (one["fingerprint"] or "")[:8]]))
        why = f": {one['error']}" if one["error"] else ""
        lines.append(f"a new model ({version or 'not loaded'}) {_ENDS[one['outcome']]}{why}")
    return lines


_ENDS = {"taken over": "took over", "refused": "was refused"}


def stream_summary(run: Run) -> str:
    """The end of a streaming run in a few lines."""
    about: dict[str, Any] = run.description
    kind = next((kind for kind in ("run", "segment") if f"{kind}s" in about), None)
    if kind is not None:
        end = " (stopped)" if about["end"] == "stopped" else ""
        where = f"predictions and failed records in {run.output}, a directory a {kind}"
        group = ""
        if "errors" in about:
            where = f"predictions in {run.output}, failed records in {about['errors']}"
            group = f"which files are in it is kept in {about['state']}"
        elif "group" in about:
            group = f"the group {about['group']} is where the segments end"
        lines = [
            f"{count(run.read, 'record')} read, {run.predicted:,} predicted, {run.failed:,} "
            f"failed in {run.seconds:.1f} s, {count(about[f'{kind}s'], kind)}{end}",
            *failure_lines(about),
            where,
            group,
        ]
        return "\n".join(filter(None, lines))
    end = "" if about["end"] == "ended" else f" ({about['end']})"
    lines = [
        f"{count(run.read, 'record')} read, {run.predicted:,} predicted, {run.failed:,} failed in "
        f"{run.seconds:.1f} s ({about['records_per_second']:,}/s, "
        f"{count(about['lanes'], 'lane')}){end}",
        *failure_lines(about),
        *_how(about),
        f"predictions in {about['output']}, failed records in {about['errors']}",
        f"offsets of {about['input']} are committed for the group {about['group']}",
    ]
    if about["delivery"] != "exactly-once":
        lines.append("delivery at least once: after a crash some records may be there twice")
    return "\n".join(lines)
