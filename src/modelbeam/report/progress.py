"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import sys
import time
from typing import Any

from modelbeam import engines, streams
from modelbeam.engines.run import Submitted
from modelbeam.explain import code_of_failure
from modelbeam.job.flags import is_local
from modelbeam.job.prepare import Plan, Silent, Watcher
from modelbeam.job.result import Run, place_of
from modelbeam.job.task import Totals
from modelbeam.local.hints import HINT
from modelbeam.text import count, duration, fold, printable, size

SECONDS_BETWEEN_LINES = 5.0
"""How often a plain line is written where there is no terminal."""


RATE_WINDOW = 5.0
"""Seconds over which the rate is taken on this machine."""


REMOTE_RATE_WINDOW = 30.0
"""The same for an engine, which tells of records only when their split is done."""


FIRST_SECONDS = 2.0
"""Before that no rate and no time left is told."""

LOADING_SECONDS = 2.0
"""For how long a model may load before a person is told."""

BAR_WIDTH = 12


class _Rate:
    """Records and bytes a second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, int]] = []

    def update(self, totals: Totals) -> tuple[float, float]:
        window = RATE_WINDOW if totals.tasks is None else REMOTE_RATE_WINDOW
        records, done = totals.counts.read, totals.bytes
        now = time.monotonic()
        self._seen.append((now, records, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > window:
            self._seen.pop(0)
        then, records_then, done_then = self._seen[0]
        seconds = now - then
        if seconds < FIRST_SECONDS:  # a guess that jumps helps nobody
            return 0.0, 0.0
        return (records - records_then) / seconds, (done - done_then) / seconds


def _text(plan: Plan, totals: Totals, rates: tuple[float, float], width: int | None = None) -> str:
    """Where a run is.

    Args:
        plan: what is to be done.
        totals: what is done.
        rates: records and bytes a second; zero while they are not known.
        width: characters that there are; what matters least is left out.
    """
    records, done = rates
    left = plan.bytes - totals.bytes
    parts = {  # by how much they matter
        "records": count(totals.counts.read, "record"),
        "failed": f"{totals.counts.failed:,} failed",
        "left": f"{duration(left / done)} left" if done > 0 and left > 0 else "",
        "rate": f"{records:,.0f}/s" if records > 0 else "",
        "bytes": f"{size(totals.bytes)} of {size(plan.bytes)}",
        "tasks": ""
        if totals.tasks is None
        else f"{count(totals.splits, 'split')} done, {count(totals.tasks, 'task')} at work",
    }
    chosen: set[str] = set()
    taken = 0
    for name, part in parts.items():
        if part and (width is None or not chosen or taken + len(part) + 2 <= width):
            chosen.add(name)
            taken += len(part) + 2
    order = ("records", "failed", "rate", "bytes", "tasks", "left")
    return ", ".join(parts[name] for name in order if name in chosen)


def _loading(seconds: float) -> str:
    return f"Loading the model ({seconds:.0f} s)"


def write_line(text: str) -> None:
    """A message on stderr, whatever that is."""
    line = fold(f"modelbeam: {printable(text)}", streams.width(sys.stderr))
    print(line, file=sys.stderr, flush=True)


class Lines:
    """A plain line on stderr every few seconds."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._due = 0.0
        self._loading_due = LOADING_SECONDS

    def loading(self, seconds: float) -> None:
        """Write a line if it is time."""
        if seconds >= self._loading_due:
            self._loading_due = seconds + SECONDS_BETWEEN_LINES
            print(f"modelbeam: {_loading(seconds)}", file=sys.stderr, flush=True)

    def begin(self, plan: Plan) -> None:
        """Say what is about to run, once."""
        begun = self._due > 0
        self._plan = plan
        self._due = time.monotonic() + SECONDS_BETWEEN_LINES
        if begun:
            return
        flags = plan.job.beam_options
        where = count(plan.workers, "worker") if is_local(flags) else engines.title_of(flags)
        print(
            f"modelbeam: {count(len(plan.inputs), 'file')}, {size(plan.bytes)}, "
            f"{count(len(plan.splits), 'split')}, {where}",
            file=sys.stderr,
            flush=True,
        )

    def update(self, totals: Totals) -> None:
        """Write a line if it is time."""
        rates = self._rate.update(totals)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"modelbeam: {_text(self._plan, totals, rates)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Write a line at once."""
        write_line(text)

    def end(self) -> None:
        """Nothing is left open."""


_BESIDE = BAR_WIDTH + 8
"""Characters of the line that are not text: the percentage, the bar and the space around them."""


class Bar:
    """A progress bar on a terminal; one line, however narrow that is."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._bar: Any = None
        self._status: Any = None

    def loading(self, seconds: float) -> None:
        """Count the seconds on a line that goes away with the bar's beginning."""
        if seconds < LOADING_SECONDS:
            return
        if self._status is None:
            from rich.console import Console
            from rich.status import Status

            self._status = Status("", console=Console(stderr=True))
            self._status.start()
        self._status.update(_loading(seconds))

    def _loaded(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def begin(self, plan: Plan) -> None:
        """Draw the empty bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._loaded()
        self._plan = plan
        self._bar = Progress(
            TaskProgressColumn(),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=max(plan.bytes, 1))
        self._bar.start()

    def update(self, totals: Totals) -> None:
        """Move the bar."""
        if self._bar is not None:
            rates = self._rate.update(totals)
            self._bar.update(
                self._task,
                completed=totals.bytes,
                description=_text(self._plan, totals, rates, self._bar.console.width - _BESIDE),
            )

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        self._loaded()
        if self._bar is not None:
            line = fold(f"modelbeam: {printable(text)}", self._bar.console.width)
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            write_line(text)

    def end(self) -> None:
        """Take the bar away; the summary stands in its place."""
        self._loaded()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Notes(Silent):
    """Says only what must be known: files that are not read, columns that the data lacks."""

    def note(self, text: str) -> None:
        """Write a line."""
        write_line(text)


def watcher(*, quiet: bool, progress: bool) -> Watcher:
    """The right one for where stderr goes."""
    if quiet:
        return Silent()
    if not progress:
        return Notes()
    return Bar() if streams.draws(sys.stderr) else Lines()


def summary(run: Run) -> str:
    """The end of a run in a few lines: counts, failures by type with the first of each, rate."""
    description = run.description
    models = description["models"]
    lines = [
        f"{count(run.read, 'record')} read, {run.predicted:,} predicted, {run.failed:,} failed "
        f"in {run.seconds:.1f} s ({description['records_per_second']:,}/s, "
        f"{description['workers']}{_at_once(models[0]) if len(models) == 1 else ''})"
    ]
    if description["splits_resumed"]:
        lines[0] += f"; {description['splits_resumed']} of {description['splits']} splits resumed"
    if description.get("already_finished"):
        lines.insert(0, f"nothing to do: the run was finished at {description['finished']}")
    for name, tally in description["counts"].get("models", {}).items():
        at_once = _at_once(next((one for one in models if one["name"] == name), {}))
        lines.append(
            f"  {name}: {tally['predicted']:,} predicted, {tally['failed']:,} failed{at_once}"
        )
    lines += failure_lines(description)
    lines += [f"  {note}" for note in description.get("notes", ()) if note.startswith(HINT)]
    where = run.output if len(run.shards) != 1 or run.output in run.shards else run.shards[0]
    lines.append(f"predictions in {where}")
    if run.errors:
        lines.append(
            f"failed records in {run.errors[0]}"
            + (f" and {len(run.errors) - 1} more" if len(run.errors) > 1 else "")
        )
    if page := description.get("report"):
        lines.append(f"report in {page}")
    return "\n".join(lines)


def _at_once(model: dict[str, Any]) -> str:
    """How many records a call of a model had, at most, if it takes many."""
    if not model.get("batch_size"):
        return ""
    halved = model.get("halved", 0)
    why = f", halved {count(halved, 'time')} since memory ran out" if halved else ""
    return f", up to {count(model['batch_size'], 'record')} a call{why}"


def failure_lines(description: dict[str, Any]) -> list[str]:
    """What failed, by kind with the first of each; and which processes died."""
    lines = []
    for kind in description["failures"]:
        words = " ".join(kind["error"].split())
        words = words if len(words) <= 160 else words[:157] + "..."
        stage = f" ({kind['stage']})" if kind["stage"] else ""
        where = f" [{kind['where']}]" if kind.get("where") else ""
        model = f"{kind['model']}: " if kind.get("model") else ""
        code = code_of_failure(kind["stage"], kind["type"])
        lines.append(
            f"  {model}{kind['count']:,} x {kind['type']}{stage}, first at {place_of(kind)}: "
            f"{words}{where}{f' [{code}]' if code else ''}"
        )
    if recovered := description.get("recovered"):
        lines.append(
            f"  {count(recovered, 'record')} failed once and not when tried again, alone: "
            f"the model is not deterministic"
        )
    for crash in description.get("crashes", ()):
        lines.append("  " + _crash(crash))
    return lines


def _crash(crash: dict[str, Any]) -> str:
    """What became of a process that held the model, and what to do about it."""
    text = f"the model's process {crash['ending']}, in {' and '.join(crash['places'])}"
    if crash["records"]:
        return f"{text}: over {count(crash['records'], 'record')}, now failed"
    peak = f" (it had {size(crash['peak_memory'])} at its peak)" if crash["peak_memory"] else ""
    return (
        f"{text}{peak}: over no record by itself, so all went on; if memory was short, use fewer "
        f"--workers or a smaller --batch-size"
    )


def left_running(job: Submitted) -> str:
    """What a person needs to know of a job that goes on without this process."""
    lines = [f"the job {job.name} runs on {job.engine}"]
    if job.link:
        lines.append(f"its page: {job.link}")
    lines.append("the same command with --resume follows it to its end")
    return "\n".join(lines)
