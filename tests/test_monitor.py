"""What a streaming run tells of itself: metrics, health, the live line."""

from __future__ import annotations

import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import modelbeam
from modelbeam.errors import RequestError
from modelbeam.job.description import listening_place
from modelbeam.job.prepare import Silent
from modelbeam.job.task import Totals
from modelbeam.kafka.delays import BOUNDS, LOOKED_AT, Delays, sampled
from modelbeam.kafka.lag import Behind, Standstill
from modelbeam.local import monitor
from modelbeam.local.lanes import LanesProgress, OneLane
from modelbeam.local.monitor import SPANS, Monitor, monitored
from modelbeam.models.base import ModelInfo
from modelbeam.predicting.counts import Counts, Kind
from modelbeam.report.stream import line

# Latencies

_TIMES = st.lists(st.floats(0, 10_000_000), min_size=1, max_size=50)


@given(_TIMES, st.floats(0.01, 1))
def test_a_quantile_is_right_to_a_third(times, share):
    delays = Delays()
    for one in times:
        delays.add(one, 3)
    exact = float(np.quantile(np.repeat(times, 3), share, method="inverted_cdf"))
    found = delays.quantile(share)
    assert found is not None
    assert found <= max(1.0, exact * 1.3)
    assert found >= min(exact, BOUNDS[-1]) / 1.3 or exact <= 1


def test_of_no_messages_there_is_no_quantile():
    assert Delays().quantile(0.5) is None


@given(st.integers(0, 3 * LOOKED_AT), st.data())
def test_every_message_counts_once_in_the_latencies(number, data):
    known = data.draw(st.booleans())
    messages = [
        SimpleNamespace(timestamp=lambda n=n: (1 if known else 0, n)) for n in range(number)
    ]
    found = sampled(messages, float(number))
    assert sum(weight for _, weight in found) == (number if known else 0)
    assert len(found) <= LOOKED_AT
    if number <= LOOKED_AT and known:
        assert [one for one, _ in found] == [float(number - n) for n in range(number)]


@given(_TIMES, _TIMES)
def test_latencies_of_lanes_are_added_up(one, other):
    each = [Delays(), Delays()]
    for delays, times in zip(each, (one, other), strict=True):
        for time in times:
            delays.add(time, 1)
    together = Delays()
    for delays in each:
        together.merge(delays)
    limit = SPANS[3]
    assert sum(together.counts) == len(one) + len(other)
    assert together.up_to([limit]) == [sum(time <= limit for time in one + other)]


# Lag, and what does not move


def behind(offset: int, end: int, owner: str | None = "lane-0", told: bool = True) -> Behind:
    """A group with one partition."""
    owners = {0: owner} if owner is not None else {}
    return Behind({0: offset}, {0: end}, owners if told else None)


def stands(*seen: tuple[float, Behind], done: bool = False, now: float = 100.0) -> tuple[str, ...]:
    """What is wrong after some looks, with a limit of a minute and one lane."""
    standstill = Standstill()
    for when, one in seen:
        standstill.note(one, [0] if done else [], when)
    return standstill.reasons(seen[-1][1], ["lane-0"], 60.0, now)


def test_a_lane_that_has_lag_and_commits_nothing_stalls():
    (why,) = stands((0, behind(5, 9)), (90, behind(5, 20)))
    assert why.startswith("partition 0 has 15 records of lag and nothing of it was committed")
    assert why.endswith("by lane-0 for 100 s")


@pytest.mark.parametrize(
    "seen",
    [
        [(0, behind(5, 9)), (50, behind(6, 20)), (90, behind(6, 20))],  # it moved
        [(0, behind(9, 9)), (90, behind(9, 9))],  # there is nothing
        [(0, behind(5, 5)), (90, behind(5, 9))],  # there was nothing until now
        [(50, behind(5, 9))],  # not long enough
        [(0, behind(5, 9, "another")), (90, behind(5, 9, "another"))],  # that one's own business
        [(0, behind(5, 9)), (50, behind(5, 5)), (90, behind(5, 9))],  # records that have expired
    ],
)
def test_what_is_no_stall(seen):
    assert stands(*seen) == ()


def test_a_transactions_mark_at_the_end_is_no_lag():
    assert stands((0, behind(5, 6)), (90, behind(5, 6)), done=True) == ()
    assert behind(5, 6).lags([0]) == {0: 0}


def test_a_partition_that_nobody_has_is_an_alarm_and_who_has_it_may_not_be_known():
    (why,) = stands((0, behind(5, 9, None)), (90, behind(5, 9, None)))
    assert "partition 0 has 4 records of lag and belongs to no member of the group" in why
    (why,) = stands((0, behind(5, 9, told=False)), (90, behind(5, 9, told=False)))
    assert "nothing of it was committed for 100 s" in why


def test_a_partition_that_is_gone_is_forgotten():
    nothing = Behind({}, {}, {})
    assert stands((0, behind(5, 9)), (90, nothing)) == ()


# Over HTTP


def progress(**more: Any) -> LanesProgress:
    """Two lanes that have done something."""
    counts = Counts()
    counts.read, counts.predicted, counts.failed = 10, 7, 3
    counts.kinds = [Kind("predict", "ValueError", "m", 2, "s", {}, "e"),
                    Kind("decode", 'Odd"Error\n', "m", 1, "s", {}, "e")]  # fmt: skip
    info = ModelInfo("iris", "iris", "record", version="0.2", fingerprint="abcdef0123456789")
    delays = Delays()
    for milliseconds in (0.5, 3.0, 40.0, 10**9):
        delays.add(milliseconds, 2)
    own = {
        "lanes": 2,
        "partitions": 3,
        "delays": delays,
        "lags": {0: 5, 1: 0},
        "deaths": 1,
        "reloads": (1, 2),
        "each": (OneLane(counts, 4, info), OneLane(Counts(), 0, None)),
    }
    return LanesProgress(counts=counts, **{**own, **more})  # fmt: skip


@contextmanager
def served(place: str = "0", limit: float = 60.0) -> Iterator[tuple[Any, str]]:
    """A monitor, and its address."""
    notes: list[str] = []
    told = Silent()
    told.note = notes.append  # type: ignore[method-assign]
    with monitored(told, listening_place(place), limit, "kafka://b:1/in") as made:
        yield made, notes[0].split()[2].removesuffix("/metrics,")


def get(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, type and body."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The values by name and labels."""
    return {
        (one.name, *(text for _, text in sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_what_prometheus_is_told_of_lanes():
    with served() as (told, url):
        assert "modelbeam_records_read" not in get(f"{url}/metrics")[2]
        told.lanes(progress())
        status, kind, text = get(f"{url}/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    found = samples(text)
    wanted = {
        ("modelbeam_records_read_total", "0"): 10,
        ("modelbeam_records_predicted_total", "0"): 7,
        ("modelbeam_records_failed_total", "0"): 3,
        ("modelbeam_records_failed_total", "1"): 0,
        ("modelbeam_batches_total", "0"): 4,
        ("modelbeam_failures_total", "predict", "ValueError"): 2,
        ("modelbeam_failures_total", "decode", 'Odd"Error\n'): 1,
        ("modelbeam_lag_records", "0", "kafka://b:1/in"): 5,
        ("modelbeam_lag_records", "1", "kafka://b:1/in"): 0,
        ("modelbeam_model_info", "abcdef0123456789", "0", "iris", "0.2"): 1,
        ("modelbeam_model_reloads_total",): 1,
        ("modelbeam_model_reload_failures_total",): 2,
        ("modelbeam_process_deaths_total",): 1,
        ("modelbeam_latency_seconds_bucket", "0.001"): 2,
        ("modelbeam_latency_seconds_bucket", "0.005"): 4,
        ("modelbeam_latency_seconds_bucket", "0.05"): 6,
        ("modelbeam_latency_seconds_bucket", "100.0"): 6,
        ("modelbeam_latency_seconds_bucket", "+Inf"): 8,
        ("modelbeam_latency_seconds_count",): 8,
        ("modelbeam_lanes",): 2,
        ("modelbeam_partitions",): 3,
        ("modelbeam_healthy",): 1,
    }
    assert wanted.items() <= found.items()
    assert len([key for key in found if key[0] == "modelbeam_model_info"]) == 1


def test_lanes_on_an_engine_are_told_together():
    with served() as (told, url):
        told.lanes(progress(each=()))
        found = samples(get(f"{url}/metrics")[2])
    assert found["modelbeam_records_read_total", "all"] == 10


def test_what_prometheus_is_told_of_files():
    totals = Totals()
    totals.add(progress().counts, 100)
    with served() as (told, url):
        told.arrived(totals, 2, 1)
        found = samples(get(f"{url}/metrics")[2])
        assert json.loads(get(f"{url}/health")[2])["status"] == "ok"
    wanted = {("modelbeam_records_read_total",): 10, ("modelbeam_batches_total",): 2,
              ("modelbeam_files_waiting",): 1}  # fmt: skip
    assert wanted.items() <= found.items()


def test_what_prometheus_is_told_of_segments():
    totals = Totals()
    totals.add(progress().counts, 100)
    with served() as (told, url):
        told.segments(totals, 3, 17)
        found = samples(get(f"{url}/metrics")[2])
    wanted = {("modelbeam_records_read_total",): 10, ("modelbeam_batches_total",): 3,
              ("modelbeam_offsets_waiting",): 17}  # fmt: skip
    assert wanted.items() <= found.items()
    assert ("modelbeam_files_waiting",) not in found


def test_other_formats_are_sent_to_who_asks_for_them():
    with served() as (told, url):
        told.lanes(progress())
        _, kind, text = get(f"{url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_health():
    with served() as (told, url):
        status, kind, text = get(f"{url}/health")
        assert (status, kind) == (200, "application/json")
        assert json.loads(text) == {"status": "starting", "reasons": []}
        told.lanes(progress())
        assert json.loads(get(f"{url}/health")[2]) == {"status": "ok", "reasons": []}
        told.lanes(progress(stalled=("partition 0 stands still",)))
        status, _, text = get(f"{url}/health")
        assert (status, json.loads(text)["reasons"]) == (503, ["partition 0 stands still"])
        assert samples(get(f"{url}/metrics")[2])["modelbeam_healthy",] == 0
        assert get(f"{url}/other")[0] == 404


def test_a_run_that_tells_nothing_any_more_is_not_healthy(monkeypatch):
    told = Monitor(Silent(), 60.0, "in")
    told.lanes(progress())
    assert told.health()[0]
    clock = monitor.time.monotonic() + 61
    monkeypatch.setattr(monitor.time, "monotonic", lambda: clock)
    well, said = told.health()
    assert not well
    assert "has not told how it goes for 61 s" in said["reasons"][0]


def test_everything_goes_on_to_the_watcher_behind():
    seen: list[tuple[Any, ...]] = []
    told = SimpleNamespace(**{
        name: lambda *all_, name=name: seen.append((name, *all_))
        for name in ("loading", "lanes", "arrived", "note")
    })  # fmt: skip
    one = Monitor(told, 60.0, "in")
    one.loading(1.0)
    one.note("a note")
    one.lanes("progress")  # type: ignore[arg-type]
    one.arrived("totals", 1, 2)  # type: ignore[arg-type]
    assert seen == [("loading", 1.0), ("note", "a note"), ("lanes", "progress"),
                    ("arrived", "totals", 1, 2)]  # fmt: skip


# Where


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:0", ("::1", 0)),
        ("metrics.local:80", ("metrics.local", 80)),
    ],
)
def test_places(text, place):
    assert listening_place(text) == place


@pytest.mark.parametrize("text", ["", "port", "70000", "::1:80", "a:b", ":80", "1.2.3.4", "-1"])
def test_what_is_no_place(text):
    with pytest.raises(ValueError, match="give a port"):
        listening_place(text)


def test_only_this_machine_is_answered_unless_a_host_is_named():
    with served() as (_, url):
        assert url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(RequestError, match=rf"--metrics-port 127.0.0.1:{port}: it cannot be"),
            monitored(Silent(), ("127.0.0.1", port), 60.0, "in"),
        ):
            pass


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with (
        pytest.raises(RequestError, match=r"pip install 'modelbeam\[metrics\]'"),
        monitored(Silent(), ("127.0.0.1", 0), 60.0, "in"),
    ):
        pass


def test_a_batch_job_has_no_metrics_port():
    with pytest.raises(RequestError, match="add streaming=True"):
        modelbeam.predict(model="small_models:Doubler", input="in", output="out", metrics_port=0)
    with pytest.raises(RequestError, match=r"metrics_port='http': give a port \(9100\)"):
        modelbeam.predict(
            model="small_models:Doubler", input="in", output="out", metrics_port="http"
        )


# The line


def test_the_live_line():
    assert line(progress(latencies=[10.0] * 99 + [50.0]), 1234.5) == (
        "10 records, 3 failed, 1,234/s, lag 5, latency 10 ms (p99 50 ms), 2 lanes on 3 partitions, "
        "iris 0.2 (abcdef01)"
    )
    assert line(LanesProgress(lanes=1), 0) == "0 records, 0 failed, 0/s, 1 lane on 0 partitions"
