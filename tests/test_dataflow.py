"""Dataflow up to the edge of Google's service, which cannot be reached here.

What answers is a server of our own (``dataflow_service.py``: what it is and what it is not).
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient")
pytest.importorskip("gcp_storage_emulator")

from apache_beam.options.pipeline_options import PipelineOptions
from dataflow_service import (
    BUCKET,
    PROJECT,
    REGION,
    StandIn,
    error_info,
    google_error,
)
from google.api_core import exceptions
from google.rpc import error_details_pb2

from modelbeam.engines import dataflow
from modelbeam.errors import (
    EngineError,
    EngineUnreachableError,
    JobNotFoundError,
    RequestError,
)

LIST = r"GET /v1b3/.*/jobs"
CREATE = r"POST /v1b3/.*/jobs"
GET = r"GET /v1b3/.*/jobs/[^/]+"

API_PAGE = "https://console.developers.google.com/apis/api/dataflow.googleapis.com/overview"
DISABLED = google_error(
    403,
    "PERMISSION_DENIED",
    "Dataflow API has not been used in project 123 before or it is disabled. Enable it by visiting "
    f"{API_PAGE}?project=123 then retry.",
    {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{"description": "API activation", "url": f"{API_PAGE}?project=123"}],
    },
    error_info("SERVICE_DISABLED", service="dataflow.googleapis.com", consumer="projects/123"),
)
DENIED = google_error(
    403,
    "PERMISSION_DENIED",
    "(68c1063df1baf985): Could not create workflow; user does not have write access to project: "
    "stand-in-project Causes: (68c1063df1baf5a0): Permission 'dataflow.jobs.create' denied on "
    "project: 'stand-in-project'",
)
QUOTA = google_error(
    429,
    "RESOURCE_EXHAUSTED",
    "(68c1063df1baf985): The workflow could not be created, since it was sent to an overloaded "
    "resource location.",
    error_info("RATE_LIMIT_EXCEEDED", quota_metric="dataflow.googleapis.com/concurrent_jobs"),
)


@pytest.fixture
def as_client(monkeypatch):
    """Make this process a client of a stand-in: its environment, and no credentials kept."""

    def apply(service: StandIn) -> None:
        from apache_beam.internal.gcp import auth

        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
        monkeypatch.setattr(auth._Credentials, "_credentials", None)

    return apply


@pytest.fixture
def service(tmp_path, as_client):
    with StandIn(tmp_path) as made:
        as_client(made)
        yield made


def submitted(service: StandIn) -> dataflow.DataflowJob:
    """A job in the stand-in, and what follows it."""
    _, answer = service._create({"name": "a-job"})
    options = PipelineOptions(service.flags)
    return dataflow.follow(SimpleNamespace(_options=options, job_id=lambda: answer["id"]), [])


class TestPreflight:
    def test_what_can_be_submitted_passes_without_a_word(self, service):
        assert dataflow.preflight(service.flags) == ["--no_save_main_session"]
        assert dataflow.preflight([*service.flags, "--save_main_session"]) == []

    def test_every_missing_option_is_named_with_an_example(self):
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(["--runner=dataflow", "--region=us-central1"])
        assert str(raised.value) == (
            "--runner dataflow needs --project, --temp_location as well; for example: "
            "--project my-project --temp_location gs://my-bucket/tmp"
        )

    def test_a_temp_location_that_is_not_in_cloud_storage(self, service):
        with pytest.raises(RequestError, match="--temp_location /tmp/x: Dataflow stages files"):
            dataflow.preflight([*service.flags, "--temp_location=/tmp/x"])

    def test_no_credentials(self, service, monkeypatch, tmp_path):
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))  # where gcloud would have put some
        began = time.monotonic()
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(service.flags)
        assert "no usable Google Cloud credentials" in str(raised.value)
        assert "gcloud auth application-default login" in str(raised.value)
        assert "GOOGLE_APPLICATION_CREDENTIALS" in str(raised.value)
        assert time.monotonic() - began < 5  # Beam by itself tries for half a minute

    def test_a_key_file_that_is_not_there(self, service, monkeypatch):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
        with pytest.raises(RequestError, match=r"/no/such/key\.json was not found"):
            dataflow.preflight(service.flags)

    def test_a_key_that_google_no_longer_accepts(self, service, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        other = StandIn(tmp_path / "other")
        other._server.server_close()
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(other.key_file))
        with pytest.raises(RequestError, match=r"does not accept the credentials \(401\)"):
            dataflow.preflight(service.flags)

    def test_a_token_is_refused(self, service):
        service.accepts_key = False
        with pytest.raises(RequestError, match=r"does not accept the credentials: .*Invalid JWT"):
            dataflow.preflight(service.flags)

    def test_the_api_is_not_enabled(self, service):
        service.refuse(LIST, DISABLED)
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(service.flags)
        assert f"Enable it at {API_PAGE}?project=123" in str(raised.value)
        assert "gcloud services enable dataflow.googleapis.com" in str(raised.value)

    def test_a_permission_is_missing(self, service):
        service.refuse(LIST, DENIED)
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(service.flags)
        assert "Permission 'dataflow.jobs.create' denied" in str(raised.value)
        assert "roles/dataflow.admin" in str(raised.value)
        assert "68c1063df1baf985" not in str(raised.value)

    def test_no_such_project_or_region(self, service):
        with pytest.raises(RequestError, match="Check --project"):
            dataflow.preflight([*service.flags, "--region=europe-west99"])

    def test_no_such_bucket(self, service):
        with pytest.raises(RequestError) as raised:
            dataflow.preflight([*service.flags, "--temp_location=gs://no-such-bucket/tmp"])
        assert "there is no bucket gs://no-such-bucket" in str(raised.value)
        assert (
            f"gcloud storage buckets create gs://no-such-bucket --project {PROJECT} "
            f"--location {REGION}" in str(raised.value)
        )

    def test_a_bucket_of_somebody_else(self, service):
        said = (
            f"tester does not have storage.buckets.get access to the Google Cloud Storage bucket. "
            f"Permission 'storage.buckets.get' denied on resource {BUCKET}."
        )
        service.refuse(f"GET /storage/v1/b/{BUCKET}", google_error(403, "PERMISSION_DENIED", said))
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(service.flags)
        assert f"access to the bucket gs://{BUCKET} is denied" in str(raised.value)
        assert "roles/storage.legacyBucketReader" in str(raised.value)

    def test_a_bucket_that_may_only_be_read(self, service):
        answer = 200, {"permissions": ["storage.objects.get", "storage.objects.list"]}
        service.refuse(f"GET /storage/v1/b/{BUCKET}/iam/testPermissions", answer)
        with pytest.raises(RequestError) as raised:
            dataflow.preflight(service.flags)
        assert "you lack storage.objects.create" in str(raised.value)
        assert "roles/storage.objectAdmin" in str(raised.value)

    def test_what_beam_itself_refuses(self, service):
        image = ["--sdk_container_image=a:1", "--worker_harness_container_image=b:1"]
        with pytest.raises(RequestError, match=r"Beam refuses the options: .*container_image"):
            dataflow.preflight([*service.flags, *image])

    def test_an_endpoint_where_nobody_listens(self, service):
        with pytest.raises(EngineUnreachableError, match="localhost:1, Connection refused"):
            dataflow.preflight([*service.flags, "--dataflow_endpoint=http://localhost:1"])

    def test_without_the_extra(self, service, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "google.cloud.dataflow", None)
        monkeypatch.delattr("google.cloud.dataflow")
        with pytest.raises(RequestError, match=r"pip install 'modelbeam\[gcp\]'"):
            dataflow.preflight(service.flags)


class TestSubmissionError:
    def test_quota_over_rest(self, service):
        service.refuse(LIST, QUOTA)
        with pytest.raises(EngineError) as raised:
            dataflow.preflight(service.flags)
        assert "A quota of the project is used up (429)" in str(raised.value)
        assert "dataflow.googleapis.com/concurrent_jobs" in str(raised.value)
        for remedy in ("--max_num_workers", "--region", "console.cloud.google.com/iam-admin/quota"):
            assert remedy in str(raised.value)

    def test_quota_over_grpc(self):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject="project:1", description="CPUS in europe-west1, limit 8"
        )
        error = exceptions.ResourceExhausted(
            "Resource exhausted.", details=[error_details_pb2.QuotaFailure(violations=[violation])]
        )
        assert "(CPUS in europe-west1, limit 8)" in str(dataflow.submission_error([], error))

    def test_a_quota_of_machines_comes_as_403(self):
        error = exceptions.Forbidden("Quota 'CPUS' exceeded. Limit: 24.0 in region us-central1.")
        found = dataflow.submission_error([], error)
        assert isinstance(found, EngineError)
        assert "Quota 'CPUS' exceeded. Limit: 24.0" in str(found)

    def test_an_api_that_is_not_enabled_over_grpc(self):
        info = error_details_pb2.ErrorInfo(
            reason="SERVICE_DISABLED", metadata={"service": "dataflow.googleapis.com"}
        )
        page = error_details_pb2.Help.Link(url=f"{API_PAGE}?project=9")
        error = exceptions.PermissionDenied(
            "Dataflow API has not been used in project 9 before or it is disabled.",
            details=[error_details_pb2.Help(links=[page]), info],
            error_info=info,
        )
        found = str(dataflow.submission_error([], error))
        assert f"Enable it at {API_PAGE}?project=9" in found

    def test_credentials_of_a_person_without_a_quota_project(self):
        error = exceptions.Forbidden(
            "Your application is authenticating by using local Application Default Credentials. "
            "The dataflow.googleapis.com API requires a quota project, which is not set.",
            error_info={"reason": "SERVICE_DISABLED"},
        )
        assert "set-quota-project" in str(dataflow.submission_error([], error))

    @pytest.mark.parametrize(
        ("permission", "role"),
        [
            ("dataflow.jobs.create", "roles/dataflow.admin"),
            ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
            ("storage.objects.create", "roles/storage.objectAdmin"),
            ("serviceusage.services.use", "roles/serviceusage.serviceUsageConsumer"),
        ],
    )
    def test_each_permission_has_a_role(self, permission, role):
        error = exceptions.Forbidden(f"Permission '{permission}' denied on storage.googleapis.com")
        assert role in str(dataflow.submission_error([], error))

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (exceptions.ServiceUnavailable("no"), EngineUnreachableError, "does not answer (503)"),
            (exceptions.InternalServerError("no"), EngineError, "status.cloud.google.com"),
            (exceptions.BadRequest("no such machine type"), RequestError, "no such machine type"),
        ],
    )
    def test_other_answers(self, error, kind, said):
        found = dataflow.submission_error([], error)
        assert type(found) is kind
        assert said in str(found)

    def test_what_google_said_is_found_below_what_beam_says(self):
        error = OSError("Could not upload to GCS path gs://x: ...")
        error.__context__ = exceptions.Forbidden("Permission 'storage.objects.create' denied.")
        assert "storage.objectAdmin" in str(dataflow.submission_error([], error))

    def test_what_is_not_googles_is_left_alone(self):
        found = dataflow.submission_error([], RuntimeError("The file x.whl cannot be found."))
        assert type(found) is EngineError
        assert str(found) == (
            "The job could not be submitted to Dataflow: The file x.whl cannot be found."
        )


class TestJob:
    def test_its_page_and_what_finds_it_again(self, service):
        job = submitted(service)
        name = service.job.id
        assert job.link == (
            f"https://console.cloud.google.com/dataflow/jobs/{REGION}/{name}?project={PROJECT}"
        )
        assert job.identity == {
            "engine": "dataflow",
            "project": PROJECT,
            "region": REGION,
            "endpoint": service.url,
            "job": name,
        }

    def test_it_is_followed_to_its_end_with_figures(self, tmp_path, as_client):
        figures = (
            {"splits_done": 1, "records_read": 10, "records_failed": 0},
            {"splits_done": 3, "records_read": 30, "records_failed": 2},
        )
        with StandIn(tmp_path, metrics=figures) as service:
            as_client(service)
            job = submitted(service)
            seen = [job.poll()]
            while not seen[-1].over:
                seen.append(job.poll())
            job.close()
        assert [status.state for status in seen] == ["starting", "running", "running", "done"]
        assert [status.read for status in seen] == [None, 10, 30, 30]
        assert [status.splits for status in seen] == [None, 1, 3, 3]
        assert [status.failed for status in seen] == [None, 0, 2, 2]

    @pytest.mark.parametrize(
        ("state", "means"),
        [
            ("UNKNOWN", "starting"),
            ("QUEUED", "starting"),
            ("DRAINING", "running"),
            ("CANCELLING", "running"),
            ("RESOURCE_CLEANING_UP", "running"),
            ("PAUSED", "running"),
            ("UPDATED", "done"),
            ("FAILED", "failed"),
            ("CANCELLED", "cancelled"),
        ],
    )
    def test_states(self, service, state, means, monkeypatch):
        job = submitted(service)
        monkeypatch.setattr(service.job, "step", lambda: None)
        service.job.state = state
        assert job.poll().state == means

    def test_it_is_found_again_without_the_pipeline(self, service):
        identity = submitted(service).identity
        service.job.state = "RUNNING"
        again = dataflow.attach(identity)
        assert again.poll().state == "running"
        assert again.identity == identity

    def test_one_that_is_not_there(self, service):
        identity = {**submitted(service).identity, "job": "2020-01-01-nothing"}
        with pytest.raises(JobNotFoundError, match="does not know the job 2020-01-01-nothing"):
            dataflow.attach(identity)

    def test_one_that_is_not_there_yet(self, service):
        job = submitted(service)
        kept = service.jobs.copy()
        service.jobs.clear()
        assert job.poll().state == "starting"
        service.jobs.update(kept)
        job.poll()
        service.jobs.clear()
        with pytest.raises(JobNotFoundError):
            job.poll()

    @pytest.mark.parametrize(
        ("code", "status"), [(503, "UNAVAILABLE"), (429, "RESOURCE_EXHAUSTED"), (500, "INTERNAL")]
    )
    def test_trouble_that_passes(self, service, code, status):
        job = submitted(service)
        service.refuse(GET, google_error(code, status, "trouble"))
        with pytest.raises(EngineUnreachableError, match="trouble"):
            job.poll()
        service.refusals.clear()
        assert job.poll().state == "starting"

    def test_trouble_that_stays(self, service):
        job = submitted(service)
        service.refuse(GET, DENIED)
        with pytest.raises(RequestError, match="denies access"):
            job.poll()

    def test_figures_may_be_refused(self, service):
        job = submitted(service)
        service.job.state = "RUNNING"
        service.refuse(GET + "/metrics", DENIED)
        assert job.poll() == dataflow.Status("running")

    def test_it_is_cancelled(self, service):
        job = submitted(service)
        job.poll()
        job.cancel()
        assert [job.poll().state, job.poll().state] == ["cancelled", "cancelled"]

    def test_cancelling_one_that_is_over_is_no_error(self, service):
        job = submitted(service)
        service.job.state = "DONE"
        said = "(1234567890abcdef): Job is already in a terminal state."
        service.refuse(r"PUT /v1b3/.*", google_error(400, "FAILED_PRECONDITION", said))
        job.cancel()
        service.job.state = "RUNNING"
        with pytest.raises(RequestError, match="already in a terminal state"):
            job.cancel()

    def test_the_exception_on_the_worker_comes_before_what_the_service_makes_of_it(self, service):
        job = submitted(service)
        trace = "Traceback (most recent call last):\n  File …\nValueError: no weights"
        service.job.messages = [
            "Workflow failed. Causes: S02 failed., a work item has failed 4 times.",
            trace,
            trace,
        ]
        assert job.cause() == f"{trace}\n{service.job.messages[0]}"

    def test_a_quota_that_stops_the_workers(self, service):
        job = submitted(service)
        service.job.messages = [
            "Workflow failed.",
            "Startup of the worker pool in zone europe-west1-b failed to bring up any of the "
            "desired 3 workers. QUOTA_EXCEEDED: Instance 'x' creation failed: Quota 'CPUS' "
            "exceeded.  Limit: 8.0 in region europe-west1.",
        ]
        first = job.cause().splitlines()[0]
        assert "Quota 'CPUS' exceeded. Limit: 8.0" in first
        assert "--max_num_workers" in first

    def test_the_reason_may_come_late_or_not_at_all(self, service, monkeypatch):
        job = submitted(service)
        monkeypatch.setattr(dataflow, "REASON_DELAY", 0.0)
        assert job.cause() == ""


def test_without_the_network_the_answer_does_not_take_minutes(service, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://localhost:1")
    began = time.monotonic()
    with pytest.raises(EngineUnreachableError):
        dataflow.preflight(service.flags)
    assert time.monotonic() - began < 10
