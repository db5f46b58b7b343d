"""What a run tells of itself over HTTP: ``/metrics`` for Prometheus, and ``/health``.

It is a watcher before another one: all that it shows is what people are told as well.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from modelbeam.errors import RequestError
from modelbeam.job.task import Totals
from modelbeam.local.lanes import LanesProgress, OneLane

SPANS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
         25_000.0, 50_000.0, 100_000.0)  # fmt: skip
"""Upper bounds of the latencies that are counted, in milliseconds."""

LONGEST_LABEL = 100

FILES, OFFSETS = "files", "offsets"
"""What entries of a ledger are made of."""


class Told(Protocol):
    """The watcher behind."""

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""

    def lanes(self, progress: Any) -> None:
        """How lanes go."""

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """How files go."""

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """How segments of a topic go."""

    def note(self, text: str) -> None:
        """Something that a person wants to know once."""


class Monitor:
    """Remembers what it is told, and hands it on.

    Args:
        behind: the watcher that it stands before.
        limit: seconds without a sign of the run after which something is wrong.
        name: what latencies and lags are of: the input.
    """

    def __init__(self, behind: Told, limit: float, name: str) -> None:
        self._behind, self._limit, self._name = behind, limit, name
        self._began = time.time()
        self._told: float | None = None
        self._lanes: LanesProgress | None = None
        self._entries: tuple[Totals, int, int, str] | None = None

    def loading(self, seconds: float) -> None:
        """The model has been loading for so long."""
        self._behind.loading(seconds)

    def lanes(self, progress: LanesProgress) -> None:
        """How lanes go."""
        self._lanes, self._told = progress, time.monotonic()
        self._behind.lanes(progress)

    def arrived(self, totals: Totals, runs: int, waiting: int) -> None:
        """How files go."""
        self._entries = totals, runs, waiting, FILES
        self._told = time.monotonic()
        self._behind.arrived(totals, runs, waiting)

    def segments(self, totals: Totals, number: int, waiting: int) -> None:
        """How segments of a topic go."""
        self._entries = totals, number, waiting, OFFSETS
        self._told = time.monotonic()
        self._behind.segments(totals, number, waiting)

    def note(self, text: str) -> None:
        """Something that a person wants to know once."""
        self._behind.note(text)

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all is well, and what ``/health`` says."""
        reasons: tuple[str, ...] = ()
        if self._lanes is not None:
            reasons = self._lanes.stalled
        silent = time.monotonic() - self._told if self._told is not None else 0.0
        if silent > self._limit:
            reasons = (f"the run has not told how it goes for {silent:.0f} s",)
        begun = self._lanes is not None or self._entries is not None
        status = "stalled" if reasons else "ok" if begun else "starting"
        return not reasons, {"status": status, "reasons": list(reasons)}

    def collect(self) -> Iterator[Any]:
        """What Prometheus is told; called by its library."""
        from prometheus_client.core import GaugeMetricFamily as Gauge

        yield Gauge("modelbeam_start_time_seconds", "When the run began, since the epoch.",
                    value=self._began)  # fmt: skip
        healthy, _ = self.health()
        yield Gauge("modelbeam_healthy", "What /health says: 1 for ok.", value=float(healthy))
        if self._lanes is not None:
            yield from _of_lanes(self._lanes, self._name)
        if self._entries is not None:
            yield from _of_entries(*self._entries)


def _of_lanes(progress: LanesProgress, name: str) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge
    from prometheus_client.core import HistogramMetricFamily as Histogram

    lane = ["lane"]
    read = Counter(
        "modelbeam_records_read", "Records whose transactions are committed.", labels=lane
    )
    good = Counter("modelbeam_records_predicted", "Those with a prediction.", labels=lane)
    bad = Counter("modelbeam_records_failed", "Those with an error record.", labels=lane)
    turns = Counter("modelbeam_batches", "Transactions with records in them.", labels=lane)
    model = Gauge("modelbeam_model_info", "Which model predicts in each lane.",
                  labels=["lane", "model", "version", "fingerprint"])  # fmt: skip
    each = {str(number): one for number, one in enumerate(progress.each)}
    if not each:  # on an engine they are told together
        each["all"] = OneLane(progress.counts, 0, None)
    for name_of, one in each.items():
        label = [name_of]
        read.add_metric(label, one.counts.read)
        good.add_metric(label, one.counts.predicted)
        bad.add_metric(label, one.counts.failed)
        turns.add_metric(label, one.turns)
        if one.model is not None:
            about = one.model
            texts = [about.name, about.version, about.fingerprint or ""]
            model.add_metric([*label, *(text[:LONGEST_LABEL] for text in texts)], 1)
    yield from (read, good, bad, turns, model)
    yield from _of_failures(progress.counts.kinds)
    lag = Gauge("modelbeam_lag_records", "Offsets that the group has not committed.",
                labels=["topic", "partition"])  # fmt: skip
    for partition, left in sorted(progress.lags.items()):
        lag.add_metric([name, str(partition)], left)
    yield lag
    counts = progress.delays.up_to(SPANS)
    buckets = [(str(span / 1000), float(n)) for span, n in zip(SPANS, counts, strict=True)]
    buckets.append(("+Inf", float(sum(progress.delays.counts))))
    yield Histogram("modelbeam_latency_seconds", "From a message's time stamp to the commit.",
                    buckets=buckets, sum_value=progress.delays.total / 1000)  # fmt: skip
    yield Gauge("modelbeam_lanes", "Lanes of this run.", value=progress.lanes)
    yield Gauge("modelbeam_partitions", "Partitions that they have.", value=progress.partitions)
    taken, refused = progress.reloads
    yield Counter("modelbeam_model_reloads", "Newer models that took over.", value=taken)
    yield Counter("modelbeam_model_reload_failures", "Newer models that were refused.",
                  value=refused)  # fmt: skip
    yield Counter("modelbeam_process_deaths", "Processes of the model that died.",
                  value=progress.deaths)  # fmt: skip


def _of_entries(totals: Totals, number: int, waiting: int, what: str) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    counts = totals.counts
    yield Counter("modelbeam_records_read", "Records of entries of the ledger.", value=counts.read)
    yield Counter("modelbeam_records_predicted", "Those with a prediction.", value=counts.predicted)
    yield Counter("modelbeam_records_failed", "Those with an error line.", value=counts.failed)
    yield from _of_failures(counts.kinds)
    yield Counter("modelbeam_batches", "Entries of the ledger by this run.", value=number)
    about = {FILES: "Files that are not complete yet.", OFFSETS: "Offsets that are in no segment."}
    yield Gauge(f"modelbeam_{what}_waiting", about[what], value=waiting)


def _of_failures(kinds: Any) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily as Counter

    found: dict[tuple[str, str], int] = {}
    for kind in kinds:
        key = (kind.stage, kind.type[:LONGEST_LABEL])
        found[key] = found.get(key, 0) + kind.count
    failures = Counter("modelbeam_failures", "Failed records by what was wrong.",
                       labels=["stage", "type"])  # fmt: skip
    for (stage, type_), number in sorted(found.items()):
        failures.add_metric([stage, type_], number)
    yield failures


@contextmanager
def monitored(
    behind: Told, place: tuple[str, int] | None, limit: float, name: str
) -> Iterator[Told]:
    """A watcher that is asked over HTTP while this goes on; the same one if there is no place.

    Args:
        behind: the watcher.
        place: host and port; port 0 is any that is free.
        limit, name: as in :class:`Monitor`.

    Raises:
        RequestError: the library is not installed, or the port is taken.
    """
    if place is None:
        yield behind
        return
    try:
        import prometheus_client
    except ImportError:
        raise RequestError(
            "--metrics-port needs the package prometheus-client. Install it with: "
            "pip install 'modelbeam[metrics]'"
        ) from None
    monitor = Monitor(behind, limit, name)
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(monitor)

    host, port = place
    try:
        server = _Server((host, port), monitor, registry)
    except OSError as error:
        raise RequestError(
            f"--metrics-port {host}:{port}: it cannot be listened on ({error.strerror or error}). "
            f"Is another run there? Name another port."
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=[0.05], name="metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    where = f"http://{shown}:{server.server_address[1]}"
    monitor.note(f"metrics at {where}/metrics, health at {where}/health")
    try:
        yield monitor
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], monitor: Monitor, registry: Any) -> None:
        self.monitor, self.registry = monitor, registry
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Answers two pages, and nothing else."""

    server: _Server
    server_version, sys_version = "modelbeam", ""
    timeout = 10

    def do_GET(self) -> None:
        """A page."""
        page = self.path.partition("?")[0]
        if page == "/metrics":
            self._metrics()
        elif page == "/health":
            self._health()
        else:
            self._answer(404, "text/plain; charset=utf-8", b"/metrics and /health are here\n")

    do_HEAD = do_GET

    def _metrics(self) -> None:
        """As Prometheus wants it."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(self.headers.get("Accept") or "")
        self._answer(200, kind, encode(self.server.registry))

    def _health(self) -> None:
        """200 if all is well, else 503, with the reasons."""
        well, said = self.server.monitor.health()
        self._answer(200 if well else 503, "application/json", json.dumps(said).encode() + b"\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody is told of who asks."""
