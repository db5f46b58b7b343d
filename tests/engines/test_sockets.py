"""While a job goes on, what was started for it on this machine is reached from here only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crashing import Command, wait_until
from running import PATIENCE, command, finish
from sockets import family, listening

from engines import install

MODEL = """
import os, pathlib, time

def waits(record):
    here = pathlib.Path(os.environ["HERE"])
    (here / "begun").touch()
    while not (here / "go").exists():
        time.sleep(0.05)
    return {"y": record["x"]}
"""

ENGINES = {
    "flink": ("--runner=FlinkRunner", "--flink_job_server_jar"),
    "spark": ("--runner=SparkRunner", "--spark_job_server_jar"),
    "prism": ("--runner=PrismRunner", "--prism_location"),
}

pytestmark = pytest.mark.timeout(300)


def started(engine: str, here: Path) -> Command:
    """A job on an engine that Beam starts for it, in the middle of its one record."""
    (here / "waiting_model.py").write_text(MODEL)
    (here / "in.jsonl").write_text('{"x": 1}\n')
    runner, flag = ENGINES[engine]
    made = install.EVERYTHING[engine]()
    program = made if engine == "prism" else made / "job-server.jar"
    env = {"PYTHONPATH": str(here), "HERE": str(here)}
    flags = [runner, f"{flag}={program}", "--no-packages"]
    return command("waiting_model:waits", here / "in.jsonl", here / "out", *flags, env=env)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_beam_starts_here_is_reached_from_here_only(
    engine: str, tmp_path: Path
) -> None:
    with started(engine, tmp_path) as job:
        wait_until((tmp_path / "begun").exists, seconds=PATIENCE)
        found = {(name, pid): listening(pid) for pid, name in family(job.process.pid).items()}
        (tmp_path / "go").touch()
        finish(job)
    assert job.process.returncode == 0, job.stderr
    assert json.loads((tmp_path / "out" / "predictions-00000-of-00001.jsonl").read_text()) == {
        "y": 1
    }
    server = "prism" if engine == "prism" else "java"
    (beams,) = (key for key in found if key[0] == server)
    if engine == "prism":  # nothing tells it where to listen: docs/security.md says so
        assert found.pop(beams)
    else:
        assert len(found[beams]) >= 4  # of the job, control, data, state, …
    elsewhere = {
        key: [one for one in places if not one.is_loopback] for key, places in found.items()
    }
    assert not any(elsewhere.values()), elsewhere
