"""Train the iris model and write its file: `python -m iris_ml_base.train [FILE]`."""

import json
import sys
from pathlib import Path

import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from iris_ml_base.model import MODEL_FILE

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def train(path: Path = MODEL_FILE) -> float:
    """Fit on four fifths of the data, write the model to `path`, return the held-out accuracy."""
    iris = load_iris()
    species = iris.target_names[iris.target]
    x_train, x_test, y_train, y_test = train_test_split(
        iris.data, species, test_size=0.2, stratify=species, random_state=0
    )
    classifier = LogisticRegression(max_iter=1000).fit(x_train, y_train)
    accuracy = float(classifier.score(x_test, y_test))
    model = {
        "trained_with": f"scikit-learn {sklearn.__version__}",
        "held_out_accuracy": round(accuracy, 4),
        "features": FEATURES,
        "classes": classifier.classes_.tolist(),
        "coefficients": classifier.coef_.tolist(),
        "intercepts": classifier.intercept_.tolist(),
    }
    path.write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")
    return accuracy


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL_FILE
    print(f"Held-out accuracy {train(target):.3f}; wrote {target}")
