"""What happens on an engine when something is killed: every record is there once in the end.

After each fault the engine either does the work again by itself, or the job fails with one
paragraph and ``--resume`` finishes it.
"""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crashing import Command, description, wait_until
from running import (
    children,
    command,
    expected,
    finish,
    kill,
    numbered,
    predicted,
    run,
    wait_for_splits,
)

from engines.clusters import FlinkCluster, JobServer, Prism, WorkerPool

MODEL = "engine_models:Slow"
RECORDS = 12_000
SPLITS = "--split-size=12KB"
RESTARTS = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 5,
    "restart-strategy.fixed-delay.delay": "1 s",
}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of so many records, each of which takes 2 ms."""
    return numbered(tmp_path_factory.mktemp("data") / "in.jsonl", RECORDS)


@pytest.fixture(scope="module")
def restarting() -> Iterator[FlinkCluster]:
    """A Flink that starts a failed job again by itself."""
    with FlinkCluster(config=RESTARTS) as cluster:
        yield cluster


def whole(output: Path) -> None:
    """Every record is there exactly once, in order, and the run says so."""
    assert (output / "_SUCCESS").exists()
    assert not (output / "_modelbeam").exists()
    assert predicted(output) == expected(RECORDS)
    assert description(output)["counts"] == {"read": RECORDS, "predicted": RECORDS, "failed": 0}


def one_paragraph(failed: Command, *words: str) -> None:
    """It failed, and said why in one paragraph without a stack."""
    assert failed.process.returncode == 1, failed.stderr
    said = failed.stderr.splitlines()[-1]
    assert said.startswith("modelbeam: ")
    assert [word for word in words if word not in said] == [], said
    assert "Traceback" not in failed.stderr
    assert "\tat " not in failed.stderr


@dataclass
class Scene:
    """What a fault is done to."""

    flink: FlinkCluster
    pool: WorkerPool


def kill_a_worker(scene: Scene) -> None:
    """``kill -9`` of one Python worker."""
    kill(children(scene.pool.process.members, scene.pool.process.pid)[-1])


def kill_a_taskmanager(scene: Scene) -> None:
    """``kill -9`` of a TaskManager; another one comes in its place."""
    next(manager for manager in scene.flink.taskmanagers if manager.alive).kill()
    scene.flink.add_taskmanager()


FAULTS: list[Callable[[Scene], None]] = [kill_a_worker, kill_a_taskmanager]


@pytest.mark.parametrize("fault", FAULTS)
def test_flink_does_the_work_again_by_itself(
    fault: Any, lines: Path, tmp_path: Path, restarting: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*restarting.flags, *pool.flags, "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 4)
        fault(Scene(restarting, pool))
        finish(job)
    assert job.process.returncode == 0, job.stderr
    whole(output)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_flink_job_that_failed_is_resumed(
    fault: Any, lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 4)
        fault(Scene(flink, pool))
        finish(job)
    one_paragraph(job, "Flink", flink.rest_url, "a worker was lost", "--resume")
    again = run(MODEL, lines, output, *flags, "--resume")
    assert again.process.returncode == 0, again.stderr
    whole(output)
    assert description(output)["splits_resumed"] >= 4


def test_a_job_that_is_cancelled_through_flink_is_resumed(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 4)
        (running,) = (j for j in flink.get("/jobs/overview")["jobs"] if j["state"] == "RUNNING")
        url = f"{flink.rest_url}/jobs/{running['jid']}?mode=cancel"
        urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()
        finish(job)
    one_paragraph(job, "cancelled on Flink", "--resume")
    assert run(MODEL, lines, output, *flags, "--resume").process.returncode == 0
    whole(output)


def test_the_submitting_process_is_killed_and_the_job_goes_on(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 2)
        job.kill()
    followed = run(MODEL, lines, output, *flags, "--resume")
    assert followed.process.returncode == 0, followed.stderr
    whole(output)
    assert description(output)["splits_resumed"] == 0  # it was one run all along


def test_a_detached_job_is_followed_later(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, "--no-packages", SPLITS]
    left = run(MODEL, lines, output, *flags, "--detach")
    assert left.process.returncode == 0, left.stderr
    assert flink.rest_url in left.stderr
    refused = run(MODEL, lines, output, *flags, "--overwrite")
    assert refused.process.returncode == 2
    assert "still running on Flink" in refused.stderr
    followed = run(MODEL, lines, output, *flags, "--resume")
    assert followed.process.returncode == 0, followed.stderr
    assert "following it" in followed.stderr
    whole(output)
    finished = run(MODEL, lines, output, *flags, "--resume")
    assert "nothing to do" in finished.stderr


def test_ctrl_c_cancels_the_job_where_nobody_can_be_asked(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 2)
        job.process.send_signal(signal.SIGINT)
        finish(job)
    assert job.process.returncode == 130
    assert [j for j in flink.get("/jobs/overview")["jobs"] if j["state"] == "RUNNING"] == []
    assert run(MODEL, lines, output, *flags, "--resume").process.returncode == 0
    whole(output)


def test_flinks_job_server_is_killed_and_nobody_minds(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    with flink.job_server() as server:
        flags = [*server.flags, f"--flink_master={flink.master}", *pool.flags]
        with command(MODEL, lines, output, *flags, "--no-packages", SPLITS) as job:
            wait_for_splits(output, 4)
            server.processes[0].kill()
            finish(job)
    assert job.process.returncode == 0, job.stderr
    whole(output)


def test_sparks_worker_is_killed_and_the_work_is_done_again(
    lines: Path, tmp_path: Path, spark_job_server: JobServer, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*spark_job_server.flags, *pool.flags, "--runner=spark", "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 4)
        kill_a_worker(Scene(None, pool))  # type: ignore[arg-type]
        finish(job)
    if job.process.returncode:
        one_paragraph(job, "Spark", "--resume")
        assert run(MODEL, lines, output, *flags, "--resume").process.returncode == 0
    whole(output)


def test_sparks_submitting_process_is_killed_and_the_job_goes_on(
    lines: Path, tmp_path: Path, spark_job_server: JobServer, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*spark_job_server.flags, *pool.flags, "--runner=spark", "--no-packages", SPLITS]
    with command(MODEL, lines, output, *flags) as job:
        wait_for_splits(output, 4)
        job.kill()
    followed = run(MODEL, lines, output, *flags, "--resume")
    assert followed.process.returncode == 0, followed.stderr
    whole(output)
    assert description(output)["splits_resumed"] == 0


def test_a_job_whose_job_server_died_is_resumed(lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with WorkerPool() as pool:
        with JobServer("spark") as server:
            flags = [*pool.flags, "--runner=spark", "--no-packages", SPLITS]
            with command(MODEL, lines, output, *server.flags, *flags) as job:
                wait_for_splits(output, 4)
                job.kill()
                server.processes[0].kill()
        with JobServer("spark") as server:
            again = run(MODEL, lines, output, *server.flags, *flags, "--resume")
    assert again.process.returncode == 0, again.stderr
    whole(output)


def test_prism_and_its_worker_are_killed_and_the_job_is_resumed(
    lines: Path, tmp_path: Path, prism: Prism
) -> None:
    output = tmp_path / "out"
    with WorkerPool() as pool:
        flags = [*prism.flags, *pool.flags, "--no-packages", SPLITS]
        with command(MODEL, lines, output, *flags) as job:
            wait_for_splits(output, 4)
            kill_a_worker(Scene(None, pool))  # type: ignore[arg-type]
            wait_until(lambda: job.process.poll() is not None, seconds=60)
            finish(job)
        one_paragraph(job, "--resume")
        again = run(MODEL, lines, output, *flags, "--resume")
    assert again.process.returncode == 0, again.stderr
    whole(output)
