"""The list as files: wheels, and a ``requirements.txt`` for what an index has."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement as Spec

from modelbeam.errors import OutputWriteError, PackageError
from modelbeam.machine import module_path
from modelbeam.package.installed import Environment
from modelbeam.package.items import (
    LocalPackage,
    LooseModule,
    ModelFile,
    PackageList,
    Requirement,
    canonical,
)
from modelbeam.package.modules import LEFT_OUT_NAMES
from modelbeam.package.versions import FILE, digest
from modelbeam.package.wheels import (
    contents_of,
    installed_wheel,
    loose_wheel,
    model_wheel,
    normalized,
    own_wheel,
)

DESCRIPTION = "packages.json"
REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"

_BUILD_SUFFIXES = (
    ".py", ".toml", ".cfg", ".in", ".c", ".cc", ".cpp", ".h", ".hpp", ".pyx", ".pxd", ".pyi", ".rs",
    ".md", ".rst", ".txt", ".build",
)  # fmt: skip
"""Suffixes of files that may change a build wherever they are in a project."""


@dataclass(frozen=True, slots=True)
class Built:
    """A list of packages as files.

    Attributes:
        packages: the list.
        directory: what holds the files.
        wheels: in the order of installation: what is required comes first.
        requirements: the ``requirements.txt``.
    """

    packages: PackageList
    directory: Path
    wheels: tuple[Path, ...]
    requirements: Path


def cache_directory() -> Path:
    """Where builds and downloads are kept from one submission to the next."""
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        base = os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return Path(base) / "modelbeam"


def build(packages: PackageList, output: Path | str | None = None) -> Built:
    """Write the wheels and the ``requirements.txt`` of a list.

    The same list of the same contents gives the same bytes. Projects are built by their own build
    backend, and only when something in them has changed; all other wheels are written here.

    Args:
        packages: the list.
        output: where to write; by default a directory of the user's cache.

    Raises:
        PackageError: a project cannot be built, or an installed package is not complete.
        OutputWriteError: the directory cannot be written.
    """
    if output is None:
        identity = json.dumps([packages.to_dict(), os.getcwd(), sys.prefix], sort_keys=True)
        output = cache_directory() / "packages" / _short(identity.encode())
    directory = Path(output).absolute()
    try:
        return _build(packages, directory)
    except OSError as error:
        raise OutputWriteError(
            f"the packages cannot be written to {directory}: {error.strerror or error}."
        ) from None


def _build(packages: PackageList, directory: Path) -> Built:
    (directory / WHEELS).mkdir(parents=True, exist_ok=True)
    environment = Environment(module_path())
    versions = {
        item.name: item.version
        for item in packages.items
        if isinstance(item, (Requirement, LocalPackage))
    }
    wheels = []
    for item in packages.items:
        if isinstance(item, LooseModule):
            wheels.append(loose_wheel(item, versions, directory / WHEELS))
        elif isinstance(item, ModelFile):
            wheels.append(model_wheel(item, directory / WHEELS))
        elif isinstance(item, LocalPackage):
            wheels.append(_local_wheel(item, environment, directory / WHEELS))
    if (directory / DESCRIPTION).exists():  # an earlier build of ours: its wheels are not in this
        for old in (directory / WHEELS).glob("*.whl"):
            if old not in wheels:
                old.unlink()
    lines = [f"{item.name}=={item.version}\n" for item in packages.requirements]
    requirements = directory / REQUIREMENTS
    _write(requirements, "".join(lines))
    _write(directory / DESCRIPTION, json.dumps(packages.to_dict(), indent=2) + "\n")
    return Built(packages, directory, tuple(wheels), requirements)


def worker_versions(built: Built) -> dict[str, str]:
    """What :func:`modelbeam.versions.compare` expects of the workers.

    Python, Beam, modelbeam, all that the model needs, and the contents of all that has no version
    to go by: local packages and loose modules.
    """
    packages = built.packages
    expected = {"python": packages.python, "apache-beam": packages.beam}
    for item in packages.items:
        if isinstance(item, (LooseModule, ModelFile)):
            continue
        if item.for_model or canonical(item.name) == "modelbeam":
            expected[item.name] = item.version
    for wheel in built.wheels:
        for path, data in contents_of(wheel).items():
            expected[FILE + path] = digest(data)
    return expected


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def _local_wheel(item: LocalPackage, environment: Environment, directory: Path) -> Path:
    one = environment.find(item.name)
    if one is None:
        raise PackageError(f"{item.name} was here a moment ago and is not installed any more.")
    if not item.editable:
        return installed_wheel(one, directory)
    if canonical(item.name) == "modelbeam":
        return own_wheel(one, Path(__file__).parents[1], directory)
    cached = project_wheel(item)
    target = directory / cached.name
    if not target.exists() or target.read_bytes() != cached.read_bytes():
        partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        shutil.copyfile(cached, partial)
        os.replace(partial, target)
    return target


def project_wheel(item: LocalPackage) -> Path:
    """The wheel of an editable project, built unless the cache has it."""
    project = item.path
    if not project.is_dir():
        raise PackageError(
            f"{item.name} is installed as editable from {project}, which is not there any more. "
            f"Install it again from where it is now."
        )
    key = _short(_signature(project).encode())
    place = cache_directory() / WHEELS / key
    for wheel in place.glob("*.whl"):
        return wheel
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="tmp") as name:
        scratch = Path(name)
        made = normalized(_run_backend(item, scratch), scratch / "done")
        try:
            os.rename(scratch / "done", place)
        except OSError:  # another submission was quicker
            if not place.is_dir():
                raise
        return place / made.name


def _signature(project: Path) -> str:
    """What a build depends on: the project's files with their sizes and times.

    Files that are neither code nor in a directory with code do not count: they are data, and the
    outputs of jobs among them would have every submission build again.
    """
    lines = [str(project), sys.version, sys.platform]
    root = str(project)
    with_code: set[str] = set()
    for place, directories, names in os.walk(root):
        directories[:] = sorted(d for d in directories if _is_source_directory(place, d))
        if place != root and (
            os.path.dirname(place) in with_code
            or place == os.path.join(root, "src")
            or any(name.endswith(".py") for name in names)
        ):
            with_code.add(place)
        for name in sorted(names):
            if name.startswith(".") or name.endswith((".pyc", ".so", ".tmp")):
                continue
            if place in with_code or name.endswith(_BUILD_SUFFIXES):
                path = os.path.join(place, name)
                stat = os.stat(path, follow_symlinks=False)
                lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return "\n".join(lines)


def _is_source_directory(place: str, name: str) -> bool:
    return not (
        name.startswith(".")
        or name in LEFT_OUT_NAMES
        or name.endswith(".egg-info")
        or os.path.exists(os.path.join(place, name, "pyvenv.cfg"))
    )


def _run_backend(item: LocalPackage, scratch: Path) -> Path:
    """Build a project as pip does, without leaving anything in it."""
    pip = [*pip_command(), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(scratch / "out")]
    settings = scratch / "setup.cfg"
    for name in ("build", "egg", "out"):
        (scratch / name).mkdir()
    # setuptools would write into the project, and take up what an earlier build left there
    settings.write_text(
        f"[build]\nbuild_base = {scratch / 'build'}\n[egg_info]\negg_base = {scratch / 'egg'}\n"
    )
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": "315532800",
        "DIST_EXTRA_CONFIG": str(settings),
        "PYTHONHASHSEED": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    said = ""
    for isolation in ([["--no-build-isolation"]] if _builds_here(item.path) else []) + [[]]:
        command = [*pip, *isolation, str(item.path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        wheels = list((scratch / "out").glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        said = done.stderr.strip() or done.stdout.strip()
    raise PackageError(
        f"{item.name} could not be built as a wheel from {item.path}: {_last_words(said)}. Try it "
        f"with 'pip wheel --no-deps {item.path}', or install it without --editable: then the "
        f"installed files are sent."
    )


def pip_command() -> list[str]:
    """The words that run pip: this environment's, else the one that came with Python, else uv's.

    Raises:
        PackageError: there is none of them.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    bundled = importlib.util.find_spec("ensurepip")  # uv makes environments without pip
    if bundled is not None and bundled.origin:
        for wheel in sorted(Path(bundled.origin).parent.glob("_bundled/pip-*.whl")):
            return [sys.executable, f"{wheel}/pip"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "pip"]
    raise PackageError(
        f"the workers' packages are made and downloaded with pip, and there is neither pip in "
        f"{sys.prefix} nor uv on the PATH. Install one of them."
    )


def _builds_here(project: Path) -> bool:
    """Whether what the project's build needs is installed here; then nothing is downloaded."""
    here = Environment(sys.path)
    for text in _build_requires(project):
        needed = Spec(text)
        one = here.find(needed.name)
        if needed.marker is not None and not needed.marker.evaluate():
            continue
        if one is None or not needed.specifier.contains(one.version, prereleases=True):
            return False
    return True


@functools.cache
def _build_requires(project: Path) -> list[str]:
    try:
        import tomllib  # Python 3.11
    except ImportError:
        return ["setuptools>=70.1", "tomli"]
    try:
        described: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        described = {}
    listed = list(described.get("build-system", {}).get("requires", ["setuptools"]))
    # older setuptools cannot build wheels by itself
    return [*listed, "setuptools>=70.1"] if any("setuptools" in each for each in listed) else listed


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() and "subprocess" not in line]
    return " ".join((telling or lines)[-2:])[:400].rstrip(".")
