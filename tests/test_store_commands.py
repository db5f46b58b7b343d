"""The whole command over object stores: in, out and the job's state, here and on an engine."""

from __future__ import annotations

import gzip
import json

import pytest
from crashing import Command, wait_until
from stores import Root

from modelbeam import storage

MODEL = "engine_models:Slow"
RECORDS = 400
EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed"]


@pytest.fixture(params=["s3", "gs"])
def place(request: pytest.FixtureRequest, make_root) -> Root:
    """A place in each store that holds a plain and a packed file, with a record that fails."""
    place: Root = make_root(request.param, direct=True)
    lines = [json.dumps({"n": n, "x": n / 4 if n != 7 else -1.0}) + "\n" for n in range(RECORDS)]
    for name, content in (
        ("a.jsonl", "".join(lines).encode()),
        ("b.jsonl.gz", gzip.compress(lines[3].encode())),
    ):
        with storage.create(place / f"in/{name}") as handle:
            handle.write(content)
    return place


def start(place: Root, output: str, *flags: str) -> Command:
    """Start the command over that input; each record takes 1 ms."""
    own = [f"--model={MODEL}", f"--input={place / 'in/*.jsonl*'}", f"--output={place / output}"]
    given = [*storage.configuration(), "--split-size=1KB", *flags]
    return Command(*own, *given, env={"RECORD_SECONDS": "0.001"})


def run(place: Root, output: str, *flags: str) -> Command:
    """Run it to its end."""
    with start(place, output, *flags) as command:
        command.wait()
    return command


def values(data: bytes) -> list[float]:
    """The predictions in JSON Lines."""
    return [json.loads(line)["y"] for line in data.splitlines()]


EXPECTED = [n / 2 for n in range(RECORDS) if n != 7] + [1.5]


@pytest.mark.parametrize("flags", [[], EMBEDDED], ids=["here", "engine"])
def test_a_job_from_a_store_into_a_store(place: Root, flags: list[str]) -> None:
    done = run(place, "out", *flags)
    assert done.process.returncode == 0, done.stderr
    files = place.files("out")
    shards = [files[name] for name in sorted(files) if name.startswith("predictions-")]
    assert len(shards) > 5
    assert values(b"".join(shards)) == EXPECTED
    (errors,) = (files[name] for name in files if name.startswith("errors-"))
    assert json.loads(errors)["line"] == 8
    assert "_SUCCESS" in files
    assert b"not-a-secret" not in b"".join(files.values())
    assert storage.files_in(place / "out/_modelbeam/manifests") == []


def test_a_single_file_in_a_store(place: Root) -> None:
    done = run(place, "out.jsonl")
    assert done.process.returncode == 0, done.stderr
    assert values(storage.read_bytes(place / "out.jsonl")) == EXPECTED


def test_a_job_that_was_killed_is_resumed_in_a_store(place: Root) -> None:
    manifests = place / "out/_modelbeam/manifests"
    with start(place, "out") as killed:
        wait_until(lambda: len(storage.files_in(manifests)) >= 2)
        killed.kill()
    refused = run(place, "out")
    assert refused.process.returncode == 2
    assert "--resume" in refused.stderr
    resumed = run(place, "out", "--resume")
    assert resumed.process.returncode == 0, resumed.stderr
    files = place.files("out")
    shards = [files[name] for name in sorted(files) if name.startswith("predictions-")]
    assert values(b"".join(shards)) == EXPECTED
    assert json.loads(files["run.json"])["splits_resumed"] >= 2
