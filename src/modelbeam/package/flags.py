"""What Beam is told, so that its workers install the packages.

The workers of Beam's images install, in this order and by pip, what is in ``requirements.txt``,
first from the staged files alone and then from an index, and each ``--extra_package``
(``sdks/python/container/piputil.go``). Left to itself Beam would run one to three ``pip download``
a requirement at every submission; here it is one for all of them, kept by its contents.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from modelbeam.errors import PackageError
from modelbeam.machine import module_path
from modelbeam.package.build import Built, cache_directory, pip_command
from modelbeam.package.installed import Environment
from modelbeam.package.items import canonical
from modelbeam.package.wheels import installed_wheel

GLIBC = 34
"""Minor version of the newest glibc that a staged wheel may need; Beam's images have 2.36."""


def beam_flags(built: Built, given: Sequence[str] = ()) -> list[str]:
    """The flags for Beam's ``PipelineOptions``, to be added to those that were given.

    The requirements' wheels are downloaded here and staged: the workers need no index, and all get
    the same. With ``--requirements_cache=skip`` nothing is downloaded here, and each worker asks
    the index; with another cache Beam fills it as it always did.

    With an image of one's own, or workers in this very environment, nothing is staged. What was
    given by hand is respected: a ``--requirements_file`` takes the place of ours, and an
    ``--extra_package`` of a distribution that of ours.

    Args:
        built: the packages.
        given: Beam's flags as the user gave them.

    Raises:
        PackageError: a requirement cannot be downloaded for the workers' platform.
    """
    hand = _given(given)
    if hand.sdk_container_image or (hand.environment_type or "").upper() == "LOOPBACK":
        return []
    theirs = {_distribution_of(path) for path in hand.extra_package or []}
    flags = [
        f"--extra_package={wheel}"
        for wheel in built.wheels
        if _distribution_of(wheel.name) not in theirs
    ]
    if hand.requirements_file is None:
        flags.append(f"--requirements_file={built.requirements}")
        if hand.requirements_cache is None:
            flags.append("--requirements_cache=skip")
            wheels = download(built, worker_machine(hand.worker_machine_type))
            flags += [f"--files_to_stage={wheel}" for wheel in wheels]
    return flags


def _given(flags: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--sdk_container_image", "--worker_harness_container_image")
    parser.add_argument("--environment_type")
    parser.add_argument("--requirements_file")
    parser.add_argument("--requirements_cache")
    parser.add_argument("--extra_package", "--extra_packages", action="append")
    parser.add_argument("--worker_machine_type", "--machine_type")
    return parser.parse_known_args(list(flags))[0]


def _distribution_of(path: str) -> str:
    """``churn`` for ``/dist/churn-1.0-py3-none-any.whl`` or ``churn-1.0.tar.gz``."""
    return canonical(os.path.basename(path).split("-")[0])


def worker_machine(machine_type: str | None = None) -> str:
    """``x86_64`` or ``aarch64``: Dataflow's machine types t2a, c4a, n4a and axion are Arm's."""
    arm = (machine_type or "").startswith(("t2a-", "c4a-", "n4a-"))
    return "aarch64" if arm else "x86_64"


def download(built: Built, machine: str = "x86_64") -> list[Path]:
    """Wheels of the requirements for Linux workers, from the user's index, kept in the cache.

    What the index has no wheel of is packed again from what is installed here, if that fits the
    workers.

    Args:
        built: the packages.
        machine: the workers' processor: ``x86_64`` or ``aarch64``.

    Raises:
        PackageError: one can be had in no way.
    """
    pinned = [f"{item.name}=={item.version}" for item in built.packages.requirements]
    identity = "\n".join([machine, built.packages.python, str(GLIBC), *pinned])
    place = cache_directory() / "downloads" / hashlib.sha256(identity.encode()).hexdigest()[:24]
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix="tmp") as name:
            scratch = Path(name) / "wheels"
            scratch.mkdir()
            if pinned:
                _download_all(built, pinned, machine, scratch)
            try:
                os.rename(scratch, place)
            except OSError:  # another submission was quicker
                if not place.is_dir():
                    raise
    return sorted(place.glob("*.whl"))


def _download_all(built: Built, pinned: list[str], machine: str, directory: Path) -> None:
    if _pip_download(pinned, machine, built.packages.python, directory) is None:
        return
    environment = Environment(module_path())
    for one in pinned:
        said = _pip_download([one], machine, built.packages.python, directory)
        if said is None:
            continue
        installed = environment.find(one.partition("==")[0])
        wheel = installed_wheel(installed, directory) if installed and installed.record else None
        if wheel is None or not _fits(wheel, machine):
            raise PackageError(
                f"there is no wheel of {one} for the workers (Linux {machine}, Python "
                f"{built.packages.python}): {said}. Use a worker image that it is installed in: "
                f"'modelbeam package --output' writes a Dockerfile."
            )


def _pip_download(pinned: list[str], machine: str, python: str, directory: Path) -> str | None:
    """Download wheels for another platform than this one; returns what pip said if it failed."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    command = [
        *(*pip_command(), "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={python}", f"--dest={directory}"),
        *(f"--platform={platform}" for platform in platforms),
        *pinned,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = [line.removeprefix("ERROR: ").strip() for line in done.stderr.splitlines()]
    return next((line for line in reversed(lines) if line), "pip failed").rstrip(".")


def _fits(wheel: Path, machine: str) -> bool:
    platform = wheel.stem.rsplit("-", 1)[-1]
    if platform == "any":
        return True
    return "linux" in platform and machine in platform and zipfile.is_zipfile(wheel)
