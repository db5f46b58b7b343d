"""Object stores as they really are: slow, busy, unreachable, in pages, and without a rename.

The stores are real servers behind a proxy that makes requests fail, see ``stores.py``. The commit
protocol without such failures is in ``test_commit.py``.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import read_lines, split_of, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import FAULTS, Root, at_random, indices, once
from test_commit import RECORD, RECORDS, SINGLE, Job, committed, without_times

from modelbeam import models, storage, testing
from modelbeam.errors import ModelbeamError, RequestError, ResumeError, StorageError
from modelbeam.formats import Format
from modelbeam.job.description import build_job
from modelbeam.job.prepare import make_plan
from modelbeam.job.split import predict_split
from modelbeam.job.task import Task
from modelbeam.sinks.files import publish
from modelbeam.sinks.files.output import Output
from modelbeam.sinks.files.state import JobRecord, State
from modelbeam.sources.splits import Split
from modelbeam.storage import base, objects
from modelbeam.storage.s3 import PARTS, SMALLEST_PART, plan_parts

MIB = 1 << 20


def content_of(size: int, seed: int = 1) -> bytes:
    """Bytes that tell where they stand."""
    return random.Random(seed).randbytes(size)


# Publishing while requests fail


@SINGLE
def test_publishing_survives_a_failure_of_any_request(store_root: Root, single: bool) -> None:
    whole = committed(store_root, "whole", single)
    whole.publish()
    for index in indices(store_root):
        job = committed(store_root, f"fault-{index}", single)
        fault = ["lost", "503", "cut"][index % 3]
        store_root.proxy.reset(once(index, fault))
        run = job.publish()
        failed = store_root.proxy.faults
        store_root.proxy.reset()
        assert run["counts"] == {"read": 12, "predicted": 8, "failed": 4}
        assert without_times(job.visible()) == without_times(whole.visible())
        if not failed:
            break
    assert index > 15


@SINGLE
@pytest.mark.parametrize("seed", range(3))
def test_a_job_survives_failures_at_random(store_root: Root, single: bool, seed: int) -> None:
    whole = committed(store_root, "whole", single)
    whole.publish()
    store_root.proxy.pause = 1.0
    faults = ["503", "reset", "lost", "cut"] * 4 + ["slow"]
    store_root.proxy.reset(at_random(seed, 0.25, faults))
    job = committed(store_root, "job", single)
    job.publish()
    assert store_root.proxy.faults > 2
    store_root.proxy.reset()
    assert without_times(job.visible()) == without_times(whole.visible())
    assert not storage.exists(job.output.state)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_large_file_survives_failures(store_root: Root, fault: str) -> None:
    data = content_of(3 * objects.PART + 12345)
    for index in range(5 if fault == "lost" else 2):
        path = store_root / f"large-{index}"
        store_root.proxy.reset(once(index, fault))
        with storage.create(path) as handle:
            for at in range(0, len(data), 100_000):
                handle.write(data[at : at + 100_000])
            assert handle.tell() == len(data)
        assert store_root.proxy.faults == 1
        store_root.proxy.reset(once(index, fault))
        assert storage.read_bytes(path) == data
        assert store_root.proxy.faults == 1
    assert storage.names_in(store_root.url) == [f"large-{i}" for i in range(index + 1)]


def test_a_store_that_stays_busy_is_given_up(
    store_root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_atomically(store_root / "a", b"")
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.2)
    store_root.proxy.reset(lambda _: "503")
    with pytest.raises(OSError, match=r"the store still fails after 0 s \(503") as error:
        storage.read_bytes(store_root / "a")
    assert error.value.filename == store_root / "a"
    assert len(store_root.proxy.requests) > 3


@pytest.mark.parametrize("answered", [False, True])
def test_a_store_that_never_answered_is_given_up_sooner(
    store_root: Root, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    monkeypatch.setattr(base, "FIRST_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.5)
    if answered:
        storage.write_atomically(store_root / "a", b"")
    store_root.proxy.reset(lambda _: "reset")
    with pytest.raises(OSError, match="after 0 s" if not answered else "after 0 s|after 1 s"):
        storage.read_bytes(store_root / "a")
    assert (len(store_root.proxy.requests) > 12) == answered


# Two publishers


@SINGLE
def test_another_publishes_the_same_run_at_any_moment(
    store_root: Root, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "REPLY_SECONDS", 60.0)  # a request waits while another publishes
    whole = committed(store_root, "whole", single)
    whole.publish()
    for overwriting in (False, not single):
        for index in indices(store_root):
            job = committed(store_root, f"two-{overwriting}-{index}", single)
            if overwriting:  # there is an output of an earlier run, with its marks
                job.publish()
                job = committed(store_root, f"two-{overwriting}-{index}", single)
            between = Between(store_root, index, job.publish)
            run = job.publish()
            store_root.proxy.reset()
            if not between.done:
                break
            assert run["counts"] == {"read": 12, "predicted": 8, "failed": 4}
            assert without_times(job.visible()) == without_times(whole.visible()), index
            marks = {"out.run.json"} if single else {"run.json", "_SUCCESS"}
            assert marks <= job.visible().keys(), index
            assert not job.output.unfinished()
        assert index > 15


@SINGLE
def test_a_whole_other_run_while_one_publishes_is_not_damaged(
    store_root: Root, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "REPLY_SECONDS", 60.0)
    for index in indices(store_root):
        name = f"late-{index}"
        job = committed(store_root, name, single)

        def overwrite(name: str = name) -> None:
            again = Job(Root(store_root / name, store_root.server), single=single)
            again.publication = replace(again.publication, started=100.0)
            for split in range(2):
                again.begin(split, {0}, "again")()
            again.publish()

        between = Between(store_root, index, overwrite)
        try:
            job.publish()
            failed = None
        except ModelbeamError as error:
            failed = error
        store_root.proxy.reset()
        if not between.done:
            break
        assert job.records() == list(range(2 * RECORDS)), (index, failed)
        assert {line["by"] for line in job.predictions()} == {"again"}, (index, failed)
        assert {line["record"]["n"] for line in job.errors()} == {0, RECORDS}
        assert single or "_SUCCESS" in job.visible()
    assert index > 15


class Between:
    """Does something while a request waits in the proxy, before the store sees it."""

    def __init__(self, root: Root, index: int, do: Callable[[], Any]) -> None:
        self.done = False
        self._index, self._do = index, do
        root.proxy.reset(self._fault)

    def _fault(self, number: int) -> None:
        if number == self._index and not self.done:
            self.done = True
            self._do()


@SINGLE
@pytest.mark.parametrize("seed", range(4))
def test_four_publish_at_once(store_root: Root, single: bool, seed: int) -> None:
    whole = committed(store_root, "whole", single)
    whole.publish()
    job = committed(store_root, "job", single)
    store_root.proxy.reset(at_random(seed, 0.2, ["503", "lost", "reset"]))
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(job.publish) for _ in range(4)]
    store_root.proxy.reset()
    assert [run.result()["counts"]["read"] for run in runs] == [12] * 4
    assert without_times(job.visible()) == without_times(whole.visible())


def test_a_job_with_other_settings_on_the_same_output_fails_clearly(store_root: Root) -> None:
    first = committed(store_root, "x", False)
    other = Job(Root(store_root / "x", store_root.server))  # begins again, over the first one
    other_record = JobRecord({"model": "other"}, 1 << 20, ())
    other.publication = publish.Publication(
        other.output, other_record, {}, None, "Runner", "1 thread", 1.0, 0
    )
    with pytest.raises(ModelbeamError, match="has no manifest"):
        first.publish()
    for split in range(2):
        first.begin(split, {0}, "first")()
    publish._freeze(first.publication, first.splits)
    with pytest.raises(ModelbeamError, match="another modelbeam job with other settings"):
        other.publish()
    assert "_SUCCESS" not in first.visible()
    first.publish()
    assert first.records() == list(range(2 * RECORDS))


def test_a_run_that_was_published_is_not_published_again_after_the_reply_was_lost(
    root: Root,
) -> None:
    job = committed(root, "x", False)
    run = job.publish()
    assert publish.is_published(job.publication)
    before = job.visible()
    assert job.publish() == run
    assert job.visible() == before
    assert not storage.exists(job.output.state)


@pytest.mark.parametrize("scheme", ["local", "s3", "gs"])
def test_what_is_created_once_is_created_by_one(
    make_root: Callable[[str], Root], scheme: str
) -> None:
    root = make_root(scheme)
    if root.server is not None:
        root.proxy.reset(at_random(3, 0.3, ["lost", "503"]))
    path = root / "once"
    with ThreadPoolExecutor(8) as threads:
        there = list(threads.map(lambda n: storage.write_once(path, b"%d" % n), range(8)))
    assert len(set(there)) == 1
    assert storage.read_bytes(path) == there[0]
    assert storage.names_in(root.url) == ["once"]


# Requests


def test_few_requests_a_split(store_root: Root) -> None:
    def requests(splits: int) -> dict[str, int]:
        job = Job(Root(store_root / f"many-{splits}", store_root.server))
        job.splits = [split_of(i, "in", i, i + 1) for i in range(splits)]
        store_root.proxy.reset()
        for split in range(splits):
            job.begin(split, set())()
        job.publish()
        return store_root.proxy.kinds()

    few, many = requests(5), requests(25)
    more = {kind: many[kind] - few.get(kind, 0) for kind in many}
    assert {kind: n / 20 for kind, n in more.items() if n} == {"put": 2, "get": 1, "copy": 1}


def small_objects(store_root: Root, count: int) -> list[Split]:
    """The plan of a job over so many objects of one record, made while requests are counted."""
    for n in range(count):
        storage.write_atomically(store_root / f"in/{n:03d}.jsonl", b'{"x": %d.0}\n' % n)
    store_root.proxy.reset()
    job = build_job({"models": ["m:M"], "inputs": store_root / "in", "output": store_root / "out"})
    return make_plan(job).splits


def test_few_requests_for_each_of_many_small_objects(store_root: Root) -> None:
    def requests(count: int) -> tuple[dict[str, int], dict[str, int]]:
        root = Root(store_root / f"small-{count}", store_root.server)
        splits = small_objects(root, count)
        planning = store_root.proxy.kinds()
        together = [Split(0, tuple(piece for split in splits for piece in split.pieces))]
        output = Output(root / "out", False, Format("jsonl"))
        State(output, RECORD, fresh=True).close()
        task = Task(output.state, RECORD.fingerprint, output.format, (), None, 1 << 20)
        store_root.proxy.reset()
        made = predict_split(together[0], task, models.load("small_models:Doubler"))
        assert made.counts.predicted == count
        reading = store_root.proxy.kinds()
        name = storage.join(output.state, "attempts", made.predictions.name)
        lines = storage.read_bytes(name).splitlines()
        assert [json.loads(line)["y"] for line in lines] == [2.0 * n for n in range(count)]
        return planning, reading

    (few, few_read), (many, many_read) = requests(10), requests(50)

    def each(few: dict[str, int], many: dict[str, int]) -> dict[str, float]:
        more = {kind: (many[kind] - few.get(kind, 0)) / 40 for kind in many}
        return {kind: count for kind, count in more.items() if count}

    # a look at the first bytes of each, then its content; only HDFS must be asked for the version
    hdfs = store_root.server.scheme == "hdfs"
    assert each(few, many) == ({"get": 1, "stat": 1} if hdfs else {"get": 1})
    assert each(few_read, many_read) == {"get": 1, "stat": 3 if hdfs else 2}


def test_small_objects_are_looked_at_and_read_several_at_once(store_root: Root) -> None:
    at_once = threading.Barrier(6)

    def wait(number: int) -> None:
        request = store_root.proxy.requests[number]
        if request.kind == "get" and "/in/" in request.path.replace("%2F", "/"):
            with suppress(threading.BrokenBarrierError):
                at_once.wait(0.5)

    splits = small_objects(store_root, 24)
    pieces = tuple(piece for split in splits for piece in split.pieces)
    store_root.proxy.reset(wait)
    make_plan(build_job({"models": ["m:M"], "inputs": store_root / "in", "output": "out/"}))
    assert not at_once.broken
    output = Output(store_root / "out", False, Format("jsonl"))
    State(output, RECORD, fresh=True).close()
    task = Task(output.state, RECORD.fingerprint, output.format, (), None, 1 << 20)
    predict_split(Split(0, pieces), task, models.load("small_models:Doubler"))
    assert not at_once.broken


def test_reading_a_split_of_a_file_fetches_little_else(store_root: Root) -> None:
    data = content_of(20 * MIB)
    with storage.create(store_root / "large") as handle:
        handle.write(data)
    store_root.proxy.reset()
    start, end = 5 * MIB, 6 * MIB
    with storage.open_read(store_root / "large", end) as handle:
        handle.seek(start - 1)
        assert handle.read(end - start + 100) == data[start - 1 : end + 99]
    assert store_root.proxy.sent < 1.5 * MIB


def test_a_long_listing_comes_in_pages(store_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:02d}.jsonl" for n in range(23)]
    for name in names:
        storage.write_atomically(store_root / f"in/{name}", b"{}\n")
        storage.write_atomically(store_root / f"in/deep/{name}", b"{}\n")
    monkeypatch.setattr(objects, "PAGE", 5)
    store_root.proxy.reset()
    assert storage.names_in(store_root / "in") == [*names, "deep"]
    assert [info.path for info in storage.files_in(store_root / "in/")] == [
        store_root / f"in/{name}" for name in names
    ]
    assert len(storage.expand(store_root / "in/*.jsonl")) == 23
    assert len(storage.expand(store_root / "in/**.jsonl")) == 46
    storage.remove_tree(store_root / "in")
    assert storage.names_in(store_root.url) == []


# Names


@pytest.mark.parametrize(
    ("glob", "matching"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[!a]*.jsonl*", ["b.jsonl", "c.jsonl.gz"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "d/e.jsonl", "d/f/g.jsonl"]),
        ("d/**", ["d/e.jsonl", "d/f/g.jsonl"]),
        ("a.jsonl", ["a.jsonl"]),
        ("a.json", []),
        ("d", []),
    ],
)
def test_a_glob_means_what_it_means_locally(root: Root, glob: str, matching: list[str]) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz", "d/e.jsonl", "d/f/g.jsonl"):
        storage.make_directory((root / name).rsplit("/", 1)[0])
        storage.write_atomically(root / name, b"")
    found = [info.path for info in storage.expand(root / glob)]
    assert found == [root / name for name in matching]


@pytest.mark.parametrize("name", ["a b+c%20&d=e.jsonl", "grün/ß.jsonl", "a#b?c", "q'\"<x>"])
def test_names_are_what_they_are(root: Root, name: str) -> None:
    storage.make_directory((root / name).rsplit("/", 1)[0])
    storage.write_atomically(root / name, b"x")
    storage.write_atomically(root / "second", b"y")
    assert storage.read_bytes(root / name) == b"x"
    assert storage.stat(root / name).size == 1
    if storage.keeps_sources(root.url):
        storage.copy(root / name, root / (name + ".copy"), 1)
        assert storage.read_bytes(root / (name + ".copy")) == b"x"
    storage.concatenate([(root / name, 1), (root / "second", 1)], root / (name + ".both"))
    assert storage.read_bytes(root / (name + ".both")) == b"xy"
    storage.remove([root / name, root / "second"])
    assert not storage.exists(root / name)


def test_a_directory_is_what_names_begin_with(store_root: Root) -> None:
    storage.write_atomically(store_root / "dir/sub/a", b"")
    storage.write_atomically(store_root / "dir-2/b", b"")
    assert storage.is_directory(store_root / "dir")
    assert storage.is_directory(store_root / "dir/")
    assert storage.exists(store_root / "dir")
    assert storage.exists(store_root / "dir/sub")
    assert not storage.exists(store_root / "di")
    assert not storage.is_directory(store_root / "dir/sub/a")
    assert storage.names_in(store_root / "dir") == ["sub"]


# Reading and writing


def test_a_reader_jumps_about(store_root: Root) -> None:
    data = content_of(6 * MIB + 321)
    with storage.create(store_root / "x") as handle:
        handle.write(data)
    chance = random.Random(5)
    for end in (None, 2 * MIB, len(data)):
        with storage.open_read(store_root / "x", end) as handle:
            position = 0
            for _ in range(60):
                if chance.random() < 0.4:
                    position = handle.seek(chance.randrange(len(data) + 10))
                elif chance.random() < 0.2:
                    position = handle.seek(-min(position, 40), os.SEEK_CUR)
                size = chance.choice([1, 100, 70_000, MIB, 3 * MIB])
                assert handle.read(size) == data[position : position + size]
                position = min(max(position, len(data)), position + size)
                position = handle.tell()
            handle.seek(-5, os.SEEK_END)
            assert handle.read() == data[-5:]


def test_an_empty_object_is_read(store_root: Root) -> None:
    storage.write_atomically(store_root / "empty", b"")
    assert storage.read_bytes(store_root / "empty") == b""
    with storage.open_read(store_root / "empty", 10) as handle:
        assert handle.read(5) == b""


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(store_root: Root) -> None:
    storage.write_atomically(store_root / "x", content_of(20 * MIB))
    with storage.open_read(store_root / "x") as handle:
        handle.read(1000)
        storage.write_atomically(store_root / "x", content_of(20 * MIB, 2))
        with pytest.raises(OSError, match="it was replaced while it was read"):
            handle.read()


def test_what_is_discarded_or_never_closed_does_not_appear(store_root: Root) -> None:
    for size in (10, 3 * objects.PART):
        handle = storage.create(store_root / "x")
        handle.write(bytes(size))
        storage.discard(store_root / "x", handle)
        with suppress(KeyError), storage.create(store_root / "y") as handle:
            handle.write(bytes(size))
            raise KeyError
        unclosed = storage.create(store_root / "z")
        unclosed.write(b"x")
        del unclosed
    assert storage.names_in(store_root.url) == []


@pytest.mark.parametrize("sizes", [[3], [0, 5, 0], [4, 7 * MIB, 9], [6 * MIB] * 2, [1000] * 40])
def test_files_are_put_together(root: Root, sizes: list[int]) -> None:
    parts = [content_of(size, n) for n, size in enumerate(sizes)]
    sources = []
    for n, part in enumerate(parts):
        storage.write_atomically(root / f"part-{n}", part)
        sources.append((root / f"part-{n}", len(part)))
    storage.concatenate(sources, root / "whole")
    assert storage.read_bytes(root / "whole") == b"".join(parts)
    assert len(storage.names_in(root.url)) == len(sizes) + 1


@given(st.lists(st.one_of(st.integers(0, 3 * MIB), st.integers(0, 3 << 30)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_parts_of_an_s3_object_are_all_of_it_and_none_too_small(sizes: list[int]) -> None:
    parts = plan_parts([(f"{n}", size) for n, size in enumerate(sizes)])
    spans = [span for part in parts for span in ([part.copied] if part.copied else part.sent)]
    at: dict[str, int] = {}
    order = []
    for path, start, end in spans:
        assert start == at.get(path, 0) < end
        at[path] = end
        order.append(int(path))
    assert order == sorted(order)
    assert at == {f"{n}": size for n, size in enumerate(sizes) if size}
    lengths = [p.copied[2] - p.copied[1] if p.copied else p.bytes_sent for p in parts]
    assert all(SMALLEST_PART <= length <= 5 << 30 for length in lengths[:-1])
    assert len(parts) <= PARTS
    assert (
        sum(part.bytes_sent for part in parts)
        <= sum(min(size, 4 * SMALLEST_PART) for size in sizes) + sum(sizes) // 100
    )


def test_an_object_too_large_for_one_copy_is_copied_in_parts(
    make_root: Callable[[str], Root], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_root("s3")
    data = content_of(13 * MIB)
    with storage.create(root / "x") as handle:
        handle.write(data)
    monkeypatch.setattr("modelbeam.storage.s3.LARGEST_COPY", 8 * MIB)
    monkeypatch.setattr("modelbeam.storage.s3.LARGEST_PART_COPY", 10 * MIB)
    storage.copy(root / "x", root / "y", len(data))
    assert storage.read_bytes(root / "y") == data


def test_a_url_is_fetched_once(store_root: Root) -> None:
    for name in ("m/MLmodel", "m/data/model.bin", "model.onnx"):
        storage.write_atomically(store_root / name, name.encode())
    file = storage.local_copy(store_root / "model.onnx")
    assert Path(file).name == "model.onnx"
    assert Path(file).read_bytes() == b"model.onnx"
    folder = Path(storage.local_copy(store_root / "m"))
    assert folder.name == "m"
    assert (folder / "MLmodel").read_bytes() == b"m/MLmodel"
    assert (folder / "data" / "model.bin").read_bytes() == b"m/data/model.bin"
    store_root.proxy.reset()
    assert storage.local_copy(store_root / "model.onnx") == file
    assert store_root.proxy.requests == []
    with pytest.raises(FileNotFoundError):
        storage.local_copy(store_root / "none")
    assert storage.local_copy(file) == file


# What a store refuses


def test_a_bucket_that_is_not_there_is_named_at_once(store_root: Root) -> None:
    scheme = store_root.url.partition("://")[0]
    with pytest.raises(StorageError, match="there is no bucket 'nowhere'"):
        storage.expand(f"{scheme}://nowhere/*.jsonl")
    with pytest.raises(StorageError, match="names no bucket"):
        storage.stat(f"{scheme}:///x")
    assert len(store_root.proxy.requests) <= 2


@pytest.mark.parametrize("ask", ["stat", "read_bytes", "files_in", "write"])
def test_what_is_not_allowed_is_said_at_once_with_the_remedy(store_root: Root, ask: str) -> None:
    path = store_root / "x"
    store_root.proxy.reset(lambda _: "403")
    calls: dict[str, Callable[[], Any]] = {
        "stat": lambda: storage.stat(path),
        "read_bytes": lambda: storage.read_bytes(path),
        "files_in": lambda: storage.files_in(path),
        "write": lambda: storage.write_atomically(path, b""),
    }
    with pytest.raises(StorageError) as error:
        calls[ask]()
    assert path in str(error.value)
    assert "does not allow it" in str(error.value)
    assert "on the bucket 'models'" in str(error.value)
    assert "AWS_PROFILE" in str(error.value) or "gcloud auth" in str(error.value)
    assert len(store_root.proxy.requests) == 1


@pytest.mark.parametrize(
    ("scheme", "library", "extra"), [("s3", "boto3", "aws"), ("gs", "google.auth", "gcp")]
)
def test_a_library_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, scheme: str, library: str, extra: str
) -> None:
    monkeypatch.setattr(storage, "_stores", {})
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(StorageError, match=rf"pip install 'modelbeam\[{extra}\]'"):
        storage.exists(f"{scheme}://bucket/x")


def test_missing_credentials_are_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage, "_stores", {})
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for url, remedy in [("s3://bucket/x", "AWS_ACCESS_KEY_ID"), ("gs://bucket/x", "gcloud auth")]:
        with pytest.raises(StorageError, match=f"{url} cannot be reached: .*{remedy}"):
            storage.stat(url)
    with (
        pytest.raises(RequestError, match="--input s3://bucket/x: s3://bucket/x cannot be"),
        storage.asked_for("--input s3://bucket/x"),
    ):
        storage.stat("s3://bucket/x")


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Uploads and parallel requests leave no threads behind."""
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("upload", "storage"))]


def test_a_fresh_state_drops_all_that_an_earlier_run_left(root: Root) -> None:
    job = committed(root, "x", False)
    publish._freeze(job.publication, job.splits)
    State(job.output, RECORD, fresh=True).close()
    assert not publish.is_frozen(job.output)
    assert not job.output.unfinished()


# Models behind URLs


def test_models_are_run_from_behind_urls(
    make_root: Callable[..., Root], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import joblib
    import pandas as pd
    from sklearn.linear_model import LinearRegression
    from test_onnx import RECORDS as ROWS
    from test_onnx import X, own, with_weights_beside

    import modelbeam
    from modelbeam import models
    from modelbeam.models import Options

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    root = make_root("s3", direct=True)
    frame = pd.DataFrame({"a": X[:, 0].astype(float), "b": X[:, 1].astype(float)})
    fitted = LinearRegression().fit(frame, X[:, 2].astype(float))
    joblib.dump(fitted, tmp_path / "m.joblib")
    storage.write_atomically(root / "m.joblib", (tmp_path / "m.joblib").read_bytes())
    write_lines(tmp_path / "in.jsonl", frame.to_dict("records"))
    job = {
        "model": root / "m.joblib",
        "input": str(tmp_path / "in.jsonl"),
        "output": str(tmp_path / "out.jsonl"),
        "beam_options": list(storage.configuration()),
    }
    modelbeam.predict(**job)
    made = [line["prediction"] for line in read_lines(tmp_path / "out.jsonl")]
    assert made == fitted.predict(frame).tolist()
    assert os.listdir(temporary) == []
    joblib.dump(LinearRegression().fit(frame, X[:, 3]), tmp_path / "m.joblib")
    storage.write_atomically(root / "m.joblib", (tmp_path / "m.joblib").read_bytes())
    with pytest.raises(ResumeError, match="model code and files: was"):
        modelbeam.predict(**job, resume=True)
    path = Path(with_weights_beside(tmp_path))
    for name in ("large.onnx", "large.weights"):  # what lies beside it is fetched too
        storage.write_atomically(root / name, (tmp_path / name).read_bytes())
    model = models.load(root / "large.onnx", options=Options(features=("a", "b", "c", "d")))
    outcome = testing.predict(model, ROWS[:16])
    assert outcome.failures == []
    [piece] = outcome.values
    values = piece.column("y").flatten().to_numpy().reshape(16, -1)
    assert (values == own(str(path), {"X": X[:16]})["y"]).all()
