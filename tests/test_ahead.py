"""Splits are begun before Beam's pipeline is there, each is done once, and failures are told."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from modelbeam.errors import JobError
from modelbeam.formats import Format
from modelbeam.formats.base import Piece
from modelbeam.job.task import Task
from modelbeam.local.coordinator import Coordinator
from modelbeam.predicting.counts import Counts
from modelbeam.sources.splits import Split


class _Pool:
    """A pool of two, whose processes do nothing; split 3 fails if it is asked for."""

    workers = 2

    def __init__(self, stop_at: int | None = None, wrong: int | None = None) -> None:
        self.changed = threading.Condition()
        self.failure: Exception | None = None
        self.done: list[int] = []
        self.go_on = threading.Event()
        self._stop_at, self._wrong = stop_at, wrong

    def wait_loaded(self) -> None: ...

    def open(self, work: Any, splits: int) -> None: ...

    def stop(self, error: Exception) -> None:
        self.failure = error

    def predict(self, split: Split, _: Task) -> Any:
        if split.index == self._stop_at:
            self.go_on.wait()
        if split.index == self._wrong:
            raise JobError("split 3 cannot be done")
        with self.changed:
            self.done.append(split.index)
        return SimpleNamespace(counts=Counts(read=1, predicted=1), index=split.index)


@pytest.fixture
def splits() -> list[Split]:
    return [Split(at, (Piece(f"{at}.jsonl", 0, 1, 1, 0, None, "jsonl", 1),)) for at in range(12)]


def _opened(pool: Any, splits: list[Split], tmp_path: Any) -> Coordinator:
    coordinator = Coordinator(pool, splits)
    task = Task(str(tmp_path), "f", Format("jsonl"), (), None, 1 << 20)
    coordinator.open(task, len(splits), None)  # type: ignore[arg-type]
    return coordinator


def _until(condition: Any) -> None:
    while not condition():
        threading.Event().wait(0.005)


def test_all_is_done_before_the_pipeline_comes_and_nothing_twice(
    splits: list[Split], tmp_path: Any
) -> None:
    pool = _Pool()
    coordinator = _opened(pool, splits, tmp_path)
    _until(lambda: coordinator.totals().splits == len(splits))
    made = [coordinator.predict(split) for split in reversed(splits)]
    assert [one.index for one in made if one] == list(range(11, -1, -1))  # type: ignore[attr-defined]
    assert sorted(pool.done) == list(range(12))
    assert coordinator.totals().counts.read == 12


def test_once_the_pipeline_is_there_it_says_what_comes_next(
    splits: list[Split], tmp_path: Any
) -> None:
    pool = _Pool(stop_at=0)
    pool.workers = 1
    coordinator = _opened(pool, splits, tmp_path)
    _until(lambda: coordinator._ahead)
    assert coordinator.predict(splits[7]) is not None
    pool.go_on.set()
    assert coordinator.predict(splits[0]) is not None  # it was begun: its result is waited for
    _until(lambda: not any(one.name == "ahead" for one in threading.enumerate()))
    assert pool.done == [7, 0]


def test_what_failed_ahead_fails_the_step(splits: list[Split], tmp_path: Any) -> None:
    pool = _Pool(wrong=3)
    coordinator = _opened(pool, splits, tmp_path)
    _until(lambda: 3 in coordinator._ahead)
    with pytest.raises(JobError, match="split 3 cannot be done"):
        coordinator.predict(splits[3])
