"""What travels to an engine's workers with a job, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelbeam import versions
from modelbeam.engines.options import value_of
from modelbeam.job import ModelSpec


@dataclass(frozen=True, slots=True)
class Staged:
    """What is ready to be sent.

    Attributes:
        flags: of Beam's, that have it sent.
        versions: what the workers' software must be; see :mod:`.versions`.
    """

    flags: tuple[str, ...]
    versions: dict[str, str]


def prepare(model: ModelSpec, flags: Sequence[str], note: Callable[[str], None]) -> Staged:
    """Work out what the workers need for a model, and build what must be built.

    Args:
        model: the model.
        flags: Beam's, as the user gave them.
        note: told what is done.
    """
    return Staged((), versions.here(["python", "apache-beam", "modelbeam"]))
