"""MLflow models, against MLflow's own predictions on the same rows."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    import mlflow.pyfunc
    import mlflow.sklearn
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

import numpy as np
import pandas as pd
import pytest
from commands import read_lines, write_lines
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

import modelbeam
from modelbeam import models
from modelbeam.errors import ModelError, ModelLoadError, NotAModelError
from modelbeam.models import Options
from modelbeam.testing import ModelKindContract, predict, written

pytestmark = pytest.mark.filterwarnings("ignore")

_random = np.random.default_rng(2)
X = pd.DataFrame(_random.normal(size=(64, 3)), columns=["a", "b", "c"])
Y = X.to_numpy() @ [1.0, 2, -1]
CLASSES = np.where(Y > 0, "up", "down")
LINEAR = LinearRegression().fit(X, Y)
FOREST = RandomForestClassifier(5, random_state=0).fit(X, CLASSES)


class Seen(mlflow.pyfunc.PythonModel):
    """Returns what it was given, as text, and the sum of its numbers."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return [
            {
                "seen": ",".join(f"{n}={v}" for n, v in sorted(row.items())),
                "k": (params or {}).get("k", 0),
            }
            for row in model_input.to_dict("records")
        ]


class Twice(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return {name: values * 2 for name, values in model_input.items()}


class Short(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return model_input["a"][1:]


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame[frame.columns[::-1]].to_dict("records")


def saved(flavor: Any, place: Path, **how: Any) -> str:
    flavor.save_model(path=str(place), pip_requirements=["mlflow"], **how)
    return str(place)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("m") / "linear"
    return saved(mlflow.sklearn, place, sk_model=LINEAR, signature=infer_signature(X, Y))


class TestMlflow(ModelKindContract):
    @pytest.fixture
    def target(self, linear):
        return linear

    @pytest.fixture
    def records(self):
        return rows(X[:16])

    @pytest.fixture
    def expected(self, linear):
        own = mlflow.pyfunc.load_model(linear).predict(X[:16])
        return [{"prediction": value} for value in own]

    @pytest.fixture
    def broken(self):
        return [{"a": 1.0}, {"a": "1", "b": 1, "c": 1}, {"a": None, "b": 1, "c": 1}]


def test_integers_are_numbers_where_the_signature_says_so(linear):
    given = [{"a": 45, "b": 1, "c": -2, "more": "x"}] * 3
    outcome = predict(models.load(linear), given)
    assert outcome.failures == []
    own = mlflow.pyfunc.load_model(linear).predict(pd.DataFrame(given).astype({"a": float, "b": float, "c": float})[["a", "b", "c"]].iloc[[0] * 16])  # fmt: skip  # noqa: E501
    assert [line["prediction"] for line in written(outcome)] == own[:3].tolist()


def test_optional_columns_dates_and_params_are_as_the_signature_has_them(tmp_path):
    names = {"x": "double", "n": "long", "s": "string", "b": "boolean"}
    required = [ColSpec(kind, name) for name, kind in names.items()]
    optional = [
        ColSpec("long", "maybe", required=False),
        ColSpec("datetime", "when", required=False),
        ColSpec("string", "word", required=False),
    ]
    signature = ModelSignature(
        Schema([*required, *optional]), None, ParamSchema([ParamSpec("k", "long", 3)])
    )
    path = saved(mlflow.pyfunc, tmp_path / "seen", python_model=Seen(), signature=signature)
    good = {"x": 1, "n": 2, "s": "a", "b": True}
    some = [
        good,
        {**good, "maybe": 5, "when": "2024-01-02T03:04:05"},
        {**good, "maybe": None, "word": "w"},
        {**good, "maybe": 7},
    ]
    model = models.load(path)
    outcome = predict(model, some)
    assert outcome.failures == []
    whole = written(outcome)
    assert ["maybe=" in one["seen"] for one in whole] == [False, True, False, True]
    assert "maybe" not in whole[0]["seen"]
    assert "when=2024-01-02 03:04:05" in whole[1]["seen"]
    assert {one["k"] for one in whole} == {3}
    assert [written(predict(model, [one]))[0] for one in some] == whole
    wrong = [
        *({**good, name: None} for name in ("n", "s", "b")),
        {**good, "n": 1.5},
        {**good, "when": "yesterday"},
        {**good, "maybe": "7"},
    ]
    outcome = predict(model, [some[1], *wrong, some[3]])
    assert sorted(failure.row for failure in outcome.failures) == [1, 2, 3, 4, 5, 6]
    assert written(outcome) == [whole[1], whole[3]]
    told = models.load(path, arguments={"k": 9})
    assert written(predict(told, [good]))[0]["k"] == 9
    with pytest.raises(NotAModelError, match=r"--proba"):
        models.load(path, options=Options(proba=True))


def test_tensors_are_named_or_want_features(tmp_path):
    unnamed = ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 3))]))
    path = saved(mlflow.sklearn, tmp_path / "m", sk_model=LinearRegression().fit(X.to_numpy(), Y), signature=unnamed)  # fmt: skip  # noqa: E501
    with pytest.raises(NotAModelError, match=r"takes 3 columns .* --features A,B,C"):
        models.load(path)
    model = models.load(path, options=Options(features=("a", "b", "c")))
    own = mlflow.pyfunc.load_model(path).predict(X.to_numpy())
    assert [line["prediction"] for line in written(predict(model, rows(X)))] == own.tolist()
    named = ModelSignature(
        Schema(
            [
                TensorSpec(np.dtype("float32"), (-1, 2), "v"),
                TensorSpec(np.dtype("int64"), (-1, 1), "n"),
            ]
        )
    )
    path = saved(mlflow.pyfunc, tmp_path / "t", python_model=Twice(), signature=named)
    outcome = predict(models.load(path), [{"n": 3, "v": [1, 2.5]}, {"n": 4, "v": [1, 2, 3]}])
    assert written(outcome) == [{"v": [2.0, 5.0], "n": 6}]
    assert [failure.row for failure in outcome.failures] == [1]


def test_without_a_signature_the_model_inside_knows_its_columns(tmp_path):
    path = saved(
        mlflow.sklearn, tmp_path / "f", sk_model=FOREST,
        skops_trusted_types=["sklearn.tree._tree.Tree"],
    )  # fmt: skip
    model = models.load(path, options=Options(proba=True))
    made = written(predict(model, rows(X)))
    assert [line["prediction"] for line in made] == FOREST.predict(X).tolist()
    assert [line["probability_up"] for line in made] == FOREST.predict_proba(X)[:, 1].tolist()
    assert model.info.interface == "MLflow (sklearn)"
    assert model.info.fingerprint


def test_another_number_of_results_is_an_error(tmp_path):
    signature = ModelSignature(Schema([ColSpec("double", "a")]))
    path = saved(mlflow.pyfunc, tmp_path / "s", python_model=Short(), signature=signature)
    outcome = predict(models.load(path), [{"a": 1.0}] * 3)
    assert {failure.type for failure in outcome.failures} == {"WrongNumberOfPredictionsError"}


def test_requirements_that_are_not_met_are_named(linear, tmp_path):
    copied = tmp_path / "copied"
    copied.mkdir()
    for file in Path(linear).iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    (copied / "requirements.txt").write_text("mlflow\nnumpy==1.2.3\nno-such-package\n")
    warnings_told = models.load(str(copied)).info.warnings
    assert warnings_told[0].startswith("the model requires numpy==1.2.3, and 2")
    assert warnings_told[1] == "the model requires no-such-package, and none is installed"
    (copied / "model.skops").write_bytes(b"not that")
    with pytest.raises(ModelLoadError, match=r"copied .*numpy==1\.2\.3"):
        models.load(str(copied))
    (copied / "MLmodel").write_text("{")
    with pytest.raises(ModelError, match="copied"):
        models.load(str(copied))


def test_a_local_store_and_a_run_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(
            LINEAR, name="linear", signature=infer_signature(X, Y), pip_requirements=["mlflow"]
        )
    data = write_lines(tmp_path / "in.jsonl", rows(X))
    own = mlflow.pyfunc.load_model(logged.model_uri).predict(X).tolist()
    out = tmp_path / "out.jsonl"
    modelbeam.predict(model=f"models:/{logged.model_id}", input=str(data), output=str(out))
    assert [line["prediction"] for line in read_lines(out)] == own
    outcome = predict(models.load(f"runs:/{run.info.run_id}/linear"), rows(X))
    assert [line["prediction"] for line in written(outcome)] == own
    with pytest.raises(ModelLoadError, match=r"runs:/nothing/linear cannot be fetched"):
        models.load("runs:/nothing/linear")


def test_a_registered_model_has_the_version_of_the_registry(tmp_path, monkeypatch):
    place = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    mlflow.set_tracking_uri(place)
    client = mlflow.MlflowClient()
    mlflow.sklearn.save_model(
        LINEAR, tmp_path / "saved", signature=infer_signature(X, Y), pip_requirements=["mlflow"]
    )
    client.create_registered_model("iris")
    for _ in range(2):
        client.create_model_version("iris", (tmp_path / "saved").as_uri())
    client.set_registered_model_alias("iris", "live", "1")
    for uri, version in (("@live", "1"), ("/latest", "2"), ("/2", "2")):
        loaded = models.load(f"models:/iris{uri}")
        assert (loaded.info.version, loaded.info.target) == (version, f"models:/iris{uri}")
    with pytest.raises(ModelLoadError, match=r"models:/iris@typo cannot be fetched"):
        models.load("models:/iris@typo")
