"""The main job over millions of lines: several splits at once on several workers.

What ran where is read from the engine's own figures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crashing import description, published, wait_until
from running import numbered, run

from engines.clusters import FlinkCluster, JobServer, WorkerPool

RECORDS = 2_000_000
MODEL = "small_models:TableDoubler"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of so many records."""
    path = tmp_path_factory.mktemp("data") / "in.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"n": {n}, "x": {n / 4}}}\n' for n in range(RECORDS))
    return path


@pytest.fixture(scope="module")
def local(lines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local run publishes."""
    output = tmp_path_factory.mktemp("local") / "out"
    assert run(MODEL, lines, output).process.returncode == 0
    return published(output)


def same(local: dict[str, bytes], output: Path) -> None:
    """Compare without printing megabytes."""
    made = published(output)
    assert made.keys() == local.keys()
    assert [name for name in made if made[name] != local[name]] == []
    assert description(output)["counts"]["predicted"] == RECORDS


def test_on_flink_the_splits_run_on_all_taskmanagers(
    lines: Path, local: dict[str, bytes], tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    done = run(MODEL, lines, output, *flink.flags, *pool.flags, "--no-packages")
    assert done.process.returncode == 0, done.stderr
    same(local, output)
    job = max(flink.get("/jobs/overview")["jobs"], key=lambda job: job["start-time"])
    assert job["jid"] in done.stderr  # in the link that was printed
    assert job["name"] in done.stderr
    wait_until(lambda: flink.get(f"/jobs/{job['jid']}")["state"] == "FINISHED")  # from its cache
    (vertex,) = (
        vertex["id"]
        for vertex in flink.get(f"/jobs/{job['jid']}")["vertices"]
        if "PredictSplit" in vertex["name"]
    )
    subtasks = flink.get(f"/jobs/{job['jid']}/vertices/{vertex}")["subtasks"]
    assert len(subtasks) == 4
    splits = [subtask["metrics"]["read-records"] for subtask in subtasks]
    assert sum(splits) == description(output)["splits"]
    assert min(splits) >= 5
    assert len({subtask["taskmanager-id"] for subtask in subtasks}) == 2
    begun = max(subtask["start-time"] for subtask in subtasks)
    assert begun < min(subtask["end-time"] for subtask in subtasks)  # all at once


def test_on_spark_the_splits_run_on_all_cores(
    lines: Path,
    local: dict[str, bytes],
    tmp_path: Path,
    spark_job_server: JobServer,
    pool: WorkerPool,
) -> None:
    output = tmp_path / "out"
    flags = [*spark_job_server.flags, *pool.flags, "--runner=spark", "--no-packages"]
    done = run(MODEL, lines, output, *flags)
    assert done.process.returncode == 0, done.stderr
    same(local, output)
    log = max(spark_job_server.events.iterdir(), key=lambda path: path.stat().st_mtime)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (begin,) = (event for event in events if event["Event"] == "SparkListenerApplicationStart")
    assert begin["App Name"] in done.stderr
    tasks = [event for event in events if event["Event"] == "SparkListenerTaskEnd"]
    read = [task["Task Metrics"]["Shuffle Read Metrics"]["Total Records Read"] for task in tasks]
    working = [task["Task Info"] for task, splits in zip(tasks, read, strict=True) if splits >= 5]
    assert len(working) == 2  # the splits were shared
    assert max(task["Launch Time"] for task in working) < min(
        task["Finish Time"] for task in working
    )  # at once


@pytest.mark.parametrize(("model", "least", "most"), [("Slow", 3, 4), ("SlowTable", 2, 2)])
def test_on_flink_a_model_of_dicts_has_processes_of_its_own(
    model: str,
    least: int,
    most: int,
    tmp_path: Path,
    flink: FlinkCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROCESSES", str(tmp_path))
    with WorkerPool() as pool:  # for two TaskManagers with two slots each
        assert least <= processes(model, tmp_path, flink.flags, pool) <= most


@pytest.mark.parametrize(("model", "expected"), [("Slow", 2), ("SlowTable", 1)])
def test_on_spark_a_model_of_dicts_has_processes_of_its_own(
    model: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCESSES", str(tmp_path))
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:ActiveProcessorCount=3")
    with JobServer("spark") as server, WorkerPool() as pool:
        assert processes(model, tmp_path, [*server.flags, "--runner=spark"], pool) == expected


def processes(model: str, folder: Path, flags: list[str], pool: WorkerPool) -> int:
    """How many processes the model predicted in."""
    data = numbered(folder / "in.jsonl", 3000)
    flags = [*flags, *pool.flags, "--no-packages", "--split-size=2KB"]
    done = run(f"engine_models:{model}", data, folder / "out", *flags)
    assert done.process.returncode == 0, done.stderr
    return len(list(folder.glob("process-*")))
