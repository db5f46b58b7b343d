"""A digest of a model: of its file, or of its code and what lies beside it.

A job is only resumed with the model that it was begun with, whatever the model says of its version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Iterator

from modelbeam.models.target import Target

READ_AT_MOST = 256 << 20
"""Bytes of a package's files that are read; larger ones count by size and time of change."""

_FILES_AT_MOST = 10_000
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NO_CONTENT = (".pyc", ".pyo", ".log", ".tmp", ".lock", ".swp")


def of_target(target: Target) -> str | None:
    """The digest of what a target names, which is loaded; ``None`` for a URI."""
    if target.of or target.form == "object":
        return None  # each has its own
    if target.form == "class":
        return of_code(target.module)
    return None if target.form == "uri" else of_path(target.local())


def of_path(path: str) -> str:
    """The digest of the content of a file, or of all files of a directory with their names."""
    if not os.path.isdir(path):
        return _digest([(b"", path)], None)
    return _digest(_named(_below(path), path), None)


def of_code(module: str) -> str | None:
    """The digest of the code that a loaded module is part of.

    Of an installed package that is what its ``RECORD`` says of its files. Of any other module it
    is all loaded modules from the same directory, and all files of its top-level package: a model
    often has its weights there.
    """
    top_name = module.partition(".")[0]
    top = sys.modules.get(top_name)
    file = getattr(top, "__file__", None)
    places = list(getattr(top, "__path__", []))
    if not file and not places:
        return None  # a built-in module, or one of a notebook
    package = os.path.dirname(file) if file and places else None
    root = os.path.dirname(os.path.abspath(package or file or places[0]))
    if any(part in root + os.sep for part in _INSTALLED):
        recorded = _recorded(top_name)
        if recorded is not None:
            return hashlib.blake2b(recorded.encode(), digest_size=12).hexdigest()
        files = {*(_below(package) if package else [file or ""])} - {""}
    else:
        files = {*_loaded_from(root), *(_below(package) if package else [])}
    return _digest(_named(files, root), READ_AT_MOST)


def _recorded(top: str) -> str | None:
    """The hashes that the distribution called like a top-level module has of its files."""
    try:
        lines = (importlib.metadata.distribution(top).read_text("RECORD") or "").splitlines()
    except importlib.metadata.PackageNotFoundError:
        return None
    hashed = [line for line in lines if ",sha256=" in line and ".dist-info/" not in line]
    ours = any(line.startswith((f"{top}/", f"{top}.py,")) for line in hashed)
    return "\n".join(sorted(hashed)) if ours else None


def _loaded_from(root: str) -> Iterator[str]:
    inside = root.rstrip(os.sep) + os.sep
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            file = os.path.abspath(file)
            if file.startswith(inside) and not any(part in file for part in _INSTALLED):
                yield file


def _below(directory: str) -> Iterator[str]:
    """The files of a directory but for hidden ones, caches and logs."""
    for folder, names, files in os.walk(directory):
        names[:] = sorted(n for n in names if not n.startswith((".", "_modelbeam", "__pycache__")))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(_NO_CONTENT):
                yield os.path.join(os.path.abspath(folder), name)


def _named(files: Iterable[str], root: str) -> list[tuple[bytes, str]]:
    return sorted((os.fsencode(os.path.relpath(file, root)), file) for file in files)


def _digest(files: list[tuple[bytes, str]], limit: int | None) -> str:
    digest = hashlib.blake2b(digest_size=12)
    left = limit
    for name, file in files[:_FILES_AT_MOST]:
        try:
            state = os.stat(file)
            digest.update(b"%b\0%d\0" % (name, state.st_size))
            if left is not None and state.st_size > left:
                digest.update(b"%d" % state.st_mtime_ns)
                continue
            with open(file, "rb") as handle:
                while chunk := handle.read(1 << 20):
                    digest.update(chunk)
            left = None if left is None else left - state.st_size
        except OSError:
            digest.update(name + b"\0gone")  # removed since it was loaded, or in an archive
    return digest.hexdigest()
