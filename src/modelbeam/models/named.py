"""What ``module:name`` names: an MLModel class, a function over records, a function that makes a
model, or an object that is one. Which of them it is follows from what it looks like."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from modelbeam.errors import ModelbeamError, NotAModelError
from modelbeam.models import mlmodel
from modelbeam.models.base import LoadedModel, raise_load_error
from modelbeam.models.options import Options
from modelbeam.models.target import Target


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Import what a target names, and make a model of it.

    Raises:
        ModelError: it is not there, or is none of these.
    """
    return made_of(target, mlmodel.named(target), arguments, options)


def made_of(target: Target, found: Any, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Make a model of what a target names, which is found.

    Raises:
        ModelError: it is none of these.
    """
    if inspect.isclass(found) or mlmodel.has_shape(found):
        return _of_class(target, found, arguments, options)
    made = _as_object(target, found, options)
    if made is not None:
        return made
    if not callable(found):
        mlmodel.check_shape(target, found)
    if inspect.iscoroutinefunction(found):
        raise NotAModelError(
            f"--model {target} is an async function; write one that returns its prediction."
        )
    if _takes_records(found, arguments):
        from modelbeam.models import function

        refused = options.refused(("features",))
        if refused:
            raise NotAModelError(f"{refused} is not for functions, such as --model {target}.")
        return function.Function(target, found, arguments, options)
    return _of_factory(target, found, arguments, options)


def _of_class(
    target: Target, found: Any, arguments: dict[str, Any], options: Options
) -> LoadedModel:
    if inspect.isclass(found) and _is_handler(found):
        return _of_factory(target, found, arguments, options)
    refused = options.refused(())
    if refused:
        raise NotAModelError(
            f"{refused} is not for models of the kind MLModel, such as --model {target}."
        )
    return mlmodel.of_class(target, found, arguments)


def _of_factory(
    target: Target, found: Any, arguments: dict[str, Any], options: Options
) -> LoadedModel:
    """Call what makes a model, with the arguments of the ``--config`` file."""
    try:
        made = found(**arguments)
    except ModelbeamError:
        raise
    except (Exception, SystemExit) as error:
        raise_load_error(target, "when it was called to make the model", error)
    model = _as_object(target, made, options)
    if model is not None:
        return model
    if mlmodel.has_shape(made):
        return mlmodel.MLModel(target, made)
    raise NotAModelError(
        f"--model {target} was called without a record, since it has no parameter for one, and "
        f"returned a {type(made).__name__}, which is no model. A function that predicts takes a "
        f"record (dict), a list of them or a table; one that makes a model returns a fitted "
        f"estimator, an MLModel object or one of Beam's ModelHandlers."
    )


_HANDLERS = "modelbeam.beam.handlers"


def _as_object(target: Target, found: Any, options: Options) -> LoadedModel | None:
    """A model of an object that is one already; else ``None``."""
    if inspect.isroutine(found):
        return None
    if _is_handler(type(found)):
        handlers = importlib.import_module(_HANDLERS)  # Beam is there, since the handler is
        made: LoadedModel = handlers.Handler(target, found, options)
        return made
    if callable(getattr(found, "predict", None)) and not mlmodel.has_shape(found):
        from modelbeam.models import sklearn

        if hasattr(found, "fit") or hasattr(found, "feature_names_in_"):
            return sklearn.wrap(target, found, options)
    return None


def _is_handler(found: Any) -> bool:
    """Whether a class is one of Beam's ``ModelHandler``."""
    return any(
        cls.__name__ == "ModelHandler" and cls.__module__.startswith("apache_beam.")
        for cls in getattr(found, "__mro__", ())
    )


def _takes_records(found: Any, arguments: dict[str, Any]) -> bool:
    """Whether something callable has a parameter for records beside those that are given."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # built in C
        return True
    return any(
        p.name not in arguments
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
        and (p.default is p.empty)
        for p in parameters
    )
