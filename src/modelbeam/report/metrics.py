"""A finished run as Prometheus reads it from a file.

The text format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_text(run: Mapping[str, Any] | None, profile: Mapping[str, Any] | None, ended: float) -> str:
    """The metrics of a run.

    Args:
        run: its description; ``None`` if it failed before there was one.
        profile: what was collected, if anything was.
        ended: when, in seconds since the epoch.
    """
    lines: list[str] = []

    def metric(name: str, said: str, values: list[tuple[dict[str, str], float]]) -> None:
        if values:
            lines.append(f"# HELP modelbeam_{name} {said}")
            lines.append(f"# TYPE modelbeam_{name} gauge")
            lines.extend(f"modelbeam_{name}{_labels(of)} {value:.15g}" for of, value in values)

    good = run is not None and run["status"] == "succeeded"
    metric("success", "Whether the run succeeded.", [({}, float(good))])
    metric("finished_timestamp_seconds", "When the run ended.", [({}, ended)])
    if run is None:
        return "\n".join(lines) + "\n"
    counts = run["counts"]
    metric(
        "records",
        "Records of the run by what became of them.",
        [({"state": state}, counts[state]) for state in ("read", "predicted", "failed")],
    )
    metric(
        "model_records",
        "Records of each of several models.",
        [
            ({"model": name, "state": state}, tally[state])
            for name, tally in counts.get("models", {}).items()
            for state in ("read", "predicted", "failed")
        ],
    )
    failed: dict[tuple[str, str, str], int] = {}
    for kind in run["failures"]:
        key = kind.get("model", ""), kind["stage"], kind["type"]
        failed[key] = failed.get(key, 0) + kind["count"]
    metric(
        "failures",
        "Failed records by model, stage and type.",
        [
            ({"model": model, "stage": stage, "type": name}, count)
            for (model, stage, name), count in failed.items()
        ],
    )
    metric("duration_seconds", "How long the run took.", [({}, run["seconds"])])
    metric("records_per_second", "Records read a second.", [({}, run["records_per_second"])])
    metric("bytes_read", "Bytes of the input.", [({}, run["bytes_read"])])
    metric("splits", "Pieces of work.", [({}, run["splits"])])
    metric("crashes", "Deaths of processes with the model.", [({}, len(run["crashes"]))])
    if profile is not None:
        stages = profile["time"]["stages"]
        metric(
            "stage_seconds",
            "Seconds of all workers by stage.",
            [({"stage": stage}, seconds) for stage, seconds in stages.items()],
        )
        drifted = (profile.get("baseline") or {}).get("columns", [])
        metric(
            "drift_psi",
            "Population stability index against the baseline.",
            [
                ({"where": one["where"], "column": one["name"]}, one["psi"])
                for one in drifted
                if one["psi"] is not None
            ],
        )
    return "\n".join(lines) + "\n"


def _labels(of: Mapping[str, str]) -> str:
    """Labels, the values escaped as the format says."""
    if not of:
        return ""
    texts = []
    for name, value in of.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        texts.append(f'{name}="{escaped}"')
    return "{" + ",".join(texts) + "}"
