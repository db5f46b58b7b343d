"""Locks on files of this machine: who is at work in a directory. A process that dies lets go."""

from __future__ import annotations

import time
from typing import BinaryIO

from modelbeam import storage

TRIES, PAUSE = 10, 0.02
"""How often, and after how many seconds, a lock is tried again: whoever asks whether it is held
(:func:`held`) holds it for a moment."""


def hold(path: str, *, shared: bool = False) -> BinaryIO | None:
    """Take a lock until the handle is closed.

    Args:
        path: of a file, made if it is not there.
        shared: whether others may hold it too, if they share it.

    Returns:
        The handle; ``None`` in a store, which has no locks.

    Raises:
        BlockingIOError: somebody has it.
    """
    if storage.is_url(path):
        return None
    import fcntl

    handle = open(path, "ab")  # noqa: SIM115
    wanted = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(handle, wanted)
            return handle
        except BlockingIOError:
            if not left:
                handle.close()
                raise
            time.sleep(PAUSE)
        except BaseException:
            handle.close()
            raise
    raise AssertionError("a lock is taken or it is not")


def held(path: str) -> bool:
    """Whether somebody holds the lock; of a store nobody can tell, so nobody does."""
    if storage.is_url(path):
        return False
    import fcntl

    try:
        with open(path, "rb+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is not there, or is nobody's business
        return False
    return False
