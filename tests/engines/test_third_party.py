"""A kind of model of a third party, and its file, reach workers that have nothing but Beam."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crashing import Command, description
from running import finish

from engines.clusters import FlinkCluster, WorkerPool

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.timeout(600)


def test_a_kind_and_a_format_of_third_parties_on_flink(
    flink: FlinkCluster, staged_pool: WorkerPool, tmp_path: Path
) -> None:
    for name in ("modelbeam_scorecard", "modelbeam_logfmt"):
        shutil.copytree(EXAMPLES / name, tmp_path / "source" / name)
    sources = [str(path) for path in (tmp_path / "source").iterdir()]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--target", str(tmp_path / "installed"), *sources],
        check=True,
    )  # fmt: skip
    place = tmp_path / "place"
    place.mkdir()
    card = {"name": "risk", "version": "1", "base": 1, "points": {"x": 2}, "accept_from": 11}
    (place / "risk.scorecard").write_text(json.dumps(card))
    (place / "in.logfmt").write_text("".join(f"x={n}\n" for n in [*range(10), "ten"]))
    flags = [*flink.flags, *staged_pool.flags, "--parallelism=1", "--sdk_worker_parallelism=1"]
    own = ["--model=risk.scorecard", "--input=in.logfmt", "--output=out", *flags]
    environment = {"PYTHONPATH": str(tmp_path / "installed")}
    with Command(*own, env=environment, cwd=place, command="predict") as started:
        done = finish(started)
    assert done.process.returncode == 0, done.stderr
    [shard] = (place / "out").glob("predictions-*")
    assert [json.loads(line) for line in shard.read_text().splitlines()] == [
        {"score": 2.0 * n + 1, "accepted": n >= 5} for n in range(10)
    ]
    assert description(place / "out")["counts"]["failed"] == 1
