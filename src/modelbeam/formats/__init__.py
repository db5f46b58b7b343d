"""The data formats by name and suffix; a format's module is imported only when it is used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

from modelbeam.errors import RequestError, did_you_mean

COMPRESSIONS = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}
"""Suffix to the name of the compression."""

_MODULES = {"jsonl": "modelbeam.formats.jsonl"}
_NAMES = {"jsonl": "jsonl", "ldjson": "jsonl", "ndjson": "jsonl", "json": "jsonl"}
_PLANNED = ("csv", "parquet", "avro", "arrow")


class Format(NamedTuple):
    """A format and the compression around it, both read off a name such as ``jsonl.gz``."""

    name: str
    compression: str | None = None

    @property
    def suffix(self) -> str:
        """The file name's ending, with its dot."""
        ends = {long: short for short, long in COMPRESSIONS.items()}
        return f".{self.name}" + (f".{ends[self.compression]}" if self.compression else "")

    @property
    def module(self) -> ModuleType:
        """The module that reads and writes this format."""
        return importlib.import_module(_MODULES[self.name])


def _split(path: str) -> tuple[str, str | None]:
    name = path.rstrip("/").rsplit("/", 1)[-1].lower()
    parts = name.split(".")
    compression = COMPRESSIONS.get(parts[-1]) if len(parts) > 2 else None
    return (parts[-2] if compression else parts[-1] if len(parts) > 1 else ""), compression


def from_suffix(path: str) -> Format | None:
    """The format that a path's ending names, or ``None`` if it names none.

    Raises:
        RequestError: it names a format that this version does not read or write.
    """
    ending, compression = _split(path)
    if ending in _PLANNED:
        return _planned(ending, path)
    return Format(_NAMES[ending], compression) if ending in _NAMES else None


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
    if ending in _NAMES:
        return Format(_NAMES[ending], compression)
    if ending in _PLANNED:
        return _planned(ending, f"{flag} {name}")
    raise RequestError(
        f"{flag} '{name}': no such format{did_you_mean(name, _NAMES) or '; there is: jsonl.'}"
    )


def compression_of(path: str) -> str | None:
    """The compression that a path's last suffix names, whatever comes before it."""
    return COMPRESSIONS.get(path.rsplit(".", 1)[-1].lower())


def _planned(name: str, where: str) -> Format:
    raise RequestError(
        f"{where}: the format '{name}' is not in this version, which reads and writes JSON Lines."
    )
