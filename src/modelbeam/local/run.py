"""Running a job on this machine: Beam's local runner, and the model in processes of its own."""

from __future__ import annotations

import threading

from modelbeam.errors import InputReadError, JobError
from modelbeam.job.prepare import (
    Plan,
    Resumable,
    Watcher,
    kept_of,
    make_publication,
    make_record,
    make_task,
    noted,
    too_many_errors,
)
from modelbeam.job.result import Run, finished_run
from modelbeam.local.coordinator import Coordinator
from modelbeam.local.crashes import Crashes
from modelbeam.local.pool import WorkerPool
from modelbeam.local.start import Started
from modelbeam.local.worker import STILL
from modelbeam.machine import collector_paused
from modelbeam.sinks.files.output import remove_state
from modelbeam.sinks.files.publish import finish, is_frozen
from modelbeam.sinks.files.state import State


class LocalRun:
    """One run on Beam's local runner, with the model in processes of its own.

    The model's process and Beam's import start at the same moment; the pipeline begins and waits
    until the model is loaded and everything is checked. Nothing is written before that.
    """

    def __init__(self, plan: Plan, watcher: Watcher, now: float, started: Started | None) -> None:
        self._plan, self._watcher, self._started = plan, watcher, now
        job = plan.job
        crashes = Crashes(job.record_timeout, job.max_crashes)
        self._pool = WorkerPool(job.model, plan.workers, job.worker_mode, started, crashes)
        self._coordinator = Coordinator(self._pool, plan.splits)

    def run(self) -> Run:
        state: State | None = None
        coordinator = self._coordinator
        try:
            pipeline = threading.Thread(target=self._pipeline, name="pipeline", daemon=True)
            pipeline.start()
            info = self._pool.wait_loaded(self._watcher.loading)
            self._plan = noted(self._plan, info, self._pool.sample)
            record = make_record(self._plan, info)
            resumable = Resumable(self._plan, record)
            if resumable.done is not None:
                remove_state(self._plan.output)  # if a crash left a rest of it
                return resumable.done
            state = State(self._plan.output, record, fresh=not resumable.resumes)
            if is_frozen(self._plan.output):
                return finished_run(finish(self._plan.output))
            state.write_plan(self._plan.splits)
            self._watcher.begin(self._plan)
            for note in self._plan.notes:
                self._watcher.note(note)
            publication = make_publication(self._plan, record, info, self._started, "this machine")
            coordinator.open(make_task(self._plan, record), self._plan.bytes, publication)
            self._wait()
        except BaseException as error:
            coordinator.close()
            kept = kept_of(self._plan) if isinstance(error, KeyboardInterrupt) else ""
            if state is not None:
                state.discard_if_empty()
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(kept) from None
            raise
        finally:
            self._watcher.end()
            coordinator.close()
            if state is not None:
                state.close()
        return finished_run(coordinator.run)

    def _pipeline(self) -> None:
        """Run Beam in its own thread, so that the main one can always answer Ctrl-C."""
        plan, coordinator = self._plan, self._coordinator
        try:
            with collector_paused():
                import modelbeam.profile.merge  # noqa: F401 - while the model is loaded
                from modelbeam.beam.chain import build_local
                from modelbeam.beam.options import local_options
                from modelbeam.beam.private import new_pipeline

            threads = min(len(plan.splits), plan.workers * 2)
            made = local_options(plan.job.beam_options, threads)
            pipeline = new_pipeline(made)
            build_local(pipeline, len(plan.splits), coordinator.name)
            pipeline.run().wait_until_finish()
            if coordinator.run is None:
                if coordinator.damaged:
                    raise _first_of(coordinator.damaged)
                raise JobError("The pipeline ended without publishing. Run again with --resume.")
        except BaseException as error:
            coordinator.stop(error)  # of no effect after the first failure

    def _wait(self) -> None:
        coordinator = self._coordinator
        told = 0
        while not coordinator.wait_finished(0.1):
            totals = coordinator.totals()
            self._watcher.update(totals)
            for damaged in coordinator.damaged[told:]:
                told += 1
                self._watcher.note(f"{damaged} The others are done first.")
            if place := self._pool.look_after():
                hint = "" if self._plan.job.record_timeout else "; --record-timeout sets a limit"
                self._watcher.note(f"no progress for {STILL:g} s in {place}{hint}")
            if error := too_many_errors(self._plan.job.max_errors, totals, self._plan.output):
                raise error
        if coordinator.failure is not None:
            raise coordinator.failure


def _first_of(damaged: list[InputReadError]) -> InputReadError:
    """The first of some errors, with the names of the other files."""
    first = damaged[0]
    others = list(dict.fromkeys(error.path for error in damaged if error.path != first.path))
    if not others:
        return first
    shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if others[5:] else "")
    made = InputReadError(f"{first} These cannot be read either: {shown}.")
    made.damaged, made.path, made.details = True, first.path, first.details
    return made
