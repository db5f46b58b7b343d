"""Whether what a model's target names has changed since, and a copy of what is there now.

A run that goes on for long loads its model from a copy: a file that is being written again is never
loaded half, and a process that starts later has the same model as the others.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import NamedTuple

from modelbeam import storage
from modelbeam.errors import ModelbeamError
from modelbeam.models.kinds import kind_of
from modelbeam.models.target import Form, Target
from modelbeam.storage import fetched

COPY_AT_MOST = 4 << 30
"""Bytes of a model's files that are copied; what has more is loaded where it is."""

State = tuple[Hashable, ...]
"""Differs once a target's files have, or the version that it names has."""


class GoneError(Exception):
    """What a target names is not there now, or cannot be asked for."""


class Copied(NamedTuple):
    """A target as it was at one moment.

    Attributes:
        target: the same by another path; the text is the one that was given.
        folders: what was made for it.
    """

    target: Target
    folders: tuple[str, ...]

    def remove(self) -> None:
        """Take the copy away."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def state_of(target: Target) -> State:
    """What tells whether a target has changed; of a class or a function nothing does.

    Raises:
        GoneError: it is not there now.
    """
    found: list[Hashable] = []
    try:
        for leaf in target.leaves:
            if pinned := _pinned(leaf):
                found.append(pinned)
            elif leaf.form == "uri" and storage.is_url(leaf.path):
                found += _remote(leaf.path)
            elif leaf.form in ("file", "directory"):
                for path in _files(leaf):
                    found.append((path, *_identity(os.stat(path))))
    except (OSError, ModelbeamError) as error:
        raise GoneError(str(error)) from error
    return tuple(found)


def settles(target: Target) -> bool:
    """Whether it is made of files, which somebody may be writing."""
    return any(
        leaf.form in ("file", "directory") or (leaf.form == "uri" and storage.is_url(leaf.path))
        for leaf in target.leaves
    )


def is_code(target: Target) -> bool:
    """Whether a class or a function is a part of it: its digest may not say all."""
    return any(leaf.form == "class" for leaf in target.leaves)


def is_far(target: Target) -> bool:
    """Whether to ask for its state is to ask another machine."""
    return any(leaf.form == "uri" for leaf in target.leaves)


def copied(target: Target) -> Copied:
    """Copy what a target names now, or name its version, if it has one.

    Raises:
        GoneError: it is not there now.
    """
    if target.of:
        parts = [copied(one) for one in target.of]
        folders = tuple(folder for part in parts for folder in part.folders)
        return Copied(replace(target, of=tuple(part.target for part in parts)), folders)
    try:
        if pinned := _pinned(target):
            return Copied(replace(target, path=pinned), ())
        if target.form == "uri" and storage.is_url(target.path):
            path = fetched.fetch(storage.store_of(target.path), target.path)
            form: Form = "directory" if os.path.isdir(path) else "file"
            return Copied(replace(target, form=form, path=path), (os.path.dirname(path),))
        if target.form not in ("file", "directory"):
            return Copied(target, ())
        files = list(_files(target))
        if not files or sum(os.stat(path).st_size for path in files) > COPY_AT_MOST:
            return Copied(target, ())
        return _copy(target, files)
    except (OSError, ModelbeamError) as error:
        raise GoneError(str(error)) from error


def _copy(target: Target, files: list[str]) -> Copied:
    base = os.path.dirname(target.path.rstrip("/"))
    folder = fetched.new_folder()
    try:
        for path in files:
            place = os.path.join(folder, os.path.relpath(path, base))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy2(path, place)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made = os.path.join(folder, os.path.basename(target.path.rstrip("/")))
    return Copied(replace(target, path=made), (folder,))


def _pinned(target: Target) -> str | None:
    """The URI of the version that a URI names now, if it may name another one later."""
    if target.form != "uri" or storage.is_url(target.path):
        return None
    hook = kind_of(target).pinned
    if not hook:
        return None
    module, _, name = hook.partition(":")
    try:
        found: str | None = getattr(importlib.import_module(module), name)(target.path)
    except ImportError as error:  # whoever loads it says what is missing
        raise GoneError(str(error)) from error
    return found


def _remote(url: str) -> Iterator[Hashable]:
    plain = url.rstrip("/")
    try:
        yield tuple(storage.stat(plain))
    except FileNotFoundError:
        found = storage.expand(plain + "/**")
        if not found:
            raise
        yield from map(tuple, found)


def _files(target: Target) -> Iterator[str]:
    """The local files of a file or directory, with those beside it that belong to it."""
    if os.path.isdir(target.path):
        for folder, names, files in os.walk(target.path, followlinks=True):
            names.sort()
            for name in sorted(files):
                yield os.path.join(folder, name)
        return
    yield target.path
    yield from kind_of(target).files_beside(target.path)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ino
