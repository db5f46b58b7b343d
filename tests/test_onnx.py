"""ONNX models, against ONNX Runtime's own predictions on the same rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from commands import read_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import modelbeam
from modelbeam import models
from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models import Options
from modelbeam.package.build import build
from modelbeam.package.clean import clean_import
from modelbeam.package.listing import package_list
from modelbeam.testing import ModelKindContract, predict, written

ROWS = 320
_random = np.random.default_rng(3)
X = _random.normal(size=(ROWS, 4)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5, 3.0], np.float32)
CLASSES = np.array(["low", "mid", "top"])[np.digitize(Y, [-2, 2])]
NAMES = ("a", "b", "c", "d")
FEATURES = Options(features=NAMES)
RECORDS = [dict(zip(NAMES, map(float, row), strict=True)) for row in X]

FOREST = RandomForestClassifier(20, max_depth=5, random_state=0).fit(X, CLASSES)
MODELS = {
    "linear": to_onnx(LinearRegression().fit(X, Y), X[:1]),
    "logistic": to_onnx(LogisticRegression().fit(X, CLASSES), X[:1]),
    "forest": to_onnx(FOREST, X[:1]),
    "no zipmap": to_onnx(FOREST, X[:1], options={"zipmap": False}),
}


def saved(model: Any, tmp_path: Path, name: str = "model.onnx") -> str:
    (tmp_path / name).write_bytes(model.SerializeToString())
    return str(tmp_path / name)


def own(path: str, feed: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = session.run(None, feed)
    return dict(zip([one.name for one in session.get_outputs()], made, strict=True))


def lines(target: str, records: list[Any], **given: Any) -> list[dict[str, Any]]:
    outcome = predict(models.load(target, **given), records)
    assert outcome.failures == []
    return written(outcome)


def graph(inputs: list[Any], outputs: list[Any], nodes: list[Any], weights: Any = ()) -> Any:
    made = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def info(name: str, kind: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


class TestSeveralInputs(ModelKindContract):
    """Two inputs of one value, one of text; two outputs."""

    @pytest.fixture
    def target(self, tmp_path):
        shape = ["N", 1]
        model = graph(
            [info("x", TensorProto.FLOAT, shape), info("n", TensorProto.INT64, ["N"]),
             info("city", TensorProto.STRING, shape)],
            [info("sum", TensorProto.FLOAT, shape), info("place", TensorProto.STRING, shape)],
            [helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
             helper.make_node("Unsqueeze", ["f", "axis"], ["g"]),
             helper.make_node("Add", ["x", "g"], ["sum"]),
             helper.make_node("Identity", ["city"], ["place"])],
            [numpy_helper.from_array(np.array([1], np.int64), "axis")],
        )  # fmt: skip
        return saved(model, tmp_path)

    @pytest.fixture
    def records(self):
        return [
            {"city": "Köln", "n": 3, "x": 0.5, "more": 1},
            {"n": -1, "x": 2, "city": ""},
            {"x": 1.5, "n": 2**20, "city": "a"},
        ]

    @pytest.fixture
    def expected(self):
        return [
            {"sum": 3.5, "place": "Köln"},
            {"sum": 1.0, "place": ""},
            {"sum": 2**20 + 1.5, "place": "a"},
        ]

    @pytest.fixture
    def broken(self):
        good = {"x": 1.0, "n": 1, "city": "a"}
        wrong = [("city", None), ("city", 3), ("n", 1.5), ("n", "1"), ("x", None), ("x", "1")]
        return [{"x": 1.0}, {**good, "x": 1e300}, *({**good, k: v} for k, v in wrong)]

    def test_its_output_is_as_its_schema_says(self, target, records):
        super().test_its_output_is_as_its_schema_says(target, records)
        assert models.load(str(target)).info.output_schema["properties"] == {
            "sum": {"type": "number"},
            "place": {"type": "string"},
        }


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=5, deadline=None)
@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5), batch=st.integers(1, 70))
def test_a_record_has_one_prediction_whatever_the_batches(name, sizes, batch, tmp_path_factory):
    path = saved(MODELS[name], tmp_path_factory.mktemp("model"))
    proba = name in ("logistic", "forest")
    model = models.load(path, options=Options(features=NAMES, proba=proba))
    whole = written(predict(model, RECORDS))
    for key, values in own(path, {"X": X}).items():
        if isinstance(values, list):
            for label in ("low", "mid", "top"):
                made = np.array([line[f"probability_{label}"] for line in whole], np.float32)
                assert made.tolist() == [one[label] for one in values]
        elif values.dtype == object:
            assert [line[key] for line in whole] == values.tolist()
        else:
            made = np.array([line[key] for line in whole], values.dtype)
            assert (made.reshape(values.shape) == values).all()
    at = 0
    for size in sizes:
        part = written(predict(model, RECORDS[at : at + size], batch))
        assert part == whole[at : at + size]
        at += len(part)


def test_features_are_named_for_a_matrix_and_probabilities_are_asked_for(tmp_path):
    path = saved(MODELS["forest"], tmp_path)
    with pytest.raises(NotAModelError, match=r"takes 4 columns .* --features A,B,C,D"):
        models.load(path)
    assert lines(path, RECORDS[:2], options=FEATURES) == [
        {"output_label": label} for label in FOREST.predict(X[:2])
    ]
    path = saved(MODELS["linear"], tmp_path)
    with pytest.raises(NotAModelError, match=r"--proba: .* its outputs are variable"):
        models.load(path, options=Options(features=NAMES, proba=True))


def test_texts_and_numbers_of_a_pipeline_are_columns_by_name(tmp_path):
    cities = np.array(["a", "b"])[Y.astype(int) % 2]
    frame = pd.DataFrame({"age": X[:, 0], "rooms": np.arange(ROWS) % 5, "city": cities})
    parts = ColumnTransformer(
        [("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"]),
         ("r", OneHotEncoder(), ["rooms"])]
    )  # fmt: skip
    fitted = make_pipeline(parts, LogisticRegression()).fit(frame, CLASSES)
    types = [
        ("age", FloatTensorType([None, 1])),
        ("rooms", Int64TensorType([None, 1])),
        ("city", StringTensorType([None, 1])),
    ]
    path = saved(to_onnx(fitted, initial_types=types), tmp_path)
    rows = [dict(list(row.items())[::-1]) for row in frame.to_dict("records")]
    feed = {name: frame[[name]].to_numpy() for name in frame}
    feed["city"] = frame[["city"]].to_numpy(dtype=object)
    wanted = own(path, {**feed, "rooms": feed["rooms"].astype(np.int64)})
    made = lines(path, json.loads(json.dumps(rows, default=float)))
    assert [line["output_label"] for line in made] == wanted["output_label"].tolist()
    with pytest.raises(NotAModelError, match=r"knows its columns, which are age,rooms,city"):
        models.load(path, options=FEATURES)


@pytest.mark.parametrize("size", [1, 8])
def test_a_fixed_batch_is_filled_up(size, tmp_path):
    fixed = onnx.ModelProto()
    fixed.CopyFrom(MODELS["linear"])
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    fixed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size
    path = saved(fixed, tmp_path)
    wanted = own(saved(MODELS["linear"], tmp_path, "open.onnx"), {"X": X})["variable"][:, 0]
    made = [line["variable"] for line in lines(path, RECORDS[:21], options=FEATURES)]
    assert np.allclose(made, wanted[:21], atol=1e-5)
    alone = [lines(path, [one], options=FEATURES)[0]["variable"] for one in RECORDS[:21]]
    assert alone == made


def test_vectors_go_in_and_come_out(tmp_path):
    shape = ["N", 3]
    model = graph(
        [info("v", TensorProto.FLOAT, shape), info("ids", TensorProto.INT64, ["N", "L"])],
        [info("twice", TensorProto.FLOAT, shape), info("same", TensorProto.INT64, ["N", "L"])],
        [helper.make_node("Add", ["v", "v"], ["twice"]),
         helper.make_node("Identity", ["ids"], ["same"])],
    )  # fmt: skip
    path = saved(model, tmp_path)
    rows = [{"v": [1, 2.5, 3], "ids": [1, 2]}, {"v": [0.5, 0, 0], "ids": [3, 4]}]
    assert lines(path, rows) == [
        {"twice": [2.0, 5.0, 6.0], "same": [1, 2]},
        {"twice": [1.0, 0.0, 0.0], "same": [3, 4]},
    ]
    bad = [{"v": [1, 2], "ids": [1, 2]}, {"v": [1, 2, None], "ids": [1, 2]}, {"v": 1, "ids": []}]
    bad.append({"v": [1, 2, 3], "ids": ["a", "b"]})
    outcome = predict(models.load(path), [rows[0], *bad, {"v": [1, 2, 3], "ids": [1]}, rows[1]])
    assert sorted(failure.row for failure in outcome.failures) == [1, 2, 3, 4]
    assert [line["same"] for line in written(outcome)] == [[1, 2], [1], [3, 4]]


def with_weights_beside(tmp_path: Path) -> str:
    weights = numpy_helper.from_array(np.arange(400, dtype=np.float32).reshape(4, 100), "w")
    model = graph(
        [info("X", TensorProto.FLOAT, ["N", 4])],
        [info("y", TensorProto.FLOAT, ["N", 100])],
        [helper.make_node("MatMul", ["X", "w"], ["y"])],
        [weights],
    )
    path = tmp_path / "large.onnx"
    onnx.save(model, path, save_as_external_data=True, location="large.weights", size_threshold=100)
    return str(path)


def test_weights_beside_the_file_belong_to_the_model(tmp_path):
    path = with_weights_beside(tmp_path)
    model = models.load(path, options=FEATURES)
    whole = np.array([line["y"] for line in written(predict(model, RECORDS[:64]))], np.float32)
    assert (whole == own(path, {"X": X[:64]})["y"]).all()
    packages = package_list(path, requires=model.info.requires)
    built = build(packages, tmp_path / "built")
    weights = tmp_path / "large.weights"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\x01")
    assert models.load(path, options=FEATURES).info.fingerprint != model.info.fingerprint
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"weights in a file beside it .*large\.weights"):
        models.load(path, options=FEATURES)
    Path(path).unlink()
    clean_import(built, models_spec(path))


def models_spec(path: str) -> Any:
    from modelbeam.job.description import spec_of

    return spec_of(path, {"features": "a,b,c,d"})


def test_a_model_that_is_too_new_or_damaged_is_told(tmp_path):
    newer = onnx.ModelProto()
    newer.CopyFrom(MODELS["linear"])
    newer.opset_import[0].domain, newer.opset_import[0].version = "", 99
    with pytest.raises(ModelLoadError, match=r"newer ONNX Runtime than .* pip install --upgrade"):
        models.load(saved(newer, tmp_path))
    newer.ir_version = 99
    with pytest.raises(ModelLoadError, match=r"newer ONNX Runtime than"):
        models.load(saved(newer, tmp_path))
    whole = MODELS["forest"].SerializeToString()
    for content in (b"", b"hello", whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises((ModelLoadError, NotAModelError), match=r"bad\.onnx"):
            models.load(str(tmp_path / "bad.onnx"))


def test_a_missing_runtime_is_told_with_the_command(tmp_path, monkeypatch):
    path = saved(MODELS["linear"], tmp_path)
    monkeypatch.delitem(sys.modules, "modelbeam.models.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelLoadError, match=r"Install it with: pip install onnxruntime"):
        models.load(path, options=FEATURES)


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_it_runs_in_threads_and_processes(mode, tmp_path):
    data = write_lines(tmp_path / "in.jsonl", RECORDS)
    path = saved(MODELS["forest"], tmp_path)
    modelbeam.predict(
        model=path,
        input=str(data),
        output=str(tmp_path / "out.jsonl"),
        features=list(NAMES),
        proba=True,
        split_size="8KB",
        workers=2,
        worker_mode=mode,
    )
    made = read_lines(tmp_path / "out.jsonl")
    wanted = own(path, {"X": X})
    assert [line["output_label"] for line in made] == wanted["output_label"].tolist()
    top = np.array([line["probability_top"] for line in made], np.float32)
    assert top.tolist() == [one["top"] for one in wanted["output_probability"]]


def test_rows_that_would_be_scaled_together_are_predicted_alone(tmp_path):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["small", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["about"]),
        helper.make_node("MatMul", ["about", "w"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.arange(1, 5, dtype=np.float32).reshape(4, 1), "w")]
    given, made = (
        [info(name, TensorProto.FLOAT, ["N", width])] for name, width in (("x", 4), ("y", 1))
    )
    path = saved(graph(given, made, nodes, weights), tmp_path)
    alone = [own(path, {"x": row[None]})["y"].item() for row in X[:40]]
    assert own(path, {"x": X[:40]})["y"][:, 0].tolist() != alone
    made = [np.float32(line["y"]) for line in lines(path, RECORDS[:40], options=FEATURES)]
    assert made == alone
