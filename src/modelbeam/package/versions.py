"""The versions that a job was submitted with, and those that a worker has.

Both are a plain dict: ``python`` is the minor version, every other name is a distribution's, and
``file:churn/model.py`` is the content of a file that has no version of its own: one of a local
package or of a loose module. The names that were recorded at submission are what a worker looks up.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import socket
import sys
from collections.abc import Iterable, Mapping

from modelbeam.errors import WorkerVersionError

FILE = "file:"
"""Begins the names of files; the rest is the path below the root of what is installed."""

SHOWN = 3
"""Differences that a message names."""


def python_version() -> str:
    """``3.11``: what compiled modules, and Beam's own pickles, depend on."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def digest(data: bytes) -> str:
    """What is recorded of a file: 64 bits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def here(names: Iterable[str]) -> dict[str, str]:
    """What this environment has of each name; what it does not have is an empty string.

    Args:
        names: ``python``, names of distributions, and files as ``file:package/module.py``. The keys
            of what was recorded at submission will do.
    """
    return {name: _found(name) for name in names}


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse to work with other versions than those of the submission.

    Of Python and Beam the major and minor version must agree, of all else everything.

    Args:
        expected: what was recorded at submission.
        found: ``here(expected)``, on the worker.

    Raises:
        WorkerVersionError: some differ; the message names the worker and the first of them.
    """
    differing = [name for name in expected if not _agree(name, expected[name], found[name])]
    if not differing:
        return
    differing.sort(key=lambda name: name.startswith(FILE))  # versions say more than files
    said = [_difference(name, expected[name], found[name]) for name in differing[:SHOWN]]
    if len(differing) > SHOWN:
        said.append(f"and {len(differing) - SHOWN} more")
    raise WorkerVersionError(
        f"the worker on {socket.gethostname()} is not what the job was submitted with: "
        f"{'; '.join(said)}. {_remedy(differing)}"
    )


@functools.cache
def _found(name: str) -> str:
    if name == "python":
        return python_version()
    if name.startswith(FILE):
        return _file(name.removeprefix(FILE))
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _file(path: str) -> str:
    """The digest of a file as it would be imported: beside the top-level module that it is of."""
    top, _, below = path.partition("/")
    if below or top.endswith(".py"):
        try:
            spec = importlib.util.find_spec(top.removesuffix(".py"))
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return ""
        roots = spec.submodule_search_locations or []
        places = [os.path.join(root, below) for root in roots] if below else [spec.origin or ""]
    else:
        places = [os.path.join(root, path) for root in sys.path]
    for place in places:
        try:
            with open(place, "rb") as file:
                return digest(file.read())
        except OSError:
            continue
    return ""


def _agree(name: str, expected: str, found: str) -> bool:
    if name == "apache-beam":
        return expected.split(".")[:2] == found.split(".")[:2]
    return expected == found


def _difference(name: str, expected: str, found: str) -> str:
    if name.startswith(FILE):
        path = name.removeprefix(FILE)
        return f"its {path} has other contents" if found else f"it has no {path}"
    if not found:
        return f"it has no {name}, the submission has {expected}"
    shown = "Python" if name == "python" else name
    return f"it has {shown} {found}, the submission {expected}"


def _remedy(differing: list[str]) -> str:
    if "python" in differing or "apache-beam" in differing:
        return (
            "Submit from an environment with the workers' Python and apache-beam, or give an image "
            "that has these versions with --sdk_container_image ('modelbeam package --output' "
            "writes its Dockerfile)."
        )
    return (
        "If the job runs in an image of your own, build it again with 'modelbeam package "
        "--output'; otherwise leave out --no-packages, --requirements_file and --extra_package, "
        "so that modelbeam stages these versions itself."
    )
