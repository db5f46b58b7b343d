"""Files as a source: from input patterns to the files that they name, and to their records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from modelbeam import formats, storage
from modelbeam.errors import InputNotFoundError, RequestError, did_you_mean
from modelbeam.formats.base import Piece, Reader, Wanted
from modelbeam.predicting.batch import Batch
from modelbeam.sources.base import Source
from modelbeam.sources.splits import Split, default_split_size, plan_splits
from modelbeam.storage import FileInfo


class Files(Source):
    """Files, read by the format that each one has."""

    def discover(
        self, patterns: Iterable[str], *, any_suffix: bool, excluded: Iterable[str]
    ) -> list[FileInfo]:
        """The files that patterns name."""
        found = find_inputs(patterns, any_suffix=any_suffix, excluded=excluded)
        if not any_suffix:
            for info in found:
                formats.from_suffix(info.path)  # a format that cannot be read is an error
        return found

    def plan(
        self,
        inputs: Sequence[FileInfo],
        split_size: int | None,
        *,
        input_format: formats.Format | None,
        earlier: Sequence[FileInfo] | None,
    ) -> tuple[list[Split], int]:
        """Cut large files into splits, and put small ones together."""
        size = split_size or default_split_size(inputs)
        return plan_splits(inputs, size, input_format=input_format, packed_as=earlier), size

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece of a file."""
        return formats.find(piece.format).reader(piece, wanted)

    def first(self, piece: Piece, records: int) -> Batch:
        """The first records of a file."""
        return formats.find(piece.format).first(piece.path, piece.compression, records)


def find_inputs(
    patterns: Iterable[str], *, any_suffix: bool, excluded: Iterable[str] = ()
) -> list[FileInfo]:
    """The input files, each once, in the order of the patterns and sorted within each.

    Args:
        patterns: paths, globs, directories or URLs.
        any_suffix: a directory gives all of its files, since ``--input-format`` names their format;
            otherwise those with a suffix that names a format.
        excluded: paths that a glob or directory skips: what the job itself writes.

    Raises:
        InputNotFoundError: a pattern matches nothing.
        RequestError: an input is one of ``excluded``.
    """
    skip = {_place(path) for path in excluded}
    found: dict[str, FileInfo] = {}
    for pattern in patterns:
        with storage.asked_for(f"--input {pattern}"):
            matches = _matches(pattern, any_suffix, skip)
        for info in matches:
            found.setdefault(info.path, info)
    return list(found.values())


def _place(path: str) -> str:
    """The same for all ways to write a path."""
    return path if storage.is_url(path) else os.path.abspath(path)


def _matches(pattern: str, any_suffix: bool, skip: set[str]) -> list[FileInfo]:
    if storage.is_directory(pattern):
        listed = [
            info
            for info in storage.files_in(pattern)
            if not info.path.rsplit("/", 1)[-1].startswith(("_", "."))
            and _place(info.path) not in skip
            and (any_suffix or formats.from_suffix(info.path) is not None)
        ]
        if not listed:
            raise InputNotFoundError(
                f"--input {pattern}: the directory holds no file with a data suffix (.jsonl, "
                f".jsonl.gz …). Name the files with a glob, or their format with --input-format."
            )
        return listed
    listed = storage.expand(pattern)
    if len(listed) == 1 and listed[0].path == pattern:
        if _place(pattern) in skip:
            raise RequestError(f"--input {pattern} is also the output; name another --output.")
        return listed
    listed = [info for info in listed if _place(info.path) not in skip]
    if not listed:
        raise InputNotFoundError(f"--input {pattern} matches no file{_nearest_path(pattern)}")
    return listed


def _nearest_path(pattern: str) -> str:
    if storage.is_url(pattern):
        return "; check the address and your access to it."
    directory, name = os.path.split(pattern)
    if any(c in directory for c in "*?["):
        return "; check the glob."
    if not os.path.isdir(directory or "."):
        return f"; there is no directory '{directory}'."
    return did_you_mean(name, storage.names_in(directory or ".")) or "; check the path."
