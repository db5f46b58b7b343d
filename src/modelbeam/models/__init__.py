"""Models: what ``--model`` names (``target``), their kinds, and what all have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelbeam.errors import ModelbeamError, NotAModelError
from modelbeam.models import fingerprint
from modelbeam.models.base import LoadedModel, ModelInfo, raise_load_error
from modelbeam.models.kinds import ModelKind, kind_of, options_of
from modelbeam.models.options import NONE, Options
from modelbeam.models.target import Target
from modelbeam.models.turns import end_if_forked, forks

__all__ = ["LoadedModel", "ModelInfo", "ModelKind", "Options", "Target", "kind_of", "load"]


def load(
    target: Target | str,
    name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    options: Options = NONE,
) -> LoadedModel:
    """Import and build the model that a target names.

    Args:
        target: parsed, or as ``--model`` has it.
        name: what error lines call it; by default the model's own name.
        arguments: keyword arguments for the class's constructor, or what the kind takes.
        options: what flags say of the model.

    Raises:
        ModelError: it is not there, is not a model, or raised; the message says which.
    """
    parsed = Target.parse(target)
    kind = kind_of(parsed)
    try:
        taken = options_of(kind)
        refused = options.refused(taken)
        if refused:
            what = "classes and functions" if kind.classes else f"models of the kind {kind.name}"
            raise NotAModelError(f"{refused} is not for {what}, such as --model {parsed}.")
        more = (options,) if taken else ()
        since = forks()
        try:
            loaded: LoadedModel = kind.loader()(parsed, dict(arguments or {}), *more)
        finally:
            end_if_forked(since)
    except ModelbeamError:
        raise
    except (Exception, SystemExit) as error:
        raise_load_error(parsed, "while it was loaded", error)
    digest = loaded.info.fingerprint or fingerprint.of_target(parsed)
    if digest is None and parsed.form == "uri" and parsed.suffix in kind.suffixes:
        digest = fingerprint.of_path(parsed.local())  # was fetched when it was loaded
    loaded.info = replace(
        loaded.info,
        name=name or loaded.info.name,
        interface=loaded.info.interface or kind.name,
        fingerprint=digest,
    )
    return loaded
