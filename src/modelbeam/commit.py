"""The commit protocol: attempts, manifests, publishing and resuming.

Layout of a job's state directory (``_modelbeam`` in the output directory, or ``NAME._modelbeam``
beside a single output file)::

    job.json                what the job is: model, settings, inputs; resuming compares it
    lock                    held by the running process (local files only)
    attempts/KEY-ID.*       what one attempt at a split wrote; ID is unique to the attempt
    manifests/KEY.json      the commit point of a split: it names the attempt that counts
    publish.json            the commit point of the job: which attempts become which shards
    ready/ID/               files made for publishing (errors with whole-file line numbers, …)

A manifest is put in place atomically and names one attempt, so whichever attempt wrote it last
counts, whole; attempts that crashed or came late leave files that nothing names. Publishing is in
:mod:`.publish`. Each step may be repeated after a crash, and done by two processes at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from modelbeam import compression, storage
from modelbeam.errors import (
    OutputExistsError,
    OutputWriteError,
    ReconciliationError,
    ResumeError,
)
from modelbeam.failures import Failure, Position
from modelbeam.formats import Format, strip_suffix
from modelbeam.plan import Split, plan_splits
from modelbeam.storage import FileInfo, join

EXAMPLES = 20
"""Kinds of failure (stage and type) that a manifest describes one by one."""


def to_json(value: Any, indent: int | None = None) -> bytes:
    """JSON of the job's own files; a path that is not UTF-8 is read back as it was."""
    return json.dumps(value, indent=indent).encode()


@dataclass(slots=True)
class Kind:
    """Failures of one stage and type: how many, and the first of them (position in its split)."""

    stage: str
    type: str
    count: int
    line: int
    offset: int
    error: str
    source: str = ""


@dataclass(slots=True)
class Counts:
    """Records of a split or a job: ``read`` is ``predicted`` plus ``failed``."""

    read: int = 0
    predicted: int = 0
    failed: int = 0
    kinds: list[Kind] = field(default_factory=list)

    def add_failure(self, failure: Failure, position: Position, source: str = "") -> None:
        """Count one failed record."""
        self.failed += 1
        for kind in self.kinds:
            if kind.type == failure.type and kind.stage == failure.stage:
                kind.count += 1
                return
        if len(self.kinds) < EXAMPLES:
            self.kinds.append(
                Kind(failure.stage, failure.type, 1, *position, failure.error, source)
            )

    def add(self, other: Counts, first_line: int) -> None:
        """Add a later split's counts, whose lines are ``first_line`` further down its file."""
        self.read += other.read
        self.predicted += other.predicted
        self.failed += other.failed
        known = {(kind.stage, kind.type): kind for kind in self.kinds}
        for kind in other.kinds:
            mine = known.get((kind.stage, kind.type))
            if mine is not None:
                mine.count += kind.count
            elif len(self.kinds) < EXAMPLES:
                self.kinds.append(Kind(**{**asdict(kind), "line": kind.line + first_line}))


@dataclass(frozen=True, slots=True)
class Written:
    """A file of an attempt: its name in ``attempts/`` and its size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one attempt did with one split; see the module's docstring.

    Attributes:
        split: the split, with its file's size and modification time.
        fingerprint: of the model and the settings.
        predictions: the file of predictions.
        errors: the file of error lines, or ``None`` if there were no failures.
        counts: of records.
        lines: how many lines of the file the split owns, blank ones included.
        seconds: how long the attempt took.
    """

    split: Split
    fingerprint: str
    predictions: Written
    errors: Written | None
    counts: Counts
    lines: int
    seconds: float

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return to_json(asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read what :meth:`to_bytes` made."""
        data = json.loads(content)
        counts = data["counts"]
        counts["kinds"] = [Kind(**kind) for kind in counts["kinds"]]
        return cls(
            split=Split(**data["split"]),
            fingerprint=data["fingerprint"],
            predictions=Written(**data["predictions"]),
            errors=Written(**data["errors"]) if data["errors"] else None,
            counts=Counts(**counts),
            lines=data["lines"],
            seconds=data["seconds"],
        )


class Attempt:
    """One attempt at a split: two files that nobody else writes, then a manifest or nothing."""

    def __init__(self, state: str, split: Split, output: Format) -> None:
        self._state, self._split = state, split
        self._started = time.monotonic()
        base = f"{split.key}-{os.urandom(6).hex()}"
        self._names = {"predictions": base + output.suffix, "errors": base + ".errors.jsonl"}
        self._handles: dict[str, BinaryIO] = {}
        self._streams: dict[str, BinaryIO] = {}
        self._compression = output.compression
        self._newlines = 0

    def write_predictions(self, data: bytes, lines: int) -> None:
        """Append whole lines of predictions; ``lines`` is how many newlines ``data`` has."""
        self._newlines += lines
        self._write("predictions", data)

    def write_errors(self, data: bytes) -> None:
        """Append whole error lines."""
        self._write("errors", data)

    def _write(self, kind: str, data: bytes) -> None:
        stream = self._streams.get(kind) or self._open(kind)
        written = stream.write(data)
        while written is not None and written < len(data):  # an unbuffered file may take a part
            data = data[written:]
            written = stream.write(data)

    def _open(self, kind: str) -> BinaryIO:
        handle = storage.create(join(self._state, "attempts", self._names[kind]))
        self._handles[kind] = self._streams[kind] = handle
        if kind == "predictions" and self._compression:
            self._streams[kind] = compression.compressed(handle, self._compression)
        return self._streams[kind]

    def commit(self, fingerprint: str, counts: Counts, lines: int) -> Manifest:
        """Close the files and put the manifest in place.

        Raises:
            ReconciliationError: the lines written are not as many as were counted.
            OSError: the files cannot be written.
        """
        if counts.read != counts.predicted + counts.failed or self._newlines != counts.predicted:
            raise ReconciliationError(
                f"{self._split.path}: {counts.read} records read, {counts.predicted} predicted "
                f"({self._newlines} lines written), {counts.failed} failed. This is a defect of "
                f"modelbeam; nothing was published. Please report it."
            )
        if "predictions" not in self._streams:
            self._open("predictions")  # a split without predictions is an empty shard
        sizes = {kind: self._close(kind) for kind in list(self._handles)}
        manifest = Manifest(
            split=self._split,
            fingerprint=fingerprint,
            predictions=Written(self._names["predictions"], sizes["predictions"]),
            errors=Written(self._names["errors"], sizes["errors"]) if "errors" in sizes else None,
            counts=counts,
            lines=lines,
            seconds=round(time.monotonic() - self._started, 4),
        )
        path = join(self._state, "manifests", self._split.key + ".json")
        storage.write_atomically(path, manifest.to_bytes())
        return manifest

    def _close(self, kind: str) -> int:
        stream, handle = self._streams.pop(kind), self._handles.pop(kind)
        if stream is not handle:
            stream.close()
        size = handle.tell()
        handle.close()
        return size

    def abandon(self) -> None:
        """Close and remove what was written; nothing names it, so this is only tidiness."""
        paths = [join(self._state, "attempts", name) for name in self._names.values()]
        for kind, handle in self._handles.items():
            with contextlib.suppress(Exception):
                storage.discard(join(self._state, "attempts", self._names[kind]), handle)
        with contextlib.suppress(Exception):
            storage.remove(paths)  # those that were closed already
        self._handles.clear()
        self._streams.clear()


@dataclass(frozen=True, slots=True)
class Output:
    """Where the job writes: one file, or a directory of shards.

    Attributes:
        path: as it was asked for.
        single: whether it is one file.
        format: of the predictions.
    """

    path: str
    single: bool
    format: Format

    @property
    def _base(self) -> str:
        """A single file's path without its data suffix."""
        return strip_suffix(self.path)

    @property
    def state(self) -> str:
        """The state directory."""
        return f"{self._base}._modelbeam" if self.single else join(self.path, "_modelbeam")

    @property
    def run_file(self) -> str:
        """Where the description of the run goes."""
        return f"{self._base}.run.json" if self.single else join(self.path, "run.json")

    @property
    def errors_file(self) -> str:
        """Where a single file's error lines go."""
        return f"{self._base}.errors.jsonl"

    @property
    def success_file(self) -> str:
        """The marker that is written last into an output directory."""
        return join(self.path, "_SUCCESS")

    @property
    def own_files(self) -> list[str]:
        """What a single-file job writes, which its own input patterns must not pick up."""
        return [self.path, self.errors_file, self.run_file] if self.single else []

    def file(self, name: str) -> str:
        """The path of something published, by its name."""
        if not self.single:
            return join(self.path, name)
        folder, slash, _ = self.path.rpartition("/")
        return folder + slash + name

    def name_of(self, path: str) -> str:
        """The name of something published."""
        return path.rpartition("/")[2]

    def shard(self, kind: str, index: int, of: int) -> str:
        """The path of a shard of ``predictions`` or ``errors``."""
        suffix = self.format.suffix if kind == "predictions" else ".jsonl"
        return join(self.path, f"{kind}-{index:05d}-of-{of:05d}{suffix}")

    def published(self) -> list[str]:
        """What an earlier run published here, the marks of success first."""
        if self.single:
            files = [self.run_file, self.path, self.errors_file]
            return [path for path in files if storage.exists(path)]
        names = storage.names_in(self.path)
        marks = [name for name in ("_SUCCESS", "run.json", "report.html") if name in names]
        shards = [name for name in names if _SHARD.fullmatch(name)]
        return [join(self.path, name) for name in marks + shards]

    def unfinished(self) -> bool:
        """Whether there is a run here that was begun and has committed something."""
        begun = storage.has_files(join(self.state, "manifests"), ".json")
        return begun and storage.exists(join(self.state, "job.json"))

    def committed(self) -> int:
        """How many splits an unfinished run has committed here; lists them all."""
        names = storage.names_in(join(self.state, "manifests"))
        return sum(name.endswith(".json") for name in names)


_SHARD = re.compile(r"(predictions|errors)-\d{5,}-of-\d{5,}\.[a-z0-9.]+")


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a job is, as ``job.json`` keeps it so that resuming can compare.

    Attributes:
        settings: by name, everything that the predictions depend on, the model's version included.
        split_size: bytes a split; kept, not compared.
        inputs: the files.
    """

    settings: dict[str, Any]
    split_size: int
    inputs: tuple[FileInfo, ...]

    @property
    def fingerprint(self) -> str:
        """A digest of the settings; each manifest carries it, beside its own file's state."""
        text = json.dumps(self.settings, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return {
            "settings": self.settings,
            "split_size": self.split_size,
            "inputs": [list(info) for info in self.inputs],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobRecord:
        """Read what :meth:`to_dict` made."""
        inputs = tuple(FileInfo(*info) for info in data["inputs"])
        return cls(data["settings"], data["split_size"], inputs)


def begun_record(output: Output) -> JobRecord:
    """What ``job.json`` says of the run that was begun here.

    Raises:
        FileNotFoundError: there is none.
        ValueError, KeyError, TypeError: it is damaged.
    """
    return JobRecord.from_dict(json.loads(storage.read_bytes(join(output.state, "job.json"))))


def check_output(output: Output, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that exists, before anything else is done.

    Raises:
        OutputExistsError: there is an output, or an unfinished run, and neither flag was given; or
            what is to be resumed is no run of modelbeam's.
    """
    with storage.asked_for(f"--output {output.path}"):
        _check_output(output, resume, overwrite)


def _check_output(output: Output, resume: bool, overwrite: bool) -> None:
    unfinished = output.unfinished()
    if overwrite or (resume and (unfinished or storage.exists(output.run_file))):
        return
    if unfinished:
        raise OutputExistsError(
            f"--output {output.path} holds an unfinished run ({output.committed()} splits are "
            f"done). Add --resume to finish it, or --overwrite to start again."
        )
    exists = storage.exists(output.path)
    if output.single and exists:
        raise OutputExistsError(
            f"--output {output.path} exists already. Add --overwrite to replace it, or name "
            f"another file."
        )
    others = [n for n in storage.names_in(output.path) if n != "_modelbeam"] if exists else []
    if others or (exists and not storage.is_directory(output.path)):
        raise OutputExistsError(
            f"--output {output.path} exists already and is not empty. Add --overwrite to replace "
            f"the predictions in it, or name another directory."
        )


def earlier_record(output: Output) -> tuple[JobRecord | None, dict[str, Any] | None]:
    """What an earlier run here was: its unfinished job, and ``run.json`` if it finished."""
    record = run = None
    path = join(output.state, "job.json")
    try:
        if output.unfinished():
            record = begun_record(output)
        elif (content := storage.read_if_there(path := output.run_file)) is not None:
            run = json.loads(content)
            record = JobRecord.from_dict(run["job"])
    except (ValueError, KeyError, TypeError):
        raise ResumeError(
            f"{path} is damaged, or not modelbeam's, so there is nothing to resume. Start again "
            f"with --overwrite, or name another --output."
        ) from None
    return record, run


def check_resumable(output: Output, earlier: JobRecord, now: JobRecord, finished: bool) -> None:
    """Refuse to mix two different jobs.

    An input that changed is no obstacle as long as nothing of it was committed: that is how a
    damaged file is mended.

    Raises:
        ResumeError: the model, a setting or an input differs; the message says which and how.
    """
    differences = [
        f"{name}: was {_show(earlier.settings.get(name))}, is {_show(now.settings.get(name))}"
        for name in sorted(earlier.settings.keys() | now.settings.keys())
        if earlier.settings.get(name) != now.settings.get(name)
    ]
    before = {info.path: info for info in earlier.inputs}
    after = {info.path: info for info in now.inputs}
    differences += [f"input {path} is gone" for path in sorted(before.keys() - after.keys())]
    differences += [f"input {path} is new" for path in sorted(after.keys() - before.keys())]
    changed = [p for p in before.keys() & after.keys() if before[p] != after[p]]
    committed = set(storage.names_in(join(output.state, "manifests")))
    for path in sorted(changed):
        splits = plan_splits([before[path]], earlier.split_size)
        if finished or any(split.key + ".json" in committed for split in splits):
            was, now_is = before[path], after[path]
            how = (
                f"{was.size} bytes then, {now_is.size} now"
                if was.size != now_is.size
                else "modified since"
            )
            differences.append(f"input {path} has changed ({how})")
    if differences:
        raise ResumeError(
            f"--resume: the run in {output.path} was a different one. "
            + "; ".join(differences[:5])
            + ("; …" if len(differences) > 5 else "")
            + ". Run it as it was, or start again with --overwrite."
        )


def _show(value: Any) -> str:
    return str(value) if value or value == 0 else "nothing"


class State:
    """The state directory of the running job, locked against a second process.

    Args:
        output: where the job writes.
        record: what the job is.
        fresh: whether to drop what an earlier run left.

    Raises:
        OutputExistsError: another process is at work here.
        OutputWriteError: the directory cannot be made or written.
    """

    def __init__(self, output: Output, record: JobRecord, *, fresh: bool) -> None:
        self._output = output
        self._made_output = not output.single and not storage.exists(output.path)
        try:
            storage.make_directory(output.state)
            self._lock = _lock(output)
            if fresh:
                storage.remove([join(output.state, name) for name in ("publish.json", "job.json")])
                for name in ("manifests", "attempts", "ready"):
                    storage.remove_tree(join(output.state, name))
            for name in ("attempts", "manifests"):
                storage.make_directory(join(output.state, name))
            begun = {"id": os.urandom(8).hex(), **record.to_dict()}  # no two runs' are the same
            storage.write_atomically(join(output.state, "job.json"), to_json(begun))
        except OSError as error:
            raise OutputWriteError(
                f"--output {output.path} cannot be written: {error.strerror or error} "
                f"({error.filename or output.state}). Mend it or name another --output."
            ) from error

    def discard_if_empty(self) -> None:
        """After a failure, leave nothing behind unless there is something to resume."""
        if not self._output.unfinished():
            storage.remove_tree(self._output.state)
            if self._made_output:
                with contextlib.suppress(OSError):
                    os.rmdir(self._output.path)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()


def _lock(output: Output) -> BinaryIO | None:
    if storage.is_url(output.state):
        return None
    import fcntl

    handle = open(join(output.state, "lock"), "ab")  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise OutputExistsError(
            f"--output {output.path}: another modelbeam process is writing it. Wait for it to end."
        ) from None
    return handle


def find_manifest(state: str, split: Split, fingerprint: str) -> Manifest | None:
    """The manifest of a split, if it is of this job, of this state of the file, and complete."""
    manifest = _read_manifest(state, split, fingerprint)
    if manifest is None:
        return None
    for written in (manifest.predictions, manifest.errors):
        if written is not None:
            try:
                if storage.stat(join(state, "attempts", written.name)).size != written.bytes:
                    return None
            except FileNotFoundError:
                return None
    return manifest


def find_manifests(
    state: str, splits: Iterable[Split], fingerprint: str
) -> Iterator[Manifest | None]:
    """The same for many splits, in their order: one listing, and several are read at once."""
    directory = join(state, "attempts")
    at = len(join(directory, ""))
    sizes = {info.path[at:]: info.size for info in storage.files_in(directory)}
    read = storage.in_parallel(lambda s: _read_manifest(state, s, fingerprint), splits, state)
    for manifest in read:
        files = [] if manifest is None else [manifest.predictions, manifest.errors]
        whole = all(file is None or sizes.get(file.name) == file.bytes for file in files)
        yield manifest if whole else None


def _read_manifest(state: str, split: Split, fingerprint: str) -> Manifest | None:
    content = storage.read_if_there(join(state, "manifests", split.key + ".json"))
    try:
        manifest = Manifest.from_bytes(content) if content is not None else None
    except (ValueError, KeyError, TypeError):  # cut short when the power went
        return None
    if manifest is None or manifest.fingerprint != fingerprint:
        return None
    then = manifest.split
    unchanged = (then.size, then.mtime_ns) == (split.size, split.mtime_ns)
    return manifest if unchanged else None


def remove_state(output: Output) -> None:
    """Remove the state of a finished job.

    The manifests go first: without them nothing is resumed. Then ``publish.json``: without it,
    another process that publishes the same run knows that its files go because all is done.
    """
    storage.remove_tree(join(output.state, "manifests"))
    storage.remove([join(output.state, "publish.json")])
    storage.remove_tree(output.state)
