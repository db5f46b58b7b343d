"""Prism, Beam's own local engine: started by Beam, or behind a job service like any other."""

from __future__ import annotations

from collections.abc import Sequence

from modelbeam.engines.portable import Portable
from modelbeam.job.flags import short_runner


class Prism(Portable):
    """Prism; a job is a job service's, and found again as one."""

    name = "prism"
    title = "Prism"

    def matches(self, flags: Sequence[str]) -> bool:
        """See :class:`.Engine`."""
        return short_runner(flags) == self.name

    def _loopback_unasked(self, flags: Sequence[str]) -> bool:
        return True
