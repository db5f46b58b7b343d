"""Models of every kind reach workers that have nothing but Beam, with files and requirements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from crashing import Command, description
from trained import KINDS, RECORDS

from engines.clusters import FlinkCluster, WorkerPool
from modelbeam import models
from modelbeam.testing import predict, written

INSTALLING = 800
"""Seconds that a worker may take to install all these libraries, and to predict."""

pytestmark = [pytest.mark.timeout(1000), pytest.mark.filterwarnings("ignore")]


def test_models_of_several_kinds_are_packaged_for_flink_and_predict_the_same_there(
    flink: FlinkCluster, staged_pool: WorkerPool, tmp_path: Path
) -> None:
    """One job for all: each worker installs what all of them need, and has each model's file."""
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in RECORDS))
    expected: dict[str, list[dict[str, Any]]] = {}
    listed = []
    for kind in ("sklearn", "onnx", "xgboost", "mlflow"):
        make, options = KINDS[kind]
        path = make(tmp_path)
        features = {"features": list(options.features)} if options.features else {}
        listed.append({"target": path.name, "name": kind, **features})
        expected[kind] = written(predict(models.load(str(path), options=options), RECORDS))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({"models": listed}))
    flags = [*flink.flags, *staged_pool.flags, "--parallelism=1", "--sdk_worker_parallelism=1"]
    own = ["--config=job.yaml", "--input=in.jsonl", "--output=out.jsonl", *flags]
    with Command(*own, env={"PYTHONPATH": ""}, cwd=tmp_path) as started:
        _, said = started.process.communicate(timeout=INSTALLING)
    assert started.process.returncode == 0, said
    assert "packaged the model" in said
    made = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for kind, lines in expected.items():
        assert [line[kind] for line in made] == lines
    assert {one["name"] for one in description(tmp_path / "out.jsonl")["models"]} == set(expected)
