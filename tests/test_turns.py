"""One model object is in one call at a time, and nothing of ours comes in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nasty_models
import numpy as np
import pyarrow as pa
import pytest
from commands import environment, read_lines, shards, write_lines
from crashing import wait_until

import modelbeam
from modelbeam import cli, formats, models
from modelbeam.formats import compression
from modelbeam.formats.layout import OutputColumn
from modelbeam.local.mode import Meter, Shares, processes_pay
from modelbeam.models import turns
from modelbeam.models.turns import Turns, alone, at_work, coming, turns_of
from modelbeam.predicting.failures import Failure
from modelbeam.predicting.outcome import Outcome
from modelbeam.predicting.predictor import CONFIRMED_OF_A_KIND, confirmed, predict_records

ROWS = 20_000


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of x = 0, 0.25, 0.5 …, some ten blocks of it."""
    path = tmp_path_factory.mktemp("numbers") / "in.jsonl"
    return write_lines(path, ({"x": n / 4} for n in range(ROWS)))


def predict(model: str, numbers: Path, output: Path, **settings: Any) -> Any:
    """Run a job in ten splits."""
    return modelbeam.predict(
        model=f"nasty_models:{model}",
        input=str(numbers),
        output=str(output),
        workers=2,
        split_size=numbers.stat().st_size // 10,
        **settings,
    )


# The two faults


@pytest.mark.parametrize("model", ["OnSelf", "LooksForPolars", "OneBuffer"])
def test_a_model_that_is_not_made_for_threads_is_right_in_threads(
    model: str, numbers: Path, tmp_path: Path
) -> None:
    run = predict(model, numbers, tmp_path / "out", worker_mode="threads", batch_size=1000)
    assert run.failed == 0, run.failures
    assert [row["y"] for row in shards(tmp_path / "out")] == [n / 2 for n in range(ROWS)]


# Turns


def in_threads(count: int, function: Callable[[], None]) -> None:
    """Call a function in so many threads at once."""
    threads = [threading.Thread(target=function) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


class Inside:
    """How many threads are in it, and how many there were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self) -> None:
        """Be in it for a moment."""
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.01)
        self.now -= 1


@pytest.mark.parametrize(("thread_safe", "most"), [(False, 1), (True, 4)])
def test_threads_call_one_after_another_unless_the_model_is_safe(
    thread_safe: bool, most: int
) -> None:
    mine, inside = Turns(), Inside()
    mine.thread_safe = thread_safe
    mine.predict(int)

    def work() -> None:
        for _ in range(5):
            with at_work():
                mine.predict(inside)
                mine.use(inside)

    in_threads(4, work)
    assert (inside.most == 1) if most == 1 else (inside.most > 1)


def test_a_class_says_that_it_is_safe_and_an_object_has_one_lock() -> None:
    safe, other = nasty_models.ThreadSafe(), nasty_models.OnSelf()
    assert turns_of(safe).thread_safe
    assert not turns_of(other).thread_safe
    mine = turns_of(other)
    assert turns_of(other) is mine
    one, two = (models.load("cli_models:ready", None, {}) for _ in range(2))
    assert one.turns is two.turns  # the same object by two names
    assert one.turns is not models.load("cli_models:negated", None, {}).turns


def test_who_is_alone_is_alone() -> None:
    mine, others, log = Turns(), Turns(), []
    mine.predict(int)
    busy, stop = Inside(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with at_work():
                busy()  # decodes or encodes
                others.predict(busy)

    def by_myself() -> None:
        for _ in range(5):
            with at_work(), alone():
                before = busy.now
                mine.predict(time.sleep, 0.02)
                log.append((before, busy.now))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    in_threads(2, by_myself)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert log == [(0, 0)] * 10


@pytest.fixture
def untouched() -> Iterator[None]:
    """A process in which no model was called yet."""
    turns._State.called, turns._State.first = False, None
    yield
    turns._State.called = True


@pytest.mark.usefixtures("untouched")
def test_the_first_call_returns_before_a_second_thread_begins() -> None:
    mine, begun, begun_before = Turns(), [], []

    def first_call() -> None:
        time.sleep(0.1)
        begun_before.extend(begun)

    def work() -> None:
        with at_work():
            begun.append(threading.get_ident())
            mine.predict(first_call if len(begun) == 1 else int)

    in_threads(4, work)
    assert len(begun_before) == 1
    assert len(begun) == 4


@pytest.mark.usefixtures("untouched")
def test_a_first_thread_that_makes_no_call_lets_the_next_one_be_the_first() -> None:
    def work() -> None:
        with at_work():
            pass

    in_threads(3, work)
    assert not turns._State.called


def test_calls_are_made_in_the_context_in_which_the_model_was_built() -> None:
    with np.errstate(divide="raise"):
        loaded = models.load("nasty_models:Nasty", None, {})
    seen = []
    in_threads(1, lambda: seen.append(loaded.turns.predict(np.geterr)["divide"]))
    assert seen == ["raise"]
    assert np.geterr()["divide"] == "warn"


# A failure is confirmed


def failures_of(errors: dict[int, str]) -> list[Failure]:
    """Failures by row."""
    return [Failure(row, "predict", "ValueError", error) for row, error in errors.items()]


def test_of_many_failures_of_a_kind_the_first_few_are_tried_again() -> None:
    tried = []

    def again(row: int) -> None:
        tried.append(row)
        raise ValueError

    failures = failures_of({row: f"x is {row}, not 'a{row}'" for row in range(100)})
    failures += failures_of({200: "another"})
    assert confirmed(Turns(), failures, again) == (failures, [])
    assert tried == [*range(CONFIRMED_OF_A_KIND), 200]


def test_where_one_is_not_confirmed_all_are_tried_again() -> None:
    tried = []

    def again(row: int) -> int:
        tried.append(row)
        if row % 3 == 0:
            raise ValueError
        return row

    failures = failures_of(dict.fromkeys(range(100), "no"))
    left, made = confirmed(Turns(), failures, again)
    assert [failure.row for failure in left] == list(range(0, 100, 3))
    assert sorted(made) == [(row, row) for row in range(100) if row % 3]
    assert sorted(tried) == list(range(100))


@pytest.mark.parametrize("model", ["OnceOnly", "OnceOnlyTable"])
def test_records_that_fail_once_are_predicted_and_counted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = [1.0, 2000.0, -1.0, 2001.0, 3.0, -2.0, 2002.0]
    data = write_lines(tmp_path / "in.jsonl", [{"x": v, "shy": v > 1000} for v in x])
    code = cli.run(
        ["predict", f"-m=nasty_models:{model}", f"-i={data}", f"-o={tmp_path / 'out.jsonl'}"]
    )
    assert code == 0
    assert [row["y"] for row in read_lines(tmp_path / "out.jsonl")] == [2 * v for v in x if v >= 0]
    assert len(read_lines(tmp_path / "out.errors.jsonl")) == 2
    described = json.loads((tmp_path / "out.run.json").read_text())
    assert described["counts"] == {"read": 7, "predicted": 5, "failed": 2}
    assert described["recovered"] == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "3 records failed once and not when tried again, alone: the model is not det" in said


def test_what_a_model_raises_is_the_records_failure_unless_it_is_ctrl_c() -> None:
    loaded = models.load("nasty_models:Interrupts", None, {})
    records = [{"x": 1.0}, {"x": 1.0, "raises": "KeyboardInterrupt"}]
    records += [{"x": 1.0, "raises": "GeneratorExit"}, {"x": 2.0}]
    made = []
    in_threads(1, lambda: made.append(predict_records(loaded, records)))
    assert made[0].values == [{"y": 2.0}, {"y": 4.0}]
    assert [f.type for f in made[0].failures] == ["KeyboardInterrupt", "GeneratorExit"]


def test_a_model_that_forks_and_returns_in_the_child_brings_no_second_worker_to_life(
    tmp_path: Path,
) -> None:
    data = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in range(20)])
    output = tmp_path / "out.jsonl"
    run = modelbeam.predict(model="nasty_models:Forks", input=str(data), output=str(output))
    assert (run.predicted, run.failed) == (20, 0)
    assert [row["y"] for row in read_lines(output)] == [2.0 * n for n in range(20)]


FORKED = """
import os
from modelbeam import models
from modelbeam.models.turns import Turns, alone, at_work

with at_work():  # as another thread of a server would be
    child = os.fork()
if child:
    os.waitpid(child, 0)
loaded = models.load("nasty_models:ForksWhenBuilt")
with at_work():
    print(loaded.turns.predict(loaded.predict, {"x": 1.0}), flush=True)
    with alone():
        print("alone", flush=True)
"""


def test_a_process_that_was_forked_before_predicts_and_one_that_the_model_forks_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment(), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["{'y': 2.0}", "alone"] * 2


def test_in_a_child_that_a_call_forks_no_further_record_comes() -> None:
    seen, child = 0, -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process may have threads
        with coming(list(range(5))) as left:
            for record in left:
                seen += 1
                if record == 1:
                    child = os.fork()
    if child == 0:
        os._exit(seen)
    assert seen == 5
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


# Nothing of ours is imported after the first call

WORKER = """
import json, sys
from pathlib import Path
from modelbeam import models
from modelbeam.formats import Format
from modelbeam.job.split import predict_split
from modelbeam.job.task import Task
from modelbeam.job.warm import warm_up
from modelbeam.models.turns import at_work
from modelbeam.sources.files import find_inputs
from modelbeam.sources.splits import plan_splits
loaded = models.load(sys.argv[1], None, {})
warm_up(loaded.info)
import nasty_models
from modelbeam.formats.layout import OutputColumn
for name in sys.argv[3:]:
    import pyarrow
    every = tuple(sys.argv[3:])
    layout = (OutputColumn("x", pyarrow.string()), OutputColumn("y"))
    state = Path(sys.argv[2], "state-" + name)
    for folder in ("attempts", "manifests"):
        (state / folder).mkdir(parents=True)
    task = Task(str(state), "", Format(name), ("x",), None, 1 << 20, layout=layout, formats=every)
    for file in find_inputs([sys.argv[2] + "/others"], any_suffix=False)[0]:
        known = {file.path: Format(file.path.rsplit(".", 1)[1])}
        for split in plan_splits([file], 1 << 20, known=known):
            with at_work():
                predict_split(split, task, loaded)
for suffix, keep in [("", ()), ("zstd", "all"), ("gzip", ("x",)), ("bzip2", ())]:
    state = Path(sys.argv[2], "state-" + suffix)
    for name in ("attempts", "manifests"):
        (state / name).mkdir(parents=True)
    task = Task(str(state), "", Format("jsonl", suffix or None), keep, None, 1 << 20)
    for split in plan_splits(find_inputs([sys.argv[2] + "/in"], any_suffix=False)[0], 1 << 20):
        with at_work():
            predict_split(split, task, loaded)
print(json.dumps(nasty_models.late_imports()))
"""


def write_others(folder: Path) -> list[str]:
    """Files of all other formats, with records that fail too; returns the formats' names."""
    folder.mkdir()
    values = [{"x": 1.0, "s": "a"}, {"x": -1.0, "s": None}, {"x": None, "s": ""}]
    found = [name for name in formats.NAMES if name != "jsonl"]
    for name in found:
        layout = (OutputColumn("x", pa.float64()), OutputColumn("s", pa.string()))
        with (folder / f"in.{name}").open("wb") as handle:
            writer = formats.find(name).writer(handle, layout)
            assert writer.write(Outcome(3, values, False, None, None, [])) == []
            writer.close()
    (folder / "odd.csv").write_bytes(b'x,s\n1,"a\n1,2,3\n\xff,2\n"a"b,c\n')
    return found


@pytest.mark.parametrize("model", ["Watched", "WatchedBatch", "WatchedRecord"])
def test_nothing_of_ours_is_imported_after_the_models_first_call(
    model: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    lines = {
        **{f"{n}.jsonl": f'{{"x": {n}.0}}\n' * 3 for n in range(7)},
        "7.jsonl": '{"x": -1.0}\n{"x": 0}\n\n{"x": "a"}\n{}\nnull\n{\n{"x": 0.0, "y": 1}\n',
    }
    for name, text in lines.items():
        (tmp_path / "in" / name).write_text(text)
    for ending, name in (("gz", "gzip"), ("zst", "zstd"), ("bz2", "bzip2")):
        path = tmp_path / "in" / f"8.jsonl.{ending}"
        with path.open("wb") as handle, compression.compressed(handle, name) as stream:
            stream.write(b'{"x": 1.0}\n')
    others = write_others(tmp_path / "others")
    # what Arrow would import, where it is installed, when it is first given values of Python
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text('__version__ = "0.0"\n')
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            WORKER,
            f"nasty_models:{model}",
            str(tmp_path),
            *others,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# Threads or processes


def shares(model: float, interpreter: float = 0.0, *, done: int = 1000) -> Shares:
    """What was measured in a tenth of a second."""
    return Shares(model, interpreter, 0.1, done, start=0.5)


@pytest.mark.parametrize(
    ("measured", "workers", "left", "pays"),
    [
        (shares(0.2), 2, 10**9, False),  # two threads do it twice as fast
        (shares(0.5), 2, 10**9, False),
        (shares(0.9), 2, 10**9, True),
        (shares(0.1, 0.9), 2, 10**9, True),
        (shares(0.3), 8, 10**9, True),  # eight threads would be 3.3 times as fast
        (shares(0.9), 2, 10_000, False),  # a second of work: not worth a start
        (shares(0.9, done=0), 2, 10_000, True),  # not one block was done: there is no hurry
        (shares(0.3, done=0), 2, 10**9, False),
    ],
)
def test_processes_are_taken_where_they_pay(
    measured: Shares, workers: int, left: int, pays: bool
) -> None:
    assert processes_pay(measured, workers, left) == pays


def test_a_model_whose_own_time_limits_gets_processes_by_itself(
    numbers: Path, tmp_path: Path
) -> None:
    run = predict("TakesTime", numbers, tmp_path / "out")
    assert run.description["workers"].startswith(
        "2 workers: processes, since the model's own time is "
    )
    assert [row["y"] for row in shards(tmp_path / "out")] == [n / 2 for n in range(ROWS)]


def measured(work: Callable[[], None], thread_safe: bool = False) -> Shares:
    """What the meter says of a split that is this work, in the model's turn."""
    found: list[Shares] = []
    meter = Meter(thread_safe, found.append)
    meter.begin()
    Turns().predict(work)
    meter.end()
    wait_until(lambda: found)
    return found[0]


def test_the_meter_tells_the_interpreter_lock_from_the_models() -> None:
    def python() -> None:
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            sum(range(100))

    sleeps, computes = measured(lambda: time.sleep(0.3)), measured(python)
    assert sleeps.model > 0.9
    assert sleeps.interpreter < computes.interpreter
    assert measured(lambda: time.sleep(0.3), thread_safe=True).model == 0


def test_a_model_that_is_quick_beside_the_decoding_gets_threads(
    numbers: Path, tmp_path: Path
) -> None:
    run = modelbeam.predict(
        model="small_models:TableDoubler",
        input=str(numbers),
        output=str(tmp_path / "out"),
        workers=2,
        split_size=numbers.stat().st_size // 4,
    )
    assert run.description["workers"] == "2 workers: threads"
