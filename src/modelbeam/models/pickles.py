"""From a ``.joblib``, ``.pkl`` or ``.skops`` file to the object in it, or to what is wrong with it.

A pickle is code: it is read in the model's process only.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import warnings
from collections.abc import Iterable
from typing import Any, NoReturn

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models.base import raise_load_error
from modelbeam.models.libraries import (
    distributions_of,
    foreign,
    install_hint,
    not_fitted,
    version_of,
)
from modelbeam.models.options import Options
from modelbeam.models.target import Target
from modelbeam.text import describe


def read(target: Target, options: Options) -> tuple[Any, list[str]]:
    """The object in a file, and what the user should know of it.

    Raises:
        ModelError: the file cannot be read, or another version of scikit-learn has saved it.
    """
    path = target.local()
    strange = foreign(path)
    skops = target.suffix == ".skops"
    if strange and not (skops and strange.startswith("a skops")):
        raise NotAModelError(f"--model {target} is {strange}.")
    if options.trusted_types and not skops:
        raise NotAModelError(
            f"--trusted-type is for .skops files; --model {target} is a pickle, which runs any "
            f"code that is in it."
        )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = _from_skops(target, path, options) if skops else _from_pickle(target, path)
    versions, others = versions_of(told)
    return found, accept(target, versions, others, options)


def accept(
    target: Target, versions: tuple[str, str] | None, others: list[str], options: Options
) -> list[str]:
    """What the user should know of a model that was saved with some version.

    Raises:
        ModelLoadError: it is another one than is installed, and that was not allowed.
    """
    if versions is not None and not options.allow_version_mismatch:
        raise ModelLoadError(
            f"--model {target} was saved with scikit-learn {versions[0]}, and {versions[1]} is "
            f"installed; its predictions may be wrong without an error. Install the version that "
            f"saved it (pip install scikit-learn=={versions[0]}), save it again, or run it as it "
            f"is with --allow-version-mismatch."
        )
    if versions is not None:
        text = f"the model was saved with scikit-learn {versions[0]}; {versions[1]} is installed"
        others.insert(0, text)
    return others


def _from_skops(target: Target, path: str, options: Options) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ModelLoadError(
            f"--model {target} needs skops, which is not installed ({error}). Install it with: "
            f"pip install skops."
        ) from error
    try:
        strange = set(skops.io.get_untrusted_types(file=path)) - set(options.trusted_types)
    except ImportError as error:
        _not_there(target, error)
    except Exception as error:
        _damaged(target, "skops file", error)
    if strange:
        names = sorted(strange)
        flags = " ".join(f"--trusted-type {name}" for name in names)
        raise NotAModelError(
            f"--model {target} holds types that skops does not trust by itself: "
            f"{', '.join(names)}. If you trust whoever made the file, add: {flags}"
        )
    try:
        return skops.io.load(path, trusted=list(options.trusted_types))
    except (ImportError, AttributeError) as error:
        _not_there(target, error)
    except Exception as error:
        _damaged(target, "skops file", error)


def _from_pickle(target: Target, path: str) -> Any:
    try:
        import joblib
    except ImportError:
        joblib = None
    try:
        if joblib is not None:
            return joblib.load(path)
        with open(path, "rb") as handle:
            return pickle.load(handle)
    except (ImportError, AttributeError) as error:
        _not_there(target, error, path)
    except Exception as error:
        if _own_code(error):
            raise_load_error(target, "while it was loaded", error, _saved_with(path))
        _damaged(target, "pickle", error, path)


def _own_code(error: Exception) -> bool:
    """Whether a class of the pickle raised, and not the unpickler."""
    trace, last = error.__traceback__, ""
    while trace is not None:
        last = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return not re.search(r"modelbeam[/\\]models|joblib|pickle\.py|skops|zlib|gzip|bz2|lzma", last)


def _damaged(target: Target, kind: str, error: Exception, path: str = "") -> NoReturn:
    raise ModelLoadError(
        f"--model {target} cannot be read as a {kind} ({type(error).__name__}: {describe(error)})."
        f" The file is damaged, cut off, or something else.{_saved_with(path)}"
    ) from error


_LOST = re.compile(r"Can't get attribute '([^']+)' on <module '([^']+)'")
_LOST_NAME = re.compile(r"module '([^']+)' has no attribute '([^']+)'")


def _not_there(target: Target, error: Exception, path: str = "") -> NoReturn:
    """Raise for a name that a file wants and that is not here: which, and how to supply it."""
    said = str(error)
    lost = _LOST.search(said)
    other = _LOST_NAME.search(said)
    module, name = (lost[2], lost[1]) if lost else (other[1], other[2]) if other else ("", "")
    if not module and isinstance(error, ImportError):
        module = error.name or ""
    top = module.partition(".")[0]
    if not module:
        _damaged(target, "pickle", error, path)
    if module.rpartition(".")[2] == "__main__":  # Python may name it after what runs
        raise ModelLoadError(
            f"--model {target} needs '__main__.{name}', which was defined in the script or "
            f"notebook that trained it and is in no file. Move '{name}' into a module, import it "
            f"from there and save the model again; or write a function that builds what is "
            f"needed, and name that: 'module:function'."
        ) from error
    if top == "numpy" and module.startswith("numpy._core"):
        raise ModelLoadError(
            f"--model {target} was saved with NumPy 2 and NumPy {version_of('numpy')} is "
            f"installed, which has no '{module}'. Install it with: pip install 'numpy>=2'."
        ) from error
    [*brings] = distributions_of([top]) if version_of(top) or _is_there(top) else []
    what = f"'{module}.{name}'" if name else f"the module '{module}'"
    if brings:
        raise ModelLoadError(
            f"--model {target} needs {what}, which the installed {brings[0]} "
            f"{version_of(brings[0])} does not have: another version saved it."
            f"{_saved_with(path) or ' Install the version that saved it.'}"
        ) from error
    if _is_there(top):
        raise ModelLoadError(
            f"--model {target} needs {what}, which the module '{top}' of this environment does "
            f"not have. Run in the directory that holds the code it was trained with, or install "
            f"that code."
        ) from error
    raise ModelLoadError(
        f"--model {target} needs {what}, which is not installed here. Install it with: "
        f"{install_hint(module)}; if it is code of your own, run in the directory that holds it."
    ) from error


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _saved_with(path: str) -> str:
    """Which scikit-learn saved a pickle, as a sentence, if its bytes say so."""
    if not path:
        return ""
    try:
        with open(path, "rb") as handle:
            found = re.search(rb"_sklearn_version.{1,8}?(\d+\.\d+[\w.]*)", handle.read(), re.DOTALL)
    except OSError:
        return ""
    if not found or found[1].decode() == version_of("scikit-learn"):
        return ""
    saved = found[1].decode()
    return (
        f" It was saved with scikit-learn {saved}, and {version_of('scikit-learn') or 'none'} is "
        f"installed: pip install scikit-learn=={saved}."
    )


def versions_of(told: Iterable[Any]) -> tuple[tuple[str, str] | None, list[str]]:
    """The versions that saved a model and that reads it, if they differ; and other warnings."""
    versions, others = None, []
    for one in told:
        saved = getattr(one.message, "original_sklearn_version", None)
        if saved is not None:
            versions = (str(saved), str(one.message.current_sklearn_version))
        elif issubclass(one.category, UserWarning):
            others.append(f"while it was loaded: {describe(one.message).rstrip('.')}")
    return versions, list(dict.fromkeys(others))


def check(target: Target, found: Any) -> None:
    """Raise :class:`NotAModelError` unless it is an object that was fitted and predicts."""
    kind = type(found).__name__
    instead = "or write a function and name it: 'module:function' (docs/models.md)"
    if isinstance(found, dict):
        keys = ", ".join(map(repr, list(found)[:6]))
        models = [repr(k) for k, v in found.items() if callable(getattr(v, "predict", None))]
        inside = f" The model in it seems to be {models[0]}: save that by itself" if models else ""
        raise NotAModelError(
            f"--model {target} holds a dict with the keys {keys}, and no model."
            f"{inside or ' Save the model by itself'}, {instead}."
        )
    if isinstance(found, (list, tuple)):
        kinds = ", ".join(type(one).__name__ for one in found[:6])
        raise NotAModelError(
            f"--model {target} holds a {kind} of {kinds or 'nothing'}, and no model. Save the "
            f"model by itself, a pipeline of all steps, {instead}."
        )
    if isinstance(found, type):
        raise NotAModelError(
            f"--model {target} holds the class {found.__name__} and no object of it that was "
            f"fitted. Fit one and save that."
        )
    if not callable(getattr(found, "predict", None)):
        _no_predict(target, found, kind, instead)
    empty = unfitted(found)
    if empty:
        raise not_fitted(target, empty)


def _no_predict(target: Target, found: Any, kind: str, instead: str) -> NoReturn:
    if type(found).__module__.partition(".")[0] == "numpy":
        raise NotAModelError(
            f"--model {target} holds an array of NumPy (shape {getattr(found, 'shape', '?')}), and "
            f"no model. Save the fitted model, {instead}."
        )
    if hasattr(found, "best_score_") or hasattr(found, "param_grid"):
        raise NotAModelError(
            f"--model {target} holds a {kind} without a model in it, since it was made with "
            f"refit=False or was not fitted. Save the fitted best model, {instead}."
        )
    if hasattr(found, "fit_predict"):
        raise NotAModelError(
            f"--model {target} holds a {kind}, which groups what it is fitted on and predicts "
            f"nothing for other records. Use a clusterer with predict(), such as KMeans, {instead}."
        )
    if callable(getattr(found, "transform", None)):
        raise NotAModelError(
            f"--model {target} holds a {kind}, which transforms and predicts nothing. Save the "
            f"pipeline that ends with the model (make_pipeline), {instead}."
        )
    if callable(found):
        raise NotAModelError(
            f"--model {target} holds a function; name it where it is defined: 'module:function'."
        )
    raise NotAModelError(
        f"--model {target} holds a {type(found).__module__}.{kind}, which has no predict(). Save "
        f"the fitted model itself, {instead}."
    )


def unfitted(found: Any) -> str | None:
    """The name of what was not fitted, if that can be told."""
    try:
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted
    except ImportError:
        return None
    if not hasattr(found, "fit") or not hasattr(found, "__dict__"):
        return None
    try:
        last = found.steps[-1][1] if hasattr(found, "steps") else found
        check_is_fitted(last)
    except NotFittedError:
        return type(found).__name__
    except Exception:
        return None
    return None
