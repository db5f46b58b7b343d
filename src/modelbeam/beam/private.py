"""What Beam keeps private, or does behind one's back, and modelbeam uses or undoes."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import apache_beam as beam


def new_pipeline(options: Any) -> beam.Pipeline:
    """A pipeline that leaves nothing in the temporary directory.

    Beam makes a directory for each one, which it removes only after a ``with`` statement, and needs
    only for transforms in other languages.
    """
    pipeline = beam.Pipeline(options=options)
    directory = getattr(pipeline, "local_tempdir", None)
    if directory:
        with suppress(OSError):
            os.rmdir(directory)
    return pipeline
