"""What an engine is, and a job on it: the two protocols that each engine's module keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

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
    """One job on one engine, as the process that submitted it sees it.

    Attributes:
        engine: the engine's name for people, such as ``Flink``.
        name: the job's, as the engine shows it.
        identity: what :meth:`Engine.attach` needs to find it again, and under ``engine`` the
            engine's own name; plain strings, no secret. Empty if the job cannot be found again.
    """

    engine: str
    name: str
    identity: dict[str, str]

    @property
    def link(self) -> str | None:
        """Its page in the engine's web interface, or ``None``."""

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


@runtime_checkable
class Engine(Protocol):
    """One engine: everything that differs from one to another. ``flags`` are always Beam's.

    Attributes:
        name: its key in the registry.
        title: its name for people, such as ``Flink``.
        java_options: options that its Java side knows beside Beam's Python ones, and whether each
            must have a value.
        example_url: where files must be since its workers are certainly on other machines, such as
            ``gs://my-bucket``; empty if they may see this machine's.
        starts_machines: whether it starts machines for a job, so that ``check`` tries none.
    """

    name: str
    title: str
    java_options: Mapping[str, bool]
    example_url: str
    starts_machines: bool

    def matches(self, flags: Sequence[str]) -> bool:
        """Whether the flags ask for this engine; they name no runner of this machine."""

    def is_loopback(self, flags: Sequence[str]) -> bool:
        """Whether the workers are threads of the submitting process."""

    def outlives(self, flags: Sequence[str]) -> bool:
        """Whether a job goes on when the submitting process has ended.

        It does not if its workers are threads here, or if Beam started the engine, or a job server
        that the job runs in.
        """

    def describe(self, flags: Sequence[str]) -> str:
        """The engine in a few words, such as ``Flink 1.19.3 with 4 slots``."""

    def preflight(self, flags: Sequence[str]) -> list[str]:
        """Make sure that it is there, before anything is looked at, packaged or submitted.

        Returns:
            Beam's flags that it needs beside the user's, as ``--name=value``.

        Raises:
            RequestError: it does not answer, or a flag that it needs is missing.
        """

    def process_flags(self, flags: Sequence[str]) -> list[str]:
        """Flags that give each task a Python process of its own.

        For a model that is Python code and holds the interpreter's lock; others share one, and its
        memory, by threads.
        """

    def submit(self, pipeline: Any, flags: Sequence[str]) -> RemoteJob:
        """Run a pipeline, and return the job as soon as the engine has it.

        Args:
            pipeline: Beam's.
            flags: those that it was made with, defaults and ``--job_name`` included (Beam itself
                changes some of the options made of them).

        Raises:
            ModelbeamError: it could not be submitted.
        """

    def attach(self, identity: dict[str, str]) -> RemoteJob:
        """The job that an earlier process submitted.

        Raises:
            EngineUnreachableError: the engine does not answer.
            JobNotFoundError: it does not know the job.
        """


@runtime_checkable
class LaneEngine(Protocol):
    """An engine that also runs lanes, which go on as data arrives; not every engine can."""

    def lane_slots(self, flags: Sequence[str]) -> int | None:
        """How many tasks it runs at once, if that is known."""

    def lane_flags(self, flags: Sequence[str]) -> list[str]:
        """Beam's flags for a job of lanes, as ``--name=value``.

        With them the engine starts a lane again that was lost, and however often that happens, and
        spreads lanes over processes.
        """
