"""What the main job promises on this machine, on every engine: the same files, the same errors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from crashing import description, state_of, wait_until
from running import command, finish, numbered, run

from engines.clusters import WorkerPool

pytestmark = pytest.mark.timeout(400)

DEADLY = "nasty_models:DeadlyTable"
ENGINES = ["flink", "flink_job_server", "spark_job_server", "prism"]


@pytest.fixture(scope="module", params=ENGINES)
def flags(request: pytest.FixtureRequest, pool: WorkerPool) -> list[str]:
    """Beam's flags for each engine in turn."""
    engine: Any = request.getfixturevalue(request.param)
    return [*engine.flags, *pool.flags, "--no-packages"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, with records that fail in every way."""
    directory = tmp_path_factory.mktemp("mixed")
    for name in ("a", "c"):
        rows = [{"id": f"{name}{n}", "x": -1.0 if n % 50 == 7 else n / 4} for n in range(400)]
        rows[10] = {"id": "no x"}
        rows[20] = {"id": "text", "x": "three"}
        lines = [json.dumps(row).encode() for row in rows]
        lines[30:30] = [b"{not json", b"", b"[1]", b'{"x": NaN}', b"\xff\xfe", b'{"x": 1.5}\r']
        (directory / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    packed = gzip.compress((directory / "a.jsonl").read_bytes() + b"\n", mtime=0)
    (directory / "b.jsonl.gz").write_bytes(packed)
    (directory / "d.jsonl").write_bytes(b"")
    return directory


def everything(directory: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """All files below a directory but the page, and the content of the run's description.

    What was collected of the run is the same everywhere, but for times.
    """
    files = {str(path.relative_to(directory)): path for path in directory.rglob("*.*")}
    (run_file,) = (name for name in files if name.endswith("run.json"))
    found: dict[str, Any] = json.loads(files.pop(run_file).read_bytes())
    made = {name: path.read_bytes() for name, path in files.items() if "report" not in name}
    (profile_file,) = (name for name in made if name.endswith("profile.json"))
    profile = json.loads(made[profile_file])
    assert profile.pop("time")["batches"]["count"] > 0
    return {**made, profile_file: json.dumps(profile).encode()}, found


@pytest.mark.parametrize(
    ("model", "output", "more"),
    [
        ("small_models:Doubler", "out", ["--keep=all"]),
        ("small_models:TableDoubler", "out.jsonl.gz", ["--keep=id"]),
        ("nasty_models:Nasty", "out", []),
    ],
)
def test_the_published_files_are_those_of_a_local_run(flags, mixed, tmp_path, model, output, more):
    more = [*more, "--split-size=4KB"]
    (tmp_path / "local").mkdir()
    (tmp_path / "engine").mkdir()
    here = run(model, mixed, tmp_path / "local" / output, *more)
    there = run(model, mixed, tmp_path / "engine" / output, *more, *flags)
    assert here.process.returncode == there.process.returncode == 0, there.stderr
    ours, of_ours = everything(tmp_path / "engine")
    theirs, of_theirs = everything(tmp_path / "local")
    assert ours == theirs
    assert any("errors" in name for name in ours)
    for key in ("counts", "failures", "splits"):
        assert of_ours[key] == of_theirs[key]


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of which three hold a record that kills its process, and what comes of them here."""
    directory = tmp_path_factory.mktemp("deadly")
    (directory / "in").mkdir()
    for file in range(4):
        rows = [{"id": n, "x": 200.0 + n} for n in range(100)]
        if file:
            rows[17 * file]["x"] = [3.0, 5.0, 100.0][file - 1]  # SIGSEGV, exit, SIGKILL
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / "in" / f"{file}.jsonl").write_text(lines)
    made = run(DEADLY, directory / "in", directory / "out", "--workers=2", "--split-size=4KB")
    assert made.process.returncode == 0, made.stderr
    return directory


def test_records_that_kill_their_worker_are_error_lines_as_on_this_machine(flags, deadly, tmp_path):
    done = run(DEADLY, deadly / "in", tmp_path / "out", *flags, "--split-size=4KB")
    assert done.process.returncode == 0, done.stderr
    made, found = everything(tmp_path / "out")
    assert found["counts"] == {"read": 400, "predicted": 397, "failed": 3}
    assert sum(crash["records"] for crash in found["crashes"]) == 3
    assert made == everything(deadly / "out")[0]
    assert len(made) > 4


def test_a_model_that_fails_on_the_workers_is_one_paragraph(flags, tmp_path):
    data = numbered(tmp_path / "in.jsonl", 100)
    with command(
        "engine_models:BrokenOnWorkers", data, tmp_path / "out", *flags, env={"ON_WORKERS": ""}
    ) as failed:
        finish(failed)
    assert failed.process.returncode in (1, 2)
    said = failed.stderr.splitlines()[-1]
    assert "the weights are not on this machine" in said
    assert "Traceback" not in failed.stderr
    assert ".java" not in failed.stderr
    assert not (tmp_path / "out").exists()


def test_an_input_that_vanishes_fails_the_job_and_resumes(flags, tmp_path):
    directory = tmp_path / "in"
    directory.mkdir()
    numbered(directory / "0.jsonl", 500)
    last = numbered(directory / "1.jsonl", 10)
    hidden = last.with_suffix(".hidden")
    with command("engine_models:Slow", directory, tmp_path / "out", *flags) as failed:
        wait_until((state_of(tmp_path / "out") / "plan.jsonl").exists)
        last.rename(hidden)
        finish(failed)
    if failed.process.returncode == 0:
        pytest.fail(f"it was read before it vanished: {failed.stderr}")
    assert failed.process.returncode == 1
    assert str(last) in failed.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    hidden.rename(last)
    again = run("engine_models:Slow", directory, tmp_path / "out", *flags, "--resume")
    assert again.process.returncode == 0, again.stderr
    assert description(tmp_path / "out")["counts"]["predicted"] == 510


def test_too_many_failures_stop_the_job(flags, mixed, tmp_path):
    failed = run("small_models:Doubler", mixed, tmp_path / "out", *flags, "--max-errors=1%")
    assert failed.process.returncode == 1
    assert "--max-errors 1%" in failed.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
