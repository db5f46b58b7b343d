"""The iris model: four measurements of a flower in, its species and a probability out."""

import json
from enum import Enum
from pathlib import Path

import numpy as np
from ml_base import MLModel
from ml_base.ml_model import MLModelSchemaValidationException
from pydantic import BaseModel, ConfigDict, Field
from sklearn.linear_model import LogisticRegression

from iris_ml_base import __version__

MODEL_FILE = Path(__file__).parent / "model_files" / "iris.json"


class Species(str, Enum):
    """The species that the model knows."""

    SETOSA = "setosa"
    VERSICOLOR = "versicolor"
    VIRGINICA = "virginica"


class IrisModelInput(BaseModel):
    """One flower, measured in centimetres."""

    model_config = ConfigDict(extra="forbid")

    sepal_length: float = Field(gt=0, le=20, description="Length of the sepal, in centimetres.")
    sepal_width: float = Field(gt=0, le=20, description="Width of the sepal, in centimetres.")
    petal_length: float = Field(gt=0, le=20, description="Length of the petal, in centimetres.")
    petal_width: float = Field(gt=0, le=20, description="Width of the petal, in centimetres.")
    garden: str | None = Field(
        default=None, description="Where the flower grew; the prediction does not use it."
    )


class IrisModelOutput(BaseModel):
    """The most probable species of the flower."""

    species: Species = Field(description="The predicted species.")
    probability: float = Field(ge=0, le=1, description="The model's probability of that species.")


class IrisModel(MLModel):
    """Predicts the species of an iris flower with a logistic regression."""

    @property
    def display_name(self) -> str:
        """The name for people."""
        return "Iris Model (ml_base)"

    @property
    def qualified_name(self) -> str:
        """The name for programs."""
        return "iris_ml_base"

    @property
    def description(self) -> str:
        """What the model does."""
        return "Predicts the species of an iris flower from the size of its sepals and petals."

    @property
    def version(self) -> str:
        """The version of the package that holds the model."""
        return __version__

    @property
    def input_schema(self) -> type[IrisModelInput]:
        """The only type that `predict` accepts."""
        return IrisModelInput

    @property
    def output_schema(self) -> type[IrisModelOutput]:
        """The type that `predict` returns."""
        return IrisModelOutput

    def __init__(self) -> None:
        """Rebuild the classifier from its saved coefficients; any scikit-learn can do that."""
        saved = json.loads(MODEL_FILE.read_text(encoding="utf-8"))
        self._features: list[str] = saved["features"]
        self._classifier = LogisticRegression()
        self._classifier.classes_ = np.array(saved["classes"])
        self._classifier.coef_ = np.array(saved["coefficients"])
        self._classifier.intercept_ = np.array(saved["intercepts"])
        self._classifier.n_features_in_ = len(self._features)

    def predict(self, data: IrisModelInput) -> IrisModelOutput:
        """Predict the species of one flower."""
        if type(data) is not IrisModelInput:
            raise MLModelSchemaValidationException(
                f"predict() takes an IrisModelInput, not {type(data).__name__}."
            )
        row = [[getattr(data, feature) for feature in self._features]]
        probabilities = self._classifier.predict_proba(row)[0]
        best = int(probabilities.argmax())
        return IrisModelOutput(
            species=Species(self._classifier.classes_[best]),
            probability=float(probabilities[best]),
        )
