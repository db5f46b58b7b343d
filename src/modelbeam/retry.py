"""``modelbeam retry``: the failed records of a finished run again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import orjson

from modelbeam import formats, storage
from modelbeam.errors import RequestError
from modelbeam.job.again import Earlier, key_of
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Plan, Watcher, make_plan
from modelbeam.job.result import Run
from modelbeam.run import run_job
from modelbeam.sinks.files.output import Output
from modelbeam.text import as_utf8

_ALL = 1 << 62


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
    if len(job.models) > 1:
        raise RequestError(
            f"retry {path}: the run has several models, of which a record may have failed in one "
            f"only. Run it again with --overwrite."
        )
    if job.shards is not None:
        raise RequestError(
            f"retry {path}: the run put several splits into a shard (--shards {job.shards}), so "
            f"the places of its records are not known. Run it again with --overwrite."
        )
    storage.configure(job.beam_options)
    if not run["counts"]["failed"]:
        return Run.of({**run, "already_finished": True})
    plan = make_plan(job)
    _check_inputs(plan, run)
    again = _places(plan.output)
    try:
        storage.make_directory(again)
        for split, earlier in zip(plan.splits, _earlier(plan, run), strict=True):
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


def _check_inputs(plan: Plan, run: dict[str, Any]) -> None:
    before = {info[0]: info[1:] for info in run["job"]["inputs"]}
    now = {info.path: [info.size, info.mtime_ns] for info in plan.inputs}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            how = (
                "is gone" if name not in now else "is new" if name not in before else "has changed"
            )
            raise RequestError(
                f"retry {plan.output.path}: the input {name} {how} since the run, so the places of "
                f"its records are not known. Run the job again with --overwrite."
            )
    if len(plan.splits) != run["splits"]:
        raise RequestError(
            f"retry {plan.output.path}: the inputs are cut otherwise than in the run, by another "
            f"version. Run the job again with --overwrite."
        )


def _places(output: Output) -> str:
    return output.state.removesuffix("_modelbeam") + "_retry"


class _Part(NamedTuple):
    """A piece of a file: where it is in the plan, and which of the file's records are in it."""

    split: int
    piece: int
    start: int
    end: int | None
    before: int


def _earlier(plan: Plan, run: dict[str, Any]) -> Iterator[Earlier]:
    """What the run made of each split of the plan."""
    output = plan.output
    parts, counted = _parts(plan), set[str]()
    failed: list[list[list[int]]] = [[[] for _ in split.pieces] for split in plan.splits]
    for path in Run.of(run).errors:
        with storage.open_read(path) as handle:
            for line in handle:
                said = orjson.loads(line)
                there = parts.get(said["source"], [])
                if "offset" not in said and len(there) > 1 and said["source"] not in counted:
                    there = parts[said["source"]] = _with_rows(plan, there)
                    counted.add(said["source"])
                part = _part_of(said, there)
                if part is None:
                    raise RequestError(
                        f"retry {output.path}: {path} names a record of {said['source']} that is "
                        f"not in the inputs. Run the job again with --overwrite."
                    )
                failed[part.split][part.piece].append(
                    key_of(said) - (0 if "offset" in said else part.before)
                )
    succeeded = run["status"] == "succeeded"
    skip = 0
    for index, keys in enumerate(failed):
        shard = output.path if output.single else output.shard("predictions", index, len(failed))
        rows = run["rows"][index] if output.single else None
        name = output.format.suffix.removeprefix(".")
        yield Earlier(shard if succeeded else None, name, skip, rows, keys)
        skip += rows or 0


def _parts(plan: Plan) -> dict[str, list[_Part]]:
    """The pieces of each file, by its name in error lines."""
    found: dict[str, list[_Part]] = {}
    for split in plan.splits:
        for number, piece in enumerate(split.pieces):
            made = found.setdefault(as_utf8(piece.path), [])
            made.append(_Part(split.index, number, piece.start, piece.end, 0))
    return found


def _with_rows(plan: Plan, parts: list[_Part]) -> list[_Part]:
    """The same with how many rows of the file come before each, as rows are numbered by files."""
    before, made = 0, []
    for part in parts:
        made.append(part._replace(before=before))
        piece = plan.splits[part.split].pieces[part.piece]
        before += formats.find(piece.format, piece.reading).count(piece, _ALL)
    return made


def _part_of(said: dict[str, Any], parts: Sequence[_Part]) -> _Part | None:
    """The piece that a failed record is in."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    by_bytes = "offset" in said
    place = key_of(said)
    found = None
    for part in parts:
        if (part.start <= place) if by_bytes else (part.before < place):
            found = part
    return found
