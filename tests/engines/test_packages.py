"""A model that only the submitting machine has reaches workers that have nothing but Beam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crashing import Command, description
from running import finish, numbered, predicted

from engines.clusters import WorkerPool

MODEL = """\
from pathlib import Path

from schema import Schema

FACTOR = float(Path(__file__).with_name("factor.txt").read_text())


class Model:
    display_name = qualified_name = "loose"
    description = "Multiplies x by what the file beside it says."
    major_version, minor_version = 1, 0
    input_schema = Schema({"x": float}, ignore_extra_keys=True)
    output_schema = Schema({"y": float})

    def predict(self, data):
        return {"y": FACTOR * data["x"]}
"""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module", params=["flink", "spark_job_server"])
def flags(request: pytest.FixtureRequest, staged_pool: WorkerPool) -> list[str]:
    """Beam's flags for each engine in turn."""
    engine: Any = request.getfixturevalue(request.param)
    one = ["--parallelism=1", "--sdk_worker_parallelism=1"]  # each worker installs it all again
    return [*engine.flags, *staged_pool.flags, *one]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a model, the file that it reads, and records."""
    (tmp_path / "loose_model.py").write_text(MODEL)
    (tmp_path / "factor.txt").write_text("2.0")
    numbered(tmp_path / "in.jsonl", 1000)
    return tmp_path


def modelbeam(place: Path, command: str, *flags: str) -> Command:
    """Run a command for that model in that directory."""
    own = ["--model=loose_model:Model", "--input=in.jsonl", "--output=out", *flags]
    with Command(*own, env={"PYTHONPATH": ""}, cwd=place, command=command) as started:
        return finish(started)


def test_a_module_of_the_working_directory_and_its_libraries(flags, place):
    done = modelbeam(place, "predict", *flags)
    assert done.process.returncode == 0, done.stderr
    assert "packaged the model" in done.stderr
    assert predicted(place / "out") == [n / 2 for n in range(1000)]
    assert description(place / "out")["models"][0]["qualified_name"] == "loose"


def test_the_doctor_finds_the_same(flags, place):
    done = modelbeam(place, "check", *flags, "--json")
    assert done.process.returncode == 0, done.stderr + done.stdout
    findings = json.loads(done.stdout)["engine"]
    assert [finding["step"] for finding in findings if finding["ok"]] == [
        "engine",
        "staging",
        "packages",
        "clean",
        "workers",
    ]
    assert not (place / "out").exists()
