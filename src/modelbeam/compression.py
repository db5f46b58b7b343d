"""Compressed streams: gzip, bzip2 and Zstandard, each by a library and imported only when met."""

from __future__ import annotations

from typing import Any, BinaryIO, cast


def decompressed(handle: BinaryIO, compression: str) -> BinaryIO:
    """A stream of what is compressed in ``handle`` (``gzip``, ``bzip2`` or ``zstd``)."""
    return cast(BinaryIO, _compressing_file(compression)(handle, mode="rb"))


def compressed(handle: BinaryIO, compression: str) -> BinaryIO:
    """A stream whose bytes are compressed into ``handle``; closing it leaves ``handle`` open."""
    return cast(BinaryIO, _compressing_file(compression)(handle, mode="wb"))


def _compressing_file(compression: str) -> Any:
    if compression == "gzip":
        import gzip

        return lambda handle, mode: gzip.GzipFile(fileobj=handle, mode=mode, mtime=0)
    if compression == "bzip2":
        import bz2

        return bz2.BZ2File
    try:
        from compression.zstd import ZstdFile
    except ImportError:  # before Python 3.14
        from backports.zstd import ZstdFile
    return ZstdFile
