"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from modelbeam.errors import InterruptedRunError


def on_stop(handler: Callable[..., NoReturn] | signal.Handlers) -> None:
    """Have Ctrl-C and SIGTERM answered by ``handler``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def stoppable() -> None:
    """Have Ctrl-C and SIGTERM end the job that begins now with ``KeyboardInterrupt``."""
    sys.unraisablehook = stop_again
    on_stop(end_the_job)


def end_at_once(*_: object) -> NoReturn:
    """Before a job runs there is nothing to tidy, and imports in C must not be interrupted."""
    os.write(2, b"modelbeam: Stopped.\n")
    os._exit(InterruptedRunError.exit_code)


def end_the_job(*_: object) -> NoReturn:
    on_stop(signal.SIG_IGN)  # the first one is being dealt with
    raise KeyboardInterrupt


def on_hangup(reload: Callable[[], None]) -> None:
    """Have SIGHUP load the model anew; from a terminal that is closed it ends the job as Ctrl-C.

    A process that was told to live on without its terminal (``nohup``) does so.
    """
    kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    from_terminal = not kept and _has_terminal()

    def answer(*_: object) -> None:
        if from_terminal and not _has_terminal():
            end_the_job()
        reload()

    signal.signal(signal.SIGHUP, answer)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def stop_again(lost: Any) -> None:
    """Repeat a Ctrl-C that came while Python ran a finalizer, which swallows what is raised in it.

    Set as ``sys.unraisablehook``; the alarm goes off when the finalizer is over.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, end_the_job)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
    else:
        sys.__unraisablehook__(lost)
