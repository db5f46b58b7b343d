"""Files behind a URL: through Beam's ``FileSystems``, with a scheme whose files are local ones.

The scheme stands for an object store and is none: listing, renaming and failing as real stores do
it is not shown here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem

from modelbeam import storage
from modelbeam.job.description import ModelSpec
from modelbeam.local.pool import WorkerPool
from modelbeam.storage import fetched
from modelbeam.storage.base import Store

SCHEME = "kept"


class KeptFiles(LocalFileSystem):
    """``kept:///path`` is the local file ``/path``."""

    @classmethod
    def scheme(cls) -> str:
        return SCHEME

    @staticmethod
    def _local(path: str) -> str:
        return path.removeprefix(f"{SCHEME}://")

    def match(self, patterns: list[str], limits: Any = None) -> list[MatchResult]:
        found = super().match([self._local(pattern) for pattern in patterns], limits)
        return [
            MatchResult(
                result.pattern,
                [
                    FileMetadata(f"{SCHEME}://{m.path}", m.size_in_bytes, m.last_updated_in_seconds)
                    for m in result.metadata_list
                ],
            )
            for result in found
        ]

    def create(self, path: str, *arguments: Any, **settings: Any) -> Any:
        Path(self._local(path)).parent.mkdir(parents=True, exist_ok=True)
        return super().create(self._local(path), *arguments, **settings)

    def open(self, path: str, *arguments: Any, **settings: Any) -> Any:
        return super().open(self._local(path), *arguments, **settings)

    def exists(self, path: str) -> bool:
        return super().exists(self._local(path))

    def rename(self, sources: list[str], targets: list[str]) -> None:
        super().rename(list(map(self._local, sources)), list(map(self._local, targets)))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            Path(self._local(path)).unlink()


@pytest.fixture(params=["local", "url"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same directory, by its path and by its URL."""
    return str(tmp_path) if request.param == "local" else f"{SCHEME}://{tmp_path}"


def test_a_file_is_written_listed_read_and_removed(directory: str) -> None:
    path = storage.join(directory, "a.jsonl")
    storage.write_atomically(path, b"one\n")
    assert storage.exists(path)
    assert storage.read_bytes(path) == b"one\n"
    assert storage.stat(path).size == 4
    assert storage.stat(path).mtime_ns > 10**18
    assert [info.path for info in storage.expand(storage.join(directory, "*.jsonl"))] == [path]
    assert storage.names_in(directory) == ["a.jsonl"]
    storage.remove([path, path])
    assert not storage.exists(path)


def test_a_file_that_is_not_there_is_said_to_be_missing(directory: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.stat(storage.join(directory, "none"))
    assert storage.expand(storage.join(directory, "none*")) == []
    assert storage.names_in(storage.join(directory, "none")) == []


def test_a_file_takes_the_place_of_another(directory: str) -> None:
    old, new = storage.join(directory, "old"), storage.join(directory, "new")
    storage.write_atomically(old, b"old")
    storage.write_atomically(new, b"new")
    storage.replace(new, old)
    assert (storage.names_in(directory), storage.read_bytes(old)) == (["old"], b"new")


def test_a_directory_is_removed_with_all_that_is_in_it(directory: str) -> None:
    state = storage.join(directory, "state")
    storage.make_directory(state)
    storage.make_directory(storage.join(state, "manifests"))
    storage.write_atomically(storage.join(state, "job.json"), b"{}")
    storage.write_atomically(storage.join(state, "manifests", "a.json"), b"{}")
    storage.remove_tree(state)
    assert not storage.exists(storage.join(state, "job.json"))
    assert not storage.exists(storage.join(state, "manifests", "a.json"))


def test_a_local_url_is_a_path() -> None:
    assert storage.normalize("file:///a/b.jsonl") == "/a/b.jsonl"
    assert not storage.is_url("file:///a/b.jsonl")
    assert storage.is_url("gs://bucket/b.jsonl")


# What a process fetched that ends hard

FETCH = """
import io, os, signal, sys
from modelbeam.storage import fetched

class Store:
    def open_read(self, url):
        return io.BytesIO(b"a model")

print(fetched.local_copy(Store(), "x://bucket/model.bin"), flush=True)
if "fork" in sys.argv and os.fork() == 0:
    sys.exit()  # with all that is done when an interpreter ends
sys.stdin.readline()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory, here and in processes that are started."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@contextlib.contextmanager
def fetching(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has fetched a file, and where that is."""
    command = [sys.executable, "-c", FETCH, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_what_a_killed_process_fetched_is_cleared_and_not_what_a_living_one_did(
    temporary: Path,
) -> None:
    with fetching() as (alive, kept), fetching() as (killed, left):
        killed.kill()
        killed.wait()
        assert left.read_bytes() == b"a model"
        storage.clear_local_copies()
        assert not left.parent.exists()
        assert kept.read_bytes() == b"a model"
        alive.communicate("\n")
        assert alive.returncode == 0
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("temporary")
def test_a_child_that_was_forked_takes_nothing_away() -> None:
    with fetching("fork") as (process, file):
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        deadline = time.monotonic() + 20
        while "Z" not in _states_of_children(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert file.read_bytes() == b"a model"
        storage.clear_local_copies()
        assert file.read_bytes() == b"a model"


def _states_of_children(parent: int) -> str:
    states = ""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, owner, *_ = path.read_text().rpartition(")")[2].split()
            states += state if int(owner) == parent else ""
    return states


def test_a_folder_without_a_lock_is_left_alone_while_it_is_young(temporary: Path) -> None:
    names = ("modelbeam-fetched-a", "modelbeam-fetched-b", "x")
    young, old, others = (temporary / name for name in names)
    for folder in (young, old, others):
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"")
    an_hour_ago = time.time() - 3601
    for folder in (old, others):
        os.utime(folder, (an_hour_ago, an_hour_ago))
    storage.clear_local_copies()
    assert sorted(temporary.iterdir()) == [young, others]


def test_a_folder_that_is_cleared_while_it_is_made_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = fetched._take, []

    def clear_first(descriptor: int) -> bool | None:
        if not taken:  # somebody else has it, sees no owner, and removes the folder
            taken.append(descriptor)
            for folder in temporary.iterdir():
                shutil.rmtree(folder)
        return take(descriptor)

    monkeypatch.setattr(fetched, "_take", clear_first)
    folder = Path(fetched.new_folder())
    assert taken
    assert list(temporary.iterdir()) == [folder]
    assert (folder / ".lock").exists()


@pytest.mark.usefixtures("temporary")
def test_a_pool_clears_what_its_processes_fetched() -> None:
    with fetching() as (process, file):
        process.kill()
        process.wait()
        pool = WorkerPool(
            ModelSpec.model_validate({"target": "small_models:Doubler"}), 1, "threads"
        )
        pool.close(kill=True)
        assert not file.parent.exists()


def test_what_is_mapped_over_may_be_dropped_in_one_of_its_own_threads() -> None:
    """As the garbage collector does it, wherever it happens to run."""
    begun = threading.Event()
    dropped: Future[None] = Future()

    def called(number: int) -> int:
        if number:
            begun.wait(60)
            try:
                made.close()
                dropped.set_result(None)
            except BaseException as error:
                dropped.set_exception(error)
        return number

    asked: Any = SimpleNamespace(parallel=2)
    made: Any = Store.in_parallel(asked, called, [0, 1])
    assert next(made) == 0
    begun.set()
    assert dropped.result(60) is None
