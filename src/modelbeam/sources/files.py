"""Files as a source: from input patterns to the files that they name, and to their records."""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from modelbeam import formats, storage, text
from modelbeam.errors import InputNotFoundError, InputReadError, RequestError, did_you_mean
from modelbeam.formats.base import FileFormat, Piece, Reader, Wanted
from modelbeam.formats.limited import LimitedReader
from modelbeam.formats.partition import (
    Partition,
    PartitionReader,
    is_hidden,
    partition_of,
    with_partition,
    without,
)
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.predicting.batch import Batch
from modelbeam.sources.base import Found, Opened, Source
from modelbeam.sources.looking import formats_of
from modelbeam.sources.splits import (
    Split,
    default_split_size,
    named,
    needed,
    plan_splits,
    planned_again,
)
from modelbeam.storage import FileInfo, Listed

READ_AHEAD = 64 << 10
"""Bytes up to which a file is small: read with others, or ahead of its turn if it is far away. No
reader's first block is smaller, so what is read ahead is in the same batches as if it was not."""


class Files(Source):
    """Files, read by the format that each one has."""

    def discover(
        self,
        patterns: Iterable[str],
        *,
        any_suffix: bool,
        excluded: Iterable[str],
        earlier: Sequence[FileInfo] | None = None,  # noqa: ARG002 - files may have been mended
    ) -> Found:
        """The files that patterns name."""
        return find_inputs(patterns, any_suffix=any_suffix, excluded=excluded)

    def plan(
        self,
        inputs: Sequence[FileInfo],
        split_size: int | None,
        *,
        input_format: formats.Format | None,
        earlier: Sequence[Split] | None,
        reading: Reading = AS_IT_SAYS,
        limit: int | None = None,
        partitions: Mapping[str, Partition] | None = None,
    ) -> tuple[list[Split], int]:
        """Cut large files into splits, and put small ones together."""
        splits, size = self._plan(inputs, split_size, input_format, earlier, reading, limit)
        return _partitioned(splits, partitions or {}), size

    def _plan(
        self,
        inputs: Sequence[FileInfo],
        split_size: int | None,
        input_format: formats.Format | None,
        earlier: Sequence[Split] | None,
        reading: Reading,
        limit: int | None,
    ) -> tuple[list[Split], int]:
        known: dict[str, formats.Format] = {}

        def look(info: FileInfo) -> formats.Format:
            known.update(formats_of([info], input_format, reading))
            return known.get(info.path) or named(info, input_format)

        if limit is not None:  # no look at more files than need be
            inputs, first = needed(inputs, limit, look, reading)
            size = split_size or default_split_size(inputs)
            splits = plan_splits(
                inputs, size, input_format=input_format, known=known, reading=reading, first=first
            )
            return splits, size
        size = split_size or default_split_size(inputs)
        known = formats_of(inputs, input_format, reading)
        settings: dict[str, Any] = {
            "input_format": input_format,
            "known": known,
            "reading": reading,
        }
        if earlier is not None:
            return planned_again(earlier, inputs, size, **settings), size
        return plan_splits(inputs, size, **settings), size

    def open(
        self, pieces: Sequence[Piece], wanted: Wanted, joined: bool = True
    ) -> Generator[Opened, None, None]:
        """The pieces in order; small ones are read together, or at least several ahead."""
        far = storage.is_url(pieces[0].path) and len(pieces) > 1

        def opened(group: _Group) -> Opened:
            some, reader = group
            if reader is not None:
                return Opened(some, reader, reader)
            reader = self.reader(some[0], wanted)
            return Opened(
                some, reader, _read_ahead(reader) if far and _is_small(some[0]) else reader
            )

        groups = _together(pieces, wanted) if joined else _apart(pieces)
        if far:  # of a small object, most of the time is waiting
            yield from storage.in_parallel(opened, groups, pieces[0].path)
        else:
            yield from map(opened, groups)

    def reader(self, piece: Piece, wanted: Wanted) -> Reader:
        """Read a piece of a file."""
        found = _format_of(piece)
        if piece.partition:
            make = partial(found.reader, piece)
            reader: Reader = PartitionReader(make, piece.partition, wanted)
        else:
            reader = found.reader(piece, wanted)
        return reader if piece.records is None else LimitedReader(reader, piece.records)

    def first(self, piece: Piece, records: int, wanted: Wanted | None = None) -> Batch:
        """The first records of a file."""
        records = records if piece.records is None else min(records, piece.records)
        wanted = wanted or Wanted("record")
        asked = without(wanted, piece.partition)
        batch = _format_of(piece).first(piece.path, piece.compression, records, asked)
        return with_partition(batch, piece.partition, wanted)

    def elsewhere(self, piece: Piece) -> Iterator[Batch]:
        """Some records from other places of a file."""
        for batch in _format_of(piece).elsewhere(piece) if piece.records is None else ():
            yield with_partition(batch, piece.partition, Wanted("record", keep="all"))


def _partitioned(splits: list[Split], partitions: Mapping[str, Partition]) -> list[Split]:
    """The same splits, with what the directories of their files say."""
    if not any(partitions.values()):
        return splits
    return [
        replace(
            split,
            pieces=tuple(replace(p, partition=partitions.get(p.path, ())) for p in split.pieces),
        )
        for split in splits
    ]


def _is_small(piece: Piece) -> bool:
    return piece.bytes == piece.size <= READ_AHEAD and piece.compression is None


_Group = tuple[tuple[Piece, ...], Reader | None]
"""Several pieces with the reader of all of them, or one piece."""


def _apart(pieces: Iterable[Piece]) -> Iterator[_Group]:
    return (((piece,), None) for piece in pieces)


def _together(pieces: Sequence[Piece], wanted: Wanted) -> Iterator[_Group]:
    """The pieces in order, those together that one reader can read."""

    def kind(piece: Piece) -> object:
        """What small files that are read together have in common; others have nothing."""
        if not _is_small(piece) or piece.size > wanted.longest or piece.records is not None:
            return piece
        return piece.format, piece.reading, piece.partition

    for _, alike in itertools.groupby(pieces, kind):
        group = tuple(alike)
        reader = _joined(group, wanted) if len(group) > 1 else None
        if reader is None:
            yield from _apart(group)
        else:
            yield group, reader


def _joined(pieces: tuple[Piece, ...], wanted: Wanted) -> Reader | None:
    """A reader of several small files, if their format can be read so."""
    partition = pieces[0].partition
    reader = _format_of(pieces[0]).joined(pieces, without(wanted, partition))
    if reader is None or not partition:
        return reader
    return PartitionReader(lambda _: reader, partition, wanted)


def _read_ahead(reader: Reader) -> Iterable[Batch]:
    """All batches of a small piece; what a damaged one raises is raised in its turn."""
    batches: list[Batch] = []
    try:
        batches.extend(reader)
    except InputReadError as error:
        return _failing(batches, error)
    return batches


def _failing(batches: list[Batch], error: InputReadError) -> Iterator[Batch]:
    yield from batches
    raise error


def _format_of(piece: Piece) -> FileFormat:
    return formats.find(piece.format, piece.reading)


def find_inputs(
    patterns: Iterable[str], *, any_suffix: bool, excluded: Iterable[str] = ()
) -> Found:
    """The input files, each once, in the order of the patterns and sorted within each.

    A directory stands for the data files in it, and in its subdirectories that are called
    ``key=value``, as partitions are; what is no data (hidden files, ``_SUCCESS``, the companions of
    an earlier run) is left out, and anything else that is left out is noted.

    Args:
        patterns: paths, globs, directories or URLs.
        any_suffix: a directory gives all of its files, since ``--input-format`` names their format;
            otherwise those with a suffix that names a format that can be read.
        excluded: paths that a glob or directory skips: what the job itself writes.

    Raises:
        InputNotFoundError: a pattern matches nothing.
        RequestError: an input is one of ``excluded``, or no file that could be read twice.
    """
    skip = set(filter(None, map(identity, excluded)))
    found: dict[object, FileInfo] = {}
    notes: list[str] = []
    partitions: dict[str, Partition] = {}
    for pattern in patterns:
        refuse(pattern)
        with storage.asked_for(f"--input {pattern}"):
            matches, passed, root = _matches(pattern, any_suffix, skip)
        notes += passed
        for info in matches:
            known = info.identity if isinstance(info, Listed) else identity(info.path)
            first = found.setdefault(known or info.path, info)
            if root is not None:
                partitions.setdefault(first.path, partition_of(first.path, root))
            if first.path != info.path:
                notes.append(f"{info.path} is the same file as {first.path}, and is read once.")
    return Found(list(found.values()), notes, partitions)


def identity(path: str) -> object:
    """What a file is, however it is written: through links, ``..`` or in another case.

    Returns:
        Something to compare; ``None`` if there is no such file on this machine.
    """
    if storage.is_url(path):
        return path
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse(pattern: str) -> None:
    """Refuse what is certainly no set of files, in one sentence that says what to do.

    Raises:
        RequestError: it is a pipe, a device, or a URL that is nothing to read files from.
    """
    name = pattern.lower()
    scheme = name.partition(":")[0] if ":" in name else ""
    answer = None
    if name == "-" or re.fullmatch(r"/dev/(stdin|fd/\d+)|/proc/[^/]+/fd/\d+", name):
        answer = "is standard input or a pipe" + _FILES_ONLY
    elif scheme in ("http", "https"):
        answer = "is a web address: download it (curl -O URL) and name the file."
    elif scheme in ("s3a", "s3n"):
        answer = f"is written s3:// here: s3{pattern[len(scheme) :]}"
    elif scheme == "dbfs":
        answer = "is written /dbfs/... here."
    elif scheme in ("abfs", "abfss", "wasb", "wasbs"):
        answer = "is written azfs://ACCOUNT/CONTAINER/... here."
    elif scheme in _DATABASES:
        answer = "is a database: export its rows as JSON Lines, and name the file."
    elif not storage.is_url(pattern):
        with suppress(OSError):
            mode = os.stat(pattern).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                answer = "is a pipe" + _FILES_ONLY
            elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                answer = "is a device" + _FILES_ONLY
    if answer is not None:
        raise RequestError(f"--input {pattern} {answer}")


_FILES_ONLY = "; modelbeam reads files, since it splits and resumes: write it to a file first."
_DATABASES = {
    *("postgres", "postgresql", "mysql", "mariadb", "mongodb", "mongodb+srv", "sqlite", "duckdb"),
    *("jdbc", "odbc", "mssql", "oracle", "redis", "snowflake", "bigquery", "bq", "cassandra"),
}

_NO_DATA = re.compile(
    r"[_.].*|(run|profile)\.json|report\.html|errors-\d{5,}-of-\d{5,}\..*"
    r"|.*\.(errors\.jsonl|(run|profile)\.json|report\.html|crc)"
)
"""Names of files that are never data in a directory: hidden, markers, and modelbeam's own."""


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _matches(
    pattern: str, any_suffix: bool, skip: set[object]
) -> tuple[list[FileInfo], list[str], str | None]:
    """The files of a pattern, notes, and below which directory its partitions are."""
    if storage.is_directory(pattern):
        return (*_in_directory(pattern, any_suffix, skip), storage.join(pattern, ""))
    listed = storage.expand(pattern)
    if len(listed) == 1 and listed[0].path == pattern:
        if identity(pattern) in skip:
            raise RequestError(f"--input {pattern} is also the output; name another --output.")
        return listed, [], None
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    root = fixed[: fixed.rfind("/") + 1]
    listed = [
        info
        for info in listed
        if not _NO_DATA.fullmatch(_name(info.path))
        and not is_hidden(info.path, root)
        and identity(info.path) not in skip
    ]
    if not listed:
        raise InputNotFoundError(f"--input {pattern} matches no file{_nearest_path(pattern)}")
    return listed, [], root


def _in_directory(
    directory: str, any_suffix: bool, skip: set[object]
) -> tuple[list[FileInfo], list[str]]:
    data, others, folders = _walk(directory, any_suffix)
    own = [info for info in data if identity(info.path) in skip] if skip else []
    data = [info for info in data if info not in own] if own else data
    if data:
        notes = []
        if others:
            total = len(data) + len(others)
            notes.append(
                f"{directory}: {len(data)} of {total} files are read; {_some(others)} "
                f"{'have' if len(others) > 1 else 'has'} no suffix of a format that is read. "
                f"Name their format with --input-format to read them."
            )
        if folders:
            notes.append(
                f"{directory}: the files in its {text.count(len(folders), 'directory')} "
                f"({_some(folders)}) are not read. Name them with a glob to read them: "
                f"'{storage.join(directory, '**', '*.jsonl')}'."
            )
        return data, notes
    if own:
        raise InputNotFoundError(f"--input {directory} holds only the output of this very job.")
    if folders and not others:
        raise InputNotFoundError(
            f"--input {directory} holds only directories ({_some(folders)}). Name the files in "
            f"them with a glob: '{storage.join(directory, '**', '*.jsonl')}'."
        )
    raise InputNotFoundError(
        f"--input {directory}: the directory holds no file with a data suffix (.jsonl, "
        f".jsonl.gz …). Name the files with a glob, or their format with --input-format."
    )


def _walk(directory: str, any_suffix: bool) -> tuple[list[FileInfo], list[str], list[str]]:
    """The data files of a directory and its partitions; names of other files, and of folders."""
    files = storage.files_in(directory)
    names = {_name(info.path) for info in files}
    data, others, folders = [], [], []
    for info in files:
        if _NO_DATA.fullmatch(_name(info.path)):
            continue
        if any_suffix or formats.from_suffix(info.path):
            data.append(info)
        else:
            others.append(_name(info.path))
    for name in storage.names_in(directory):
        if name in names:
            continue
        partition = re.fullmatch(r"[^=.][^=]*=.*", name)
        if _NO_DATA.fullmatch(name) and not partition:
            continue
        path = storage.join(directory, name)
        if partition and storage.is_directory(path):
            more, more_others, more_folders = _walk(path, any_suffix)
            data += more
            others += [f"{name}/{other}" for other in more_others]
            folders += [f"{name}/{folder}" for folder in more_folders]
        elif not storage.is_url(path) and not os.path.isdir(path):
            others.append(name)  # a pipe, a dangling link
        elif storage.names_in(path):
            folders.append(name)
    return data, others, folders


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _nearest_path(pattern: str) -> str:
    if storage.is_url(pattern):
        return "; check the address and your access to it."
    directory, name = os.path.split(pattern)
    if folders := [path for path in glob.glob(pattern) if os.path.isdir(path)]:
        return (
            f", only directories ({_some(sorted(folders))}). Name the files in them: "
            f"'{os.path.join(pattern, '*.jsonl')}'."
        )
    if any(c in directory for c in "*?["):
        return "; check the glob."
    if not os.path.isdir(directory or "."):
        return f"; there is no directory '{directory}'."
    return did_you_mean(name, storage.names_in(directory or ".")) or "; check the path."
