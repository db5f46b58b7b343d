"""A class with decorators around it: what the configuration of ml_base's REST service names.

A decorator is a model that is given another one, by ``set_model(model)`` (ml_base's
``MLModelDecorator``) or as the first argument of its constructor. The last one is the outermost.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from modelbeam.errors import NotAModelError
from modelbeam.models import fingerprint, mlmodel
from modelbeam.models.base import raise_load_error
from modelbeam.models.mlmodel import MLModel
from modelbeam.models.target import Target


def load(target: Target, arguments: dict[str, Any]) -> MLModel:
    """Build the model and each decorator around it.

    Args:
        target: whose ``of`` are the class and its decorators.
        arguments: for each, in a list ``of``, those of its constructor.

    Raises:
        ModelError: one of them is not there, or raises, or what comes of it is no model.
    """
    inner, *wrappers = target.of
    each = list(arguments["of"])
    model = _built(mlmodel.named(inner), inner, each[0])
    for wrapper, given in zip(wrappers, each[1:], strict=True):
        model = _wrapped(wrapper, given, model)
        mlmodel.check_shape(wrapper, model)
    loaded = MLModel(inner, model)
    digests = [fingerprint.of_target(one) for one in target.of]
    digest = hashlib.blake2b(repr(digests).encode(), digest_size=12).hexdigest()
    loaded.info = replace(loaded.info, target=str(target), fingerprint=digest)
    return loaded


def _built(found: Any, target: Target, arguments: dict[str, Any]) -> Any:
    try:
        return found(**arguments)
    except (Exception, SystemExit) as error:
        raise_load_error(target, "while it was built", error)


def _wrapped(target: Target, arguments: dict[str, Any], model: Any) -> Any:
    found = mlmodel.named(target)
    if not callable(found):
        raise NotAModelError(f"--model: the decorator {target} is not a class.")
    if not hasattr(found, "set_model"):
        try:
            return found(model, **arguments)
        except (Exception, SystemExit) as error:
            raise_load_error(target, "while it was given the model", error)
    made = _built(found, target, arguments)
    try:
        return made.set_model(model) or made
    except (Exception, SystemExit) as error:
        raise_load_error(target, "while it was given the model", error)
