"""Who a lane is: a name that its next self has again.

The same name back after a kill ends the dead one's transaction and takes its partitions at once;
another name would wait for both to time out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from contextlib import suppress


class Numbered:
    """A lane's number in a run on an engine, where whoever starts lanes again gives them theirs.

    Args:
        group: the consumer group.
        number: the lane's.

    Attributes:
        name: group and number.
    """

    def __init__(self, group: str, number: int) -> None:
        self.name = f"{group}-engine-{number}"

    def release(self) -> None:
        """There is nothing to let go."""


class Identity:
    """A number of a group on this machine: the lowest that is free; held until it is released.

    The lock on its file ends with this process, however that ends.

    Args:
        group: the consumer group.

    Attributes:
        name: group, machine and number.
    """

    def __init__(self, group: str) -> None:
        folder = os.path.join(tempfile.gettempdir(), f"modelbeam-lanes-{os.getuid()}")
        digest = hashlib.sha256(group.encode()).hexdigest()[:16]
        for number in range(10_000):
            self._path = os.path.join(folder, f"{digest}-{number}")
            held = self._held()
            if held is not None:
                self._handle = held
                self.name = f"{group}-{socket.gethostname()}-{number}"
                return
        raise OSError(f"no number is free in {folder}")

    def _held(self) -> int | None:
        """The locked file, or ``None`` if another process holds it."""
        while True:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # the folder has just been removed, as it was empty
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), os.stat(self._path)):
                    return handle
            except BlockingIOError:
                os.close(handle)
                return None
            except FileNotFoundError:  # it was released between the two calls
                pass
            os.close(handle)

    def release(self) -> None:
        """Let the number go."""
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._handle)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self._path))
