"""What a fitted estimator or pipeline says of itself: its columns and what they hold, its classes,
and how its rows are to be cut.

Whether a column holds numbers or text follows from what the pipeline does with it first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from modelbeam.errors import NotAModelError
from modelbeam.models import tabular
from modelbeam.models.signature import Column, Kind
from modelbeam.models.target import Target


def names_of(model: Any) -> tuple[str, ...] | None:
    """What the model calls its columns; ``None`` if it does not know."""
    for name in ("feature_names_in_", "feature_names_"):
        try:
            found = getattr(model, name)
        except Exception:  # scikit-learn's properties raise
            continue
        if found is not None and len(found) and all(isinstance(one, str) for one in found):
            if name == "feature_names_" and list(found) == [str(n) for n in range(len(found))]:
                return None  # CatBoost numbers the columns of an array
            return tuple(map(str, found))
    for step in _steps(model)[:1]:
        return names_of(step)
    return None


def count_of(model: Any) -> int | None:
    """How many columns the model takes."""
    try:
        return int(model.n_features_in_)
    except Exception:
        for step in _steps(model)[:1]:
            return count_of(step)
        return None


def _steps(model: Any) -> list[Any]:
    """The steps of a pipeline, without those that do nothing."""
    steps = getattr(model, "steps", None)
    if not isinstance(steps, list):
        return []
    return [step for _, step in steps if step is not None and step != "passthrough"]


def last_of(model: Any) -> Any:
    """The model itself: at the end of a pipeline, the best one of a search."""
    while True:
        inner = getattr(model, "best_estimator_", None)
        steps = _steps(model)
        if inner is None and not steps:
            return model
        model = inner if inner is not None else steps[-1]


def _first(model: Any) -> Any:
    """What sees the columns first."""
    while True:
        inner = getattr(model, "best_estimator_", None)
        steps = _steps(model)
        if inner is None and not steps:
            return model
        model = inner if inner is not None else steps[0]


def described(model: Any) -> str:
    steps = _steps(getattr(model, "best_estimator_", model))
    names = [type(step).__name__ for step in steps] or [type(model).__name__]
    return " → ".join(names)


def kind_of(model: Any) -> str | None:
    try:
        from sklearn.utils import get_tags

        found: str | None = get_tags(model).estimator_type
        return found
    except Exception:
        return getattr(model, "_estimator_type", None)


def outputs_of(model: Any) -> int | None:
    """How many numbers a regressor predicts; ``None`` if it cannot be told."""
    found = getattr(model, "n_outputs_", getattr(model, "_n_outputs", None))
    if isinstance(found, int):
        return found
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        import numpy as np

        shape = np.shape(model.coef_)
        is_sparse = hasattr(model.coef_, "toarray")
        return shape[0] if len(shape) == 2 and not is_sparse else 1
    if "HistGradientBoosting" in type(model).__name__ or "GradientBoosting" in type(model).__name__:
        return 1
    return None


# Which columns hold what


def columns_of(model: Any, names: Sequence[str], text: bool) -> list[Column]:
    if text:
        return [Column(names[0], "str")]
    first = _first(model)
    kinds: dict[str, Kind | None] = dict.fromkeys(names, _kind_for(first))
    if hasattr(first, "transformers_"):
        kinds.update(_kinds_ofparts_of(first, names))
    else:
        kinds.update(_kinds_of_categories(first, names))
    nullable = _may_take_nulls(model)
    columns = []
    for name in names:
        kind = kinds.get(name)
        if kind is None:  # a column that is thrown away
            columns.append(Column(name, "any", nullable=True, required=False))
        elif kind == "float":
            columns.append(tabular.number(name, nullable))
        else:
            columns.append(Column(name, kind, nullable=True))
    return columns


def _kinds_ofparts_of(parts: Any, names: Sequence[str]) -> dict[str, Kind | None]:
    """What the parts of a ``ColumnTransformer`` do with the columns."""
    import numpy as np

    kinds: dict[str, Kind | None] = dict.fromkeys(names)
    for _, part, where in parts.transformers_:
        one: Any = [where] if isinstance(where, (str, int, np.integer)) else where
        if isinstance(one, slice) and isinstance(one.start or one.stop, str):
            start = names.index(one.start) if one.start else 0
            one = names[start : names.index(one.stop) + 1 if one.stop else None]
        chosen = np.array(list(names), object)
        if not isinstance(one, slice):
            one = np.asarray(one)
            if one.dtype.kind in "UO" and len(one) and isinstance(one[0], str):
                one = [names.index(str(name)) for name in one]
            elif one.dtype.kind == "f":
                one = one.astype(int)
        inside = [str(name) for name in chosen[one]]
        if isinstance(part, str):
            if part == "passthrough":
                kinds.update(dict.fromkeys(inside, "float"))
            continue
        first = _first(part)
        kinds.update(dict.fromkeys(inside, _kind_for(first)))
        if takes_texts(part):
            kinds.update(dict.fromkeys(inside, "str"))
        kinds.update(_kinds_of_categories(first, inside))
    return kinds


def _kinds_of_categories(encoder: Any, names: Sequence[str]) -> dict[str, Kind]:
    """The kinds of columns with categories that were found in training."""
    inner = getattr(encoder, "_preprocessor", None)  # of histogram gradient boosting
    if inner is not None and hasattr(inner, "transformers_"):
        found = _kinds_ofparts_of(inner, names)
        return {name: kind if kind == "str" else "float" for name, kind in found.items()}
    categories = getattr(encoder, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(names):
        return {name: _kind_of_values(c) for name, c in zip(names, categories, strict=True)}
    filled: Any = getattr(encoder, "statistics_", None)
    if filled is not None and filled.dtype.kind == "O" and len(filled) == len(names):
        return {name: _kind_of_values([v]) for name, v in zip(names, filled, strict=True)}
    return {}


def _kind_of_values(values: Any) -> Kind:
    import numpy as np

    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if kind in "iuf":
        return "float"
    if kind == "b":
        return "bool"
    plain = [v for v in values if v is not None and v == v]
    if all(isinstance(v, str) for v in plain):
        return "str"
    if all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in plain):
        return "float"
    return "bool" if all(isinstance(v, (bool, np.bool_)) for v in plain) else "any"


def _kind_for(step: Any) -> Kind:
    """What the columns of a step hold where nothing else tells: numbers, if it is known."""
    known = type(step).__module__.partition(".")[0] in ("sklearn", "xgboost", "lightgbm")
    return "float" if known and not has_own_function(step) else "any"


def has_own_function(step: Any) -> bool:
    """Whether it is a transformer that calls a function of the user's."""
    return type(step).__name__ == "FunctionTransformer" and step.func is not None


def takes_texts(model: Any) -> bool:
    """Whether it takes a list of texts, and no table."""
    try:
        from sklearn.utils import get_tags

        tags = get_tags(_first(model)).input_tags
        return bool((tags.string and tags.one_d_array) or not tags.two_d_array)
    except Exception:
        first = _first(model)
        return hasattr(first, "vocabulary_") and hasattr(first, "token_pattern")


def _may_take_nulls(model: Any) -> bool:
    """Whether a null may be predicted; of pipelines only the library itself can tell."""
    if model is not last_of(model) or not type(model).__module__.startswith("sklearn."):
        return True
    if hasattr(model, "estimators_") or hasattr(model, "estimator"):
        return True
    try:
        from sklearn.utils import get_tags

        return bool(get_tags(model).input_tags.allow_nan)
    except Exception:
        return True


# Classes and probabilities


def labels_of(model: Any) -> list[tabular.Labels]:
    """The classes of each output; nothing for a model without."""
    last = last_of(model)
    if kind_of(last) == "regressor":
        return []
    try:
        classes = model.classes_
    except Exception:
        classes = getattr(last, "classes_", None)
    if classes is None or kind_of(last) not in ("classifier", None):
        return []
    several = isinstance(classes, list) and len(classes) > 0
    if several and all(hasattr(one, "__len__") and not isinstance(one, str) for one in classes):
        return [tabular.Labels(one) for one in classes]
    return [tabular.Labels(classes)]


def proba_of(target: Target, model: Any) -> Callable[[Any], Any]:
    found = getattr(model, "predict_proba", None)
    if not callable(found):
        kind = type(last_of(model)).__name__
        hint = " Fit it with probability=True." if "SVC" in kind and "Linear" not in kind else ""
        raise NotAModelError(
            f"--proba: --model {target} is a {kind}, which has no class probabilities.{hint} Leave "
            f"--proba out."
        )
    return found  # type: ignore[no-any-return]


# How many rows a call has

_BY_ITSELF = re.compile(
    r"^(sklearn\.(tree|ensemble|svm\._classes|neighbors|dummy|isotonic|pipeline|compose"
    r"|model_selection|feature_selection|impute\._base"
    r"|preprocessing\._(data|encoders|label|discretization|target_encoder))"
    r"|xgboost|lightgbm|catboost)"
)
"""Modules whose estimators look at each record by itself, value by value."""

_SMALL = 1_000_000
"""Products of the three sizes of a matrix product up to which OpenBLAS takes another way."""

_FEWEST = 256


def block_of(model: Any) -> tuple[int, int]:
    """The most rows of a call, and what their number is a multiple of.

    Trees, neighbours and support vectors look at each record by itself. Matrix products are done in
    one way in small blocks and in another in large ones; so a block is always small, or, where that
    would be very small, always of one size.
    """
    parts = parts_of(model)
    if all(_BY_ITSELF.match(type(part).__module__) for part in parts):
        return tabular.LARGEST, 1
    rows = _SMALL // max(_widest(parts), 1) // tabular.ALIGNED * tabular.ALIGNED
    if rows >= _FEWEST:
        return min(rows, tabular.LARGEST), tabular.ALIGNED
    return _FEWEST, _FEWEST


def parts_of(model: Any) -> list[Any]:
    """A fitted object and all estimators within it."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    todo = [model]
    while todo and len(seen) < 2000:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (list, tuple)) or getattr(one, "dtype", None) == "O":
            todo += list(one)[:100]
        elif isinstance(one, dict):
            todo += list(one.values())[:100]
        elif hasattr(one, "get_params") and not isinstance(one, type):
            found[id(one)] = one
            todo += vars(one).values()
    return list(found.values())


def _widest(parts: list[Any]) -> int:
    """The numbers in the largest matrix that some fitted objects hold."""
    import numpy as np

    matrices = [
        array
        for part in parts
        for value in vars(part).values()
        for array in (value if isinstance(value, list) else [value])
        if isinstance(array, np.ndarray) and array.ndim == 2
    ]
    return max((array.size for array in matrices), default=1)
