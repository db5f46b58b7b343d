"""Where predictions go, attempt by attempt, and how they are committed and published.

======================= ==========================================================================
:mod:`.base`            the seam: attempt, commit
:mod:`.files`           files: a directory of shards, or one file
======================= ==========================================================================
"""

from __future__ import annotations

from modelbeam.formats import Format
from modelbeam.sinks.base import Attempt, Manifest, Sink


def sink_of(state: str, output: Format, fingerprint: str) -> Sink:
    """The sink of a job.

    Args:
        state: the job's state directory.
        output: the format of the predictions.
        fingerprint: of the model and the settings.
    """
    from modelbeam.sinks.files.attempt import Files

    return Files(state, output, fingerprint)


__all__ = ["Attempt", "Manifest", "Sink", "sink_of"]
