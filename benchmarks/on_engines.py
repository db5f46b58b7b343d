"""The main job on Flink and on Spark, beside the local run, PySpark and PyFlink.

Whole processes, from the command to its end. Clusters, job servers and pools of workers are started
before and stand idle while another contestant is measured. What a job spends where is read off the
times that are there anyway: those of the files in its state, and Flink's REST interface.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import Contestant, Result, Run, Table, clear, wrong_output

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY))

from engines import install  # noqa: E402
from engines.clusters import FlinkCluster, SparkCluster, WorkerPool  # noqa: E402
from engines.processes import EngineError  # noqa: E402

SMALL, TIMES = 2_000_000, 5
SUBMITTED = {
    "Flink, jar": "flink-2",
    "Flink, job server": "flink-server",
    "Spark, job server": "spark-2",
}
LOOK_SECONDS = 0.02
TIME_LIMIT_SECONDS = 900.0
ROOM = {
    "taskmanager.memory.process.size": "2560m",
    "taskmanager.memory.jvm-metaspace.size": "1536m",
}
"""For Flink: Beam's classes are loaded again for every job and not all let go. With the 256 MB that
it has by default, a TaskManager ends after eight jobs or so."""
PEERS = {"spark": "requirements-spark.txt", "pyflink": "requirements-pyflink.txt"}
PHASES = {
    "loaded": "start, model loaded",
    "packaged": "packages worked out and built",
    "uploaded": "Beam imported, jar built and uploaded",
    "known": "pipeline translated, until the engine has the job",
    "running": "scheduled, until the first task runs",
    "begun": "Python workers, until the first block is predicted",
    "committed": "the splits",
    "published": "published",
    "over": "Python workers stopped, until the engine says it is over",
    "ended": "noticed, process ended",
}
"""What ends a phase, and the phase. Where a time is missing the next one has the phase in it."""


@dataclass(frozen=True)
class Place:
    """Where modelbeam runs.

    Attributes:
        slots: how many splits it works on at a time.
        local: the key of the local run with as many workers.
        rest: Flink's REST interface, if it is on Flink.
        environment: variables beside those of all.
    """

    key: str
    label: str
    slots: int
    flags: Sequence[str]
    local: str
    rest: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class Watch:
    """Notes when a job gets where, from a thread beside it."""

    def __init__(self, output: Path, rest: str = "") -> None:
        self.times: dict[str, float] = {"started": time.time()}
        self._output, self._rest = output, rest
        self._state = output.with_name(output.name.split(".")[0] + "._modelbeam")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._look, daemon=True)]
        if rest:
            self._threads.append(threading.Thread(target=self._look_for_jar, daemon=True))

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.times["ended"] = time.time()
        self._stop.set()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(OSError):
            self.times["published"] = self._output.stat().st_ctime
        if self._rest:
            self._ask_flink()

    def _look(self) -> None:
        files = {"loaded": "job.json", "packaged": "plan.jsonl"}
        while not self._stop.wait(LOOK_SECONDS):
            now = time.time()
            for phase, name in files.items():
                if phase not in self.times and (self._state / name).exists():
                    self.times[phase] = now
            with contextlib.suppress(OSError):
                if "begun" not in self.times and os.listdir(self._state / "attempts"):
                    self.times["begun"] = now
            with contextlib.suppress(OSError):
                for entry in os.scandir(self._state / "manifests"):
                    at = max(self.times.get("committed", 0.0), entry.stat().st_mtime)
                    self.times["committed"] = at

    def _look_for_jar(self) -> None:
        while not self._stop.wait(10 * LOOK_SECONDS) and "uploaded" not in self.times:
            with contextlib.suppress(OSError):
                uploaded = [jar["uploaded"] / 1000 for jar in self._get("/jars")["files"]]
                if uploaded and max(uploaded) > self.times["started"]:
                    self.times["uploaded"] = max(uploaded)

    def _ask_flink(self) -> None:
        jobs = self._get("/jobs/overview")["jobs"]
        job = self._get(f"/jobs/{max(jobs, key=lambda job: job['start-time'])['jid']}")
        if job["start-time"] / 1000 < self.times["started"]:
            return
        while job["end-time"] < 0:  # from Flink's cache, 3 s old
            time.sleep(0.5)
            job = self._get(f"/jobs/{job['jid']}")
        self.times["known"] = job["start-time"] / 1000
        self.times["over"] = job["end-time"] / 1000
        vertices = [self._get(f"/jobs/{job['jid']}/vertices/{v['id']}") for v in job["vertices"]]
        tasks = [task for vertex in vertices for task in vertex["subtasks"]]
        waits = ("DEPLOYING", "INITIALIZING")  # a task's start is that of its deployment
        begun = [
            task["start-time"] + sum(task["status-duration"][w] for w in waits) for task in tasks
        ]
        self.times["running"] = min(begun) / 1000

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._rest + path, timeout=10) as answer:
            return json.load(answer)

    def phases(self) -> dict[str, float]:
        """Seconds of each phase whose end is known."""
        known = [name for name in ("started", *PHASES) if name in self.times]
        return {
            name: self.times[name] - self.times[before]
            for before, name in itertools.pairwise(known)
        }


@dataclass
class Entry:
    """One contestant of this comparison, its runs, and what was seen beside them."""

    place: Place
    contestant: Contestant
    model: str = ""
    runs: list[Run] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    @property
    def result(self) -> Result:
        """As the other benchmarks keep it."""
        return Result(self.contestant, self.runs)

    def seconds(self) -> float | None:
        """The median of the whole process, unless a run failed."""
        result = self.result
        return None if result.error or not self.runs else result.median("wall")

    def work(self) -> float | None:
        """The median of the seconds from the first block to the last split's commit."""
        found = [phases.get("committed") for phases in self.phases]
        if self.seconds() is None or None in found or not found:
            return None
        return statistics.median(found)  # type: ignore[type-var]


def measure(entry: Entry, environment: dict[str, str]) -> None:
    """Run a contestant once; unlike the harness' ``measure`` without memory and CPU time.

    Those would be the cluster's, of which other contestants have their share.
    """
    one = entry.contestant
    clear(one.output)
    os.sync()
    assert one.output is not None
    with tempfile.TemporaryFile() as log:
        watch = Watch(one.output, entry.place.rest)
        start = time.perf_counter()
        with watch:
            status = _run_within(one.command, {**environment, **entry.place.environment}, log)
        wall = watch.times["ended"] - watch.times["started"]
        wall = min(wall, time.perf_counter() - start)
        error = f"exit status {status}" if status else wrong_output(one)
        if error:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:])
    clear(one.output)
    entry.runs.append(Run(wall, 0.0, 0, 0, error))
    entry.phases.append(watch.phases())


def _run_within(command: Sequence[str], environment: dict[str, str], log: Any) -> int:
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        return process.wait(TIME_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def compare(entries: Sequence[Entry], runs: int, environment: dict[str, str]) -> None:
    """Run all in turn, ``runs`` times over."""
    for number in range(runs):
        for entry in entries:
            measure(entry, environment)
            run, one = entry.runs[-1], entry.contestant
            what = f"{one.label}{f', {entry.model}' if entry.model else ''}, {one.rows:,} lines"
            said = run.error or f"{run.wall:.2f} s"
            print(f"run {number + 1} of {runs}: {what}: {said}", flush=True)


# --- who takes part -------------------------------------------------------------------------------


class Peers:
    """Pythons of their own for PySpark and PyFlink, whose versions are those of the clusters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.missing: list[str] = []

    def python(self, name: str) -> Path | None:
        """The Python that has the peer, made once; ``None`` where it cannot be installed."""
        wanted = (HERE / PEERS[name]).read_text()
        folder = self._folder / f"bench-{name}"
        python, stamp = folder / "bin" / "python", folder / ".ready"
        if stamp.exists() and stamp.read_text() == wanted:
            return python
        print(f"installing {PEERS[name]} into {folder} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        command = [python, "-m", "pip", "install", "--quiet", "-r", HERE / PEERS[name]]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            lines = [line for line in done.stdout.splitlines() if "error" in line.lower()]
            reason = (lines or done.stdout.splitlines() or ["no message"])[-1].strip()
            self.missing.append(f"{PEERS[name]} could not be installed: {reason}")
            return None
        stamp.write_text(wanted)
        return python


@dataclass
class Clusters:
    """All that is started beside the measurements; an engine of which nobody is wanted is not."""

    places: list[Place] = field(default_factory=list)
    spark: SparkCluster | None = None
    flink: FlinkCluster | None = None


@contextlib.contextmanager
def clusters(environment: dict[str, str], wanted: Callable[[str], bool]) -> Iterator[Clusters]:
    """Start everything, of which one at a time has work."""
    running = Clusters([local(workers) for workers in (1, 2)])
    with _variables(environment), contextlib.ExitStack() as stack:  # workers inherit them
        pool = stack.enter_context(WorkerPool())
        flags = [*pool.flags, "--no-packages"]

        def add(key: str, label: str, slots: int, more: Sequence[str], rest: str = "") -> None:
            place = Place(key, label, slots, [*more, *flags], f"local-{slots}", rest)
            running.places.append(place)

        for slots in (1, 2):
            own = [f"flink-{slots}", *(["flink-server", "pyflink-2"] if slots == 2 else [])]
            if any(map(wanted, own)):
                flink = stack.enter_context(FlinkCluster(slots, 1, ROOM))
                running.flink = flink
                add(own[0], f"Flink, {_count(slots, 'slot')}", slots, flink.flags, flink.rest_url)
        if wanted("flink-server"):
            server = stack.enter_context(flink.job_server())
            through = [f"--job_endpoint={server.endpoint}", f"--flink_master={flink.master}"]
            through.append("--runner=FlinkRunner")
            add("flink-server", "Flink, 2 slots, job server", 2, through, flink.rest_url)
        for cores in (1, 2):
            own = [f"spark-{cores}", *(["pyspark-2"] if cores == 2 else [])]
            if any(map(wanted, own)):
                spark = running.spark = stack.enter_context(SparkCluster(1, cores))
                server = stack.enter_context(spark.job_server())
                through = ["--runner=SparkRunner", f"--job_endpoint={server.endpoint}"]
                add(own[0], f"Spark, {_count(cores, 'core')}, job server", cores, through)
        yield running


@contextlib.contextmanager
def _variables(environment: dict[str, str]) -> Iterator[None]:
    """This process' own variables for a while."""
    kept = os.environ.copy()
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def local(workers: int) -> Place:
    """This machine with so many workers."""
    key = f"local-{workers}"
    return Place(key, f"local, {_count(workers, 'worker')}", workers, ["--workers", key[-1]], key)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def modelbeam(setting: Any, place: Place, model: str, rows: int) -> Entry:
    """modelbeam at a place."""
    output = setting.output(f"engines-{place.key}-{model}-{rows}")
    command = [sys.executable, "-m", "modelbeam", "predict", "--model", f"iris_lr:{model}"]
    command += ["--input", str(setting.source(rows)), "--output", str(output), "--overwrite", "-q"]
    command += place.flags
    contestant = Contestant(place.key, f"modelbeam, {place.label}", command, rows, output)
    return Entry(place, contestant, model)


def peer(setting: Any, place: Place, python: Path, script: str, rows: int, *more: str) -> Entry:
    """A script of ``peers`` with a Python of its own."""
    output = setting.output(f"engines-{place.key}-{rows}")
    command = [str(python), str(HERE / "peers" / script), str(setting.source(rows)), str(output)]
    return Entry(place, Contestant(place.key, place.label, [*command, *more], rows, output))


def peer_entries(
    setting: Any,
    running: Clusters,
    peers: Peers,
    sizes: Sequence[int],
    wanted: Callable[[str], bool],
) -> list[Entry]:
    """PySpark on the Spark cluster of two cores, and PyFlink on the Flink cluster of two slots."""
    entries = []
    python = peers.python("spark") if wanted("pyspark-2") else None
    if python is not None and running.spark is not None:
        place = Place("pyspark-2", "PySpark mapInPandas, Spark, 2 cores", 2, [], "local-2")
        entries += [
            peer(setting, place, python, "spark_pandas_udf.py", rows, running.spark.master)
            for rows in sizes
        ]
    python = peers.python("pyflink") if wanted("pyflink-2") else None
    if python is not None and running.flink is not None:
        own = {"IRIS_LR_MODEL": str(setting.work / "model-pyflink")}  # its NumPy is another
        train = [python, HERE / "iris_lr" / "iris_lr.py"]
        subprocess.run(train, env={**setting.environment, **own}, check=True)
        label = "PyFlink pandas UDF, Flink, 2 slots"
        place = Place("pyflink-2", label, 2, [], "local-2", environment=own)
        entries += [
            peer(setting, place, python, "flink_pandas_udf.py", rows, running.flink.master)
            for rows in sizes
        ]
    return entries


# --- what a submission costs ----------------------------------------------------------------------


def submissions(setting: Any, small: Sequence[Entry]) -> dict[str, list[dict[str, float]]]:
    """The phases of the smaller jobs, by the way in which they were submitted.

    Those without packages have been measured; with packages they are here, the first of them with
    an empty cache.
    """
    by_key = {entry.place.key: entry for entry in small}
    found = {
        label: [
            {**phases, "whole": run.wall}
            for phases, run in zip(by_key[key].phases, by_key[key].runs, strict=True)
            if not run.error
        ]
        for label, key in SUBMITTED.items()
        if key in by_key
    }
    if "flink-2" not in by_key:
        return found
    environment = setting.environment
    bare = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    with contextlib.ExitStack() as stack:
        with _variables(bare):  # what is sent is all that these workers have
            pool = stack.enter_context(WorkerPool(staged=True))
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        plain = by_key["flink-2"]
        flags = [flag for flag in plain.place.flags if not _of_pool(flag)]
        place = replace(plain.place, flags=[*flags, *pool.flags])
        for label in ("Flink, jar, packages", *["the same again"] * min(setting.runs, 2)):
            entry = modelbeam(setting, place, plain.model, plain.contestant.rows)
            measure(entry, {**environment, "XDG_CACHE_HOME": cache})
            run = entry.runs[0]
            print(f"submission, {label}: {run.error or f'{run.wall:.2f} s'}", flush=True)
            if not run.error:
                found.setdefault(label, []).append({**entry.phases[0], "whole": run.wall})
    return found


def _of_pool(flag: str) -> bool:
    return flag == "--no-packages" or flag.startswith("--environment_")


# --- tables ---------------------------------------------------------------------------------------


def seconds_table(entries: Sequence[Entry], sizes: Sequence[int]) -> Table:
    """Seconds of whole processes, and their ratios to the local run with as many workers."""
    heading = ["seconds, whole process"]
    for rows in sizes:
        heading += [f"{rows:,} lines", "min to max", "/ local"]
    found = {(entry.place.key, entry.contestant.rows): entry for entry in entries}
    lines = [heading]
    for place in _places(entries):
        cells = []
        for rows in sizes:
            entry, base = found.get((place.key, rows)), found.get((place.local, rows))
            cells += _seconds_cells(entry, base)
        lines.append([_label(place), *cells])
    return lines


def _seconds_cells(entry: Entry | None, base: Entry | None) -> list[str]:
    if entry is None:
        return ["", "", ""]
    seconds = entry.seconds()
    if seconds is None:
        return [f"ERROR: {entry.result.error}", "", ""]
    walls = entry.result.figures("wall")
    local = base.seconds() if base is not None else None
    ratio = f"{seconds / local:.2f}" if local else ""
    return [f"{seconds:.2f}", f"{walls[0]:.2f} to {walls[-1]:.2f}", ratio]


def _places(entries: Sequence[Entry]) -> list[Place]:
    return list({entry.place.key: entry.place for entry in entries}.values())


def _label(place: Place) -> str:
    return place.label if place.key.startswith("py") else f"modelbeam, {place.label}"


def speed_table(entries: Sequence[Entry], title: str, speeds: dict[str, float]) -> Table:
    """Lines a second and a slot, the ratio to the local worker's, and what a second slot brings."""
    heading = [title, "lines/s", "a slot", "a slot / local", "2 slots / 1"]
    lines = [heading]
    for place in _places(entries):
        if place.key not in speeds:
            continue
        speed, base = speeds[place.key], speeds.get(place.local)
        one = speeds.get(f"{place.key[:-1]}1") if place.key.endswith("-2") else None
        lines.append(
            [
                _label(place),
                f"{speed:,.0f}",
                f"{speed / place.slots:,.0f}",
                f"{speed / base:.2f}" if base else "",
                f"{speed / one:.2f}" if one else "",
            ]
        )
    return lines


def marginal(entries: Sequence[Entry]) -> dict[str, float]:
    """The lines that the larger input has more, by the seconds that it took more."""
    speeds = {}
    for place in _places(entries):
        known = [
            (entry.contestant.rows, entry.seconds())
            for entry in entries
            if entry.place.key == place.key and entry.seconds() is not None
        ]
        (small, less), (large, more) = min(known, default=(0, 0)), max(known, default=(0, 0))
        if more > less:
            speeds[place.key] = (large - small) / (more - less)
    return speeds


def at_work(entries: Sequence[Entry]) -> dict[str, float]:
    """Lines by the seconds from the first block predicted to the last split's commit."""
    speeds = {}
    for entry in sorted(entries, key=lambda entry: entry.contestant.rows):
        work = entry.work()
        if work:
            speeds[entry.place.key] = entry.contestant.rows / work
    return speeds


def phase_table(found: dict[str, list[dict[str, float]]], rows: int) -> Table:
    """Where the seconds of a job go."""
    lines = [[f"seconds, {rows:,} lines, 2 slots or cores", *found]]
    for phase, label in {**PHASES, "whole": "whole process"}.items():
        cells = []
        for taken in found.values():
            known = [one[phase] for one in taken if phase in one]
            cells.append(f"{statistics.median(known):.2f}" if known else "")
        lines.append([label, *cells])
    return lines


# --- all of it ------------------------------------------------------------------------------------


def compare_engines(setting: Any) -> tuple[list[Table], list[Result], list[str]]:
    """Start the engines, measure, and return tables, results and what is to be said with them.

    Raises:
        EngineError: an engine cannot be had, for want of Java for instance.
    """
    for name in ("flink", "spark", "boot", "worker"):
        install.EVERYTHING[name]()
    small = min(setting.rows or [SMALL])
    large = max(setting.rows) if len(setting.rows) > 1 else TIMES * small
    sizes = (small, large)
    peers = Peers(REPOSITORY / "build")

    def wanted(key: str) -> bool:
        return not setting.only or key in setting.only

    with clusters(setting.environment, wanted) as running:
        places = [place for place in running.places if wanted(place.key)]
        table = [modelbeam(setting, place, "IrisTable", rows) for place in places for rows in sizes]
        table += peer_entries(setting, running, peers, sizes, wanted)
        plain = [place for place in places if place.key.startswith(("local", "flink-1", "flink-2"))]
        records = [modelbeam(setting, place, "NearlyNothing", large) for place in plain]
        least = [entry for entry in table if entry.contestant.rows == small]
        warm_up = [entry for entry in least if entry.place.key.startswith(("flink", "spark"))]
        compare([replace(entry, runs=[], phases=[]) for entry in warm_up], 1, setting.environment)
        compare([*table, *records], setting.runs, setting.environment)
        found = submissions(setting, least)
    tables = [
        seconds_table(table, sizes),
        speed_table(table, "columns, marginal", marginal(table)),
        speed_table(table, f"columns, at work on {large:,} lines", at_work(table)),
        speed_table(records, f"dicts, at work on {large:,} lines", at_work(records)),
    ]
    if found:
        tables.append(phase_table(found, small))
    return tables, [entry.result for entry in [*table, *records]], peers.missing


__all__ = ["EngineError", "compare_engines"]
