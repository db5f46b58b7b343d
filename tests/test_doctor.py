"""``modelbeam check --runner``: what is wrong is found, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import environment, write_lines
from services import Engine, free_port

from modelbeam.engines import portable
from modelbeam.errors import RequestError
from modelbeam.job.description import build_job
from modelbeam.report.check import check_job

Check = Callable[..., dict[str, tuple[bool | None, str]]]

CWD = Path("/proc/self/cwd")
"""A path that is another one for each process."""


@pytest.fixture
def check(
    modelbeam: Callable[..., subprocess.CompletedProcess[str]], engine: Engine, tmp_path: Path
) -> Check:
    """Run a check, and return its findings by step, once what it leaves and returns is right."""
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}, {"x": -1.0}])

    def call(*flags: str, **settings: str) -> dict[str, tuple[bool | None, str]]:
        before = sorted(tmp_path.rglob("*"))
        where = engine.flags() if not any("--environment" in flag for flag in flags) else []
        job = {
            "--model": "small_models:Doubler",
            "--input": str(tmp_path / "in.jsonl"),
            "--output": str(tmp_path / "out"),
            **{"--" + name: value for name, value in settings.items()},
        }
        given = [f"{name}={value}" for name, value in job.items()]
        path = os.pathsep.join([str(tmp_path / "path"), environment()["PYTHONPATH"]])
        env = {**engine.env, "PYTHONPATH": path}
        done = modelbeam("check", *given, *where, *flags, "--json", env=env, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before
        assert done.stdout, done.stderr
        findings = {one["step"]: one for one in json.loads(done.stdout)["engine"]}
        healthy = all(one["ok"] is not False for one in findings.values())
        assert done.returncode == (0 if healthy else 2), done.stderr
        return {step: (one["ok"], one["text"]) for step, one in findings.items()}

    return call


def wrong(findings: dict[str, tuple[bool | None, str]]) -> dict[str, str]:
    """What is wrong, by step."""
    return {step: text for step, (ok, text) in findings.items() if ok is False}


def test_external_workers_that_can_do_the_job(check: Check, engine: Engine, tmp_path: Path) -> None:
    findings = check()
    assert wrong(findings) == {}
    assert list(findings) == ["engine", "staging", "packages", "clean", "workers"]
    assert findings["engine"][1] == f"a job service at localhost:{engine.service.port}"
    assert findings["staging"][1] == f"{tmp_path / 'out' / '_modelbeam'} can be written"
    assert "not sent" in findings["packages"][1]
    assert "loads the model and sees the input and the output" in findings["workers"][1]


def test_workers_in_the_same_process(
    engine: Engine, tmp_path: Path, modelbeam: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_lines(tmp_path / "in.jsonl", [{"x": 1.0}])
    job = ["-m", "small_models:Doubler", "-i", "in.jsonl", "-o", "out.jsonl"]
    done = modelbeam("check", *job, *engine.flags("LOOPBACK"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[-4:])
    assert lines == {
        "engine": f"ok: a job service at localhost:{engine.service.port}",
        "staging": f"ok: {tmp_path}/out._modelbeam can be written",
        "packages": "ok: none: the workers are in this environment",
        "workers": "ok: a worker here loads the model and sees the input and the output",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_job_service_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "PREFLIGHT_TIMEOUT", 0.5)
    endpoint = f"localhost:{free_port()}"
    job = build_job(
        {
            "models": ["small_models:Doubler"],
            "inputs": [str(write_lines(tmp_path / "in.jsonl", [{"x": 1.0}]))],
            "output": str(tmp_path / "out"),
            "beam_options": ("--runner=PortableRunner", f"--job_endpoint={endpoint}"),
        }
    )
    with pytest.raises(RequestError, match=f"--job_endpoint {endpoint} does not answer"):
        check_job(job, print)
    assert not (tmp_path / "out").exists()


def test_there_is_no_docker(check: Check, engine: Engine) -> None:
    found = wrong(check(*engine.flags("DOCKER"), "--no-packages"))
    assert list(found) == ["workers"]
    assert "the workers run in Docker unless told otherwise" in found["workers"]
    assert "--environment_type=EXTERNAL" in found["workers"]


def test_an_output_that_cannot_be_written(check: Check, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    findings = check(output=str(tmp_path / "file" / "out"))
    assert list(found := wrong(findings)) == ["staging"]
    assert "file/out/_modelbeam cannot be written: Not a directory" in found["staging"]
    assert findings["workers"] == (None, "what is wrong above comes first")


def test_a_model_that_needs_what_nothing_requires(check: Check, tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "late_models.py").write_text(LATE)
    found = wrong(check(model="late_models:Late"))
    assert list(found) == ["clean", "workers"]
    assert "the workers would not have the module 'pytest'" in found["clean"]
    assert "it has no late_models.py" in found["workers"]


LATE = """
import importlib
class Late:
    display_name = qualified_name = description = "late"
    major_version = minor_version = 1
    input_schema = output_schema = None
    def __init__(self):
        importlib.import_module("pyt" + "est")
    def predict(self, data):
        return {"y": 1.0}
"""


@pytest.mark.skipif(not CWD.exists(), reason="there is no /proc")
@pytest.mark.parametrize("what", ["input", "output"])
def test_workers_that_do_not_see_the_files(check: Check, what: str) -> None:
    there = CWD / {"input": "in.jsonl", "output": "out"}[what]
    found = wrong(check(**{what: str(there)}))
    assert list(found) == ["workers"]
    assert f"does not see {'the input ' if what == 'input' else ''}{there}" in found["workers"]
    assert f"--{what} must be on storage that the workers share" in found["workers"]


def test_there_are_no_workers(check: Check, engine: Engine) -> None:
    flags = engine.flags()
    nobody = f"--environment_config=localhost:{free_port()}"
    found = wrong(check(*[nobody if "environment_config" in f else f for f in flags]))
    assert list(found) == ["workers"]
    assert "a worker was lost" in found["workers"]
