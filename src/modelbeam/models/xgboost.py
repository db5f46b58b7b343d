"""XGBoost models from ``.json`` and ``.ubj`` files.

A classifier predicts classes, as the library's scikit-learn interface does: one that says so in its
file, and one of ``xgboost.train`` whose objective is that of classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import xgboost as xgb

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
        booster = xgb.Booster(model_file=path)
        booster.num_features()
    except Exception as error:
        said = describe(error).partition("Stack trace")[0].strip()
        raise ModelLoadError(
            f"--model {target} cannot be read as a model by XGBoost {xgb.__version__}: {said}. The "
            f"file is damaged, cut off, something else, or of a newer version."
        ) from error
    return XGBoostModel(target, booster, options)


def from_object(target: Target, model: Any, options: Options) -> XGBoostModel:
    """A booster, or an object of the scikit-learn interface, that was in a pickle."""
    booster = model
    if hasattr(model, "get_booster"):
        try:
            booster = model.get_booster()
        except Exception as error:
            raise not_fitted(target, type(model).__name__) from error
    return XGBoostModel(target, booster, options)


def _check(target: Target, path: str) -> None:
    """Tell other JSON from a model's."""
    if target.suffix != ".json":
        return
    with open(path, "rb") as handle:
        head = handle.read(1)
        handle.seek(0)
        try:
            content = json.load(handle) if head in b"{[" and head else None
        except ValueError as error:
            raise ModelLoadError(
                f"--model {target} is not whole JSON ({error}): the file is damaged or cut off."
            ) from None
    if not isinstance(content, dict) or "learner" not in content:
        raise NotAModelError(
            f"--model {target} is no model of XGBoost: it has no 'learner'. Models of XGBoost are "
            f"saved with save_model('model.json')."
        )


class XGBoostModel(tabular.TableModel):
    """A booster behind the one protocol.

    Args:
        target: what was asked for.
        booster: the library's.
        options: the features, where it does not know them; whether probabilities are wanted.
    """

    def __init__(self, target: Target, booster: Any, options: Options) -> None:
        config = json.loads(booster.save_config())["learner"]
        self._objective = str(config["objective"]["name"])
        self._booster = booster
        booster.set_param({"nthread": call_threads()})
        linear = config["gradient_booster"]["name"] == "gblinear"
        self._linear = linear
        self.turns.thread_safe = config["gradient_booster"]["name"] == "gbtree"
        if linear:
            self.aligned = tabular.ALIGNED
        best = booster.attr("best_iteration")
        self._rounds = (0, int(best) + 1 if best is not None else 0)
        names = booster.feature_names
        names = tabular.feature_names(target, names, int(booster.num_features()), options)
        known = _categories(booster)
        self._types = booster.feature_types
        kinds = self._types or ["float"] * len(names)
        self._categories = {
            name: known[at]
            for at, name in enumerate(names)
            if kinds[at] == "c" and known.get(at) is not None
        }
        self._classes = _classes(booster, config, self._objective)
        targets = int(config["learner_model_param"].get("num_target", 1))
        self._labels = targets if self._classes and targets > 1 else 0
        if options.proba and not self._classes:
            raise NotAModelError(
                f"--proba: --model {target} has the objective {self._objective}, which is none of "
                f"classes. Leave --proba out."
            )
        if options.proba and self._objective in ("multi:softmax", "binary:hinge"):
            raise NotAModelError(
                f"--proba: --model {target} has the objective {self._objective}, which has no "
                f"probabilities; multi:softprob and binary:logistic do."
            )
        self._proba = options.proba
        columns = [boosters.column_of(name, self._categories.get(name)) for name in names]
        signature = tabular.signature_of(columns)
        trained = ".".join(map(str, json.loads(booster.save_config()).get("version", [])))
        self.info = ModelInfo(
            target=str(target),
            name=tabular.name_of(target),
            style="table",
            description=f"{booster.num_boosted_rounds()} rounds, {self._objective}",
            interface=f"XGBoost ({'classifier' if self._classes else 'regressor'})",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(config),
            signature=signature,
            requires=distributions_of(["xgboost"]),
            version=trained or "unknown",
            warnings=tuple(_doubts(self._categories)),
        )

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """The class or the number of each row."""
        rows = boosters.matrix(batch, self._categories, np.float32)
        if np.isinf(rows).any():
            raise ValueError("a number is beyond the range of float32, in which the model works")
        if self._linear or self._categories:
            data = xgb.DMatrix(
                rows,
                feature_types=self._types,
                enable_categorical=True,
                nthread=call_threads(),
            )
            made = self._booster.predict(
                data, iteration_range=self._rounds, validate_features=False
            )
        else:
            made = self._booster.inplace_predict(
                rows, iteration_range=self._rounds, validate_features=False
            )
        if not self._classes:
            return [(tabular.PREDICTION, tabular.array_of(made))]
        if self._objective == "multi:softmax":
            return [(tabular.PREDICTION, tabular.array_of(made.astype(np.int64)))]
        if self._labels:  # several at once, each 0 or 1
            columns = [(tabular.PREDICTION, tabular.array_of((made > 0.5).astype(np.int64)))]
            return columns + [
                (f"probability_{at}", tabular.array_of(made[:, at].copy()))
                for at in (range(self._labels) if self._proba else ())
            ]
        chosen = made.argmax(axis=1) if made.ndim == 2 else (made > 0.5).astype(np.int64)
        columns = [(tabular.PREDICTION, tabular.array_of(chosen))]
        if self._proba:
            columns += tabular.Labels(np.arange(self._classes)).probabilities(made)
        return columns

    def _schema(self, config: Any) -> dict[str, Any]:
        several = int(config["learner_model_param"].get("num_target", 1)) > 1
        kind: Any = "integer" if self._classes else tabular.NUMBERS if several else "number"
        if self._labels:
            kind = {"type": "array", "items": {"type": "integer"}}
        columns = {tabular.PREDICTION: kind}
        if self._proba:
            count = self._labels or self._classes
            columns.update({f"probability_{at}": "number" for at in range(count)})
        return tabular.object_schema(columns)


def _categories(booster: Any) -> dict[int, Any]:
    """The categories of each feature that has them, by its place."""
    if "c" not in (booster.feature_types or ()) or not hasattr(booster, "get_categories"):
        return {}
    found = booster.get_categories(export_to_arrow=True).to_arrow()
    return {at: values for at, (_, values) in enumerate(found) if values is not None}


def _doubts(categories: dict[str, Any]) -> Iterator[str]:
    """What is said of categories that the library may have stored wrongly.

    Up to 3.2 at least, trained from pandas, it counts letters where it means bytes: ``Köln``,
    ``Ulm`` become ``Köl``, ``nUl``. Records with the right names fail.
    """
    for name, values in categories.items():
        texts = [one for one in values.to_pylist() if isinstance(one, str)]
        if not all(map(str.isascii, texts)):
            yield (
                f"the categories of column '{name}' have letters beyond ASCII, which XGBoost may "
                f"have stored wrongly when it was trained from pandas ({', '.join(texts[:5])}); if "
                f"these are not their names, train it from an Arrow table"
            )


def _classes(booster: Any, config: Any, objective: str) -> int:
    """The number of classes; 0 for a model that predicts numbers."""
    try:
        said = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    except ValueError:
        said = None
    if said in ("regressor", "ranker") or (
        said is None and not objective.startswith(("binary:", "multi:"))
    ):
        return 0
    return max(2, int(config["learner_model_param"].get("num_class", 0)))
