"""Flink's REST interface as modelbeam reads it, against a stand-in that answers what it is told.

The answers have the shape of Flink 1.19's, shortened. The tests on a real cluster are in
``tests/engines``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from services import free_port

from modelbeam import engines
from modelbeam.beam import causes
from modelbeam.engines import flink
from modelbeam.engines.base import Status
from modelbeam.engines.run import _Waiting
from modelbeam.errors import EngineUnreachableError, InputReadError, JobNotFoundError, RequestError
from modelbeam.job.task import Totals


class StandIn(ThreadingHTTPServer):
    """Answers paths under ``/v1/`` as :attr:`answers` says; all others with 404.

    Attributes:
        answers: by path, what is sent: an object as JSON, bytes as they are, a number as a status.
        asked: method and path of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("localhost", 0), _Handler)
        self.url = f"http://localhost:{self.server_address[1]}"
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {
            "config": {"flink-version": "1.19.3"},
            "overview": {"slots-total": 6, "taskmanagers": 4, "slots-available": 5},
            "jobs/overview": {
                "jobs": [
                    {"jid": "aa", "name": "other", "start-time": 30},
                    {"jid": "bb", "name": "mine", "start-time": 10},
                    {"jid": "cc", "name": "mine", "start-time": 20},
                ]
            },
            "jobs/cc": job("RUNNING"),
            "jobs/cc/status": {"status": "RUNNING"},
            "jobs/cc?mode=cancel": {},
        }


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        found = self.server.answers.get(self.path.removeprefix("/v1/"), 404)
        self.send_response(found if isinstance(found, int) else 200)
        self.end_headers()
        if not isinstance(found, int):
            self.wfile.write(found if isinstance(found, bytes) else json.dumps(found).encode())

    do_PATCH = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def job(state: str) -> dict[str, Any]:
    """A job of three vertices in that state; of its split step five are done and two at work."""
    names = ["Splits -> ReadPlan", "PredictSplit -> Gather", "Publish"]
    vertices = [
        {"name": name, "metrics": {"write-records": 5 + n}, "tasks": {"RUNNING": 2 + n}}
        for n, name in enumerate(names, start=-1)
    ]
    return {"jid": "cc", "state": state, "vertices": vertices}


@pytest.fixture
def cluster() -> Iterator[StandIn]:
    """A stand-in that serves."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mine(cluster: StandIn) -> flink.FlinkJob:
    """The job ``mine`` there."""
    return flink.FlinkJob(flink.Cluster(cluster.url), "mine", None)


def flags(cluster: StandIn, *more: str) -> list[str]:
    """Beam's flags for this cluster."""
    return ["--runner=flink", "--flink_master", cluster.url.removeprefix("http://"), *more]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("INITIALIZING", "starting"),
        ("CREATED", "starting"),
        ("RUNNING", "running"),
        ("RESTARTING", "running"),
        ("FAILING", "running"),
        ("CANCELLING", "running"),
        ("FINISHED", "done"),
        ("FAILED", "failed"),
        ("CANCELED", "cancelled"),
    ],
)
def test_how_a_job_is(state: str, said: Any, cluster: StandIn, mine: flink.FlinkJob) -> None:
    cluster.answers["jobs/cc/status"] = {"status": state}
    polled = mine.poll()
    assert replace(polled, waits=None) == Status(said, splits=5, tasks=2)
    assert (polled.waits is not None) == (state in ("RESTARTING", "FAILING"))
    assert polled.over == (said in ("done", "failed", "cancelled"))


def test_a_job_that_has_no_tasks_yet(cluster: StandIn, mine: flink.FlinkJob) -> None:
    cluster.answers["jobs/cc"] = {"state": "INITIALIZING", "vertices": []}
    cluster.answers["jobs/cc/status"] = {"status": "INITIALIZING"}
    assert mine.poll() == Status("starting")


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({"SCHEDULED": 4, "RUNNING": 0}, "5 free of 6 slots on 4 TaskManagers"),
        ({"CREATED": 4}, "set a smaller --parallelism"),
        ({"INITIALIZING": 2, "RUNNING": 0}, "its workers have not begun"),
        ({"INITIALIZING": 2, "RUNNING": 1}, None),
        ({"DEPLOYING": 2}, None),
    ],
)
def test_why_a_job_waits(
    tasks: dict[str, int], words: str | None, cluster: StandIn, mine: flink.FlinkJob
) -> None:
    cluster.answers["jobs/cc"]["vertices"] = [
        {"name": "PredictSplit", "metrics": {"write-records": 0}, "tasks": {"RUNNING": 0, **tasks}}
    ]
    waits = mine.poll().waits
    assert waits is None if words is None else words in str(waits)


def test_a_job_that_waits_is_told_soon_and_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelbeam.engines.run.time.monotonic", lambda: now)
    waiting, nothing = _Waiting("Flink"), Totals()
    full, lost = (Status("running", waits=reason) for reason in ("no slot", "restarts"))
    assert waiting.told(full, nothing) is None
    now += 9
    assert waiting.told(full, nothing) == "waiting for Flink for 9 s: no slot"
    assert waiting.told(full, nothing) is None
    now += 61
    assert waiting.told(full, nothing) == "waiting for Flink for 70 s: no slot"
    some = Totals()
    some.splits = 1
    assert waiting.told(Status("running"), some) is None
    now += 9
    assert waiting.told(lost, some) is None
    now += 9
    assert waiting.told(lost, some) == "waiting for Flink for 9 s: restarts"
    assert waiting.told(Status("done"), some) is None


def test_a_job_that_has_read_nothing_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("modelbeam.engines.run.time.monotonic", lambda: now)
    waiting, nothing = _Waiting("Spark"), Totals()
    assert waiting.told(Status("running"), nothing) is None
    now += 9
    assert "no split is done yet" in str(waiting.told(Status("running"), nothing))


def test_a_job_is_found_by_its_name_once(cluster: StandIn, mine: flink.FlinkJob) -> None:
    assert mine.link is None
    mine.poll()
    mine.poll()
    assert mine.link == f"{cluster.url}/#/job/running/cc/overview"
    once = ["GET /v1/jobs/cc/status", "GET /v1/jobs/cc"]
    assert cluster.asked == ["GET /v1/jobs/overview", *once, *once]


def test_a_job_is_found_again_by_another_process(cluster: StandIn, mine: flink.FlinkJob) -> None:
    found = engines.find("flink").attach(json.loads(json.dumps(mine.identity)))
    assert (found.engine, found.name) == ("Flink", "mine")
    assert found.poll().state == "running"
    with pytest.raises(JobNotFoundError, match=f"{cluster.url} has no job nobody's"):
        engines.find("flink").attach({**mine.identity, "name": "nobody's"})


def test_a_job_that_flink_forgot(cluster: StandIn, mine: flink.FlinkJob) -> None:
    mine.poll()
    del cluster.answers["jobs/cc"]
    with pytest.raises(JobNotFoundError, match="does not know jobs/cc"):
        mine.poll()


def test_flink_does_not_know_the_job_yet(cluster: StandIn) -> None:
    class Submitted:
        """What stands for the job at its job service."""

        state: Any = "starting"

        def poll(self) -> Status:
            return Status(self.state)

        def cause(self) -> str:
            return "no room"

    submitted: Any = Submitted()
    waiting = flink.FlinkJob(flink.Cluster(cluster.url), "tomorrow's", submitted)
    assert waiting.poll() == Status("starting")
    submitted.state = "done"  # the job server has handed it over
    assert waiting.poll() == Status("starting")
    submitted.state = "failed"
    assert waiting.poll() == Status("failed")
    assert waiting.cause() == "no room"


def test_a_job_is_cancelled(cluster: StandIn, mine: flink.FlinkJob) -> None:
    mine.cancel()
    assert cluster.asked[-1] == "PATCH /v1/jobs/cc?mode=cancel"


def test_why_a_job_failed(
    cluster: StandIn, mine: flink.FlinkJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = causes.encode(InputReadError("/data/a.jsonl is gone."))
    entries = [{"stacktrace": f"java.lang.RuntimeException: {error}\n\tat X.java"}]
    said = {"root-exception": "org.x.JobException: Recovery is suppressed"}
    later = {**said, "exceptionHistory": {"entries": entries}}
    cluster.answers["jobs/cc/exceptions"] = {"root-exception": None}  # from Flink's cache
    monkeypatch.setattr(
        time, "sleep", lambda _: cluster.answers.update({"jobs/cc/exceptions": later})
    )
    mine.poll()
    found = causes.decode(mine.cause())
    assert isinstance(found, InputReadError)
    assert str(found) == "/data/a.jsonl is gone."
    cluster.answers["jobs/cc/exceptions"] = {"root-exception": None}
    monkeypatch.setattr(flink, "REFRESH_SECONDS", 0)
    assert causes.paragraph(mine.cause()) == "it gave no reason"


def test_a_cluster_is_looked_at_before_anything_is_sent(cluster: StandIn) -> None:
    added = flink.Flink().preflight(flags(cluster))
    assert added == ["--parallelism=6", "--flink_submit_uber_jar", "--flink_version=1.19"]
    assert flink.Flink().process_flags(flags(cluster)) == ["--sdk_worker_parallelism=3"]
    said = f"Flink 1.19.3 at {cluster.url}, 6 slots"
    assert flink.Flink().describe(flags(cluster)) == said


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("overview", {"slots-total": 0, "taskmanagers": 0}, "has no task slots; no TaskManager"),
        ("config", b"<html>a web page</html>", "is no Flink cluster"),
        ("config", {"version": 2}, "is no Flink cluster"),
        ("config", [], "is no Flink cluster"),
        ("config", 404, "does not know config"),
        ("config", 503, "answers 503 to config"),
    ],
)
def test_what_is_no_cluster_is_refused(
    path: str, answer: Any, words: str, cluster: StandIn
) -> None:
    cluster.answers[path] = answer
    with pytest.raises(RequestError, match=f"^--flink_master: .*{words}"):
        flink.Flink().preflight(flags(cluster))


def test_nobody_answers(cluster: StandIn) -> None:
    nobody = f"localhost:{free_port()}"
    with pytest.raises(RequestError, match=f"http://{nobody} does not answer.*web interface"):
        flink.Flink().preflight(["--runner=flink", "--flink_master", nobody])
    job = flink.FlinkJob(flink.Cluster(f"http://{nobody}"), "mine", None)
    with pytest.raises(EngineUnreachableError, match="does not answer"):
        job.poll()
    cluster.answers["jobs/overview"] = 502
    with pytest.raises(EngineUnreachableError, match="answers 502"):
        flink.FlinkJob(flink.Cluster(cluster.url), "mine", None).poll()
