"""Dataflow up to the edge of Google's service, which cannot be reached here.

What answers is a server of our own (``dataflow_service.py``: what it is and what it is not).
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient")
pytest.importorskip("gcp_storage_emulator")

from apache_beam.options.pipeline_options import PipelineOptions
from commands import MODELS, environment
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
from modelbeam.errors import EngineError, EngineUnreachableError, JobNotFoundError, RequestError

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


ENGINE = dataflow.Dataflow()


def submitted(service: StandIn) -> dataflow.DataflowJob:
    """A job in the stand-in, and what follows it."""
    _, answer = service._create({"name": "a-job"})
    options = PipelineOptions(service.flags)
    return dataflow.submitted(SimpleNamespace(_options=options, job_id=lambda: answer["id"]))


class TestPreflight:
    def test_what_can_be_submitted_passes_without_a_word(self, service):
        assert ENGINE.preflight(service.flags) == []

    def test_the_engine_in_a_few_words(self, service):
        assert ENGINE.describe(service.flags[:-1]) == f"Dataflow in {REGION}, project {PROJECT}"
        assert ENGINE.describe(service.flags).endswith(f", at {service.url}")

    def test_every_missing_option_is_named_with_an_example(self):
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight(["--runner=dataflow", "--region=us-central1"])
        assert str(raised.value) == (
            "--runner dataflow needs --project, --temp_location as well; for example: "
            "--project my-project --temp_location gs://my-bucket/tmp"
        )

    def test_a_temp_location_that_is_not_in_cloud_storage(self, service):
        with pytest.raises(RequestError, match="--temp_location /tmp/x: Dataflow stages files"):
            ENGINE.preflight([*service.flags, "--temp_location=/tmp/x"])

    def test_no_credentials(self, service, monkeypatch, tmp_path):
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))  # where gcloud would have put some
        began = time.monotonic()
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight(service.flags)
        assert "no usable Google Cloud credentials" in str(raised.value)
        assert "gcloud auth application-default login" in str(raised.value)
        assert "GOOGLE_APPLICATION_CREDENTIALS" in str(raised.value)
        assert time.monotonic() - began < 5  # Beam by itself tries for half a minute

    def test_a_key_file_that_is_not_there(self, service, monkeypatch):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
        with pytest.raises(RequestError, match=r"/no/such/key\.json was not found"):
            ENGINE.preflight(service.flags)

    def test_a_key_that_google_no_longer_accepts(self, service, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        other = StandIn(tmp_path / "other")
        other._server.server_close()
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(other.key_file))
        with pytest.raises(RequestError, match=r"does not accept the credentials \(401\)"):
            ENGINE.preflight(service.flags)

    def test_a_token_is_refused(self, service):
        service.accepts_key = False
        with pytest.raises(RequestError, match=r"does not accept the credentials: .*Invalid JWT"):
            ENGINE.preflight(service.flags)

    def test_the_api_is_not_enabled(self, service):
        service.refuse(LIST, DISABLED)
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight(service.flags)
        assert f"Enable it at {API_PAGE}?project=123" in str(raised.value)
        assert "gcloud services enable dataflow.googleapis.com" in str(raised.value)

    def test_a_permission_is_missing(self, service):
        service.refuse(LIST, DENIED)
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight(service.flags)
        assert "Permission 'dataflow.jobs.create' denied" in str(raised.value)
        assert "roles/dataflow.admin" in str(raised.value)
        assert "68c1063df1baf985" not in str(raised.value)

    def test_no_such_project_or_region(self, service):
        with pytest.raises(RequestError, match="Check --project"):
            ENGINE.preflight([*service.flags, "--region=europe-west99"])

    def test_no_such_bucket(self, service):
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight([*service.flags, "--temp_location=gs://no-such-bucket/tmp"])
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
            ENGINE.preflight(service.flags)
        assert f"access to the bucket gs://{BUCKET} is denied" in str(raised.value)
        assert "roles/storage.legacyBucketReader" in str(raised.value)

    def test_a_bucket_that_may_only_be_read(self, service):
        answer = 200, {"permissions": ["storage.objects.get", "storage.objects.list"]}
        service.refuse(f"GET /storage/v1/b/{BUCKET}/iam/testPermissions", answer)
        with pytest.raises(RequestError) as raised:
            ENGINE.preflight(service.flags)
        assert "you lack storage.objects.create" in str(raised.value)
        assert "roles/storage.objectAdmin" in str(raised.value)

    def test_what_beam_itself_refuses(self, service):
        image = ["--sdk_container_image=a:1", "--worker_harness_container_image=b:1"]
        with pytest.raises(RequestError, match=r"Beam refuses the options: .*container_image"):
            ENGINE.preflight([*service.flags, *image])

    def test_an_endpoint_where_nobody_listens(self, service):
        with pytest.raises(EngineUnreachableError, match="localhost:1, Connection refused"):
            ENGINE.preflight([*service.flags, "--dataflow_endpoint=http://localhost:1"])

    def test_without_the_extra(self, service, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "google.cloud.dataflow", None)
        monkeypatch.delattr("google.cloud.dataflow")
        with pytest.raises(RequestError, match=r"pip install 'modelbeam\[gcp\]'"):
            ENGINE.preflight(service.flags)


class TestSubmissionError:
    def test_quota_over_rest(self, service):
        service.refuse(LIST, QUOTA)
        with pytest.raises(EngineError) as raised:
            ENGINE.preflight(service.flags)
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
        assert "(CPUS in europe-west1, limit 8)" in str(dataflow.submission_error(error))

    def test_a_quota_of_machines_comes_as_403(self):
        error = exceptions.Forbidden("Quota 'CPUS' exceeded. Limit: 24.0 in region us-central1.")
        found = dataflow.submission_error(error)
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
        found = str(dataflow.submission_error(error))
        assert f"Enable it at {API_PAGE}?project=9" in found

    def test_credentials_of_a_person_without_a_quota_project(self):
        error = exceptions.Forbidden(
            "Your application is authenticating by using local Application Default Credentials. "
            "The dataflow.googleapis.com API requires a quota project, which is not set.",
            error_info={"reason": "SERVICE_DISABLED"},
        )
        assert "set-quota-project" in str(dataflow.submission_error(error))

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
        assert role in str(dataflow.submission_error(error))

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (exceptions.ServiceUnavailable("no"), EngineUnreachableError, "does not answer (503)"),
            (exceptions.InternalServerError("no"), EngineError, "status.cloud.google.com"),
            (exceptions.BadRequest("no such machine type"), RequestError, "no such machine type"),
        ],
    )
    def test_other_answers(self, error, kind, said):
        found = dataflow.submission_error(error)
        assert type(found) is kind
        assert said in str(found)

    def test_what_google_said_is_found_below_what_beam_says(self):
        error = OSError("Could not upload to GCS path gs://x: ...")
        error.__context__ = exceptions.Forbidden("Permission 'storage.objects.create' denied.")
        assert "storage.objectAdmin" in str(dataflow.submission_error(error))

    def test_what_is_not_googles_is_left_alone(self):
        assert dataflow.submission_error(RuntimeError("x.whl cannot be found")) is None


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

    def test_it_is_followed_to_its_end_with_figures(self, tmp_path, as_client, monkeypatch):
        monkeypatch.setattr(dataflow, "FIGURES_EVERY", 0.0)
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
        again = ENGINE.attach(identity)
        assert again.poll().state == "running"
        assert again.identity == identity

    def test_one_that_is_not_there(self, service):
        identity = {**submitted(service).identity, "job": "2020-01-01-nothing"}
        with pytest.raises(JobNotFoundError, match="does not know the job 2020-01-01-nothing"):
            ENGINE.attach(identity)

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

    def test_figures_are_not_asked_for_all_the_time(self, tmp_path, as_client):
        with StandIn(tmp_path, metrics=({"records_read": 1}, {"records_read": 2})) as service:
            as_client(service)
            job = submitted(service)
            seen = [job.poll() for _ in range(4)]
        assert [status.read for status in seen] == [None, 1, 1, 2]
        assert sum(request.endswith("/metrics") for request in service.requests) == 2

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
        ENGINE.preflight(service.flags)
    assert time.monotonic() - began < 10


class Command:
    """``modelbeam predict`` as a process, whose client libraries take the stand-in for Google."""

    def __init__(self, service: StandIn, *, over_http: bool = False) -> None:
        self._service = service
        self._flags = service.flags if over_http else service.flags[:-1]
        service.put("in/a.jsonl", b"".join(b'{"x": %d}\n' % x for x in range(300)))
        service.put("in/b.jsonl", b'{"x": 300}\nno JSON\n')

    def arguments(self, *flags: str) -> list[str]:
        """What is run."""
        return [
            *(sys.executable, "-m", "modelbeam", "predict"),
            *("--model", "small_models:Doubler"),
            *("--input", f"gs://{BUCKET}/in/*.jsonl", "--output", f"gs://{BUCKET}/out/"),
            *self._flags,
            *("--worker_machine_type", "n2-standard-4", "--max_num_workers", "3"),
            *flags,
        ]

    def start(self, *flags: str, **env: str) -> subprocess.Popen[str]:
        """Run it."""
        return subprocess.Popen(
            self.arguments(*flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**{**self._service.environment, **env}),
        )

    def __call__(self, *flags: str, **env: str) -> SimpleNamespace:
        """Run it to its end; stderr's lines are one text each, without line breaks."""
        process = self.start(*flags, **env)
        stdout, stderr = process.communicate(timeout=120)
        return SimpleNamespace(code=process.returncode, stdout=stdout, stderr=stderr)

    def predictions(self) -> list[int]:
        """What is in the bucket."""
        names = self._service.names("out/predictions-")
        lines = [line for name in names for line in self._service.get(name).splitlines()]
        return [json.loads(line)["y"] for line in lines]


IMAGE = "europe-west1-docker.pkg.dev/p/workers/doubler:1"


class TestCommand:
    """The whole command."""

    def test_from_the_submission_to_the_output(self, tmp_path):
        """Over gRPC, as with Google, and with the packages staged."""
        with StandIn(tmp_path, executes=True) as service:
            run = Command(service)
            done = run("--requirements_cache=skip", "--service_account_email=w@p.com", "--json")
            job = service.job
            assert done.code == 0, done.stderr
            assert (
                f"its page: https://console.cloud.google.com/dataflow/jobs/{REGION}/{job.id}"
                f"?project={PROJECT}" in done.stderr
            )
            assert job.state == "DONE"
            assert run.predictions() == [2 * x for x in range(301)]
            assert service.get("out/_SUCCESS") == b""
            assert json.loads(done.stdout)["counts"] == {
                "read": 302, "predicted": 301, "failed": 1}  # fmt: skip
            self.check_job(job)
            self.check_staged(job)
            assert any(request.startswith("POST /token") for request in service.requests)

    def check_job(self, job):
        """What was submitted, as the service got it."""
        assert job.body["name"].startswith("modelbeam-doubler-")
        assert job.body["type"] == "JOB_TYPE_BATCH"
        assert job.pool["kind"] == "harness"
        assert job.pool["machineType"] == "n2-standard-4"
        assert job.pool["autoscalingSettings"]["maxNumWorkers"] == 3
        minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
        image = job.pool["workerHarnessContainerImage"]
        assert image.startswith(f"gcr.io/cloud-dataflow/v1beta3/beam_python{minor}_sdk:")
        assert job.environment["serviceAccountEmail"] == "w@p.com"
        assert job.environment["tempStoragePrefix"].startswith(
            f"storage.googleapis.com/{BUCKET}/tmp/"
        )
        options = job.options
        assert (options["project"], options["region"]) == (PROJECT, REGION)
        assert options["machine_type"] == "n2-standard-4"
        assert options["save_main_session"] is False

    def check_staged(self, job):
        """What the workers will install, and the pipeline that they will run."""
        staged = job.staged()
        wheels = {name.split("-")[0]: data for name, data in staged.items() if ".whl" in name}
        assert wheels.keys() == {"modelbeam", "modelbeam_loose_small_models"}
        model = zipfile.ZipFile(BytesIO(wheels["modelbeam_loose_small_models"]))
        assert model.read("small_models.py") == (MODELS / "small_models.py").read_bytes()
        engine = zipfile.ZipFile(BytesIO(wheels["modelbeam"])).read("modelbeam/engines/dataflow.py")
        assert engine == Path(dataflow.__file__).read_bytes()
        assert b"polars==" in staged["requirements.txt"]
        assert b".whl" in staged["extra_packages.txt"]
        transforms = job.pipeline().components.transforms.values()
        steps = {one.unique_name: one for one in transforms}
        chain = ["Splits", "Spread", "PredictSplit", "Gather", "Publish"]
        for before, after in itertools.pairwise(chain):
            assert set(steps[before].outputs.values()) == set(steps[after].inputs.values())

    def test_an_image_that_lacks_the_model_and_then_one_that_has_it(self, tmp_path):
        """Over HTTP; what the worker raised is told, and ``--resume`` finishes the job."""
        with StandIn(tmp_path, executes=True, polls=(0, 1)) as service:
            run = Command(service, over_http=True)
            failed = run(f"--sdk_container_image={IMAGE}")
            assert failed.code == 1
            assert "it has no small_models.py" in failed.stderr
            assert "Traceback" not in failed.stderr
            assert service.job.state == "FAILED"
            assert service.job.pool["workerHarnessContainerImage"] == IMAGE
            images = service.job.pool["sdkHarnessContainerImages"]
            assert [image["containerImage"] for image in images] == [IMAGE]
            assert not any(name.endswith(".whl") for name in service.job.staged())
            service.image = MODELS
            done = run(f"--sdk_container_image={IMAGE}", "--resume")
            assert done.code == 0, done.stderr
            assert len(service.jobs) == 2
            assert run.predictions() == [2 * x for x in range(301)]

    def test_left_running_and_followed_by_another_process(self, tmp_path):
        with StandIn(tmp_path, executes=True, image=MODELS) as service:
            run = Command(service)
            left = run(f"--sdk_container_image={IMAGE}", "--detach")
            assert left.code == 0, left.stderr
            assert service.job.state in ("PENDING", "RUNNING")
            busy = run(f"--sdk_container_image={IMAGE}")
            assert busy.code == 2
            assert service.job.id in busy.stderr
            done = run(f"--sdk_container_image={IMAGE}", "--resume")
            assert done.code == 0, done.stderr
            assert len(service.jobs) == 1
            assert run.predictions() == [2 * x for x in range(301)]

    def test_ctrl_c_cancels_it(self, tmp_path):
        with StandIn(tmp_path, polls=(1, 1000)) as service:
            process = Command(service).start(f"--sdk_container_image={IMAGE}")
            for line in process.stderr:
                if "its page" in line:
                    break
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
            assert process.returncode == 130
            assert "cancelled on Dataflow" in stderr
            assert service.job.state == "CANCELLED"

    def test_it_is_cancelled_in_the_console(self, tmp_path):
        with StandIn(tmp_path, ending="CANCELLED", polls=(0, 1)) as service:
            done = Command(service)(f"--sdk_container_image={IMAGE}")
            assert done.code == 1
            assert "The job was cancelled on Dataflow" in done.stderr

    def test_it_is_done_and_there_is_no_output(self, tmp_path):
        with StandIn(tmp_path, polls=(0, 1)) as service:
            done = Command(service)(f"--sdk_container_image={IMAGE}")
            assert done.code == 1
            assert "does not hold its result" in done.stderr

    def test_a_quota_is_used_up(self, tmp_path):
        with StandIn(tmp_path) as service:
            service.refuse(CREATE, QUOTA)
            done = Command(service)(f"--sdk_container_image={IMAGE}")
            assert done.code == 1, done.stderr
            assert done.stderr.count("quota of the project is used up (429)") == 1
            assert "--max_num_workers" in done.stderr
            assert "Traceback" not in done.stderr
            assert not service.names("out/")  # nothing is left behind

    def test_without_credentials(self, tmp_path):
        with StandIn(tmp_path) as service:
            gone = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(tmp_path)}
            done = Command(service)(**gone)
            assert done.code == 2
            assert "credentials" in done.stderr
            assert "GOOGLE_APPLICATION_CREDENTIALS" in done.stderr
            assert not service.jobs
