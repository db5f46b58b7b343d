"""What travels to an engine's workers with a job, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelbeam.job.description import Job
from modelbeam.package.build import Built, build, worker_versions
from modelbeam.package.flags import beam_flags
from modelbeam.package.items import travels
from modelbeam.package.listing import package_list


@dataclass(frozen=True, slots=True)
class Staged:
    """What is ready to be sent.

    Attributes:
        flags: of Beam's, that have it sent.
        versions: what the workers' software must be; see :mod:`.versions`.
        built: the packages as files, or ``None`` if the workers are this very environment.
    """

    flags: tuple[str, ...]
    versions: dict[str, str]
    built: Built | None


def stage(
    job: Job, note: Callable[[str], None], requires: Iterable[str] = (), *, loopback: bool = False
) -> Staged:
    """Work out what the workers need for a job's model, and build what must be built.

    Args:
        job: the model, Beam's flags, and whether the workers have it all already.
        note: told what is done.
        requires: distributions that the loaded model named.
        loopback: whether the workers are threads of this process.

    Raises:
        PackageError: something cannot be packaged.
    """
    if loopback:
        return Staged((), {}, None)
    packages = package_list(job.model, requires=requires)
    for warning in packages.warnings:
        note(f"warning: {warning}")
    built = build(packages)
    expected = worker_versions(built)
    if not job.packages:
        return Staged((), expected, built)
    flags = beam_flags(built, job.beam_options)
    if flags:
        items = [travels(item) for item in packages.items]
        note(
            f"packaged the model: {items.count('wheel')} built here, {items.count('requirement')} "
            f"pinned ('modelbeam package' lists them)"
        )
    return Staged(tuple(flags), expected, built)
