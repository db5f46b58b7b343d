"""Where predictions go, attempt by attempt, and how they are committed and published.

======================= ==========================================================================
:mod:`.base`            the seam: attempt, commit
:mod:`.files`           files: a directory of shards, or one file
======================= ==========================================================================
"""

from __future__ import annotations

from modelbeam.formats import Format
from modelbeam.formats.layout import Layout
from modelbeam.sinks.base import Attempt, Manifest, Sink


def sink_of(
    state: str,
    output: Format,
    fingerprint: str,
    layout: Layout | None = None,
    single: bool = False,
    largest: int | None = None,
) -> Sink:
    """The sink of a job.

    Args:
        state: the job's state directory.
        output: the format of the predictions.
        fingerprint: of the model and the settings.
        layout: the output's columns, where all of its records have the same.
        single: whether the output is one file.
        largest: bytes that a line of JSON Lines may have; ``None`` for any.
    """
    from modelbeam.sinks.files.attempt import Files

    return Files(state, output, fingerprint, layout, single, largest)


__all__ = ["Attempt", "Manifest", "Sink", "sink_of"]
