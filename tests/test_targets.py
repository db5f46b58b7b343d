"""What ``--model`` names, the kinds that take it, and the digest that tells whether it changed."""

from __future__ import annotations

import importlib
import pickle
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from modelbeam import models, storage
from modelbeam.errors import ModelLoadError, ModelNotFoundError, NotAModelError
from modelbeam.job.description import ModelSpec
from modelbeam.models import ModelKind, Target, fingerprint, kinds


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, in which modules are found last; forgets them afterwards."""
    before = dict(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    importlib.invalidate_caches()
    yield tmp_path
    for name in sys.modules.keys() - before.keys():
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


# Targets


@pytest.mark.parametrize("text", ["churn.model:Churn", "churn.model.Churn"])
def test_a_class_is_named_by_its_module(text):
    target = Target.parse(text)
    assert (target.form, target.module, target.attribute) == ("class", "churn.model", "Churn")
    assert str(target) == text


@pytest.mark.parametrize(
    ("text", "form", "path"),
    [
        ("model.joblib", "file", "model.joblib"),  # neither needs to be there
        ("models/iris.onnx", "file", "models/iris.onnx"),
        ("./iris", "file", "iris"),
        ("there", "file", "there"),
        ("churn.py", "file", "churn.py"),
        ("some.dir", "directory", "some.dir"),
        ("mlflow/", "directory", "mlflow"),
        ("file:///models/a.onnx", "file", "/models/a.onnx"),
        ("a=b.onnx", "file", "a=b.onnx"),
    ],
)
def test_a_path_is_absolute_from_the_start(here, text, form, path):
    (here / "there").touch()
    (here / "some.dir").mkdir()
    target = Target.parse(text)
    assert (target.form, target.path) == (form, str(here / path))


def test_the_home_directory_is_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/kim")
    assert Target.parse("~/iris.onnx").path == "/home/kim/iris.onnx"


@pytest.mark.parametrize(
    ("text", "scheme", "suffix"),
    [
        ("s3://bucket/a/model.ONNX", "s3", ".onnx"),
        ("models:/iris/3", "models", ""),
        ("GS://b/dir/", "gs", ""),
    ],
)
def test_a_uri_has_a_scheme(text, scheme, suffix):
    target = Target.parse(text)
    assert (target.form, target.scheme, target.suffix) == ("uri", scheme, suffix)


@pytest.mark.parametrize("text", ["model", ":", "a:", ":B", "a b", "a:b:c", "", "1a:B"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(NotAModelError, match="module:Class"):
        Target.parse(text)


def test_a_target_is_plain_data_that_names_itself_once(here):
    target = ModelSpec.parse("flowers=models/iris.onnx").target
    assert pickle.loads(pickle.dumps(target)) == Target.parse(target) == target
    assert target.path == str(here / "models/iris.onnx")


def test_a_target_that_was_sent_along_is_found_before_its_path(here, monkeypatch):
    target = Target.parse("a/model.x")
    with pytest.raises(NotAModelError, match=r"a/model\.x cannot be read: No such file"):
        target.local()
    sent = here / "modules" / target.package / "model.x"
    sent.parent.mkdir(parents=True)
    sent.touch()
    monkeypatch.syspath_prepend(here / "modules")
    assert target.local() == str(sent)


# Kinds


KIND = ModelKind(
    "X", "a_kind_of_x:load", "pip install x", suffixes=(".x",), contents=("X",), schemes=("x",)
)


def test_a_kind_takes_targets_by_suffix_content_and_scheme(here, monkeypatch):
    monkeypatch.setattr(storage, "exists", lambda url: url == "s3://b/there/X")
    (here / "d").mkdir()
    assert not KIND.takes(Target.parse("d/"))
    (here / "d" / "X").touch()
    taken = ["d/", "./model.x", "a/MODEL.X", "s3://b/model.x", "s3://b/there/", "x://y", "x:/y"]
    assert [text for text in taken if not KIND.takes(Target.parse(text))] == []
    assert [t for t in ("m:X", "a/x", "s3://b/x", "model.y/") if KIND.takes(Target.parse(t))] == []


class _Entry:
    """An entry point of an installed package."""

    def __init__(self, name: str, kind: object, package: str = "some-package") -> None:
        self.name, self.value, self._kind = name, "v", kind
        self.dist = type("Distribution", (), {"name": package})

    def load(self) -> object:
        if isinstance(self._kind, Exception):
            raise self._kind
        return self._kind


def installed(monkeypatch: pytest.MonkeyPatch, *entries: object) -> None:
    """Have these entry points installed."""
    monkeypatch.setattr(
        kinds.importlib.metadata, "entry_points", lambda group: entries if group else ()
    )


def test_kinds_of_others_are_found_by_their_entry_points(monkeypatch):
    installed(monkeypatch, _Entry("y", ValueError("broken")), _Entry("x", KIND))
    assert models.kind_of(Target.parse("./model.x")) is KIND


def test_others_are_not_asked_for_a_class(monkeypatch):
    installed(monkeypatch, _Entry("x", AssertionError("loaded")))
    monkeypatch.setattr(EntryPoint, "load", None)
    assert models.kind_of(Target.parse("a.b:C")).name == "MLModel"


def test_a_target_of_no_kind_is_told_what_there_is(monkeypatch, here):
    (here / "iris.weights").write_text("1")
    installed(monkeypatch, _Entry("x", KIND), _Entry("y", ValueError("no z")), _Entry("w", "text"))
    with pytest.raises(NotAModelError) as error:
        models.load("./iris.weights")
    message = str(error.value)
    assert "MLModel (module:name)" in message
    assert ", X (some-package's x)" in message
    assert "'y' of the installed package some-package is broken: ValueError: no z" in message
    assert "'w' of the installed package some-package is broken: TypeError: it is a str" in message


def test_two_kinds_for_one_target_are_an_error_that_names_both(monkeypatch):
    installed(monkeypatch, _Entry("x", KIND, "one"), _Entry("x2", KIND, "other"))
    with pytest.raises(NotAModelError, match="one's x and other's x2 both load models like"):
        models.load("./iris.x")


def test_code_is_told_from_a_model_file():
    with pytest.raises(NotAModelError, match=r"churn\.py is Python code; .* 'churn:Class'"):
        models.load("./churn.py")


def test_a_library_that_is_missing_is_named_with_its_remedy(monkeypatch):
    installed(monkeypatch, _Entry("x", KIND))
    with pytest.raises(ModelLoadError, match=r"kind X needs .*'a_kind_of_x'.* with: pip install x"):
        models.load("./iris.x")


def test_a_few_lines_are_a_kind(here, monkeypatch):
    (here / "a_kind_of_x.py").write_text(
        "import pathlib\n"
        "from modelbeam.models import LoadedModel, ModelInfo\n"
        "class X(LoadedModel):\n"
        "    def __init__(self, target):\n"
        "        self.add = int(pathlib.Path(target.local()).read_text())\n"
        "        self.info = ModelInfo(str(target), 'x', 'record')\n"
        "    def predict(self, record):\n"
        "        return {'y': record['x'] + self.add}\n"
        "def load(target, arguments):\n"
        "    return X(target)\n"
    )
    installed(monkeypatch, _Entry("x", KIND))
    (here / "one.x").write_text("1")
    model = models.load("one.x", "adds one")
    assert model.predict({"x": 1}) == {"y": 2}
    assert model.validate_many([{"x": 1}]) == [{"x": 1}]
    info = model.info
    assert (info.name, info.qualified_name, info.interface) == ("adds one", "x", "X")
    (here / "one.x").write_text("oops")
    with pytest.raises(ModelLoadError, match=r"one\.x raised ValueError while it was loaded \(a_k"):
        models.load("one.x")


# Digests


def test_the_digest_of_a_file_is_that_of_its_content(here):
    one, other = here / "a.x", here / "b.x"
    one.write_bytes(b"weights")
    other.write_bytes(b"weights")
    first = fingerprint.of_target(Target.parse("a.x"))
    assert first == fingerprint.of_target(Target.parse("b.x"))
    one.write_bytes(b"Weights")
    assert fingerprint.of_target(Target.parse("a.x")) != first


def test_the_digest_of_a_directory_has_names_and_contents(here):
    (here / "m").mkdir()
    (here / "m" / "MLmodel").write_text("a")
    digests = [fingerprint.of_path(str(here / "m"))]
    (here / "m" / "MLmodel").rename(here / "m" / "mlmodel")
    digests.append(fingerprint.of_path(str(here / "m")))
    (here / "m" / "empty").touch()
    digests.append(fingerprint.of_path(str(here / "m")))
    assert len(set(digests)) == 3
    (here / "m" / ".DS_Store").touch()
    assert fingerprint.of_path(str(here / "m")) == digests[-1]


def code_digest(module: str) -> str | None:
    """The digest of a module that is imported for it."""
    importlib.import_module(module)
    return fingerprint.of_code(module)


@pytest.mark.parametrize("changed", ["churn/model.py", "churn/weights.bin", "beside.py"])
def test_the_digest_of_code_is_of_all_that_lies_with_it(here, changed):
    files = {
        "churn/__init__.py": "",
        "churn/model.py": "import beside",
        "churn/weights.bin": "1",
        "beside.py": "",
    }
    (here / "churn").mkdir()
    for name, text in files.items():
        (here / name).write_text(text)
    first = code_digest("churn.model")
    assert first == code_digest("churn.model")
    (here / changed).write_text("# 2")
    assert code_digest("churn.model") != first


def test_a_file_beside_a_module_is_not_its_code(here):
    (here / "loose_one.py").touch()
    first = code_digest("loose_one")
    (here / "data.csv").touch()
    (here / "other.py").touch()
    assert code_digest("loose_one") == first


def test_a_large_file_of_a_package_counts_by_its_size_and_time(here, monkeypatch):
    monkeypatch.setattr(fingerprint, "READ_AT_MOST", 10)
    (here / "heavy").mkdir()
    (here / "heavy" / "__init__.py").touch()
    (here / "heavy" / "w").write_text("x" * 20)
    first = code_digest("heavy")
    (here / "heavy" / "w").write_text("x" * 21)
    assert code_digest("heavy") != first


def test_the_digest_of_an_installed_package_is_of_its_record():
    assert code_digest("schema") is not None
    assert fingerprint._recorded("schema") is not None
    assert fingerprint.of_code("time") is None


def test_a_loaded_model_has_a_digest():
    digest = models.load("small_models:Doubler").info.fingerprint
    assert digest == models.load("small_models:Doubler").info.fingerprint
    assert digest is not None


# Modules that hide others


MODEL = """
from schema import Schema
class Base:
    qualified_name = "base"
    input_schema = output_schema = Schema(dict)
    def predict(self, data):
        return data
"""


@pytest.mark.parametrize("name", ["code", "schema", "time"])
def test_a_hidden_module_is_named_with_the_one_that_was_taken(here, name):
    (here / f"{name}.py").write_text(MODEL)
    with pytest.raises(ModelNotFoundError) as error:
        models.load(f"{name}:Base")
    assert f"which hides {here}/{name}.py: give that file another name." in str(error.value)
    assert getattr(sys.modules[name], "__file__", "where it is built in") in str(error.value)


def test_a_hidden_submodule_is_named_too(here):
    (here / "json").mkdir()
    (here / "json" / "model.py").write_text(MODEL)
    with pytest.raises(ModelNotFoundError, match=rf"hides {here}/json/model\.py"):
        models.load("json.model:Base")


def test_a_hidden_module_that_the_model_imports_is_named(here):
    (here / "calendar.py").write_text("rate = 1")
    (here / "model_one.py").write_text("from calendar import rate" + MODEL)
    with pytest.raises(ModelLoadError, match=rf"calendar\.py, which hides {here}/calendar\.py"):
        models.load("model_one:Base")


def test_a_model_that_hides_one_of_the_same_name_warns(here, monkeypatch):
    for folder in ("first", "."):
        (here / folder).mkdir(exist_ok=True)
        (here / folder / "twice.py").write_text(MODEL)
    assert models.load("twice:Base").info.warnings == ()
    del sys.modules["twice"]
    monkeypatch.syspath_prepend(here / "first")
    [warning] = models.load("twice:Base").info.warnings
    assert warning == (
        f"The module 'twice' was taken from {here}/first/twice.py, which hides {here}/twice.py"
    )


def test_a_directory_that_was_sent_along_is_known_by_what_is_in_it(here, monkeypatch):
    place = here / "model"
    place.mkdir()
    (place / "X").touch()
    target = Target.parse("model/")
    sent = here / "worker" / target.package
    sent.mkdir(parents=True)
    place.rename(sent / "model")  # as on another machine
    assert not KIND.takes(target)
    monkeypatch.syspath_prepend(here / "worker")
    assert KIND.takes(target)
    assert target.local() == str(sent / "model")
