"""The steps of a job on this machine: a pool of processes does the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam

from modelbeam.beam.pools import pools


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

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        """Predict the split that has this index; yields the index under one key."""
        pool = self._pool
        if pool is None:  # it has been closed: the job is over
            return
        split = pool.splits[element]
        try:
            manifest = pool.predict(split)
        except Exception as error:
            pool.stop(error)
            return
        if manifest is not None:
            yield 0, element


class PublishSplitsInPool(beam.DoFn):
    """Has a local pool publish once every split is committed.

    Args:
        pool: the pool's name; it keeps the splits and the description of the run.
    """

    def __init__(self, pool: str) -> None:
        self._pool_name = pool

    def process(self, element: tuple[int, Iterable[int]]) -> None:
        """Publish; ``element`` holds the indices of the splits that are done."""
        pool = pools.get(self._pool_name)
        if pool is not None and set(element[1]) == set(range(len(pool.splits))):
            pool.publish()
