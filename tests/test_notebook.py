"""From Python: objects as models, progress in a notebook, errors in terms of the call."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import nbformat
import pyarrow as pa
import pytest
from commands import environment, read_lines, write_lines
from hypothesis import given
from nbclient import NotebookClient
from small_models import Doubler

import modelbeam
from modelbeam import models, notebook, run
from modelbeam.calls import in_arguments
from modelbeam.errors import (
    InputNotFoundError,
    ModelbeamError,
    ModelLoadError,
    NotAModelError,
    RequestError,
)
from modelbeam.job.description import Job, ModelSpec, build_job
from modelbeam.job.task import Totals
from modelbeam.models import handed
from modelbeam.models.target import Target
from modelbeam.predicting.counts import Counts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A few records, one of them none."""
    path = write_lines(tmp_path / "in.jsonl", [{"x": float(n)} for n in range(5)])
    path.write_text(path.read_text() + "{bad\n")
    return path


# A model that is handed over


def local(factor: Any) -> Any:
    """A function that no module has."""

    def times(record: dict[str, Any]) -> dict[str, Any]:
        return {"y": record["x"] * factor}

    return times


def test_what_a_module_has_is_named_and_all_else_goes_by_value() -> None:
    for found, text in ((Doubler, "small_models:Doubler"), (json.dumps, "json:dumps")):
        assert handed.target_of(found) == Target.parse(text)
    for found in (local(2), Doubler(), lambda record: record):
        target = handed.target_of(found)
        assert (target.form, target.handed is not None) == ("object", True)
        assert pickle.loads(pickle.dumps(target)) == target


def test_an_object_is_loaded_as_what_it_is() -> None:
    assert models.load(handed.target_of(local(3))).predict({"x": 2}) == {"y": 6}
    made = models.load(handed.target_of(Doubler()))
    assert made.predict({"x": 2.0}) == {"y": 4.0}
    assert (made.info.version, made.info.name) == ("1.2", "doubler")


@pytest.mark.parametrize(
    ("found", "error", "said"),
    [
        (3, NotAModelError, "builtins:int is no model"),
        (json, NotAModelError, "json is a module"),
        (local(threading.Lock()), RequestError, "cannot be handed to"),
    ],
)
def test_what_is_no_model_or_cannot_travel_is_refused(
    found: Any, error: type[ModelbeamError], said: str
) -> None:
    with pytest.raises(error, match=said):
        build_job({"models": found, "inputs": "in.jsonl", "output": "out"})


def test_another_python_does_not_load_it() -> None:
    target = handed.target_of(local(2))
    assert target.handed is not None
    other = Target(
        target.text, "object", attribute="times", handed=target.handed._replace(python="3.9")
    )
    with pytest.raises(ModelLoadError, match=r"Python 3\.9, and the worker has Python 3\.\d+"):
        models.load(other)
    with pytest.raises(ModelLoadError, match="did not travel"):
        models.load(Target("m:f", "object"))


def test_without_cloudpickle_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(RequestError, match=r"pip install 'modelbeam\[notebook\]'"):
        handed.target_of(local(2))


def test_a_name_in_main_is_refused_where_nobody_has_it() -> None:
    with pytest.raises(modelbeam.ModelError, match="hand the object itself to"):
        models.load("__main__:NotThere")
    spec = ModelSpec.parse({"target": local(2), "name": "a"})
    assert (spec.name, spec.target.form) == ("a", "object")


SCRIPT = """
import pydantic
from modelbeam.models.handed import digest_of, modules_in
import cloudpickle
LIMIT = 3
def helper(value):
    return value * LIMIT
def function(record: dict):
    "Says something."
    return {"y": helper(record["x"]), "one": record["k"] in {"alpha", "beta", "gamma"}}
class Base:
    def predict(self, data): return [value for value in data]
class Model(Base):
    qualified_name = "m"
    def predict(self, data): return super().predict(data)
class Input(pydantic.BaseModel):
    x: float = 0.0
def of_pydantic(record: Input): return record.x
for found in (function, Model, Model(), of_pydantic):
    print(digest_of(found))
print(modules_in(cloudpickle.dumps(of_pydantic)))
"""


def digests(folder: Path, name: str, code: str, seed: str) -> list[str]:
    """What a session of this code says of its objects."""
    (folder / name).write_text(code)
    return subprocess.run(
        [sys.executable, name], cwd=folder, env=environment(PYTHONHASHSEED=seed), check=True,
        capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip


def test_a_digest_is_of_the_code_and_not_of_the_session(tmp_path: Path) -> None:
    first = digests(tmp_path, "a.py", SCRIPT, "1")
    assert digests(tmp_path, "b.py", "\n\n# moved\n" + SCRIPT, "2") == first
    changed = digests(tmp_path, "a.py", SCRIPT.replace("LIMIT = 3", "LIMIT = 4"), "1")
    assert [one != other for one, other in zip(first, changed, strict=True)] == [
        *(True, False, False, False), False,
    ]  # fmt: skip
    assert first[-1].startswith("['cloudpickle', 'pydantic'")


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_what_a_function_holds_is_part_of_its_digest(one: float, other: float) -> None:
    same = handed.digest_of(local(one)) == handed.digest_of(local(other))
    assert same == (repr(one) == repr(other))


def test_it_travels_to_workers_with_what_unpacks_it() -> None:
    from modelbeam.package.listing import package_list

    def of_columns(batch: Any) -> Any:
        return pa.table({"y": batch.column("x")})

    spec = ModelSpec.parse(of_columns)
    assert handed.modules_in(spec.target.handed.content) == ["cloudpickle", "pyarrow"]  # type: ignore[union-attr]
    names = {getattr(item, "name", "") for item in package_list(spec).items}
    assert {"cloudpickle", "modelbeam", "pyarrow"} <= names


def test_on_an_engine_it_is_the_same(source: Path, tmp_path: Path) -> None:
    done = modelbeam.predict(
        model=local(2), input=str(source), output=str(tmp_path / "out.jsonl"),
        beam_options=["--runner=PortableRunner", "--job_endpoint=embed"],
    )  # fmt: skip
    assert [row["y"] for row in read_lines(done.shards[0])] == [0.0, 2.0, 4.0, 6.0, 8.0]


# In a real kernel

CELLS = [
    """
    import modelbeam
    FACTOR = 2
    def double(record: dict):
        return {"y": FACTOR * record["x"]}
    class Adder:
        qualified_name, input_schema, output_schema = "adder", None, None
        def __init__(self, term): self.term = term
        def predict(self, data): return {"z": data["x"] + self.term}
    """,
    """
    run = modelbeam.predict(model=double, input="in.jsonl", output="out/", worker_mode="threads")
    run
    """,
    "run.to_arrow().to_pylist(), run.to_pandas().shape",
    """
    modelbeam.predict(
        model=[{"name": "a", "target": Adder, "arguments": {"term": 1}}, "b=__main__:double"],
        input="in.jsonl", output="two.jsonl", worker_mode="processes", workers=2, progress=False,
    ).to_arrow().to_pylist()
    """,
    """
    FACTOR = 3
    try:
        modelbeam.predict(model=double, input="in.jsonl", output="out/", resume=True)
    except modelbeam.RequestError as error:
        print(type(error).__name__, error)
    """,
    """
    try:
        modelbeam.predict(model=double, input="none.jsonl", output="new/", batch_size=5)
    except modelbeam.RequestError as error:
        print(error)
    """,
]


def test_a_notebook(source: Path) -> None:
    """Models of its own in threads and processes, a bar, the run as a table, frames, refusals."""
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in CELLS]
    )
    folder = {"metadata": {"path": str(source.parent)}}
    NotebookClient(made, timeout=120, kernel_name="python3", resources=folder).execute()
    _, ran, frame, two, resumed, refused = [cell.outputs for cell in made.cells]
    kinds = [output.output_type for output in ran]
    assert kinds[0] == "display_data"
    assert kinds[-1] == "execute_result"
    assert "".join(ran[0].data.values()) == "", "the bar is gone at the end"
    assert ran[-1].data["text/plain"].startswith("<Run: 6 read, 5 predicted, 1 failed in ")
    assert "<table>" in ran[-1].data["text/html"]
    assert "{'y': 8.0}" in frame[0].data["text/plain"]
    assert "(5, 1)" in frame[0].data["text/plain"]
    assert "{'a': {'z': 5.0}, 'b': {'y': 8.0}}" in two[-1].data["text/plain"]
    said = "".join(output.get("text", "") for output in resumed)
    assert said.startswith("ResumeError resume=True: the run in out/ was a different one.")
    assert "model code and files" in said
    said = "".join(output.get("text", "") for output in refused)
    assert said.startswith("input='none.jsonl' matches no file")


# Progress


class Shell:
    """What IPython's shell is in a kernel."""

    kernel = object()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A kernel that keeps what is displayed."""
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, pictures: dict[str, str], raw: bool) -> None:
            assert raw
            shown.append(pictures)

    def display(pictures: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        shown.append(pictures)
        return Handle()

    made = types.ModuleType("IPython")
    made.get_ipython = Shell  # type: ignore[attr-defined]
    inner = types.ModuleType("IPython.display")
    inner.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", made)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    return shown


class Plan:
    """As much of a plan as a bar needs."""

    bytes = 1000


def totals(read: int, done: int, failed: int = 0) -> Totals:
    """So far."""
    made = Totals()
    made.add(Counts(read=read, failed=failed), done)
    return made


def test_a_bar_in_a_kernel(kernel: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "BETWEEN", 0.0)
    bar = notebook.bar_of(None)
    bar.begin(Plan())  # type: ignore[arg-type]
    bar.update(totals(1500, 250, 3))
    bar.update(totals(9000, 2000))
    bar.end()
    bar.end()
    assert len(kernel) == 4
    assert kernel[1]["text/plain"] == f" 25% [{'#' * 6}{'.' * 18}] 1,500 records, 3 failed"
    assert 'value="0.250"' in kernel[1]["text/html"]
    assert kernel[2]["text/plain"].startswith("100% [########################] 9,000 records")
    assert set(kernel[3].values()) == {""}


def test_outside_of_a_kernel_nothing_is_said_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notebook, "BETWEEN", 0.0)
    assert not notebook.in_kernel()
    assert type(notebook.bar_of(None)).__name__ == "Silent"
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    bar = notebook.bar_of(True, lambda text: text.replace("--a", "a="))
    bar.begin(Plan())  # type: ignore[arg-type]
    bar.update(totals(10, 500))
    bar.note("--a\x1b[2Jb")
    bar.end()
    lines = written.getvalue().splitlines()
    assert lines[1].startswith(" 50% [############............] 10 records, 0 failed")
    assert "\r" not in written.getvalue()
    assert lines[-1] == "modelbeam: a=\\x1b[2Jb"


def test_on_a_terminal_it_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(notebook, "BETWEEN", 0.0)
    monkeypatch.setattr(sys, "stderr", written := Terminal())
    bar = notebook.bar_of(True)
    bar.begin(Plan())  # type: ignore[arg-type]
    bar.loading(5.0)
    bar.update(totals(10, 500))
    bar.end()
    parts = written.getvalue().split("\r")
    assert "\n" not in written.getvalue()
    assert "loading the model (5 s)" in parts[2]
    assert (parts[-2].strip(), parts[-1]) == ("", "")


# Errors in terms of the call


FLAGS = {"--" + name.replace("_", "-") for name in Job.model_fields} | {"--model", "--input"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 0}, "batch_size=0: a batch has at least one record."),
        ({"workers": 0}, "workers=0: "),
        ({"model": None}, "model is missing; every job needs it."),
        ({"input": "none/*.jsonl"}, "input='none/*.jsonl' matches no file"),
        ({"resume": True, "overwrite": True}, "resume=True and overwrite=True exclude each other"),
        ({"max_errors": "200%"}, "max_errors='200%': give a number"),
        ({"route": "r"}, "route='r' chooses among several models; name them: model=['a=TARGET', "),
        ({"shards": 3, "output": "a.csv"}, "shards=3: output='a.csv' is no directory of shards"),
        ({"model": ["m:A", "m:B"]}, "model: with several models each has a name"),
        ({"detach": True}, "detach=True is for jobs on an engine"),
        ({"input_format": "xls"}, "input_format='xls': no such format"),
        ({"streaming": True, "output": "a.csv"}, "output='a.csv': a run over files as they arrive"),
    ],
)
def test_an_error_names_the_arguments_of_the_call(
    source: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(source.parent)
    settings = {"model": "small_models:Doubler", "input": "in.jsonl", "output": "out/", **change}
    with pytest.raises(RequestError) as raised:
        modelbeam.predict(**settings)
    text = str(raised.value)
    assert text.startswith(said)
    assert not FLAGS & set(re.findall(r"--[a-z][a-z-]*", text))


def test_what_exists_is_told_what_to_give(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    Path("there.jsonl").touch()
    with pytest.raises(RequestError) as raised:
        modelbeam.predict(model="m:M", input="in.jsonl", output="there.jsonl")
    assert str(raised.value) == (
        "output='there.jsonl' exists already. Add overwrite=True to replace it, or name another "
        "file."
    )


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("--max-errors N or --shards 2", {"max_errors": None, "shards": 2},
         "max_errors=N or shards=2"),
        ("use --keep A,B or --keep all", {"keep": None}, "use keep=['A', 'B'] or keep='all'"),
        ("--max-errors-x and x--keep", {"max_errors": 1, "keep": None},
         "--max-errors-x and x--keep"),
        ("--model a:B fails", {"model": ["one=a:B", "two=c:D"]}, "model='a:B' fails"),
        ("Run the same command with --resume.", {"resume": False},
         "Run it again with resume=True."),
        ("give --no-packages or --from earliest", {"packages": True},
         "give packages=False or start_from='earliest'"),
        ("no flags at all", {}, "no flags at all"),
        ("--resume: the run was. --proba: was nothing", {"resume": True, "proba": True},
         "resume=True: the run was. proba: was nothing"),
    ],
)  # fmt: skip
def test_how_flags_are_turned_into_arguments(text: str, given: dict[str, Any], said: str) -> None:
    error = InputNotFoundError(text)
    in_arguments(error, given)
    assert str(error) == said
    assert str(pickle.loads(pickle.dumps(error))) == said


def test_every_argument_of_predict_is_a_setting_or_tells_of_the_run() -> None:
    names = set(inspect.signature(run.predict).parameters)
    told = {"on_progress", "progress"}
    assert names - told == {*(Job.model_fields.keys() - {"models", "inputs"}), "model", "input"}


def test_a_run_begins_while_another_thread_imports_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    assert not notebook.in_kernel()
