"""What is done once a run is over: compared with a baseline, drawn, told to a monitor.

None of it changes the predictions, and none of it but ``--fail-on-drift`` fails a run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from modelbeam import formats, storage
from modelbeam.errors import DriftError, ModelbeamError, RequestError
from modelbeam.job.description import Job
from modelbeam.job.prepare import output_of
from modelbeam.job.result import Run
from modelbeam.profile.drift import compared, farthest, largest
from modelbeam.report.metrics import to_text
from modelbeam.sinks.files.output import Output

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run.

    Attributes:
        path: its output.
        run, profile: what it left.
    """

    path: str
    run: dict[str, Any]
    profile: dict[str, Any]


def place_of(path: str) -> Output:
    """The output of a run by its path: a directory, a file, or one of its descriptions."""
    path = storage.normalize(path)
    for name in ("run.json", "profile.json", "report.html"):
        if path.endswith(f"/{name}"):
            path = path[: -len(name) - 1]
    kind = formats.from_suffix(path)
    single = kind is not None and not path.endswith("/") and not storage.is_directory(path)
    return Output(path, single, kind or formats.Format("jsonl"))


def read_json(path: str) -> dict[str, Any] | None:
    """A JSON object, if it is there and is one."""
    try:
        content = json.loads(storage.read_if_there(path) or b"null")
    except (ValueError, NotADirectoryError):
        return None
    return content if isinstance(content, dict) else None


def find_baseline(asked: str, output: Output) -> Baseline | None:
    """The run to compare with; ``None`` if it is to be the last one here and there is none.

    Args:
        asked: what ``--baseline`` says: the output of a run, or ``last``.
        output: of this run.

    Raises:
        RequestError: there is no finished run with a profile.
    """
    with storage.asked_for(f"--baseline {asked}"):
        place = output if asked == "last" else place_of(asked)
        run, profile = read_json(place.run_file), read_json(place.profile_file)
    if run is not None and profile is not None and "counts" in run and "sketches" in profile:
        return Baseline(place.path, run, profile)
    if asked == "last":
        return None
    missing = place.run_file if run is None else place.profile_file
    raise RequestError(
        f"--baseline {asked}: there is no finished run to compare with ({missing} is missing or "
        f"says nothing). Name the --output of a run that was done without --no-report."
    )


def described(baseline: Baseline, run: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    """``baseline`` of a profile."""
    was = baseline.run
    rates = [
        each["counts"]["failed"] / each["counts"]["read"] if each["counts"]["read"] else None
        for each in (was, run)
    ]
    return {
        "path": baseline.path,
        "run": {
            "started": was.get("started"),
            "finished": was.get("finished"),
            "counts": was["counts"],
        },
        **compared(profile, baseline.profile),
        "failure_rate": {"was": rates[0], "is": rates[1]},
    }


def draw(output: Output, run: dict[str, Any], profile: dict[str, Any] | None) -> str:
    """Draw the report beside its run; returns its path."""
    from modelbeam.report import page

    made = page.draw(run, profile)
    storage.write_atomically(output.report_file, made.encode("utf-8", "replace"))
    return output.report_file


class Aftermath:
    """What follows a run; made before it, since its output may be that of the baseline.

    Args:
        job: what runs.
        note: told what a person should know.

    Raises:
        RequestError: there is no such baseline.
    """

    def __init__(self, job: Job, note: Note) -> None:
        self._job, self._note = job, note
        self._output = output_of(job)
        self._baseline = find_baseline(job.baseline, self._output) if job.baseline else None
        if job.baseline and self._baseline is None:
            note("--baseline last: no run was finished here before; there is nothing to compare.")

    def finished(self, run: Run) -> None:
        """The run is published.

        Raises:
            DriftError: a column is farther from the baseline than it may be.
        """
        profile = None
        if self._job.report:
            profile = self._report(run)
        self._tell(run.description, profile)
        if self._baseline is not None:
            for line in farthest(profile):
                self._note(f"since {self._baseline.path}: {line}")
        limit = self._job.fail_on_drift
        found = largest(((profile or {}).get("baseline") or {}).get("columns", ()))
        if limit is not None and found is not None and found["psi"] > limit:
            where = "input" if found["where"] == "inputs" else "prediction"
            error = DriftError(
                f"--fail-on-drift {limit:g}: {where} column '{found['name']}' is at "
                f"{found['psi']:.3g} from the run in {self._job.baseline}, by the population "
                f"stability index. The predictions are published and kept in "
                f"{self._output.path}; look at {self._output.profile_file} before they are used."
            )
            error.run = run
            raise error

    def failed(self, error: ModelbeamError) -> None:
        """The run failed; it may have left a description all the same."""
        run = getattr(error, "run", None)
        profile = None
        if run is not None and self._job.report:
            profile = self._report(run)
        self._tell(None if run is None else run.description, profile)

    def _report(self, run: Run) -> dict[str, Any] | None:
        """The profile, if there is one; if it is compared with another, the page is drawn again."""
        profile = None
        try:
            profile = read_json(self._output.profile_file)
            if profile is not None and self._baseline is not None:
                profile["baseline"] = described(self._baseline, run.description, profile)
                storage.write_atomically(self._output.profile_file, orjson.dumps(profile))
                draw(self._output, run.description, profile)
        except Exception as wrong:
            self._note(f"The report could not be drawn ({type(wrong).__name__}: {wrong}).")
        return profile

    def _tell(self, run: dict[str, Any] | None, profile: dict[str, Any] | None) -> None:
        path = self._job.metrics_file
        if path is None:
            return
        try:
            storage.write_atomically(path, to_text(run, profile, time.time()).encode())
        except (OSError, ModelbeamError) as wrong:
            self._note(f"--metrics-file {path} could not be written ({wrong}).")
