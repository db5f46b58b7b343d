"""hdfs:// on a real HDFS: the commit protocol, failing requests, killed servers, whole commands.

Most tests are those of the other stores, with another root. The proxy is before the NameNode, which
sees every request first; what goes to and from the DataNode does not pass through it.
"""

from __future__ import annotations

import inspect
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import test_commit
import test_store_commands
import test_stores
from crashing import Command
from stores import BUCKET, Proxy, Root, StoreServer, free_port, once
from test_store_commands import MODEL, command, uploaded, visible

from engines.clusters import Hdfs
from modelbeam import storage
from modelbeam.errors import StorageError
from modelbeam.storage import base

pytestmark = pytest.mark.timeout(600)

NOT_HERE = {
    # of object stores only
    "test_a_bucket_that_is_not_there_is_named_at_once",
    "test_a_bucket_that_is_not_there_is_one_clear_error",
    "test_few_requests_a_split",
    "test_a_long_listing_comes_in_pages",
    # of what passes through the proxy, or of its answers
    "test_a_large_file_survives_failures",
    "test_reading_a_split_of_a_file_fetches_little_else",
    "test_what_is_not_allowed_is_said_at_once_with_the_remedy",
}


def shared_with(module: ModuleType) -> dict[str, Any]:
    """The tests of a module that are told where their files are."""
    found = {name: thing for name, thing in vars(module).items() if name.startswith("test_")}
    roots = {"root", "store_root", "job"}
    return {
        name: test
        for name, test in found.items()
        if name not in NOT_HERE
        and inspect.isfunction(test)
        and roots & inspect.signature(test).parameters.keys()
    }


globals().update(shared_with(test_commit), job=test_commit.job)
globals().update(shared_with(test_stores))
globals().update(
    shared_with(test_store_commands),
    source=test_store_commands.source,
    expected=test_store_commands.expected,
)


class HdfsServer(StoreServer):
    """HDFS with the proxy before its NameNode."""

    def __init__(self, hdfs: Hdfs) -> None:
        self.scheme, self.hdfs, self.environment = "hdfs", hdfs, {}
        self.proxy = Proxy(hdfs.port)
        self.flags = self.flags_for(direct=False)

    def flags_for(self, direct: bool) -> list[str]:
        port = self.hdfs.port if direct else self.proxy.port
        return [f.replace(str(self.hdfs.port), str(port)) for f in self.hdfs.flags]


@pytest.fixture(scope="module")
def hdfs() -> Iterator[Hdfs]:
    """A NameNode and a DataNode."""
    with Hdfs() as engine:
        yield engine


@pytest.fixture(scope="module")
def store_servers(hdfs: Hdfs) -> Iterator[Callable[..., StoreServer]]:
    """Instead of the other stores, HDFS."""
    server = HdfsServer(hdfs)
    yield lambda _: server
    server.proxy.close()


@pytest.fixture
def root(make_root: Callable[..., Root]) -> Root:
    """A place in HDFS, without the proxy."""
    return make_root("hdfs", direct=True)


@pytest.fixture
def store_root(make_root: Callable[..., Root]) -> Root:
    """A place in HDFS, behind the proxy."""
    return make_root("hdfs")


# What HDFS can and others cannot


def test_a_directory_may_be_empty_and_is_no_file(root: Root) -> None:
    storage.make_directory(root / "in/empty")
    storage.make_directory(root / "in/empty")
    assert storage.is_directory(root / "in/empty")
    assert storage.names_in(root / "in") == ["empty"]
    assert storage.names_in(root / "in/empty") == storage.files_in(root / "in") == []
    assert storage.expand(root / "in/*") == storage.expand(root / "in/empty") == []
    assert storage.expand(root / "none/*") == storage.names_in(root / "none") == []
    with pytest.raises(FileNotFoundError):
        storage.stat(root / "in/empty")
    storage.write_atomically(root / "file", b"x")
    assert not storage.exists(root / "file/below")
    assert storage.names_in(root / "file") == []
    with pytest.raises(OSError, match="what is above it is a file"):
        storage.make_directory(root / "file/below")


def test_a_file_takes_the_place_of_another_at_once(store_root: Root) -> None:
    """Whoever reads meanwhile finds one or the other."""
    storage.write_atomically(store_root / "x", b"0")
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(store_root / "x"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(30):
            storage.write_atomically(store_root / "x", b"%d" % number)
    finally:
        done.set()
        reader.join()
    assert seen <= {b"%d" % number for number in range(30)}
    assert storage.names_in(store_root.url) == ["x"]


@pytest.mark.parametrize("fault", ["503", "lost", "reset", "cut"])
def test_what_is_written_survives_a_failure_of_any_request(store_root: Root, fault: str) -> None:
    data = random.Random(1).randbytes(9 << 20)
    for index in range(4):
        path = store_root / f"{fault}-{index}"
        store_root.proxy.reset(once(index, fault))
        with storage.create(path) as handle:
            handle.write(data)
        storage.replace(path, path + "-moved")
        assert storage.read_bytes(path + "-moved") == data
        assert storage.write_once(path + "-once", b"ours") == b"ours"
        assert storage.write_once(path + "-once", b"theirs") == b"ours"
        storage.remove([path + "-once"])
        assert store_root.proxy.faults == 1
    assert storage.names_in(store_root.url) == [f"{fault}-{i}-moved" for i in range(4)]


def test_a_move_of_what_is_not_there_leaves_the_target(root: Root) -> None:
    storage.write_atomically(root / "x", b"there")
    with pytest.raises(FileNotFoundError):
        storage.replace(root / "none", root / "x")
    assert storage.read_bytes(root / "x") == b"there"


# Servers that go away


def again(start: Callable[[], None], seconds: float) -> threading.Thread:
    """Start a server after a while, beside what goes on."""
    thread = threading.Timer(seconds, start)
    thread.start()
    return thread


@pytest.mark.parametrize("which", ["datanode", "namenode"])
def test_a_killed_server_that_comes_back_is_waited_for(
    root: Root, hdfs: Hdfs, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(base, "LONGEST_PAUSE", 1.0)
    storage.write_atomically(root / "a", b"before")
    getattr(hdfs, which).kill()
    coming = again(getattr(hdfs, f"start_{which}"), 1.0)
    try:
        assert storage.read_bytes(root / "a") == b"before"
        storage.write_atomically(root / "a", b"after")
        assert storage.read_bytes(root / "a") == b"after"
    finally:
        coming.join()


def test_a_command_survives_its_servers_being_killed(
    make_root: Callable[..., Root],
    hdfs: Hdfs,
    source: Path,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    root = make_root("hdfs")
    uploaded(source, root)
    coming: list[threading.Thread] = []

    def kill(number: int) -> None:
        if number == 60:
            hdfs.datanode.kill()
            coming.append(again(hdfs.start_datanode, 0.5))
        if number == 110:
            hdfs.namenode.kill()
            coming.append(again(hdfs.start_namenode, 0.5))

    root.proxy.reset(kill)
    with command(root, "out", tmp_path=tmp_path) as run:
        code = run.wait()
    for thread in coming:
        thread.join()
    root.proxy.reset()
    assert code == 0, run.stderr
    assert len(coming) == 2
    assert visible(root, "out") == expected["out"]


# Commands


def test_a_run_over_an_earlier_one_replaces_it(
    store_root: Root, source: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    uploaded(source, store_root)
    for name in ("predictions-00000-of-00099.jsonl", "errors-00098-of-00099.jsonl"):
        storage.write_atomically(store_root / f"out/{name}", b"stale")
    for flags in (["--overwrite"], ["--overwrite", "--split-size=3KB"], ["--overwrite"]):
        with command(store_root, "out", *flags, tmp_path=tmp_path) as run:
            assert run.wait() == 0, run.stderr
    assert visible(store_root, "out") == expected["out"]


def refused(root: str, *flags: str, code: int = 2) -> str:
    """What a command says that cannot reach its files."""
    own = [f"--model={MODEL}", f"--input={root}/in/*.jsonl", f"--output={root}/out"]
    with Command(*own, "--no-progress", *flags, env={"RECORD_LOG": os.devnull}) as run:
        assert run.wait() == code, run.stderr
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_what_is_missing_or_wrong_is_one_clear_error(root: Root, hdfs: Hdfs) -> None:
    host, port, user = hdfs.flags
    storage.write_atomically(root / "in/a.jsonl", b'{"n": 1, "x": 1.0}\n')
    said = refused(root.url)
    assert "hdfs_host and hdfs_port and hdfs_user must be set; pass --hdfs_host=NAMENODE" in said
    assert "hdfs_user must be set; pass" in refused(root.url, host, port)
    said = refused(root.url, host, port, "--hdfs_user=somebody", code=1)
    assert "HDFS does not allow it to the user 'somebody' (403 AccessControlException" in said
    said = refused(root.url, host, f"--hdfs_port={hdfs.rpc_port}", user)
    assert f"what answers at localhost:{hdfs.rpc_port} is not WebHDFS" in said
    assert f"input hdfs://{BUCKET}/none" in refused(f"hdfs://{BUCKET}/none", host, port, user)
    named = root.url.replace("hdfs://", "hdfs://localhost:8020/")
    assert "pass --hdfs_full_urls" in refused(named, host, port, user)


def test_a_namenode_that_is_away_is_one_clear_error() -> None:
    port = free_port()
    flags = ["--hdfs_host=localhost", f"--hdfs_port={port}", "--hdfs_user=x"]
    said = refused("hdfs://somewhere", *flags)
    assert f"the store still fails after 20 s (no answer from localhost:{port}" in said


def test_a_url_may_name_the_server(root: Root, hdfs: Hdfs) -> None:
    storage.write_atomically(root / "a", b"x")
    storage.configure([*hdfs.flags, "--hdfs_full_urls"])
    named = root.url.replace("hdfs://", "hdfs://namenode:8020/")
    assert [info.path for info in storage.expand(f"{named}/*")] == [f"{named}/a"]
    assert storage.read_bytes(f"{named}/a") == b"x"


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "_stores", {})
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(StorageError, match=r"pip install 'modelbeam\[hdfs\]'"):
        storage.exists("hdfs://x")
