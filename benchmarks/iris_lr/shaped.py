"""Models for the table of shapes: nested records, long texts, records checked by pydantic."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iris_lr
from pydantic import BaseModel

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

NESTED = ("sepal", "petal")
"""Each of them holds a length and a width."""


def text_file() -> Path:
    """Where the trained classifier of texts is kept."""
    return Path(os.environ["IRIS_LR_MODEL"]) / "texts.joblib"


def train() -> None:
    """Train a classifier of texts on a few made-up ones, and save it."""
    import joblib
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    good, bad = ["fine quick warm clear"] * 20, ["late broken cold dark"] * 20
    model = make_pipeline(HashingVectorizer(n_features=2**16), SGDClassifier(random_state=1))
    joblib.dump(model.fit(good + bad, ["good"] * 20 + ["bad"] * 20), text_file())


@functools.cache
def load_texts() -> Any:
    """Load the classifier, once a process."""
    import joblib

    return joblib.load(text_file())


class Texts:
    """Says of a text whether it is good or bad."""

    display_name = "Texts"
    qualified_name = "texts"
    description = "Hashes the words of a text and classifies it."
    major_version = 1
    minor_version = 0

    class Input(BaseModel):
        """A text."""

        text: str

    class Output(BaseModel):
        """What it is."""

        label: str

    input_schema, output_schema = Input, Output

    def __init__(self) -> None:
        self._model = load_texts()

    def predict(self, data: Texts.Input) -> Texts.Output:
        """Classify one."""
        return self.Output(label=str(self._model.predict([data.text])[0]))

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Classify all."""
        import pyarrow as pa

        labels = self._model.predict(batch.column("text").to_pylist())
        return pa.RecordBatch.from_arrays([pa.array(labels)], names=["label"])


class Nested:
    """The logistic regression over ``{"flower": {"sepal": {"length": …}, …}}``."""

    display_name = "Nested"
    qualified_name = "nested"
    description = "Predicts the species of a flower whose measurements are nested."
    major_version = 1
    minor_version = 0

    class Input(BaseModel):
        """A flower."""

        class Flower(BaseModel):
            """Its leaves."""

            class Leaf(BaseModel):
                """A leaf's measurements, in centimetres."""

                length: float
                width: float

            sepal: Leaf
            petal: Leaf

        flower: Flower

    class Output(BaseModel):
        """What it is."""

        species: str

    input_schema, output_schema = Input, Output

    def __init__(self) -> None:
        self._model = iris_lr.load()
        self._species = [str(name) for name in self._model.classes_]

    def predict(self, data: Nested.Input) -> Nested.Output:
        """Classify one."""
        import numpy as np

        leaves = [getattr(data.flower, leaf) for leaf in NESTED]
        row = np.array([[value for leaf in leaves for value in (leaf.length, leaf.width)]])
        return self.Output(species=self._species[int(iris_lr.best_class(self._model, row)[0])])

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Classify all."""
        import pyarrow as pa

        rows = nested_matrix(batch.column("flower"))
        indices = pa.array(iris_lr.best_class(self._model, rows), type=pa.int32())
        species = pa.DictionaryArray.from_arrays(indices, pa.array(self._species))
        return pa.RecordBatch.from_arrays([species], names=["species"])


def nested_matrix(flowers: pa.StructArray) -> np.ndarray:
    """The measurements, a row a flower."""
    import numpy as np

    columns = [
        flowers.field(leaf).field(side).to_numpy(zero_copy_only=False)
        for leaf in NESTED
        for side in ("length", "width")
    ]
    return np.column_stack(columns)


class Checked:
    """A model that costs nearly nothing, one record at a time, which pydantic checks."""

    display_name = "Checked"
    qualified_name = "checked"
    description = "Compares one measurement with a constant."
    major_version = 1
    minor_version = 0

    class Input(BaseModel):
        """A flower's measurements, in centimetres."""

        sepal_length: float
        sepal_width: float
        petal_length: float
        petal_width: float

    class Output(BaseModel):
        """What it is."""

        species: str

    input_schema, output_schema = Input, Output

    def predict(self, data: Checked.Input) -> Checked.Output:
        """Compare the sepal's length with 5."""
        return self.Output(species="a" if data.sepal_length > 5 else "b")


if __name__ == "__main__":
    train()
