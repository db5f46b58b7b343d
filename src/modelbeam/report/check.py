"""``modelbeam check``: everything but the run, and ``modelbeam describe``."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from modelbeam import engines, storage
from modelbeam.errors import RequestError
from modelbeam.job import flags as options
from modelbeam.job.description import Job, ModelSpec
from modelbeam.job.prepare import (
    SAMPLE_RECORDS,
    Plan,
    check_places,
    distributions,
    make_plan,
    make_record,
    make_task,
    noted,
)
from modelbeam.job.task import Sample
from modelbeam.kafka.address import is_topic, read_settings
from modelbeam.kafka.cluster import Cluster
from modelbeam.local.pool import WorkerPool
from modelbeam.local.stream import ends_of
from modelbeam.models.base import ModelInfo
from modelbeam.report.doctor import Examination, examine
from modelbeam.storage import join
from modelbeam.text import count, size

PREDICTION = " " * 9
"""What a line begins with that shows a prediction; as wide as the labels of the others."""

EXAMPLES = 3
"""Predictions and failures that are shown."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found: the model, the plan, and what became of the first records of each file."""

    info: ModelInfo
    plan: Plan
    samples: list[tuple[str, Sample]]
    engine: Examination | None = None

    @property
    def read(self) -> int:
        """Records that were tried."""
        return sum(sample.read for _, sample in self.samples)

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(sample.failed for _, sample in self.samples)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "model": self.info.to_dict(),
            "models": [one.to_dict() for one in self.info.each],
            "plan": {
                "files": len(self.plan.inputs),
                "bytes": self.plan.bytes,
                "splits": len(self.plan.splits),
                "split_size": self.plan.split_size,
                "workers": self.plan.workers,
                "runner": options.runner_of(self.plan.job.beam_options) or "DirectRunner",
                "output": self.plan.output.path,
                "notes": list(self.plan.notes),
            },
            "sample": {
                "read": self.read,
                "predicted": self.read - self.failed,
                "failed": self.failed,
                "files": [
                    {"path": path, **asdict(sample), "predictions": _predictions(sample)}
                    for path, sample in self.samples
                ],
            },
            "engine": asdict(self.engine)["findings"] if self.engine else None,
        }

    def to_text(self) -> str:
        """For people."""
        info, plan = self.info, self.plan
        takes = {"record": "one record", "batch": "lists of records", "table": "Arrow batches"}
        title = engines.title_of(plan.job.beam_options)
        lines = [
            *(
                f"model    {one.name} {one.version}, {one.interface}, takes {takes[one.style]}"
                for one in info.each
            ),
            f"input    {_inputs(plan)}",
            f"plan     {count(len(plan.splits), 'split')} of up to "
            f"{_amount(plan, plan.split_size)}, "
            + (title if self.engine else f"{count(plan.workers, 'worker')}, the local runner"),
            f"output   {_output(plan)}",
            f"tried    {count(self.read, 'record')}: {self.read - self.failed} predicted, "
            f"{self.failed} failed",
        ]
        misfits: Counter[str] = Counter()
        for _, sample in self.samples:
            misfits.update(dict(sample.misfits))
        for misfit, times in misfits.most_common(EXAMPLES):
            of = f" ({times} of {self.read - self.failed} predictions)" if times else ""
            lines.append(
                f"schema   the output does not fit the model's output schema: {misfit}{of}"
            )
        shown = [p for _, sample in self.samples for p in _predictions(sample)][:EXAMPLES]
        lines += [f"{PREDICTION}{orjson.dumps(prediction).decode()}" for prediction in shown]
        failures = [
            (path, *failure) for path, sample in self.samples for failure in sample.failures
        ]
        for path, line, stage, kind, error in failures[:EXAMPLES]:
            lines.append(f"failed   {path}:{line} {stage}, {kind}: {' '.join(error.split())}")
        if len(failures) > EXAMPLES:
            lines.append(f"         and {len(failures) - EXAMPLES} more")
        lines += [f"note     {note}" for note in plan.notes]
        if self.engine is not None:
            lines.append(self.engine.to_text())
        return "\n".join(lines)


def _amount(plan: Plan, number: int) -> str:
    """So many bytes, or of topics offsets."""
    return count(number, "offset") if is_topic(plan.inputs[0].path) else size(number)


def _inputs(plan: Plan) -> str:
    noun = "partition" if is_topic(plan.inputs[0].path) else "file"
    return f"{count(len(plan.inputs), noun)}, {_amount(plan, plan.bytes)}"


def _output(plan: Plan) -> str:
    path = plan.output.path
    if is_topic(path):
        return f"{path} (a message a record), failed records in {plan.job.errors}"
    kind = "one file" if plan.output.single else f"a directory of {_shards(plan)}"
    return f"{path} ({plan.output.format.suffix[1:]}, {kind})"


def _shards(plan: Plan) -> str:
    asked = plan.job.shards
    return "shards" if asked is None else count(asked, "shard")


def _predictions(sample: Sample) -> list[Any]:
    return [orjson.loads(line) for line in sample.predictions.splitlines()[:EXAMPLES]]


def check_job(job: Job, note: Callable[[str], None]) -> Check:
    """Load the model, try it on the first records of the first files, and make the plan.

    If the job is for an engine, that and its workers are examined as well.

    Raises:
        RequestError: what a run would refuse as well.
    """
    engines.check_flags(job.beam_options)
    storage.configure(job.beam_options)
    engine = engines.engine_of(job.beam_options)
    if engine is not None:
        check_places(job, engine.title, engine.example_url)
        engine.preflight(job.beam_options)
    planned = _as_planned(job)
    plan = make_plan(planned if engine is None else planned.on_any_machine())
    pool = WorkerPool(job.model, 1, "threads")
    try:
        info = pool.wait_loaded()
        plan = noted(plan, info, pool.sample)
        task = make_task(plan, make_record(plan, info))
        samples = []
        for piece in (piece for split in plan.splits for piece in split.pieces):
            if piece.start:
                continue
            samples.append((piece.path, pool.sample(piece, SAMPLE_RECORDS, task)))
            if sum(sample.read for _, sample in samples) >= SAMPLE_RECORDS:
                break
    finally:
        pool.close()
    if planned is not job:
        plan = replace(plan, job=job, output=replace(plan.output, path=job.output))
    examination = None if engine is None else examine(plan, note, distributions(plan, info))
    return Check(info, plan, samples, examination)


def _as_planned(job: Job) -> Job:
    """The job with an output that a plan can be made for.

    Of a run that goes on, what is there already is what it goes on with. Of topics it is looked
    whether they are there.

    Raises:
        RequestError: they are not, or do not fit each other.
    """
    if is_topic(job.output):
        target, errors = ends_of(job)
        settings = read_settings(job.kafka_config) if job.kafka_config else {}
        cluster = Cluster(target.brokers, settings)
        cluster.partitions(target, "--output")
        cluster.partitions(errors, "--errors")
    elif not job.streaming or not storage.is_directory(join(job.output, "_modelbeam", "log")):
        return job
    nowhere = join(tempfile.gettempdir(), f"modelbeam-check-{os.urandom(8).hex()}")
    more = {"output": nowhere, "errors": None, "resume": False}
    return job.model_copy(update=more)


def describe_model(model: str | ModelSpec) -> ModelInfo:
    """Load a model and return what it says of itself.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        spec = ModelSpec.parse(model)
    except ValueError as error:
        raise RequestError(f"--model {model}: {error}.") from None
    pool = WorkerPool(spec, 1, "threads")
    try:
        return pool.wait_loaded()
    finally:
        pool.close()
