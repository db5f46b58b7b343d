"""Models that get into trouble, told by environment variables what to do and when.

``TROUBLE`` is the path of a file: while it is there, a record with ``"fatal": true`` gets the model
into the trouble that the file's text names; with the file removed the model is repaired.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from small_models import Doubler


def _hide_input() -> None:
    os.rename(os.environ["HIDE"], os.environ["HIDE"] + ".hidden")


def _wait() -> None:
    while Path(os.environ["TROUBLE"]).exists():
        time.sleep(0.02)


def _gate() -> None:
    """Wait until the file has another word, then do as it says; at "pass" there is nothing."""
    while (word := Path(os.environ["TROUBLE"]).read_text()) == "gate":
        time.sleep(0.02)
    TROUBLES[word]()


TROUBLES = {
    "wait": _wait,
    "gate": _gate,
    "pass": lambda: None,
    # to this thread: a signal to the process may find another one, a while later
    "segfault": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sleep": lambda: time.sleep(1000),
    "hold the interpreter lock": lambda: ctypes.PyDLL(None).sleep(1000),
    "hide the input": _hide_input,
}


def get_into_trouble() -> None:
    """Do what the file that ``TROUBLE`` names says, if it is there."""
    trouble = Path(os.environ["TROUBLE"])
    if trouble.exists():
        TROUBLES[trouble.read_text()]()


class Troubled(Doubler):
    """In trouble at the fatal record, once ``TROUBLE_AFTER`` (if it is set) has five files."""

    thread_safe = True

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if data.get("fatal") and Path(os.environ["TROUBLE"]).exists():
            manifests = os.environ.get("TROUBLE_AFTER")
            while manifests and len(os.listdir(manifests)) < 5:
                time.sleep(0.01)
            time.sleep(0.1)  # for the news of them to be on their way
            get_into_trouble()
        return super().predict(data)


class TroubledWhileLoading(Doubler):
    """In trouble before there is an object."""

    def __init__(self) -> None:
        get_into_trouble()


class Recorded(Doubler):
    """Writes the ``n`` of each record that it is given into the file that ``RECORD_LOG`` names.

    Its version is what ``MODEL_VERSION`` says; each record takes it ``RECORD_SECONDS``.
    """

    thread_safe = True

    def __init__(self, seconds: float | None = None) -> None:
        self._log = os.open(os.environ["RECORD_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        said = float(os.environ.get("RECORD_SECONDS", "0"))
        self._seconds = said if seconds is None else seconds

    @property
    def version(self) -> str:
        """The model's version."""
        return os.environ.get("MODEL_VERSION", "1.0")

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        os.write(self._log, b"%d\n" % data["n"])
        time.sleep(self._seconds)
        return super().predict(data)


class Flaky(Doubler):
    """Fails at random, differently at every attempt."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one, or not; the prediction tells which record it is for."""
        if self._random.random() < 0.5:
            raise RuntimeError("not today")
        return {"n": data["n"], **super().predict(data)}


class OnlyHere(Doubler):
    """Cannot be built where there is no ``ONLY_HERE``."""

    def __init__(self) -> None:
        os.environ["ONLY_HERE"]
