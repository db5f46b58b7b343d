"""One attempt at a split: files that nobody else writes, then the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from typing import BinaryIO

from modelbeam import formats, storage
from modelbeam.errors import ReconciliationError
from modelbeam.formats import Format, compression
from modelbeam.formats.base import Writer
from modelbeam.formats.jsonl.writer import ShortLinesWriter
from modelbeam.formats.layout import Layout
from modelbeam.formats.several import write_parts
from modelbeam.predicting.counts import Counts
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.sinks.base import Attempt, Sink
from modelbeam.sinks.files.manifest import Manifest, Written, find_manifest
from modelbeam.sources.splits import Split
from modelbeam.storage import join
from modelbeam.text import as_utf8

DAMAGED = "damaged"
"""In a job's state: the paths of inputs that could not be read, each in a file."""


def _digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:20]


class Files(Sink):
    """Files in a job's state, which publishing puts in their place.

    Args:
        state: the job's state directory.
        output: the format of the predictions.
        fingerprint: of the model and the settings.
        layout: the output's columns, where all of its records have the same.
        single: whether the splits are parts of one file.
        largest: bytes that a line of JSON Lines may have; ``None`` for any.
    """

    def __init__(
        self,
        state: str,
        output: Format,
        fingerprint: str,
        layout: Layout | None = None,
        single: bool = False,
        largest: int | None = None,
    ) -> None:
        self._state, self._output, self._fingerprint = state, output, fingerprint
        self._layout, self._single, self._largest = layout, single, largest

    def attempt(self, split: Split) -> FilesAttempt:
        """Begin an attempt; nothing is written yet."""
        part = split.index if self._single else split.part
        made = FilesAttempt(self._state, split, self._output, self._fingerprint, self._layout, part)
        made.largest = self._largest
        return made

    def note_damaged(self, path: str) -> None:
        """Note it in the job's state; see :func:`.state.check_resumable`."""
        note = join(self._state, DAMAGED, _digest(path))
        with contextlib.suppress(OSError):  # the run fails anyway, over the file
            storage.make_directory(join(self._state, DAMAGED))
            storage.write_atomically(note, os.fsencode(path))

    def committed(self, split: Split) -> Manifest | None:
        """The split's manifest, if it is of this job, of this state of its files, and complete."""
        return find_manifest(self._state, split, self._fingerprint)


class FilesAttempt(Attempt):
    """One attempt at a split: two files that nobody else writes, then a manifest or nothing."""

    def __init__(
        self,
        state: str,
        split: Split,
        output: Format,
        fingerprint: str,
        layout: Layout | None,
        part: int,
    ) -> None:
        self.largest: int | None = None
        self._layout, self._part = layout, part
        self._state, self._split, self._fingerprint = state, split, fingerprint
        self._started = time.monotonic()
        base = f"{split.key}-{os.urandom(6).hex()}"
        self._names = {"predictions": base + output.suffix, "errors": base + ".errors.jsonl"}
        self._names["profile"] = base + ".profile"
        self._handles: dict[str, BinaryIO] = {}
        self._streams: dict[str, BinaryIO] = {}
        self._output = output
        self._writer: Writer | None = None

    def write(self, outcome: Outcome) -> tuple[int, list[Failure]]:
        """Write the predictions of a batch.

        Returns:
            How many were written, and a failure for each that the format cannot hold, its ``row``
            an index of the predictions.
        """
        if not outcome.values and not outcome.rows:
            return 0, []
        writer = self._opened_writer()
        before = writer.rows
        if outcome.parts:
            failures = write_parts(writer, self._trial, outcome, self._layout)
        else:
            failures = writer.write(outcome)
        return writer.rows - before, failures

    def _trial(self) -> Writer:
        """A writer whose output goes nowhere."""
        return formats.find(self._output.name).writer(io.BytesIO(), self._layout, 1)

    def _opened_writer(self) -> Writer:
        if self._writer is None:
            stream = self._open("predictions")
            found = formats.find(self._output.name)
            if self.largest is not None:
                self._writer = ShortLinesWriter(stream, self.largest)
            else:
                self._writer = found.writer(stream, self._layout, self._part)
        return self._writer

    def write_errors(self, lines: bytes) -> None:
        """Append whole error lines."""
        storage.write_all(self._streams.get("errors") or self._open("errors"), lines)

    def _open(self, kind: str) -> BinaryIO:
        handle = storage.create(join(self._state, "attempts", self._names[kind]))
        self._handles[kind] = self._streams[kind] = handle
        if kind == "predictions" and self._output.compression:
            self._streams[kind] = compression.compressed(handle, self._output.compression)
        return self._streams[kind]

    def commit(self, counts: Counts, units: int, profile: bytes | None = None) -> Manifest:
        """Close the files and put the manifest in place.

        Args:
            counts: of the records.
            units: how many lines or rows of its file the split covers.
            profile: what was collected for the report.

        Raises:
            ReconciliationError: the records written are not as many as were counted.
            OSError: the files cannot be written.
        """
        writer = self._opened_writer()  # a split without predictions is an empty shard
        if counts.read != counts.predicted + counts.failed or writer.rows != counts.predicted:
            raise ReconciliationError(
                f"{self._split.place}: {counts.read} records read, {counts.predicted} predicted "
                f"({writer.rows} written), {counts.failed} failed. This is a defect of "
                f"modelbeam; nothing was published. Please report it."
            )
        writer.close()
        if profile is not None:
            storage.write_all(self._open("profile"), profile)
        sizes = {kind: self._close(kind) for kind in list(self._handles)}
        manifest = Manifest(
            key=self._split.key,
            place=as_utf8(self._split.place),
            stamp=self._split.stamp,
            fingerprint=self._fingerprint,
            predictions=Written(self._names["predictions"], sizes["predictions"]),
            errors=self._written("errors", sizes),
            profile=self._written("profile", sizes),
            counts=counts,
            units=units,
            seconds=round(time.monotonic() - self._started, 4),
        )
        path = join(self._state, "manifests", self._split.key + ".json")
        storage.write_atomically(path, manifest.to_bytes())
        return manifest

    def _written(self, kind: str, sizes: dict[str, int]) -> Written | None:
        return Written(self._names[kind], sizes[kind]) if kind in sizes else None

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
