"""The steps of a job on this machine: a pool of processes does the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam

from modelbeam.beam.pools import pools
from modelbeam.sinks import sink_of
from modelbeam.sources.splits import Split


class PredictSplitInPool(beam.DoFn):
    """Has one split predicted and committed by a local pool; a committed one is skipped.

    It never raises: Beam would print the traceback and change the exception's text. The pool's
    owner reports what failed.

    Args:
        pool: the pool's name.
    """

    def __init__(self, pool: str) -> None:
        self._pool_name = pool

    def setup(self) -> None:
        """Find the pool."""
        self._pool = pools.get(self._pool_name)

    def process(self, element: str) -> Iterator[tuple[int, int]]:
        """Predict the split that ``element`` describes; yields its index under one key."""
        pool = self._pool
        if pool is None:  # it has been closed: the job is over
            return
        split = Split.from_json(element)
        try:
            task = pool.wait_open()
            manifest = sink_of(task.state, task.output, task.fingerprint).committed(split)
            if manifest is None:
                manifest = pool.predict(split)
            else:
                pool.skip(split, manifest)
        except Exception as error:
            pool.stop(error)
            return
        if manifest is not None:
            yield 0, split.index


class PublishSplitsInPool(beam.DoFn):
    """Has a local pool publish once every split is committed.

    Args:
        splits: all of the job.
        pool: the pool's name; it keeps the description of the run.
    """

    def __init__(self, splits: list[Split], pool: str) -> None:
        self._splits = [split.to_json() for split in splits]
        self._pool_name = pool

    def process(self, element: tuple[int, Iterable[int]]) -> None:
        """Publish; ``element`` holds the indices of the splits that are done."""
        pool = pools.get(self._pool_name)
        if pool is not None and set(element[1]) == set(range(len(self._splits))):
            pool.publish([Split.from_json(text) for text in self._splits])
