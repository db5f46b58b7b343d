"""CatBoost models from ``.cbm`` files."""

from __future__ import annotations

from typing import Any

import catboost
import numpy as np
import pyarrow as pa

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models import boosters, tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of, not_fitted, own_file
from modelbeam.models.options import Options
from modelbeam.models.signature import Column
from modelbeam.models.target import Target
from modelbeam.text import describe


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Read the file.

    Raises:
        ModelError: it cannot be read.
    """
    boosters.no_arguments(target, arguments)
    path = own_file(target)
    try:
        plain = catboost.CatBoost().load_model(path)
        kind = catboost.CatBoostClassifier if len(plain.classes_) else catboost.CatBoostRegressor
        model = kind().load_model(path)
    except Exception as error:
        raise ModelLoadError(
            f"--model {target} cannot be read as a model by CatBoost {catboost.__version__}: "
            f"{describe(error)}. The file is damaged, cut off, something else, or of a newer "
            f"version."
        ) from error
    return CatBoostModel(target, model, options)


def from_object(target: Target, model: Any, options: Options) -> CatBoostModel:
    """An object of the library that was in a pickle."""
    if not model.is_fitted():
        raise not_fitted(target, type(model).__name__)
    return CatBoostModel(target, model, options)


class CatBoostModel(tabular.TableModel):
    """A model of CatBoost behind the one protocol.

    Args:
        target: what was asked for.
        model: the library's.
        options: the features, where it does not know them; whether probabilities are wanted.
    """

    def __init__(self, target: Target, model: Any, options: Options) -> None:
        self._model = model
        self._threads = call_threads()
        own = list(map(str, model.feature_names_))
        count = len(own)
        numbered = own == [str(at) for at in range(count)]
        names = tabular.feature_names(target, None if numbered else own, count, options)
        texts = set(model.get_text_feature_indices())
        vectors = set(_vectors(model))
        self._texts = sorted({*model.get_cat_feature_indices(), *texts})
        columns = []
        for at, name in enumerate(names):
            if at in texts:
                columns.append(Column(name, "str"))
            elif at in vectors:
                columns.append(Column(name, "any", shape=("list", "float")))
            elif at in self._texts:  # texts and integers alike: it makes texts of both
                columns.append(Column(name, "any"))
            else:
                columns.append(tabular.number(name, nullable=True))
        self._plain = not self._texts and not vectors
        classes = model.classes_
        self._labels = tabular.Labels(classes) if len(classes) else None
        if options.proba and self._labels is None:
            raise NotAModelError(
                f"--proba: --model {target} predicts numbers and no classes. Leave --proba out."
            )
        self._proba = options.proba
        signature = tabular.signature_of(columns)
        what = "classifier" if self._labels else "regressor"
        self.info = ModelInfo(
            target=str(target),
            name=tabular.name_of(target),
            style="table",
            description=f"{model.tree_count_} trees",
            interface=f"CatBoost ({what})",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            requires=distributions_of(["catboost"]),
        )

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """The class or the number of each row."""
        rows = tabular.matrix(batch) if self._plain else self._frame(batch)
        made = self._model.predict(rows, thread_count=self._threads)
        if self._labels is None:
            return [(tabular.PREDICTION, tabular.array_of(made))]
        columns = [(tabular.PREDICTION, self._labels.column(made))]
        if self._proba:
            found = self._model.predict_proba(rows, thread_count=self._threads)
            columns += self._labels.probabilities(found)
        return columns

    def _frame(self, batch: Any) -> Any:
        """The features as a table, categories as texts."""
        import pandas as pd

        made = {}
        for at, name in enumerate(batch.schema.names):
            column = batch.column(at)
            if at in self._texts:
                made[name] = np.array([_text(name, v) for v in column.to_pylist()], object)
            elif pa.types.is_list(column.type):
                made[name] = column.to_pylist()
            else:
                made[name] = tabular.floats(column)
        return pd.DataFrame(made)

    def _schema(self) -> dict[str, Any] | None:
        kind: Any = self._labels.json_type if self._labels else "number"
        if self._labels is None and len(np.shape(self._model.get_scale_and_bias()[1])) == 1:
            kind = tabular.NUMBERS  # several numbers a record
        if kind is None:
            return None
        columns = {tabular.PREDICTION: kind}
        if self._proba and self._labels:
            columns.update({f"probability_{text}": "number" for text in self._labels.texts})
        return tabular.object_schema(columns)


def _vectors(model: Any) -> list[int]:
    found = getattr(model, "get_embedding_feature_indices", None)
    return list(found()) if found else []


def _text(name: str, value: Any) -> str:
    """A category as the library has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"column '{name}' must be a category (text or an integer), not {value!r}")
