"""The engines, each started once a session and only if a test asks for it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the engines, which are no part of the package

# what the workers find: the test models, and how these are to behave there
os.environ["PYTHONPATH"] = str(ROOT / "tests" / "models")
os.environ["ON_WORKERS"] = "1"
os.environ["RECORD_SECONDS"] = "0.002"
_AT_WORK = tempfile.TemporaryDirectory(prefix="at-work-")
os.environ["PROCESSES"] = _AT_WORK.name

from engines.clusters import (  # noqa: E402
    FlinkCluster,
    JobServer,
    Kafka,
    Prism,
    SparkCluster,
    WorkerPool,
)


@pytest.fixture(scope="session")
def flink() -> Iterator[FlinkCluster]:
    """A Flink of two TaskManagers with two slots each."""
    with FlinkCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def flink_job_server(flink: FlinkCluster) -> Iterator[JobServer]:
    """Beam's job server for that Flink."""
    with flink.job_server() as server:
        yield server


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkCluster]:
    """A Spark of one worker with two cores."""
    with SparkCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark_job_server(spark: SparkCluster) -> Iterator[JobServer]:
    """Beam's job server for that Spark."""
    with spark.job_server() as server:
        yield server


@pytest.fixture(scope="session")
def prism() -> Iterator[Prism]:
    """Prism."""
    with Prism() as runner:
        yield runner


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A Kafka broker; each test makes topics of its own."""
    with Kafka() as broker:
        yield broker


@pytest.fixture(scope="session")
def pool() -> Iterator[WorkerPool]:
    """Workers in this Python."""
    with WorkerPool() as workers:
        yield workers


@pytest.fixture(scope="session")
def staged_pool() -> Iterator[WorkerPool]:
    """Workers that have Beam and what a job brings."""
    with WorkerPool(staged=True) as workers:
        yield workers
