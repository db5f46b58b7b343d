"""Models that are not made for threads, each in a way of its own; all predict ``{"y": 2 * x}``.

They are right as long as each object is in one call at a time, and nobody imports anything behind
their backs.
"""

from __future__ import annotations

import ctypes
import locale
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from small_models import Doubler, TableDoubler


def doubled(values: Any) -> pa.RecordBatch:
    """A batch of one column."""
    return pa.RecordBatch.from_arrays([pa.array(values)], names=["y"])


class OnSelf(TableDoubler):
    """Keeps a column on ``self`` from one line to the next, as people write it."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        self.x = batch.column("x").to_numpy()
        time.sleep(0.002)
        self.y = 2 * self.x
        time.sleep(0.002)
        return doubled(self.y)


class OneBuffer(TableDoubler):
    """Returns the same array in every call, filled again each time."""

    def __init__(self) -> None:
        self._buffer = np.empty(1 << 20)

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        y = self._buffer[: len(batch)]
        y[:] = 2 * batch.column("x").to_numpy()
        return doubled(y)


class ThreadSafe(TableDoubler):
    """Says that it may be called by several threads, and fails unless it is."""

    thread_safe = True
    inside = 0

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Wait for another thread, at the second call and later."""
        cls = type(self)
        cls.inside += 1
        until = time.monotonic() + 5
        while cls.inside < 3 and time.monotonic() < until and cls.inside != 1:
            time.sleep(0.001)
        return super().predict_table(batch)


class LooksForPolars(TableDoubler):
    """Asks, as scikit-learn does, whether there is Polars in this process.

    The second call asks for so long that what the first one's predictions need is imported beside.
    """

    calls = 0

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        type(self).calls += 1
        until = time.monotonic() + (0.7 if self.calls == 2 else 0)
        while self.calls != 2 or time.monotonic() < until:
            polars = sys.modules.get("polars")
            if polars is not None:
                _ = polars.DataFrame
            if self.calls != 2:
                break
            time.sleep(0.001)
        return super().predict_table(batch)


_cache: dict[str, Any] = {}


class Nasty(TableDoubler):
    """All at once: every kind of state that threads of a process share."""

    qualified_name = "nasty"

    def __init__(self) -> None:
        np.seterr(divide="raise")

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column, by way of everything that is global."""
        import polars
        import sklearn.preprocessing

        if _has_pandas():
            import pandas

            assert pandas.DataFrame is not None
        self.x = batch.column("x").to_numpy()
        if (self.x < 0).any():
            raise ValueError("x is negative")
        _cache["x"] = polars.DataFrame({"x": self.x})
        scaler = sklearn.preprocessing.StandardScaler().fit(self.x.reshape(-1, 1))
        np.random.seed(7)
        time.sleep(0.001)
        noise = np.random.rand(len(self.x))
        np.random.seed(7)
        if not np.array_equal(noise, np.random.rand(len(self.x))):
            raise RuntimeError("somebody drew from the global random state")
        old = locale.setlocale(locale.LC_NUMERIC)
        locale.setlocale(locale.LC_NUMERIC, "C")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                np.float64(1) / np.float64(0)
            except FloatingPointError:
                pass
            else:
                raise RuntimeError("numpy.seterr of the constructor does not hold")
            y = scaler.inverse_transform(scaler.transform(self.x.reshape(-1, 1)))[:, 0]
            time.sleep(0.001)
            if not np.array_equal(_cache["x"]["x"].to_numpy(), self.x):
                raise RuntimeError("somebody changed the cache")
        locale.setlocale(locale.LC_NUMERIC, old)
        return doubled(2 * np.round(y, 6))


def _has_pandas() -> bool:
    from importlib.util import find_spec

    return find_spec("pandas") is not None


class NastyRecord(Doubler):
    """The same for one record: its state is a record's, kept from one line to the next."""

    qualified_name = "nasty_record"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one, which an import within a call and the dict itself may not disturb."""
        import decimal

        self.data = data
        decimal.getcontext().prec = 6
        made = super().predict(self.data)
        self.data = {}
        return made


class Watched(TableDoubler):
    """Notes what is imported from its first call on, and by whom; its output is of every type."""

    qualified_name = "watched"
    before: set[str] | None = None
    own: ClassVar[set[str]] = set()

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column, and import something by itself."""
        watch()
        import colorsys  # noqa: F401 - the model's own, which nobody is to blame for

        y = super().predict_table(batch).column("y")
        n = len(y)
        count = batch.column("x")[0].as_py()
        outputs = {
            0.0: {"y": y},
            1.0: {"y": y, "s": pa.array(["a"] * n)},
            2.0: {"l": pa.array([[0.5]] * n), "t": pa.array([{"a": 1}] * n)},
            3.0: {"f": pa.array(np.full(n, 0.1, np.float32)), "b": pa.array([True] * n)},
            4.0: {"s": pa.array(["a"] * n).dictionary_encode()},
            5.0: {"y": pa.array([float("nan")] * n)},
            6.0: {"d": pa.array([0] * n, pa.timestamp("us", "UTC"))},
        }
        return pa.RecordBatch.from_pydict(outputs[count])


class WatchedBatch(Doubler):
    """The same for lists."""

    def predict_batch(self, data: list[dict[str, Any]]) -> list[Any]:
        """Double them."""
        watch()
        import colorsys  # noqa: F401

        return [{"y": 2 * record["x"], "l": [1], "n": np.float64(1)} for record in data]


class WatchedRecord(Doubler):
    """The same for one."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double it."""
        watch()
        import colorsys  # noqa: F401

        return {**super().predict(data), "n": np.float64(1)}


class _Watch:
    """A finder that finds nothing, and notes what the model itself looks for."""

    def find_spec(self, name: str, *_: Any) -> None:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == __file__ and frame.f_code.co_name != "find_spec":
                Watched.own.add(name)
            frame = frame.f_back  # type: ignore[assignment]


def watch() -> None:
    """Note, at the first call, what there is."""
    if Watched.before is None:
        Watched.before = set(sys.modules)
        sys.meta_path.insert(0, _Watch())  # type: ignore[arg-type]


def late_imports() -> list[str]:
    """What was imported since the first call, but by the model itself."""
    assert Watched.before is not None
    assert "colorsys" in Watched.own
    return sorted(set(sys.modules) - Watched.before - Watched.own)


class OnceOnly(Doubler):
    """Fails at the first try of each record whose ``shy`` is true; odd ones fail for ever."""

    qualified_name = "once_only"

    def __init__(self) -> None:
        self._seen: set[float] = set()

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if data.get("shy") and data["x"] not in self._seen:
            self._seen.add(data["x"])
            raise RuntimeError(f"not ready for {data['x']}")
        return super().predict(data)


class OnceOnlyTable(OnceOnly):
    """The same in columns; a shy record's x is above 1000."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        rows = [{"x": x, "shy": x > 1000} for x in batch.column("x").to_pylist()]
        if len(rows) > 1 and any(row["shy"] and row["x"] not in self._seen for row in rows):
            raise RuntimeError("not ready")
        return pa.RecordBatch.from_pylist([self.predict(row) for row in rows])


class Forks(Doubler):
    """Forks at every record, and returns in the child too."""

    qualified_name = "forks"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if child := os.fork():
            os.waitpid(child, 0)
        return super().predict(data)


class ForksWhenBuilt(Doubler):
    """Forks when it is built, and returns in the child too."""

    def __init__(self) -> None:
        if child := os.fork():
            os.waitpid(child, 0)


class Interrupts(Doubler):
    """Raises, by a record's ``raises``, what is no ``Exception``."""

    qualified_name = "interrupts"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        if name := data.get("raises"):
            raise {"KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}[name]
        return super().predict(data)


class TakesTime(TableDoubler):
    """Is in a call most of the time."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column."""
        time.sleep(0.4)
        return super().predict_table(batch)


class Deadly(Doubler):
    """Dies, or never ends, over some values of x."""

    qualified_name = "deadly"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one, or die."""
        x = data["x"]
        if x == 3:
            ctypes.string_at(0)  # a null pointer, as a library in C may follow one
        if x == 5:
            os._exit(7)
        if x == 10:
            time.sleep(1000)
        if x == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(data)


class DeadlyTable(Deadly):
    """The same in columns."""

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Double a column, or die."""
        rows = [self.predict({"x": x}) for x in batch.column("x").to_pylist()]
        return pa.RecordBatch.from_pylist(rows)


class Sleeper(Doubler):
    """Takes as many seconds as x says."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(data["x"])
        return super().predict(data)


class Brief(Doubler):
    """Takes 5 ms."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(0.005)
        return super().predict(data)


class Slow(Doubler):
    """Takes a second and a half."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(1.5)
        return super().predict(data)


class NoSignOfLife(Doubler):
    """The thread that tells that its process lives dies: at once, or in the first long call.

    ``NO_SIGN_OF_LIFE`` is ``at once``, or the path of a file that the first death removes.
    """

    def __init__(self) -> None:
        from modelbeam.local import process

        when, tell = os.environ["NO_SIGN_OF_LIFE"], process.sign_of_life

        def dies() -> tuple[object, bool]:
            token, inside = tell()
            if when == "at once" or (inside and os.path.exists(when)):
                if when != "at once":
                    os.remove(when)
                raise RuntimeError("no sign of life")
            return token, inside

        process.sign_of_life = dies

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Take a while over the first record."""
        if os.path.exists(os.environ["NO_SIGN_OF_LIFE"]):
            time.sleep(30)
        return super().predict(data)


class Sleepy(Doubler):
    """Takes a millisecond over a record."""

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one."""
        time.sleep(0.001)
        return super().predict(data)


class ShortOfMemory(Doubler):
    """In a process that may have little more memory than it has; what it does then is in ``how``.

    - ``python``: asks Python for more than there is.
    - ``native``: C code does, and writes where ``malloc`` said that there is nothing.
    """

    qualified_name = "short_of_memory"
    more = 256 << 20

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one, with what memory its record asks for."""
        how = data.get("how")
        before = resource.getrlimit(resource.RLIMIT_AS)
        if how:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGESIZE") + self.more
            resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
        try:
            if how == "python":
                bytearray(4 * self.more)
            elif how == "native":
                self._libc.memset(self._libc.malloc(4 * self.more), 1, 4 * self.more)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        return super().predict(data)


class KilledFromOutside(Doubler):
    """Says in a file who it is and waits for its end; ``once``: unless it has been there before."""

    qualified_name = "killed_from_outside"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double one, if nobody kills it meanwhile."""
        how, here = data.get("how"), Path(data.get("here", ""))
        if how == "always" or (how == "once" and not here.exists()):
            made = here.with_suffix(".part")
            made.write_text(str(os.getpid()))
            made.replace(here)
            time.sleep(60)
        return super().predict(data)
