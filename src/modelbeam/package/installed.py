"""The distributions of this environment: where each was installed from, and what it requires.

Read from their metadata alone: ``direct_url.json`` (PEP 610) says where one came from that is not
from an index, ``RECORD`` which files are its own.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from modelbeam.package.items import canonical

Source = Literal["index", "editable", "directory", "archive", "vcs"]

LINUX = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
}
"""What markers see on the workers, where this machine is another."""

_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(eq=False)
class Installed:
    """One distribution of the environment.

    Attributes:
        metadata: what ``importlib.metadata`` has of it.
        name: as its metadata has it.
        version: the same.
        root: the directory that holds its metadata, and mostly its modules.
        record: its files, relative to ``root``; empty if it has no ``RECORD``.
    """

    metadata: importlib.metadata.Distribution
    name: str
    version: str
    root: Path
    record: list[str] = field(repr=False)

    @functools.cached_property
    def _direct_url(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.metadata.read_text("direct_url.json") or "{}")
        return found

    @functools.cached_property
    def source(self) -> Source:
        """Where it was installed from."""
        direct = self._direct_url
        if "vcs_info" in direct:
            return "vcs"
        if "archive_info" in direct:
            return "archive"
        if "dir_info" in direct:
            return "editable" if direct["dir_info"].get("editable") else "directory"
        # the old "setup.py develop" leaves metadata without a RECORD beside the project
        return "editable" if not self.record and self.project is not None else "index"

    @functools.cached_property
    def origin(self) -> str:
        """Where it was installed from, for people: a path, or a URL without its secrets."""
        if self.source in ("editable", "directory"):
            return str(self.project)
        url = str(self._direct_url.get("url", ""))
        commit = self._direct_url.get("vcs_info", {}).get("commit_id", "")
        parts = urlsplit(url)
        if parts.scheme == "file":
            return unquote(parts.path)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        return plain.geturl() + (f"@{commit[:12]}" if commit else "")

    @functools.cached_property
    def project(self) -> Path | None:
        """The directory of the project that it was installed from, if it was one."""
        if "dir_info" in self._direct_url:
            return Path(unquote(urlsplit(self._direct_url["url"]).path))
        if self.record:
            return None
        for directory in (self.root, self.root.parent):
            if any((directory / name).is_file() for name in _PROJECT_FILES):
                return directory
        return None

    def owns(self, file: str) -> bool:
        """Whether a file, as a real path, is its own.

        A file beside the packages of an editable project is its own only if the metadata says so.
        """
        root = os.path.realpath(self.root) + os.sep
        if file.startswith(root) and file.removeprefix(root).replace(os.sep, "/") in self._files:
            return True
        if self.source != "editable":
            return False
        for module, place in self._mapped:
            inside = place if os.path.isdir(place) else None
            if file == place or (inside and file.startswith(inside + os.sep)):
                return module is not None or self._is_named(file, place)
        return False

    @functools.cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(self.record)

    def _is_named(self, file: str, root: str) -> bool:
        """Whether a file in a directory that the project put on the path is part of it."""
        top = os.path.relpath(file, root).split(os.sep)[0].removesuffix(".py")
        listed = (self.metadata.read_text("top_level.txt") or "").split()
        if listed:
            return top in listed
        project = self.project
        if project is None or os.path.realpath(project) != root:
            return True
        described = "\n".join(_lines(project / "pyproject.toml"))
        return (
            canonical(top) == canonical(self.name)
            or re.search(rf"\b{re.escape(top)}\b", described) is not None
        )

    @functools.cached_property
    def _mapped(self) -> list[tuple[str | None, str]]:
        """Where an editable one's modules lie: (module, its place), or (None, a path entry)."""
        found: list[tuple[str | None, str]] = []
        for name in self.record:
            if name.endswith(".pth"):
                for line in _lines(self.root / name):
                    if not line.startswith(("import ", "import\t", "#")) and line:
                        found.append((None, os.path.realpath(self.root / line)))
            elif name.endswith(".py") and "/" not in name and "editable" in name:
                found += _finder_mapping("\n".join(_lines(self.root / name)))
        if not self.record:
            found.append((None, os.path.realpath(self.root)))
        elif not found and self.project is not None:  # some loader of its own
            found.append((None, os.path.realpath(self.project)))
        return found

    def requires(self, extras: Iterable[str]) -> Iterator[Requirement]:
        """What it requires with these extras, on this machine and on Linux workers."""
        places: list[dict[str, str]] = [{}] if sys.platform == "linux" else [{}, LINUX]
        environments = [
            {"extra": extra, **place} for extra in ("", *sorted(extras)) for place in places
        ]
        for text in self.metadata.requires or []:
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            if marker is None or any(marker.evaluate(e) for e in environments):
                yield requirement


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []


def _finder_mapping(code: str) -> list[tuple[str | None, str]]:
    """The modules that an editable install's finder knows (setuptools' MAPPING, editables')."""
    found: list[tuple[str | None, str]] = []
    mapping = re.search(r"^MAPPING\b[^=\n]*=\s*(\{.*?\})\s*$", code, re.MULTILINE | re.DOTALL)
    if mapping:
        for module, place in ast.literal_eval(mapping[1]).items():
            path = place if os.path.exists(place) else place + ".py"
            found.append((module, os.path.realpath(path)))
    for module, place in re.findall(r"map_module\(['\"]([\w.]+)['\"], ['\"]([^'\"]+)", code):
        package = os.path.dirname(place) if os.path.basename(place) == "__init__.py" else place
        found.append((module, os.path.realpath(package)))
    return found


class Environment:
    """What is installed on a search path.

    Args:
        path: directories, as in ``sys.path``; an earlier one hides a later one's.
    """

    def __init__(self, path: Iterable[str]) -> None:
        self._path = list(path)

    @functools.cached_property
    def _by_name(self) -> dict[str, Installed]:
        found: dict[str, Installed] = {}
        for metadata in importlib.metadata.distributions(path=self._path):
            if "Name" not in metadata.metadata:
                continue  # what an interrupted pip leaves
            name = metadata.metadata["Name"]
            record = [
                line.rsplit(",", 2)[0].strip('"')
                for line in (metadata.read_text("RECORD") or "").splitlines()
                if line
            ]
            known = found.get(canonical(name))
            # build leftovers (egg-info without a RECORD) in the working directory do not count
            if known is None or (record and not known.record):
                root = Path(str(metadata.locate_file("")))
                found[canonical(name)] = Installed(metadata, name, metadata.version, root, record)
        return found

    def find(self, name: str) -> Installed | None:
        """The distribution of that name."""
        return self._by_name.get(canonical(name))

    def owner(self, file: str | Path, module: str) -> Installed | None:
        """The distribution that a module's file is of.

        Args:
            file: where the module was found.
            module: its full name; one called as its top-level package is asked first.
        """
        real = os.path.realpath(file)
        first = self.find(module.partition(".")[0])
        if first is not None and first.owns(real):
            return first
        return next((one for one in self._by_name.values() if one.owns(real)), None)

    @functools.cached_property
    def shared_directories(self) -> frozenset[str]:
        """Top-level directories that several distributions have files in, such as ``google``."""
        owners: dict[str, int] = {}
        for one in self._by_name.values():
            for top in {name.partition("/")[0] for name in one.record}:
                owners[top] = owners.get(top, 0) + 1
        return frozenset(top for top, count in owners.items() if count > 1)

    def named_like(self, module: str) -> Installed | None:
        """A distribution that has a top-level module of that name among its files."""
        files = (f"{module}/__init__.py", f"{module}.py")
        for one in self._by_name.values():
            if any(file in one._files for file in files):
                return one
        return None


@dataclass
class Closure:
    """Distributions with all that they require, the required before what requires them.

    Attributes:
        environment: where they are.
        found: by canonical name, with what needs each, in the order of installation.
        missing: pairs of what is required and by what; not installed here.
        stop: canonical names that are noted in ``met`` and not followed.
        met: the names of ``stop`` that are required.
    """

    environment: Environment
    stop: frozenset[str]
    found: dict[str, tuple[Installed, str]] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    _done: set[tuple[str, frozenset[str]]] = field(default_factory=set)

    def add(self, name: str, why: str, extras: Iterable[str] = ()) -> None:
        """Add a distribution and all that it requires on this machine.

        Args:
            name: of the distribution.
            why: what needs it, for people.
            extras: its extras that are needed.
        """
        key = canonical(name)
        if key in self.stop:
            self.met.add(key)
            return
        if (key, frozenset(extras)) in self._done:
            return
        self._done.add((key, frozenset(extras)))
        installed = self.environment.find(name)
        if installed is None:
            self.missing.append((name, why))
            return
        for requirement in installed.requires(extras):
            self.add(requirement.name, f"{installed.name} requires it", requirement.extras)
        self.found.setdefault(key, (installed, why))
