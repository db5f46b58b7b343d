"""A look at the first bytes of each input, so that what it is decides, not what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from modelbeam import formats, storage
from modelbeam.errors import RequestError
from modelbeam.formats import Format, detect
from modelbeam.formats.reading import AS_IT_SAYS, Reading
from modelbeam.storage import FileInfo

REMOTE_LOOKS = 256
"""How many objects of a store are looked at, spread over all; each is a request of its own."""


class _Look(NamedTuple):
    format: Format
    problem: str | None


def formats_of(
    files: Sequence[FileInfo], asked: Format | None, reading: Reading = AS_IT_SAYS
) -> dict[str, Format]:
    """The format and compression of each file that was looked at, by path.

    Args:
        files: the inputs.
        asked: the format that was named for all of them, if one was.
        reading: how they are to be read, where they do not say it.

    Raises:
        RequestError: a file is certainly not what it should be; the message says what it is and
            what to do.
    """
    found: dict[str, Format] = {}
    looked = [info for info in files if info.size]
    if looked and storage.is_url(looked[0].path):
        looked = looked[:: max(1, len(looked) // REMOTE_LOOKS)]
    if not looked:
        return found
    looks = storage.in_parallel(lambda info: _look(info, asked, reading), looked, looked[0].path)
    for info, look in zip(looked, looks, strict=True):
        if look.problem is not None:
            said = look.problem.replace("FILE", info.path)
            raise RequestError(f"--input {info.path} {said}.")
        found[info.path] = look.format
    return found


def _look(info: FileInfo, asked: Format | None, reading: Reading) -> _Look:
    named = asked or formats.from_suffix(info.path) or Format("jsonl")
    compression = formats.compression_of(info.path)
    try:
        head = storage.read_head(info.path, detect.HEAD)
    except OSError:  # the job will say so, for this file, with all others done
        return _Look(Format(named.name, compression), None)
    real = detect.compression_of(head)
    if real is None and compression is not None and not detect.is_text(head):
        real = compression  # damaged from its first byte on
    text, whole = detect.unpacked(head, real) if real else (head, len(head) == info.size)
    certain = detect.format_of(text)
    if certain is None and asked is None:
        named = Format(formats.find(named.name, reading).really(text, whole))
    if certain is not None and asked is None:
        named = Format(certain)
    elif certain not in (None, named.name, formats.find(named.name).like):
        said = f"is of format {certain}, and --input-format says {named.name}"
        return _Look(Format(named.name, real), said)
    problem = detect.foreign(text) or formats.find(named.name, reading).problem(text, whole)
    return _Look(Format(named.name, real), problem)
