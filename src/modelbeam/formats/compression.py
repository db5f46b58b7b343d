"""Compressed streams: gzip, bzip2 and Zstandard, each by a library and imported only when met."""

from __future__ import annotations

from typing import Any, BinaryIO, cast


def decompressed(handle: BinaryIO, compression: str) -> BinaryIO:
    """A stream of what is compressed in ``handle`` (``gzip``, ``bzip2`` or ``zstd``)."""
    if compression == "bzip2":
        return cast(BinaryIO, _Bzip2Reader(handle))
    if compression == "zstd":
        return cast(BinaryIO, _zstd(handle))
    return cast(BinaryIO, _compressing_file(compression)(handle, mode="rb"))


LARGEST_WINDOW = 31
"""Binary logarithm of the largest window of Zstandard: 2 GiB, of which only what the data needs is
taken. Archives made with ``zstd --long`` have such ones."""


def _zstd(handle: BinaryIO) -> Any:
    try:
        from compression.zstd import DecompressionParameter, ZstdFile
    except ImportError:  # before Python 3.14
        from backports.zstd import DecompressionParameter, ZstdFile
    options = {DecompressionParameter.window_log_max: LARGEST_WINDOW}
    return ZstdFile(handle, mode="rb", options=options)


def compressed(handle: BinaryIO, compression: str) -> BinaryIO:
    """A stream whose bytes are compressed into ``handle``; closing it leaves ``handle`` open."""
    return cast(BinaryIO, _compressing_file(compression)(handle, mode="wb"))


def _compressing_file(compression: str) -> Any:
    if compression == "gzip":
        import gzip

        return lambda handle, mode: gzip.GzipFile("", mode, fileobj=handle, mtime=0)
    if compression == "bzip2":
        import bz2

        return bz2.BZ2File
    try:
        from compression.zstd import ZstdFile
    except ImportError:  # before Python 3.14
        from backports.zstd import ZstdFile
    return ZstdFile


class _Bzip2Reader:
    """Reads bzip2 streams one after another.

    ``bz2.BZ2File`` takes a damaged second stream for rubbish to be passed over in silence.
    """

    def __init__(self, handle: BinaryIO) -> None:
        import bz2

        self._handle = handle
        self._new = bz2.BZ2Decompressor
        self._stream = bz2.BZ2Decompressor()
        self._begun = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end.

        Raises:
            OSError: what comes is not bzip2.
            EOFError: the file ends within a stream.
        """
        while True:
            data = b""
            if self._stream.eof:
                data = self._stream.unused_data or self._handle.read(256 << 10)
                if not data:
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input:
                data = self._handle.read(256 << 10)
                if not data and self._begun:
                    raise EOFError("the file ends within a stream")
                if not data:
                    return b""
            self._begun = True
            made = self._stream.decompress(data, size)
            if made:
                return made
