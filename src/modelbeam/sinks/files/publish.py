"""Publishing: from manifests to the output that a user sees, and the description of the run.

What must be written is written first, under names that nobody else uses. Then ``publish.json``
freezes which attempts become which files: it is created once, and whoever comes second takes what
is there. After that there are only steps that may be repeated, by a process that goes on after a
crash or by two at once:

1. If ``run.json`` is not this run's, it and ``_SUCCESS`` are removed: they must not stand by new
   predictions.
2. The files are renamed into place. Where renaming would be copying (object stores) they are
   copied, many at a time, and stay in the state until the end: so copying them twice is harmless.
   ``run.json`` is the last of them.
3. What an earlier run published, and this one did not, is removed.
4. ``_SUCCESS`` is written, and the state removed.

If a step fails, what was there before is put back as long as no file of it was replaced. Otherwise
the output is left in between, without ``_SUCCESS``, and the error says so; the same steps again
finish it.

A process to which a file is gone, or ``publish.json``, looks whether another one has published the
run. See :mod:`.commit` for the state.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import orjson

from modelbeam import formats, storage
from modelbeam._version import RUN_SCHEMA, __version__
from modelbeam.errors import OutputWriteError, ReconciliationError, TooManyErrorsError
from modelbeam.predicting.counts import Counts
from modelbeam.profile.wants import Wants
from modelbeam.report.page import drawn
from modelbeam.sinks.files.manifest import Written, find_manifests, to_json
from modelbeam.sinks.files.output import Output, remove_state
from modelbeam.sinks.files.state import JobRecord
from modelbeam.sources.splits import Split
from modelbeam.storage import join
from modelbeam.text import as_utf8

SHARDS_AT_ONCE = 4
"""How many shards are put together at once; each may ask the store for several things at once."""

_SOFTWARE = ("apache-beam", "numpy", "orjson", "polars", "pyarrow", "pydantic")


@dataclass(frozen=True, slots=True)
class Publication:
    """All that publishing needs besides the manifests; plain data.

    Attributes:
        output: where to.
        record: what the job is.
        models: each model's own description.
        max_errors: ``N`` or ``P%``, or ``None`` for no limit.
        runner: the name of Beam's runner.
        workers: how many, and of which kind.
        started: seconds since the epoch.
        resumed: how many splits were done before this run.
        notes: what a person should know: files that were left out, columns that come late.
        crashes: for each death of a process that held the model how it ended, its peak memory in
            bytes, where the work was, and how many records were found to have caused it.
        request: what describes the job to ``modelbeam retry``.
        report: whether the run gets a page.
        profile: what was collected for the report, if anything was.
        route: the column that sends each record to one of several models, if one does.
    """

    output: Output
    record: JobRecord
    models: tuple[dict[str, Any], ...]
    max_errors: str | None
    runner: str
    workers: str
    started: float
    resumed: int
    notes: tuple[str, ...] = ()
    crashes: tuple[dict[str, Any], ...] = ()
    request: dict[str, Any] | None = None
    report: bool = True
    profile: Wants | None = None
    route: str | None = None


def publish(publication: Publication, splits: Sequence[Split]) -> dict[str, Any]:
    """Publish the job whose splits are all committed; may be repeated until it succeeds.

    Returns:
        The description of the run, as in ``run.json``.

    Raises:
        ReconciliationError: a split has no manifest, or the counts do not add up.
        TooManyErrorsError: more records failed than was allowed; nothing is published.
        OutputWriteError: the output cannot be written: it is as it was before, or in between, which
            the message says; publishing again finishes it.
    """
    output = publication.output
    with _writing(output):
        frozen = _frozen(output)
        if frozen is None:
            try:
                frozen = _freeze(publication, splits)
            except (ReconciliationError, OutputWriteError, OSError):
                # perhaps another process has just published it, and removes the state
                published = _published(publication)
                frozen = None if published else _frozen(output)
                if published is not None:
                    return published
                if frozen is None:
                    raise
        if frozen["fingerprint"] != publication.record.fingerprint:
            raise OutputWriteError(
                f"The output {output.path} is being written by another modelbeam job with other "
                f"settings. Nothing of this one was published. Wait for the other to end, then "
                f"run again with --overwrite."
            )
        return _finish(output, frozen)


def is_frozen(output: Output) -> bool:
    """Whether an earlier run got as far as publishing; then only :func:`finish` is left to do."""
    return storage.exists(join(output.state, "publish.json"))


def is_published(publication: Publication) -> bool:
    """Whether this very run is published already, state and all."""
    return _published(publication) is not None


def _published(publication: Publication) -> dict[str, Any] | None:
    """The description of this very run, if it is in place.

    Its inputs are compared unless the publication has none, as an engine's worker is told of none.
    """
    run = _visible_run(publication.output)
    if run is None or run.get("started") != _time(publication.started):
        return None
    theirs = run.get("job", {})
    ours = json.loads(to_json(publication.record.to_dict()))
    if not ours["inputs"]:
        del ours["inputs"]
    return run if all(theirs.get(key) == value for key, value in ours.items()) else None


def _same_run(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two descriptions are of the same run; its publishers end at different times."""
    return one is not None and all(one.get(key) == other[key] for key in ("job", "started"))


def _visible_run(output: Output) -> dict[str, Any] | None:
    """What ``run.json`` says, if it is there and says something."""
    try:
        run = json.loads(storage.read_if_there(output.run_file) or b"null")
    except ValueError:
        return None
    return run if isinstance(run, dict) else None


def finish(output: Output) -> dict[str, Any]:
    """Finish a publish that was interrupted, and return the description of that run."""
    with _writing(output):
        frozen = _frozen(output)
        if frozen is not None:
            return _finish(output, frozen)
        run = _visible_run(output)  # another process has just finished it
        if run is None:
            raise _taken_over(output)
        return run


def _frozen(output: Output) -> dict[str, Any] | None:
    content = storage.read_if_there(join(output.state, "publish.json"))
    frozen: dict[str, Any] | None = json.loads(content) if content is not None else None
    return frozen


def _freeze(publication: Publication, splits: Sequence[Split]) -> dict[str, Any]:
    """Write what must be written, and decide what becomes what, unless another has decided."""
    output = publication.output
    number = os.urandom(6).hex()
    ready = join(output.state, "ready", number)
    frozen_file, job_file = (join(output.state, name) for name in ("publish.json", "job.json"))
    try:
        begun = storage.read_if_there(job_file)
        prepared = _prepare(publication, splits, ready)
        content = to_json({"id": number, "fingerprint": publication.record.fingerprint, **prepared})
        there = storage.write_once(frozen_file, content)
        if begun is None or storage.read_if_there(job_file) != begun:
            # the run was published, or another begun, while we prepared
            if there == content:
                storage.remove([frozen_file])
            raise _taken_over(output)
    except BaseException:
        with suppress(OSError):
            storage.remove_tree(ready)
        raise
    frozen: dict[str, Any] = json.loads(there)
    return frozen


def _taken_over(output: Output) -> OutputWriteError:
    return OutputWriteError(
        f"The output {output.path} was taken over by another modelbeam job, or its state was "
        f"removed, so this one was not published. Run again with --overwrite."
    )


@contextmanager
def _writing(output: Output) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputWriteError(
            f"The output {output.path} cannot be published: {error.strerror or error} "
            f"({error.filename or output.state}). Nothing was published, and what was there before "
            f"is as it was. Make room or fix it, then run the same command with --resume."
        ) from error


class _Shard(NamedTuple):
    """What publishing needs of a manifest; a job may have a hundred thousand of them."""

    predictions: Written
    errors: Written | None
    profile: Written | None
    source: str
    first_line: int
    part: int
    rows: int


def _prepare(publication: Publication, splits: Sequence[Split], ready: str) -> dict[str, Any]:
    """Add up the manifests and write what is to be published beside what the attempts wrote.

    Returns:
        ``moves``, each a file in the state, the name it gets, and its size; ``run.json`` is the
        last. And ``run``, which it holds.
    """
    output, record = publication.output, publication.record
    shards: list[_Shard] = []
    counts = Counts()
    units: dict[str, int] = {}
    found = find_manifests(output.state, splits, record.fingerprint)
    for split, manifest in zip(splits, found, strict=True):
        if manifest is None:
            raise ReconciliationError(
                f"{output.path}: split {split.index} ({split.place}) has "
                f"no manifest, so nothing was published. Run the same command with --resume."
            )
        path, first = split.pieces[0].path, 0
        if len(split.pieces) == 1:  # others are whole files, whose numbers are right
            first = units.get(path, 0)
            units[path] = first + manifest.units
        made = manifest.predictions, manifest.errors, manifest.profile
        shards.append(_Shard(*made, path, first, split.part, manifest.counts.predicted))
        counts.add(manifest.counts, first)
    if counts.read != counts.predicted + counts.failed:
        raise ReconciliationError(
            f"{output.path}: {counts.read} records read, {counts.predicted} predicted, "
            f"{counts.failed} failed. This is a defect of modelbeam; nothing was published."
        )
    check_max_errors(publication.max_errors, counts, output)
    storage.make_directory(ready)
    succeeded = counts.predicted > 0
    gather = _single_moves if output.single else _shard_moves
    moves = gather(output, shards, ready, succeeded)
    targets = [output.file(name) for _, name, _ in moves]
    run = describe_run(publication, splits, counts, targets, succeeded)
    if output.single or any(shard.part for shard in shards):
        run["rows"] = [shard.rows for shard in shards]
    profile = _profile(publication, shards)
    if profile is not None:
        path = join(ready, "profile.json")
        storage.write_atomically(path, profile)
        name = output.name_of(output.profile_file)
        moves.append((_inside(output, path), name, len(profile)))
    if publication.report:
        moves += _page(output, run, ready, profile)
    content = to_json(run, indent=2)
    storage.write_atomically(join(ready, "run.json"), content)
    last = (_inside(output, join(ready, "run.json")), output.name_of(output.run_file), len(content))
    return {"moves": [*moves, last], "run": run}


def _page(output: Output, run: dict[str, Any], ready: str, profile: bytes | None) -> list[Move]:
    """Draw the page of the run, and name it in the run's description."""
    page = drawn(run, orjson.loads(profile) if profile is not None else None)
    if page is None:
        return []
    made = join(ready, "report.html")
    storage.write_atomically(made, page)
    run["report"] = output.report_file
    return [(_inside(output, made), output.name_of(output.report_file), len(page))]


def _profile(publication: Publication, shards: Sequence[_Shard]) -> bytes | None:
    """What was collected of all splits, as ``profile.json`` holds it; never a reason to fail."""
    wants = publication.profile
    if wants is None:
        return None
    attempts = join(publication.output.state, "attempts")

    def read(shard: _Shard) -> bytes | None:
        with suppress(OSError):
            if shard.profile is not None:
                return storage.read_bytes(join(attempts, shard.profile.name))
        return None

    try:
        from modelbeam.profile.merge import Merged

        merged = Merged(wants)
        read_ahead = storage.in_parallel(read, shards, publication.output.state)
        for index, (shard, content) in enumerate(zip(shards, read_ahead, strict=True)):
            merged.add(index, content, shard.first_line)
        made = merged.to_dict(publication.started, time.time(), publication.route)
        return orjson.dumps(made)
    except Exception:  # whatever it is, the predictions are worth more
        return None


Move = tuple[str, str, int]
"""A file by its place in the state, the name that it gets, and its size in bytes."""


def _inside(output: Output, path: str) -> str:
    return path[len(join(output.state, "")) :]


def allowed_errors(limit: str, read: int) -> float:
    """How many records may fail, of so many read, by a limit of ``N`` or ``P%``."""
    return float(limit[:-1]) / 100 * read if limit.endswith("%") else float(limit)


def check_max_errors(limit: str | None, counts: Counts, output: Output) -> None:
    """Raise :class:`TooManyErrorsError` if more records failed than ``N`` or ``P%``."""
    if limit is None:
        return
    failed, read = counts.most_failed, counts.read
    if failed > allowed_errors(limit, read):
        examples = "; ".join(f"{kind.at} {kind.type}: {kind.error}" for kind in counts.kinds[:3])
        raise TooManyErrorsError(
            f"{failed} of {read} records failed, more than --max-errors {limit}. "
            f"The first: {examples}. Nothing was published; the error lines are in "
            f"{output.error_lines}. Fix the data and use --overwrite, or allow more with --resume "
            f"--max-errors N."
        )


def _shard_moves(output: Output, shards: list[_Shard], ready: str, succeeded: bool) -> list[Move]:
    """Each shard's files; those of several splits are made of what these wrote."""
    errors = iter(_numbered_errors(output, shards, ready))
    predicted = join(output.state, "attempts")
    groups: list[_Group] = []
    for shard in shards:
        if shard.part == 0:
            groups.append(([], []))
        if succeeded:
            file = shard.predictions
            groups[-1][0].append((join(predicted, file.name), file.bytes))
        if shard.errors is not None:
            groups[-1][1].append(next(errors))

    def moves_of(index: int) -> list[Move]:
        return [
            _gathered(output, files, kind, join(ready, f"{index:05d}"), target)
            for kind, files in zip(("predictions", "errors"), groups[index], strict=True)
            for target in [output.shard(kind, index, len(groups))]
            if files
        ]

    made = storage.in_parallel(moves_of, range(len(groups)), output.state, SHARDS_AT_ONCE)
    return [move for moves in made for move in moves]


_Group = tuple[list[tuple[str, int]], list[tuple[str, int]]]
"""The files of a shard, path and size: predictions, and errors."""


def _single_moves(output: Output, shards: list[_Shard], ready: str, succeeded: bool) -> list[Move]:
    moves = []
    errors = _numbered_errors(output, shards, ready)
    if errors:
        moves.append(_gathered(output, errors, "errors", join(ready, "0"), output.errors_file))
    if succeeded:
        attempts = join(output.state, "attempts")
        predictions = [(join(attempts, s.predictions.name), s.predictions.bytes) for s in shards]
        moves.append(_gathered(output, predictions, "predictions", join(ready, "0"), output.path))
    return moves


def _gathered(
    output: Output, files: list[tuple[str, int]], kind: str, made: str, target: str
) -> Move:
    """What becomes one file of the output: the only one, or one that is made of all of them.

    Args:
        output: which it is.
        files: path and size.
        kind: ``predictions`` or ``errors``.
        made: the path of one that is made, without a suffix.
        target: what it becomes.
    """
    name = output.name_of(target)
    if len(files) == 1:
        ((path, size),) = files
        return _inside(output, path), name, size
    if kind == "errors":
        made += ".errors.jsonl"
        storage.concatenate(files, made)
    else:
        made += output.format.suffix
        formats.find(output.format.name).join(files, made)
    return _inside(output, made), name, storage.stat(made).size


def _numbered_errors(output: Output, shards: list[_Shard], ready: str) -> list[tuple[str, int]]:
    """The error files in order, path and size, with the line numbers of the whole input files."""

    def numbered(shard: _Shard) -> tuple[str, int]:
        errors = cast(Written, shard.errors)
        path = join(output.state, "attempts", errors.name)
        if shard.first_line == 0:
            return path, errors.bytes
        target = join(ready, errors.name)
        with storage.create(target) as handle:
            _renumber(path, handle, shard.source, shard.first_line)
            return target, handle.tell()

    failed = (shard for shard in shards if shard.errors is not None)
    return list(storage.in_parallel(numbered, failed, output.state))


def _renumber(source: str, target: Any, path: str, first: int) -> None:
    """Copy a split's error lines with the line numbers of the whole file.

    Every line starts with the same bytes up to the number, so it is found without parsing.
    """
    prefixes = [
        orjson.dumps({"source": as_utf8(path), number: 0})[: -len(b"0}")]
        for number in ("line", "row")
    ]
    rest = b""
    with storage.open_read(source) as handle:
        while chunk := handle.read(1 << 20):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            out = []
            for line in lines:
                prefix = next(filter(line.startswith, prefixes), None)
                if prefix is None:
                    raise ReconciliationError(f"{source} is damaged; run again with --overwrite.")
                at = len(prefix)
                comma = line.index(b",", at)
                out.append(b"%s%d%s\n" % (prefix, int(line[at:comma]) + first, line[comma:]))
            target.write(b"".join(out))


def describe_run(
    publication: Publication,
    splits: Sequence[Split],
    counts: Counts,
    files: list[str],
    succeeded: bool,
) -> dict[str, Any]:
    """What ``run.json`` holds; no option's value that could be a secret is in it."""
    finished = time.time()
    seconds = finished - publication.started
    return {
        "schema": RUN_SCHEMA,
        "modelbeam": __version__,
        "status": "succeeded" if succeeded else "failed",
        "models": [{**one, **_calls(one, counts)} for one in publication.models],
        "output": publication.output.path,
        "files": files,
        "counts": {
            "read": counts.read,
            "predicted": counts.predicted,
            "failed": counts.failed,
            **(
                {"models": {name: asdict(tally) for name, tally in counts.models.items()}}
                if counts.models
                else {}
            ),
        },
        "failures": [kind.to_dict() for kind in counts.kinds],
        "notes": list(publication.notes),
        "recovered": counts.recovered,
        "crashes": list(publication.crashes),
        "splits": len(splits),
        "splits_resumed": publication.resumed,
        "bytes_read": sum(split.bytes for split in splits),
        "started": _time(publication.started),
        "finished": _time(finished),
        "seconds": round(seconds, 3),
        "records_per_second": round(counts.read / seconds) if seconds > 0 else 0,
        "runner": publication.runner,
        "workers": publication.workers,
        "software": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _SOFTWARE},
        },
        "job": publication.record.to_dict(),
        "request": publication.request,
    }


def _calls(model: Mapping[str, Any], counts: Counts) -> dict[str, int]:
    """How many records a model was given at once, if it takes many."""
    calls = counts.calls.get(model.get("name", ""))
    return {} if calls is None else {"batch_size": calls.largest, "halved": calls.halved}


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _finish(output: Output, frozen: dict[str, Any]) -> dict[str, Any]:
    run: dict[str, Any] = frozen["run"]
    moves = [
        (join(output.state, source), output.file(name), n) for source, name, n in frozen["moves"]
    ]
    stale = _stale_marks(output, run)
    if stale and not _is_still(output, frozen):
        return _done_by_another(output, run, removed=False)
    marks = {path: storage.read_if_there(path) for path in stale}
    there = output.published()
    targets = {target for _, target, _ in moves}
    place = _copy_all if storage.keeps_sources(output.state) else _rename_all
    placed = False
    try:
        storage.remove(stale)
        place(moves, set(there))
        placed = True
        if _is_still(output, frozen):
            storage.remove([path for path in there if path not in targets and path not in marks])
            if run["status"] == "succeeded" and not output.single:
                storage.write_atomically(output.success_file, b"")
            with suppress(OSError):  # all is published; a rest of the state does no harm
                remove_state(output)
            return run
    except _GoneError as error:
        if _is_still(output, frozen):
            raise ReconciliationError(
                f"{error} is gone before it was published; run again with --overwrite."
            ) from None
    except (OSError, _BetweenError) as error:
        if _is_still(output, frozen):
            between = placed or isinstance(error, _BetweenError)
            if not between and _put_back(marks):
                raise  # the output is as it was
            raise _in_between(output, error) from error
    return _done_by_another(output, run, bool(stale))


def _put_back(marks: dict[str, bytes | None]) -> bool:
    """Write the marks of an earlier run again, whose files are all there; say whether they are."""
    try:
        for path, content in marks.items():
            if content is not None:
                storage.write_atomically(path, content)
    except OSError:
        return False
    return True


def _in_between(output: Output, error: Exception) -> OutputWriteError:
    cause = error.__cause__ if isinstance(error, _BetweenError) else error
    text, file = str(cause), output.path
    if isinstance(cause, OSError):
        text, file = cause.strerror or text, cause.filename or file
    missing = output.name_of(output.run_file if output.single else output.success_file)
    return OutputWriteError(
        f"The output {output.path} is published in part: {text} ({file}). Files of this run stand "
        f"where those of an earlier one may have been, without {missing}. Make room or fix it, "
        f"then run the same command with --resume, which finishes it."
    )


def _stale_marks(output: Output, run: dict[str, Any]) -> list[str]:
    """What says that an earlier run is complete, which must not stand by new predictions.

    What is not there is not removed: should another process have published this run by the time
    the request is carried out, its marks would be gone.
    """
    visible = _visible_run(output)
    if _same_run(visible, run):
        return []
    marks = [output.run_file] if visible is not None else []
    if not output.single:
        with suppress(FileNotFoundError):
            marks.append(storage.stat(output.success_file).path)
    return marks


class _GoneError(Exception):
    """A file that was to be published is neither where it was nor where it should be."""


def _is_still(output: Output, frozen: dict[str, Any]) -> bool:
    now = _frozen(output)
    return now is not None and now["id"] == frozen["id"]


def _done_by_another(output: Output, run: dict[str, Any], removed: bool) -> dict[str, Any]:
    """Another process has published the run and removed its state while we published it as well.

    Where we ``removed`` marks of an earlier run, they may have been its: then they are put back.
    """
    visible = _visible_run(output)
    repaired = removed and not storage.exists(join(output.state, "job.json"))
    if not _same_run(visible, run) and not (visible is None and repaired):
        raise _taken_over(output)
    if repaired:
        storage.write_once(output.run_file, to_json(run, indent=2))
        if run["status"] == "succeeded" and not output.single:
            storage.write_once(output.success_file, b"")
    return visible or run


class _BetweenError(Exception):
    """Some files were put into place, and not all could be; the cause says why."""


def _copy_all(moves: list[tuple[str, str, int]], there: set[str]) -> None:
    """Copy the files, the last one by itself when all others are there."""

    def copy(move: tuple[str, str, int]) -> None:
        source, target, size = move
        try:
            storage.copy(source, target, size)
        except FileNotFoundError:
            raise _GoneError(source) from None

    try:
        for some in (moves[:-1], moves[-1:]):
            for _ in storage.in_parallel(copy, some, moves[0][0]):
                pass
    except OSError as error:
        if there:
            raise _BetweenError from error  # which of them were replaced is not known
        raise


def _rename_all(moves: list[tuple[str, str, int]], there: set[str]) -> None:
    """Rename the files in their order; if that fails and none was replaced, rename them back."""
    moved: list[tuple[str, str]] = []
    replaced = False
    try:
        for source, target, _ in moves:
            try:
                storage.replace(source, target)
                moved.append((source, target))
                replaced = replaced or target in there
            except FileNotFoundError:
                if not storage.exists(target):
                    raise _GoneError(source) from None
                replaced = True  # an attempt before this one did it, and left it
    except OSError as error:
        if not replaced and _renamed_back(moved):
            raise
        raise _BetweenError from error


def _renamed_back(moved: list[tuple[str, str]]) -> bool:
    try:
        for source, target in reversed(moved):
            storage.replace(target, source)
    except OSError:
        return False
    return True
