"""A job on an engine, as the process that submitted it sees it."""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from modelbeam.beam import causes
from modelbeam.errors import EngineError, ModelbeamError
from modelbeam.job.flags import runner_of

JobState = Literal["starting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Status:
    """How a job is, in the engine's own figures; what it does not tell is ``None``.

    Attributes:
        state: where it is between its start and its end.
        splits: how many its metrics count as done.
        read, failed: records.
        tasks: how many tasks of the model's step run now.
        waits: why the job does not go on, where the engine tells, with what would help.
    """

    state: JobState
    splits: int | None = None
    read: int | None = None
    failed: int | None = None
    tasks: int | None = None
    waits: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state in ("done", "failed", "cancelled")


class RemoteJob(Protocol):
    """One job on one engine.

    Attributes:
        engine: the engine's name for people, such as ``Flink``.
        name: the job's, as the engine shows it.
        identity: what :func:`attach` needs to find it again; plain strings, no secret.
        link: its page in the engine's web interface, or ``None``.
    """

    engine: str
    name: str
    identity: dict[str, str]
    link: str | None

    def poll(self) -> Status:
        """Ask the engine.

        Raises:
            EngineUnreachableError: it does not answer.
            JobNotFoundError: it no longer knows the job.
        """

    def cause(self) -> str:
        """The engine's text on why the job failed, traces and all; empty if it has none."""

    def cancel(self) -> None:
        """Ask the engine to cancel it.

        Raises:
            EngineUnreachableError: it does not answer.
        """

    def close(self) -> None:
        """Stop what was started in this process for the job; the job itself goes on."""


_ENGINES = {
    "flink": "modelbeam.engines.flink",
    "spark": "modelbeam.engines.spark",
    "dataflow": "modelbeam.engines.dataflow",
    "prism": "modelbeam.engines.portable",
    "portable": "modelbeam.engines.portable",
}
"""Each module has the functions below, under the same names and without ``engine``."""


def preflight(engine: str, flags: Sequence[str]) -> list[str]:
    """Make sure that the engine is there, before anything is looked at, packaged or submitted.

    Returns:
        Beam's flags that this engine needs beside the user's, as ``--name=value``.

    Raises:
        RequestError: it does not answer, or a flag that it needs is missing.
    """
    return list(_module(engine).preflight(flags))


def process_flags(engine: str, flags: Sequence[str]) -> list[str]:
    """Flags that give each task a Python process of its own.

    For a model that is Python code and holds the interpreter's lock; others share one, and its
    memory, by threads.
    """
    return list(_module(engine).process_flags(flags))


def describe(engine: str, flags: Sequence[str]) -> str:
    """The engine in a few words, such as ``Flink 1.19.3 with 4 slots``."""
    return str(_module(engine).describe(flags))


def submit(engine: str, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
    """Run a pipeline on its engine, and return the job as soon as that has it.

    Args:
        engine: a key of the table above.
        pipeline: Beam's.
        flags: Beam's flags that it was made with, defaults and ``--job_name`` included (Beam
            itself changes some of the options made of them).

    Raises:
        ModelbeamError: it could not be submitted.
    """
    module = _module(engine)
    _stage_once(pipeline.runner)
    try:
        with _signals_kept():
            result = pipeline.run()
    except ModelbeamError:
        raise
    except Exception as error:
        explained: ModelbeamError | None = module.submission_error(error)
        if explained is not None:
            raise explained from error
        details = getattr(error, "details", None)  # of gRPC's exceptions
        text = (details() if callable(details) else "") or f"{type(error).__name__}: {error}"
        raise EngineError(
            f"The job could not be submitted to {runner_of(flags)}: {causes.paragraph(text)}."
        ) from error
    job: RemoteJob = module.follow(result, flags)
    return job


def _stage_once(runner: Any) -> None:
    """Have the list of staged files end with the staging.

    Beam's Python and its Java runners call different things ``files_to_stage``: a job server would
    take our wheels for the jars of its engine, and leave its own behind.
    """
    from apache_beam.options.pipeline_options import SetupOptions

    run = getattr(runner, "run_portable_pipeline", None)
    if run is None:
        return

    def run_without(pipeline: Any, options: Any) -> Any:
        options.view_as(SetupOptions).files_to_stage = None
        return run(pipeline, options)

    runner.run_portable_pipeline = run_without


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Beam's job servers take SIGINT for themselves; Ctrl-C is ours to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in kept:
            signal.signal(number, handler)


def attach(identity: dict[str, str]) -> RemoteJob:
    """The job that an earlier process submitted.

    Raises:
        EngineUnreachableError: its engine does not answer.
        JobNotFoundError: its engine does not know it.
    """
    job: RemoteJob = _module(identity["engine"]).attach(identity)
    return job


def _module(engine: str) -> Any:
    return importlib.import_module(_ENGINES[engine])
