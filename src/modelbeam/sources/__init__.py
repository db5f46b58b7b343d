"""Where records come from: units of work with an identity that tells whether they changed.

======================= ==========================================================================
:mod:`.base`            the seam: discover, plan, read
:mod:`.files`           files, by path, glob, directory or URL
:mod:`.kafka`           topics, from where a group is to where they end
:mod:`.splits`          splits, planned by sizes alone
======================= ==========================================================================
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelbeam.sources.base import Source

_FILES = "modelbeam.sources.files:Files"
_SCHEMES = {"kafka": "modelbeam.sources.kafka:Topics"}
"""The scheme of a URL to the source behind it; all others are files."""


def source_of(path: str) -> Source:
    """The source that a path, a pattern or a URL belongs to."""
    return _load(_SCHEMES.get(path.partition("://")[0], _FILES))


@cache
def _load(target: str) -> Source:
    module, _, name = target.partition(":")
    made: Source = getattr(importlib.import_module(module), name)()
    return made
