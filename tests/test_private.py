"""What Beam keeps private is used in one module alone, and does there what it is used for.

``make versions`` runs this with the oldest and the newest Beam. What is for Dataflow is tried in
``test_dataflow.py``, against a stand-in for the service.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.transforms.window import GlobalWindow

import modelbeam
from modelbeam.beam import private
from modelbeam.beam.options import local_options, stage_once
from modelbeam.engines import portable

SOURCE = Path(modelbeam.__file__).parent
THE_ONE = "beam/private.py"

PUBLIC = {
    "apache_beam",
    "apache_beam.coders",
    "apache_beam.io.filesystem",
    "apache_beam.io.filesystems",
    "apache_beam.io.restriction_trackers",
    "apache_beam.metrics",
    "apache_beam.options",
    "apache_beam.options.pipeline_options",
    "apache_beam.transforms",
    "apache_beam.transforms.core",
    "apache_beam.transforms.timeutil",
    "apache_beam.utils.shared",
    "apache_beam.utils.timestamp",
}
"""What Beam's documentation tells its users to import."""


def beams_secrets(code: str) -> set[str]:
    """What a module's code uses that is Beam's own business.

    Modules that are not public; names with an underscore that neither the module itself nor one of
    its objects has; and the same written as strings.
    """
    tree = ast.parse(code)
    found: set[str] = set()
    own = {"_replace", "_fields", "_asdict"}  # of named tuples
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and _is_own(node.value):
            own.add(node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _is_private(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            full = {f"{node.module}.{alias.name}" for alias in node.names} & PUBLIC
            if _is_private(node.module) and not full:
                found.add(node.module)
            if node.module.startswith("apache_beam"):
                found |= {a.name for a in node.names if a.name.startswith("_")}
        elif isinstance(node, ast.Attribute):
            if _is_hidden(node.attr) and not _is_own(node.value) and node.attr not in own:
                found.add(node.attr)
            elif isinstance(node.ctx, ast.Store) and _root(node) in ("runner", "beam"):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "hasattr", "setattr"):
                found |= {a.value for a in node.args if _is_hidden_text(a)}  # type: ignore[attr-defined]
        elif _is_path_of_beam(node):
            found.add(node.value)  # type: ignore[attr-defined]
    return found


def _is_private(module: str) -> bool:
    return module.partition(".")[0] == "apache_beam" and module not in PUBLIC


def _is_hidden(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_hidden_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_hidden(node.value)


def _is_path_of_beam(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("apache_beam.")
        and " " not in node.value
        and _is_private(node.value)
    )


def _is_own(node: ast.expr) -> bool:
    """``self``, ``cls``, ``super()`` and what hangs on them by a plain name is not Beam's."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


WITH_BEAM = [path for path in SOURCE.rglob("*.py") if "apache_beam" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", sorted(WITH_BEAM), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_one_module_uses_what_is_beams_own_business(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    found = beams_secrets(path.read_text(encoding="utf-8")) - {"_exit", "apache_beam."}
    if name == THE_ONE:
        some = {"_job_service", "_add_argparse_args", "_jobs", "apache_beam.portability.api"}
        assert found > {*some, private.LOCAL_RUNNER, "runner.run_portable_pipeline"}
    else:
        assert found == set()


@pytest.mark.parametrize(
    ("code", "secret"),
    [
        ("import apache_beam.runners.common", "apache_beam.runners.common"),
        ("def f():\n    from apache_beam.tools import x", "apache_beam.tools"),
        ("from apache_beam.utils.windowed_value import X", "apache_beam.utils.windowed_value"),
        ("from apache_beam.metrics import _hidden", "_hidden"),
        ("class A:\n    def f(self, result):\n        return result._job_id", "_job_id"),
        ("class A:\n    def f(self):\n        self._result._cleanup()", "_cleanup"),
        ("hasattr(service, '_jobs')", "_jobs"),
        ("runner = 'apache_beam.runners.direct.X'", "apache_beam.runners.direct.X"),
        ("beam.Pipeline.run = ours", "beam.Pipeline.run"),
    ],
)
def test_the_search_finds_what_is_hidden(code: str, secret: str) -> None:
    assert beams_secrets(code) == {secret}


def test_the_search_takes_our_own_and_what_is_public_for_what_it_is() -> None:
    code = """
import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.utils.shared import Shared
logging.getLogger("apache_beam").setLevel(1)
class A:
    def f(self):
        self._mine = _helper()
        return other._mine, a.__dict__
def _helper(): ...
module._helper
"""
    assert beams_secrets(code) == set()


def test_a_pipeline_leaves_nothing_in_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pipeline = private.new_pipeline(local_options([], 1))
    assert list(tmp_path.iterdir()) == []
    pipeline | beam.Create([1])
    pipeline.run().wait_until_finish()
    assert list(tmp_path.iterdir()) == []


def test_the_local_runner_is_the_one_that_is_named_and_nothing_is_downloaded() -> None:
    pipeline = private.new_pipeline(local_options(["--runner=DirectRunner"], 2))
    module, _, name = private.LOCAL_RUNNER.rpartition(".")
    assert type(pipeline.runner) is getattr(importlib.import_module(module), name)


def test_all_flags_of_beam_are_found() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    private.add_options(parser)
    values, unknown = parser.parse_known_args(
        ["--runner=x", "--job_endpoint=y", "--flink_master=z", "--s3_region_name=r", "--nonsense=1"]
    )
    assert (values.runner, values.job_endpoint, values.flink_master) == ("x", "y", "z")
    assert unknown == ["--nonsense=1"]


def test_the_short_names_of_runners() -> None:
    assert {"DirectRunner", "FlinkRunner", "SparkRunner", "PortableRunner", "DataflowRunner"} <= {
        *private.runner_names()
    }


def test_the_options_that_a_job_brought_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from apache_beam.io.filesystems import FileSystems

    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    assert private.options_of_this_worker() is None
    FileSystems.set_options(PipelineOptions(["--s3_region_name=eu"]))
    assert private.options_of_this_worker().get_all_options()["s3_region_name"] == "eu"


def test_a_value_keeps_its_window_and_time() -> None:
    windowed = private.WindowedValue("a", 5, (GlobalWindow(),)).with_value("b")
    assert (windowed.value, windowed.timestamp, windowed.windows) == ("b", 5, (GlobalWindow(),))


def test_the_files_are_staged_by_beams_python_and_not_again_by_java() -> None:
    from apache_beam.runners.portability.portable_runner import PortableRunner

    runner = PortableRunner()
    seen: list[Any] = []

    def run(pipeline: Any, options: Any) -> str:
        seen.append((pipeline, options.view_as(SetupOptions).files_to_stage))
        return "a result"

    assert callable(runner.run_portable_pipeline)  # so this is where it must be stopped
    runner.run_portable_pipeline = run
    private.before_submission(runner, stage_once)
    options = PipelineOptions(["--files_to_stage=a.whl"])
    assert runner.run_portable_pipeline("a pipeline", options) == "a result"
    assert seen == [("a pipeline", None)]
    private.before_submission(object(), stage_once)  # a runner that stages nothing


@pytest.fixture(scope="module")
def result() -> Iterator[Any]:
    """A small job that was submitted to the job service that Beam has in this process."""
    flags = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    options = PipelineOptions(flags)
    options.view_as(StandardOptions).streaming = False
    pipeline = private.new_pipeline(options)
    private.before_submission(pipeline.runner, stage_once)
    pipeline | beam.Create([1, 2, 3]) | beam.ParDo(Counted())
    submitted = pipeline.run()
    yield submitted
    private.end_loopback_worker(submitted)


class Counted(beam.DoFn):
    """Counts under the name that modelbeam's own counters have."""

    def process(self, _: int) -> None:
        beam.metrics.Metrics.counter("modelbeam", "records_read").inc()


def test_a_job_is_looked_at_and_left_through_its_service(result: Any) -> None:
    service, job_id = private.job_of(result)
    assert private.is_in_this_process(service)
    api = private.job_api()
    assert api is beam_job_api_pb2
    deadline = time.monotonic() + 60
    state = ""
    while state not in ("DONE", "FAILED") and time.monotonic() < deadline:
        answer = service.GetState(api.GetJobStateRequest(job_id=job_id))
        state = api.JobState.Enum.Name(answer.state)
        time.sleep(0.05)
    assert state == "DONE"
    metrics = service.GetJobMetrics(api.GetJobMetricsRequest(job_id=job_id))
    assert portable.counters(private.results_of(metrics)) == {"records_read": 3}


def test_a_job_service_elsewhere_is_told_from_one_here() -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel("localhost:1") as channel:
        service = private.job_service_at(channel)
        assert not private.is_in_this_process(service)
        assert {"GetState", "GetJobMetrics", "GetMessageStream", "Cancel"} <= {*vars(service)}


def test_the_client_for_staging_is_beams() -> None:
    pytest.importorskip("google.cloud.storage")
    options = PipelineOptions(["--project=p"])
    assert callable(private.storage_client(options, False).get_bucket)


def test_a_notebook_renames_transforms_of_other_pipelines_only(monkeypatch) -> None:
    """Beam asks in this place, and is asked to in a pipeline that is not ours."""
    from apache_beam import pipeline as home

    renamed: list[str] = []
    real = home.alter_label_if_ipython
    monkeypatch.setattr(
        home, "alter_label_if_ipython", lambda transform, _: renamed.append(transform.label)
    )
    ours = private.new_pipeline(local_options((), 1))
    ours | "of ours" >> beam.Create([1]) | "and this" >> beam.Reshuffle()
    assert renamed == []
    theirs = beam.Pipeline(options=local_options((), 1))
    theirs | "of theirs" >> beam.Create([1])
    assert "of theirs" in renamed
    assert callable(real)
