"""What the formats share whose files are no text: opening, damage, the size of batches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from modelbeam import formats, storage
from modelbeam.formats import compression
from modelbeam.formats.base import Piece, Wanted
from modelbeam.formats.lines import reading

BATCH_BYTES = 4 << 20
"""Bytes of a batch, about."""

MOST_ROWS = {"record": 4096, "batch": 16384, "table": 65536}


@contextmanager
def seekable(piece: Piece) -> Iterator[BinaryIO]:
    """A file that can be read from any place; one that is packed as a whole is unpacked on disk."""
    with ExitStack() as stack:
        handle = stack.enter_context(storage.open_read(piece.path))
        if piece.compression is not None:
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(compression.decompressed(handle, piece.compression), unpacked)
            unpacked.seek(0)
            handle = unpacked
        yield handle


@contextmanager
def created(target: str) -> Iterator[BinaryIO]:
    """A new file, packed as its name says."""
    packed = formats.compression_of(target)
    with storage.create(target) as handle:
        stream = handle if packed is None else compression.compressed(handle, packed)
        yield stream
        if stream is not handle:
            stream.close()


@contextmanager
def whole(piece: Piece, what: str) -> Iterator[None]:
    """Turn what Arrow raises of a damaged file into one message that names it.

    Args:
        piece: of which file.
        what: it should be.
    """
    import pyarrow as pa

    with reading(piece):
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _damaged(what, error) from error
        except OSError as error:
            if error.errno is not None or type(error) is not OSError:
                raise
            raise _damaged(what, error) from error  # Arrow's own, which has no number


def _damaged(what: str, error: Exception) -> OSError:
    return OSError(f"damaged {what}: {' '.join(str(error).split())}")


def rows_a_batch(size: int, rows: int, wanted: Wanted) -> int:
    """How many rows a batch has: enough for a call of the model, in bounded memory.

    Args:
        size, rows: of what the batches are cut from.
        wanted: what is asked for.
    """
    fitting = max(1, BATCH_BYTES // max(1, size // max(1, rows)))
    most = min(fitting, MOST_ROWS[wanted.style])
    if wanted.batch_size is not None and wanted.style != "record":
        most = max(wanted.batch_size, most // wanted.batch_size * wanted.batch_size)
    return int(most)


def path_only(path: str, packed: str | None, name: str) -> Piece:
    """A file that is looked at by itself, without a plan."""
    return Piece(path, 0, None, 0, 0, packed, name, 0)
