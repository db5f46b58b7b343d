"""The process that holds the model: it loads it, predicts splits in threads, and never lets its
death be anything but one clear error in the process that started it.

It imports neither Beam nor the command line. Messages are pickled tuples over a socket:

    in   ("load", load),
         ("split", number, split, task),
         ("sample", number, piece, records, task), ("batch", number, records, batch size),
         ("validate", number, record), ("lane", number, job, turns), ("stop", 0) for lanes,
         ("recent", number) for what a lane has predicted last, ("try", number, pairs, job, schema)
    out  ("loaded", info, bytes) or ("refused", error), ("progress", number, progress),
         ("measured", shares) once, ("beat", token, whether in a call, peak memory) twice a second,
         ("spent", seconds) before a split's ("done", number, result), ("failed", number, error),
         ("ending", reason) if it ends itself
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from modelbeam import storage, streams
from modelbeam.errors import JobError, ModelbeamError
from modelbeam.job.careful import CarefulModel, Load
from modelbeam.job.task import Progress, Sample
from modelbeam.local.hints import Spent
from modelbeam.local.mode import Meter, Shares
from modelbeam.machine import collector_paused
from modelbeam.models.turns import at_work, seconds_in_calls, sign_of_life
from modelbeam.text import describe

BEAT = 0.5
"""Seconds between two signs of life."""


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until it closes it or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # so is a terminal that is closed
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    streams.prepare()
    os.dup2(2, 1)  # stdout is the command's own; a model that prints, prints to stderr
    sys.stdout = sys.stderr
    connection = Connection(descriptor)
    _die_with_parent()
    with contextlib.suppress(EOFError, OSError):
        _Server(connection).serve()
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent() -> None:
    """On Linux, be killed when the parent dies, even while the model holds the interpreter lock."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _Server:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._model: Any = None
        self._meter: Meter | None = None
        self._began: float | None = None
        self._stopping = threading.Event()
        self._lane_at_work: Any = None

    def serve(self) -> None:
        """Load the model, then answer requests until the socket ends."""
        with collector_paused():
            # what every model needs, while the parent starts
            from modelbeam.job.warm import warm_up

            _, load = self._connection.recv()
            storage.configure(load.flags)
            if not self._load(load):
                return
            warm_up(self._model.info)
        gc.freeze()  # what is loaded stays
        self._meter = Meter(self._model.turns.thread_safe, self._measured)
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        threads = ThreadPoolExecutor(load.slots, "split")  # never waited for: the end is the end
        while True:
            kind, number, *rest = self._connection.recv()
            if kind == "stop":
                self._stopping.set()
                continue
            if kind == "recent":  # at once: the lane has the thread
                lane = self._lane_at_work
                self._send("done", number, () if lane is None else lane.recent)
                continue
            threads.submit(self._answer, kind, number, rest)

    def _load(self, load: Load) -> bool:
        from modelbeam import models

        before = _resident_bytes()
        try:
            if load.careful is None:
                self._model = models.load(load.target, load.name, load.arguments, load.options)
            else:
                self._model = CarefulModel(load, load.careful)
            self._send("loaded", self._model.info, max(0, _resident_bytes() - before))
        except ModelbeamError as error:
            self._send("refused", with_details(error))
            return False
        return True

    def _beat(self) -> None:
        try:
            while True:
                token, inside = sign_of_life()
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
                self._send("beat", token, inside, peak)
                time.sleep(BEAT)
        except OSError:  # the other end is gone
            return
        except BaseException as error:  # without it nobody can tell work from a hang
            with contextlib.suppress(Exception):
                self._send("ending", f"{type(error).__name__}: {error}")
            os._exit(70)

    def _measured(self, shares: Shares) -> None:
        self._send("measured", shares)

    def _answer(self, kind: str, number: int, rest: list[Any]) -> None:
        try:
            # a lane has a thread of its own for the model's work
            with contextlib.nullcontext() if kind == "lane" else at_work():
                made = self._made(kind, number, rest)
            self._send("done", number, made)
        except ModelbeamError as error:
            self._send("failed", number, with_details(error))
        except BaseException as error:
            wrapped = JobError(
                f"The split failed with {type(error).__name__}: {error}. This is a defect of "
                f"modelbeam; run with --verbose and report it."
            )
            wrapped.__cause__ = error
            self._send("failed", number, with_details(wrapped))

    def _made(self, kind: str, number: int, rest: list[Any]) -> Any:
        if kind == "split":
            return self._split(number, *rest)
        if kind == "sample":
            return self._sample(*rest)
        if kind == "validate":
            return self._validate(*rest)
        if kind == "lane":
            return self._lane(number, *rest)
        if kind == "try":
            return self._problem(*rest)
        from modelbeam.predicting.predictor import picklable, predict

        return picklable(predict(self._model, *rest))

    def _validate(self, record: dict[str, Any]) -> Any:
        """What the schema makes of a record, or the names of its exception and the message."""
        try:
            return self._model.turns.use(self._model.validate, record), None
        except BaseException as error:
            return None, ([cls.__name__ for cls in type(error).__mro__], describe(error))

    def _split(self, number: int, split: Any, task: Any) -> Any:
        from modelbeam.job.split import predict_split

        meter, self._meter = self._meter, None  # the first split is measured

        def report(progress: Progress) -> None:
            if meter is not None:
                meter.note(progress.bytes)
            if isinstance(self._model, CarefulModel):
                self._model.place = f"{progress.path} after byte {progress.offset}"
            self._send("progress", number, progress)

        if isinstance(self._model, CarefulModel):
            manifest = predict_split(split, task, self._model, report)
            self._model.close()
            return manifest, self._model.blamed
        if meter is not None:
            self._began = time.perf_counter()
            meter.begin()
        try:
            manifest = predict_split(split, task, self._model, report)
            if meter is not None:
                meter.note(split.bytes)
        finally:
            if meter is not None:
                meter.end()
        if self._began is not None:
            seconds = time.perf_counter() - self._began
            self._send("spent", Spent(calls=seconds_in_calls(), all=seconds))
        return manifest

    def _lane(self, number: int, job: Any, turns: int | None) -> Any:
        """How far it came, and how many records killed a careful model's process."""
        from modelbeam.kafka.lane import Lane

        def report(progress: Any) -> None:
            self._send("progress", number, progress)

        lane = self._lane_at_work = Lane(job, self._model, report, self._stopping.is_set)
        if not isinstance(self._model, CarefulModel):
            return lane.run(turns), 0
        self._model.place = f"a transaction of {job.input.url}"
        progress = lane.run(turns)
        self._model.close()
        return progress, self._model.blamed

    def _problem(self, pairs: Any, job: Any, schema: dict[str, Any] | None) -> str | None:
        """Why this model cannot go on where another one has predicted some records."""
        from modelbeam.kafka.recent import problem

        return problem(pairs, self._model, job.keep, job.batch_size, schema)

    def _sample(self, piece: Any, records: int, task: Any) -> Sample:
        from modelbeam.job.sample import predict_sample

        return predict_sample(piece, records, task, self._model)

    def _send(self, *message: Any) -> None:
        with self._sending:
            self._connection.send(message)


def with_details(error: ModelbeamError) -> ModelbeamError:
    """Put the traceback's text on the exception, since pickling drops the traceback itself."""
    error.details = "".join(traceback.format_exception(error))
    return error


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
