"""Which version a URI of MLflow's registry names now."""

from __future__ import annotations

import os
import re

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # modelbeam sends nothing anywhere

from mlflow import MlflowClient

from modelbeam.errors import ModelLoadError
from modelbeam.text import describe

_ALIAS = re.compile(r"models:/([^@/]+)@([^@/]+)/?")
_STAGE = re.compile(r"models:/([^@/]+)/([A-Za-z]+)/?")
_VERSION = re.compile(r"models:/[^@/]+/(\d+)/?")


def pinned(uri: str) -> str | None:
    """The URI of the version that an alias, a stage or ``latest`` names now; else ``None``.

    Raises:
        ModelLoadError: the store does not tell.
    """
    try:
        if match := _ALIAS.fullmatch(uri):
            name, alias = match.groups()
            return (
                f"models:/{name}/{MlflowClient().get_model_version_by_alias(name, alias).version}"
            )
        if match := _STAGE.fullmatch(uri):
            name, stage = match.groups()
            found = MlflowClient().search_model_versions(f"name='{name}'")
            if stage.lower() != "latest":
                found = [one for one in found if (one.current_stage or "").lower() == stage.lower()]
            newest = max(int(one.version) for one in found)
            return f"models:/{name}/{newest}"
    except Exception as error:
        raise ModelLoadError(f"{uri}: {describe(error)}") from error
    return None


def version_of(uri: str) -> str | None:
    """The registered version that a URI names, if it names one."""
    match = _VERSION.fullmatch(uri)
    return match[1] if match else None
