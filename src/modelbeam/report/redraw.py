"""``modelbeam report``: the report of a run again, also of one that broke."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from modelbeam import storage
from modelbeam._version import __version__
from modelbeam.errors import RequestError
from modelbeam.predicting.counts import Counts
from modelbeam.profile.merge import Merged
from modelbeam.profile.wants import Wants
from modelbeam.report.after import described, draw, find_baseline, place_of, read_json
from modelbeam.sinks.files.manifest import find_manifests
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.state import begun_record, earlier_plan
from modelbeam.storage import join


@dataclass(frozen=True, slots=True)
class Redrawn:
    """What was found of a run, and where its report is.

    Attributes:
        run, profile: as the files have them.
        page: the report.
    """

    run: dict[str, Any]
    profile: dict[str, Any] | None
    page: str


def redraw(path: str, baseline: str | None = None) -> Redrawn:
    """Put a run's profile together again as far as it is there, compare it, and draw it.

    Args:
        path: the run's output.
        baseline: the output of a run to compare with.

    Raises:
        RequestError: there is no run, or no such baseline.
    """
    profile: dict[str, Any] | None
    with storage.asked_for(f"report {path}"):
        output = place_of(path)
        if output.unfinished():
            run, profile = _broken(output)
        else:
            found = read_json(output.run_file)
            if found is None or "counts" not in found:
                raise RequestError(
                    f"report {path}: there is no run ({output.run_file} is missing, or is none of "
                    f"modelbeam's). Name the --output of a run: its directory or its file."
                )
            run, profile = found, read_json(output.profile_file)
    if baseline is not None and profile is not None:
        known = None if baseline == "last" else find_baseline(baseline, output)
        if known is None:
            raise RequestError(
                f"report {path}: --baseline last is for a run that replaces it; name the output "
                f"of another run."
            )
        profile["baseline"] = described(known, run, profile)
    if profile is not None:
        storage.write_atomically(output.profile_file, orjson.dumps(profile))
    return Redrawn(run, profile, draw(output, run, profile))


def _broken(output: Output) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of a run that did not come to its end: the splits that are done."""
    record = begun_record(output)
    splits = earlier_plan(output) or []
    merged, counts = Merged(Wants()), Counts()
    units: dict[str, int] = {}
    done = 0
    began, ended = None, 0.0
    found = find_manifests(output.state, splits, record.fingerprint)
    for split, manifest in zip(splits, found, strict=True):
        source, first = split.pieces[0].path, None
        if len(split.pieces) == 1 and source in units:
            first = units[source]
        if manifest is None:
            if len(split.pieces) == 1:
                units.pop(source, None)  # how many lines it has is not known
            continue
        done += 1
        if len(split.pieces) == 1:
            if split.pieces[0].start == 0:
                first = 0
            if first is not None:
                units[source] = first + manifest.units
        counts.add(manifest.counts, first or 0)
        content = None
        if manifest.profile is not None:
            content = storage.read_if_there(join(output.state, "attempts", manifest.profile.name))
        merged.add(split.index, content, first or 0)
        span = merged.last_span()
        if content is not None and span is not None:
            began = span[0] if began is None else min(began, span[0])
            ended = max(ended, span[1])
    start = began if began is not None else time.time()
    settings = {key: value for key, value in record.settings.items() if value is not None}
    run = {
        "modelbeam": __version__,
        "status": "unfinished",
        "models": [],
        "output": output.path,
        "files": [],
        "counts": {"read": counts.read, "predicted": counts.predicted, "failed": counts.failed},
        "failures": [kind.to_dict() for kind in counts.kinds],
        "notes": [
            f"This run is not finished: {done} of {len(splits)} splits are done, and nothing is "
            f"published. The figures are of these splits. Behind a split of a file that is not "
            f"done, lines are counted from the beginning of their own split."
        ],
        "recovered": counts.recovered,
        "crashes": [],
        "splits": len(splits),
        "splits_done": done,
        "bytes_read": sum(split.bytes for split in splits),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        "finished": None,
        "seconds": round(max(ended - start, 0.0), 3),
        "records_per_second": round(counts.read / (ended - start)) if ended > start else 0,
        "job": {**record.to_dict(), "settings": settings},
    }
    return run, merged.to_dict(start, max(ended, start))
