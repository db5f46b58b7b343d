"""A server of our own that stands in for Google Dataflow and Cloud Storage. It is neither.

Google's services cannot be reached where these tests run. Google's and Beam's client libraries are
the real ones, and send what they would send to Google; what answers is this module:

- ``/v1b3/…``: the requests that Beam 2.77's Dataflow client makes (create, get, list and update a
  job; messages; metrics), in the wire format of Google's ``google-cloud-dataflow-client``. A job
  goes through PENDING and RUNNING to the end that the test sets. Errors have the form of Google's.
- The same over gRPC, which is how Beam speaks with Google: HTTP is for ``localhost`` only. A client
  in the ``environment`` believes that it is connected to ``dataflow.googleapis.com``. Its variables
  name this server as gRPC's proxy, and a throw-away certificate as the one to trust.
- ``/token``: where a service account's key is exchanged for a token. The signature of the request
  is checked, and every other request must carry the token or a signature of the key.
- ``/storage/…``: ``gcp-storage-emulator`` from PyPI, in memory.

With ``executes`` a job's staged pipeline is really run, in a process of its own that finds the
staged wheels before all else: by Beam's local runner, which is a stand-in too. What is in the
worker's image is a directory of modules, on top of the environment that runs the tests.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage
from google.auth import jwt
from google.cloud import dataflow
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

PROJECT = "stand-in-project"
REGION = "europe-west1"
BUCKET = "stand-in-bucket"
HOST = "dataflow.googleapis.com"
TOKEN = "token-of-the-stand-in"

Counters = dict[str, int]

logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)  # it warns at each answer

assert error_details_pb2  # the messages must be known for errors to be put together of them


Answer = tuple[int, dict[str, Any]]


def google_error(code: int, status: str, message: str, *details: dict[str, Any]) -> Answer:
    """An error as Google's APIs write it."""
    error = {"code": code, "status": status, "message": message, "details": list(details)}
    return code, {"error": error}


def error_info(reason: str, **metadata: str) -> dict[str, Any]:
    """The detail of an error that says in one word what it is."""
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": metadata,
    }


class StandIn:
    """The server, for a ``with`` statement; one a test.

    Args:
        directory: for the key file and for the process that runs a job.
        executes: whether a submitted pipeline is run; else a job does nothing and ends.
        image: a directory of modules that the workers have; it is set before a job is submitted.
        ending: the state in which a job ends, if nothing else decides that: ``DONE``, ``FAILED``.
        messages: error messages of a job.
        metrics: the counters that a running job shows, one after the other.
        polls: how often a job is seen ``PENDING``, and then at least how often ``RUNNING``.

    Attributes:
        jobs: all that were created, by id.
        requests: ``METHOD path`` of every request.
        refusals: what to answer instead, by ``METHOD regex``.
        accepts_key: whether the key is exchanged for a token.
    """

    def __init__(
        self,
        directory: Path,
        *,
        executes: bool = False,
        image: Path | None = None,
        ending: str = "DONE",
        messages: tuple[str, ...] = (),
        metrics: tuple[Counters, ...] = (),
        polls: tuple[int, int] = (1, 2),
    ) -> None:
        self.directory, self.executes, self.image = directory, executes, image
        self.ending = ending
        self.messages, self.metrics, self.polls = messages, metrics, polls
        self.jobs: dict[str, SubmittedJob] = {}
        self.requests: list[str] = []
        self.refusals: dict[str, Answer] = {}
        self.accepts_key = True
        self.lock = threading.RLock()
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        handler: Callable[..., Any] = lambda *args: _Handler(self, *args)  # noqa: E731
        self._server = ThreadingHTTPServer(("localhost", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://localhost:{self._server.server_port}"
        self.key_file = self._write_key()
        self.roots_file = directory / "throw-away-roots.pem"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self._grpc_server, self.grpc_port = _serve_grpc(self)
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs.values():
            job.kill()
        self._grpc_server.stop(None)
        self._server.shutdown()
        self._server.server_close()

    def _write_key(self) -> Path:
        """A service account's key file, as the console would let one download it."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.public_key = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path = self.directory / "throw-away-key.json"
        content = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "made-for-one-test",
            "private_key": private.decode(),
            "client_email": f"tester@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps(content))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.key_file),
            "STORAGE_EMULATOR_HOST": self.url,
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(self.roots_file),
            "grpc_proxy": self.url,
            "no_grpc_proxy": "localhost,127.0.0.1",
            "NO_GCE_CHECK": "true",
        }

    @property
    def flags(self) -> list[str]:
        """What a client's command line needs to speak HTTP; without the last, it speaks gRPC."""
        return [
            "--runner=dataflow",
            f"--project={PROJECT}",
            f"--region={REGION}",
            f"--temp_location=gs://{BUCKET}/tmp",
            f"--dataflow_endpoint={self.url}",
        ]

    @property
    def job(self) -> SubmittedJob:
        """The only job."""
        (job,) = self.jobs.values()
        return job

    def put(self, name: str, content: bytes) -> str:
        """Put an object into the bucket; returns its URL."""
        with self.lock:
            self.storage.create_file(BUCKET, name, content, _object(name, content))
        return f"gs://{BUCKET}/{name}"

    def get(self, name: str) -> bytes:
        """The content of an object, by its name or URL."""
        with self.lock:
            content: bytes = self.storage.get_file(BUCKET, name.removeprefix(f"gs://{BUCKET}/"))
        return content

    def names(self, prefix: str = "") -> list[str]:
        """The names of the objects."""
        with self.lock:
            objects = self.storage.objects.get(BUCKET, {})
            return sorted(name for name in objects if name.startswith(prefix))

    def refuse(self, request: str, answer: Answer) -> None:
        """Answer requests that match (such as ``POST /v1b3/.*/jobs$``) with an error."""
        self.refusals[request] = answer

    def allows(self, authorization: str) -> bool:
        """Whether a request's header holds the token, or a claim that the key signed."""
        token = authorization.removeprefix("Bearer ")
        if token == TOKEN:
            return True
        try:
            jwt.decode(token, certs=self.public_key.decode())
        except ValueError:
            return False
        return True

    def refusal(self, request: str, authorization: str) -> Answer | None:
        """Note a request, and refuse it if it is to be refused.

        Clients of an emulated Cloud Storage give no credentials, as Google's own do.
        """
        self.requests.append(request)
        needed = authorization or "/v1b3/" in request
        if needed and not self.allows(authorization):
            said = "Request had invalid authentication credentials."
            return google_error(401, "UNAUTHENTICATED", said)
        for refused, answer in self.refusals.items():
            if re.fullmatch(refused, request):
                return answer
        return None

    def dataflow(self, method: str, path: str, body: Any) -> Answer:
        """Answer a request to Dataflow's API."""
        found = re.fullmatch(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/(.+))?", path)
        if not found or found[1] != PROJECT or found[2] != REGION:
            return google_error(404, "NOT_FOUND", f"Requested entity was not found: {path}")
        if not found[3]:
            if method == "POST":
                return self._create(body)
            return 200, {"jobs": [job.to_json() for job in self.jobs.values()]}
        name, _, what = found[3].partition("/")
        job = self.jobs.get(name)
        if job is None:
            missing = f"(1234567890abcdef): Information about job {name} could not be found in our"
            return google_error(404, "NOT_FOUND", f"{missing} system.")
        if what == "metrics":
            return 200, {"metrics": job.metrics()}
        if what == "messages":
            common = {"messageImportance": "JOB_MESSAGE_ERROR", "time": "2026-01-01T00:00:00Z"}
            return 200, {"jobMessages": [{**common, "messageText": text} for text in job.messages]}
        if method == "PUT":
            job.cancel(body)
        else:
            job.step()
        return 200, job.to_json()

    def _create(self, body: Any) -> Answer:
        job = SubmittedJob(self, f"2026-01-01_00_00_00-{len(self.jobs) + 1:019d}", body)
        self.jobs[job.id] = job
        return 200, job.to_json()


class SubmittedJob:
    """A job as it was submitted, and what becomes of it.

    Attributes:
        body: the JSON that was sent.
        state: without ``JOB_STATE_``.
    """

    def __init__(self, service: StandIn, job_id: str, body: dict[str, Any]) -> None:
        self._service, self.id, self.body = service, job_id, body
        self.state = "PENDING"
        self.messages = list(service.messages)
        self.seen = 0
        self.final: Counters = {}
        self._process: subprocess.Popen[str] | None = None
        self._directory = service.directory / job_id

    @property
    def environment(self) -> dict[str, Any]:
        """The job's ``environment``."""
        made: dict[str, Any] = self.body["environment"]
        return made

    @property
    def options(self) -> dict[str, Any]:
        """Beam's options that the workers are given."""
        made: dict[str, Any] = self.environment["sdkPipelineOptions"]["options"]
        return made

    @property
    def pool(self) -> dict[str, Any]:
        """The description of the workers."""
        (pool,) = self.environment["workerPools"]
        made: dict[str, Any] = pool
        return made

    def staged(self) -> dict[str, bytes]:
        """The packages that the workers are to install, read from where the job says they are."""
        prefix = f"storage.googleapis.com/{BUCKET}/"
        return {
            package["name"]: self._service.get(package["location"].removeprefix(prefix))
            for package in self.pool.get("packages", [])
        }

    def pipeline(self) -> Any:
        """The staged pipeline, Beam's ``Pipeline`` message."""
        from apache_beam.portability.api import beam_runner_api_pb2

        content = self._service.get(self.options["pipelineUrl"])
        return beam_runner_api_pb2.Pipeline.FromString(content)

    def step(self) -> None:
        """Go on by one look of the client."""
        pending, running = self._service.polls
        self.seen += 1
        if self.state == "PENDING" and self.seen > pending:
            self.state = "RUNNING"
            if self._service.executes:
                self._execute()
        elif self.state == "CANCELLING":
            self.state = "CANCELLED"
        elif self.state == "RUNNING" and self.seen > pending + running and self._ended():
            if self.messages:
                self.state = "FAILED"
            else:
                self.state = self._service.ending

    def cancel(self, body: Any) -> None:
        """Do as the client asks."""
        if body.get("requestedState") in ("JOB_STATE_CANCELLED", 5) and self.state in (
            "PENDING",
            "RUNNING",
        ):
            self.kill()
            self.state = "CANCELLING"

    def kill(self) -> None:
        """End the process that runs the job."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def metrics(self) -> list[dict[str, Any]]:
        """The counters, each as tentative and as committed, beside one of the service's own."""
        shown = self.final
        if not shown and self._service.metrics:
            at = max(0, self.seen - self._service.polls[0] - 1)
            shown = self._service.metrics[min(at, len(self._service.metrics) - 1)]
        made = [_metric("dataflow/v1b3", "ElementCount", 99, {"step": "ref_1"})]
        for name, value in shown.items():
            context = {"namespace": "modelbeam", "step": "ref_PredictSplit_1"}
            made.append(_metric("user", name, value, context))
            made.append(_metric("user", name, value, {**context, "tentative": "true"}))
        return made

    def to_json(self) -> dict[str, Any]:
        """The job as the API tells of it."""
        return {
            "id": self.id,
            "projectId": PROJECT,
            "location": REGION,
            "name": self.body.get("name"),
            "clientRequestId": self.body.get("clientRequestId"),
            "currentState": f"JOB_STATE_{self.state}",
        }

    def _execute(self) -> None:
        """Run the staged pipeline with the staged wheels."""
        site = self._directory / "site"
        for name, content in self.staged().items():
            if name.endswith(".whl"):
                zipfile.ZipFile(io.BytesIO(content)).extractall(site)
        (self._directory).mkdir(exist_ok=True)
        pipeline, result = self._directory / "pipeline.pb", self._directory / "result.json"
        pipeline.write_bytes(self._service.get(self.options["pipelineUrl"]))
        path = os.pathsep.join(str(place) for place in (site, self._service.image) if place)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(pipeline), str(result)],
            env={**os.environ, **self._service.environment, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _ended(self) -> bool:
        """Whether the work is over; then what it came to is known."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        result = self._directory / "result.json"
        if result.exists():
            told = json.loads(result.read_text())
            self.final, self.messages = told["counters"], told["messages"]
        else:
            self.messages = ["The worker lost contact with the service."]
        return True


class _Handler(RequestHandler):
    """One request."""

    def __init__(self, service: StandIn, *args: Any) -> None:
        self._service = service
        super().__init__(service.storage, *args)

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def do_CONNECT(self) -> None:
        """Be the proxy to what calls itself Dataflow."""
        if self.path != f"{HOST}:443":
            self.send_error(403, f"no way to {self.path}")
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self._service.grpc_port)) as there:
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()

    def _serve(self, method: str) -> None:
        service, path = self._service, self.path.split("?")[0]
        request = f"{method} {path}"
        if path == "/token":
            service.requests.append(request)
            self._answer(*self._token())
            return
        with service.lock:
            refused = service.refusal(request, self.headers.get("Authorization", ""))
            if refused:
                self._body()
                self._answer(*refused)
                return
            if path.startswith("/v1b3/"):
                content = self._body()
                self._answer(
                    *service.dataflow(method, path, json.loads(content) if content else None)
                )
            else:
                Router(self).handle(method)

    def _token(self) -> Answer:
        content = self._body().decode()
        if not self._service.accepts_key or "assertion=" not in content:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        jwt.decode(content.split("assertion=")[1].split("&")[0], self._service.public_key.decode())
        return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, code: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Grpc(grpc.GenericRpcHandler):
    """The same answers over gRPC; how requests are spelt over HTTP is how they are known here."""

    _METHODS = MappingProxyType(
        {
            "JobsV1Beta3/CreateJob": ("POST", "", "CreateJobRequest", "Job"),
            "JobsV1Beta3/GetJob": ("GET", "/{}", "GetJobRequest", "Job"),
            "JobsV1Beta3/UpdateJob": ("PUT", "/{}", "UpdateJobRequest", "Job"),
            "JobsV1Beta3/ListJobs": ("GET", "", "ListJobsRequest", "ListJobsResponse"),
            "MessagesV1Beta3/ListJobMessages": (
                "GET", "/{}/messages", "ListJobMessagesRequest", "ListJobMessagesResponse"),
            "MetricsV1Beta3/GetJobMetrics": (
                "GET", "/{}/metrics", "GetJobMetricsRequest", "JobMetrics"),
        }
    )  # fmt: skip

    def __init__(self, service: StandIn) -> None:
        self._service = service

    def service(self, details: Any) -> Any:
        known = self._METHODS.get(details.method.removeprefix("/google.dataflow.v1beta3."))
        if known is None:
            return None
        method, path, asked, answered = known
        authorization = dict(details.invocation_metadata).get("authorization", "")
        question, answer = getattr(dataflow, asked).pb(), getattr(dataflow, answered).pb()

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            jobs = f"/v1b3/projects/{request.project_id}/locations/{request.location}/jobs"
            whole = jobs + path.format(getattr(request, "job_id", ""))
            body = json_format.MessageToDict(request.job) if hasattr(request, "job") else None
            service = self._service
            with service.lock:
                code, content = service.refusal(f"{method} {whole}", authorization) or (0, {})
                if not code:
                    code, content = service.dataflow(method, whole, body)
            if code != 200:
                self._abort(context, content["error"])
            return json_format.ParseDict(content, answer(), ignore_unknown_fields=True)

        return grpc.unary_unary_rpc_method_handler(
            call, question.FromString, answer.SerializeToString
        )

    def _abort(self, context: grpc.ServicerContext, error: dict[str, Any]) -> None:
        status = status_pb2.Status(
            code=grpc.StatusCode[error["status"]].value[0], message=error["message"]
        )
        for detail in error["details"]:
            json_format.ParseDict(detail, status.details.add())
        context.abort_with_status(rpc_status.to_status(status))


def _serve_grpc(service: StandIn) -> tuple[grpc.Server, int]:
    """Start the gRPC server, with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the stand-in's own")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    service.roots_file.write_bytes(certificate)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Grpc(service)])
    credentials = grpc.ssl_server_credentials([(private, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def _metric(origin: str, name: str, value: int, context: dict[str, str]) -> dict[str, Any]:
    return {"name": {"origin": origin, "name": name, "context": context}, "scalar": value}


def _object(name: str, content: bytes) -> dict[str, Any]:
    import base64
    import hashlib

    import google_crc32c

    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    return {
        "kind": "storage#object",
        "id": f"{BUCKET}/{name}/1",
        "name": name,
        "bucket": BUCKET,
        "generation": "1",
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "timeCreated": now,
        "updated": now,
        "size": str(len(content)),
        "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        "crc32c": base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
    }


def _run(pipeline_file: str, result_file: str) -> None:
    """Run a staged pipeline with Beam's local runner; what a worker would do is done here."""
    import traceback

    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.portability import python_urns
    from apache_beam.portability.api import beam_runner_api_pb2
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    pipeline = beam_runner_api_pb2.Pipeline.FromString(Path(pipeline_file).read_bytes())
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    counters: Counters = {}
    messages: list[str] = []
    try:
        result = FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))
        result.wait_until_finish()
        for counter in result.metrics().query()["counters"]:
            if counter.key.metric.namespace == "modelbeam":
                counters[counter.key.metric.name] = counter.committed
    except Exception:
        messages = [
            traceback.format_exc(),
            "Workflow failed. Causes: S02:Spread/Read+PredictSplit failed., The job failed because "
            "a work item has failed 4 times.",
        ]
    Path(result_file).write_text(json.dumps({"counters": counters, "messages": messages}))


if __name__ == "__main__":
    _run(*sys.argv[1:])
