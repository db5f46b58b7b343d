"""``modelbeam check --runner …``: whether an engine and its workers can run the job, each by a try.

Whether workers see the input and the output is found out by workers: a small job of its own runs on
the engine. What it does is in :class:`modelbeam.beam.probe.Probe`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from modelbeam import engines, storage
from modelbeam.beam import causes
from modelbeam.engines.base import RemoteJob
from modelbeam.errors import EngineError, JobError, ModelbeamError
from modelbeam.job import flags as options
from modelbeam.job.prepare import Plan
from modelbeam.package.clean import clean_import
from modelbeam.package.staging import Staged, stage
from modelbeam.sources.splits import PLAN_FILE
from modelbeam.storage import join

PROBE_FILES = 20
"""How many input files the workers look for."""

PROBE_SECONDS = 300.0
"""How long the workers may take to answer."""


@dataclass(slots=True)
class Finding:
    """What one step found.

    Attributes:
        step: its name.
        ok: whether all is well; ``None`` if it could not be tried.
        text: what was found, or what is wrong and what to do.
    """

    step: str
    ok: bool | None
    text: str


@dataclass(slots=True)
class Examination:
    """The findings, in the order of the steps."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.ok is not False for finding in self.findings)

    def to_text(self) -> str:
        """For people, a line a step."""
        marks = {True: "ok", False: "WRONG", None: "not tried"}
        return "\n".join(
            f"{finding.step:<9}{marks[finding.ok]}: {finding.text}" for finding in self.findings
        )


class Doctor:
    """Examines one engine for one job.

    Args:
        plan: the job's.
        note: told what is being done, since some of it takes a while.
    """

    def __init__(
        self, plan: Plan, note: Callable[[str], None], requires: tuple[str, ...] = ()
    ) -> None:
        self._plan, self._note, self._requires = plan, note, requires
        self._flags = plan.job.beam_options
        self._engine = engines.remote_engine(self._flags)
        self._found = Examination()

    def examine(self) -> Examination:
        """Take all steps; one that needs what an earlier one found missing is not tried."""
        output = self._plan.output
        was_there = storage.exists(output.path), storage.exists(output.state)
        try:
            self._take_steps()
        finally:
            self._tidy(*was_there)
        return self._found

    def _take_steps(self) -> None:
        added = self._step("engine", self._reach)
        writable = self._step("staging", self._write_staging)
        staged = self._step("packages", self._package)
        if staged is not None and staged.built is not None:
            self._step("clean", lambda: self._import(staged))
        if added is None or writable is None or staged is None:
            self._found.findings.append(Finding("workers", None, "what is wrong above comes first"))
        elif self._engine.starts_machines:
            self._found.findings.append(
                Finding(
                    "workers",
                    None,
                    f"it would start machines on {self._engine.title}; the workers check their "
                    f"software, the input and the output when the job starts",
                )
            )
        else:
            self._step("workers", lambda: self._probe(staged, added))

    def _step(self, name: str, run: Callable[[], tuple[str, Any]]) -> Any:
        try:
            text, value = run()
        except ModelbeamError as error:
            self._found.findings.append(Finding(name, False, str(error)))
            return None
        self._found.findings.append(Finding(name, True, text))
        return value

    def _reach(self) -> tuple[str, list[str]]:
        added = self._engine.preflight(self._flags)
        return self._engine.describe(self._flags), added

    def _write_staging(self) -> tuple[str, bool]:
        """Write where Beam stages files, and where the job keeps its state; then tidy up."""
        places = [
            place
            for flag in ("--staging_location", "--temp_location")
            if (place := options.value_of(self._flags, flag))
        ]
        places.append(self._plan.output.state)
        for place in places:
            file = join(place, f"modelbeam-{os.urandom(4).hex()}")
            try:
                storage.make_directory(place)
                storage.write_atomically(file, b"")
                storage.remove([file])
            except OSError as error:
                raise JobError(f"{place} cannot be written: {error.strerror or error}.") from error
        return f"{', '.join(places)} can be written", True

    def _package(self) -> tuple[str, Staged]:
        staged = stage(
            self._plan.job,
            self._note,
            self._requires,
            loopback=self._engine.is_loopback(self._flags),
        )
        if staged.built is None:
            return "none: the workers are in this environment", staged
        items = staged.built.packages.items
        how = "sent" if staged.flags else "not sent: the workers are to have them"
        return f"{len(items)} for the model, {how}", staged

    def _import(self, staged: Staged) -> tuple[str, bool]:
        if staged.built is not None:
            clean_import(staged.built, self._plan.job.model)
        return "the model loads with these packages and nothing else", True

    def _probe(self, staged: Staged, added: list[str]) -> tuple[str, bool]:
        import apache_beam as beam

        from modelbeam.beam.options import remote_options
        from modelbeam.beam.private import new_pipeline
        from modelbeam.beam.probe import Probe, ProbeJob

        self._note("a small job tries the workers")
        place = join(self._plan.output.state, f"probe-{os.urandom(4).hex()}")
        secret = os.urandom(8).hex()
        storage.make_directory(place)
        storage.write_atomically(join(place, PLAN_FILE), secret.encode())
        work = ProbeJob(
            model=self._plan.job.model.filled(),
            place=place,
            secret=secret,
            inputs=tuple((i.path, i.size, i.mtime_ns) for i in self._plan.inputs[:PROBE_FILES]),
            versions=staged.versions,
            flags=options.storage_flags(self._flags),
        )
        defaults = [f"--job_name=modelbeam-check-{os.urandom(3).hex()}", *staged.flags, *added]
        try:
            pipeline = new_pipeline(remote_options(self._flags, defaults))
            pipeline | beam.Create([0]) | beam.ParDo(Probe(work))
            self._wait(self._engine.submit(pipeline, [*self._flags, *defaults]))
            answers = [
                json.loads(storage.read_bytes(join(place, name)))
                for name in storage.names_in(place)
                if name.startswith("answer-")
            ]
        finally:
            storage.remove_tree(place)
        if not answers:
            raise JobError(
                f"the workers wrote to {place}, and nothing of it is here. --output must be on "
                f"storage that the workers share with this machine."
            )
        where = "here" if self._engine.is_loopback(self._flags) else f"on {answers[0]['host']}"
        return f"a worker {where} loads the model and sees the input and the output", True

    def _tidy(self, output_was_there: bool, state_was_there: bool) -> None:
        output = self._plan.output
        with suppress(OSError):  # it is not to be written at all, which is said already
            if not state_was_there:
                storage.remove_tree(output.state)
            if not output_was_there and not output.single and not storage.names_in(output.path):
                storage.remove_tree(output.path)

    def _wait(self, job: RemoteJob) -> None:
        deadline = time.monotonic() + PROBE_SECONDS
        try:
            while not (status := job.poll()).over:
                if time.monotonic() > deadline:
                    job.cancel()
                    raise EngineError(
                        f"the workers did not answer within {PROBE_SECONDS:.0f} s; the job was "
                        f"cancelled. Are there any, and can they reach {job.engine}?"
                    )
                time.sleep(0.5)
            if status.state != "done":
                text = job.cause()
                raise causes.decode(text) or JobError(causes.paragraph(text) + ".")
        finally:
            job.close()


def examine(plan: Plan, note: Callable[[str], None], requires: tuple[str, ...] = ()) -> Examination:
    """Examine the engine that a job is to run on, and its workers.

    Args:
        plan: the job's.
        note: told what is being done.
        requires: distributions that the loaded model named.
    """
    return Doctor(plan, note, requires).examine()
