"""A model of each kind that is a file or directory, trained on the same records."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modelbeam.models.options import NONE, Options

_random = np.random.default_rng(9)
X = pd.DataFrame(_random.normal(size=(240, 4)).round(3), columns=list("abcd"))
Y = (X["a"] + X["b"] * X["c"] > 0).astype(int)
RECORDS: list[dict[str, Any]] = X.to_dict("records")


def _sklearn(place: Path) -> Path:
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    joblib.dump(RandomForestClassifier(5, random_state=0).fit(X, Y), place / "forest.joblib")
    return place / "forest.joblib"


def _onnx(place: Path) -> Path:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    matrix = X.to_numpy(np.float32)
    model = to_onnx(LogisticRegression().fit(matrix, Y), matrix[:1])
    (place / "logistic.onnx").write_bytes(model.SerializeToString())
    return place / "logistic.onnx"


def _xgboost(place: Path) -> Path:
    import xgboost

    xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, Y).save_model(place / "trees.ubj")
    return place / "trees.ubj"


def _lightgbm(place: Path) -> Path:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(X, Y)
    model.booster_.save_model(place / "trees.txt")
    return place / "trees.txt"


def _catboost(place: Path) -> Path:
    import catboost

    model = catboost.CatBoostClassifier(iterations=5, silent=True, allow_writing_files=False)
    model.fit(X, Y).save_model(str(place / "trees.cbm"))
    return place / "trees.cbm"


def _mlflow(place: Path) -> Path:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.sklearn
        from mlflow.models import infer_signature
        from sklearn.tree import DecisionTreeClassifier

        mlflow.sklearn.save_model(
            DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, Y),
            path=str(place / "tree"),
            signature=infer_signature(X, Y),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return place / "tree"


KINDS: dict[str, tuple[Callable[[Path], Path], Options]] = {
    "sklearn": (_sklearn, NONE),
    "onnx": (_onnx, Options(features=tuple(X.columns))),
    "xgboost": (_xgboost, NONE),
    "lightgbm": (_lightgbm, NONE),
    "catboost": (_catboost, NONE),
    "mlflow": (_mlflow, NONE),
}
"""How each is made in a directory, and what has to be said of it."""
