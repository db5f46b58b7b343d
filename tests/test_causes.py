"""What a failure on a worker comes to, from traces as the engines really return them, shortened."""

from __future__ import annotations

import json

import pytest

from modelbeam.beam.causes import MAX_LENGTH, decode, encode, paragraph
from modelbeam.errors import InputReadError, JobError, ModelbeamError, WorkerVersionError

FLINK = """\
org.apache.flink.runtime.JobException: Recovery is suppressed by NoRestartBackoffTimeStrategy
	at org.apache.flink.runtime.failover.ExecutionFailureHandler.handle(X.java)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 1: \
Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
  File "/somewhere/model.py", line 16, in process
    raise ValueError("{message}")
ValueError: {message}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/somewhere/sdk_worker.py", line 310, in _execute
    response = task()
ValueError: {message} [while running 'PredictSplit']

	at java.base/java.util.concurrent.CompletableFuture.reportGet(X.java:396)
"""

LOST = """\
org.apache.flink.runtime.JobException: Recovery is suppressed by NoRestartBackoffTimeStrategy
	at org.apache.flink.runtime.failover.ExecutionFailureHandler.handle(X.java)
Caused by: java.lang.IllegalStateException: SDK Harness connection lost: Multiplexer hung up
	at org.apache.beam.sdk.fn.data.BeamFnDataGrpcMultiplexer.close(BeamFnDataGrpcMultiplexer.java:1)
"""

TASK_MANAGER = """\
org.apache.flink.runtime.jobmaster.JobMasterException: TaskManager with id x:1 is \
no longer reachable.
	at org.apache.flink.runtime.jobmaster.JobMaster$Listener.notify(JobMaster.java)
"""


@pytest.mark.parametrize("quote", [str, json.dumps, lambda text: FLINK.replace("{message}", text)])
@pytest.mark.parametrize(
    "error",
    [
        InputReadError("/data/a.jsonl line 7: it is gone."),
        WorkerVersionError("worker 'x' <has> \"é\" \\ and\na second line"),
    ],
)
def test_our_own_errors_survive_any_quoting(error, quote):
    found = decode(quote(encode(error)))
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_an_error_that_was_cut_short_is_left_to_the_trace():
    text = encode(InputReadError("/data/a.jsonl is gone."))
    assert decode(text[:-20]) is None


def test_a_name_that_is_no_error_of_ours_is_a_failed_job():
    import base64

    word = base64.urlsafe_b64encode(json.dumps(["did_you_mean", "words"]).encode()).decode()
    assert type(decode(f"[modelbeam:{word}]")) is JobError
    assert isinstance(decode(f"[modelbeam:{word}]"), ModelbeamError)


def test_the_models_own_exception_is_found_in_a_trace():
    assert paragraph(FLINK.format(message="no such iris")) == "ValueError: no such iris"


@pytest.mark.parametrize("text", [LOST, TASK_MANAGER])
def test_a_lost_worker_is_called_one_and_no_stack_is_shown(text):
    said = paragraph(text)
    assert said.startswith("a worker was lost (")
    assert "\n" not in said
    assert ".java" not in said


def test_a_worker_that_hung_up_on_beams_own_job_service_was_lost():
    text = "Traceback (most recent call last):\n  File x\nRuntimeError: Channel closed prematurely."
    said = "a worker was lost (RuntimeError: Channel closed prematurely.)"
    assert paragraph(text) == said


def test_a_worker_without_docker_is_told_what_to_do():
    text = (
        "Traceback (most recent call last):\nCalledProcessError: Command '['docker', 'run']' failed"
    )
    assert "--environment_type" in paragraph(text)


def test_a_worker_that_never_connected_is_told_from_a_lost_one():
    text = "java.lang.RuntimeException: No client connected within timeout\n\tat x.Y.z(Y.java:1)"
    assert "does not have modelbeam" in paragraph(text)


def test_nothing_is_said_of_nothing():
    assert paragraph("") == "it gave no reason"


def test_an_endless_message_is_cut():
    assert len(paragraph(FLINK.format(message="x" * 10_000))) == MAX_LENGTH
