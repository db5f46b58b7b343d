"""Estimators and pipelines of scikit-learn, against its own predictions on the same rows."""

from __future__ import annotations

import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from commands import read_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

import modelbeam
from modelbeam import cli, models
from modelbeam.errors import (
    ModelError,
    ModelLoadError,
    NotAModelError,
    ResumeError,
    SchemaMismatchError,
)
from modelbeam.models import Options, estimators, tabular
from modelbeam.package.build import build
from modelbeam.package.clean import clean_import
from modelbeam.package.listing import package_list
from modelbeam.testing import ModelKindContract, predict, written

NAMES = ["sepal.length", "sepal width", "petal_länge", "d"]
ROWS = 240
_random = np.random.default_rng(5)
X = pd.DataFrame(_random.normal(size=(ROWS, 4)), columns=NAMES)
Y = X @ np.array([1.0, -2.0, 0.5, 3.0]) + _random.normal(size=ROWS)
CLASSES = np.array(["setosa", "virginica", "versicolor"])[np.digitize(Y, [-2, 2])]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON has them, their columns in another order."""
    turned = frame[frame.columns[::-1]]
    return json.loads(turned.to_json(orient="records", double_precision=15))


def exact(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame[frame.columns[::-1]].to_dict("records")


def saved(model: Any, tmp_path: Path, name: str = "model.joblib") -> str:
    path = tmp_path / name
    joblib.dump(model, path)
    return str(path)


def column(model: models.LoadedModel, rows: list[Any], name: str = "prediction") -> list[Any]:
    outcome = predict(model, rows)
    assert outcome.failures == []
    return [line[name] for line in written(outcome)]


class TestClassifier(ModelKindContract):
    fitted = RandomForestClassifier(7, random_state=0).fit(X, CLASSES)

    @pytest.fixture
    def target(self, tmp_path):
        return saved(self.fitted, tmp_path)

    @pytest.fixture
    def records(self):
        return exact(X[:5])

    @pytest.fixture
    def expected(self):
        return [{"prediction": label} for label in self.fitted.predict(X[:5])]

    @pytest.fixture
    def broken(self):
        return [{"d": 1.0}, {**exact(X[:1])[0], "d": "1.0"}, {**exact(X[:1])[0], "d": 2**53 + 1}, 7]


class TestPipelineOfNumbers(ModelKindContract):
    fitted = make_pipeline(StandardScaler(), PCA(3), Ridge()).fit(X, Y)

    @pytest.fixture
    def target(self, tmp_path):
        skops.io.dump(self.fitted, tmp_path / "model.skops")
        return tmp_path / "model.skops"

    @pytest.fixture
    def records(self):
        return exact(X[:48])

    @pytest.fixture
    def expected(self):
        return [{"prediction": value} for value in self.fitted.predict(X[:48])]

    @pytest.fixture
    def broken(self):
        return [{"d": 1.0}, {**exact(X[:1])[0], "d": None}, {**exact(X[:1])[0], "d": [1.0]}]


FITTED = {
    "linear": LinearRegression().fit(X, Y),
    "logistic": LogisticRegression().fit(X, CLASSES),
    "network": MLPClassifier((30,), random_state=0, tol=1, n_iter_no_change=2).fit(X, CLASSES),
    "forest": RandomForestRegressor(5, random_state=0).fit(X, Y),
    "vectors": SVC().fit(X, CLASSES),
    "votes": VotingRegressor([("a", LinearRegression()), ("b", Ridge())]).fit(X, Y),
}


@pytest.mark.parametrize("name", FITTED)
@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6), batch=st.integers(1, 60))
def test_a_record_has_one_prediction_whatever_the_batches(name, sizes, batch, tmp_path_factory):
    fitted = FITTED[name]
    proba = hasattr(fitted, "predict_proba")
    path = saved(fitted, tmp_path_factory.mktemp("model"))
    model = models.load(path, options=Options(proba=proba))
    whole = written(predict(model, exact(X)))
    own = fitted.predict_proba(X).T.tolist() if proba else []
    wanted = [("prediction", fitted.predict(X).tolist())]
    classes = fitted.classes_ if proba else []
    wanted += [(f"probability_{c}", p) for c, p in zip(classes, own, strict=True)]
    for key, values in wanted:
        assert [line[key] for line in whole] == values
    at = 0
    for size in sizes:
        part = written(predict(model, exact(X[at : at + size]), batch))
        assert part == whole[at : at + size]
        at += len(part)


def test_trees_in_pipelines_get_their_rows_as_they_are():
    frame = X.assign(kind=CLASSES)
    parts = ColumnTransformer(
        [("n", StandardScaler(), NAMES), ("k", OneHotEncoder(), ["kind"])], remainder="drop"
    )
    trees = make_pipeline(parts, RandomForestRegressor(3)).fit(frame, Y)
    assert estimators.block_of(trees) == (tabular.LARGEST, 1)
    assert estimators.block_of(FITTED["votes"]) == (tabular.LARGEST, tabular.ALIGNED)
    wide = MLPClassifier((70, 70), tol=10, n_iter_no_change=1).fit(X, CLASSES)
    rows, multiple = estimators.block_of(wide)
    assert rows == multiple == 256


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["no", "yes"]),
        np.array(["no", "yes"], object),
        np.array([False, True]),
        np.array([3, 10]),
        np.array([0.0, 1.0]),
    ],
)
def test_labels_come_out_as_what_they_are(labels, tmp_path):
    y = labels[(Y > 0).astype(int)]
    fitted = RandomForestClassifier(3, random_state=0).fit(X, y)
    model = models.load(saved(fitted, tmp_path), options=Options(proba=True))
    lines = written(predict(model, exact(X)))
    got = [line["prediction"] for line in lines]
    assert got == fitted.predict(X).tolist()
    assert {type(value) for value in got} == {type(labels.tolist()[0])}
    texts = ["true" if v is True else "false" if v is False else str(v) for v in labels.tolist()]
    assert list(lines[0]) == ["prediction", *(f"probability_{text}" for text in texts)]
    assert [line[f"probability_{texts[1]}"] for line in lines] == fitted.predict_proba(X)[
        :, 1
    ].tolist()
    assert model.info.output_schema["properties"]["prediction"]["type"] in (
        *("string", "boolean", "integer", "number"),
    )


def test_jobs_of_a_model_do_not_change_the_last_bit(tmp_path):
    fitted = make_pipeline(StandardScaler(), RandomForestRegressor(40, n_jobs=4, random_state=0))
    fitted.fit(X, Y)
    model = models.load(saved(fitted, tmp_path))
    assert estimators.last_of(model._model).n_jobs == 1
    fitted[-1].n_jobs = 1
    assert column(model, exact(X)) == fitted.predict(X).tolist()


def test_several_outputs_are_a_list_and_probabilities_are_by_output(tmp_path):
    both = np.column_stack((CLASSES, np.where(Y > 0, "up", "down")))
    fitted = RandomForestClassifier(3, random_state=0).fit(X, both)
    model = models.load(saved(fitted, tmp_path), options=Options(proba=True))
    lines = written(predict(model, exact(X[:3])))
    assert [line["prediction"] for line in lines] == fitted.predict(X[:3]).tolist()
    widths = [len(c) for c in fitted.classes_]
    assert widths == [3, 2]
    assert [line["probability_1_up"] for line in lines] == fitted.predict_proba(X[:3])[1][
        :, 1
    ].tolist()
    assert len(lines[0]) == 1 + sum(widths)
    numbers = LinearRegression().fit(X, np.column_stack((Y, -Y)))
    model = models.load(saved(numbers, tmp_path))
    assert column(model, exact(X[:16])) == numbers.predict(X[:16]).tolist()


class ShuffledIndex:
    """A model whose result has an index of its own, and that drops rows if it is told to."""

    def __init__(self, drops: bool = False) -> None:
        self.feature_names_in_ = np.array(["x"], object)
        self.drops = drops

    def predict(self, frame: pd.DataFrame) -> pd.Series:
        made = pd.Series(frame["x"].to_numpy() * 2, index=range(len(frame))[::-1])
        return made[1:] if self.drops else made


def test_results_count_by_position_and_a_wrong_number_is_an_error(tmp_path):
    model = models.load(saved(ShuffledIndex(), tmp_path))
    assert column(model, [{"x": v} for v in (3.0, 1, 2)]) == [6.0, 2.0, 4.0]
    outcome = predict(models.load(saved(ShuffledIndex(True), tmp_path)), [{"x": 1.0}] * 3)
    assert {f.type for f in outcome.failures} == {"WrongNumberOfPredictionsError"}
    assert len(outcome.failures) == 3


# Columns


MIXED = pd.DataFrame(
    {
        "age": [31.0, np.nan, 45, 28, 60, 33] * 5,
        "city": ["Bonn", "Köln", None, "Bonn", "Ulm", "Köln"] * 5,
        "words": ["late train", "good food", "late", "train", "food", "good train"] * 5,
        "rooms": [1, 2, 3, 2, 1, 3] * 5,
        "unused": ["a", "b", "c", "d", "e", "f"] * 5,
    }
)
LEFT = np.array(["stays", "leaves"])[([0, 1, 1, 0, 1, 0] * 5)]


def mixed_pipeline() -> Any:
    parts = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("places", OneHotEncoder(), ["city"]),
            ("texts", TfidfVectorizer(), "words"),
            ("ordered", OrdinalEncoder(), ["rooms"]),
        ]
    )
    return make_pipeline(parts, LogisticRegression()).fit(MIXED, LEFT)


def test_what_a_column_holds_follows_from_the_pipeline(tmp_path):
    fitted = mixed_pipeline()
    model = models.load(saved(fitted, tmp_path), options=Options(proba=True))
    kinds = {c.name: (c.kind, c.required) for c in model.info.signature.columns}
    assert kinds == {
        "age": ("float", True),
        "city": ("str", True),
        "words": ("str", True),
        "rooms": ("float", True),
        "unused": ("any", False),
    }
    rows = [
        {name: None if value != value else value for name, value in row.items()}
        for row in MIXED.drop(columns="unused").to_dict("records")
    ]
    lines = written(predict(model, rows))
    assert [line["prediction"] for line in lines] == fitted.predict(MIXED).tolist()
    assert [line["probability_leaves"] for line in lines] == fitted.predict_proba(MIXED)[
        :, 0
    ].tolist()
    bad = [{**rows[0], "city": "Paris"}, {**rows[0], "words": None}, {**rows[0], "age": "31"}]
    outcome = predict(model, [rows[0], *bad, rows[1]])
    assert [failure.row for failure in outcome.failures] == [1, 2, 3] or sorted(
        failure.row for failure in outcome.failures
    ) == [1, 2, 3]
    assert written(outcome) == lines[:2]


def test_categories_do_not_depend_on_the_batch(tmp_path):
    frame = MIXED[["age", "city"]].astype({"city": "category"})
    fitted = HistGradientBoostingClassifier(
        categorical_features="from_dtype", min_samples_leaf=1, max_iter=5
    ).fit(frame, LEFT)
    model = models.load(saved(fitted, tmp_path))
    rows = [
        {k: None if v != v else v for k, v in row.items()}
        for row in MIXED[["city", "age"]].to_dict("records")
    ]
    wanted = fitted.predict(frame).tolist()
    assert column(model, rows) == wanted
    assert [column(model, [row])[0] for row in rows] == wanted
    assert (
        column(model, [{"age": None, "city": None}])
        == fitted.predict(
            pd.DataFrame({"age": [np.nan], "city": pd.Categorical([None], ["Bonn"])})
        ).tolist()
    )


def test_nulls_are_predicted_or_fail_alone_as_the_model_has_it(tmp_path):
    holes = X.copy()
    holes.iloc[::7, 1] = np.nan
    rows = [{k: None if v != v else v for k, v in row.items()} for row in exact(holes)]
    takes = HistGradientBoostingClassifier(max_iter=5).fit(holes, CLASSES)
    assert column(models.load(saved(takes, tmp_path)), rows) == takes.predict(holes).tolist()
    refuses = LinearRegression().fit(X, Y)
    outcome = predict(models.load(saved(refuses, tmp_path)), rows)
    assert [f.row for f in outcome.failures] == list(range(0, ROWS, 7))
    assert {f.error for f in outcome.failures} == {"column 'sepal width' is null"}
    inside = make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y)
    outcome = predict(models.load(saved(inside, tmp_path)), rows[:20])
    assert [f.row for f in outcome.failures] == [0, 7, 14]
    assert {f.error for f in outcome.failures} == {"column 'sepal width' is null"}
    parts = ColumnTransformer(
        [("mean", SimpleImputer(), ["sepal width"]), ("rest", "passthrough", [NAMES[0], "d"])]
    )
    some = make_pipeline(parts, LinearRegression()).fit(holes, Y)
    columns = models.load(saved(some, tmp_path)).info.signature.columns
    assert {c.name for c in columns if c.nullable} == {"sepal width", "petal_länge"}


def test_booleans_count_as_numbers_and_inexact_integers_do_not(tmp_path):
    frame = pd.DataFrame({"flag": [True, False] * 20, "n": range(40)})
    fitted = LinearRegression().fit(frame, np.arange(40.0))
    model = models.load(saved(fitted, tmp_path))
    rows = [{"flag": bool(f), "n": int(n)} for f, n in zip(frame.flag, frame.n, strict=True)]
    assert column(model, rows[:32]) == fitted.predict(frame[:32]).tolist()
    assert predict(model, [{"flag": 1, "n": 2**53 + 1}]).failures[0].stage == "validate"
    assert predict(model, [{"flag": 1, "n": 2**53 + 2}]).failures == []


def test_a_model_without_names_wants_them(tmp_path):
    fitted = RandomForestClassifier(3, random_state=0).fit(X.to_numpy(), CLASSES)
    path = saved(fitted, tmp_path)
    with pytest.raises(NotAModelError, match=r"takes 4 columns .* --features A,B,C,D\."):
        models.load(path)
    with pytest.raises(NotAModelError, match=r"names 2 columns; .* takes 4"):
        models.load(path, options=Options(features=("a", "b")))
    model = models.load(path, options=Options(features=tuple(NAMES)))
    assert column(model, exact(X)) == fitted.predict(X.to_numpy()).tolist()
    named = saved(RandomForestClassifier(3).fit(X, CLASSES), tmp_path)
    with pytest.raises(NotAModelError, match=r"knows its columns, which are sepal.length"):
        models.load(named, options=Options(features=("a", "b", "c", "d")))


def test_a_model_of_texts_takes_one_column(tmp_path):
    fitted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(MIXED.words, LEFT)
    path = saved(fitted, tmp_path)
    with pytest.raises(NotAModelError, match=r"takes one column .* --features A"):
        models.load(path)
    model = models.load(path, options=Options(features=("words",)))
    assert column(model, exact(MIXED)) == fitted.predict(MIXED.words).tolist()
    assert predict(model, [{"words": None}]).failures[0].error == "column 'words' is null"


def test_a_search_predicts_with_its_best_model(tmp_path):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(X, CLASSES)
    assert column(models.load(saved(search, tmp_path)), exact(X)) == search.predict(X).tolist()
    clusters = KMeans(3, random_state=0, n_init=1).fit(X)
    assert column(models.load(saved(clusters, tmp_path)), exact(X)) == clusters.predict(X).tolist()
    odd = IsolationForest(n_estimators=5, random_state=0).fit(X)
    assert column(models.load(saved(odd, tmp_path)), exact(X)) == odd.predict(X).tolist()


# What is no model


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ({"model": LinearRegression().fit(X, Y), "threshold": 3}, r"a dict with .* 'model'"),
        ((LinearRegression().fit(X, Y), StandardScaler()), r"a tuple of LinearRegression, Stand"),
        (StandardScaler().fit(X), r"a StandardScaler, which transforms .* pipeline"),
        (DBSCAN().fit(X), r"a DBSCAN, which groups .* KMeans"),
        (LinearRegression(), r"a LinearRegression that was not fitted"),
        (make_pipeline(StandardScaler(), Ridge()), r"a Pipeline that was not fitted"),
        (np.arange(6.0).reshape(2, 3), r"an array of NumPy \(shape \(2, 3\)\)"),
        (LinearRegression, r"the class LinearRegression and no object"),
        (GridSearchCV(Ridge(), {"alpha": [1]}, refit=False).fit(X, Y), r"refit=False"),
        (print, r"holds a function"),
        ("just text", r"builtins.str, which has no predict"),
    ],
)
def test_what_is_no_model_is_told(thing, said, tmp_path):
    with pytest.raises(NotAModelError, match=said) as raised:
        models.load(saved(thing, tmp_path))
    assert (
        "module:function" in str(raised.value)
        or "Fit one" in str(raised.value)
        or ("Call its fit()" in str(raised.value))
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "a Keras model"),
        (b"GGUF" + bytes(50), "language model"),
        (b"<?xml version='1.0'?><PMML version='4.4'>", "a PMML document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"", "damaged, cut off"),
        (b"hello, this is text", "damaged, cut off"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, said, tmp_path):
    file = tmp_path / "model.pkl"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=said) as raised:
        models.load(str(file))
    assert str(file) in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl", "m.skops"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_named(name, data, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / name
    fitted = LogisticRegression().fit(X, CLASSES)
    if name.endswith("skops"):
        skops.io.dump(fitted, file)
    else:
        joblib.dump(fitted, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 3))])
    with pytest.raises(ModelError) as raised:
        models.load(str(file))
    assert str(file) in str(raised.value)


def test_a_name_of_the_training_script_is_told(tmp_path, monkeypatch):
    class Custom:
        def predict(self, rows: Any) -> Any:
            return rows

    main = sys.modules["__main__"]
    Custom.__module__, Custom.__qualname__ = "__main__", "Custom"
    monkeypatch.setattr(main, "Custom", Custom, raising=False)
    file = tmp_path / "m.pkl"
    file.write_bytes(pickle.dumps(Custom()))
    monkeypatch.delattr(main, "Custom")
    with pytest.raises(ModelLoadError, match=r"needs '__main__\.Custom'.*module:function"):
        models.load(str(file))


def test_a_module_that_is_not_there_is_told(tmp_path, monkeypatch):
    module = types.ModuleType("no_such_library")
    module.Thing = type("Thing", (), {"__module__": "no_such_library"})
    monkeypatch.setitem(sys.modules, "no_such_library", module)
    file = tmp_path / "m.pkl"
    file.write_bytes(pickle.dumps(module.Thing()))
    monkeypatch.delitem(sys.modules, "no_such_library")
    with pytest.raises(ModelLoadError, match=r"the module 'no_such_library', which is not inst"):
        models.load(str(file))
    ours = pickle.dumps(StandardScaler())
    file.write_bytes(ours.replace(b"preprocessing._data", b"preprocessing._dato"))
    with pytest.raises(ModelLoadError, match=r"installed scikit-learn .* another version saved"):
        models.load(str(file))


def of_another_version(tmp_path: Path) -> str:
    import sklearn

    file = tmp_path / "old.pkl"
    data = pickle.dumps(RandomForestClassifier(2, random_state=0).fit(X, CLASSES))
    now = sklearn.__version__.encode()
    assert data.count(now)
    file.write_bytes(data.replace(now, b"0" * (len(now) - 2) + b".9"))
    return str(file)


def test_another_version_is_refused_unless_told_otherwise(tmp_path):
    import sklearn

    path = of_another_version(tmp_path)
    with pytest.raises(
        ModelLoadError, match=f"scikit-learn 0+.9, and {sklearn.__version__} is"
    ) as e:
        models.load(path)
    assert "--allow-version-mismatch" in str(e.value)
    model = models.load(path, options=Options(allow_version_mismatch=True))
    assert sklearn.__version__ in model.info.warnings[0]
    assert len(column(model, exact(X))) == ROWS


def test_types_that_skops_does_not_know_must_be_trusted(tmp_path):
    fitted = RandomForestClassifier(2, random_state=0).fit(X, CLASSES)
    file = tmp_path / "model.skops"
    skops.io.dump(fitted, file)
    with pytest.raises(NotAModelError, match=r"--trusted-type sklearn.tree._tree.Tree") as raised:
        models.load(str(file))
    assert "sklearn.tree._tree.Tree" in str(raised.value)
    model = models.load(str(file), options=Options(trusted_types=("sklearn.tree._tree.Tree",)))
    assert column(model, exact(X)) == fitted.predict(X).tolist()
    with pytest.raises(NotAModelError, match=r"--trusted-type is for .skops files"):
        models.load(saved(fitted, tmp_path), options=Options(trusted_types=("a.B",)))


def test_probabilities_where_there_are_none_are_refused(tmp_path):
    with pytest.raises(NotAModelError, match=r"--proba: .* is a LinearRegression"):
        models.load(saved(FITTED["linear"], tmp_path), options=Options(proba=True))
    with pytest.raises(NotAModelError, match=r"probability=True"):
        models.load(saved(FITTED["vectors"], tmp_path), options=Options(proba=True))
    with pytest.raises(NotAModelError, match=r"--proba is not for classes and functions"):
        models.load("small_models:Doubler", options=Options(proba=True))


def test_a_missing_library_is_told_with_the_command(tmp_path, monkeypatch):
    path = saved(FITTED["linear"], tmp_path, "m.skops")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    with pytest.raises(ModelLoadError, match=r"Install it with: pip install skops"):
        models.load(path)


# From the command line


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_a_file_of_a_model_is_run(mode, tmp_path):
    fitted = FITTED["logistic"]
    data = write_lines(tmp_path / "in.jsonl", [{**row, "id": i} for i, row in enumerate(exact(X))])
    settings = {"keep": ["id"], "proba": True, "split_size": "8KB", "workers": 2}
    modelbeam.predict(
        model=saved(fitted, tmp_path),
        input=str(data),
        output=str(tmp_path / "out.jsonl"),
        worker_mode=mode,
        **settings,
    )
    lines = read_lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == list(range(ROWS))
    assert [line["prediction"] for line in lines] == fitted.predict(X).tolist()
    assert [line["probability_setosa"] for line in lines] == fitted.predict_proba(X)[:, 0].tolist()


def test_resuming_refuses_a_file_that_changed(tmp_path):
    data = write_lines(tmp_path / "in.jsonl", exact(X))
    settings = {"input": str(data), "output": str(tmp_path / "out.jsonl")}
    modelbeam.predict(model=saved(FITTED["forest"], tmp_path), **settings)
    with pytest.raises(ResumeError, match=r"model code and files: was"):
        modelbeam.predict(model=saved(FITTED["linear"], tmp_path), **settings, resume=True)
    with pytest.raises(ResumeError, match=r"proba: was"):
        modelbeam.predict(
            model=saved(FITTED["logistic"], tmp_path), **settings, resume=True, proba=True
        )


def test_the_workers_get_the_library_and_the_file(tmp_path):
    path = saved(mixed_pipeline(), tmp_path)
    requires = models.load(path).info.requires
    assert {"scikit-learn", "pandas", "joblib"} <= set(requires)
    packages = package_list(path, requires=requires)
    assert {"scikit-learn", "pandas"} <= {getattr(item, "name", "") for item in packages.items}
    built = build(packages, tmp_path / "built")
    Path(path).rename(tmp_path / "elsewhere")  # as on another machine
    clean_import(built)


def test_check_names_both_versions_and_columns_that_are_not_there(tmp_path, capsys):
    import sklearn

    data = write_lines(tmp_path / "in.jsonl", exact(X.rename(columns={"d": "e"})))
    common = ("-i", str(data), "-o", str(tmp_path / "out.jsonl"))
    old = of_another_version(tmp_path)
    assert cli.run(["check", "-m", old, *common]) == 2
    said = capsys.readouterr().err
    assert sklearn.__version__ in said
    assert "Traceback" not in said
    assert cli.run(["check", "-m", old, *common, "--allow-version-mismatch"]) == 2
    assert "needs 'd'" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_column_of_another_type_throughout_is_told_before_the_run(suffix, tmp_path):
    wrong = X.assign(d=[f"about {n}" for n in range(ROWS)])
    file = tmp_path / f"in.{suffix}"
    save = {
        "jsonl": lambda frame: write_lines(file, exact(frame)),
        "csv": lambda frame: frame.to_csv(file, index=False),
        "parquet": lambda frame: frame.to_parquet(file),
    }[suffix]
    job = {"input": str(file), "output": str(tmp_path / "out.jsonl")}
    path = saved(FITTED["linear"], tmp_path)
    save(wrong)
    with pytest.raises(SchemaMismatchError, match=r"'d' must be a number, not .*all of the 100"):
        modelbeam.predict(model=path, **job)
    assert not (tmp_path / "out.jsonl").exists()
    if suffix != "parquet":
        save(pd.concat([wrong[:50], X[50:]]))
        run = modelbeam.predict(model=path, **job)
        assert (run.predicted, run.failed) == (ROWS - 50, 50)


def test_describe_and_package_take_the_same_flags(tmp_path, capsys):
    path = saved(LogisticRegression().fit(X.to_numpy(), CLASSES), tmp_path)
    assert cli.run(["describe", "-m", path]) == 2
    assert "--features A,B,C,D" in capsys.readouterr().err
    assert cli.run(["describe", "-m", path, "--features", "a,b,c,d", "--proba", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["input_schema"]["properties"]) == ["a", "b", "c", "d"]
    assert "probability_virginica" in said["output_schema"]["properties"]
    assert cli.run(["package", "-m", path, "--features", "a,b,c,d", "--json"]) == 0
    assert "scikit-learn" in capsys.readouterr().out
