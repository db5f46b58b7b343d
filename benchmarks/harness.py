"""Runs commands as processes of their own and measures their time and memory. Linux only.

Nothing of a measurement happens inside the process that is measured. Time is the wall clock from
the start of a process to its end. CPU time and memory are those of its whole tree: the harness
makes itself the parent of every orphan below it, so that a helper process that outlives or leaves
its parent (Ray's, Spark's) is still counted.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.05
SAMPLING_SHARE = 0.05
TIME_LIMIT_SECONDS = 3600.0
STRAGGLER_SECONDS = 30.0
KIB = 1024
MB = 1e6
SCALE = 100_000
PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Contestant:
    """One command of a comparison, and how many lines it must write where.

    ``output`` is a path in a directory that nothing else is written to.
    """

    key: str
    label: str
    command: Sequence[str]
    rows: int = 0
    output: Path | None = None
    note: str = ""


@dataclass(frozen=True)
class Run:
    """What one run of a command took; ``error`` says why it does not count."""

    wall: float
    cpu: float
    tree_bytes: int
    process_bytes: int
    error: str = ""


@dataclass
class Result:
    """All runs of one contestant."""

    contestant: Contestant
    runs: list[Run] = field(default_factory=list)

    @property
    def error(self) -> str:
        """The first error of any run, or nothing."""
        return next((run.error for run in self.runs if run.error), "")

    def figures(self, name: str) -> list[float]:
        """One figure of every run, from the smallest to the largest."""
        return sorted(getattr(run, name) for run in self.runs)

    def median(self, name: str) -> float:
        """The median of one figure over the runs."""
        return statistics.median(self.figures(name))


# --- the process tree -----------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose own parent has ended."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> dict[int, float]:
    """The processes below this one, each with the CPU seconds it has used itself."""
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _read(f"/proc/{entry}/stat")):
            fields = stat.rpartition(")")[2].split()
            children[int(fields[1])].append(int(entry))
            seconds[int(entry)] = (int(fields[11]) + int(fields[12])) / TICKS
    below = list(children[os.getpid()])
    for pid in below:  # grows while it is walked
        below += children[pid]
    return {pid: seconds[pid] for pid in below}


def memory(pid: int) -> tuple[int, int]:
    """The proportional and the resident set size of a process, in bytes; zero once it is gone."""
    rollup = _read(f"/proc/{pid}/smaps_rollup")
    sizes = {
        name: int(amount) * KIB
        for name, amount in re.findall(r"^(Pss|Rss): +(\d+) kB", rollup, re.MULTILINE)
    }
    if sizes:
        return sizes["Pss"], sizes["Rss"]
    statm = _read(f"/proc/{pid}/statm").split()
    resident = int(statm[1]) * PAGE if statm else 0
    return resident, resident


def _read(path: str) -> str:
    """A file of /proc, or nothing when the process has gone or denies it."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Sampler:
    """Watches the processes below this one from a thread until it is told to stop."""

    def __init__(self) -> None:
        self.tree_bytes = 0
        self.process_bytes = 0
        self._seconds: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes seen, each as it was last seen."""
        return sum(self._seconds.values())

    def _watch(self) -> None:
        """Take a sample every 50 ms, or less often where sampling costs too much of a core."""
        deadline = time.monotonic() + TIME_LIMIT_SECONDS
        pause = SAMPLE_SECONDS
        while not self._stop.wait(pause):
            cost = -time.thread_time()
            self._sample()
            cost += time.thread_time()
            pause = max(SAMPLE_SECONDS, cost / SAMPLING_SHARE)
            if time.monotonic() > deadline:
                end(descendants())

    def _sample(self) -> None:
        """Add up what all processes hold at this moment."""
        seconds = descendants()
        sizes = [memory(pid) for pid in seconds]
        self._seconds |= seconds
        self.tree_bytes = max(self.tree_bytes, sum(proportional for proportional, _ in sizes))
        self.process_bytes = max([self.process_bytes, *(resident for _, resident in sizes)])


def end(pids: Iterable[int]) -> None:
    """Kill processes, some of which may have ended already."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def reap_stragglers() -> tuple[float, int]:
    """Wait for processes that outlived the command, and in the end kill them.

    Returns their CPU seconds and the largest resident set size among them, in bytes.
    """
    cpu, largest = 0.0, 0
    deadline = time.monotonic() + STRAGGLER_SECONDS
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu, largest
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
            largest = max(largest, usage.ru_maxrss * KIB)
        else:
            if time.monotonic() > deadline:
                end(descendants())
            time.sleep(SAMPLE_SECONDS)


# --- one run --------------------------------------------------------------------------------------


def measure(contestant: Contestant, environment: dict[str, str]) -> Run:
    """Run a contestant once, and check what it wrote."""
    clear(contestant.output)
    os.sync()
    with tempfile.TemporaryFile() as log:
        status, run = _measure_process(contestant.command, environment, log.fileno())
        error = f"exit status {status}" if status else wrong_output(contestant)
        if error:
            log.seek(0)
            print(log.read().decode(errors="replace")[-2000:])
    clear(contestant.output)
    return replace(run, error=error)


def _measure_process(
    command: Sequence[str], environment: dict[str, str], log: int
) -> tuple[int, Run]:
    """Run a command to its end and return its exit status and what it took.

    The kernel's account misses children that nobody waited for, and the samples miss the last
    moments of each process: the larger of the two is nearer to the truth.
    """
    adopt_orphans()
    with Sampler() as sampler:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        _, wait_status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        straggler_cpu, straggler_bytes = reap_stragglers()
    return process.returncode, Run(
        wall=wall,
        cpu=max(usage.ru_utime + usage.ru_stime + straggler_cpu, sampler.cpu),
        tree_bytes=sampler.tree_bytes,
        process_bytes=max(usage.ru_maxrss * KIB, straggler_bytes, sampler.process_bytes),
    )


def wrong_output(contestant: Contestant) -> str:
    """Say what is wrong with the number of records that a contestant wrote, if anything."""
    if contestant.output is None:
        return ""
    rows = count_rows(output_files(contestant.output), contestant.output.suffix)
    return "" if rows == contestant.rows else f"{rows:,} lines of {contestant.rows:,}"


def output_files(output: Path) -> list[Path]:
    """The data files of an output: itself, or those in it that are not markers or checksums."""
    if output.is_file():
        return [output]
    return sorted(file for file in output.glob("*") if file.name[0] not in "._")


def count_rows(files: Sequence[Path], suffix: str) -> int:
    """The records in files of a format; a file of CSV has a header.

    Parquet is read by a process of its own, since what is imported here would count as the memory
    of every contestant.
    """
    if suffix == ".parquet":
        script = [sys.executable, Path(__file__).with_name("tables.py"), "rows"]
        return int(subprocess.run([*script, *files], check=True, stdout=subprocess.PIPE).stdout)
    return sum(count_lines(file) - (suffix == ".csv") for file in files)


def count_lines(path: Path) -> int:
    """The number of line ends in a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def clear(output: Path | None) -> None:
    """Empty the directory that a contestant has to itself for its output."""
    if output is not None:
        shutil.rmtree(output.parent, ignore_errors=True)
        output.parent.mkdir(parents=True)


def compare(
    contestants: Sequence[Contestant], runs: int, environment: dict[str, str]
) -> list[Result]:
    """Run all contestants in turn, ``runs`` times over, so that a slow spell hits them alike."""
    results = [Result(contestant) for contestant in contestants]
    for number in range(runs):
        for result in results:
            run = measure(result.contestant, environment)
            result.runs.append(run)
            one = f"{result.contestant.label}, {result.contestant.rows:,} lines"
            print(
                f"run {number + 1} of {runs}: {one}: {run.error or f'{run.wall:.2f} s'}", flush=True
            )
    return results


# --- results --------------------------------------------------------------------------------------

Table = list[list[str]]


def table(results: Sequence[Result], baseline: str = "") -> Table:
    """A heading and one line for each contestant.

    With a baseline, the last column compares with its run over as many lines, where there is one.
    """
    bases = {
        result.contestant.rows: result
        for result in results
        if result.contestant.key == baseline and not result.error
    }
    heading = ["", "lines", "wall s", "min to max", "CPU s", "tree MB", "process MB"]
    heading += [f"s per {SCALE:,} lines", f"wall / {baseline}"]
    lines = [_line(result, bases.get(result.contestant.rows)) for result in results]
    return [line if baseline else line[:-1] for line in [heading, *lines]]


def _line(result: Result, base: Result | None) -> list[str]:
    """The line of one contestant: its medians, or its error."""
    contestant = result.contestant
    label = f"{contestant.label} ({contestant.note})" if contestant.note else contestant.label
    rows = f"{contestant.rows:,}" if contestant.rows else ""
    if result.error:
        return [label, rows, f"ERROR: {result.error}", *[""] * 6]
    wall = result.median("wall")
    walls = result.figures("wall")
    return [
        label,
        rows,
        f"{wall:.2f}",
        f"{walls[0]:.2f} to {walls[-1]:.2f}",
        f"{result.median('cpu'):.2f}",
        f"{result.median('tree_bytes') / MB:,.0f}",
        f"{result.median('process_bytes') / MB:,.0f}",
        f"{wall / contestant.rows * SCALE:.3f}" if contestant.rows >= SCALE else "",
        f"{wall / base.median('wall'):.2f}" if base else "",
    ]


def as_text(lines: Table) -> str:
    """A table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_join(line, widths, "  ").rstrip() for line in lines)


def as_markdown(lines: Table) -> str:
    """The same table in Markdown."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {_join(line, widths, ' | ')} |" for line in [lines[0], rule, *lines[1:]])


def _join(line: Sequence[str], widths: Sequence[int], between: str) -> str:
    """One line of a table: the first cell to the left, the others to the right."""
    justify: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(line) - 1)]
    return between.join(
        put(cell, width) for put, cell, width in zip(justify, line, widths, strict=True)
    )


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on: cores, memory, Python and the versions of the packages."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * PAGE / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


@dataclass(frozen=True)
class Report:
    """What one benchmark found, to be shown and kept."""

    name: str
    title: str
    tables: Sequence[Table]
    results: Sequence[Result]
    packages: Sequence[str]
    notes: Sequence[str] = ()

    def show(self) -> None:
        """Print the tables."""
        print(f"\n{self.title}\n")
        print("\n\n".join(as_text(lines) for lines in self.tables), flush=True)

    def save(self, directory: Path) -> None:
        """Write the tables as Markdown, and every single run as JSON."""
        directory.mkdir(parents=True, exist_ok=True)
        host = machine(self.packages)
        parts = [f"# {self.title}", _described(host), *self.notes, *map(as_markdown, self.tables)]
        (directory / f"{self.name}.md").write_text("\n\n".join(parts) + "\n")
        data = {"title": self.title, "machine": host, "contestants": self._runs()}
        (directory / f"{self.name}.json").write_text(json.dumps(data, indent=2) + "\n")

    def _runs(self) -> list[dict[str, Any]]:
        """Every run of every contestant, without the commands: they hold this machine's paths."""
        return [
            {
                "key": result.contestant.key,
                "label": result.contestant.label,
                "note": result.contestant.note,
                "lines": result.contestant.rows,
                "runs": [asdict(run) for run in result.runs],
            }
            for result in self.results
        ]


def _described(host: dict[str, Any]) -> str:
    """One paragraph about the machine and the versions."""
    packages = ", ".join(f"{name} {number}" for name, number in host["packages"].items())
    return (
        f"{host['cores']} cores, {host['memory_gb']} GB, {host['system']}; "
        f"Python {host['python']}; {packages}."
    )
