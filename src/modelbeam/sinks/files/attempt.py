"""One attempt at a split: files that nobody else writes, then the manifest."""

from __future__ import annotations

import contextlib
import os
import time
from typing import BinaryIO

from modelbeam import storage
from modelbeam.errors import ReconciliationError
from modelbeam.formats import Format, compression
from modelbeam.formats.base import Split
from modelbeam.predicting.counts import Counts
from modelbeam.sinks.files.manifest import Manifest, Written
from modelbeam.storage import join


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
