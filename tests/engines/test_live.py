"""A stream while it goes on: a newer model, what it tells of itself, how it ends."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from crashing import wait_until
from prometheus_client.parser import text_string_to_metric_families
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier
from topics import Topics

from engines.clusters import Kafka
from modelbeam.job.description import build_job
from modelbeam.job.prepare import Silent
from modelbeam.job.result import Run
from modelbeam.local.lanes import LanesProgress
from modelbeam.local.start import Started, start_worker
from modelbeam.run import stream_job

pytestmark = pytest.mark.timeout(200)

X = pd.DataFrame({"x": [0.0, 1.0, 2.0]})


def times(factor: float) -> Any:
    """A model that multiplies x."""
    return LinearRegression(fit_intercept=False).fit(X, factor * X["x"])


def put(model: Any, path: Path) -> None:
    """Write a model as a careful person does: whole, then in its place."""
    part = path.with_suffix(".part")
    joblib.dump(model, part)
    part.replace(path)


class Live(Silent):
    """A run in a thread, and what it tells."""

    def __init__(self, started: Started | None = None, **settings: Any) -> None:
        self._started = started
        self.notes: list[str] = []
        self.progress = LanesProgress()
        self.asked = threading.Event()
        self.result: Any = None
        self._ended = threading.Event()
        self._job = build_job({"streaming": True, "settle": 0.3, **settings})
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.result = stream_job(self._job, self, self._started, self.asked)
        except BaseException as error:
            self.result = error

    def note(self, text: str) -> None:
        self.notes.append(text)

    def lanes(self, progress: LanesProgress) -> None:
        self.progress = progress
        if self._ended.is_set():
            raise KeyboardInterrupt

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that the run does."""
        try:
            wait_until(lambda: self.result is not None or condition(), 60)
        finally:
            print(self.notes)
        assert self.result is None, self.result

    def told(self, *words: str) -> None:
        """Wait for a note with these words."""
        self.until(lambda: any(all(w in note for w in words) for note in self.notes))

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def end(self) -> Run:
        """Stop it, and return what it came to."""
        self.__exit__()
        assert isinstance(self.result, Run), self.result
        return self.result


def over(topics: Topics, model: str, **settings: Any) -> Live:
    """A run over topics."""
    ends = {"inputs": topics.input, "output": topics.output, "errors": topics.errors}
    return Live(models=[model], **ends, **settings)


@contextmanager
def sending(topics: Topics, partitions: int) -> Iterator[Callable[[], int]]:
    """Records 1, 2, 3 … that come all the time; yields how many there were so far."""
    sent, ended = [0], threading.Event()

    def send() -> None:
        while not ended.is_set():
            for partition in range(partitions):
                rows = [{"x": float(sent[0] + n + 1)} for n in range(10)]
                topics.send(*rows, partition=partition)
                sent[0] += 10
            ended.wait(0.05)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield lambda: sent[0]
    finally:
        ended.set()
        thread.join()


def test_a_newer_model_takes_over_and_one_that_does_not_fit_is_refused(
    kafka: Kafka, tmp_path: Path
) -> None:
    topics = Topics(kafka, "newer", partitions=2)
    path = tmp_path / "model.joblib"
    put(times(2), path)
    with over(topics, str(path), workers=2, metrics_port=0) as live:
        with sending(topics, 2) as sent:
            live.until(lambda: live.progress.counts.read > 50)
            put(DecisionTreeClassifier().fit(X, ["a", "b", "c"]), path)
            live.told("its output schema says that 'prediction' is string, and it was number")
            before = live.progress.counts.read
            put(times(3), path)
            live.told("a new model has taken over: model")
            seen = sent()
            live.until(lambda: live.progress.counts.read > seen + 100)
        live.until(lambda: live.progress.counts.read == sent())
        live.until(lambda: live.progress.lag == 0)
        told = metrics(live.notes[0].split()[2].rstrip(","))
        run = live.end()
    outcomes = [one["outcome"] for one in run.description["reloads"]]
    assert outcomes == ["refused", "taken over"]
    said = topics.read(topics.output)
    made = sorted((round(y / x), x) for x, y in _pairs(topics))
    assert sorted(x for _, x in made) == [float(n + 1) for n in range(sent())]
    old, new = [[x for factor, x in made if factor == which] for which in (2, 3)]
    assert len(old) > before - 40
    assert len(new) > 100
    assert run.predicted == sent()
    digests = {one.headers["modelbeam.model.fingerprint"] for one in said}
    assert len(digests) == 2
    assert run.description["model"]["fingerprint"].encode() in digests
    assert not topics.read(topics.errors)
    digest = run.description["model"]["fingerprint"]
    about = {"model": "model", "version": "unknown", "fingerprint": digest}
    for n in (0, 1):
        assert told[("modelbeam_model_info", *_sorted(lane=str(n), **about))] == 1
    for name, value in (("records_read_total", sent()), ("records_predicted_total", sent())):
        assert sum(told[f"modelbeam_{name}", ("lane", str(n))] for n in (0, 1)) == value
    for partition in ("0", "1"):
        place = _sorted(topic=topics.input, partition=partition)
        assert told[("modelbeam_lag_records", *place)] == 0
    assert told["modelbeam_latency_seconds_count",] == sent()
    assert told["modelbeam_model_reloads_total",] == 1
    assert told["modelbeam_model_reload_failures_total",] == 1
    assert told["modelbeam_healthy",] == 1
    assert run.description["latency_ms"]["p50"] <= run.description["latency_ms"]["p99"]


def test_health_turns_bad_while_a_lane_is_stopped_and_good_once_it_goes_on(kafka: Kafka) -> None:
    topics = Topics(kafka, "stopped")
    started = start_worker(1)
    with over(
        *(topics, "small_models:Doubler"),
        started=started,
        workers=1,
        metrics_port=0,
        stall_after=1,
    ) as live:
        topics.send({"x": 1.0})
        live.until(lambda: live.progress.counts.read == 1)
        url = live.notes[0].split()[2].rstrip(",").replace("/metrics", "/health")
        live.until(lambda: health(url) == (200, []))
        started.process.send_signal(signal.SIGSTOP)
        topics.send({"x": 2.0})
        said = "partition 0 has 1 record of lag and nothing of it was committed"
        live.until(lambda: health(url)[1] and health(url)[1][0].startswith(said))
        assert health(url)[0] == 503
        started.process.send_signal(signal.SIGCONT)
        live.until(lambda: health(url) == (200, []))
        live.until(lambda: live.progress.counts.read == 2)
        live.end()
    assert topics.predictions() == [2.0, 4.0]


def health(url: str) -> tuple[int, list[str]]:
    """What a load balancer is told."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text)["reasons"]


def metrics(url: str) -> dict[tuple[Any, ...], float]:
    """What Prometheus would be told: values by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (one.name, *_sorted(**one.labels)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def _sorted(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _pairs(topics: Topics) -> list[tuple[float, float]]:
    """Of each prediction the record's x, and what was made of it."""
    inputs = {}
    for partition in range(2):
        for offset, one in enumerate(topics.read(topics.input, partition)):
            inputs[f"{topics.name}-in/{partition}/{offset}"] = json.loads(one.value or b"")["x"]
    return [
        (inputs[(one.headers["modelbeam.source"] or b"").decode()],
         json.loads(one.value or b"")["prediction"])
        for one in topics.read(topics.output)
    ]  # fmt: skip
