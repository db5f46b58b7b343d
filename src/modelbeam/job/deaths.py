"""Traces of workers that died on an engine, in the job's state.

On this machine the coordinator sees a process die. On an engine nobody of ours does: the worker
that could tell is the one that is dead. So an attempt at a split leaves a mark while it goes on;
who finds the mark of another knows that its worker died over this split. What was found out stands
beside the marks, a small file a death and a record, so that all workers of a run count together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from modelbeam import storage
from modelbeam.errors import TooManyCrashesError
from modelbeam.storage import join

_MARK, _RECORD, _DEATH = ".begun", ".record", ".death"


class Trace(NamedTuple):
    """What an attempt finds of one before it.

    Attributes:
        died: whether a worker died over the split, or was ended in the middle of it.
        counts: whether that was in this very run.
    """

    died: bool
    counts: bool


class Deaths:
    """The workers of one run that died, and the records that killed the model's process.

    Args:
        state: the job's state.
        run: tells this run from an earlier one that it resumes, which counts for itself.
        limit: how many records and deaths without a guilty record there may be.
    """

    def __init__(self, state: str, run: str, limit: int) -> None:
        self._state, self._run, self._limit = state, run, limit
        self._directory = join(state, "deaths")

    @contextlib.contextmanager
    def marked(self, key: str) -> Iterator[Trace]:
        """Around an attempt at a split that may kill this very process.

        Where a worker was ended for another reason, or two attempts run at once, a mark only makes
        an attempt careful for nothing.

        Args:
            key: the split's.

        Yields:
            What an earlier attempt has left.
        """
        path = join(self._state, "attempts", key + _MARK)
        trace = Trace(died=False, counts=False)
        with contextlib.suppress(OSError):  # storage that fails is told of by the attempt itself
            trace = self._look(path)
            storage.write_atomically(path, self._run.encode())
        try:
            yield trace
        finally:
            with contextlib.suppress(OSError):
                storage.remove([path])

    def _look(self, path: str) -> Trace:
        try:
            left = storage.read_bytes(path)
        except FileNotFoundError:
            return Trace(died=False, counts=False)
        return Trace(died=True, counts=left == self._run.encode())

    def traces(self) -> frozenset[str]:
        """The marks that attempts of this run have not taken away, and what else was left."""
        directory = join(self._state, "attempts")
        marks = [name for name in storage.names_in(directory) if name.endswith(_MARK)]
        ours = [name for name in marks if self._look(join(directory, name)).counts]
        return frozenset([*ours, *(self._names() if ours else [])])

    def _names(self) -> list[str]:
        """What was written down; not what another worker is about to write."""
        names = storage.names_in(self._directory)
        return [name for name in names if name.endswith((_RECORD, _DEATH))]

    def died(self, key: str, place: str) -> None:
        """A worker died over a split.

        Raises:
            TooManyCrashesError: that was one too many.
        """
        self._add(key + _DEATH, "died with its worker", place)

    def blame(self, key: str, number: int, ending: str, place: str) -> None:
        """A record killed a fresh process by itself, or took too long in one.

        Args:
            key: the split's.
            number: which one of the split it is.
            ending: how the process ended.
            place: where the record is, about.

        Raises:
            TooManyCrashesError: that was one too many.
        """
        self._add(f"{key}-{number}{_RECORD}", ending, place)

    def _add(self, name: str, ending: str, place: str) -> None:
        storage.make_directory(self._directory)
        content = json.dumps({"run": self._run, "ending": ending, "place": place}).encode()
        storage.write_atomically(join(self._directory, name), content)
        found = self.described()
        if sum(max(1, crash["records"]) for crash in found) > self._limit:
            raise too_many(self._limit, place)

    def described(self) -> tuple[dict[str, Any], ...]:
        """All of this run, one for each split, as ``run.json`` has them."""
        found: dict[str, dict[str, Any]] = {}
        for name in self._names():  # records first: they know the ending
            content = json.loads(storage.read_bytes(join(self._directory, name)))
            if content["run"] != self._run:
                continue
            record = name.endswith(_RECORD)
            key = name.rpartition("-")[0] if record else name.removesuffix(_DEATH)
            new = {"peak_memory": 0, "places": [content["place"]], "records": 0}
            crash = found.setdefault(key, {"ending": content["ending"], **new})
            crash["records"] += record
        return tuple(found.values())


def too_many(limit: int, place: str) -> TooManyCrashesError:
    """The error for more crashes than ``--max-crashes`` allows, the last one in ``place``."""
    return TooManyCrashesError(
        f"More than {limit} records or processes (--max-crashes) killed the process that holds the "
        f"model or ran out of time, the last in {place}. Nothing was published. Fix the model, or "
        f"allow more with --max-crashes, then run the same command with --resume."
    )
