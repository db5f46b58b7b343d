"""Plain functions as models: what they take follows from an annotation."""

from __future__ import annotations

from typing import Any

import pytest

from modelbeam import models
from modelbeam.errors import ModelLoadError, ModelNotFoundError, NotAModelError
from modelbeam.models import Options
from modelbeam.testing import ModelKindContract, predict, written

RECORDS = [{"x": 1.0}, {"x": 2.5}, {"x": 4.0}]

FUNCTIONS = {
    "plain": ("record", "record", "y"),
    "annotated": ("record", "record", "y"),
    "bare": ("record", "record", "prediction"),
    "of_point": ("record", "record", "y"),
    "listed": ("batch", "list", "prediction"),
    "generated": ("batch", "list", "y"),
    "array": ("batch", "list", "prediction"),
    "arrow_batch": ("table", "arrow batch", "prediction"),
    "arrow_table": ("table", "arrow table", "y"),
    "pandas_frame": ("table", "pandas", "y"),
    "pandas_series": ("table", "pandas", "prediction"),
    "polars_frame": ("table", "polars", "y"),
    "unresolved": ("table", "pandas", "prediction"),
    "instance": ("record", "record", "y"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestFunction(ModelKindContract):
    @pytest.fixture
    def target(self, name):
        return f"functions:{name}"

    @pytest.fixture
    def records(self):
        return RECORDS

    @pytest.fixture
    def expected(self, name):
        return [{FUNCTIONS[name][2]: one["x"] * 2} for one in RECORDS]

    @pytest.fixture
    def broken(self):
        return [{"x": "text"}, 3]

    def test_the_annotation_decides_what_it_takes(self, name):
        info = models.load(f"functions:{name}").info
        style, interface, _ = FUNCTIONS[name]
        assert (info.style, info.interface) == (style, f"function ({interface})")
        assert info.qualified_name.startswith("functions.")


def lines(target: str, records: list[Any] = RECORDS, **given: Any) -> list[dict[str, Any]]:
    outcome = predict(models.load(target, **given), records)
    assert outcome.failures == []
    return written(outcome)


def test_a_named_tuple_and_a_dict_of_columns_have_names():
    assert lines("functions:pair")[0] == {"y": 2.0, "z": None}
    assert lines("functions:columns") == [{"y": r["x"] * 2, "z": "a"} for r in RECORDS]


def test_the_documentation_is_the_description():
    assert models.load("functions:annotated").info.description == "Twice the number."


def test_arguments_go_to_the_other_parameters():
    with pytest.raises(ModelLoadError, match=r"needs factor beside the records.* --config"):
        models.load("functions:scaled")
    with pytest.raises(ModelLoadError, match=r"no parameter faktor"):
        models.load("functions:scaled", arguments={"factor": 1, "faktor": 2})
    made = lines("functions:scaled", arguments={"factor": 3, "offset": 1})
    assert [line["prediction"] for line in made] == [4.0, 8.5, 13.0]


def test_features_are_the_columns_of_a_table():
    model = models.load("functions:arrow_batch", options=Options(features=("x",)))
    outcome = predict(model, [{"x": 1.0, "other": "a"}, {"other": "b"}, {"x": 2.0}])
    assert [failure.row for failure in outcome.failures] == [1]
    assert written(outcome) == [{"prediction": 2.0}, {"prediction": 4.0}]
    with pytest.raises(NotAModelError, match=r"takes whole records"):
        models.load("functions:plain", options=Options(features=("x",)))
    with pytest.raises(NotAModelError, match=r"--proba is not for"):
        models.load("functions:plain", options=Options(proba=True))


def test_nothing_returned_and_a_wrong_number_are_errors():
    outcome = predict(models.load("functions:nothing"), RECORDS)
    assert {failure.type for failure in outcome.failures} == {"EmptyPredictionError"}
    outcome = predict(models.load("functions:drops"), [{"x": 1.0}, {"x": 2.0}, {"x": 0.5}])
    assert {failure.row for failure in outcome.failures} == {0, 2}
    assert {failure.type for failure in outcome.failures} == {"WrongNumberOfPredictionsError"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("of_text", r"takes a str, which is not .* dict \(a record\), list"),
        ("of_numbers", r"takes a list"),
        ("later", r"async function"),
        ("make_nothing", r"returned a int, which is no model"),
    ],
)
def test_other_functions_are_told_what_they_should_take(name, said):
    with pytest.raises(NotAModelError, match=said):
        models.load(f"functions:{name}")


def test_a_function_may_make_the_model():
    model = models.load("functions:make_estimator")
    assert [round(one["prediction"], 9) for one in lines("functions:make_estimator")] == [2, 5, 8]
    assert model.info.interface == "scikit-learn (LinearRegression)"
    with pytest.raises(NotAModelError, match=r"one column and does not know"):
        models.load("functions:make_named", arguments={"slope": 3.0})
    made = lines("functions:make_named", arguments={"slope": 3.0}, options=Options(features=("x",)))
    assert [round(one["prediction"], 9) for one in made] == [3, 7.5, 12]


def test_a_missing_name_is_told_with_the_nearest():
    with pytest.raises(ModelNotFoundError, match=r"did you mean 'annotated'"):
        models.load("functions:annotate")
