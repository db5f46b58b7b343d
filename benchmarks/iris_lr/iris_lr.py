"""The models that the benchmarks run: one logistic regression, seen by rows and by columns.

``python iris_lr.py`` trains it on the iris data that scikit-learn ships and saves it with joblib
into the directory named by the environment variable ``IRIS_LR_MODEL``. Everything that predicts,
here and in ``peers/``, loads that one file, so all contestants have the same model.

Importing this module imports neither scikit-learn nor numpy: ``NearlyNothing`` needs neither, and
its benchmark measures what surrounds the model.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from sklearn.linear_model import LogisticRegression

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def model_file() -> Path:
    """Where the trained model is kept."""
    return Path(os.environ["IRIS_LR_MODEL"]) / "iris_lr.joblib"


def train() -> Path:
    """Train the model, save it, and return the file it was saved to."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    iris = load_iris()
    model = LogisticRegression(max_iter=1000).fit(iris.data, iris.target_names[iris.target])
    path = model_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, path)
    return path


@functools.cache
def load() -> LogisticRegression:
    """Load the trained model, once a process."""
    import joblib

    return joblib.load(model_file())


def best_class(model: LogisticRegression, rows: np.ndarray) -> np.ndarray:
    """The index in ``model.classes_`` of the likeliest species of each row."""
    return model.decision_function(rows).argmax(axis=1)


class IrisRecord:
    """The logistic regression as a class that predicts one record at a time."""

    display_name = "Iris, one record a call"
    qualified_name = "iris_record"
    description = "Predicts the species of an iris flower from its measurements."
    major_version = 1
    minor_version = 0
    input_schema = Schema(dict.fromkeys(COLUMNS, float))
    output_schema = Schema({"species": str})

    def __init__(self) -> None:
        self._model = load()
        self._species = [str(name) for name in self._model.classes_]

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Predict the species of one flower."""
        import numpy as np

        row = np.array([[data[name] for name in COLUMNS]])
        return {"species": self._species[int(best_class(self._model, row)[0])]}


class IrisBatch(IrisRecord):
    """The same model, which can also predict a list of flowers in one call."""

    display_name = "Iris, a list a call"
    qualified_name = "iris_batch"

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict the species of every flower, in order."""
        import numpy as np

        rows = np.array([[flower[name] for name in COLUMNS] for flower in data])
        names = self._species
        return [{"species": names[i]} for i in best_class(self._model, rows).tolist()]


class IrisTable(IrisRecord):
    """The same model, which can also predict a whole table of flowers in one call."""

    display_name = "Iris, a table a call"
    qualified_name = "iris_table"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Predict the species of every row of ``batch``, in order."""
        import pyarrow as pa

        indices = pa.array(best_class(self._model, matrix(batch)), type=pa.int32())
        species = pa.DictionaryArray.from_arrays(indices, pa.array(self._species))
        return pa.RecordBatch.from_arrays([species], names=["species"])


def matrix(batch: pa.RecordBatch) -> np.ndarray:
    """The measurements of a batch, a row a flower."""
    import numpy as np

    rows = np.empty((batch.num_rows, len(COLUMNS)))
    for position, name in enumerate(COLUMNS):
        rows[:, position] = batch.column(name).to_numpy(zero_copy_only=False)
    return rows


class IrisStrings(IrisTable):
    """The same, returning NumPy's strings, as people write it."""

    qualified_name = "iris_strings"

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Predict the species of every row of ``batch``, in order."""
        import pyarrow as pa

        names = self._model.classes_[best_class(self._model, matrix(batch))]
        return pa.RecordBatch.from_arrays([pa.array(names)], names=["species"])


class IrisProbabilities(IrisTable):
    """The same, returning the probabilities of all classes."""

    qualified_name = "iris_probabilities"
    output_schema = Schema({"probabilities": [float]})

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Predict the probabilities of every row of ``batch``, in order."""
        import pyarrow as pa

        made = self._model.predict_proba(matrix(batch))
        lists = pa.FixedSizeListArray.from_arrays(pa.array(made.ravel()), made.shape[1])
        return pa.RecordBatch.from_arrays([lists], names=["probabilities"])


class IrisScore(IrisTable):
    """The same, returning the largest probability as a float32."""

    qualified_name = "iris_score"
    output_schema = Schema({"score": float})

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Predict the score of every row of ``batch``, in order."""
        import numpy as np
        import pyarrow as pa

        score = self._model.predict_proba(matrix(batch)).max(axis=1).astype(np.float32)
        return pa.RecordBatch.from_arrays([pa.array(score)], names=["score"])


class NearlyNothing:
    """A model that costs next to nothing, so that a run's time is that of everything else."""

    display_name = "Nearly nothing"
    qualified_name = "nearly_nothing"
    description = "Compares one measurement with a constant."
    major_version = 1
    minor_version = 0
    input_schema = Schema(dict.fromkeys(COLUMNS, float))
    output_schema = Schema({"species": str})

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Compare the sepal's length with 5."""
        return {"species": "a" if data["sepal_length"] > 5 else "b"}


if __name__ == "__main__":
    train()
