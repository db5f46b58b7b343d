"""Spark, through Beam's job server or Spark's own submission server.

The job service tells how the job is; what Spark itself has to say (which tasks are at work, and the
page for people) is asked of the driver's web interface, which lives as long as the application.
With a job server the driver is inside it, and its interface at the first free port from 4040 on;
see Spark's documentation, "Monitoring and Instrumentation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from modelbeam.engines import java_flags
from modelbeam.engines.base import RemoteJob, Status
from modelbeam.engines.portable import Portable, PortableJob, connect, lasting_endpoint
from modelbeam.job.flags import short_runner, value_of

_PORTS = range(4040, 4044)
_TIMEOUT = 2


class SparkJob(PortableJob):
    """A job that runs as a Spark application.

    Args:
        service, job_id, endpoint, engine, result: as for :class:`.PortableJob`.
        name: the job's, with which the application's begins.
    """

    def __init__(
        self,
        service: Any,
        job_id: str,
        endpoint: str | None,
        engine: str,
        result: Any,
        name: str,
    ) -> None:
        super().__init__(service, job_id, endpoint, engine, result)
        self._host = (endpoint or "localhost").rsplit(":", 1)[0]
        self._name = name
        self._application = ""
        if self.identity:
            self.identity.update({"engine": "spark", "name": name})

    def poll(self) -> Status:
        """See :class:`.RemoteJob`."""
        status = super().poll()
        if status.state != "running" or not self._found():
            return status
        stages = _answer(f"{self._application}/stages?status=active") or []
        return replace(status, tasks=sum(stage["numActiveTasks"] for stage in stages))

    def _found(self) -> bool:
        for port in () if self._application else _PORTS:
            page = f"http://{self._host}:{port}"
            for application in _answer(f"{page}/api/v1/applications") or []:
                if application["name"].startswith(self._name):
                    self._application = f"{page}/api/v1/applications/{application['id']}"
                    self.link = page
        return bool(self._application)


def _answer(url: str) -> Any:
    """What an interface says, or ``None`` if it does not; none of it is needed for the job."""
    import requests

    try:
        answer = requests.get(url, timeout=_TIMEOUT)
        return answer.json() if answer.ok else None
    except (requests.RequestException, ValueError):
        return None


class Spark(Portable):
    """Spark."""

    name = "spark"
    title = "Spark"
    java_options = java_flags.SPARK

    def matches(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return short_runner(flags) == self.name

    def _loopback_unasked(self, flags: Sequence[str]) -> bool:
        master = value_of(flags, "--spark_master_url") or "local[4]"
        return master.startswith("local") and not self._lasts(flags)

    def _lasts(self, flags: Sequence[str]) -> bool:
        return "--spark_submit_uber_jar" in flags

    def process_flags(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`; with 0 an executor starts one less than it has cores.

        So does Beam's ``DefaultJobBundleFactory``; its own default is one for all tasks.
        """
        return ["--sdk_worker_parallelism=0"]

    def submit(self, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
        """See :class:`.Engine`."""
        from modelbeam.beam.private import job_of

        result = self._run(pipeline, flags)
        name, endpoint = value_of(flags, "--job_name") or "", lasting_endpoint(flags)
        return SparkJob(*job_of(result), endpoint, self.title, result, name)

    def attach(self, identity: dict[str, str]) -> RemoteJob:
        """See :class:`.Engine`."""
        endpoint = identity["endpoint"]
        service = connect(endpoint)
        job = SparkJob(service, identity["job"], endpoint, self.title, None, identity["name"])
        job.poll()
        return job
