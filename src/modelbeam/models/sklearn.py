"""Fitted estimators and pipelines with scikit-learn's interface, from ``.joblib``, ``.pkl`` and
``.skops`` files.

What has ``predict`` and was fitted is a model, whichever library it is of. Its columns are matched
by name where it knows them.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models import estimators, pickles, tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of, modules_in
from modelbeam.models.options import Options
from modelbeam.models.signature import Column
from modelbeam.models.target import Target


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Read the file and look at what is in it.

    Raises:
        ModelError: it cannot be read, or what is in it is no model.
    """
    if arguments:
        raise NotAModelError(
            f"--model {target}: a fitted model takes no arguments, and was given "
            f"{', '.join(sorted(arguments))}."
        )
    found, notes = pickles.read(target, options)
    return wrap(target, found, options, notes)


def wrap(
    target: Target, found: Any, options: Options, notes: Sequence[str] = ()
) -> tabular.TableModel:
    """A fitted object behind the one protocol.

    Raises:
        NotAModelError: it is none, or does not know its columns.
    """
    top = type(found).__module__.partition(".")[0]
    if top in _BOOSTERS and _is_booster(found):
        booster: tabular.TableModel = importlib.import_module(
            f"modelbeam.models.{top}"
        ).from_object(target, found, options)
        return booster
    pickles.check(target, found)
    return Estimator(target, found, options, tuple(notes))


_MOST_TRIED = 64
"""Columns up to which each is tried; of more the library tells, record by record."""

_BOOSTERS = ("xgboost", "lightgbm", "catboost")
"""Libraries of boosting, whose categories need care; see the modules of these names."""


def _is_booster(found: Any) -> bool:
    names = ("get_booster", "booster_", "num_boosted_rounds", "num_trees", "is_fitted")
    return any(hasattr(type(found), name) for name in names)


class Estimator(tabular.TableModel):
    """A fitted object with ``predict(X)``.

    Args:
        target: what was asked for.
        model: the object.
        options: the columns where it does not know them; whether probabilities are wanted.
        notes: what the user should know.
    """

    def __init__(
        self, target: Target, model: Any, options: Options, notes: tuple[str, ...] = ()
    ) -> None:
        self._model = model
        for part in estimators.parts_of(model):
            if getattr(part, "n_jobs", None) not in (None, 1):
                part.n_jobs = 1  # threads add up in the order in which they end; workers share work
        own = estimators.names_of(model)
        count = estimators.count_of(model)
        text = estimators.takes_texts(model)
        names = tabular.feature_names(target, own, 1 if text else count, options)
        columns = estimators.columns_of(model, names, text)
        self._numbers = all(column.kind == "float" for column in columns)
        self._give = _by_names if own is not None else _by_places(text, self._numbers)
        if own is not None and not _has_pandas():
            if not self._numbers:
                raise ModelLoadError(
                    f"--model {target} was trained on a table of columns of several types, and "
                    f"needs pandas. Install it with: pip install pandas."
                )
            self._give = lambda batch: tabular.matrix(batch, by_columns=True)
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
        self._proba = estimators.proba_of(target, model) if options.proba else None
        self._labels = estimators.labels_of(model)
        self.rows, self.aligned = estimators.block_of(model)
        columns = self._without_nulls(columns)
        signature = tabular.signature_of(columns)
        name = os.path.basename(target.path.rstrip("/")).rpartition(".")[0] or str(target)
        last = estimators.last_of(model)
        needs = modules_in(model) | {"joblib"} | ({"pandas"} if own is not None else set())
        self.info = ModelInfo(
            target=str(target),
            name=name,
            style="table",
            display_name=type(last).__name__,
            description=estimators.described(model),
            interface=f"scikit-learn ({type(last).__name__})",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            requires=distributions_of(sorted(needs)),
            warnings=notes,
        )
        _one_thread()

    def _without_nulls(self, columns: list[Column]) -> list[Column]:
        """The columns, those of numbers without null where the model certainly refuses it.

        It is tried on a row of zeros, if all steps are scikit-learn's own: else a file with many
        nulls would be cut into pieces again and again.
        """
        if any(
            not type(part).__module__.startswith("sklearn.") or estimators.has_own_function(part)
            for part in estimators.parts_of(self._model)
        ):
            return columns
        tried = [c for c in columns if c.kind == "float" and c.nullable]
        if (
            not tried
            or any(c.kind != "float" and c.required for c in columns)
            or not self._predicts(columns, [])
        ):
            return columns
        if self._predicts(columns, [c.name for c in tried]) or len(tried) > _MOST_TRIED:
            return columns
        refused = {c.name for c in tried if not self._predicts(columns, [c.name])}
        return [replace(c, nullable=c.nullable and c.name not in refused) for c in columns]

    def _predicts(self, columns: list[Column], null: list[str]) -> bool:
        """Whether a row of zeros is predicted, with null in some columns."""
        import pyarrow as pa

        values = [
            pa.array([None if c.name in null else 0.0], pa.float64())
            if c.kind == "float"
            else pa.nulls(1)
            for c in columns
        ]
        row = pa.RecordBatch.from_arrays(values, names=[c.name for c in columns])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._model.predict(self._give(tabular.aligned(row, self.aligned)))
        except Exception:
            return False
        return True

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """The prediction, and the probability of each class if they are wanted."""
        rows = self._give(batch)
        made = self._predicted(self._model.predict(rows))
        if self._proba is not None:
            made += self._probabilities(self._proba(rows))
        return made

    def _predicted(self, predicted: Any) -> list[tuple[str, Any]]:
        if hasattr(predicted, "columns") and hasattr(predicted, "to_numpy"):  # a DataFrame
            names = [str(name) for name in predicted.columns]
            if len(names) > 1:
                columns = [predicted.iloc[:, at] for at in range(len(names))]
                return [(n, tabular.array_of(c)) for n, c in zip(names, columns, strict=True)]
        if len(self._labels) == 1:
            return [(tabular.PREDICTION, self._labels[0].column(predicted))]
        return [(tabular.PREDICTION, tabular.array_of(predicted))]

    def _probabilities(self, found: Any) -> list[tuple[str, Any]]:
        if isinstance(found, list):  # of several outputs, each with classes of its own
            return [
                column
                for at, (labels, one) in enumerate(zip(self._labels, found, strict=True))
                for column in labels.probabilities(one, f"probability_{at}_")
            ]
        import numpy as np

        found = np.asarray(found)
        if len(self._labels) == 1:
            return self._labels[0].probabilities(found)
        return [(f"probability_{at}", tabular.array_of(p)) for at, p in enumerate(found.T.copy())]

    def _schema(self) -> dict[str, Any] | None:
        columns: dict[str, Any] = {}
        kinds = [labels.json_type for labels in self._labels]
        last = estimators.last_of(self._model)
        if None in kinds or not type(last).__module__.startswith("sklearn."):
            return None  # what a class of one's own returns is not known before it has
        if len(kinds) == 1:
            columns[tabular.PREDICTION] = str(kinds[0])
        elif kinds:
            same = str(kinds[0]) if len(set(kinds)) == 1 else None
            items = {"type": same} if same else {}
            columns[tabular.PREDICTION] = {"type": "array", "items": items}
        elif estimators.kind_of(last) == "regressor":
            several = estimators.outputs_of(last)
            if several is None:
                return None
            columns[tabular.PREDICTION] = tabular.NUMBERS if several > 1 else "number"
        elif estimators.kind_of(last) in ("clusterer", "outlier_detector"):
            columns[tabular.PREDICTION] = "integer"
        else:
            return None
        if self._proba is not None:
            if len(self._labels) > 1:
                return None  # a list by outputs, or one of a column for each: known afterwards
            for labels in self._labels:
                columns.update({f"probability_{text}": "number" for text in labels.texts})
        return tabular.object_schema(columns)


def _by_names(batch: Any) -> Any:
    return tabular.frame(batch)


def _by_places(text: bool, numbers: bool) -> Callable[[Any], Any]:
    if text:
        return lambda batch: batch.column(0).to_pylist()
    if numbers:
        return lambda batch: tabular.matrix(batch)
    return _objects


def _objects(batch: Any) -> Any:
    import numpy as np

    made = np.empty((batch.num_rows, batch.num_columns), object)
    for at in range(batch.num_columns):
        made[:, at] = batch.column(at).to_pylist()
    return made


def _has_pandas() -> bool:
    try:
        import pandas  # noqa: F401
    except ImportError:
        return False
    return True


def _one_thread() -> None:
    """Have linear algebra use one thread: how it shares work among several changes last bits."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(1, "blas")
