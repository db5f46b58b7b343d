"""Files behind a URL: through Beam's ``FileSystems``, with a scheme whose files are local ones.

The scheme stands for an object store and is none: listing, renaming and failing as real stores do
it is not shown here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem

from modelbeam import storage

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
