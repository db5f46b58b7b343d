"""The job's one chain: descriptors in, manifests and then an output out."""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from modelbeam.beam.in_pool import PredictSplitInPool, PublishSplitsInPool
from modelbeam.beam.on_worker import PredictSplit, PublishSplits, ReadPlan, WorkerJob


def build(pipeline: beam.Pipeline, splits: Any, work: beam.DoFn, publishing: beam.DoFn) -> None:
    """The job: descriptors in, manifests and then an output out; data never crosses a shuffle.

    Args:
        pipeline: Beam's.
        splits: the transform that makes the descriptors.
        work: predicts and commits the split that a descriptor tells of.
        publishing: publishes once all splits are committed.
    """
    (
        pipeline
        | "Splits" >> splits
        | "Spread" >> beam.Reshuffle()
        | "PredictSplit" >> beam.ParDo(work)
        | "Gather" >> beam.GroupByKey()  # a combiner would cost two more stages
        | "Publish" >> beam.ParDo(publishing)
    )


def build_local(pipeline: beam.Pipeline, splits: int, pool: str) -> None:
    """The job on this machine: a pool has the splits, and processes that hold the model."""
    created = beam.Create(range(splits), reshuffle=False)
    build(pipeline, created, PredictSplitInPool(pool), PublishSplitsInPool(pool))


def build_remote(pipeline: beam.Pipeline, work: WorkerJob) -> None:
    """The job on an engine: its workers load the model, and read the plan from the job's state."""
    build(pipeline, ReadPlan(work), PredictSplit(work), PublishSplits(work))
