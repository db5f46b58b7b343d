"""Whose turn it is: one model object is in one call at a time, whatever threads there are.

The threads of a process decode, encode and write side by side; the model's calls are made one
after another, in the context (``contextvars``: ``numpy.seterr``, ``decimal``) in which the model
was built. A class that says ``thread_safe = True`` is called by several threads at once.

What is here belongs to the process, not to a model, since one process may hold several models:

- Until a first call has returned, only one thread is at work: what a model imports late, in its
  first call, is then imported before a second thread can see half of it.
- A thread may ask to be alone: the others stop where they next wait for a model, or begin a split.
"""

from __future__ import annotations

import contextvars
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_changed = threading.Condition()
_at_work: set[int] = set()
"""The threads that are within :func:`at_work` and not waiting for anything here."""


class _State:
    """What the threads of this process know of each other; guarded by ``_changed``.

    Attributes:
        called: whether a model's first call has returned.
        first: the thread that works by itself until then.
        alone: the thread that is, or is about to be, alone.
        in_calls: seconds that models' calls took.
        since: when the call began that is going on, if one is.
        begun: how many calls have begun.
        inside: how many go on.
        done: counts the records that a call over many has done so far.
    """

    called = False
    first: int | None = None
    alone: int | None = None
    in_calls = 0.0
    since: float | None = None
    begun = 0
    inside = 0
    done: Callable[[], int] = int


_mine = threading.local()
_forks = 0


def _forked() -> None:
    """In a child: there is but one thread, and what others were about to do here is nobody's."""
    global _forks, _changed
    _forks += 1
    getattr(_mine, "coming", []).clear()
    _changed = threading.Condition()
    _at_work.intersection_update({threading.get_ident()})
    _State.first = _State.alone = None


os.register_at_fork(after_in_child=_forked)


def forks() -> int:
    """How often this process and those before it were forked, to be told to what follows."""
    return _forks


def end_if_forked(since: int) -> None:
    """End this process at once if it is a child that the model forked in code that returned.

    A process that was forked before that is one like any other.

    Args:
        since: the :func:`forks` when the model's code was entered.
    """
    if _forks != since:
        os._exit(0)


@contextmanager
def coming(records: list[Any]) -> Iterator[Iterator[Any]]:
    """What a loop that calls a model for each record goes over.

    In a child that the model forks nothing more comes, so that the loop need not look for it after
    each call.

    Args:
        records: a list of the caller's own.
    """
    before = getattr(_mine, "coming", [])
    _mine.coming = records
    try:
        yield iter(records)
    finally:
        _mine.coming = before


@contextmanager
def at_work() -> Iterator[None]:
    """Around all work of a thread on a split or a batch, from reading to writing.

    It waits until a first call has returned where another thread is about to make it, and while
    another is :func:`alone`.
    """
    me = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: _State.alone is None and (_State.called or _State.first is None))
        if not _State.called:
            _State.first = me
        _at_work.add(me)
    try:
        yield
    finally:
        with _changed:
            _at_work.discard(me)
            if _State.first == me:
                _State.first = None
            _changed.notify_all()


SECONDS_TO_BE_ALONE = 10.0
"""How long is waited for others to stop; a call that takes longer is not waited for."""


@contextmanager
def alone() -> Iterator[None]:
    """Nothing else of ours runs in this process meanwhile: no call, no decoding, no encoding.

    But a call of a model that is safe for threads, or a read or write, may take for ever: what goes
    on for longer than some seconds goes on beside.
    """
    me = threading.get_ident()
    with _changed:
        working = me in _at_work
        _at_work.discard(me)
        _changed.notify_all()
        _changed.wait_for(lambda: _State.alone is None)
        _State.alone = me
        _changed.wait_for(lambda: not _at_work, SECONDS_TO_BE_ALONE)
        if working:
            _at_work.add(me)
    try:
        yield
    finally:
        with _changed:
            _State.alone = None
            _changed.notify_all()


def seconds_in_calls() -> float:
    """How long models' calls took in this process so far, the one that goes on included."""
    since = _State.since
    return _State.in_calls + (time.perf_counter() - since if since is not None else 0.0)


def seconds_waited() -> float:
    """How long this thread has waited for its turns so far."""
    waited: float = getattr(_mine, "waited", 0.0)
    return waited


def watch(done: Callable[[], int]) -> None:
    """The next call is over many records; ``done`` tells how many it has done."""
    _State.done = staticmethod(done)


def sign_of_life() -> tuple[tuple[int, int], bool]:
    """What differs once a call or a record is done, and whether a call goes on."""
    return (_State.begun, _State.done()), _State.inside > 0


class Turns:
    """The turns of one model object; made in the thread and the context that built the model."""

    def __init__(self) -> None:
        self.thread_safe = False
        self._taken = False
        self._context = contextvars.copy_context()

    @staticmethod
    def called() -> bool:
        """Whether a first call of any model has returned in this process."""
        return _State.called

    def use(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that uses the model's own code, such as its schema, in its turn."""
        with self._turn():
            return self._run(function, *args, **kwargs)

    def predict(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that has the model predict, in its turn.

        In a child that the model forked, and that returns from the call, nothing goes on: it ends.
        """
        with self._turn(first=True):
            return self._run(function, *args, **kwargs)

    def _run(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        context = self._context.copy() if self.thread_safe else self._context
        since = forks()
        try:
            return context.run(function, *args, **kwargs)
        finally:
            end_if_forked(since)

    @contextmanager
    def _turn(self, first: bool = False) -> Iterator[None]:
        me = threading.get_ident()
        asked = time.perf_counter()
        with _changed:
            working = me in _at_work
            _at_work.discard(me)
            if _State.alone is not None:
                _changed.notify_all()
            _changed.wait_for(
                lambda: _State.alone in (None, me) and (self.thread_safe or not self._taken)
            )
            self._taken = True
            if working:
                _at_work.add(me)
            _State.begun += 1
            _State.inside += 1
            began = _State.since = time.perf_counter()
            _mine.waited = seconds_waited() + began - asked
        try:
            yield
        finally:
            with _changed:
                self._taken = False
                _State.inside -= 1
                _State.in_calls += time.perf_counter() - began
                _State.since = None
                if first:
                    _State.called = True
                    _State.first = None
                _changed.notify_all()


_of_objects: weakref.WeakValueDictionary[int, Turns] = weakref.WeakValueDictionary()


def turns_of(model: object) -> Turns:
    """The turns of a model object: the same for everyone who holds the same object.

    Whoever asks must keep both; a class or a module may be asked for too.
    """
    with _changed:
        turns = _of_objects.get(id(model))
        if turns is None:
            turns = _of_objects[id(model)] = Turns()
            turns.thread_safe = getattr(type(model), "thread_safe", False) is True
        return turns


def is_ctrl_c(error: BaseException) -> bool:
    """Whether what a call raised is the user's Ctrl-C, and not the model's doing.

    Python raises it in the main thread only, and only where SIGINT is not ignored.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )
