"""Models by kind; the module of a kind is imported only when a target of that kind is met."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from modelbeam.errors import NotAModelError
from modelbeam.models.base import LoadedModel

_KINDS = {"mlmodel": "modelbeam.models.mlmodel"}
"""Kind to the module whose ``load(target, name, arguments)`` makes a :class:`LoadedModel`."""


def kind_of(target: str) -> str:
    """The kind of model that a target names.

    Raises:
        NotAModelError: it is a file or directory, which this version does not load, or no target.
    """
    if os.path.sep in target or os.path.isfile(target):
        raise NotAModelError(
            f"--model {target}: this version loads MLModel classes, given as 'module:Class'; "
            f"model files and directories are not supported yet."
        )
    if ":" not in target and "." not in target:
        raise NotAModelError(
            f"--model {target}: a model is given as 'module:Class', "
            f"for example 'iris_model.iris_predict:IrisModel'."
        )
    return "mlmodel"


def load(
    target: str, name: str | None = None, arguments: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Import and build the model that a target names.

    Args:
        target: ``module:Class`` or ``module.Class``.
        name: what error lines call it; by default the model's own qualified name.
        arguments: keyword arguments for the class's constructor.

    Raises:
        ModelError: it is not there, is not a model, or raised; the message says which.
    """
    module = importlib.import_module(_KINDS[kind_of(target)])
    loaded: LoadedModel = module.load(target, name, dict(arguments or {}))
    return loaded
