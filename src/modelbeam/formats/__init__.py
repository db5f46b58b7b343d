"""The data formats by name and suffix; a format's module is imported only when it is used."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from modelbeam.errors import RequestError, did_you_mean
from modelbeam.formats.reading import Reading

if TYPE_CHECKING:
    from modelbeam.formats.base import FileFormat

COMPRESSIONS = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}
"""Suffix to the name of the compression."""

_FORMATS = {
    "jsonl": "modelbeam.formats.jsonl:JsonLines",
    "json": "modelbeam.formats.json:Json",
    "csv": "modelbeam.formats.csv:Csv",
    "tsv": "modelbeam.formats.csv:Tsv",
    "parquet": "modelbeam.formats.parquet:Parquet",
    "arrow": "modelbeam.formats.arrow:Arrow",
    "arrows": "modelbeam.formats.arrow:ArrowStream",
    "avro": "modelbeam.formats.avro:Avro",
}
"""Name to the class of the format, imported when it is used."""

NAMES = tuple(_FORMATS)
"""The formats that modelbeam itself brings."""

SUFFIXES = {
    "jsonl": "jsonl",
    "ldjson": "jsonl",
    "ndjson": "jsonl",
    "json": "jsonl",
    "csv": "csv",
    "tsv": "tsv",
    "parquet": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "arrows": "arrows",
    "avro": "avro",
}
"""What a file's suffix says of its format; its first bytes may say another thing."""

_NAMES = {**SUFFIXES, **{name: name for name in _FORMATS}}
"""What a flag says."""

_INSTALL = {"avro": 'pip install "modelbeam[avro]"'}
"""What to do where the library of a format is missing."""

ENTRY_POINTS = "modelbeam.formats"
"""The group of entry points by which a package adds formats; the name is the suffix as well."""


class Format(NamedTuple):
    """A format and the compression around it, both read off a name such as ``jsonl.gz``."""

    name: str
    compression: str | None = None

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
        ends = {long: short for short, long in COMPRESSIONS.items()}
        return f".{self.name}" + (f".{ends[self.compression]}" if self.compression else "")


def find(name: str, reading: Reading | None = None) -> FileFormat:
    """The format of that name.

    Args:
        name: as :class:`Format` has it.
        reading: how its files are to be read.

    Raises:
        RequestError: its library, or the package that brings it, is not installed.
    """
    found = _found.get(name)
    if found is None:
        found = _found[name] = _load(name)
    return found.told(reading) if reading and any(reading) else found


_found: dict[str, FileFormat] = {}


def _load(name: str) -> FileFormat:
    target = _FORMATS.get(name) or _others().get(name)
    if target is None:
        raise RequestError(f"The format '{name}' is not known on this machine.")
    module, _, attribute = target.partition(":")
    try:
        made: FileFormat = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        hint = f": {_INSTALL[name]}" if name in _INSTALL else "."
        raise RequestError(f"The format '{name}' cannot be used: {error}{hint}") from error
    return made


@functools.cache
def _others() -> dict[str, str]:
    """The formats that other packages bring; not looked for while ours suffice."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def brought_by(names: Iterable[str]) -> list[str]:
    """The distributions of other packages that these formats come from."""
    from importlib.metadata import entry_points

    wanted = set(names) - _FORMATS.keys()
    points = entry_points(group=ENTRY_POINTS) if wanted else ()
    return sorted({p.dist.name for p in points if p.name in wanted and p.dist is not None})


def forget() -> None:
    """Look for other packages' formats again, for one that was installed since."""
    _others.cache_clear()
    for name in _found.keys() - _FORMATS.keys():
        del _found[name]


def _name_of(ending: str, known: Mapping[str, str]) -> str | None:
    """The format that a suffix or a flag names."""
    if ending in known:
        return known[ending]
    return ending if ending and ending in _others() else None


def _split(path: str) -> tuple[str, str | None]:
    name = path.rstrip("/").rsplit("/", 1)[-1].lower()
    parts = name.split(".")
    compression = COMPRESSIONS.get(parts[-1]) if len(parts) > 2 else None
    return (parts[-2] if compression else parts[-1] if len(parts) > 1 else ""), compression


def from_suffix(path: str) -> Format | None:
    """The format that a path's ending names, or ``None`` if it names none."""
    ending, compression = _split(path)
    name = _name_of(ending, SUFFIXES)
    return Format(name, compression) if name else None


def strip_suffix(path: str) -> str:
    """A path without the ending that names its format and compression."""
    for _ in range(2 if _split(path)[1] else 1):
        path = path[: path.rindex(".")]
    return path


def parse(name: str, flag: str) -> Format:
    """The format that a flag names: ``jsonl``, ``ldjson``, ``ndjson``, ``jsonl.gz`` …

    Raises:
        RequestError: no such format.
    """
    ending, compression = _split("x." + name)
    found = _name_of(ending, _NAMES)
    if found:
        return Format(found, compression)
    there = did_you_mean(name, _NAMES) or f"; there are: {', '.join(_FORMATS)}."
    raise RequestError(f"{flag} '{name}': no such format{there}")


def compression_of(path: str) -> str | None:
    """The compression that a path's last suffix names, whatever comes before it."""
    return COMPRESSIONS.get(path.rsplit(".", 1)[-1].lower())
