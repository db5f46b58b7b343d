"""``--shards N``: so many files, of about equal size, that are together what they always were."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines, split_of, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbeam import formats, models, storage
from modelbeam.errors import RequestError, ResumeError
from modelbeam.formats.base import Wanted
from modelbeam.job.description import build_job
from modelbeam.job.layout import columns_of, layout_of
from modelbeam.job.prepare import Plan, make_plan, make_publication, make_record, make_task
from modelbeam.job.split import predict_split
from modelbeam.sinks.files import publish
from modelbeam.sinks.files.manifest import find_manifests
from modelbeam.sinks.files.state import State, check_resumable, earlier_record
from modelbeam.sources import source_of
from modelbeam.sources.splits import from_lines, in_shards, size_for_shards, to_lines

MODEL = models.load("small_models:Doubler", None, {})


def planned(output: Path, inputs: Path | list[Path], **more: Any) -> Plan:
    given = {"inputs": inputs, "output": str(output), **more}
    return make_plan(build_job({"models": ["small_models:Doubler"], **given}))


def run(plan: Plan) -> dict[str, Any]:
    """Do what a run does, in this process."""
    return publish.publish(predicted(plan), plan.splits)


def predicted(plan: Plan, stop_after: int | None = None) -> publish.Publication:
    """All of it but the publishing; what is committed already is not done again."""
    bare = make_task(plan, make_record(plan, MODEL.info))
    starts = [piece for split in plan.splits for piece in split.pieces if piece.start == 0]
    layout = layout_of(columns_of(starts, bare), MODEL.info, bare, None)  # type: ignore[arg-type]
    plan = replace(plan, layout=layout)
    record = make_record(plan, MODEL.info)
    earlier = earlier_record(plan.output)[0] if plan.job.resume else None
    if earlier is not None:
        check_resumable(plan.output, earlier, record, finished=False)
    task = make_task(plan, record)
    state = State(plan.output, record, fresh=earlier is None)
    state.write_plan(plan.splits)
    found = find_manifests(plan.output.state, plan.splits, record.fingerprint)
    left = [split for split, manifest in zip(plan.splits, found, strict=True) if manifest is None]
    for split in left[:stop_after]:
        predict_split(split, task, MODEL)
    state.close()
    return make_publication(plan, record, MODEL.info, 0.0, "")


def records(path: Path, name: str) -> list[Any]:
    """The predictions of a file that stands by itself."""
    (info,) = source_of("").discover([str(path)], any_suffix=True, excluded=())[0]
    kind = formats.parse(name, "")
    asked = formats.Format(kind.name)
    splits, _ = source_of("").plan([info], None, input_format=asked, earlier=None)
    return [
        float(record["y"])
        for split in splits
        for piece in split.pieces
        for batch in source_of("").reader(piece, Wanted("record"))
        for record in batch.records().records
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=40), st.data())
def test_splits_are_shared_out_in_their_order(sizes: list[int], data: st.DataObject) -> None:
    shards = data.draw(st.integers(1, len(sizes)))
    splits = [split_of(index, f"{index}.jsonl", size=size) for index, size in enumerate(sizes)]
    made = in_shards(splits, shards)
    assert [replace(split, part=0) for split in made] == splits
    assert from_lines(to_lines(made)) == made
    starts = [split.index for split in made if split.part == 0]
    assert len(starts) == shards
    assert starts[0] == 0
    held = []
    for at, until in zip(starts, [*starts[1:], len(sizes)], strict=True):
        assert [split.part for split in made[at:until]] == list(range(until - at))
        held.append(sum(sizes[at:until]))
    if min(sizes) > 0 and max(sizes) * shards <= sum(sizes):
        assert max(held) - sum(sizes) / shards <= max(sizes)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(1, 1 << 30), st.integers(1, 1000))
def test_a_split_size_fits_into_a_shard(total: int, size: int, shards: int) -> None:
    made = size_for_shards(total, size, shards)
    share = max(1, -(-total // shards))
    assert 1 <= made <= size
    splits = -(-share // made)
    assert splits * made - share < splits  # no rest that would be a split of its own


@pytest.mark.parametrize("name", sorted({*formats.NAMES, "csv.gz", "jsonl.zst", "json.gz"}))
@pytest.mark.parametrize("count", [1, 3])
def test_every_format_has_shards_that_stand_by_themselves(
    name: str, count: int, tmp_path: Path
) -> None:
    rows = [{"x": -1.0 if n in (0, 400, 401) else float(n)} for n in range(900)]
    data = write_lines(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out"
    plan = planned(out, data, shards=count, output_format=name, split_size=1000)
    assert len(plan.splits) >= 2 * count
    run_file = run(plan)
    made = sorted(out.glob("predictions-*"))
    assert [path.name[: len("predictions-00000-of-00000")] for path in made] == [
        f"predictions-{index:05d}-of-{count:05d}" for index in range(count)
    ]
    found = [records(path, name) for path in made]
    assert [y for values in found for y in values] == [
        2 * row["x"] for row in rows if row["x"] >= 0
    ]
    assert max(map(len, found)) - min(map(len, found)) <= 60
    errors = [row for path in sorted(out.glob("errors-*")) for row in read_lines(path)]
    assert [row["line"] for row in errors] == [1, 401, 402]
    assert all(path.name.endswith(f"-of-{count:05d}.jsonl") for path in out.glob("errors-*"))
    assert run_file["files"] == sorted(map(str, out.glob("*-of-*")), key=_order)


def _order(path: str) -> tuple[str, int]:
    name = path.rpartition("/")[2]
    return name.split("-")[1], 0 if name.startswith("predictions") else 1


def test_shards_are_made_of_small_files_and_of_few_records(tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{n}.jsonl", [{"x": float(n)}]) for n in range(7)]
    run(planned(tmp_path / "files", files, shards=4))
    made = [read_lines(path) for path in sorted((tmp_path / "files").glob("predictions-*"))]
    assert sorted(map(len, made)) == [1, 2, 2, 2]
    assert [row["y"] for rows in made for row in rows] == [2.0 * n for n in range(7)]
    few = write_lines(tmp_path / "few.jsonl", [{"x": 1.0}, {"x": 2.0}])
    run(planned(tmp_path / "few", few, shards=5))
    made = [read_lines(path) for path in sorted((tmp_path / "few").glob("predictions-*"))]
    assert len(made) == 5
    assert [row["y"] for rows in made for row in rows] == [2.0, 4.0]


def test_the_first_records_have_shards_too(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", ({"x": float(n)} for n in range(50_000)))
    run(planned(tmp_path / "out", data, shards=3, limit=20))
    made = [read_lines(path) for path in sorted((tmp_path / "out").glob("predictions-*"))]
    assert len(made) == 3
    assert [row["y"] for rows in made for row in rows] == [2.0 * n for n in range(20)]


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"x": 1.0}\n' * 1000))
    with pytest.raises(RequestError, match="--shards 2: the input can be cut into 1 part only"):
        planned(tmp_path / "out", packed, shards=2)
    with pytest.raises(RequestError, match=r"--shards 2: --output .*out.jsonl is no directory"):
        planned(tmp_path / "out.jsonl", packed, shards=2)
    with pytest.raises(RequestError, match="--shards"):
        planned(tmp_path / "out", packed, shards=0)


def test_a_resumed_run_has_the_shards_that_were_asked_for(tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / f"{n}.jsonl", ({"x": float(n)} for _ in range(40))) for n in (1, 2)
    ]
    settings: dict[str, Any] = {"shards": 3, "output_format": "csv", "split_size": 60}
    run(planned(tmp_path / "whole", files, **settings))
    predicted(planned(tmp_path / "out", files, **settings), stop_after=4)
    with pytest.raises(ResumeError, match="--shards: was 3, is 2"):
        run(planned(tmp_path / "out", files, **{**settings, "shards": 2}, resume=True))
    run(planned(tmp_path / "out", files, **settings, resume=True))
    for path in (tmp_path / "whole").glob("predictions-*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


class Crash(BaseException):
    """The process is gone: nothing that would tidy up may run after it."""


def test_a_crash_at_every_step_of_publishing_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"x": float(n) if n % 7 else -1.0} for n in range(60)]
    data = write_lines(tmp_path / "in.jsonl", rows)
    given: dict[str, Any] = {"shards": 2, "output_format": "csv", "split_size": 100}
    run(planned(tmp_path / "whole", data, **given))
    plan = planned(tmp_path / "out", data, **given)
    publication = predicted(plan)
    steps = ("create", "concatenate", "write_atomically", "write_once", "replace", "remove",
             "remove_tree")  # fmt: skip
    calls = crash_at = 0
    for step in steps:
        real = getattr(storage, step)

        def crashing(*arguments: Any, real: Any = real) -> Any:
            nonlocal calls
            calls += 1
            if calls == crash_at:
                raise Crash
            return real(*arguments)

        monkeypatch.setattr(storage, step, crashing)
    while True:
        calls, crash_at = 0, crash_at + 1
        try:
            publish.publish(publication, plan.splits)
        except Crash:
            continue
        break
    assert crash_at > 10
    assert not (tmp_path / "out" / "_modelbeam").exists()
    assert seen(tmp_path / "out") == seen(tmp_path / "whole")


def seen(output: Path) -> dict[str, bytes]:
    """The files of a run but its description, its profile (it holds times) and its page."""
    told = ("run.json", "profile.json", "report.html")
    return {p.name: p.read_bytes() for p in output.iterdir() if p.name not in told}


def test_a_split_that_begins_a_shard_is_another_one_than_in_the_middle() -> None:
    one = split_of(3, "a.jsonl")
    assert one.key != replace(one, part=1).key == replace(one, part=2).key
    assert one.key == split_of(4, "a.jsonl").key
