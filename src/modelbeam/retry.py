"""``modelbeam retry``: the failed records of a finished run again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import orjson

from modelbeam import formats, storage
from modelbeam.errors import RequestError
from modelbeam.formats.base import Piece
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.job.again import Earlier, key_of
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Plan, Watcher, make_plan
from modelbeam.job.result import Run
from modelbeam.run import run_job
from modelbeam.sinks.files.output import Output
from modelbeam.sources import source_of
from modelbeam.text import as_utf8, count

_ALL = 1 << 62
_BLOCK = 1 << 20


def retry_job(path: str, settings: dict[str, Any], watcher: Watcher | None = None) -> Run:
    """Predict the failed records of a finished run again, and publish it anew.

    The output is as it was until the new one is complete.

    Args:
        path: the output, a directory or a file.
        settings: of the new run, by their names in :class:`Job`, where they are not the old one's.
        watcher: told how it goes.

    Raises:
        RequestError: there is no finished run, or it cannot be done again; nothing ran.
        JobError: the new run failed.
    """
    path = storage.normalize(path)
    run = _finished(path)
    given = {key: value for key, value in settings.items() if value is not None}
    size = run["job"]["split_size"]
    job = build_job(
        {**run["request"], **given, "output": path, "overwrite": True, "split_size": size}
    )
    storage.configure(job.beam_options)
    counts = run["counts"]
    if not any(each["failed"] for each in [counts, *counts.get("models", {}).values()]):
        return Run.of({**run, "already_finished": True})
    plan = make_plan(job)
    changed = _changed(plan, run)
    again = _places(plan.output)
    try:
        storage.make_directory(again)
        for split, earlier in zip(plan.splits, _earlier(plan, run, changed), strict=True):
            earlier.write(again, split)
        return cast(Run, run_job(job.retrying(again), watcher))
    finally:
        storage.remove_tree(again)


def _finished(path: str) -> dict[str, Any]:
    """The description of the run that was finished here."""
    kind = formats.from_suffix(path)
    single = kind is not None and not path.endswith("/") and not storage.is_directory(path)
    output = Output(path, single, kind or formats.Format("jsonl"))
    content = storage.read_if_there(output.run_file)
    if output.unfinished():
        raise RequestError(
            f"retry {path}: an unfinished run is there; finish it first, by its own command with "
            f"--resume."
        )
    if content is None:
        raise RequestError(
            f"retry {path}: there is no finished run ({output.run_file} is missing). Name the "
            f"--output of a run: its directory or its file."
        )
    try:
        run: dict[str, Any] = json.loads(content)
        compared = "comparison" in run
        request = run["request"]
    except (ValueError, KeyError, TypeError):
        request, compared = None, False
    if compared:
        raise RequestError(
            f"retry {path}: that is a comparison, of which nothing is tried again. Run compare "
            f"again with --overwrite."
        )
    if request is None:
        raise RequestError(
            f"retry {path}: {output.run_file} does not say how the run was made; it is damaged, or "
            f"of another version. Run the job again with --overwrite."
        )
    return run


def _changed(plan: Plan, run: dict[str, Any]) -> set[str]:
    """The inputs whose content is another than in the run.

    Raises:
        RequestError: there are other inputs, or they are cut otherwise though none has changed.
    """
    before = {info[0]: info[1:] for info in run["job"]["inputs"]}
    now = {info.path: [info.size, info.mtime_ns] for info in plan.inputs}
    for name in sorted(before.keys() ^ now.keys()):
        how = "is gone" if name not in now else "is new"
        raise RequestError(
            f"retry {plan.output.path}: the input {name} {how} since the run. A file may be "
            f"repaired, but none added or taken away. Run the job again with --overwrite."
        )
    changed = {name for name, info in now.items() if before[name] != info}
    pieces = [piece for split in plan.splits for piece in split.pieces]
    array = next((one.path for one in pieces if one.format == "json" and one.path in changed), None)
    if array is not None:
        raise RequestError(
            f"retry {plan.output.path}: the input {array} has changed since the run. It is an "
            f"array, whose elements have no lines of their own, so the places of its records are "
            f"not known. Run the job again with --overwrite."
        )
    if not changed and len(plan.splits) != run["splits"]:
        raise RequestError(
            f"retry {plan.output.path}: the inputs are cut otherwise than in the run, by another "
            f"version. Run the job again with --overwrite."
        )
    return changed


def _places(output: Output) -> str:
    return output.state.removesuffix("_modelbeam") + "_retry"


class _Part(NamedTuple):
    """A piece of a file: where it is in the plan, and which of the file's records are in it.

    ``lines`` and ``rows`` are how many of the file come before it, where they are asked for.
    """

    split: int
    number: int
    piece: Piece
    lines: int = 0
    rows: int = 0


def _earlier(plan: Plan, run: dict[str, Any], changed: set[str]) -> Iterator[Earlier]:
    """What the run made of each split of the plan."""
    failed = _failed(plan, run, bool(changed))
    # with a route a record goes to one model, so one that failed has no row
    models = 1 if plan.job.route is not None else len(plan.job.models)
    partly = [
        [[key for key, times in keys.items() if times < models] for keys in pieces]
        for pieces in failed
    ]
    shards = _shards(plan, run, failed, partly) if changed else _shards_as_they_are(plan, run)
    name = plan.output.format.suffix.removeprefix(".")
    for keys, some, files in zip(failed, partly, shards, strict=True):
        yield Earlier(files, name, [list(one) for one in keys], some, bool(changed))


def _failed(plan: Plan, run: dict[str, Any], by_line: bool) -> list[list[dict[int, int]]]:
    """For each piece of each split how many models failed on the record with a key."""
    parts = _parts(plan)
    measured = set[str]()
    found: list[list[dict[int, int]]] = [[{} for _ in split.pieces] for split in plan.splits]
    for path in Run.of(run).errors:
        with storage.open_read(path) as handle:
            for line in handle:
                said = orjson.loads(line)
                name = said["source"]
                there = parts.get(name, [])
                if len(there) > 1 and name not in measured:
                    measured.add(name)
                    if "offset" not in said:
                        there = parts[name] = _with_rows(there)
                    elif by_line:
                        there = parts[name] = _with_lines(there)
                part = _part_of(said, there, by_line)
                if part is None:
                    raise RequestError(
                        f"retry {plan.output.path}: {path} names a record of {name} that is not in "
                        f"the inputs. Run the job again with --overwrite."
                    )
                key = key_of(said, by_line)
                if "offset" not in said:
                    key -= part.rows
                elif by_line:
                    key -= part.lines
                keys = found[part.split][part.number]
                keys[key] = keys.get(key, 0) + 1
    return found


_Files = list[tuple[str, int, int | None]]


def _shards_as_they_are(plan: Plan, run: dict[str, Any]) -> Iterator[_Files]:
    """The files that hold the rows of each split, as the run has written them."""
    output = plan.output
    if run["status"] != "succeeded":
        yield from ([] for _ in plan.splits)
        return
    rows = run.get("rows")
    groups = sum(split.part == 0 for split in plan.splits)
    group, skip = -1, 0
    for split in plan.splits:
        if split.part == 0 and not (output.single and group >= 0):
            group, skip = group + 1, 0
        path = output.path if output.single else output.shard("predictions", group, groups)
        if rows is None:
            yield [(path, 0, None)]
            continue
        yield [(path, skip, rows[split.index])]
        skip += rows[split.index]


def _shards(
    plan: Plan,
    run: dict[str, Any],
    failed: list[list[dict[int, int]]],
    partly: list[list[list[int]]],
) -> Iterator[_Files]:
    """The same for inputs that have changed, of which as many records are counted as there were.

    Raises:
        RequestError: there are not as many.
    """
    needed = []
    records = 0
    for split, keys, some in zip(plan.splits, failed, partly, strict=True):
        there = sum(_count(piece) for piece in split.pieces)
        records += there
        needed.append(there - sum(map(len, keys)) + sum(map(len, some)))
    counted = [(path, _rows(path, plan.output.format)) for path in Run.of(run).shards]
    if records != run["counts"]["read"] or sum(needed) != sum(rows for _, rows in counted):
        raise RequestError(
            f"retry {plan.output.path}: the inputs have {count(records, 'record')} now, and had "
            f"{run['counts']['read']:,} in the run, so the places of the records are not known. "
            f"Records may be repaired where they stand, but none added, taken away or moved. Run "
            f"the job again with --overwrite."
        )
    files = iter(counted)
    path, left, skip = "", 0, 0
    for number in needed:
        made: _Files = []
        while number > 0:
            if not left:
                (path, left), skip = next(files), 0
                continue
            some_rows = min(number, left)
            made.append((path, skip, some_rows))
            number, left, skip = number - some_rows, left - some_rows, skip + some_rows
        yield made


def _count(piece: Piece) -> int:
    return formats.find(piece.format, piece.reading).count(piece, _ALL)


def _rows(path: str, kind: formats.Format) -> int:
    """How many rows a file of the output has."""
    told = Reading(",", "utf-8", None) if kind.name == "csv" else AS_IT_SAYS
    info = storage.stat(path)
    splits, _ = source_of(path).plan([info], _ALL, input_format=kind, earlier=None, reading=told)
    return sum(_count(piece) for split in splits for piece in split.pieces)


def _parts(plan: Plan) -> dict[str, list[_Part]]:
    """The pieces of each file, by its name in error lines."""
    found: dict[str, list[_Part]] = {}
    for split in plan.splits:
        for number, piece in enumerate(split.pieces):
            found.setdefault(as_utf8(piece.path), []).append(_Part(split.index, number, piece))
    return found


def _with_rows(parts: list[_Part]) -> list[_Part]:
    """The same with how many rows of the file come before each, as rows are numbered by files."""
    before, made = 0, []
    for part in parts:
        made.append(part._replace(rows=before))
        before += _count(part.piece)
    return made


def _with_lines(parts: list[_Part]) -> list[_Part]:
    """The same with how many lines of the file begin before each."""
    made = []
    with storage.open_read(parts[0].piece.path) as handle:
        at = ends = 0
        for part in parts:
            last = max(part.piece.start - 1, 0)  # the byte before its first, which may end a line
            while at < last:
                block = handle.read(min(last - at, _BLOCK))
                if not block:
                    break
                at, ends = at + len(block), ends + block.count(b"\n")
            made.append(part._replace(lines=ends + (part.piece.start > 0)))
    return made


def _part_of(said: dict[str, Any], parts: Sequence[_Part], by_line: bool) -> _Part | None:
    """The piece that a failed record is in."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    place = key_of(said, by_line)
    found = None
    for part in parts:
        if "offset" not in said:
            there = part.rows < place
        else:
            there = part.lines < place if by_line else part.piece.start <= place
        if there:
            found = part
    return found
