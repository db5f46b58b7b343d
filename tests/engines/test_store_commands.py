"""The whole command over s3:// and gs://: the same bytes as over local files, killed or not."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import write_lines
from crashing import Command
from stores import KEYS, Root, StoreServer

from modelbeam import storage

MODEL = "crash_models:Recorded"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input: plain and compressed, in two directories, with some records that fail."""
    folder = tmp_path_factory.mktemp("input")
    (folder / "in" / "deep").mkdir(parents=True)
    write_lines(folder / "in" / "a.jsonl", records(0, 300))
    text = "".join(json.dumps(record) + "\n" for record in records(300, 400)).encode()
    (folder / "in" / "b.jsonl.gz").write_bytes(gzip.compress(text))
    (folder / "in" / "deep" / "c.jsonl.bz2").write_bytes(bz2.compress(text))
    write_lines(folder / "in" / "deep" / "d.jsonl", records(400, 450))
    return folder


def records(start: int, end: int) -> list[dict[str, Any]]:
    """Records of which every seventieth fails."""
    return [{"n": n, "x": -1.0 if n % 70 == 3 else n / 2} for n in range(start, end)]


def uploaded(source: Path, root: Root) -> None:
    """Copy the input to a store."""
    for path in (source / "in").rglob("*.*"):
        if path.is_file():
            storage.write_atomically(root / str(path.relative_to(source)), path.read_bytes())


def environment(server: StoreServer) -> dict[str, str]:
    """What a command needs to reach a store."""
    keys = [flag.partition("=")[2] for flag in KEYS]
    return {
        "AWS_ENDPOINT_URL_S3": server.proxy.url,
        "AWS_ACCESS_KEY_ID": keys[0],
        "AWS_SECRET_ACCESS_KEY": keys[1],
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        **server.environment,
    }


def command(root: Root, output: str, *flags: str, tmp_path: Path) -> Command:
    """Predict the input of a root."""
    env = {"RECORD_LOG": str(tmp_path / "log")}
    if root.server is not None:
        env.update(environment(root.server))
        if root.server.scheme == "hdfs":  # which has no variables
            flags = (*root.server.flags, *flags)
    inputs = [f"--input={root.url}/in/**/*.jsonl", f"--input={root.url}/in/**/*.jsonl.*"]
    own = [f"--model={MODEL}", *inputs, f"--output={root / output}", "--split-size=2KB"]
    return Command(*own, "--workers=2", "--no-progress", *flags, env=env)


def visible(root: Root, output: str) -> dict[str, bytes]:
    """What was published, with the root's own name taken out."""
    place = "" if "." in output else output
    return {
        name: data.replace(root.url.encode(), b"ROOT")
        for name, data in root.files(place).items()
        if not name.endswith(("run.json", "profile.json", "report.html"))
    }


OUTPUTS = ["out", "out.jsonl", "out.jsonl.gz"]


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What runs over local files publish."""
    root = Root(str(source))
    made = {}
    for output in OUTPUTS:
        with command(root, output, tmp_path=tmp_path_factory.mktemp("local")) as run:
            assert run.wait() == 0, run.stderr
        made[output] = visible(root, output)
        for name in list(made[output]):
            if "." in output:
                os.remove(source / name)
    return made


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_run_over_a_store_publishes_the_same_bytes(
    store_root: Root, source: Path, expected: dict[str, Any], tmp_path: Path, output: str
) -> None:
    uploaded(source, store_root)
    with command(store_root, output, tmp_path=tmp_path) as run:
        assert run.wait() == 0, run.stderr
    assert visible(store_root, output) == expected[output]
    names = storage.names_in(store_root.url)
    assert not [name for name in names if "_modelbeam" in name]
    description = json.loads(storage.read_bytes(store_root / described(output)))
    assert description["counts"] == {"read": 550, "predicted": 542, "failed": 8}
    with command(store_root, output, tmp_path=tmp_path) as run:
        assert run.wait() == 2
    assert "exists already" in run.stderr


def test_a_run_on_an_engine_over_a_store_publishes_the_same_bytes(
    store_root: Root, source: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    uploaded(source, store_root)
    engine = ["--runner=PortableRunner", "--job_endpoint=embed"]
    assert store_root.server is not None
    flags = [*engine, *store_root.server.flags]
    with command(store_root, "out", *flags, tmp_path=tmp_path) as run:
        assert run.wait() == 0, run.stderr
    assert visible(store_root, "out") == expected["out"]
    assert not storage.exists(store_root / "out/_modelbeam")
    secret = KEYS[1].partition("=")[2].encode()
    assert secret not in b"".join(store_root.files("out").values())


def described(output: str) -> str:
    """Where the description of the run is."""
    return "out/run.json" if output == "out" else "out.run.json"


@pytest.mark.parametrize(("output", "moment"), [("out", 50), ("out.jsonl", 80)])
def test_a_run_that_is_killed_is_resumed_to_the_same_bytes(
    store_root: Root,
    source: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    output: str,
    moment: int,
) -> None:
    uploaded(source, store_root)
    kills = 0
    for start in (moment, moment + 13):
        with command(store_root, output, "--resume", tmp_path=tmp_path) as run:
            killed = []

            def kill(
                number: int, run: Command = run, at: int = start, killed: list[int] = killed
            ) -> None:
                if number == at:
                    killed.append(number)
                    os.killpg(run.group, signal.SIGKILL)

            store_root.proxy.reset(kill)
            code = run.wait()
            store_root.proxy.reset()
        assert code == (-signal.SIGKILL if killed else 0), run.stderr
        kills += len(killed)
    with command(store_root, output, "--resume", tmp_path=tmp_path) as run:
        assert run.wait() == 0, run.stderr
    assert kills
    assert visible(store_root, output) == expected[output]
    assert not storage.exists(store_root / f"{output.partition('.')[0]}._modelbeam")
    description = json.loads(storage.read_bytes(store_root / described(output)))
    assert description["counts"] == {"read": 550, "predicted": 542, "failed": 8}


def test_a_run_over_a_store_that_fails_at_random_publishes_the_same_bytes(
    store_root: Root, source: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    uploaded(source, store_root)
    faults = iter(["503", "lost", "cut", "reset"] * 1000)
    store_root.proxy.reset(lambda number: next(faults) if number % 6 == 4 else None)
    with command(store_root, "out", tmp_path=tmp_path) as run:
        assert run.wait() == 0, run.stderr
    assert store_root.proxy.faults > 10
    store_root.proxy.reset()
    assert visible(store_root, "out") == expected["out"]


def test_a_bucket_that_is_not_there_is_one_clear_error(store_root: Root, tmp_path: Path) -> None:
    scheme = store_root.url.partition("://")[0]
    nowhere = Root(f"{scheme}://nowhere/x", store_root.server)
    with command(nowhere, "out", tmp_path=tmp_path) as run:
        assert run.wait() == 2
    assert f"--output {scheme}://nowhere/x/out: " in run.stderr
    assert "there is no bucket 'nowhere'" in run.stderr
    assert run.stderr.count("\n") == 1


def test_secrets_in_flags_reach_the_store_and_nothing_else(
    make_root: Callable[[str], Root], source: Path, tmp_path: Path
) -> None:
    root = make_root("s3")
    assert root.server is not None
    uploaded(source, root)
    before = {name: os.environ.pop(name, None) for name in ("AWS_ACCESS_KEY_ID",)}
    try:
        seen: dict[str, bytes] = {}

        def look(number: int) -> None:
            if number == 100:  # in the middle: the state is there
                root.proxy.fault = lambda _: None
                for info in storage.expand(root / "**"):
                    seen[info.path] = storage.read_bytes(info.path)

        root.proxy.reset(look)
        with command(Root(root.url), "out", *root.server.flags, tmp_path=tmp_path) as run:
            code = run.wait()
    finally:
        os.environ.update({name: value for name, value in before.items() if value})
    assert code == 0, run.stderr
    assert [path for path in seen if "_modelbeam/job.json" in path]
    seen.update(root.files("out"))
    secret = KEYS[1].partition("=")[2].encode()
    assert not [path for path, data in seen.items() if secret in data]
