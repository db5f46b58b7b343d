"""The job's own state, and what resuming compares."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from modelbeam import storage
from modelbeam.errors import OutputExistsError, OutputWriteError, ResumeError
from modelbeam.machine import identity
from modelbeam.sinks.files.attempt import DAMAGED
from modelbeam.sinks.files.manifest import to_json
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.locks import hold
from modelbeam.sources.splits import PLAN_FILE, Split, from_lines, to_lines
from modelbeam.storage import FileInfo, join


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a job is, as ``job.json`` keeps it so that resuming can compare.

    Attributes:
        settings: by name, everything that the predictions depend on, the model's version included.
        split_size: bytes per split; kept, not compared.
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

    An input that changed is no obstacle as long as nothing of it was committed, or if it could not
    be read: that is how a damaged file is repaired. All of its splits are done again, since the
    manifests carry its state.

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
    done = set(changed) if finished else _committed_of(output, changed) - _damaged(output)
    for path in sorted(changed):
        if path in done:
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


def earlier_plan(output: Output) -> list[Split] | None:
    """The splits of the unfinished run here; ``None`` if it never came to write them down."""
    content = storage.read_if_there(join(output.state, PLAN_FILE))
    try:
        return None if content is None else from_lines(content)
    except (ValueError, KeyError, TypeError):
        raise ResumeError(
            f"{join(output.state, PLAN_FILE)} is damaged, so there is nothing to resume. Start "
            f"again with --overwrite, or name another --output."
        ) from None


def _committed_of(output: Output, paths: Collection[str]) -> set[str]:
    """Those of some files of which something was committed."""
    if not paths:
        return set()
    committed = set(storage.names_in(join(output.state, "manifests")))
    plan = earlier_plan(output)
    if plan is None:
        return set(paths) if committed else set()
    done = (split for split in plan if split.key + ".json" in committed)
    return {piece.path for split in done for piece in split.pieces}


def _damaged(output: Output) -> set[str]:
    """The inputs that could not be read."""
    notes = join(output.state, DAMAGED)
    names = storage.names_in(notes) if storage.exists(notes) else []
    return {os.fsdecode(storage.read_bytes(join(notes, name))) for name in names}


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
                files = ("publish.json", "job.json", PLAN_FILE)
                storage.remove([join(output.state, name) for name in files])
                for name in ("manifests", "attempts", "deaths", "ready", DAMAGED):
                    storage.remove_tree(join(output.state, name))
            for name in ("attempts", "manifests"):
                storage.make_directory(join(output.state, name))
            # no two runs' are the same
            begun = {"id": os.urandom(8).hex(), "process": identity(), **record.to_dict()}
            storage.write_atomically(join(output.state, "job.json"), to_json(begun))
        except OSError as error:
            raise OutputWriteError(
                f"--output {output.path} cannot be written: {error.strerror or error} "
                f"({error.filename or output.state}). Fix it or name another --output."
            ) from error

    def write_plan(self, splits: Sequence[Split]) -> None:
        """Write down how the inputs were cut, before anything is committed."""
        storage.write_atomically(join(self._output.state, PLAN_FILE), to_lines(splits))

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
    try:
        return hold(join(output.state, LOCK))
    except BlockingIOError:
        raise OutputExistsError(
            f"--output {output.path}: another modelbeam process is writing it. Wait for it to end."
        ) from None


LOCK = "lock"
"""In the state directory: the file that the process at work has locked."""
