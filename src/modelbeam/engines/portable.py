"""Any engine behind Beam's job service: Prism, a job server, Beam's own embedded one.

The protocol is Beam's ``beam_job_api.proto``; counters are its monitoring infos.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from modelbeam.engines.base import Engine, JobState, RemoteJob, Status
from modelbeam.engines.loopback import confine, stays_here
from modelbeam.engines.submitting import run_pipeline
from modelbeam.errors import EngineUnreachableError, JobNotFoundError, RequestError
from modelbeam.job.flags import asked_loopback, runner_of, value_of

_STATES: dict[str, JobState] = {
    "STOPPED": "starting",
    "STARTING": "starting",
    "RUNNING": "running",
    "DRAINING": "running",
    "CANCELLING": "running",
    "UPDATING": "running",
    "DONE": "done",
    "DRAINED": "done",
    "UPDATED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}

TIMEOUT = 20
"""Seconds that one question to an engine may take."""

PREFLIGHT_TIMEOUT = 10
"""Seconds in which a job service must answer for the first time."""


class PortableJob:
    """A job that a job service knows by its id.

    Args:
        service: a ``JobServiceStub``, or the servicer itself if it is in this process.
        job_id: the id there.
        endpoint: ``host:port`` of the service, or ``None`` if it ends with this process.
        engine: its name for people.
        result: Beam's ``PipelineResult``, if this process submitted the job.
    """

    def __init__(
        self, service: Any, job_id: str, endpoint: str | None, engine: str, result: Any = None
    ) -> None:
        self.engine, self.name = engine, job_id
        self.link: str | None = None
        self.identity: dict[str, str] = {}
        if endpoint:
            self.identity = {"engine": "portable", "endpoint": endpoint, "job": job_id}
            self.identity["title"] = engine
        self._service, self._job_id, self._result = service, job_id, result
        self._errors: list[str] = []
        self._listener = threading.Thread(target=self._listen, name="messages", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        from modelbeam.beam.private import job_api

        api = job_api()
        try:
            for message in self._service.GetMessageStream(
                api.JobMessagesRequest(job_id=self._job_id)
            ):
                if message.HasField("message_response"):
                    response = message.message_response
                    if response.importance >= api.JobMessage.JOB_MESSAGE_WARNING:
                        self._errors.append(response.message_text)
        except Exception:  # the service is gone, which poll() reports
            return

    def poll(self) -> Status:
        """See :class:`.RemoteJob`."""
        from modelbeam.beam.private import job_api

        api = job_api()
        answer = self._ask("GetState", api.GetJobStateRequest(job_id=self._job_id))
        state = _STATES.get(api.JobState.Enum.Name(answer.state), "starting")
        counted = self._counters() if state in ("running", "done") else {}
        return Status(
            state,
            splits=counted.get("splits_done"),
            read=counted.get("records_read"),
            failed=counted.get("records_failed"),
        )

    def _counters(self) -> dict[str, int]:
        from modelbeam.beam.private import job_api, results_of

        api = job_api()
        try:
            request = api.GetJobMetricsRequest(job_id=self._job_id)
            return counters(results_of(self._ask("GetJobMetrics", request)))
        except Exception:  # not every service has them while the job runs
            return {}

    def _ask(self, method: str, request: Any) -> Any:
        import grpc

        from modelbeam.beam.private import is_in_this_process

        call = getattr(self._service, method)
        remote = not is_in_this_process(self._service)
        try:
            return call(request, timeout=TIMEOUT) if remote else call(request)
        except LookupError:
            raise JobNotFoundError(f"the job service does not know job {self._job_id}") from None
        except grpc.RpcError as error:
            code = error.code() if hasattr(error, "code") else None
            details = error.details() if hasattr(error, "details") else str(error)
            unknown = "not" in str(details) and "exist" in str(details)
            if code == grpc.StatusCode.NOT_FOUND or unknown:
                raise JobNotFoundError(f"the job service says: {details}") from None
            where = self.identity.get("endpoint", "the job service")
            raise EngineUnreachableError(
                f"{where} does not answer ({getattr(code, 'name', code)}: {details})"
            ) from None

    def cause(self) -> str:
        """See :class:`.RemoteJob`."""
        self._listener.join(5)
        return "\n".join(self._errors)

    def cancel(self) -> None:
        """See :class:`.RemoteJob`."""
        from modelbeam.beam.private import job_api

        self._ask("Cancel", job_api().CancelJobRequest(job_id=self._job_id))

    def close(self) -> None:
        """Stop the loopback worker, if there is one."""
        if self._result is not None:
            from modelbeam.beam.private import end_loopback_worker

            end_loopback_worker(self._result)


def counters(results: Any) -> dict[str, int]:
    """modelbeam's own counters among Beam's metric results, summed over the steps."""
    found: dict[str, int] = {}
    for result in results.query()["counters"]:
        if result.key.metric.namespace == "modelbeam":
            value = max(result.attempted or 0, result.committed or 0)
            found[result.key.metric.name] = found.get(result.key.metric.name, 0) + value
    return found


def _channel(endpoint: str, seconds: float) -> Any:
    """A gRPC channel to a service that answers.

    Raises:
        EngineUnreachableError: it does not within that time.
    """
    import grpc

    channel = grpc.insecure_channel(endpoint)
    try:
        grpc.channel_ready_future(channel).result(timeout=seconds)
    except grpc.FutureTimeoutError:
        channel.close()
        raise EngineUnreachableError(f"{endpoint} does not answer") from None
    return channel


def lasting_endpoint(flags: Sequence[str]) -> str | None:
    """The job service that the flags name, unless it ends with this process."""
    endpoint = value_of(flags, "--job_endpoint")
    return endpoint if endpoint and endpoint != "embed" else None


def connect(endpoint: str) -> Any:
    """A stub for the job service there.

    Raises:
        EngineUnreachableError: it does not answer.
    """
    from modelbeam.beam.private import job_service_at

    return job_service_at(_channel(endpoint, TIMEOUT))


class Portable(Engine):
    """Whatever is behind a job service; engines that Beam reaches by one begin with this."""

    name = "portable"
    title = "the job service"
    java_options: Mapping[str, bool] = MappingProxyType({})
    example_url = ""
    starts_machines = False

    def matches(self, flags: Sequence[str]) -> bool:
        """All flags that name a runner; it is asked last."""
        return True

    def is_loopback(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`; Beam does it by itself for engines on this very machine."""
        asked = asked_loopback(flags)
        return self._loopback_unasked(flags) if asked is None else asked

    def _loopback_unasked(self, flags: Sequence[str]) -> bool:
        """Whether the workers are threads here if no environment is asked for."""
        return value_of(flags, "--job_endpoint") == "embed"

    def outlives(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        if self.is_loopback(flags):
            return False
        return lasting_endpoint(flags) is not None or self._lasts(flags)

    def _lasts(self, flags: Sequence[str]) -> bool:
        """Whether a job without a job server of the user's goes on without this process."""
        return False

    def describe(self, flags: Sequence[str]) -> str:
        """See :class:`.Engine`."""
        endpoint = value_of(flags, "--job_endpoint")
        if endpoint:
            return f"a job service at {endpoint}"
        return f"{runner_of(flags)}, started by Beam"

    def preflight(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`."""
        endpoint = value_of(flags, "--job_endpoint")
        if not endpoint:
            return []
        if endpoint == "embed":
            return ["--environment_type=LOOPBACK"]
        try:
            _channel(endpoint, PREFLIGHT_TIMEOUT).close()
        except EngineUnreachableError as error:
            raise RequestError(
                f"--job_endpoint {error}. Is the job server running there?"
            ) from None
        return []

    def process_flags(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`; how many tasks there are is not known here."""
        return []

    def submit(self, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
        """See :class:`.Engine`."""
        return self._submitted(self._run(pipeline, flags), flags)

    def _run(self, pipeline: Any, flags: Sequence[str]) -> Any:
        """Run it, with a job server that listens on loopback only if nobody else needs it."""
        if self._loopback_unasked(flags) and stays_here(flags):
            return run_pipeline(pipeline, flags, change=confine)
        return run_pipeline(pipeline, flags)

    def _submitted(self, result: Any, flags: Sequence[str]) -> PortableJob:
        """The job, as its job service knows it."""
        from modelbeam.beam.private import job_of

        endpoint = lasting_endpoint(flags)
        return PortableJob(*job_of(result), endpoint, self.title, result)

    def attach(self, identity: dict[str, str]) -> RemoteJob:
        """See :class:`.Engine`."""
        endpoint = identity["endpoint"]
        job = PortableJob(connect(endpoint), identity["job"], endpoint, identity["title"])
        job.poll()
        return job
