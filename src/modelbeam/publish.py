"""Publishing: from manifests to the output that a user sees, and the description of the run.

What must be written is written first; then ``publish.json`` freezes which attempts become which
files; after that there are only renames, which a crashed publish repeats. See :mod:`.commit`.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from modelbeam import storage
from modelbeam._version import __version__
from modelbeam.commit import (
    Counts,
    JobRecord,
    Manifest,
    Output,
    find_manifest,
    remove_state,
    to_json,
)
from modelbeam.errors import OutputWriteError, ReconciliationError, TooManyErrorsError
from modelbeam.failures import as_utf8
from modelbeam.plan import Split
from modelbeam.storage import join

_SOFTWARE = ("apache-beam", "numpy", "orjson", "polars", "pyarrow", "pydantic")


@dataclass(frozen=True, slots=True)
class Publication:
    """All that publishing needs besides the manifests; plain data.

    Attributes:
        output: where to.
        record: what the job is.
        model: the model's own description.
        max_errors: ``N`` or ``P%``, or ``None`` for no limit.
        runner: the name of Beam's runner.
        workers: how many, and of which kind.
        started: seconds since the epoch.
        resumed: how many splits were done before this run.
    """

    output: Output
    record: JobRecord
    model: dict[str, Any]
    max_errors: str | None
    runner: str
    workers: str
    started: float
    resumed: int


def publish(publication: Publication, splits: list[Split]) -> dict[str, Any]:
    """Publish the job whose splits are all committed; may be repeated until it succeeds.

    Returns:
        The description of the run, as in ``run.json``.

    Raises:
        ReconciliationError: a split has no manifest, or the counts do not add up.
        TooManyErrorsError: more records failed than was allowed; nothing is published.
        OutputWriteError: the output cannot be written; nothing is half-published.
    """
    output = publication.output
    with _writing(output):
        frozen = join(output.state, "publish.json")
        if not storage.exists(frozen):
            storage.write_atomically(frozen, to_json(_prepare(publication, splits)))
        return _finish(output)


def is_frozen(output: Output) -> bool:
    """Whether an earlier run got as far as publishing; then only :func:`finish` is left to do."""
    return storage.exists(join(output.state, "publish.json"))


def is_published(publication: Publication) -> bool:
    """Whether this very run is published already, state and all."""
    path = publication.output.run_file
    if not storage.exists(path):
        return False
    run = json.loads(storage.read_bytes(path))
    return bool(
        run.get("job") == json.loads(to_json(publication.record.to_dict()))
        and run.get("started") == _time(publication.started)
    )


def finish(output: Output) -> dict[str, Any]:
    """Finish a publish that was interrupted, and return the description of that run."""
    with _writing(output):
        return _finish(output)


@contextmanager
def _writing(output: Output) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputWriteError(
            f"The output {output.path} cannot be published: {error.strerror or error} "
            f"({error.filename or output.state}). Nothing was half-published. Make room or mend "
            f"it, then run the same command with --resume."
        ) from error


def _prepare(publication: Publication, splits: list[Split]) -> dict[str, Any]:
    output, record = publication.output, publication.record
    manifests = []
    for split in splits:
        manifest = find_manifest(output.state, split, record.fingerprint)
        if manifest is None:
            raise ReconciliationError(
                f"{output.path}: split {split.index} ({split.path} from byte {split.start}) has "
                f"no manifest, so nothing was published. Run the same command with --resume."
            )
        manifests.append(manifest)
    first_lines = _first_lines(splits, manifests)
    counts = Counts()
    for manifest, first in zip(manifests, first_lines, strict=True):
        counts.add(manifest.counts, first)
    if counts.read != counts.predicted + counts.failed:
        raise ReconciliationError(
            f"{output.path}: {counts.read} records read, {counts.predicted} predicted, "
            f"{counts.failed} failed. This is a defect of modelbeam; nothing was published."
        )
    check_max_errors(publication.max_errors, counts)
    storage.remove_tree(join(output.state, "ready"))
    storage.make_directory(join(output.state, "ready"))
    succeeded = counts.predicted > 0 or counts.read == 0
    gather = _single_moves if output.single else _shard_moves
    moves = gather(output, splits, manifests, first_lines, succeeded)
    targets = [target for _, target in moves]
    run = describe_run(publication, splits, counts, targets, succeeded)
    ready = join(output.state, "ready", "run.json")
    storage.write_atomically(ready, to_json(run, indent=2))
    return {"moves": [*moves, [ready, output.run_file]], "run": run}


def check_max_errors(limit: str | None, counts: Counts) -> None:
    """Raise :class:`TooManyErrorsError` if more records failed than ``N`` or ``P%``."""
    if limit is None:
        return
    share = limit.endswith("%")
    allowed = float(limit[:-1]) / 100 * counts.read if share else float(limit)
    if counts.failed > allowed:
        examples = "; ".join(
            f"{kind.source}:{kind.line} {kind.type}: {kind.error}" for kind in counts.kinds[:3]
        )
        raise TooManyErrorsError(
            f"{counts.failed} of {counts.read} records failed, more than --max-errors {limit}. "
            f"The first: {examples}. Nothing was published; mend the data and use --overwrite, or "
            f"allow more with --resume --max-errors N."
        )


def _first_lines(splits: list[Split], manifests: list[Manifest]) -> list[int]:
    """For each split, how many lines of its file come before it."""
    before: dict[str, int] = {}
    first = []
    for split, manifest in zip(splits, manifests, strict=True):
        first.append(before.get(split.path, 0))
        before[split.path] = first[-1] + manifest.lines
    return first


def _shard_moves(
    output: Output,
    splits: list[Split],
    manifests: list[Manifest],
    first_lines: list[int],
    succeeded: bool,
) -> list[list[str]]:
    moves = []
    for index, (manifest, first) in enumerate(zip(manifests, first_lines, strict=True)):
        if succeeded:
            source = join(output.state, "attempts", manifest.predictions.name)
            moves.append([source, output.shard("predictions", index, len(splits))])
        if manifest.errors is not None:
            source = join(output.state, "attempts", manifest.errors.name)
            if first:
                whole = join(output.state, "ready", manifest.errors.name)
                with storage.create(whole) as handle:
                    _renumber(source, handle, manifest.split.path, first)
                source = whole
            moves.append([source, output.shard("errors", index, len(splits))])
    return moves


def _single_moves(
    output: Output,
    splits: list[Split],  # noqa: ARG001 - the same shape as _shard_moves
    manifests: list[Manifest],
    first_lines: list[int],
    succeeded: bool,
) -> list[list[str]]:
    moves = []
    if any(manifest.errors for manifest in manifests):
        source = join(output.state, "ready", "errors.jsonl")
        with storage.create(source) as handle:
            for manifest, first in zip(manifests, first_lines, strict=True):
                if manifest.errors is not None:
                    name = join(output.state, "attempts", manifest.errors.name)
                    _renumber(name, handle, manifest.split.path, first)
        moves.append([source, output.errors_file])
    if succeeded:
        source = join(output.state, "attempts", manifests[0].predictions.name)
        if len(manifests) > 1:
            source = join(output.state, "ready", "predictions" + output.format.suffix)
            with storage.create(source) as handle:
                for manifest in manifests:
                    name = join(output.state, "attempts", manifest.predictions.name)
                    storage.append_file(handle, name)
        moves.append([source, output.path])
    return moves


def _renumber(source: str, target: Any, path: str, first: int) -> None:
    """Copy a split's error lines with the line numbers of the whole file.

    Every line starts with the same bytes up to the number, so it is found without parsing.
    """
    if first == 0:
        storage.append_file(target, source)
        return
    prefix = orjson.dumps({"source": as_utf8(path), "line": 0})[: -len(b"0}")]
    at = len(prefix)
    rest = b""
    with storage.open_read(source) as handle:
        while chunk := handle.read(1 << 20):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            out = []
            for line in lines:
                if not line.startswith(prefix):
                    raise ReconciliationError(f"{source} is damaged; run again with --overwrite.")
                comma = line.index(b",", at)
                out.append(b"%s%d%s\n" % (prefix, int(line[at:comma]) + first, line[comma:]))
            target.write(b"".join(out))


def describe_run(
    publication: Publication,
    splits: list[Split],
    counts: Counts,
    files: list[str],
    succeeded: bool,
) -> dict[str, Any]:
    """What ``run.json`` holds; no option's value that could be a secret is in it."""
    finished = time.time()
    seconds = finished - publication.started
    return {
        "modelbeam": __version__,
        "status": "succeeded" if succeeded else "failed",
        "models": [publication.model],
        "output": publication.output.path,
        "files": files,
        "counts": {
            "read": counts.read,
            "predicted": counts.predicted,
            "failed": counts.failed,
        },
        "failures": [asdict(kind) for kind in counts.kinds],
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
    }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _finish(output: Output) -> dict[str, Any]:
    frozen = json.loads(storage.read_bytes(join(output.state, "publish.json")))
    run: dict[str, Any] = frozen["run"]
    moves = [(source, target) for source, target in frozen["moves"]]
    targets = {target for _, target in moves}
    old = [path for path in output.published() if path not in targets]
    if not output.single:
        storage.remove([output.success_file])
    if storage.exists(moves[-1][0]):  # the old description must not stand by new predictions
        storage.remove([output.run_file])
    moved: list[tuple[str, str]] = []
    try:
        for source, target in moves:
            if storage.exists(source):
                storage.replace(source, target)
                moved.append((source, target))
            elif not storage.exists(target):
                raise ReconciliationError(
                    f"{source} is gone before it was published; run again with --overwrite."
                )
    except OSError:
        for source, target in reversed(moved):
            storage.replace(target, source)
        raise
    storage.remove(old)
    if not output.single and run["status"] == "succeeded":
        storage.write_atomically(output.success_file, b"")
    remove_state(output)
    return run
