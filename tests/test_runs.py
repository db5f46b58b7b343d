"""``modelbeam runs`` finds every kind of run, and what describes one fits the schema of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import write_lines
from described import check_described

import modelbeam
from modelbeam import cli, machine, storage
from modelbeam.errors import NothingPredictedError, RequestError, TooManyErrorsError
from modelbeam.report import runs as listing
from modelbeam.report.runs import Listed, find_runs, to_text
from modelbeam.report.schema import run_schema
from modelbeam.sinks.locks import held, hold
from modelbeam.storage import join

MODEL = "small_models:Doubler"
RECORDS = [*({"x": float(n)} for n in range(30)), {"x": -1.0}, {"x": "text"}]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind, each into a place of its own below one directory."""
    root = tmp_path_factory.mktemp("runs")
    source = write_lines(root / "data.jsonl", RECORDS)
    (root / "bad").mkdir()
    write_lines(root / "bad" / "a.jsonl", [{"x": -1.0}])
    (root / "arriving").mkdir()
    write_lines(root / "arriving" / "a.jsonl", RECORDS[:3])
    printed: dict[str, Any] = {}

    def predict(output: str, **settings: Any) -> None:
        done = modelbeam.predict(
            model=settings.pop("model", MODEL), input=str(settings.pop("input", source)),
            output=str(root / output), workers=1, **settings,
        )  # fmt: skip
        printed[output] = done.description

    predict("deep/er/plain", input=root / "arriving" / "a.jsonl")
    predict("deep/single.csv")
    predict("two", model=["a=small_models:Doubler", "b=small_models:Trusting"])
    with pytest.raises(NothingPredictedError):
        predict("failed", input=root / "bad")
    with pytest.raises(TooManyErrorsError):
        predict("resumed", max_errors=1, split_size=200)
    assert [one.status for one in find_runs([str(root / "resumed")]).runs] == ["broken"]
    predict("resumed", resume=True, split_size=200)
    with pytest.raises(TooManyErrorsError):
        predict("broken", max_errors=1, split_size=200)
    stream = {"input": root / "arriving", "streaming": True, "settle": 0, "stop_when_idle": 0}
    predict("stream", **stream)
    assert cli.run(
        ["compare", "-m", f"a={MODEL}", "-m", "b=small_models:Trusting", "-i", str(source), "-o",
         str(root / "compared"), "--workers", "1", "-q"]
    ) == 0  # fmt: skip
    (root / "printed.json").write_text(json.dumps(printed))
    return root


def found_in(tree: Path, *places: str) -> dict[str, Listed]:
    """The runs below some places by their outputs."""
    found = find_runs([str(tree / place) for place in places] or [str(tree)])
    assert found.notes == []
    return {os.path.relpath(run.output, tree): run for run in found.runs}


def test_every_kind_of_run_is_found(tree: Path) -> None:
    found = found_in(tree)
    assert {name: (run.kind, run.status) for name, run in found.items()} == {
        "deep/er/plain": ("run", "succeeded"),
        "deep/single.csv": ("run", "succeeded"),
        "two": ("run", "succeeded"),
        "failed": ("run", "failed"),
        "resumed": ("run", "succeeded"),
        "broken": ("run", "broken"),
        "stream": ("stream", "idle"),
        "compared": ("comparison", "succeeded"),
    }
    single = found["deep/single.csv"]
    assert (single.read, single.predicted, single.failed) == (32, 30, 2)
    assert single.models == ({"name": "doubler", "version": "1.2"},)
    assert single.inputs == (str(tree / "data.jsonl"),)
    assert [one["name"] for one in found["two"].models] == ["a", "b"]
    broken = found["broken"]
    assert (broken.splits, broken.read) == (2, None)
    assert broken.splits_done is not None
    assert 0 < broken.splits_done <= 2
    stream = found["stream"]
    assert (stream.entries, stream.read, stream.models) == (1, 3, single.models)


def test_the_newest_comes_first(tree: Path) -> None:
    whens = [run.when for run in find_runs([str(tree)]).runs]
    assert whens == sorted(whens, reverse=True)


@pytest.mark.parametrize(
    ("place", "outputs"),
    [
        ("deep", ["deep/er/plain", "deep/single.csv"]),
        ("deep/er/plain", ["deep/er/plain"]),
        ("deep/er/plain/run.json", ["deep/er/plain"]),
        ("deep/single.csv", ["deep/single.csv"]),
        ("arriving", []),
        ("data.jsonl", []),
    ],
)
def test_a_place_may_be_anything_that_holds_a_run(
    tree: Path, place: str, outputs: list[str]
) -> None:
    assert sorted(found_in(tree, place)) == outputs
    assert sorted(found_in(tree, place, place)) == outputs, "each is told once"


@pytest.mark.parametrize(("depth", "outputs"), [(0, []), (1, ["single.csv"]), (3, ["plain"])])
def test_it_looks_as_deep_as_it_is_told(tree: Path, depth: int, outputs: list[str]) -> None:
    found = {os.path.basename(run.output) for run in find_runs([str(tree)], depth).runs}
    assert found >= set(outputs)
    assert ("single.csv" in found, "plain" in found) == (depth >= 1, depth >= 3)


def test_what_is_not_there_is_refused(tree: Path) -> None:
    for name in ("none", "none.csv"):
        with pytest.raises(RequestError, match="there is no such directory"):
            find_runs([str(tree / name)])


def test_an_output_that_holds_a_run_is_never_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []

    def entries(directory: str) -> Iterator[storage.Entry]:
        listed.append(os.path.relpath(directory, tree))
        return storage.store_of(directory).entries(directory)

    monkeypatch.setattr(storage, "entries_in", entries)
    assert len(find_runs([str(tree)]).runs) == 8
    assert set(listed) == {".", "deep", "deep/er", "bad", "arriving", "broken/_modelbeam/manifests"}


def test_a_directory_of_very_many_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_ENTRIES", 5)
    monkeypatch.setattr(listing, "MOST_DIRECTORIES", 4)
    for number in range(9):
        (tmp_path / f"d{number}" / "in").mkdir(parents=True)
    taken = 0

    def entries(directory: str) -> Iterator[storage.Entry]:
        nonlocal taken
        for entry in storage.store_of(directory).entries(directory):
            taken += 1
            yield entry

    monkeypatch.setattr(storage, "entries_in", entries)
    found = find_runs([str(tmp_path)])
    assert len(found.notes) == 2
    assert "more than 5 files" in found.notes[0]
    assert "more than 4 directories" in found.notes[1]
    assert taken <= 6 * 4


def test_other_programs_files_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "dbt").mkdir()
    (tmp_path / "dbt" / "run.json").write_text('{"status": "ok", "models": 3}')
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.json").write_text("{half of")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "run.json").write_text('{"modelbeam": "0.1.0", "counts": {}')
    (tmp_path / "ours" / "_SUCCESS").touch()
    (tmp_path / "circle").symlink_to(tmp_path)
    found = found_in(tmp_path)
    assert {name: run.status for name, run in found.items()} == {"ours": "damaged"}


def state_of_a_run(root: str, process: dict[str, Any]) -> None:
    """What a run leaves that was begun and has not ended."""
    storage.make_directory(join(root, "_modelbeam"))
    begun = {"id": "1", "process": process, "settings": {"model name": "m"}, "inputs": []}
    storage.write_atomically(join(root, "_modelbeam", "job.json"), json.dumps(begun).encode())


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    state_of_a_run(str(tmp_path / "out"), machine.identity())
    lock = tmp_path / "out" / "_modelbeam" / "lock"
    assert found_in(tmp_path)["out"].status == "broken", "locally it is the lock that tells"
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; from modelbeam.sinks.locks import hold; handle = hold(sys.argv[1]); "
         "print('held', flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert found_in(tmp_path)["out"].status == "running"
        holder.kill()
    assert found_in(tmp_path)["out"].status == "broken"


def test_whoever_asks_for_a_lock_does_not_keep_it_from_anybody(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert not held(path)
    with hold(path, shared=True) as one, hold(path, shared=True) as other:  # type: ignore[union-attr]
        assert one is not other
        assert held(path)
        with pytest.raises(BlockingIOError):
            hold(path)
    assert not held(path)
    assert hold(path) is not None
    assert hold("s3://bucket/lock") is None


@pytest.mark.parametrize("change", [{}, {"pid": 1 << 30}, {"began": "1"}, {"host": "other"}, None])
def test_whether_a_process_lives(change: dict[str, Any] | None) -> None:
    said = {} if change is None else {**machine.identity(), **change}
    elsewhere = change is None or "host" in change
    assert machine.lives(said) is (None if elsewhere else not change)


def test_a_store_is_looked_through_by_its_url(tree: Path, make_root: Any) -> None:
    root = make_root("s3", direct=True).url
    for path in ("deep/er/plain/run.json", "deep/single.run.json", "deep/single.csv",
                 "stream/_modelbeam/log/00000000.json", "stream/00000000/run.json",
                 "compared/comparison.json"):  # fmt: skip
        storage.write_atomically(join(root, path), (tree / path).read_bytes())
    state_of_a_run(join(root, "mine"), machine.identity())
    state_of_a_run(join(root, "dead"), {**machine.identity(), "began": "1"})
    state_of_a_run(join(root, "theirs"), {**machine.identity(), "host": "other"})
    found = find_runs([root])
    assert found.notes == []
    assert {run.output[len(root) + 1 :]: run.status for run in found.runs} == {
        "deep/er/plain": "succeeded",
        "deep/single.csv": "succeeded",
        "stream": "idle",
        "compared": "succeeded",
        "mine": "running",
        "dead": "broken",
        "theirs": "unfinished",
    }
    with pytest.raises(RequestError, match="no such directory"):
        find_runs([join(root, "none")])


# What is shown


RUN = Listed(
    "out/predictions", "run", "succeeded", "out/run.json", "2026-11-27T12:00:00Z", 1.0, 3.25,
    ({"name": "iris", "version": "1.2"},), ("data/a.jsonl", "data/b.jsonl"), 12345, 12000, 345,
)  # fmt: skip


def test_a_table_where_there_is_room_else_lines() -> None:
    head, line = to_text([RUN], 200)
    assert head.split()[:2] == ["started", "(UTC)"]
    assert re.split(r"  +", line) == [
        *("2026-11-27 12:00", "succeeded", "iris@1.2", "12,345/12,000/345", "3.2"),
        *("data/a.jsonl and 1 more", "out/predictions"),
    ]
    assert to_text([RUN]) == [head, line]
    narrow = to_text([RUN], 60)
    assert max(map(len, narrow)) <= 60
    assert narrow[0].startswith("2026-11-27 12:00  succeeded  iris@1.2, 12,345 read,")
    assert narrow[-1].endswith("out/predictions")
    assert to_text([]) == []


def test_names_do_not_steer_the_terminal() -> None:
    hostile = Listed("out\x1b[2J", "run", "damaged", "a")
    assert "\x1b" not in "".join(to_text([hostile]) + to_text([hostile], 10))


def test_the_command(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert cli.run(["runs", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [run["output"] for run in said["runs"]].count("two") == 1
    assert len(said["runs"]) == 8
    assert cli.run(["runs", "deep"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert cli.run(["runs", "arriving"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, "no run is in arriving" in shown.err) == ("", True)
    for wrong in (["none"], ["--depth", "-1"], ["--dept", "1"]):
        assert cli.run(["runs", *wrong]) == 2
    capsys.readouterr()
    assert cli.run(["runs", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == run_schema()


# The schema


KINDS = {
    "run": ["deep/er/plain", "deep/single.csv", "two", "resumed"],
    "arriving": ["stream"],
}


@pytest.mark.parametrize(
    ("kind", "output"), [(kind, output) for kind, outputs in KINDS.items() for output in outputs]
)
def test_what_is_returned_fits_the_schema(tree: Path, kind: str, output: str) -> None:
    check_described(kind, json.loads((tree / "printed.json").read_text())[output])


@pytest.mark.parametrize(
    "path",
    [
        *("deep/er/plain/run.json", "deep/single.run.json", "two/run.json", "failed/run.json"),
        *("resumed/run.json", "stream/00000000/run.json"),
    ],
)
def test_run_json_fits_the_schema(tree: Path, path: str) -> None:
    said = json.loads((tree / path).read_text())
    check_described("run", said)
    assert (said["status"] == "failed") == path.startswith("failed")
    assert (said["splits_resumed"] > 0) == path.startswith("resumed")


def test_what_compare_leaves_fits_the_schema(tree: Path) -> None:
    said = json.loads((tree / "compared" / "comparison.json").read_text())
    check_described("comparison", said)
    assert (said["run"]["counts"]["read"], said["read"]) == (32, 32)


def test_what_a_run_over_a_topic_says_fits_the_schema() -> None:
    from modelbeam.job.description import build_job
    from modelbeam.kafka.address import Topic
    from modelbeam.local.lanes import LanesProgress
    from modelbeam.local.stream import described
    from modelbeam.models.base import ModelInfo

    urls = {"inputs": "kafka://h:1/a", "output": "kafka://h:1/b", "errors": "kafka://h:1/c"}
    job = build_job({"models": MODEL, **urls})

    class Lane:
        input, output, errors = (Topic("h:1", name) for name in "abc")
        group = "g"

    said = described(job, ModelInfo("m:M", "m", "record"), Lane(), LanesProgress(), "ended", 1.0)  # type: ignore[arg-type]
    check_described("topic", json.loads(json.dumps(said)))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"status": "done"}, {"counts": {"read": 1}}, {"started": "yesterday"},
        {"models": []}, {"seconds": -1}, {"job": None}, {"failures": [{"type": "E"}]},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_run(tree: Path, change: dict[str, Any]) -> None:
    said = json.loads((tree / "two" / "run.json").read_text())
    schema = run_schema()
    jsonschema.validate(said, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**said, **change}, schema)
