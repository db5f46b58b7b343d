"""Loading models: recognising them, saying what is wrong, and reading their input schemas."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal, Optional

import pyarrow as pa
import pytest
import schema as s
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    create_model,
    field_validator,
    model_validator,
)
from small_models import Doubler

import modelbeam
from modelbeam import models
from modelbeam.errors import ModelLoadError, ModelNotFoundError, NotAModelError
from modelbeam.models import Target, mlmodel
from modelbeam.models.signature import (
    Column,
    Signature,
    from_pydantic,
    from_schema,
    missing_columns,
)
from modelbeam.predicting.columns import to_batch
from modelbeam.predicting.predictor import predict_batch, predict_records, predict_table

OLDER = "iris_model.iris_predict:IrisModel"
NEWER = "iris_ml_base.model:IrisModel"
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.8, "petal_length": 1.6, "petal_width": 0.2}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of the given name that can be imported, and forget it afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def refused(target: str, kind: type[Exception], **arguments: Any) -> str:
    """The message with which a target is refused."""
    with pytest.raises(kind) as error:
        models.load(target, None, arguments)
    assert type(error.value) is kind
    return str(error.value)


# What a model says of itself


def test_an_older_model_describes_itself():
    info = models.load(OLDER).info
    assert (info.name, info.qualified_name, info.version) == ("iris_model", "iris_model", "0.1")
    assert info.display_name == "Iris Model"
    assert (info.interface, info.style) == ("MLModel (schema)", "record")
    assert info.distribution == "iris_model 0.1.0"
    assert set(info.input_schema["properties"]) == set(FLOWER)
    assert info.output_schema["properties"]["species"]["enum"][0] == "setosa"


def test_a_newer_model_describes_itself():
    info = models.load(NEWER).info
    assert (info.name, info.version) == ("iris_ml_base", "0.1.0")
    assert (info.interface, info.style) == ("MLModel (pydantic)", "record")
    assert info.input_schema["properties"]["sepal_length"]["maximum"] == 20
    assert info.output_schema["properties"]["probability"]["type"] == "number"


def test_a_name_of_ones_own_is_what_errors_call_the_model():
    info = models.load(OLDER, "flowers").info
    assert (info.name, info.qualified_name) == ("flowers", "iris_model")


def test_the_module_may_be_followed_by_a_dot():
    assert models.load("small_models.Doubler").info.qualified_name == "doubler"


@pytest.mark.parametrize(
    ("name", "style"),
    [("Doubler", "record"), ("BatchDoubler", "batch"), ("TableDoubler", "table")],
)
def test_the_style_follows_from_the_methods(name, style):
    assert models.load(f"small_models:{name}").info.style == style


def test_a_model_of_no_base_class_is_recognised_by_its_shape():
    assert Doubler.__mro__ == (Doubler, object)
    assert mlmodel.find(Target.parse("small_models:Doubler")) is Doubler


def test_the_description_is_plain_data():
    described = models.load(NEWER).info.to_dict()
    assert "signature" not in described
    assert json.loads(json.dumps(described)) == described


# What predicting returns


def test_an_older_model_predicts_a_dict():
    made = predict_records(models.load(OLDER), [FLOWER])
    assert made.values == [{"species": "setosa"}]


def test_a_newer_models_output_is_a_dict_with_the_values_of_enums():
    made = predict_records(models.load(NEWER), [FLOWER])
    assert made.values[0]["species"] == "setosa"
    assert type(made.values[0]["species"]) is str


def test_a_newer_model_is_given_its_own_input_type():
    made = predict_records(models.load("cli_models:Newer"), [{"Size": 2.0}])
    assert made.values == [{"species": "virginica", "garden": None}]
    assert made.failures == []


def test_an_optional_field_reaches_the_model():
    made = predict_records(models.load("cli_models:Newer"), [{"Size": 1, "garden": "Kew"}])
    assert made.values == [{"species": "setosa", "garden": "Kew"}]


def test_a_record_that_the_schema_rejects_is_a_failure_of_validation():
    made = predict_records(models.load("cli_models:Newer"), [{"Size": 0.0}])
    assert [(f.stage, f.type) for f in made.failures] == [("validate", "ValidationError")]


def test_an_integer_is_rejected_in_the_older_models_own_words():
    made = predict_records(models.load(OLDER), [{**FLOWER, "sepal_length": 5}])
    (failure,) = made.failures
    assert (failure.stage, failure.type) == ("validate", "MLModelSchemaValidationException")
    assert "5 should be instance of 'float'" in failure.error


def test_a_model_may_take_its_record_by_keyword_only():
    made = predict_records(models.load("cli_models:ByKeyword"), [{"x": 2.0}])
    assert made.values == [{"y": 4.0}]


def test_a_model_may_have_lists_and_objects_in_its_schema():
    record = {"values": [1.0, 2.0], "unit": {"name": "cm"}}
    made = predict_records(models.load("cli_models:Nested"), [record])
    assert made.values == [{"y": 3.0}]


# Arguments, decorators, objects


def test_arguments_reach_the_constructor():
    model = models.load("cli_models:Times", None, {"factor": 3.0, "offset": 1.0})
    assert predict_records(model, [{"x": 2.0}]).values == [{"y": 7.0}]


def test_a_missing_argument_is_named_with_the_place_to_give_it():
    message = refused("cli_models:Times", ModelLoadError)
    assert "needs factor" in message
    assert "offset" not in message
    assert "--config" in message
    assert "arguments: {" in message


def test_an_unknown_argument_is_named():
    message = refused("cli_models:Times", ModelLoadError, factor=1.0, faktor=2.0)
    assert "faktor" in message


def test_a_decorated_model_of_the_newer_generation_is_a_model():
    model = models.load("cli_models:Loud")
    assert model.info.qualified_name == "NEWER"
    assert predict_records(model, [{"Size": 2.0}]).values[0]["species"] == "virginica"


def test_an_object_may_stand_where_a_class_does():
    assert predict_records(models.load("cli_models:ready"), [{"x": 1.0}]).values == [{"y": 2.0}]


def test_a_wrapper_that_hands_on_attributes_is_a_model():
    model = models.load("cli_models:negated")
    assert model.info.qualified_name == "doubler"
    assert predict_records(model, [{"x": 1.0}]).values == [{"y": -2.0}]


def test_the_predict_of_a_wrapper_is_not_passed_by():
    model = models.load("cli_models:negated_lists")
    predict = predict_records if model.info.style == "record" else _predict_lists
    assert predict(model, [{"x": 1.0}]).values == [{"y": -2.0}]


def _predict_lists(model: Any, records: list[dict[str, Any]]) -> Any:
    return predict_batch(model, records, None)


def test_a_model_that_cannot_be_pickled_runs_in_processes(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"x": 1.5}\n' * 1000)
    run = modelbeam.predict(
        model="cli_models:Unpicklable",
        input=str(source),
        output=str(tmp_path / "out.jsonl"),
        split_size=4000,
        workers=2,
        worker_mode="processes",
    )
    assert (run.predicted, run.failed) == (1000, 0)
    assert run.description["workers"] == "2 workers: processes"


# What is not a model


def test_a_missing_module_is_named_with_what_to_do():
    message = refused("no_such_module:Model", ModelNotFoundError)
    assert "no module 'no_such_module'" in message
    assert sys.prefix in message
    assert "pip" in message


def test_a_missing_submodule_is_named():
    message = refused("iris_model.no_such:Model", ModelNotFoundError)
    assert "no module 'iris_model.no_such'" in message


def test_a_mistyped_class_gets_the_nearest():
    message = refused("small_models:Dubler", ModelNotFoundError)
    assert "has no 'Dubler'; did you mean 'Doubler'?" in message


def test_a_class_like_no_other_gets_the_list():
    message = refused("small_models:Xyz", ModelNotFoundError)
    assert "it has" in message
    assert "Doubler" in message


def test_a_module_that_raises_is_shown_with_its_line(module):
    name = module("raises_at_import", "x = 1\nraise RuntimeError('no licence')\n")
    message = refused(f"{name}:Model", ModelLoadError)
    assert "raised RuntimeError while it was imported" in message
    assert "raises_at_import.py:2" in message
    assert "no licence" in message


def test_a_module_that_exits_is_no_exit_of_ours(module):
    name = module("exits_at_import", "import sys\nsys.exit(3)\n")
    assert "raised SystemExit" in refused(f"{name}:Model", ModelLoadError)


def test_a_module_that_is_not_python_is_shown_with_its_line(module):
    name = module("not_python", "x = = 1\n")
    message = refused(f"{name}:Model", ModelLoadError)
    assert "raised SyntaxError" in message
    assert "line 1" in message


def test_a_missing_dependency_of_the_model_is_not_a_missing_model(module):
    name = module("wants_more", "import no_such_dependency\n")
    message = refused(f"{name}:Model", ModelLoadError)
    assert "No module named 'no_such_dependency'" in message
    assert "wants_more.py:1" in message


def test_a_line_of_pythons_own_frozen_modules_is_not_the_models(module):
    name = module("wants_a_setting", "import os\nos.environ['NO_SUCH_SETTING']\n")
    message = refused(f"{name}:Model", ModelLoadError)
    assert "raised KeyError" in message
    assert "wants_a_setting.py:2" in message


def test_a_constructor_that_raises_is_shown_with_its_line():
    message = refused("cli_models:FailsWhenBuilt", ModelLoadError)
    assert "raised FileNotFoundError while it was built" in message
    assert "cli_models.py:" in message
    assert "weights.bin is not there" in message


def test_a_property_that_raises_is_shown_once():
    message = refused("cli_models:FailsWhenAsked", ModelLoadError)
    assert "raised RuntimeError when it was asked for its name and schemas" in message
    assert "no version file" in message
    assert message.count("--model cli_models:FailsWhenAsked") == 1


def test_what_a_class_lacks_is_said():
    message = refused("cli_models:OnlyAName", NotAModelError)
    assert "no predict(), no input_schema, no output_schema" in message
    assert "no qualified_name" not in message


@pytest.mark.parametrize("target", ["os:sep", "builtins:dict"])
def test_other_things_are_not_models(target):
    assert "is not a model" in refused(target, NotAModelError)


@pytest.mark.parametrize("target", ["model", ":", "small_models:", ":Doubler"])
def test_a_target_without_its_parts_is_refused(target):
    assert "module:Class" in refused(target, NotAModelError)


@pytest.mark.parametrize("target", ["models/iris.weights", "./no-such-directory/"])
def test_a_file_is_refused_with_what_this_version_loads(target):
    assert "there is no such" in refused(target, NotAModelError)


def test_a_file_that_no_kind_takes_is_told_which_there_are(tmp_path):
    file = tmp_path / "iris.weights"
    file.write_bytes(b"123")
    message = refused(str(file), NotAModelError)
    assert "nothing that is installed loads this file" in message
    assert "scikit-learn (.joblib, .pkl, .pickle, .skops)" in message
    file.write_bytes(b"GGUF" + bytes(20))
    assert "a GGUF file of a language model" in refused(str(file), NotAModelError)
    for suffix, word in ((".keras", "Keras"), (".pt", "PyTorch"), (".pmml", "PMML")):
        other = tmp_path / f"iris{suffix}"
        other.write_bytes(b"who knows")
        assert f"is a {word}" in refused(str(other), NotAModelError)


# Signatures


def plain(name: str, kind: Any, **more: Any) -> Column:
    """A column."""
    return Column(name, kind, **more)


def schema_of(fields: dict[Any, Any], **settings: Any) -> Signature:
    """The signature of an object of the schema library."""
    found = from_schema(s.Schema(fields, **settings))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (float, plain("x", "float")),
        (int, plain("x", "int")),
        (str, plain("x", "str")),
        (bool, plain("x", "bool")),
        (s.Or(float, int), plain("x", "float")),
        (s.Or(float, None), plain("x", "float", nullable=True)),
    ],
)
def test_a_plain_type_of_schema_says_everything(value, column):
    assert schema_of({"x": value}) == Signature((column,), exact=True)


@pytest.mark.parametrize(
    "value",
    [
        s.And(float, lambda x: x > 0),
        s.Use(float),
        s.Or("a", "b"),
        s.Or(int, str),
        s.Schema({"y": float}),
        {"y": float},
        [int],
        [float, None],
    ],
    ids=lambda schema: str(schema)[:20],
)
def test_more_than_a_type_is_left_to_the_schema(value):
    assert schema_of({"x": value}) == Signature((plain("x", "any"),), exact=False)


def test_a_column_of_anything_is_not_looked_into():
    column = plain("x", "any", nullable=True)
    assert schema_of({"x": object}) == Signature((column,), exact=True)
    assert fields_of(Any) == Signature((column,), exact=True)
    assert fields_of(object) == Signature((column,), exact=True)


def test_a_list_of_numbers_says_everything():
    column = plain("x", "any", shape=("list", "float"))
    assert schema_of({"x": [float]}) == Signature((column,), exact=True)
    for annotation in (list[float], Optional[list[float]]):  # noqa: UP045 - an older spelling
        found = fields_of(annotation)
        assert (found.exact, found.columns[0].shape) == (True, ("list", "float"))
        assert found.columns[0].nullable is (annotation != list[float])


def test_an_optional_key_is_not_required():
    found = schema_of({"x": float, s.Optional("z"): int})
    assert found == Signature((plain("x", "float"), plain("z", "int", required=False)), True)
    assert found.required == ["x"]


def test_a_default_is_filled_in_by_the_schema_alone():
    found = schema_of({s.Optional("z", default=1): int})
    assert found.exact
    assert found.columns[0].filled
    batch, _, failures = to_batch(
        [{"z": 2}, {}], found, s.Schema({s.Optional("z", default=1): int}).validate
    )
    assert (batch.column("z").to_pylist(), failures) == ([2, 1], [])


def test_a_key_with_a_description_is_a_key():
    assert schema_of({s.Literal("x", description="the x"): float}).required == ["x"]


def test_keys_by_type_are_no_columns():
    assert schema_of({str: float}) == Signature((), exact=False)


def test_a_forbidden_key_is_not_required():
    assert schema_of({"x": float, s.Forbidden("z"): object}).required == ["x"]


@pytest.mark.parametrize("value", [s.Schema([float]), s.Schema(s.And({"x": float}, len)), object()])
def test_what_is_not_a_dict_of_columns_has_no_signature(value):
    assert from_schema(value) is None


def fields_of(annotation: Any, default: Any = ..., **settings: Any) -> Signature:
    """The signature of a pydantic model with one field x."""
    config = ConfigDict(**settings) if settings else None
    found = from_pydantic(create_model("M", x=(annotation, default), __config__=config))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("annotation", "column"),
    [
        (float, plain("x", "float")),
        (int, plain("x", "int")),
        (str, plain("x", "str")),
        (bool, plain("x", "bool")),
        (float | int, plain("x", "float")),
        (float | None, plain("x", "float", nullable=True)),
        (Optional[float], plain("x", "float", nullable=True)),  # noqa: UP045 - an older spelling
        (Annotated[float, Field(gt=0)], plain("x", "float", above=0.0)),
        (Annotated[int, Field(ge=1, le=5)], plain("x", "int", at_least=1.0, at_most=5.0)),
        (Annotated[float, Field(lt=9)], plain("x", "float", below=9.0)),
        (Annotated[float, Field(alias="X")], plain("X", "float")),
        (Annotated[float, Field(validation_alias="V")], plain("V", "float")),
    ],
    ids=str,
)
def test_a_plain_type_of_pydantic_says_everything(annotation, column):
    assert fields_of(annotation) == Signature((column,), exact=True)


@pytest.mark.parametrize(
    "annotation",
    [
        Literal["a", "b"],
        list[int],
        list[float | None],
        Annotated[list[float], Field(min_length=1)],
        int | str,
        Annotated[str, Field(max_length=3)],
        Annotated[float, Field(multiple_of=2)],
        Annotated[float, Field(allow_inf_nan=False)],
        create_model("Inner", y=(float, ...)),
    ],
    ids=str,
)
def test_more_than_a_type_is_left_to_pydantic(annotation):
    found = fields_of(annotation)
    assert found.exact is False
    assert found.required == ["x"]


def test_a_field_with_a_default_is_not_required():
    found = fields_of(float | None, None)
    assert found == Signature((plain("x", "float", nullable=True, required=False),), exact=True)
    assert not found.columns[0].filled
    assert fields_of(float, 2.5).columns[0].filled


def test_a_model_that_forbids_other_fields_is_left_to_pydantic():
    assert fields_of(float, extra="forbid").exact is False


def test_a_model_with_a_validator_is_left_to_pydantic():
    class Checked(BaseModel):
        x: float

        @field_validator("x")
        @classmethod
        def even(cls, value: float) -> float:
            return value

    found = from_pydantic(Checked)
    assert found is not None
    assert found.exact is False


def test_a_field_of_several_names_is_required_under_none_of_them():
    found = fields_of(Annotated[float, Field(validation_alias=AliasChoices("a", "b"))])
    assert missing_columns(found, [{"a": 1.0}]) == []


def test_a_field_that_may_go_by_its_own_name_is_not_missing():
    found = fields_of(Annotated[float, Field(alias="X")], populate_by_name=True)
    assert missing_columns(found, [{"x": 1.0}]) == []


def test_fields_that_a_validator_makes_of_others_are_not_missing():
    class Renamed(BaseModel):
        x: float

        @model_validator(mode="before")
        @classmethod
        def rename(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {"x": data["size"]}

    assert missing_columns(from_pydantic(Renamed), [{"size": 1.0}]) == []


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 ends with Python 3.13")
def test_a_model_of_pydantic_1_is_read_and_used(module):
    name = module(
        "first_pydantic",
        "from typing import Optional\n"
        "from pydantic.v1 import BaseModel\n"
        "class In(BaseModel):\n    x: float\n    z: Optional[int]\n"
        "class Out(BaseModel):\n    y: float\n"
        "class Model:\n"
        "    qualified_name, version = 'first', '1'\n"
        "    input_schema, output_schema = In, Out\n"
        "    def predict(self, data):\n"
        "        assert type(data) is In\n"
        "        return Out(y=2 * data.x)\n",
    )
    model = models.load(f"{name}:Model")
    assert model.info.interface == "MLModel (pydantic)"
    assert model.info.input_schema["required"] == ["x"]
    assert model.info.signature.required == ["x"]
    made = predict_records(model, [{"x": 1.5}, {"x": "one"}])
    assert made.values == [{"y": 3.0}]
    assert [(f.row, f.stage) for f in made.failures] == [(1, "validate")]


def test_the_columns_that_no_record_has_are_missing():
    signature = schema_of({"x": float, "y": float, s.Optional("z"): float})
    assert missing_columns(signature, [{"x": 1.0}, {"a": 1.0}]) == ["y"]
    assert missing_columns(signature, [{"x": 1.0}, {"y": 1.0}]) == []
    assert missing_columns(signature, []) == []
    assert missing_columns(None, [{}]) == []


# Tables


def test_a_table_has_the_columns_of_the_schema_and_their_types():
    model = models.load("cli_models:TableOfFour")
    record = {"b": True, "s": "a", "i": 1, "f": 2, "more": None}
    batch, _, failures = to_batch([record], model.info.signature, model.validate)
    assert (batch.num_rows, failures) == (1, [])
    made = predict_table(model, batch, None)
    assert made.values[0].to_pylist() == [{"types": "f:double,i:int64,s:string,b:bool"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"f": "2"}, "column 'f' must be a number, not the string '2'"),
        ({"f": True}, "column 'f' must be a number, not true"),
        ({"i": 1.0}, "column 'i' must be an integer, not 1.0"),
        ({"i": 2**63}, "column 'i' must be an integer"),
        ({"s": 1}, "column 's' must be a string, not 1"),
        ({"b": 1}, "column 'b' must be true or false, not 1"),
        ({"s": None}, "column 's' is null"),
        ({"f": None}, "column 'f' is null"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_a_failure(change, words):
    model = models.load("cli_models:TableOfFour")
    good = {"f": 2.0, "i": 1, "s": "a", "b": True}
    batch, rows, failures = to_batch([good, {**good, **change}], model.info.signature)
    assert (batch.num_rows, rows) == (1, [0])
    assert [(f.row, f.stage, f.type) for f in failures] == [
        (1, "validate", "SchemaValidationError")
    ]
    assert words in failures[0].error


def test_a_field_that_is_missing_is_a_failure():
    signature = schema_of({"x": float})
    _, _, failures = to_batch([{"y": 1.0}], signature)
    assert [f.error for f in failures] == ["column 'x' is missing"]


def test_a_bound_is_kept():
    signature = fields_of(Annotated[float, Field(gt=0)])
    batch, rows, failures = to_batch([{"x": 0.0}, {"x": 0.1}], signature)
    assert (batch.column("x").to_pylist(), rows) == ([0.1], [1])
    assert failures[0].error == "column 'x' must be greater than 0, not 0.0"


def test_a_column_of_any_type_is_inferred():
    signature = schema_of({"x": [float]})
    batch, _, _ = to_batch([{"x": [1.0]}, {"x": []}], signature)
    assert batch.schema.field("x").type == pa.list_(pa.float64())


def test_without_a_signature_all_columns_are_taken():
    batch, rows, failures = to_batch([{"a": 1, "b": "x"}], None)
    assert (batch.schema.names, rows, failures) == (["a", "b"], None, [])
