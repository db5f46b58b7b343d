"""All that Beam keeps private or calls internal, and modelbeam uses, or undoes.

Nothing of this is promised by Beam from one version to the next. So it stands here and nowhere else
(``tests/test_private.py``), each with the reason; ``make versions`` tries it with the oldest and
the newest Beam. What is heavy is imported when it is used.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apache_beam as beam

# A DoFn that collects elements gives each its own window and time again. Beam's documentation shows
# this class for it, in a package that is otherwise internal.
from apache_beam.utils.windowed_value import WindowedValue as WindowedValue

# Runs a pipeline in this process. ``DirectRunner`` would first look for Prism's binary, download it
# and start it; only the class itself is certain to be this runner.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def new_pipeline(options: Any) -> beam.Pipeline:
    """A pipeline that leaves nothing in the temporary directory.

    Beam makes a directory for each one, which it removes only after a ``with`` statement, and needs
    only for transforms in other languages.
    """
    pipeline = beam.Pipeline(options=options)
    _keep_labels(pipeline)
    directory = getattr(pipeline, "local_tempdir", None)
    if directory:
        with suppress(OSError):
            os.rmdir(directory)
    return pipeline


def _keep_labels(pipeline: beam.Pipeline) -> None:
    """Have the names of this pipeline's transforms stay as they are in a notebook too.

    In one Beam gives each transform another name, for pipelines that are built cell by cell, and
    imports all of its interactive part for that, which fails beside pandas 3. Nothing public
    switches it off. Pipelines of others in this process stay as they were.
    """
    from apache_beam import pipeline as home

    real = getattr(home, "alter_label_if_ipython", None)
    if real is None:
        return
    _ours.add(pipeline)
    if not getattr(real, "keeps_ours", False):

        def alter(transform: Any, source: Any) -> None:
            one = next(iter(source), None) if isinstance(source, (tuple, list)) else source
            if getattr(one, "pipeline", one) not in _ours:
                real(transform, source)

        alter.keeps_ours = True  # type: ignore[attr-defined]
        home.alter_label_if_ipython = alter


_ours: weakref.WeakSet[beam.Pipeline] = weakref.WeakSet()


def before_submission(runner: Any, change: Callable[[Any], None]) -> None:
    """Have the options changed once everything is staged, before they go to the engine.

    Nothing public stands between the two; what ``change`` gets are Beam's ``PipelineOptions``.
    """
    run = getattr(runner, "run_portable_pipeline", None)
    if run is None:
        return

    def run_changed(pipeline: Any, options: Any) -> Any:
        change(options)
        return run(pipeline, options)

    runner.run_portable_pipeline = run_changed


def listen_on_loopback() -> None:
    """Have the gRPC servers that Beam starts in this process listen on the loopback interface only.

    Beam binds its loopback worker, and the services of a job service in this process, to all
    interfaces, without authentication; whoever reaches the worker may have it run code. Nothing
    public says where they listen. Servers of others in this process stay as they are.
    """
    import grpc

    real = grpc.server
    if getattr(real, "on_loopback", False):
        return

    def server(*arguments: Any, **settings: Any) -> Any:
        made = real(*arguments, **settings)
        if sys._getframe(1).f_globals.get("__name__", "").startswith("apache_beam."):
            add = made.add_insecure_port
            made.add_insecure_port = lambda address: add(_ANYWHERE.sub("localhost:", address))
        return made

    server.on_loopback = True  # type: ignore[attr-defined]
    grpc.server = server


_ANYWHERE = re.compile(r"^(\[::\]|0\.0\.0\.0):")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all of Beam's flags to a parser.

    ``PipelineOptions`` takes an unknown flag for the name of an attribute, or passes it over; to
    tell a wrong one it must be known which there are. The method is the one that a subclass
    defines for its flags.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    for options in (PipelineOptions, *PipelineOptions.__subclasses__()):
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(parser)


def runner_names() -> list[str]:
    """The runners that ``--runner`` takes by a short name; Beam tells them only when it fails."""
    from apache_beam.options.pipeline_options import StandardOptions

    return list(StandardOptions.KNOWN_RUNNER_NAMES)


def options_of_this_worker() -> Any:
    """The ``PipelineOptions`` that a job brought to this worker, or ``None``.

    A transform is told nothing of them; Beam's ``FileSystems`` are, and keep them.
    """
    from apache_beam.io.filesystems import FileSystems

    return getattr(FileSystems, "_pipeline_options", None)


# A job at a job service. ``PipelineResult`` waits, and cancels when it is told to wait no longer;
# to look, to leave and to come back the service itself is asked.


def job_api() -> Any:
    """The messages of Beam's job service (``beam_job_api.proto``)."""
    from apache_beam.portability.api import beam_job_api_pb2

    return beam_job_api_pb2


def job_service_at(channel: Any) -> Any:
    """The job service at the other end of a gRPC channel."""
    from apache_beam.portability.api import beam_job_api_pb2_grpc

    return beam_job_api_pb2_grpc.JobServiceStub(channel)


def job_of(result: Any) -> tuple[Any, str]:
    """The job service that a pipeline was submitted to, and the job's id there."""
    return result._job_service, result._job_id


def is_in_this_process(service: Any) -> bool:
    """Whether a job service is an object here, whose methods take no time-out."""
    return hasattr(service, "_jobs")


def end_loopback_worker(result: Any) -> None:
    """Stop the worker that a submission started in this process; a result does so by itself only
    at the end of its own waiting."""
    result._cleanup()


def results_of(metrics: Any) -> Any:
    """``MetricResults`` of what a job service answers to ``GetJobMetrics``."""
    from apache_beam.runners.portability.portable_runner import PortableMetrics

    return PortableMetrics(metrics)


# Dataflow. Beam refuses wrong options only after everything is packaged and uploaded.


def options_of(result: Any) -> Any:
    """The ``PipelineOptions`` that a job was submitted to Dataflow with; Beam fills some in."""
    return result._options


def dataflow_problems(options: Any) -> list[str]:
    """What Beam would refuse of the options once the pipeline is built."""
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

    return list(PipelineOptionsValidator(options, DataflowRunner()).validate())


def storage_client(options: Any, with_credentials: bool) -> Any:
    """Google's client for Cloud Storage with the credentials with which Beam will stage files."""
    from apache_beam.io.gcp.gcsio import create_storage_client

    return create_storage_client(options, with_credentials)


# A handler of a handler says by attributes alone what is within it.


def of_several(keyed: Any) -> bool:
    """Whether a ``KeyedModelHandler`` has a model for each key."""
    return not getattr(keyed, "_single_model", True)


def unkeyed(keyed: Any) -> Any:
    """The handler within a ``KeyedModelHandler`` of one model."""
    return getattr(keyed, "_unkeyed", keyed)


def innermost(handler: Any) -> Any:
    """The handler within those that only add a function before or after it."""
    while hasattr(handler, "_base"):
        handler = handler._base
    return handler
