"""Models of XGBoost, LightGBM and CatBoost, against the libraries' own predictions."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from commands import read_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import modelbeam
from modelbeam import models
from modelbeam.errors import ModelError, ModelLoadError, NotAModelError
from modelbeam.models import Options
from modelbeam.package.build import build
from modelbeam.package.clean import clean_import
from modelbeam.package.listing import package_list
from modelbeam.predicting.conform import misfits
from modelbeam.testing import ModelKindContract, predict, written

ROWS = 300
_random = np.random.default_rng(11)
X = pd.DataFrame(_random.normal(size=(ROWS, 3)), columns=["b", "a", "c.d"])
CITIES = _random.choice(["Bonn", "Mainz", "Ulm"], ROWS)
Y = X.to_numpy() @ [1.0, -2, 0.5] + (CITIES == "Ulm") + _random.normal(size=ROWS)
CODES = np.digitize(Y, [-1, 1])
LABELS = np.array(["low", "mid", "top"])[CODES]
MIXED = X.assign(city=pd.Categorical(CITIES), floor=_random.integers(0, 4, ROWS))


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON has them, columns in another order."""
    turned = frame[frame.columns[::-1]].astype(object)
    return turned.where(turned.notna(), None).to_dict("records")


def holes(frame: pd.DataFrame) -> pd.DataFrame:
    made = frame.copy()
    made.loc[::5, "a"] = np.nan
    if "city" in made:
        made.loc[::7, "city"] = np.nan
    return made


def lines(target: str, records: list[Any], **given: Any) -> list[dict[str, Any]]:
    outcome = predict(models.load(target, **given), records)
    assert outcome.failures == []
    return written(outcome)


def column(target: str, records: list[Any], name: str = "prediction", **given: Any) -> list[Any]:
    return [line[name] for line in lines(target, records, **given)]


def as_float32(values: list[Any]) -> list[Any]:
    return np.array(values, np.float32).tolist()


XGB = xgb.XGBClassifier(n_estimators=6, enable_categorical=True).fit(MIXED, CODES)
LGB = lgb.LGBMClassifier(n_estimators=6, verbose=-1).fit(MIXED, LABELS)
CAT = catboost.CatBoostClassifier(
    iterations=6, cat_features=["city", "floor"], verbose=0, allow_writing_files=False
).fit(MIXED.assign(city=CITIES), LABELS)


def saved(kind: str, tmp_path: Path) -> str:
    path = str(tmp_path / {"xgboost": "m.ubj", "lightgbm": "m.txt", "catboost": "m.cbm"}[kind])
    if kind == "xgboost":
        XGB.save_model(path)
    elif kind == "lightgbm":
        LGB.booster_.save_model(path)
    else:
        CAT.save_model(path)
    return path


def own(kind: str) -> list[Any]:
    """What the library predicts for the first rows."""
    if kind == "xgboost":
        return XGB.predict(MIXED[:40]).tolist()
    if kind == "lightgbm":
        return LGB.booster_.predict(MIXED[:40]).tolist()
    return CAT.predict(MIXED[:40].assign(city=CITIES[:40]))[:, 0].tolist()


KINDS = ["xgboost", "lightgbm", "catboost"]


@pytest.mark.parametrize("kind", KINDS)
class TestBooster(ModelKindContract):
    @pytest.fixture
    def target(self, kind, tmp_path):
        return saved(kind, tmp_path)

    @pytest.fixture
    def records(self):
        return rows(MIXED[:40])

    @pytest.fixture
    def expected(self, kind):
        return [{"prediction": value} for value in own(kind)]

    @pytest.fixture
    def broken(self, kind):
        good = rows(MIXED[:1])[0]
        wrong = [("a", "1.0"), ("a", 2**53 + 1), ("city", 3.5), ("city", ["Bonn"]), ("a", [1])]
        if kind == "xgboost":
            wrong.append(("a", 1e300))
        if kind != "catboost":  # which hashes its categories, and takes new ones
            wrong += [("city", "Paris"), ("city", 3)]
        else:
            wrong += [("city", None)]
        without = {name: value for name, value in good.items() if name != "city"}
        return [without, *({**good, name: value} for name, value in wrong)]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), batch=st.integers(1, 50))
def test_a_record_has_one_prediction_whatever_the_batches(kind, sizes, batch, tmp_path_factory):
    path = saved(kind, tmp_path_factory.mktemp("model"))
    frame = MIXED if kind == "catboost" else holes(MIXED)
    records = rows(frame.assign(floor=MIXED.floor))
    model = models.load(path, options=Options(proba=True))
    whole = written(predict(model, records))
    proba = np.array([list(line.values())[1:] for line in whole])
    if kind == "xgboost":
        assert (proba.astype(np.float32) == XGB.predict_proba(frame)).all()
    elif kind == "lightgbm":
        assert (proba == LGB.predict_proba(frame)).all()
        assert [line["prediction"] for line in whole] == proba.tolist()
    else:
        assert (proba == CAT.predict_proba(MIXED.assign(city=CITIES))).all()
    names = ["low", "mid", "top"] if kind == "catboost" else ["0", "1", "2"]
    assert list(whole[0]) == ["prediction", *(f"probability_{name}" for name in names)]
    at = 0
    for size in sizes:
        part = written(predict(model, records[at : at + size], batch))
        assert part == whole[at : at + size]
        at += len(part)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_other_files_are_named(kind, tmp_path):
    path = Path(saved(kind, tmp_path))
    whole = path.read_bytes()
    cuts = [0, 1, 100, len(whole) // 3, len(whole) // 2]
    for content in [whole[:cut] for cut in cuts] + [b"hello", b"GGUF1234"]:
        path.write_bytes(content)
        with pytest.raises(ModelError) as raised:
            models.load(str(path))
        assert str(path) in str(raised.value)
        assert "Stack trace" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_library_is_told_with_the_command(kind, tmp_path, monkeypatch):
    path = saved(kind, tmp_path)
    monkeypatch.delitem(sys.modules, f"modelbeam.models.{kind}", raising=False)
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(ModelLoadError, match=rf"Install it with: pip install {kind}"):
        models.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_workers_get_the_library_and_the_file(kind, tmp_path):
    path = saved(kind, tmp_path)
    requires = models.load(path).info.requires
    [name] = requires
    assert name.startswith(kind)
    built = build(package_list(path, requires=requires), tmp_path / "built")
    Path(path).unlink()
    clean_import(built)


@pytest.mark.parametrize("mode", ["threads", "processes"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_in_threads_and_processes(kind, mode, tmp_path):
    data = write_lines(tmp_path / "in.jsonl", rows(MIXED[:40]))
    out = tmp_path / "out.jsonl"
    modelbeam.predict(
        model=saved(kind, tmp_path), input=str(data), output=str(out), workers=2, worker_mode=mode,
        split_size="1KB",
    )  # fmt: skip
    assert [line["prediction"] for line in read_lines(out)] == own(kind)


# XGBoost


def saved_booster(booster: Any, tmp_path: Path, name: str = "b.json") -> str:
    booster.save_model(tmp_path / name)
    return str(tmp_path / name)


def test_the_best_iteration_is_predicted_with(tmp_path):
    fitted = xgb.XGBRegressor(n_estimators=60, early_stopping_rounds=2, max_depth=5).fit(
        X[:200], Y[:200], eval_set=[(X[200:], Y[200:])], verbose=False
    )
    assert fitted.best_iteration + 1 < fitted.get_booster().num_boosted_rounds()
    made = column(saved_booster(fitted, tmp_path), rows(X))
    assert as_float32(made) == fitted.predict(X).tolist()


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "multi:softmax"])
def test_a_booster_of_train_goes_by_its_objective(objective, tmp_path):
    binary = objective.startswith("binary")
    target = (CODES > 1).astype(int) if binary else CODES
    parameters = {"objective": objective, **({} if binary else {"num_class": 3})}
    booster = xgb.train(parameters, xgb.DMatrix(X.to_numpy(), target), 4)
    path = saved_booster(booster, tmp_path)
    with pytest.raises(NotAModelError, match=r"takes 3 columns .* --features A,B,C"):
        models.load(path)
    chosen = Options(features=tuple(X.columns))
    raw = booster.predict(xgb.DMatrix(X.to_numpy()))
    wanted = raw.argmax(1) if raw.ndim == 2 else (raw > 0.5 if binary else raw)
    made = column(path, rows(X), options=chosen)
    assert made == wanted.astype(int).tolist()
    assert {type(value) for value in made} == {int}
    proba = Options(features=tuple(X.columns), proba=True)
    if objective == "multi:softmax":
        with pytest.raises(NotAModelError, match=r"multi:softprob"):
            models.load(path, options=proba)
    else:
        second = as_float32(column(path, rows(X), "probability_1", options=proba))
        assert second == (raw if binary else raw[:, 1]).tolist()


def test_several_targets_ranks_and_linear_boosters(tmp_path):
    several = xgb.XGBRegressor(n_estimators=3).fit(X, np.column_stack((Y, -Y)))
    made = column(saved_booster(several, tmp_path), rows(X))
    assert as_float32(made) == several.predict(X).tolist()
    groups = np.sort(_random.integers(0, 9, ROWS))
    ranker = xgb.XGBRanker(n_estimators=3).fit(X, CODES, qid=groups)
    made = column(saved_booster(ranker, tmp_path), rows(X))
    assert as_float32(made) == ranker.predict(X).tolist()
    linear = xgb.XGBRegressor(n_estimators=3, booster="gblinear").fit(X, Y)
    made = column(saved_booster(linear, tmp_path), rows(X))
    assert np.allclose(made, linear.predict(X), rtol=1e-6)
    path = saved_booster(linear, tmp_path)
    with pytest.raises(NotAModelError, match=r"--proba: .* reg:squarederror"):
        models.load(path, options=Options(proba=True))


def test_several_labels_at_once_are_a_list(tmp_path):
    labels = np.column_stack((Y > 0, Y > 1)).astype(int)
    fitted = xgb.XGBClassifier(n_estimators=3).fit(X, labels)
    path = saved_booster(fitted, tmp_path)
    model = models.load(path, options=Options(proba=True))
    made = written(predict(model, rows(X)))
    assert [line["prediction"] for line in made] == fitted.predict(X).tolist()
    found = [[line["probability_0"], line["probability_1"]] for line in made]
    assert as_float32(found) == fitted.predict_proba(X).tolist()
    assert misfits(model.info.output_schema, made) == []


def test_categories_that_the_library_stores_wrongly_are_told(tmp_path):
    cities = np.where(CITIES == "Mainz", "Köln", CITIES)
    fitted = xgb.XGBRegressor(n_estimators=2, enable_categorical=True)
    fitted.fit(X.assign(city=pd.Categorical(cities)), Y)
    model = models.load(saved_booster(fitted, tmp_path))
    stored = fitted.get_booster().get_categories(export_to_arrow=True).to_arrow()[3][1].to_pylist()
    if stored != sorted(set(cities)):
        assert "stored wrongly" in model.info.warnings[0]
        assert [f.type for f in predict(model, rows(X[:1].assign(city="Köln"))).failures] == [
            "UnknownCategoryError"
        ]
    table = pa.Table.from_pandas(X).append_column("city", pa.array(cities).dictionary_encode())
    booster = xgb.train({}, xgb.DMatrix(table, Y, enable_categorical=True), 2)
    made = column(saved_booster(booster, tmp_path), rows(X.assign(city=cities)))
    assert as_float32(made) == booster.predict(xgb.DMatrix(table, enable_categorical=True)).tolist()


def test_other_json_is_no_model(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(NotAModelError, match=r"no model of XGBoost: it has no 'learner'"):
        models.load(str(tmp_path / "x.json"))


# LightGBM


def test_names_with_spaces_may_be_given_as_the_data_has_them(tmp_path):
    frame = X.rename(columns={"a": "an a"})
    booster = lgb.train({"objective": "regression", "verbose": -1}, lgb.Dataset(frame, Y), 5)
    path = saved_booster(booster, tmp_path, "b.txt")
    assert [c.name for c in models.load(path).info.signature.columns] == ["b", "an_a", "c.d"]
    chosen = Options(features=("b", "an a", "c.d"))
    assert column(path, rows(frame), options=chosen) == booster.predict(frame).tolist()
    with pytest.raises(NotAModelError, match=r"knows its columns, which are b,an_a,c.d"):
        models.load(path, options=Options(features=("b", "another a", "c.d")))


def test_a_file_without_names_wants_them_and_a_binary_one_predicts_probabilities(tmp_path):
    booster = lgb.train(
        {"objective": "binary", "verbose": -1}, lgb.Dataset(X.to_numpy(), CODES > 1), 5
    )
    path = saved_booster(booster, tmp_path, "b.txt")
    with pytest.raises(NotAModelError, match=r"takes 3 columns"):
        models.load(path)
    made = lines(path, rows(X), options=Options(features=tuple(X.columns), proba=True))
    wanted = booster.predict(X.to_numpy()).tolist()
    assert [line["prediction"] for line in made] == wanted
    assert [line["probability_1"] for line in made] == wanted


@pytest.mark.parametrize("shift", [-3, 3])
def test_a_file_whose_trees_have_other_sizes_is_not_given_to_the_library(shift, tmp_path):
    path = Path(saved("lightgbm", tmp_path))
    content = path.read_bytes()
    middle = content.index(b"Tree=4\n") + 60
    changed = content[: middle + min(shift, 0)] + b"1" * max(shift, 0) + content[middle:]
    path.write_bytes(changed)
    with pytest.raises(ModelLoadError, match=r"not whole"):
        models.load(str(path))


# In pickles


@pytest.mark.parametrize("fitted", [XGB, LGB, CAT], ids=KINDS)
def test_a_pickled_classifier_predicts_its_labels(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "m.joblib")
    frame = MIXED.assign(city=CITIES) if fitted is CAT else MIXED
    model = models.load(str(tmp_path / "m.joblib"), options=Options(proba=True))
    made = written(predict(model, rows(MIXED)))
    assert [line["prediction"] for line in made] == fitted.predict(frame).ravel().tolist()
    proba = np.array([list(line.values())[1:] for line in made])
    assert (proba.astype(fitted.predict_proba(frame).dtype) == fitted.predict_proba(frame)).all()
    names = [re.sub("^probability_", "", name) for name in list(made[0])[1:]]
    assert names == [str(label) for label in fitted.classes_]
    joblib.dump(type(fitted)(), tmp_path / "m.joblib")
    with pytest.raises(NotAModelError, match=r"was not fitted"):
        models.load(str(tmp_path / "m.joblib"))


# CatBoost


def test_numbers_and_several_targets_of_catboost(tmp_path):
    common = {"iterations": 5, "verbose": 0, "allow_writing_files": False}
    counts = catboost.CatBoostRegressor(loss_function="Poisson", **common).fit(X, CODES)
    path = saved_booster(counts, tmp_path, "c.cbm")
    assert column(path, rows(holes(X))) == counts.predict(holes(X)).tolist()
    several = catboost.CatBoostRegressor(loss_function="MultiRMSE", **common)
    several.fit(X.to_numpy(), np.column_stack((Y, -Y)))
    path = saved_booster(several, tmp_path, "c.cbm")
    with pytest.raises(NotAModelError, match=r"takes 3 columns"):
        models.load(path)
    chosen = Options(features=tuple(X.columns))
    assert column(path, rows(X), options=chosen) == several.predict(X.to_numpy()).tolist()
    output = models.load(path, options=chosen).info.output_schema
    assert output["properties"]["prediction"]["type"] == "array"
    with pytest.raises(NotAModelError, match=r"--proba: .* predicts numbers"):
        models.load(path, options=Options(features=tuple(X.columns), proba=True))


@pytest.mark.parametrize("labels", [np.array([False, True]), np.array([1, 2]), np.array([0.5, 2])])
def test_labels_of_catboost_come_out_as_what_they_are(labels, tmp_path):
    fitted = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False)
    fitted.fit(X, labels[(Y > 0).astype(int)])
    path = saved_booster(fitted, tmp_path, "c.cbm")
    made = column(path, rows(X), options=Options(proba=True))
    assert made == catboost.CatBoostClassifier().load_model(path).predict(X).tolist()
    assert {type(one) for one in made} <= {type(labels.tolist()[0])}
