"""Beam's model handlers as models, against what they predict by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from commands import read_lines, write_lines
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

import modelbeam
from modelbeam import models
from modelbeam.errors import NotAModelError
from modelbeam.models import Options
from modelbeam.testing import ModelKindContract, predict, written

pytestmark = pytest.mark.filterwarnings("ignore")

_random = np.random.default_rng(4)
X = pd.DataFrame(_random.normal(size=(48, 3)), columns=["a", "b", "c"])
Y = X.to_numpy() @ [1.0, 2, -1]
LABELS = np.where(Y > 0, "up", "down")
ARRAY = np.ascontiguousarray(X.to_numpy())  # as the handlers stack their rows
LINEAR = LinearRegression().fit(ARRAY, Y)
FOREST = RandomForestClassifier(5, random_state=0).fit(X, LABELS)
FEATURES = Options(features=("a", "b", "c"))


def rows(frame: pd.DataFrame = X) -> list[dict[str, Any]]:
    return frame[frame.columns[::-1]].to_dict("records")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the handlers look for their model."""
    monkeypatch.setenv("HANDLER_FILE", str(tmp_path / "model"))
    joblib.dump(LINEAR, tmp_path / "model")
    return tmp_path / "model"


class TestHandlerOfOnesOwn(ModelKindContract):
    @pytest.fixture(params=["Tripler", "tripler"])
    def target(self, request):
        return f"beam_handlers:{request.param}"

    @pytest.fixture
    def records(self):
        return [{"x": 1.0}, {"x": 2}, {"x": 3.0}]

    @pytest.fixture
    def expected(self):
        return [{"y": 3.0}, {"y": 6.0}, {"y": 9.0}]

    @pytest.fixture
    def broken(self):
        return [{"x": "a" * 3}, {"x": None}, {}]


@pytest.mark.parametrize("name", ["numpy_handler", "keyed_handler"])
def test_arrays_are_made_of_named_features(name, file):
    target = f"beam_handlers:{name}"
    with pytest.raises(NotAModelError, match=r"takes 3 columns|takes columns"):
        models.load(target)
    model = models.load(target, options=FEATURES)
    made = written(predict(model, rows()))
    assert [line["prediction"] for line in made] == LINEAR.predict(ARRAY).tolist()
    assert written(predict(model, rows(), 7)) == made
    outcome = predict(model, [rows()[0], {"a": "1", "b": 1, "c": 1}, {"a": 1}])
    assert [failure.row for failure in outcome.failures] == [1, 2]
    joblib.dump(FOREST, file)
    assert models.load(target, options=FEATURES).info.fingerprint != model.info.fingerprint


def test_tables_of_one_row_are_matched_by_name(file):
    joblib.dump(FOREST, file)
    made = written(predict(models.load("beam_handlers:pandas_handler"), rows()))
    assert [line["prediction"] for line in made] == FOREST.predict(X).tolist()


def test_an_onnx_handler_is_given_what_its_model_declares(file):
    single = ARRAY.astype(np.float32)
    file.write_bytes(to_onnx(LINEAR, single[:1]).SerializeToString())
    outcome = predict(models.load("beam_handlers:onnx_handler", options=FEATURES), rows())
    assert outcome.failures == []
    made = np.array([line["prediction"] for line in written(outcome)], np.float32)
    assert (made == ort.InferenceSession(str(file)).run(None, {"X": single})[0][:, 0]).all()


def test_pre_and_postprocessing_are_the_handlers():
    made = written(predict(models.load("beam_handlers:wrapped"), [{"half": 1}, {"half": 2.5}] * 3))
    assert made == [{"z": 7.0}, {"z": 16.0}] * 3
    with pytest.raises(NotAModelError, match=r"--features .* whole records"):
        models.load("beam_handlers:wrapped", options=FEATURES)
    outcome = predict(models.load("beam_handlers:drops"), [{"x": 1}] * 3)
    assert {failure.type for failure in outcome.failures} == {"WrongNumberOfPredictionsError"}


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_it_runs_in_threads_and_processes(mode, tmp_path):
    data = write_lines(tmp_path / "in.jsonl", rows())
    modelbeam.predict(
        model="beam_handlers:keyed_handler",
        input=str(data),
        output=str(tmp_path / "out.jsonl"),
        features=["a", "b", "c"],
        split_size="1KB",
        workers=2,
        worker_mode=mode,
    )
    made = [line["prediction"] for line in read_lines(tmp_path / "out.jsonl")]
    assert made == LINEAR.predict(ARRAY).tolist()
