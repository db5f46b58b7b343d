"""A model in a process of its own, for records that may kill it or never end.

A split whose process died, or in which a record's time ran out, is tried again with care. What
predicts it then (:class:`CarefulModel`) holds no model: it hands each batch to a fresh process that
does. If that dies, or takes too long, the batch is cut (:func:`.predictor.call_in_batches`, as for
a model that raises) until the record stands alone that kills a fresh process by itself. It becomes
an error line; all others are predicted. None of this costs anything as long as nothing dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from modelbeam import storage
from modelbeam.errors import ModelbeamError
from modelbeam.job.deaths import too_many
from modelbeam.machine import module_path
from modelbeam.models.base import LoadedModel
from modelbeam.models.options import Options
from modelbeam.models.target import Target
from modelbeam.models.turns import Turns
from modelbeam.predicting.predictor import Predictions
from modelbeam.predicting.several import each, info_of

if TYPE_CHECKING:
    from modelbeam.job.description import ModelSpec  # too much for the process of a model

GRACE = 2.0
"""Seconds beyond a record's time in which a process must give a sign of life at all."""


@dataclass(frozen=True, slots=True)
class Careful:
    """How careful to be; plain data.

    Attributes:
        record_timeout: seconds that a record may take, or ``None`` for any time.
        crashes_left: how many more records may kill their process, or processes die for nothing.
        limit: ``--max-crashes``, for the message.
    """

    record_timeout: float | None
    crashes_left: int
    limit: int


class Load(NamedTuple):
    """What a process that is to hold a model is told first; plain data, which may hold secrets.

    Attributes:
        target, name, arguments, options: as :func:`modelbeam.models.load` takes them.
        slots: how many requests it works on at once.
        flags: of Beam's, those that say how storage is reached.
        careful: how careful it is to be with records that may kill the model's process.
    """

    target: Target
    name: str | None
    arguments: dict[str, Any]
    options: Options
    slots: int
    flags: tuple[str, ...]
    careful: Careful | None = None

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        arguments: dict[str, Any],
        slots: int = 1,
        careful: Careful | None = None,
    ) -> Load:
        """A model with the values of its arguments, reached as in this process."""
        flags = storage.configuration()
        return cls(model.target, model.name, arguments, model.options, slots, flags, careful)


class ProcessDiedError(Exception):
    """The process that held the model died over a record.

    Args:
        ending: how it ended, in words.
    """

    def __init__(self, ending: str) -> None:
        super().__init__(f"the process that held the model {ending}")
        self.ending = ending


def ending(code: int) -> str:
    """How a process ended, by the code that ``Popen`` has."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = " (by the system for want of memory, or by hand)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{why}"


class Pulse:
    """Signs of life of a process, and whether it has been in one call for too long."""

    def __init__(self) -> None:
        self.peak = 0
        self.reset()

    def reset(self) -> None:
        """Something new was asked of it."""
        self._token: object = None
        self._inside = True  # it may be so deep in a call that it cannot say so
        self._changed = self._beaten = time.monotonic()

    def beat(self, token: object, inside: bool, peak: int) -> None:
        """A sign of life: what differs once a call or a record is done; whether it is in a call."""
        self._beaten = time.monotonic()
        self.peak = max(self.peak, peak)
        if token != self._token:
            self._changed = self._beaten
        self._token, self._inside = token, inside

    @property
    def still(self) -> float:
        """Seconds since anything was done."""
        return time.monotonic() - self._changed

    def too_long(self, seconds: float | None) -> bool:
        """Whether a call has taken longer, or the process is so stuck that it cannot tell."""
        if seconds is None:
            return False
        silent = time.monotonic() - self._beaten > seconds + GRACE
        return silent or (self._inside and self.still > seconds)


class _Child:
    """One process with the model, asked one thing at a time."""

    def __init__(self, load: Load) -> None:
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {module_path()!r}; "
            f"from modelbeam.local.process import main; main({theirs.fileno()})"
        )
        with theirs:  # closed here once the process has it
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        self.pulse = Pulse()
        self.used = False
        with contextlib.suppress(OSError):  # it is dead already, which the answer will say
            self._connection.send(("load", load))
        self.info = self._answer(None)

    def call(self, kind: str, *arguments: Any, timeout: float | None) -> Any:
        """Ask for something.

        Raises:
            ProcessDiedError: it died over it.
            TimeoutError: a call of the model took longer; the process is gone too.
        """
        self.used = True
        self.pulse.reset()
        with contextlib.suppress(OSError):
            self._connection.send((kind, 0, *arguments))
        return self._answer(timeout)

    def _answer(self, timeout: float | None) -> Any:
        try:
            while True:
                while not self._connection.poll(0.1):
                    if self.pulse.too_long(timeout):
                        self.end()
                        raise TimeoutError(f"no prediction within {timeout:g} s")
                kind, *rest = self._connection.recv()
                if kind == "beat":
                    self.pulse.beat(*rest)
                elif kind in ("loaded", "done"):
                    return rest[0] if kind == "loaded" else rest[1]
                elif kind in ("refused", "failed"):
                    raise rest[-1]
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            self._died()

    def _died(self) -> NoReturn:
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        self.pulse.peak = max(self.pulse.peak, usage.ru_maxrss << 10)
        self._close()
        raise ProcessDiedError(ending(code)) from None

    def end(self) -> None:
        """Kill it."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        self._connection.close()


class CarefulModel(LoadedModel):
    """A model that is elsewhere, in a process that may die; see :func:`.predictor.predict`.

    Args:
        load: what its processes are told.
        careful: the limits.
        tell: told how a process ended that a record killed, or was too slow in, by itself; what it
            raises ends the job.

    Attributes:
        blamed: how many records have killed a fresh process, or taken too long in one.
        deaths: how many processes died, or were ended for being too slow.
        place: where the work is, for messages.

    Raises:
        ModelError: the model cannot be loaded.
        ProcessDiedError: it dies while it is loaded.
    """

    def __init__(
        self,
        load: Load,
        careful: Careful,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.turns = Turns()
        self.apart = self._predict
        self._load = load._replace(careful=None)
        self._careful, self._tell = careful, tell
        self.blamed = self.deaths = 0
        self.place = ""
        self._child: _Child | None = None
        self._each: list[CarefulModel] = []
        if load.target.form != "several":
            self.info = self._ready(fresh=False).info
            return
        # each of several models in a process of its own: what kills one costs no other's prediction
        self.apart, any_number = None, replace(careful, crashes_left=sys.maxsize)
        for one in each(load.target, load.arguments):
            alone = Load(*one, load.slots, load.flags)
            self._each.append(CarefulModel(alone, any_number, self._blame))
        said = load.arguments
        self.members, self.compares = tuple(self._each), said["compares"]
        self.info = info_of(load.target, [one.info for one in self._each], said["route"])

    def _ready(self, fresh: bool) -> _Child:
        if self._child is not None and fresh and self._child.used:
            self._child.end()
            self._child = None
        if self._child is None:
            self._child = _Child(self._load)
        return self._child

    def _predict(self, records: Any, batch_size: int | None, fresh: bool) -> Predictions:
        """Predict records; a record by itself in a process that has predicted nothing yet."""
        made: Predictions = self._call("batch", records, batch_size, fresh=fresh)
        return made

    def validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Have the model's schema look at a record."""
        valid, error = self._call("validate", record, fresh=False)
        if error is not None:
            names, message = error
            raise _same_kind(names)(message)
        return valid  # type: ignore[no-any-return]

    def validate_many(self, records: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """The process that has the model validates lists by itself."""
        return records

    def _call(self, kind: str, *arguments: Any, fresh: bool) -> Any:
        child = self._ready(fresh)
        try:
            return child.call(kind, *arguments, timeout=self._careful.record_timeout)
        except ModelbeamError:
            raise
        except (ProcessDiedError, TimeoutError) as error:
            self._child = None
            self.deaths += 1
            if fresh:
                self._blame(
                    error.ending if isinstance(error, ProcessDiedError) else f"was ended: {error}"
                )
            raise

    def _blame(self, ending: str) -> None:
        self.blamed += 1
        if self._tell is not None:
            self._tell(ending)
        if self.blamed > self._careful.crashes_left:
            raise too_many(self._careful.limit, self.place) from None

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
        for one in self._each:
            one.close()


def _same_kind(names: tuple[str, ...]) -> type[Exception]:
    """An exception class that goes by the same name, and by those of its bases."""
    kind: type[Exception] = Exception
    for name in reversed(names):
        kind = type(name, (kind,), {})
    return kind
