"""A job server that Beam starts here for a job of this machine listens on loopback only.

Beam's job servers for Flink and Spark bind their services (control, data, state, artifacts) to all
interfaces and ask nobody who they are; there is no setting. Where engine and workers are on this
machine anyway, ``loopback.c`` is preloaded into the server's process, by Linux's loader. Prism is
one static program, into which nothing can be loaded.
"""

from __future__ import annotations

import importlib.machinery
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelbeam.beam.options import launch_job_server_by
from modelbeam.job.flags import value_of


def stays_here(flags: Sequence[str]) -> bool:
    """Whether workers are certainly on this machine, given that the engine is."""
    environment = (value_of(flags, "--environment_type") or "LOOPBACK").upper()
    return environment in ("LOOPBACK", "PROCESS")


def confine(options: Any) -> None:
    """Have the Java job server of these options of Beam's started with the library preloaded.

    It is started by ``env``, which sets the variables; the user's launcher and properties follow.
    Nothing changes where the library was not built, as on other systems than Linux.
    """
    library, env = _library(), shutil.which("env")
    if library is None or env is None:
        return
    preloaded = " ".join(filter(None, (str(library), os.environ.get("LD_PRELOAD"))))
    spark = "SPARK_LOCAL_IP=127.0.0.1"  # else it takes the address of another interface by name
    launch_job_server_by(options, env, [f"LD_PRELOAD={preloaded}", spark])


def _library() -> Path | None:
    """The built ``loopback.c``; ``None`` if it was not, or cannot be named to the loader."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_loopback" + suffix)
        if path.exists() and not set(str(path)) & set(" :"):  # what divides the loader's list
            return path
    return None
