"""The runs below some directories: finished ones, broken ones and those that go on, one a line.

A directory that holds a run is not looked into any further: what is asked of it are a few files by
their names, never a listing of its shards. So the work is bounded by the number of directories and
of runs, whatever these hold.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from modelbeam import formats, storage
from modelbeam.engines.run import still_running
from modelbeam.errors import ModelbeamError, RequestError
from modelbeam.machine import lives
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.state import LOCK
from modelbeam.sinks.locks import held
from modelbeam.storage import join
from modelbeam.text import fold, printable

DEPTH = 3
"""How many directories below a place are looked into, one in the other."""

MOST_ENTRIES = 100_000
"""Files and directories of one directory that are looked at."""

MOST_DIRECTORIES = 10_000
"""Directories that are looked into."""

MOST_OF_A_LEDGER = 1_000
"""Entries of a run that goes on into files that are added up: the newest."""

MOST_SPLITS = 100_000
"""Splits of a broken run that are counted."""

_STATE = "_modelbeam"
_COMPARING = re.compile(r"(?:^|\.)_comparing$")


@dataclass(frozen=True, slots=True)
class Listed:
    """One run.

    Attributes:
        output: where it writes.
        kind: ``run``, ``comparison``, or ``stream`` for one that goes on into files.
        status: ``succeeded`` or ``failed``; ``running``; ``broken``: it did not end, and may be
            finished with ``--resume``; ``unfinished``: of another machine, which alone knows
            whether it still runs; ``idle``: a stream that nobody reads now; ``damaged``: what
            describes it cannot be read.
        started: when, in UTC as ``run.json`` has it.
        when: seconds since the epoch by which runs are sorted: when it started, or did something
            last.
        seconds: how long it took.
        models: ``name`` and ``version`` of each.
        inputs: as they were asked for.
        read, predicted, failed: records; ``None`` while they are not known.
        about: the file that tells of it.
        splits, splits_done: of one that is not finished.
        entries, entries_counted: of a stream; how many there are, and how many of them the records
            are of.
    """

    output: str
    kind: str
    status: str
    about: str
    started: str | None = None
    when: float = 0.0
    seconds: float | None = None
    models: tuple[dict[str, str], ...] = ()
    inputs: tuple[str, ...] = ()
    read: int | None = None
    predicted: int | None = None
    failed: int | None = None
    splits: int | None = None
    splits_done: int | None = None
    entries: int | None = None
    entries_counted: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` has it."""
        said = asdict(self)
        del said["when"]
        return said


@dataclass(slots=True)
class Found:
    """What there is below the places: the runs, newest first, and what was not looked at."""

    runs: list[Listed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_runs(places: Sequence[str], depth: int = DEPTH) -> Found:
    """Find the runs at and below some places.

    Args:
        places: directories, local or by URL; or outputs themselves.
        depth: how many directories below a place are looked into, one in the other.

    Raises:
        RequestError: a place is not there, or its store refuses.
    """
    found = Found()
    seen: set[str] = set()
    for place in map(storage.normalize, places):
        with storage.asked_for(place):
            _look(place, depth, found, seen)
    found.runs.sort(key=lambda run: (-run.when, run.output))
    return found


def _look(place: str, depth: int, found: Found, seen: set[str]) -> None:
    place = _as_output(place)
    suffix = formats.from_suffix(place)
    if suffix is not None and not storage.is_directory(place):  # an output that is one file
        runs = _of_file(Output(place, True, suffix))
        if not runs and not storage.exists(place):
            raise RequestError(f"{place}: there is no such directory or output.")
        _add(runs, found, seen)
        return
    if not storage.is_directory(_as_directory(place)):
        raise RequestError(f"{place}: there is no such directory.")
    waiting, looked = [place], 0
    for level in range(depth + 1):
        if looked == MOST_DIRECTORIES:
            return
        if looked + len(waiting) > MOST_DIRECTORIES:
            found.notes.append(
                f"{place} holds more than {MOST_DIRECTORIES:,} directories; of the rest nothing is "
                f"told"
            )
            waiting = waiting[: MOST_DIRECTORIES - looked]
        looked += len(waiting)
        below: list[str] = []
        look = _looked_into if level else _look_into
        for here in storage.in_parallel(look, waiting, place):
            _add(here.runs, found, seen)
            found.notes += here.notes
            below += here.below
        waiting = below


@dataclass(slots=True)
class _Here:
    """What one directory holds: runs, directories in which others may be, and what to say."""

    runs: list[Listed] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _looked_into(directory: str) -> _Here:
    """The same as :func:`_look_into`; of what cannot be looked into it is only said why."""
    try:
        return _look_into(directory)
    except (OSError, ModelbeamError) as error:
        why = getattr(error, "strerror", None) or error
        return _Here(notes=[f"{directory} cannot be looked into: {why}"])


def _look_into(directory: str) -> _Here:
    runs = _of_directory(directory)
    if runs:
        return _Here(runs, _comparing_in(directory))
    return _listed(directory)


def _add(runs: Sequence[Listed], found: Found, seen: set[str]) -> None:
    for run in runs:
        if run.about not in seen:
            seen.add(run.about)
            found.runs.append(run)


def _as_output(place: str) -> str:
    """The output that a file of a run stands for; anything else as it is."""
    head, slash, name = place.rpartition("/")
    if name in ("run.json", "comparison.json") and not storage.is_directory(place):
        return head or slash or "."
    return place


def _as_directory(place: str) -> str:
    """As Beam's own stores tell a directory, and no other minds."""
    return place if place.endswith("/") or not storage.is_url(place) else place + "/"


def _inside(directory: str, name: str) -> str:
    """The path of something in a directory; in the working directory its name alone."""
    return name if directory in ("", ".") else join(directory, name)


def _comparing_in(directory: str) -> list[str]:
    """The run that a comparison which is done once more makes of its models."""
    path = join(directory, "_comparing")
    return [path] if storage.is_directory(path) else []


def _listed(directory: str) -> _Here:
    """The directories in one that holds no run itself, and the runs into single files."""
    here = _Here()
    entries = list(islice(storage.entries_in(directory), MOST_ENTRIES + 1))
    if len(entries) > MOST_ENTRIES:
        here.notes.append(
            f"{directory} holds more than {MOST_ENTRIES:,} files; of the rest nothing is told"
        )
        entries.pop()
    names: dict[str, list[str]] = {}
    begun: set[str] = set()
    for name, is_directory in sorted(entries):
        base = next((name[: -len(end)] for end in _COMPANIONS if name.endswith(end)), None)
        if base:
            begun.add(base)
        elif is_directory and (not name.startswith((".", "_")) or name == "_comparing"):
            here.below.append(_inside(directory, name))
        elif formats.from_suffix(name) is not None:
            names.setdefault(formats.strip_suffix(name), []).append(name)
    for base in sorted(begun):
        here.runs += _of_file(_single(directory, base, names.get(base, ())))
    return here


_COMPANIONS = (".run.json", f".{_STATE}", ".comparison.json")
"""What stands beside an output that is one file."""


def _single(directory: str, base: str, names: Sequence[str]) -> Output:
    """The output that is one file, of which only the companions are certain.

    Args:
        directory: where it is.
        base: its name without a suffix.
        names: the files of that name with the suffix of a format; before it is published, none.
    """
    for name in names:
        kind = formats.from_suffix(name)
        if kind is not None and not name.endswith(".errors.jsonl"):
            return Output(_inside(directory, name), True, kind)
    return Output(_inside(directory, f"{base}.jsonl"), True, formats.Format("jsonl"))


def _of_file(output: Output) -> list[Listed]:
    base = formats.strip_suffix(output.path)
    about = f"{base}.comparison.json"
    return _with_run(_comparison(output.path, about), output)


def _with_run(compared: list[Listed], output: Output) -> list[Listed]:
    """A comparison, and a run in the same place unless it is the comparison's own."""
    runs = _of_output(output)
    return [*compared, *(one for one in runs if not (compared and one.about == output.run_file))]


def _of_directory(path: str) -> list[Listed]:
    if storage.is_directory(join(path, _STATE, "log")):
        return [_ledger(path)]
    output = Output(path, False, formats.Format("jsonl"))
    return _with_run(_comparison(path, join(path, "comparison.json")), output)


def _of_output(output: Output) -> list[Listed]:
    """The run that was finished there, and one that is on the way."""
    finished = _finished(output)
    begun = _begun(output, there=finished is not None)
    return [run for run in (finished, begun) if run is not None]


def _read(path: str) -> dict[str, Any] | None:
    """An object of JSON; an empty one if it is damaged, ``None`` if it is not there."""
    try:
        content = storage.read_if_there(path)
    except IsADirectoryError:
        return None
    if content is None:
        return None
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _finished(output: Output) -> Listed | None:
    said = _read(output.run_file)
    if said is None or (said and "modelbeam" not in said):  # other programs write run.json as well
        return None
    try:
        return _of_description(said, output.path, output.run_file)
    except (KeyError, TypeError, ValueError, AttributeError):
        marks = [join(output.path, name) for name in ("_SUCCESS", _STATE)]
        ours = said or output.single or any(map(storage.exists, marks))
        return Listed(output.path, "run", "damaged", output.run_file) if ours else None


def _of_description(said: dict[str, Any], output: str, about: str) -> Listed:
    """The run that ``run.json`` tells of, wherever it has been moved since."""
    counts, asked = said["counts"], said.get("request") or {}
    inputs = asked.get("inputs") or [info[0] for info in said["job"]["inputs"]]
    return Listed(
        output=output,
        kind="run",
        status=str(said["status"]),
        about=about,
        started=str(said["started"]),
        when=_epoch(said["started"]),
        seconds=float(said["seconds"]),
        models=_models(said["models"]),
        inputs=tuple(map(str, inputs)),
        read=int(counts["read"]),
        predicted=int(counts["predicted"]),
        failed=int(counts["failed"]),
    )


def _models(said: Sequence[dict[str, Any]]) -> tuple[dict[str, str], ...]:
    return tuple({"name": str(one["name"]), "version": str(one["version"])} for one in said)


def _epoch(stamp: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _comparison(output: str, about: str) -> list[Listed]:
    said = _read(about)
    run = (said or {}).get("run")
    if not said or not isinstance(run, dict) or "compared" not in said:
        return []
    try:
        one = _of_description({**run, "seconds": said["seconds"]}, output, about)
    except (KeyError, TypeError, ValueError, AttributeError):
        return [Listed(output, "comparison", "damaged", about)]
    return [replace(one, kind="comparison")]


def _begun(output: Output, there: bool) -> Listed | None:
    """The run that was begun there and has not ended, if there is one.

    Args:
        output: where it writes.
        there: whether a finished run is there; then a state that nothing was committed to is what
            is left of that.
    """
    about = join(output.state, "job.json")
    running = held(join(output.state, LOCK))
    if not running and (not storage.exists(about) or (there and not output.unfinished())):
        return None
    said = _read(about) or {}
    try:
        when = storage.stat(about).mtime_ns / 1e9
    except FileNotFoundError:  # it is just being made, or was just removed
        if not running:
            return None
        when = time.time()
    settings = said.get("settings") or {}
    status = "running" if running else _state_of(output, said)
    comparing = _COMPARING.search(output.path)
    path = output.path[: comparing.start()].rstrip("/") if comparing else output.path
    inputs = [info[0] for info in said.get("inputs") or ()]
    model = {key: str(settings.get(f"model {key}", "unknown")) for key in ("name", "version")}
    return Listed(
        output=path or output.path,
        kind="comparison" if comparing else "run",
        status=status if said or running else "damaged",
        about=about,
        started=_stamp(when),
        when=when,
        models=(model,) if settings else (),
        inputs=tuple(inputs),
        splits=_lines(join(output.state, "plan.jsonl")),
        splits_done=_done(output),
    )


def _state_of(output: Output, said: dict[str, Any]) -> str:
    """Whether somebody is still at work on a run that has not ended."""
    try:
        if still_running(output) is not None:
            return "running"
    except (ModelbeamError, OSError):  # the engine says nothing, or its library is not here
        return "unfinished"
    if not storage.is_url(output.state):
        return "broken"  # else its lock would be held
    alive = lives(said.get("process") or {})
    return {True: "running", False: "broken", None: "unfinished"}[alive]


def _lines(path: str) -> int | None:
    """The lines of a small file."""
    content = None if storage.is_url(path) else storage.read_if_there(path)
    return None if content is None else content.count(b"\n")


def _done(output: Output) -> int | None:
    """How many splits are committed; not asked of a store, which would list them all."""
    if storage.is_url(output.state):
        return None
    entries = storage.entries_in(join(output.state, "manifests"))
    return sum(entry.name.endswith(".json") for entry in islice(entries, MOST_SPLITS))


def _ledger(path: str) -> Listed:
    """A run that goes on into files: all of its small runs together."""
    log = join(path, _STATE, "log")
    names = sorted(n for n in storage.names_in(log) if re.fullmatch(r"\d+\.json", n))
    newest = names[-MOST_OF_A_LEDGER:]
    entries = [
        said
        for said in storage.in_parallel(lambda name: _read(join(log, name)), newest, log)
        if said
    ]
    counts = [said.get("counts") or {} for said in entries]
    read, predicted, failed = (
        sum(int(one.get(key, 0)) for one in counts) for key in ("read", "predicted", "failed")
    )
    one = Listed(
        output=path,
        kind="stream",
        status="running" if held(join(path, _STATE, LOCK)) else "idle",
        about=log,
        read=read,
        predicted=predicted,
        failed=failed,
        entries=len(names),
        entries_counted=len(newest),
    )
    last = _newest_run(path, newest)
    if names:
        first = storage.stat(join(log, names[0])).mtime_ns / 1e9
        when = storage.stat(join(log, names[-1])).mtime_ns / 1e9
        one = replace(one, started=_stamp(first), when=when)
    return one if last is None else replace(one, models=last.models, inputs=last.inputs)


def _newest_run(path: str, names: Sequence[str]) -> Listed | None:
    """The description of the newest small run; of the last few entries one has one."""
    for name in reversed(names[-10:]):
        number = name.removesuffix(".json")
        small = Output(join(path, number), False, formats.Format("jsonl"))
        run = _finished(small)
        if run is not None and run.models:
            return run
    return None


# For people


HEADER = ("started (UTC)", "status", "model", "read/predicted/failed", "seconds", "input", "output")


def to_text(runs: Sequence[Listed], width: int | None = None) -> list[str]:
    """A table, or where it does not fit two or more lines a run.

    Args:
        runs: what was found.
        width: characters that there are; ``None`` for as many as it takes.
    """
    rows = [_cells(run) for run in runs]
    if not rows:
        return []
    rows.insert(0, HEADER)
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADER) - 1)]
    numbers = (3, 4)
    lines = [
        "  ".join(
            cell.rjust(size) if at in numbers else cell.ljust(size)
            for at, (cell, size) in enumerate(zip(row, [*widths, 0], strict=True))
        ).rstrip()
        for row in rows
    ]
    if width is None or max(map(len, lines)) <= width:
        return lines
    return [line for run in runs for line in _in_lines(run, width)]


def _cells(run: Listed) -> tuple[str, ...]:
    return (
        _when(run),
        run.status,
        _model(run),
        _counts(run, "{read:,}/{predicted:,}/{failed:,}"),
        "" if run.seconds is None else f"{run.seconds:,.1f}",
        _input(run),
        printable(run.output),
    )


def _when(run: Listed) -> str:
    return (run.started or "").replace("T", " ")[:16]


def _model(run: Listed) -> str:
    join_with = " vs " if run.kind == "comparison" else ", "
    return printable(join_with.join(map(_with_version, run.models)))


def _with_version(model: dict[str, str]) -> str:
    known = model["version"] not in ("", "unknown")
    return f"{model['name']}@{model['version']}" if known else model["name"]


def _input(run: Listed) -> str:
    more = f" and {len(run.inputs) - 1:,} more" if len(run.inputs) > 1 else ""
    return printable("".join(run.inputs[:1]) + more)


def _counts(run: Listed, form: str) -> str:
    if run.read is not None:
        least = "last " if (run.entries or 0) > (run.entries_counted or 0) else ""
        return least + form.format(**{k: getattr(run, k) for k in ("read", "predicted", "failed")})
    if run.splits is not None:
        return f"{run.splits_done or 0:,} of {run.splits:,} splits"
    return ""


def _in_lines(run: Listed, width: int) -> Iterator[str]:
    """A run on a narrow terminal: what became of it, and where."""
    parts = [
        _model(run),
        _counts(run, "{read:,} read, {predicted:,} predicted, {failed:,} failed"),
        "" if run.seconds is None else f"{run.seconds:,.1f} s",
    ]
    said = ", ".join(filter(None, parts))
    yield from fold(f"{_when(run)}  {run.status}  {said}", width, 2).splitlines()
    where = f"{_input(run)} -> {printable(run.output)}" if run.inputs else printable(run.output)
    yield from (f"  {line}" for line in fold(where, width - 2, 2).splitlines())
