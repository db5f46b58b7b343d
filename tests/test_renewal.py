"""A newer model while a run goes on, as far as no stream is needed: found, copied, tried."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import write_lines
from crashing import wait_until
from hypothesis import given
from hypothesis import strategies as st

from modelbeam import models, storage
from modelbeam.errors import ModelLoadError
from modelbeam.job.description import ModelSpec
from modelbeam.kafka.recent import LARGEST, RECORDS, Pair, problem, with_newer
from modelbeam.local import renewal
from modelbeam.local.renewal import Renewal, Watch
from modelbeam.models import mlflow_versions, state
from modelbeam.models.base import ModelInfo
from modelbeam.models.target import Target
from modelbeam.predicting.fit import unfit_predictions, unfit_schema

# What has changed


def target(path: Path) -> Target:
    """A model file or directory."""
    return Target.parse(str(path))


def test_a_file_is_taken_once_it_has_been_still_and_only_once(tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(b"one")
    watch = Watch(target(path), settle=10)
    assert watch.copied() is not None
    assert watch.newer(0, asked=False) is None
    path.write_bytes(b"two and")
    assert watch.newer(1, asked=False) is None
    path.write_bytes(b"two and more")  # still being written: the time begins anew
    assert watch.newer(10, asked=False) is None
    assert watch.newer(19, asked=False) is None
    made = watch.newer(20, asked=False)
    assert made is not None
    assert Path(made.target.path).read_bytes() == b"two and more"
    assert Path(made.target.path).name == "model.joblib"
    assert str(made.target) == str(path)
    path.write_bytes(b"three")
    assert Path(made.target.path).read_bytes() == b"two and more"
    assert watch.newer(21, asked=False) is None
    assert watch.newer(31, asked=False) is not None
    assert watch.newer(99, asked=False) is None
    made.remove()
    assert not os.path.exists(os.path.dirname(made.target.path))


def test_what_is_asked_for_is_taken_at_once_and_what_is_gone_is_not(tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(b"one")
    watch = Watch(target(path), settle=1000)
    assert watch.newer(0, asked=True) is not None
    path.unlink()
    assert watch.newer(5000, asked=False) is None
    assert watch.newer(5000, asked=True) is None
    path.write_bytes(b"two")
    assert watch.newer(6000, asked=False) is None
    assert watch.newer(7000, asked=False) is not None


def test_a_directory_changes_with_any_file_below_it_also_behind_a_link(tmp_path):
    first, second = tmp_path / "v1", tmp_path / "v2"
    for folder in (first, second):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "weights").write_bytes(b"same")
    link = tmp_path / "current"
    link.symlink_to(first)
    seen = [state.state_of(target(link))]
    (first / "part" / "weights").write_bytes(b"other")
    seen.append(state.state_of(target(link)))
    (first / "more").write_bytes(b"")
    seen.append(state.state_of(target(link)))
    link.unlink()
    link.symlink_to(second)  # as orchestrators replace what they mount
    seen.append(state.state_of(target(link)))
    assert len(set(seen)) == 4
    made = state.copied(target(link))
    assert Path(made.target.path, "part", "weights").read_bytes() == b"same"
    made.remove()


def test_files_beside_belong_to_it_and_several_models_are_each_looked_at(tmp_path, monkeypatch):
    path, beside = tmp_path / "net.onnx", tmp_path / "net.weights"
    path.write_bytes(b"graph")
    beside.write_bytes(b"weights")
    monkeypatch.setattr(
        "modelbeam.models.onnx_files.external", lambda _: ["net.weights"], raising=True
    )
    both = Target("both", "several", of=(Target.parse("small_models:Doubler"), target(path)))
    before = state.state_of(both)
    made = state.copied(both)
    copy = made.target.of[1]
    assert made.target.of[0] == both.of[0]
    assert Path(copy.path).with_name("net.weights").read_bytes() == b"weights"
    beside.write_bytes(b"heavier")
    assert state.state_of(both) != before
    made.remove()


def test_of_a_class_nothing_tells_that_it_has_changed():
    one = Target.parse("small_models:Doubler")
    assert state.state_of(one) == ()
    assert state.copied(one).target is one
    watch = Watch(one, 0)
    assert watch.copied() is not None
    assert watch.newer(10, asked=False) is None
    assert watch.newer(10, asked=True) is not None


def test_a_model_that_is_too_large_is_loaded_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "COPY_AT_MOST", 2)
    path = tmp_path / "model.joblib"
    path.write_bytes(b"one")
    assert state.copied(target(path)).target == target(path)


def test_behind_a_url_it_is_fetched_as_it_is_now(make_root):
    url = make_root("s3", direct=True) / "model.joblib"
    storage.write_atomically(url, b"one")
    one = Target.parse(url)
    before = state.state_of(one)
    made = state.copied(one)
    storage.write_atomically(url, b"another")
    assert state.state_of(one) != before
    again = state.copied(one)
    assert [Path(each.target.path).read_bytes() for each in (made, again)] == [b"one", b"another"]
    for each in (made, again):
        each.remove()


# A registry


class _Registry:
    """A registry of MLflow's with one model."""

    def __init__(self) -> None:
        self.aliases = {"live": "3"}

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        assert name == "iris"
        return SimpleNamespace(version=self.aliases[alias])

    def search_model_versions(self, query: str) -> list[Any]:
        assert query == "name='iris'"
        stages = {"9": "None", "10": "Staging", "8": "Production"}
        return [SimpleNamespace(version=v, current_stage=stage) for v, stage in stages.items()]


def test_a_name_in_a_registry_is_the_version_that_it_means_now(monkeypatch):
    registry = _Registry()
    monkeypatch.setattr(mlflow_versions, "MlflowClient", lambda: registry)
    wanted = {
        "models:/iris@live": "models:/iris/3",
        "models:/iris/latest": "models:/iris/10",
        "models:/iris/Production": "models:/iris/8",
        "models:/iris/7": None,
        "models:/m-1234abcd": None,
        "runs:/1234/iris": None,
    }
    assert {uri: mlflow_versions.pinned(uri) for uri in wanted} == wanted
    one = Target.parse("models:/iris@live")
    before = state.state_of(one)
    assert state.copied(one).target.path == "models:/iris/3"
    registry.aliases["live"] = "4"
    assert state.state_of(one) != before
    watch = Watch(one, 1000)
    watch.known = before
    made = watch.newer(0, asked=False)  # nobody is writing it: there is nothing to wait for
    assert made is not None
    assert made.target.path == "models:/iris/4"
    del registry.aliases["live"]
    with pytest.raises(state.GoneError, match="models:/iris@live"):
        state.state_of(one)


# What fits

SCHEMA = {"type": "object", "properties": {"y": {"type": "number"}}, "required": ["y"]}


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ({"y": {"type": "number"}, "z": {"type": "string"}}, None),
        ({"y": {"type": "integer"}}, None),
        ({"y": {"anyOf": []}}, None),
        ({"y": {"type": "string"}}, "'y' is string, and it was number"),
        ({"z": {"type": "number"}}, "no 'y' any more"),
    ],
)
def test_schemas(new, why):
    said = unfit_schema(SCHEMA, {"properties": new})
    assert said is None if why is None else why in said


def test_a_schema_that_is_not_known_refuses_nothing():
    assert unfit_schema(None, SCHEMA) is unfit_schema(SCHEMA, None) is None


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
_ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), _VALUES), max_size=4)


@given(_ROWS, st.data())
def test_predictions_with_more_in_them_of_the_same_kinds_fit(old, data):
    kinds: dict[str, Any] = {}
    for row in old:
        for name, value in row.items():
            kinds.setdefault(name, st.none())
            if value is not None:
                kinds[name] |= st.just(value)
    new = [
        {**{name: data.draw(one) for name, one in kinds.items()}, "more": data.draw(_VALUES)}
        for _ in range(max(1, len(old)))
    ]
    assert unfit_predictions(old, new, None) is None


@given(_ROWS.filter(any), st.sampled_from("abc"))
def test_predictions_that_lack_a_field_or_change_its_kind_do_not(old, name):
    if not any(name in row for row in old):
        return
    less = [{key: value for key, value in row.items() if key != name} for row in old]
    assert f"no {name!r} any more" in str(unfit_predictions(old, less, None))
    other = [{key: {} if key == name else value for key, value in row.items()} for row in old]
    said = unfit_predictions(old, other, None)
    was_null = all(row.get(name) is None for row in old)
    assert said is None if was_null else "an object" in str(said)


def test_predictions_are_held_against_the_older_schema():
    closed = {"properties": {"y": {"enum": ["a", "b"]}}}
    assert unfit_predictions([], [{"y": "a"}], closed) is None
    assert "against the output schema" in str(unfit_predictions([], [{"y": "c"}], closed))


# Trying


def message(value: bytes | None) -> Any:
    """A message of which only the value is asked for."""
    return SimpleNamespace(value=lambda: value)


def test_the_last_good_records_are_kept_with_their_predictions():
    values = [b"%d" % n for n in range(RECORDS + 20)]
    messages = [message(value) for value in values]
    failed = [0, RECORDS + 19]
    good = [value for row, value in enumerate(values) if row not in failed]
    kept = with_newer((Pair(b"old", b"old"),), messages, failed, good)
    assert kept == tuple(Pair(one, one) for one in good[-RECORDS:])
    some = with_newer(kept, [message(b"x" * (LARGEST + 1)), message(b"new")], [], [b"large", b"y"])
    assert len(some) == RECORDS
    assert some[-2:] == (kept[-1], Pair(b"new", b"y"))


def pairs(*xs: float) -> tuple[Pair, ...]:
    """What a doubler has predicted."""
    return tuple(
        Pair(json.dumps({"x": x, "k": 1}).encode(), json.dumps({"y": 2 * x, "k": 1}).encode())
        for x in xs
    )


@pytest.mark.parametrize("name", ["Doubler", "BatchDoubler", "TableDoubler"])
def test_a_model_is_tried_on_what_the_one_before_has_predicted(name):
    model = models.load(f"small_models:{name}")
    schema = model.info.output_schema
    assert problem((), model, (), None, schema) is None
    assert problem(pairs(1.0, 2.0), model, ("k",), None, schema) is None
    why = str(problem(pairs(1.0, -2.0, -3.0), model, ("k",), None, schema))
    assert "of 3 records that the model before it has just predicted, 2 failed" in why
    assert "ValueError: x is negative: -2" in why
    assert "no 'k' any more" in str(problem(pairs(1.0), model, (), None, schema))


# All of it


class _Run:
    """What a model is renewed for: it takes what is loaded."""

    def __init__(self) -> None:
        self.info: ModelInfo | None = None
        self.loaded: list[ModelSpec] = []
        self.why: str | None = None
        self.fails = False
        self.closed: list[Any] = []

    def pin(self, model: ModelSpec) -> None:
        self.loaded.append(model)

    def load(self, model: ModelSpec) -> Any:
        if self.fails:
            raise ModelLoadError(f"--model {model.target} is damaged.")
        self.loaded.append(model)
        path = model.target.path
        digest = Path(path).read_text() if os.path.exists(path) else "code"
        info = ModelInfo("model", "model", "record", version="2", fingerprint=digest)
        made = SimpleNamespace(info=info)
        made.close = lambda: self.closed.append(made)
        return made

    def problem(self, _: Any) -> str | None:
        return self.why

    def take(self, candidate: Any, _: ModelSpec) -> str | None:
        self.info = candidate.info
        return None


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look all the time."""
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(renewal, "FAR_SECONDS", 0.01)


def info(digest: str, version: str = "1") -> ModelInfo:
    """What the first model says of itself."""
    return ModelInfo("model", "model", "record", version=version, fingerprint=digest)


def test_what_becomes_of_newer_models(tmp_path):
    path = tmp_path / "model.joblib"
    path.write_text("first")
    notes: list[str] = []
    made = Renewal(ModelSpec(target=str(path)), 0, notes.append)
    first = made.model.target.path
    assert first != str(path)
    run, asked = _Run(), threading.Event()
    run.info = info("first")
    made.begin(run, asked)

    def written(text: str, told: str) -> None:
        before = len(notes)
        path.write_text(text)
        wait_until(lambda: len(notes) > before)
        assert told in notes[-1]

    run.why = "it predicts no 'y' any more"
    written("second", "was refused, and the one before it goes on: it predicts no 'y' any more")
    assert len(run.closed) == 1
    assert made.model.target.path == first
    run.fails = True
    written("third", f"--model {path} is damaged")
    run.fails, run.why = False, None
    written("fourth", "a new model has taken over: model 2 (fourth)")
    assert Path(made.model.target.path).read_text() == "fourth"
    assert not os.path.exists(first)
    asked.set()
    wait_until(lambda: "already" in notes[-1])
    path.unlink()
    asked.set()
    wait_until(lambda: "it is not there" in notes[-1])
    assert run.info == info("fourth", "2")
    folder = os.path.dirname(made.model.target.path)
    made.end()
    assert not os.path.exists(folder)
    outcomes = [(one.outcome, one.fingerprint) for one in made.reloads]
    assert outcomes == [("refused", "second"), ("refused", None), ("taken over", "fourth"),
                        ("refused", None)]  # fmt: skip


def test_a_class_is_loaded_anew_when_it_is_asked_for_whatever_its_digest_says():
    notes: list[str] = []
    made = Renewal(ModelSpec(target="small_models:Doubler"), 0, notes.append)
    run, asked = _Run(), threading.Event()
    run.info = info("code")
    made.begin(run, asked)
    asked.set()
    wait_until(lambda: notes)
    made.end()
    assert "has taken over" in notes[0]


def test_a_name_in_a_registry_is_not_loaded_twice_at_the_start(monkeypatch):
    registry = _Registry()
    monkeypatch.setattr(mlflow_versions, "MlflowClient", lambda: registry)
    notes: list[str] = []
    made = Renewal(ModelSpec(target="models:/iris@live"), 0, notes.append)
    run = _Run()
    run.info = info("digest", version="3")
    made.begin(run, threading.Event())
    wait_until(lambda: run.loaded)
    assert [one.target.path for one in run.loaded] == ["models:/iris/3"]
    registry.aliases["live"] = "4"
    wait_until(lambda: notes)
    made.end()
    assert [one.target.path for one in run.loaded] == ["models:/iris/3", "models:/iris/4"]
    assert "has taken over" in notes[0]


def test_a_name_that_meant_another_version_when_it_was_loaded_is_loaded_again(monkeypatch):
    monkeypatch.setattr(mlflow_versions, "MlflowClient", _Registry)
    made = Renewal(ModelSpec(target="models:/iris@live"), 0, lambda _: None)
    run = _Run()
    run.info = info("digest", version="2")
    made.begin(run, threading.Event())
    wait_until(lambda: run.loaded)
    made.end()
    assert [one.target.path for one in run.loaded] == ["models:/iris/3"]


def test_a_file_of_records_is_no_model(tmp_path):
    notes: list[str] = []
    data = write_lines(tmp_path / "in.jsonl", [{"x": 1}])
    made = Renewal(ModelSpec(target=str(data)), 0, notes.append)
    assert made.model.target.path  # whoever loads it says what is wrong
    made.end()
