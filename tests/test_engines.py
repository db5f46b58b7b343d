"""Engines keep one protocol, and only their own modules know their names; a third party's runs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import write_lines

import modelbeam
from modelbeam import engines
from modelbeam.engines.base import Engine
from modelbeam.errors import EngineError, RequestError, TooManyErrorsError

SOURCE = Path(modelbeam.__file__).parent
OURS = ["spark", "dataflow", "prism", "flink", "portable"]

THREADS = '''
"""An engine of a third party: a thread of this process. It inherits nothing of modelbeam's."""

import threading

from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from modelbeam.engines.base import Status
from modelbeam.engines.submitting import run_pipeline
from modelbeam.job.flags import runner_of


class NearbyRunner(FnApiRunner):
    pass


class Job:
    engine, name, identity, link = "Nearby", "job-1", {}, "http://nearby/job-1"

    def __init__(self, work):
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work):
        try:
            work()
        except Exception as error:
            self._failure = error

    def poll(self):
        if self._thread.is_alive():
            return Status("running")
        return Status("done" if self._failure is None else "failed")

    def cause(self):
        return str(self._failure)

    def cancel(self):
        self._thread.join()

    def close(self):
        pass


class Nearby:
    name, title, example_url, starts_machines = "nearby", "Nearby", "", False
    java_options = {"how_near": True}

    def matches(self, flags):
        return runner_of(flags) == "nearby_engine.NearbyRunner"

    def is_loopback(self, flags):
        return True

    def outlives(self, flags):
        return False

    def describe(self, flags):
        return "a thread"

    def preflight(self, flags):
        return []

    def process_flags(self, flags):
        return []

    def submit(self, pipeline, flags):
        return Job(lambda: run_pipeline(pipeline, flags))

    def attach(self, identity):
        raise AssertionError("it has no identity")


class Twin(Nearby):
    name = "twin"


class Half:
    name = "half"
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with an engine, importable and with its metadata, as if it were installed."""
    site = tmp_path / "site"
    metadata = site / "nearby_engine-1.dist-info"
    metadata.mkdir(parents=True)
    (site / "nearby_engine.py").write_text(THREADS)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nearby-engine\nVersion: 1\n")
    entry(site, "nearby = nearby_engine:Nearby")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("nearby_engine", None)
    engines.forget()


def entry(site: Path, *lines: str) -> None:
    """Have the package bring these engines."""
    text = "\n".join(["[modelbeam.engines]", *lines, ""])
    (site / "nearby_engine-1.dist-info" / "entry_points.txt").write_text(text)
    engines.forget()


@pytest.mark.parametrize("name", OURS)
def test_each_engine_keeps_the_protocol_under_its_own_name(name: str) -> None:
    engine = engines.find(name)
    assert isinstance(engine, Engine)
    assert engine.name == name
    assert engine.title
    assert engine is engines.find(name)


@pytest.mark.parametrize("name", ["spark", "dataflow", "prism", "flink"])
def test_one_engine_takes_a_runner_and_all_others_do_not(name: str) -> None:
    taking = [one for one in OURS if engines.find(one).matches([f"--runner={name}"])]
    assert taking == [name, "portable"]  # which is asked last


def test_no_module_outside_an_engines_own_knows_it_by_name() -> None:
    names = {*OURS, *(f"{name}Runner".lower() for name in OURS)}
    knowing = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if found := {value for value in text if value.lower() in names}:
            knowing[str(path.relative_to(SOURCE))] = {value.lower() for value in found}
    registry = knowing.pop("engines/__init__.py")
    assert registry == set(OURS)
    assert knowing == {f"engines/{name}.py": {name} for name in OURS}


@pytest.mark.usefixtures("package")
def test_an_engine_of_a_third_party_runs_a_job(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}, {"x": "text"}, {"x": 3.0}])
    run = modelbeam.predict(
        model="small_models:Doubler",
        input=str(tmp_path / "in.jsonl"),
        output=str(tmp_path / "out.jsonl"),
        beam_options=["--runner=nearby_engine.NearbyRunner", "--how_near=very"],
    )
    assert (run.predicted, run.failed) == (2, 1)
    assert run.description["workers"] == "Nearby"
    assert run.description["runner"] == "NearbyRunner"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("package")
def test_a_job_that_fails_there_tells_its_cause(tmp_path: Path) -> None:
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}, {"x": "text"}])
    with pytest.raises(
        TooManyErrorsError, match="1 of 2 records failed, more than max_errors='10%'"
    ):
        modelbeam.predict(
            model="small_models:Doubler",
            input=str(tmp_path / "in.jsonl"),
            output=str(tmp_path / "out.jsonl"),
            beam_options=["--runner=nearby_engine.NearbyRunner"],
            max_errors="10%",
        )


@pytest.mark.usefixtures("package")
def test_its_flags_are_known_only_with_it() -> None:
    engines.check_flags(["--runner=nearby_engine.NearbyRunner", "--how_near=very"])
    with pytest.raises(RequestError, match=r"did you mean '--how_near'"):
        engines.check_flags(["--runner=nearby_engine.NearbyRunner", "--how_neer=very"])
    with pytest.raises(RequestError, match="unknown flag --how_near"):
        engines.check_flags(["--runner=flink", "--how_near=very"])


def test_two_packages_that_take_the_same_flags_are_named(package: Path) -> None:
    entry(package, "nearby = nearby_engine:Nearby", "twin = nearby_engine:Twin")
    with pytest.raises(RequestError, match="engines 'nearby' and 'twin'"):
        engines.engine_of(["--runner=nearby_engine.NearbyRunner"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("broken = nearby_engine:Nobody", "'broken' cannot be used: AttributeError"),
        ("broken = no_such_module:X", "'broken' cannot be used: ModuleNotFoundError"),
        ("broken = nearby_engine:Half", "nearby_engine:Half lacks what an engine has"),
    ],
)
def test_a_broken_engine_is_told(package: Path, line: str, message: str) -> None:
    entry(package, line)
    with pytest.raises(RequestError, match=message):
        engines.engine_of(["--runner=PortableRunner", "--job_endpoint=localhost:1"])
    assert engines.title_of(["--runner=flink"]) == "Flink"  # which is asked first


def test_a_package_does_not_take_the_place_of_our_own(package: Path) -> None:
    entry(package, "flink = nearby_engine:Nearby")
    assert engines.find("flink").title == "Flink"


def test_an_engine_that_is_gone_is_told() -> None:
    with pytest.raises(EngineError, match="'moon' is not known on this machine"):
        engines.find("moon")


def test_the_engine_of_the_page_is_one() -> None:
    page = (SOURCE.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page[page.index("## An engine") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, type[Engine]] = {}
    exec(code[1], names)
    engine = names["Acme"]()
    assert isinstance(engine, Engine)
    flags = ["--runner=PortableRunner", "--job_endpoint=host:1", "--acme_team=birds"]
    assert engine.matches(flags)
    assert not engine.matches(flags[:-1])
    assert engine.describe(flags) == "Acme for team birds: a job service at host:1"
    assert engine.outlives(flags)
