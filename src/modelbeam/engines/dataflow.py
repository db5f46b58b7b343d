"""Google Dataflow, through its API as of v1b3 (google-cloud-dataflow-client).

Beam's own client is made for waiting: it repeats a failed request for minutes, and falls back to
anonymous access if there are no credentials. Whoever follows a job wants an answer, so requests
made here are asked once, with a time-out. Submitting is Beam's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from modelbeam.engines.base import Engine, JobState, RemoteJob, Status
from modelbeam.engines.submitting import run_pipeline
from modelbeam.errors import (
    EngineError,
    EngineUnreachableError,
    JobNotFoundError,
    ModelbeamError,
    RequestError,
)
from modelbeam.job.flags import asked_loopback, short_runner

ENDPOINT = "https://dataflow.googleapis.com"
"""The service, unless ``--dataflow_endpoint`` says otherwise."""

TIMEOUT = 20.0
"""Seconds that one question to the service may take."""

REASON_DELAY = 50.0
"""Seconds after a failure within which the service may still tell why; as Beam has it."""

APPEARANCE_DELAY = 60.0
"""Seconds within which the service may not yet know a job that it has just accepted."""

FIGURES_EVERY = 5.0
"""Seconds between two looks at the counters, which the service itself renews more seldom."""

_STATES: dict[str, JobState] = {
    "UNKNOWN": "starting",
    "STOPPED": "starting",
    "PENDING": "starting",
    "QUEUED": "starting",
    "DONE": "done",
    "DRAINED": "done",
    "UPDATED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
"""All others mean that it runs: cancelling, draining, pausing and cleaning up."""

_EXTRA = (
    "--runner dataflow needs Google's client libraries, which are not installed here. "
    "Run: pip install 'modelbeam[gcp]'"
)

_CREDENTIALS_REMEDY = (
    "Run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to the "
    "path of a service account's key file."
)

_NEEDED = {
    "project": "--project my-project",
    "region": "--region europe-west1",
    "temp_location": "--temp_location gs://my-bucket/tmp",
}
"""Options without which there is no job, each with an example."""

_ON_BUCKET = ("storage.objects.create", "storage.objects.get", "storage.objects.list")
"""What staging does in the bucket of ``--temp_location``, beside looking the bucket up."""

_ROLES = (
    ("dataflow.", "roles/dataflow.admin (Dataflow Admin) on the project"),
    (
        "iam.serviceAccounts.actAs",
        "roles/iam.serviceAccountUser (Service Account User) on the workers' service account",
    ),
    (
        "storage.buckets.get",
        "roles/dataflow.admin on the project, or roles/storage.legacyBucketReader on the bucket",
    ),
    ("storage.", "roles/storage.objectAdmin (Storage Object Admin) on the bucket"),
    ("serviceusage.", "roles/serviceusage.serviceUsageConsumer on the project"),
)
"""The role that brings a permission, by how the permission's name begins."""

_PERMISSION = re.compile(r"\b(?:dataflow|storage|iam|serviceusage|compute)\.[A-Za-z]+\.[A-Za-z]+\b")
_QUOTA = re.compile(r"\bquota\b(?! project)|RESOURCE_EXHAUSTED|\bconcurrent\b.*\blimit\b", re.I)
_QUOTA_REMEDY = (
    "Use fewer or smaller workers (--max_num_workers, --worker_machine_type), another --region, "
    "or ask for more at https://console.cloud.google.com/iam-admin/quotas"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are, and how one is let in.

    Attributes:
        project: the project's id.
        region: such as ``europe-west1``.
        endpoint: the service's address.
        no_auth: whether to go without credentials, for services that stand in for Google's.
        impersonate: the service account to act as, or an empty string.
    """

    project: str
    region: str
    endpoint: str = ENDPOINT
    no_auth: bool = False
    impersonate: str = ""

    @classmethod
    def of(cls, options: Any) -> Place:
        """The place that ``PipelineOptions`` name."""
        cloud = _cloud(options)
        return cls(
            project=cloud.project or "",
            region=cloud.region or "",
            endpoint=(cloud.dataflow_endpoint or "").strip().rstrip("/") or ENDPOINT,
            no_auth=bool(cloud.no_auth),
            impersonate=cloud.impersonate_service_account or "",
        )

    @classmethod
    def from_identity(cls, identity: dict[str, str]) -> Place:
        """Read it from a job's identity."""
        return cls(
            identity["project"],
            identity["region"],
            identity.get("endpoint", ENDPOINT),
            identity.get("no_auth") == "yes",
            identity.get("impersonate", ""),
        )

    def to_identity(self) -> dict[str, str]:
        """Plain strings; what is as usual is left out."""
        made = {"engine": "dataflow", "project": self.project, "region": self.region}
        if self.endpoint != ENDPOINT:
            made["endpoint"] = self.endpoint
        if self.no_auth:
            made["no_auth"] = "yes"
        if self.impersonate:
            made["impersonate"] = self.impersonate
        return made


class Service:
    """The Dataflow API, asked once a question.

    Args:
        place: where the jobs are.

    Raises:
        RequestError: the client libraries or the credentials are missing.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        try:
            from google.api_core.client_options import ClientOptions
            from google.cloud import dataflow
        except ImportError:
            raise RequestError(_EXTRA) from None
        self._api: Any = dataflow
        endpoint, transport = place.endpoint, None
        if "localhost" in endpoint or "sandbox" in endpoint:  # the rule of Beam's own client
            transport = "rest"
        else:
            endpoint = re.sub("^https?://", "", endpoint)
        settings: dict[str, Any] = {
            "credentials": _credentials(place),
            "client_options": ClientOptions(api_endpoint=endpoint),
            "transport": transport,
        }
        self._jobs: Any = dataflow.JobsV1Beta3Client(**settings)
        self._messages: Any = dataflow.MessagesV1Beta3Client(**settings)
        self._metrics: Any = dataflow.MetricsV1Beta3Client(**settings)

    def close(self) -> None:
        """Close its connections."""
        for client in (self._jobs, self._messages, self._metrics):
            with suppress(Exception):
                client.transport.close()

    def check(self) -> None:
        """Ask for the latest job, to learn whether the service answers and lets us in."""
        request = self._request("ListJobsRequest", page_size=1)
        _ask(self._jobs.list_jobs, request)

    def state(self, job_id: str) -> str:
        """The job's state, such as ``RUNNING``; ``UNKNOWN`` if it has none yet."""
        found = _ask(self._jobs.get_job, self._request("GetJobRequest", job_id=job_id))
        name = getattr(found.current_state, "name", str(found.current_state))
        return str(name).removeprefix("JOB_STATE_")

    def counters(self, job_id: str) -> dict[str, int]:
        """Our own counters, summed over the steps.

        The service has each twice: as committed with the bundles, and as tentative, which runs
        ahead while the job runs.
        """
        request = self._request("GetJobMetricsRequest", job_id=job_id)
        largest: dict[tuple[str, ...], int] = {}
        for metric in _ask(self._metrics.get_job_metrics, request).metrics:
            context = dict(metric.name.context)
            tentative = context.pop("tentative", None)
            if metric.name.origin != "user" or context.get("namespace") != "modelbeam":
                continue
            key = (metric.name.name, *sorted(f"{k}={v}" for k, v in context.items()))
            if isinstance(metric.scalar, (int, float)) and tentative in (None, "true"):
                largest[key] = max(largest.get(key, 0), int(metric.scalar))
        sums: dict[str, int] = {}
        for (name, *_), value in largest.items():
            sums[name] = sums.get(name, 0) + value
        return sums

    def errors(self, job_id: str) -> list[str]:
        """The job's messages of the highest importance, the oldest first."""
        importance = self._api.JobMessageImportance.JOB_MESSAGE_ERROR
        request = self._request(
            "ListJobMessagesRequest", job_id=job_id, minimum_importance=importance
        )
        return [message.message_text for message in _ask(self._messages.list_job_messages, request)]

    def cancel(self, job_id: str) -> None:
        """Ask for the job's cancellation."""
        wanted = self._api.Job(requested_state=self._api.JobState.JOB_STATE_CANCELLED)
        _ask(self._jobs.update_job, self._request("UpdateJobRequest", job_id=job_id, job=wanted))

    def _request(self, kind: str, **fields: Any) -> Any:
        place = self._place
        return getattr(self._api, kind)(project_id=place.project, location=place.region, **fields)


class DataflowJob:
    """A job on Dataflow.

    Args:
        service: the API.
        place: where it runs.
        job_id: the id there.
        new: whether it was submitted a moment ago.
    """

    engine = "Dataflow"

    def __init__(self, service: Service, place: Place, job_id: str, *, new: bool) -> None:
        self._service, self._id = service, job_id
        self.name = job_id
        self.identity = {**place.to_identity(), "job": job_id}
        self.link: str | None = (
            f"https://console.cloud.google.com/dataflow/jobs/{place.region}/{job_id}"
            f"?project={place.project}"
        )
        self._appears_until = time.monotonic() + APPEARANCE_DELAY if new else 0.0
        self._counted: dict[str, int] = {}
        self._count_again = 0.0

    def poll(self) -> Status:
        """See :class:`.RemoteJob`."""
        try:
            name = self._service.state(self._id)
        except Exception as error:
            found = _following_error(error, self._id)
            if isinstance(found, JobNotFoundError) and time.monotonic() < self._appears_until:
                return Status("starting")
            raise found from error
        self._appears_until = 0.0
        state = _STATES.get(name, "running")
        if state != "starting" and (state != "running" or time.monotonic() >= self._count_again):
            self._count_again = time.monotonic() + FIGURES_EVERY
            with suppress(Exception):  # figures are an extra: the state is known
                self._counted = self._service.counters(self._id)
        return Status(
            state,
            splits=self._counted.get("splits_done"),
            read=self._counted.get("records_read"),
            failed=self._counted.get("records_failed"),
        )

    def cause(self) -> str:
        """See :class:`.RemoteJob`; the service may take a while to tell."""
        until = time.monotonic() + REASON_DELAY
        while True:
            texts: list[str] = []
            with suppress(Exception):  # that the job failed is known, even if not why
                texts = self._service.errors(self._id)
            if texts or time.monotonic() >= until:
                return reason(texts)
            time.sleep(1)

    def cancel(self) -> None:
        """See :class:`.RemoteJob`."""
        try:
            self._service.cancel(self._id)
        except Exception as error:
            with suppress(Exception):
                if _STATES.get(self._service.state(self._id)) in ("done", "failed", "cancelled"):
                    return  # it was over before
            raise _following_error(error, self._id) from error

    def close(self) -> None:
        """See :class:`.RemoteJob`."""
        self._service.close()


def submitted(result: Any) -> DataflowJob:
    """The job of Beam's result."""
    from modelbeam.beam.private import options_of

    place = Place.of(options_of(result))
    return DataflowJob(Service(place), place, result.job_id(), new=True)


class Dataflow(Engine):
    """Google Dataflow."""

    name = "dataflow"
    title = "Dataflow"
    java_options: Mapping[str, bool] = MappingProxyType({})
    example_url = "gs://my-bucket"
    starts_machines = True

    def matches(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return short_runner(flags) == self.name

    def is_loopback(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return bool(asked_loopback(flags))

    def outlives(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return not self.is_loopback(flags)

    def describe(self, flags: Sequence[str]) -> str:
        """See :class:`.Engine`."""
        place = Place.of(_pipeline_options(flags))
        at = "" if place.endpoint == ENDPOINT else f", at {place.endpoint}"
        return f"Dataflow in {place.region}, project {place.project}{at}"

    def preflight(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`; found out before anything is built or uploaded.

        Raises:
            RequestError: an option, the client libraries, the credentials, a permission, the API
                or the bucket is missing.
            EngineError: the service does not answer, or has no room.
        """
        options = _pipeline_options(flags)
        cloud = _cloud(options)
        missing = [name for name in _NEEDED if not getattr(cloud, name)]
        if missing:
            names = ", ".join(f"--{name}" for name in missing)
            example = " ".join(_NEEDED[name] for name in missing)
            raise RequestError(f"--runner dataflow needs {names} as well; for example: {example}")
        found = re.fullmatch(r"gs://([a-z0-9][-a-z0-9_.]+[a-z0-9])(/.*)?", cloud.temp_location)
        if not found:
            raise RequestError(
                f"--temp_location {cloud.temp_location}: Dataflow stages files in Google Cloud "
                f"Storage; give a path there, such as gs://my-bucket/tmp"
            )
        place = Place.of(options)
        service = Service(place)
        try:
            service.check()
            _check_bucket(found[1], options, place)
            _check_options(options)
        except ModelbeamError:
            raise
        except Exception as error:
            explained = submission_error(error)
            if explained is None:
                raise
            raise explained from error
        finally:
            service.close()
        return []

    def process_flags(self, flags: Sequence[str]) -> list[str]:
        """See :class:`.Engine`; Dataflow starts one a core by itself."""
        return []

    def submit(self, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
        """See :class:`.Engine`; the result knows what it was submitted with."""
        return submitted(run_pipeline(pipeline, flags, submission_error))

    def attach(self, identity: dict[str, str]) -> RemoteJob:
        """See :class:`.Engine`.

        Raises:
            RequestError: the client libraries or the credentials are missing.
        """
        place = Place.from_identity(identity)
        job = DataflowJob(Service(place), place, identity["job"], new=False)
        job.poll()
        return job


def _check_options(options: Any) -> None:
    """Raise if Beam would refuse the options once the pipeline is built."""
    from modelbeam.beam.private import dataflow_problems

    problems = dataflow_problems(options)
    if problems:
        raise RequestError(f"Beam refuses the options: {' '.join(map(_sentence, problems))}")


def _check_bucket(name: str, options: Any, place: Place) -> None:
    """Raise if the bucket is not there, or if staging may not write to it."""
    from google.api_core.exceptions import Forbidden, NotFound

    from modelbeam.beam.private import storage_client

    client = storage_client(options, not place.no_auth)
    try:
        bucket = client.get_bucket(name, timeout=TIMEOUT, retry=None)
    except NotFound:
        raise RequestError(
            f"--temp_location: there is no bucket gs://{name}. Make it with: gcloud storage "
            f"buckets create gs://{name} --project {place.project} --location {place.region}"
        ) from None
    except Forbidden as error:
        raise RequestError(
            f"--temp_location: access to the bucket gs://{name} is denied. {_text(error)} "
            f"{_role_for(_permissions(error) or ['storage.buckets.get'])}"
        ) from None
    granted = set(_ON_BUCKET)
    with suppress(Exception):  # only a better message depends on it
        granted = set(bucket.test_iam_permissions(list(_ON_BUCKET), timeout=TIMEOUT))
    denied = [permission for permission in _ON_BUCKET if permission not in granted]
    if denied:
        raise RequestError(
            f"--temp_location: in the bucket gs://{name} you lack {', '.join(denied)}. "
            f"{_role_for(denied)}"
        )


def submission_error(error: BaseException) -> ModelbeamError | None:
    """What an exception of Google's means; ``None`` if it is not Google's."""
    one: BaseException | None = error
    while one is not None:
        explained = _explain(one)
        if explained is not None:
            return explained
        one = one.__cause__ or one.__context__
    return None


def _explain(error: BaseException) -> ModelbeamError | None:
    if isinstance(error, ImportError) and "apache_beam[gcp]" in str(error):
        return RequestError(_EXTRA)
    if type(error).__name__ == "DataflowJobAlreadyExistsError":
        return RequestError(f"{error} (--job_name)")
    try:
        import requests
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import (
            DefaultCredentialsError,
            GoogleAuthError,
            RefreshError,
            TransportError,
        )
    except ImportError:
        return None
    if isinstance(error, DefaultCredentialsError):
        return RequestError(f"There are no usable Google Cloud credentials. {_CREDENTIALS_REMEDY}")
    if isinstance(error, (TransportError, requests.ConnectionError, requests.Timeout)):
        return EngineUnreachableError(f"Google Cloud does not answer: {_short(error)}")
    if isinstance(error, RefreshError):
        return RequestError(
            f"Google Cloud does not accept the credentials: {_short(error)} Are they expired, or "
            f"is the key deleted? {_CREDENTIALS_REMEDY}"
        )
    if isinstance(error, GoogleAuthError):
        return RequestError(
            f"The credentials cannot be used: {_sentence(str(error))} {_CREDENTIALS_REMEDY}"
        )
    if isinstance(error, GoogleAPICallError) and error.code is not None:
        return _explain_answer(error)
    return None


def _explain_answer(error: Any) -> ModelbeamError:
    """What an answer with an error's status means."""
    code, text = int(error.code), _text(error)
    if code == 401:
        return RequestError(
            f"Google Cloud does not accept the credentials (401): {text} {_CREDENTIALS_REMEDY}"
        )
    if code == 429 or (code in (400, 403) and _QUOTA.search(f"{text} {error.reason or ''}")):
        return EngineError(
            f"A quota of the project is used up ({code}): {text}{_quota(error)} {_QUOTA_REMEDY}"
        )
    if code == 403:
        return RequestError(_denied(error, text))
    if code == 404:
        return RequestError(
            f"Google Cloud finds no such thing (404): {text} Check --project (the project's id, "
            f"not its name) and --region (gcloud compute regions list)."
        )
    if code in (408, 502, 503, 504):
        return EngineUnreachableError(f"Google Cloud does not answer ({code}): {text}")
    if code >= 500:
        return EngineError(
            f"Google Cloud has an error of its own ({code}): {text} Try again in a few minutes; "
            f"https://status.cloud.google.com tells of outages."
        )
    return RequestError(f"Dataflow refuses the job ({code}): {text}")


def _denied(error: Any, text: str) -> str:
    """The message for a 403, with what to do."""
    links = _links(error)
    if error.reason == "SERVICE_DISABLED" or "has not been used in project" in text:
        if "quota project" in text:  # credentials of a person, not told whose API they use
            return (
                f"The credentials name no project whose API they use (403): {text} Run: gcloud "
                f"auth application-default set-quota-project PROJECT"
            )
        api = str((error.metadata or {}).get("service") or "dataflow.googleapis.com")
        where = f" at {links[0]}" if links else ""
        return (
            f"The API {api} is not enabled in the project (403). Enable it{where}, or with: gcloud "
            f"services enable {api} --project PROJECT. Then wait a minute and run again."
        )
    if error.reason == "BILLING_DISABLED" or "billing" in text.lower():
        where = links[0] if links else "https://console.cloud.google.com/billing"
        return f"The project has no billing account (403): {text} See {where}"
    permissions = _permissions(error)
    where = f" See {links[0]}" if links and links[0] not in text else ""
    return f"Google Cloud denies access (403): {text} {_role_for(permissions)}{where}"


def _permissions(error: Any) -> list[str]:
    """The permissions that an error's text names."""
    found = _PERMISSION.findall(f"{_text(error)} {(error.metadata or {}).get('permission', '')}")
    return [name for name in dict.fromkeys(found) if ".googleapis." not in name]


def _role_for(permissions: list[str]) -> str:
    roles = [
        next((role for start, role in _ROLES if permission.startswith(start)), "")
        for permission in permissions or ["dataflow."]
    ]
    return f"Ask for the role {', and '.join(dict.fromkeys(filter(None, roles)))}."


def _quota(error: Any) -> str:
    """Which quota it is, as far as the error's details say."""
    metadata = dict(error.metadata or {})
    names = [metadata[key] for key in ("quota_metric", "quota_limit") if metadata.get(key)]
    for violation in _details(error, "violations"):
        names.append(_field(violation, "description") or _field(violation, "subject"))
    new = [name for name in dict.fromkeys(names) if name and name not in _text(error)]
    return f" ({', '.join(new)})" if new else ""


def _links(error: Any) -> list[str]:
    """The pages that an error refers to."""
    links = [_field(link, "url") for link in _details(error, "links")]
    activation = (error.metadata or {}).get("activationUrl")
    texts = re.findall(r"https://console\.[^\s'\"<>]+", error.message)
    return [url for url in [activation, *links, *texts] if url]


def _details(error: Any, name: str) -> Iterator[Any]:
    """The entries of a list in the error's details: dicts over REST, messages over gRPC."""
    for detail in error.details:
        yield from (detail.get(name, ()) if isinstance(detail, dict) else getattr(detail, name, ()))


def _field(entry: Any, name: str) -> str:
    return str(entry.get(name, "") if isinstance(entry, dict) else getattr(entry, name, ""))


def _text(error: Any) -> str:
    """The service's own words as a sentence: without the request and the ids in its logs."""
    text = re.sub(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ", "", str(error.message).strip())
    return _sentence(re.sub(r"\([0-9a-f]{12,16}\): ", "", text))


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _short(error: BaseException) -> str:
    """The innermost reason that a transport gives, such as ``Connection refused``."""
    text = _sentence(str(error.args[0] if error.args else error))
    refused = re.search(r"(Connection refused|Name or service not known|timed out)[^)'\"]*", text)
    host = re.search(r"host='([^']+)', port=(\d+)", text)
    where = f"{host[1]}:{host[2]}, " if host else ""
    return f"{where}{refused[1]}." if refused else text


def reason(texts: Iterable[str]) -> str:
    """Error messages of a job, what tells most first: a worker's exception, then a quota."""

    def rank(text: str) -> int:
        if "Traceback" in text:
            return 0
        if _QUOTA.search(text):
            return 1
        return 3 if "work item" in text or text.startswith("Workflow failed") else 2

    ordered = sorted(dict.fromkeys(texts), key=rank)
    if ordered and rank(ordered[0]) == 1:
        ordered[0] = f"{_sentence(ordered[0])} {_QUOTA_REMEDY}"
    return "\n".join(ordered)


def _following_error(error: Exception, job_id: str) -> ModelbeamError:
    """What an exception out of a question about a job means."""
    if getattr(error, "code", None) == 404:
        return JobNotFoundError(f"Dataflow does not know the job {job_id}: {_text(error)}")
    if getattr(error, "code", None) == 429:  # of requests, not of machines
        return EngineUnreachableError(f"Dataflow wants fewer questions (429): {_text(error)}")
    explained = submission_error(error)
    if explained is None:
        return EngineUnreachableError(f"Dataflow does not answer: {error}")
    if type(explained) is EngineError:  # the service's own trouble passes
        return EngineUnreachableError(str(explained))
    return explained


def _ask(call: Callable[..., Any], request: Any) -> Any:
    return call(request=request, timeout=TIMEOUT, retry=None)


def _credentials(place: Place) -> Any:
    """Google's application default credentials, for the service account to act as if any.

    Raises:
        RequestError: there are none.
    """
    import google.auth
    import google.auth.credentials
    import google.auth.impersonated_credentials
    from google.auth import exceptions

    auth: Any = google.auth  # half typed
    if place.no_auth:
        return auth.credentials.AnonymousCredentials()
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    try:
        found, _ = auth.default(scopes=scopes)
    except exceptions.DefaultCredentialsError as error:
        raise RequestError(
            f"There are no usable Google Cloud credentials. {_CREDENTIALS_REMEDY} "
            f"(Google's library says: {' '.join(str(error).split())})"
        ) from None
    if place.impersonate:
        *delegates, target = place.impersonate.split(",")
        found = auth.impersonated_credentials.Credentials(
            source_credentials=found,
            target_principal=target,
            delegates=delegates,
            target_scopes=scopes,
        )
    return found


def _pipeline_options(flags: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions(list(flags))


def _cloud(options: Any) -> Any:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    return options.view_as(GoogleCloudOptions)
