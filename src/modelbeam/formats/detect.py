"""What a file is, by its first bytes, whatever it is called."""

from __future__ import annotations

import bz2
import contextlib
import zlib
from typing import Any

HEAD = 64 << 10
"""Bytes of a file that are looked at."""

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"ORC", "ORC", ""),
    (b"\xfd7zXZ\x00", "xz", "unpack it (xz -d), or pack it with gzip or zstd"),
    (b"\x04\x22\x4d\x18", "lz4", "unpack it (lz4 -d), or pack it with gzip or zstd"),
    (b"\xff\x06\x00\x00sNaPpY", "Snappy", "unpack it, or pack it with gzip or zstd"),
    (b"PK\x03\x04", "a zip archive", "unpack it (unzip)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it (7z x)"),
    (b"SQLite format 3\x00", "an SQLite database", "export its rows as JSON Lines"),
    (b"%PDF", "a PDF document", ""),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x89HDF", "HDF5", ""),
    (b"\x80\x02", "a pickle", ""),
    (b"\x80\x03", "a pickle", ""),
    (b"\x80\x04", "a pickle", ""),
    (b"\x80\x05", "a pickle", ""),
    (b"\x7fELF", "a program", ""),
    (b"<?xml", "XML", "turn it into JSON Lines"),
    (b"<!DOCTYPE", "a web page", "perhaps what was downloaded is an error or a login page"),
    (b"<html", "a web page", "perhaps what was downloaded is an error or a login page"),
)

_FORMATS = {
    b"PAR1": "parquet",
    b"PARE": "parquet",
    b"ARRO": "arrow",
    b"FEA1": "arrow",
    b"\xff\xff\xff\xff": "arrow",
    b"Obj\x01": "avro",
}

_OTHERS_BEGIN = {magic[:1] for magic, _, _ in _OTHERS}

_UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def compression_of(head: bytes) -> str | None:
    """``gzip``, ``bzip2`` or ``zstd`` if the bytes begin as these do, else ``None``."""
    for magic, name in _COMPRESSIONS.items():
        if head.startswith(magic):
            return name
    skippable = len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
    return "zstd" if skippable else None


def format_of(head: bytes) -> str | None:
    """The name of the format whose files begin like this, if only its files do."""
    return _FORMATS.get(head[:4])


def unpacked(head: bytes, compression: str) -> tuple[bytes, bool]:
    """The beginning of what is compressed, and whether that is all of it.

    Of damaged data there is nothing; reading will tell.
    """
    with contextlib.suppress(Exception):
        stream = _decompressor(compression)
        return bytes(stream.decompress(head, HEAD)), stream.eof and not stream.unused_data
    return b"", False


def _decompressor(compression: str) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(31)
    if compression == "bzip2":
        return bz2.BZ2Decompressor()
    try:
        from compression.zstd import DecompressionParameter, ZstdDecompressor
    except ImportError:  # before Python 3.14
        from backports.zstd import DecompressionParameter, ZstdDecompressor
    return ZstdDecompressor(options={DecompressionParameter.window_log_max: 31})


def is_text(head: bytes) -> bool:
    """Whether the bytes may be text in UTF-8: no control characters but white space."""
    return not any(byte < 9 or 13 < byte < 32 for byte in head[:4096])


def foreign(head: bytes) -> str | None:
    """If the bytes are certainly no text in UTF-8: what they are, and what to do about it."""
    for magic, name, remedy in _OTHERS if head[:1] in _OTHERS_BEGIN else ():
        if head.startswith(magic):
            return f"is {name}, which this version does not read" + (remedy and f": {remedy}")
    text = head.lstrip(b" \t\r\n")
    for name, known in (("UTF-32", _UTF_32), ("UTF-16", _UTF_16)):
        if head.startswith(known):
            return _encoded(name)
    if text[:2] in (b"{\x00", b"[\x00", b'"\x00'):
        return _encoded("UTF-32LE" if text[:4] == text[:1] + b"\x00\x00\x00" else "UTF-16LE")
    if head[:1] == b"\x00" and head[1:2] in (b"{", b"["):
        return _encoded("UTF-16BE")
    if head[:3] == b"\x00\x00\x00" and head[3:4] in (b"{", b"["):
        return _encoded("UTF-32BE")
    return None


def _encoded(name: str) -> str:
    return f"is {name}, and lines are read as UTF-8: iconv -f {name} -t UTF-8 FILE > utf-8.jsonl"
