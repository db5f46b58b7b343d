"""What stands in Beam's flags, read without Beam; engines know what is theirs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from modelbeam.job.config import grouped

LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")
"""Runners that work in this process; each means Beam's own portable runner here.

It is named in full, since ``DirectRunner`` first looks for another runner's binary to download.
"""


def quiet_logs(verbose: bool) -> None:
    """Keep Beam's log lines off the terminal unless they are asked for."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def runner_of(flags: Sequence[str]) -> str | None:
    """The value of ``--runner`` among Beam's flags."""
    return value_of(flags, "--runner")


def value_of(flags: Sequence[str], name: str) -> str | None:
    """The value that one flag has among Beam's flags, or ``None``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value")
    found: str | None = parser.parse_known_args(list(flags))[0].value
    return found


def is_local(flags: Sequence[str]) -> bool:
    """Whether the flags name no runner, or one that works in this process."""
    runner = runner_of(flags)
    return runner is None or short(runner) in {short(name) for name in LOCAL_RUNNERS}


def short_runner(flags: Sequence[str]) -> str:
    """The runner's short name, such as ``flink``; empty if none is named."""
    return short(runner_of(flags) or "")


def short(runner: str) -> str:
    """``flink`` for ``FlinkRunner`` and for a class written in full; Beam takes all three."""
    return runner.rsplit(".", 1)[-1].lower().removesuffix("runner")


def asked_loopback(flags: Sequence[str]) -> bool | None:
    """Whether the flags want workers that are threads of this process; ``None`` if left open."""
    environment = value_of(flags, "--environment_type")
    return None if environment is None else environment.upper() == "LOOPBACK"


_STORAGE = ("s3_", "hdfs_", "azure_", "blob_", "no_auth", "impersonate_service_account")


def storage_flags(flags: Sequence[str]) -> tuple[str, ...]:
    """Those of Beam's flags that say how storage is reached: all that a worker is told of them."""
    return tuple(
        token for name, tokens in grouped(flags) if name.startswith(_STORAGE) for token in tokens
    )
