"""The iris model: four measurements of a flower in, its species out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from schema import Or, Schema
from sklearn.linear_model import LogisticRegression

from iris_model.ml_model_abc import MLModel

MODEL_FILE = Path(__file__).parent / "model_files" / "iris.json"


class IrisModel(MLModel):
    """Predicts the species of an iris flower with a logistic regression."""

    display_name = "Iris Model"
    qualified_name = "iris_model"
    description = "Predicts the species of an iris flower from the size of its sepals and petals."
    major_version = 0
    minor_version = 1
    input_schema = Schema(
        {
            "sepal_length": float,
            "sepal_width": float,
            "petal_length": float,
            "petal_width": float,
        }
    )
    output_schema = Schema({"species": Or("setosa", "versicolor", "virginica")})

    def __init__(self) -> None:
        """Rebuild the classifier from its saved coefficients; any scikit-learn can do that."""
        saved = json.loads(MODEL_FILE.read_text(encoding="utf-8"))
        self._features: list[str] = saved["features"]
        self._classifier = LogisticRegression()
        self._classifier.classes_ = np.array(saved["classes"])
        self._classifier.coef_ = np.array(saved["coefficients"])
        self._classifier.intercept_ = np.array(saved["intercepts"])
        self._classifier.n_features_in_ = len(self._features)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Predict the species of one flower, measured in centimetres."""
        super().predict(data=data)
        row = [[data[feature] for feature in self._features]]
        return {"species": str(self._classifier.predict(row)[0])}
