"""What happens on an engine when something is killed: every record is there once in the end.

After each fault the engine either does the work again by itself, or the job fails with one
paragraph and ``--resume`` finishes it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from crashing import Command, description
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
SLOW = ["--no-packages", "--split-size=12KB"]
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


def faulted(
    lines: Path, output: Path, flags: Sequence[str], fault: Callable[[Command], Any], after: int = 4
) -> Command:
    """Run the job to its end, whatever that is; something happens after so many splits."""
    with command(MODEL, lines, output, *flags, *SLOW) as job:
        wait_for_splits(output, after)
        fault(job)
        if job.process.returncode is None:  # else it was the fault, and has been waited for
            finish(job)
    return job


def resumed(lines: Path, output: Path, flags: Sequence[str]) -> Command:
    """Run the command again with ``--resume``, to a whole output."""
    again = run(MODEL, lines, output, *flags, *SLOW, "--resume")
    assert again.process.returncode == 0, again.stderr
    whole(output)
    return again


def kill_a_worker(pool: WorkerPool) -> None:
    """``kill -9`` of one Python worker that predicts; some are to spare."""
    at_work = {int(path.name.split("-")[1]) for path in Path(os.environ["PROCESSES"]).iterdir()}
    kill(max(at_work.intersection(children(pool.process.members, pool.process.pid))))


FAULTS = {
    "worker": lambda _, pool: kill_a_worker(pool),
    "TaskManager": lambda flink, _: flink.replace_taskmanager(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_flink_does_the_work_again_by_itself(
    fault: Any, lines: Path, tmp_path: Path, restarting: FlinkCluster, pool: WorkerPool
) -> None:
    flags = [*restarting.flags, *pool.flags]
    job = faulted(lines, tmp_path / "out", flags, lambda _: fault(restarting, pool))
    assert job.process.returncode == 0, job.stderr
    whole(tmp_path / "out")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_flink_job_that_failed_is_submitted_again(
    fault: Any, lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    flags, output = [*flink.flags, *pool.flags], tmp_path / "out"
    job = faulted(lines, output, flags, lambda _: fault(flink, pool))
    assert job.process.returncode == 0, job.stderr
    assert job.stderr.count("submitting the job again") == 1
    whole(output)
    assert description(output)["splits_resumed"] == 0  # it is one run


def test_a_job_that_is_cancelled_through_flink_is_resumed(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    def cancel(_: Command) -> None:
        (running,) = (j for j in flink.get("/jobs/overview")["jobs"] if j["state"] == "RUNNING")
        url = f"{flink.rest_url}/jobs/{running['jid']}?mode=cancel"
        urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()

    flags = [*flink.flags, *pool.flags]
    job = faulted(lines, tmp_path / "out", flags, cancel)
    one_paragraph(job, "cancelled on Flink", "--resume")
    resumed(lines, tmp_path / "out", flags)


def test_the_submitting_process_is_killed_and_the_job_goes_on(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    flags, output = [*flink.flags, *pool.flags], tmp_path / "out"
    faulted(lines, output, flags, Command.kill, after=2)
    resumed(lines, output, flags)
    assert description(output)["splits_resumed"] == 0  # it was one run all along


def test_a_detached_job_is_followed_later(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    flags, output = [*flink.flags, *pool.flags], tmp_path / "out"
    left = run(MODEL, lines, output, *flags, *SLOW, "--detach")
    assert left.process.returncode == 0, left.stderr
    assert flink.rest_url in left.stderr
    refused = run(MODEL, lines, output, *flags, *SLOW, "--overwrite")
    assert refused.process.returncode == 2
    assert "still running on Flink" in refused.stderr
    assert "following it" in resumed(lines, output, flags).stderr
    assert "nothing to do" in resumed(lines, output, flags).stderr


def test_ctrl_c_cancels_the_job_where_nobody_can_be_asked(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    flags = [*flink.flags, *pool.flags]
    stop = lambda job: job.process.send_signal(signal.SIGINT)  # noqa: E731
    job = faulted(lines, tmp_path / "out", flags, stop, after=2)
    assert job.process.returncode == 130
    assert [j for j in flink.get("/jobs/overview")["jobs"] if j["state"] == "RUNNING"] == []
    resumed(lines, tmp_path / "out", flags)


def test_flinks_job_server_is_killed_and_nobody_minds(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    with flink.job_server() as server:
        flags = [*server.flags, f"--flink_master={flink.master}", *pool.flags]
        job = faulted(lines, tmp_path / "out", flags, lambda _: server.processes[0].kill())
    assert job.process.returncode == 0, job.stderr
    whole(tmp_path / "out")


def test_sparks_worker_is_killed_and_the_work_is_done_again(
    lines: Path, tmp_path: Path, spark_job_server: JobServer, pool: WorkerPool
) -> None:
    flags, output = [*spark_job_server.flags, *pool.flags, "--runner=spark"], tmp_path / "out"
    job = faulted(lines, output, flags, lambda _: kill_a_worker(pool))
    if job.process.returncode:
        one_paragraph(job, "Spark", "--resume")
        resumed(lines, output, flags)
    whole(output)


def test_sparks_submitting_process_is_killed_and_the_job_goes_on(
    lines: Path, tmp_path: Path, spark_job_server: JobServer, pool: WorkerPool
) -> None:
    flags, output = [*spark_job_server.flags, *pool.flags, "--runner=spark"], tmp_path / "out"
    faulted(lines, output, flags, Command.kill)
    resumed(lines, output, flags)
    assert description(output)["splits_resumed"] == 0


def test_a_job_whose_job_server_died_is_resumed(lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with WorkerPool() as pool:
        flags = [*pool.flags, "--runner=spark"]
        with JobServer("spark") as server:

            def kill_both(job: Command) -> None:
                job.kill()
                server.processes[0].kill()

            faulted(lines, output, [*server.flags, *flags], kill_both)
        with JobServer("spark") as server:
            resumed(lines, output, [*server.flags, *flags])


def test_prisms_worker_is_killed_and_the_job_is_submitted_again(
    lines: Path, tmp_path: Path, prism: Prism
) -> None:
    with WorkerPool() as pool:
        flags = [*prism.flags, *pool.flags]
        job = faulted(lines, tmp_path / "out", flags, lambda _: kill_a_worker(pool))
    assert job.process.returncode == 0, job.stderr
    whole(tmp_path / "out")


# Waiting


def test_a_job_without_free_slots_says_for_what_it_waits(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, *SLOW, "--parallelism=64"]
    with command(MODEL, lines, output, *flags) as started:
        started.read_until("not enough free task slots")
        started.process.send_signal(signal.SIGINT)
        finish(started)
    assert started.process.returncode != 0


def test_a_job_that_waits_too_long_is_cancelled(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    output = tmp_path / "out"
    flags = [*flink.flags, *pool.flags, *SLOW]
    failed = run(MODEL, lines, output, *flags, "--parallelism=64", "--max-wait=5")
    one_paragraph(failed, "for Flink and was cancelled (--max-wait)", "not enough free task slots")
    done = run(MODEL, lines, output, *flags, "--parallelism=4", "--resume")
    assert done.process.returncode == 0, done.stderr
    whole(output)


def test_a_job_whose_workers_never_connect_is_cancelled(
    lines: Path, tmp_path: Path, flink: FlinkCluster, pool: WorkerPool
) -> None:
    with socket.create_server(("localhost", 0)) as silent:  # what takes calls and never answers
        address = f"--environment_config=localhost:{silent.getsockname()[1]}"
        flags = [*flink.flags, *pool.flags, address, *SLOW]
        failed = run(MODEL, lines, tmp_path / "out", *flags, "--max-wait=15")
    one_paragraph(failed, "was cancelled (--max-wait)", "no split is done yet")
    assert re.search(r"waiting for Flink for \d+ s: no split is done yet", failed.stderr)
