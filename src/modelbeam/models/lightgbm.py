"""LightGBM models from ``.txt`` files.

The file has no class labels: a classifier predicts the probability of its second class, or those of
all classes. A pickled ``LGBMClassifier`` has them and predicts classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models import boosters, tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of, not_fitted, own_file
from modelbeam.models.options import Options
from modelbeam.models.target import Target
from modelbeam.text import describe


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Read the file.

    Raises:
        ModelError: it cannot be read.
    """
    boosters.no_arguments(target, arguments)
    path = own_file(target)
    _check(target, path)
    try:
        booster = lgb.Booster(model_file=path)
    except Exception as error:
        raise ModelLoadError(
            f"--model {target} cannot be read as a model by LightGBM {lgb.__version__}: "
            f"{describe(error)}. The file is damaged, something else, or of a newer version."
        ) from error
    return LightGBMModel(target, booster, options, None)


def from_object(target: Target, model: Any, options: Options) -> LightGBMModel:
    """A booster, or an object of the scikit-learn interface, that was in a pickle."""
    if not hasattr(model, "booster_"):
        if hasattr(model, "get_params"):
            raise not_fitted(target, type(model).__name__)
        return LightGBMModel(target, model, options, None)
    return LightGBMModel(target, model.booster_, options, getattr(model, "classes_", None))


def _check(target: Target, path: str) -> None:
    """Refuse a file that is not whole: the library may end the process over it.

    The head says how many bytes each tree has.
    """
    with open(path, "rb") as handle:
        data = handle.read()
    if not data.startswith(b"tree"):
        raise NotAModelError(
            f"--model {target} is no model of LightGBM, whose files begin with 'tree'. They are "
            f"saved with booster.save_model('model.txt'), or booster_.save_model of an estimator."
        )
    sizes = re.search(rb"^tree_sizes=([\d ]*)$", data, re.MULTILINE)
    first, end = data.find(b"\nTree=0\n"), data.find(b"\nend of trees")
    whole = sizes is not None and end > 0
    if whole and sizes is not None and sizes[1].split():
        at = first + 1
        for number, size in enumerate(map(int, sizes[1].split())):
            whole = whole and data.startswith(b"Tree=%d\n" % number, at)
            at += size
        whole = whole and first > 0 and at == end + 1
    if not whole:
        raise ModelLoadError(
            f"--model {target} is a model of LightGBM that is not whole: its trees do not have the "
            f"sizes that its head says. The file is damaged or cut off."
        )


class LightGBMModel(tabular.TableModel):
    """A booster behind the one protocol.

    Args:
        target: what was asked for.
        booster: the library's.
        options: the features, where it does not know them; whether probabilities are wanted.
        classes: the labels, if they are known.
    """

    def __init__(self, target: Target, booster: Any, options: Options, classes: Any) -> None:
        self._booster = booster
        self.turns.thread_safe = True
        self._threads = call_threads()
        self._width = int(booster.num_model_per_iteration())
        objective = _objective(booster)
        is_class = objective.startswith(("binary", "multiclass", "cross_entropy"))
        names = _names(target, booster, options)
        self._categories = _categories(target, booster, names)
        known = classes is not None and is_class
        self._labels = tabular.Labels(classes if known else np.arange(max(2, self._width)))
        self._known = known
        if options.proba and not is_class:
            raise NotAModelError(
                f"--proba: --model {target} has the objective {objective}, which is none of "
                f"classes. Leave --proba out."
            )
        self._proba = options.proba
        columns = [boosters.column_of(name, self._categories.get(name)) for name in names]
        signature = tabular.signature_of(columns)
        self.info = ModelInfo(
            target=str(target),
            name=tabular.name_of(target),
            style="table",
            description=f"{booster.num_trees()} trees, {objective}",
            interface=f"LightGBM ({objective})",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            requires=distributions_of(["lightgbm"]),
        )

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """The number, the probability or the class of each row."""
        rows = boosters.matrix(batch, self._categories, np.float64)
        made = self._booster.predict(rows, num_threads=self._threads)
        if self._known:
            chosen = made.argmax(axis=1) if made.ndim == 2 else (made > 0.5).astype(np.int64)
            columns = [(tabular.PREDICTION, self._labels.at(chosen))]
        else:
            columns = [(tabular.PREDICTION, tabular.array_of(made))]
        return columns + (self._labels.probabilities(made) if self._proba else [])

    def _schema(self) -> dict[str, Any] | None:
        kind: Any = tabular.NUMBERS if self._width > 1 else "number"
        if self._known:
            kind = self._labels.json_type
            if kind is None:
                return None
        columns = {tabular.PREDICTION: kind}
        if self._proba:
            columns.update({f"probability_{text}": "number" for text in self._labels.texts})
        return tabular.object_schema(columns)


def _objective(booster: Any) -> str:
    found = re.search(r"^objective=(\S+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
    return found[1] if found else "custom"


def _names(target: Target, booster: Any, options: Options) -> tuple[str, ...]:
    """The columns: as in the file, where spaces have become ``_``; or as given for these."""
    own = list(map(str, booster.feature_name()))
    if own == [f"Column_{at}" for at in range(len(own))]:
        return tabular.feature_names(target, None, len(own), options)
    given = options.features
    if given is not None and [re.sub(r"\s", "_", name) for name in given] == own:
        return given
    return tabular.feature_names(target, own, len(own), options)


def _categories(target: Target, booster: Any, names: Sequence[str]) -> dict[str, Any]:
    """The categories of pandas' columns, in the order of their numbers."""
    found = booster.pandas_categorical
    if not found:
        return {}
    text = booster.model_to_string(num_iteration=1)
    infos = re.search(r"^feature_infos=(.*)$", text, re.MULTILINE)
    kinds = infos[1].split() if infos else []
    listed = re.search(r"^\[categorical_feature: ([\d,]+)\]$", text, re.MULTILINE)
    places = [at for at, info in enumerate(kinds) if info[:1] not in "[n"]
    if listed:
        places = [int(at) for at in listed[1].split(",")]
    if len(places) != len(found):
        raise NotAModelError(
            f"--model {target} has {len(found)} columns of pandas' categories among "
            f"{len(places)} categorical ones, and does not say which. Train it with all of them as "
            f"pandas categories, or with none."
        )
    return {
        names[at]: pa.array(json.loads(json.dumps(list(values))))
        for at, values in zip(places, found, strict=True)
    }
