"""Flink, through the REST interface of its JobManager (as of Flink 1.19).

The job is found there by its name, which is unique, so it makes no difference whether a job server
submitted it or Beam uploaded it as one jar; and it is still found when a job server has died.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from modelbeam.engines import java_flags
from modelbeam.engines.base import JobState, RemoteJob, Status
from modelbeam.engines.portable import TIMEOUT, Portable, PortableJob
from modelbeam.engines.submitting import run_pipeline
from modelbeam.errors import EngineError, EngineUnreachableError, JobNotFoundError, RequestError
from modelbeam.job.flags import short_runner, value_of
from modelbeam.text import count

_STATES: dict[str, JobState] = {
    "INITIALIZING": "starting",
    "CREATED": "starting",
    "RECONCILING": "starting",
    "FINISHED": "done",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}
"""All others mean that it runs, restarts included."""

REFRESH_SECONDS = 4.0
"""How old the cluster's answers may be: Flink's ``web.refresh-interval``, 3 s, and some. A job's
``status`` alone is asked again every time."""


RETRIES = 1_000_000_000
"""How often a job of lanes is started again: it may live for months."""

RETRY_MS = 2000


class Cluster:
    """A Flink cluster's REST interface.

    Args:
        url: its address, ``http://host:port``.
    """

    def __init__(self, url: str) -> None:
        import requests

        self.url = url.rstrip("/")
        self._session = requests.Session()

    def get(self, path: str, method: str = "GET") -> Any:
        """Ask for a path under ``/v1``.

        Raises:
            EngineUnreachableError: it does not answer, or with a server's error.
            JobNotFoundError: the path is of a job that it does not know.
        """
        import requests

        try:
            answer = self._session.request(method, f"{self.url}/v1/{path}", timeout=TIMEOUT)
        except requests.RequestException as error:
            reason = getattr(error, "args", None) and type(error).__name__
            raise EngineUnreachableError(f"{self.url} does not answer ({reason})") from None
        if answer.status_code == 404:
            raise JobNotFoundError(f"{self.url} does not know {path}")
        if not answer.ok:
            raise EngineUnreachableError(f"{self.url} answers {answer.status_code} to {path}")
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise EngineUnreachableError(f"{self.url} is no Flink cluster") from None

    def version(self) -> str:
        """Its version, as ``1.19.3``."""
        try:
            return str(self.get("config")["flink-version"])
        except (KeyError, TypeError):
            raise EngineUnreachableError(f"{self.url} is no Flink cluster") from None

    def size(self) -> tuple[int, int]:
        """How many task slots and how many TaskManagers it has."""
        overview = self.get("overview")
        return int(overview["slots-total"]), int(overview["taskmanagers"])

    def find(self, name: str) -> str | None:
        """The id of the latest job of that name."""
        jobs = [job for job in self.get("jobs/overview")["jobs"] if job["name"] == name]
        return str(max(jobs, key=lambda job: job["start-time"])["jid"]) if jobs else None


class FlinkJob:
    """A job on a Flink cluster.

    Args:
        cluster: where it runs.
        name: its unique name.
        submitted: the job as the job service sees it, if this process submitted it; Flink itself
            hears of it only once the job server has staged everything.
    """

    engine = "Flink"

    def __init__(self, cluster: Cluster, name: str, submitted: PortableJob | None) -> None:
        self.name = name
        self._cluster, self._submitted = cluster, submitted
        self.identity = {"engine": "flink", "rest": cluster.url, "name": name}
        self._id: str | None = None

    @property
    def link(self) -> str | None:
        """Its page in Flink's web interface, once Flink knows it."""
        return f"{self._cluster.url}/#/job/running/{self._id}/overview" if self._id else None

    def find(self) -> bool:
        """Whether Flink knows the job."""
        self._id = self._id or self._cluster.find(self.name)
        return self._id is not None

    def poll(self) -> Status:
        """See :class:`.RemoteJob`."""
        if not self.find():
            if self._submitted is None:
                raise JobNotFoundError(f"{self._cluster.url} has no job {self.name}")
            status = self._submitted.poll()
            return status if status.over and status.state != "done" else Status("starting")
        said = self._cluster.get(f"jobs/{self._id}/status")["status"]
        state = _STATES.get(said, "running")
        job = self._cluster.get(f"jobs/{self._id}")  # REFRESH_SECONDS old at most
        splits = tasks = None
        states: Counter[str] = Counter()
        for vertex in job["vertices"]:
            states.update(vertex["tasks"])
            if "PredictSplit" in vertex["name"]:
                splits = vertex["metrics"]["write-records"]
                tasks = vertex["tasks"]["RUNNING"]
        waits = self._waits(said, states) if state in ("starting", "running") else None
        return Status(state, splits=splits, tasks=tasks, waits=waits)

    def _waits(self, said: str, tasks: Counter[str]) -> str | None:
        """Why nothing goes on, from the job's status and the number of tasks in each state."""
        if said in ("RESTARTING", "FAILING"):
            return "a task has failed and Flink starts it again; its page tells why"
        if tasks["RUNNING"]:
            return None
        if tasks["CREATED"] or tasks["SCHEDULED"]:
            overview = self._cluster.get("overview")
            slots = count(overview["slots-total"], "slot")
            managers = count(overview["taskmanagers"], "TaskManager")
            return (
                f"not enough free task slots ({overview['slots-available']} free of {slots} on "
                f"{managers}). Add TaskManagers, set a smaller --parallelism, or wait for other "
                f"jobs to end"
            )
        if tasks["INITIALIZING"]:
            return (
                "its workers have not begun: they install packages and load the model first. "
                "'modelbeam check' with the same flags tries them"
            )
        return None

    def cause(self) -> str:
        """See :class:`.RemoteJob`."""
        if self._id is None:
            return self._submitted.cause() if self._submitted else ""
        deadline = time.monotonic() + REFRESH_SECONDS
        said = self._cluster.get(f"jobs/{self._id}/exceptions")
        while not said.get("root-exception") and time.monotonic() < deadline:
            time.sleep(0.2)
            said = self._cluster.get(f"jobs/{self._id}/exceptions")
        entries = said.get("exceptionHistory", {}).get("entries", [])
        texts = [entry.get("stacktrace", "") for entry in entries]
        return "\n".join([said.get("root-exception") or "", *texts])

    def cancel(self) -> None:
        """See :class:`.RemoteJob`."""
        if self.find():
            self._cluster.get(f"jobs/{self._id}?mode=cancel", "PATCH")
        elif self._submitted is not None:
            self._submitted.cancel()

    def close(self) -> None:
        """Stop the loopback worker, if there is one."""
        if self._submitted is not None:
            self._submitted.close()


def flink_address(flags: Sequence[str]) -> str | None:
    """The URL of Flink's REST interface, unless Flink runs inside the job server."""
    master = value_of(flags, "--flink_master")
    if not master or master.startswith("["):
        return None
    return (master if "://" in master else f"http://{master}").rstrip("/")


class Flink(Portable):
    """Flink; Beam's long form counts as well: a ``PortableRunner`` beside a ``--flink_master``."""

    name = "flink"
    title = "Flink"
    java_options = java_flags.FLINK

    def matches(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return short_runner(flags) == self.name or flink_address(flags) is not None

    def _loopback_unasked(self, flags: Sequence[str]) -> bool:
        return flink_address(flags) is None and value_of(flags, "--job_endpoint") is None

    def _lasts(self, flags: Sequence[str]) -> bool:
        return flink_address(flags) is not None

    def preflight(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`.

        Without a job server Beam uploads the pipeline as one jar, which holds the staged files too;
        so neither this machine nor a job server's has to stay.
        """
        added = super().preflight(flags)
        address = flink_address(flags)
        if address is None:
            return added
        cluster = Cluster(address)
        try:
            version, (slots, _) = cluster.version(), cluster.size()
        except EngineError as error:
            raise RequestError(
                f"--flink_master: {error}. Give the address of the JobManager's web interface, "
                f"such as --flink_master localhost:8081."
            ) from None
        if slots == 0:
            raise RequestError(
                f"--flink_master: the cluster at {address} has no task slots; no TaskManager is "
                f"there."
            )
        added.append(f"--parallelism={slots}")
        if value_of(flags, "--job_endpoint") is None:
            added.append("--flink_submit_uber_jar")
            added.append(f"--flink_version={'.'.join(version.split('.')[:2])}")
        return added

    def process_flags(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`; a TaskManager runs a task in each of its slots.

        Beam deals its Python processes out in turn, to the tasks of all three steps in the order in
        which they happen to open. With as many as there are slots, two tasks of the model's step
        had the same one in half of all jobs, and the other idled; with these it was not seen.
        """
        address = flink_address(flags)
        if address is None:
            return []
        slots, managers = Cluster(address).size()
        return [f"--sdk_worker_parallelism={2 * -(-slots // managers) - 1}"]

    def lane_slots(self, flags: Sequence[str]) -> int | None:
        """See :class:`.LaneEngine`."""
        address = flink_address(flags)
        return None if address is None else Cluster(address).size()[0]

    def lane_flags(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.LaneEngine`.

        Without checkpoints, which lanes do not need, Flink starts nothing again by itself.
        """
        asked = [f"--number_of_execution_retries={RETRIES}", f"--execution_retry_delay={RETRY_MS}"]
        address = flink_address(flags)
        if address is not None:
            slots, managers = Cluster(address).size()
            asked.append(f"--sdk_worker_parallelism={-(-slots // managers)}")
        return asked

    def describe(self, flags: Sequence[str]) -> str:
        """See :class:`.Engine`."""
        address = flink_address(flags)
        if address is None:
            return super().describe(flags)
        cluster = Cluster(address)
        return f"Flink {cluster.version()} at {address}, {cluster.size()[0]} slots"

    def submit(self, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
        """See :class:`.Engine`; without a cluster's address, by the job service alone."""
        address = flink_address(flags)
        if address is None:
            return super().submit(pipeline, flags)
        submitted = self._submitted(run_pipeline(pipeline, flags), flags)
        return FlinkJob(Cluster(address), value_of(flags, "--job_name") or "", submitted)

    def attach(self, identity: dict[str, str]) -> RemoteJob:
        """See :class:`.Engine`."""
        job = FlinkJob(Cluster(identity["rest"]), identity["name"], None)
        if not job.find():
            raise JobNotFoundError(f"{identity['rest']} has no job {identity['name']}")
        return job
