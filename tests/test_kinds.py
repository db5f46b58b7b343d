"""Every kind of model keeps the contract; a third party's is installed and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import pip_install

from modelbeam import models
from modelbeam.errors import ResumeError
from modelbeam.package.build import build
from modelbeam.package.clean import clean_import
from modelbeam.package.items import ModelFile
from modelbeam.package.listing import package_list
from modelbeam.testing import ModelKindContract, predict, written

EXAMPLE = Path(__file__).parents[1] / "examples" / "modelbeam_scorecard"
CARD = {
    "name": "risk",
    "version": "2.1",
    "base": 600,
    "points": {"age": 0.5, "overdrafts": -40},
    "accept_from": 620,
}
CUSTOMERS = [
    {"age": 60, "overdrafts": 0},
    {"age": 30.5, "overdrafts": 2},
    {"age": 40, "overdrafts": 0},
]
SCORES = [
    {"score": 630.0, "accepted": True},
    {"score": 535.25, "accepted": False},
    {"score": 620.0, "accepted": True},
]


class _MLModel(ModelKindContract):
    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return [{"x": 1.0}, {"x": 2.0}, {"x": 4.0}]

    @pytest.fixture
    def expected(self) -> list[dict[str, Any]]:
        return [{"y": 2.0}, {"y": 4.0}, {"y": 8.0}]

    @pytest.fixture
    def broken(self) -> list[Any]:
        return [{"x": "text"}, {}, {"x": None}, 3]


class TestMLModelOfRecords(_MLModel):
    @pytest.fixture
    def target(self) -> str:
        return "small_models:Doubler"


class TestMLModelOfLists(_MLModel):
    @pytest.fixture
    def target(self) -> str:
        return "small_models:BatchDoubler"


class TestMLModelOfTables(_MLModel):
    @pytest.fixture
    def target(self) -> str:
        return "small_models:TableDoubler"


class TestMLModelOfTheNewerGeneration(_MLModel):
    @pytest.fixture
    def target(self) -> str:
        return "result_models:NewerDoubler"

    @pytest.fixture
    def broken(self) -> list[Any]:
        return [{"x": "text"}, {}, {"x": None}, 3]


# A kind in a package of its own


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example package is installed with pip, as its users would."""
    return pip_install(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture
def scorecard(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model file, in an environment that has the package."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "risk.scorecard"
    file.write_text(json.dumps(CARD))
    yield file
    for name in [name for name in sys.modules if name.startswith("modelbeam_scorecard")]:
        del sys.modules[name]


class TestScorecard(ModelKindContract):
    @pytest.fixture
    def target(self, scorecard: Path) -> Path:
        return scorecard

    @pytest.fixture
    def records(self) -> list[dict[str, Any]]:
        return CUSTOMERS

    @pytest.fixture
    def expected(self) -> list[dict[str, Any]]:
        return SCORES

    @pytest.fixture
    def broken(self) -> list[Any]:
        return [{"age": 1}, {"age": "old", "overdrafts": 1}, {"age": None, "overdrafts": 1}]


def test_the_page_shows_the_package_as_it_is():
    page = (EXAMPLE.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    files = [path.read_text("utf-8") for path in EXAMPLE.rglob("*.*") if path.is_file()]
    shown = re.findall(r"```(?:toml|python)\n(.*?)```", page, re.DOTALL)
    assert len(shown) >= 4
    ours = [
        code for code in shown if "ModelKindContract" not in code and "scorecard" in code.lower()
    ]
    assert [code for code in ours if not any(code in text for text in files)] == []
    assert len(ours) == 3


def test_a_kind_of_a_third_party_takes_arguments(scorecard):
    model = models.load(str(scorecard), None, {"accept_from": 700})
    assert [line["accepted"] for line in written(predict(model, CUSTOMERS))] == [False] * 3


def test_a_kind_of_a_third_party_runs_from_the_command_line(scorecard, installed):
    Path("in.jsonl").write_text("".join(json.dumps(c) + "\n" for c in [*CUSTOMERS, {"age": 1}]))
    command = [sys.executable, "-m", "modelbeam", "predict", "-m", "risk.scorecard"]
    command += ["-i", "in.jsonl", "-o", "out.jsonl", "--json", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], env=environment, capture_output=True, text=True, timeout=120
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == SCORES
    described = json.loads(done.stdout)["models"][0]
    assert (described["name"], described["version"], described["interface"]) == (
        "risk",
        "2.1",
        "scorecard",
    )
    scorecard.write_text(json.dumps({**CARD, "base": 601}))  # the version stays
    done = run("--resume")
    assert done.returncode == ResumeError.exit_code
    assert "model code and files: was" in done.stderr


def test_the_workers_get_the_kind_and_the_file(scorecard, tmp_path):
    packages = package_list("risk.scorecard")
    [file] = [item for item in packages.items if isinstance(item, ModelFile)]
    assert file.path == scorecard
    assert "modelbeam-scorecard" in {getattr(item, "name", "") for item in packages.items}
    more = package_list("risk.scorecard", requires=["schema"])
    assert {getattr(item, "name", "") for item in more.items} >= {"schema", "modelbeam-scorecard"}
    built = build(packages, tmp_path / "built")
    assert [wheel for wheel in built.wheels if file.package in wheel.name]
    scorecard.rename(tmp_path / "elsewhere")  # as on another machine
    clean_import(built)
