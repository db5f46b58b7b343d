"""The processes that died in a run: what is known of each, how many may be, and what to do."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from modelbeam.errors import TooManyCrashesError
from modelbeam.job.careful import Careful


@dataclass(slots=True)
class Crash:
    """A process that held the model and died, or was ended since a record took too long.

    Attributes:
        ending: how it ended, in words.
        peak_memory: bytes.
        places: what it was working on.
        records: how many records were found to be the cause; 0 if none was, tried with care.
    """

    ending: str
    peak_memory: int
    places: list[str]
    records: int = 0


class Crashes:
    """All crashes of a run.

    Args:
        record_timeout: seconds that a record may take, or ``None``.
        limit: how many records may be found to be a cause, and processes die without one.
    """

    def __init__(self, record_timeout: float | None, limit: int) -> None:
        self.record_timeout, self._limit = record_timeout, limit
        self._all: list[Crash] = []
        self._lock = threading.Lock()

    def add(self, crash: Crash) -> None:
        """A process died.

        Raises:
            TooManyCrashesError: that was one too many.
        """
        with self._lock:
            self._all.append(crash)
            if sum(max(1, crash.records) for crash in self._all) > self._limit:
                places = [place for crash in self._all for place in crash.places]
                raise TooManyCrashesError(
                    f"The process that holds the model died {len(self._all)} times, more than "
                    f"--max-crashes {self._limit} allows; the last one {crash.ending}. It worked "
                    f"on {', '.join(places[-5:])}. Nothing was published. Fix the model, use fewer "
                    f"--workers or a smaller --batch-size if memory was short, then run the same "
                    f"command with --resume."
                )

    def found(self, crash: Crash, records: int) -> None:
        """So many records of a split that it worked on killed a fresh process by themselves."""
        with self._lock:
            crash.records += records

    def careful(self, crash: Crash) -> Careful:
        """How careful a split that a process died over is to be predicted."""
        with self._lock:
            others = [other for other in self._all if other is not crash]
            found = crash.records + sum(max(1, other.records) for other in others)
            return Careful(self.record_timeout, max(0, self._limit - found), self._limit)

    def described(self) -> tuple[dict[str, Any], ...]:
        """All of them, for ``run.json``."""
        with self._lock:
            return tuple(asdict(crash) for crash in self._all)
