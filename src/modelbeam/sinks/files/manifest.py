"""The manifest of a split: its commit point, and how the manifests of a job are found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from modelbeam import storage
from modelbeam.predicting.counts import Calls, Counts, Kind, Tally
from modelbeam.sources.splits import Split
from modelbeam.storage import join


def to_json(value: Any, indent: int | None = None) -> bytes:
    """JSON of the job's own files; a path that is not UTF-8 is read back as it was."""
    if indent == 2:
        # lists of many files; what only the slower encoder can write it does
        with contextlib.suppress(TypeError):
            return orjson.dumps(value, option=orjson.OPT_INDENT_2)
    return json.dumps(value, indent=indent).encode()


@dataclass(frozen=True, slots=True)
class Written:
    """A file of an attempt: its name in ``attempts/`` and its size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one attempt did with one split; see the module's docstring.

    Attributes:
        key: the split's.
        place: of the split, for people.
        stamp: of the sizes and modification times of its files.
        fingerprint: of the model and the settings.
        predictions: the file of predictions.
        errors: the file of error lines, or ``None`` if there were no failures.
        counts: of records.
        units: how many lines (blank ones included) or rows of its file the split covers.
        seconds: how long the attempt took.
        profile: the file of what was collected for the report, if that was.
    """

    key: str
    place: str
    stamp: str
    fingerprint: str
    predictions: Written
    errors: Written | None
    counts: Counts
    units: int
    seconds: float
    profile: Written | None = None

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return to_json(asdict(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read what :meth:`to_bytes` made."""
        data = json.loads(content)
        counts = data["counts"]
        counts["kinds"] = [Kind(**kind) for kind in counts["kinds"]]
        counts["models"] = {name: Tally(**one) for name, one in counts["models"].items()}
        counts["calls"] = {name: Calls(**one) for name, one in counts.get("calls", {}).items()}
        return cls(
            key=data["key"],
            place=data["place"],
            stamp=data["stamp"],
            fingerprint=data["fingerprint"],
            predictions=Written(**data["predictions"]),
            errors=Written(**data["errors"]) if data["errors"] else None,
            counts=Counts(**counts),
            units=data["units"],
            seconds=data["seconds"],
            profile=Written(**data["profile"]) if data.get("profile") else None,
        )


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
    return manifest if manifest.stamp == split.stamp else None
