"""Models over a table of 28 float32 columns, as files of their libraries, and who loads them.

``python scoring.py`` trains them on made-up rows and saves them into the directory named by the
environment variable ``IRIS_LR_MODEL``. modelbeam is given the files; the scripts in ``peers/`` load
the same ones by :func:`load`. Importing this module imports none of their libraries.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FEATURES = tuple(f"f{number:02d}" for number in range(28))
FILES = {
    "xgboost": "xgboost.ubj",
    "xgboost-2": "xgboost-2.ubj",
    "lightgbm": "lightgbm.txt",
    "onnx": "network.onnx",
}
PREDICTED = {"xgboost": "prediction", "lightgbm": "prediction", "onnx": "variable"}
"""What modelbeam calls what they predict, as the files have it."""

SEED = 28
TRAINED_ON = 50_000
TREES = 200
DEPTH = 6

Score = Callable[[Any], Any]
"""Takes a float32 matrix, a row a record; returns a number for each."""


def model_file(name: str) -> Path:
    """Where a trained model is kept."""
    return Path(os.environ["IRIS_LR_MODEL"]) / FILES[name]


def rows(random: np.random.Generator, count: int) -> np.ndarray:
    """Made-up records."""
    import numpy as np

    return random.standard_normal((count, len(FEATURES)), dtype=np.float32)


def train() -> None:
    """Train those that are not there yet, each to predict a number."""
    if all(model_file(name).exists() for name in FILES):
        return
    import numpy as np

    random = np.random.default_rng(SEED)
    known = rows(random, TRAINED_ON)
    wanted = known[:, 0] * known[:, 1] + np.sin(known[:, 2] * 2) + known[:, 3:].sum(axis=1) / 9
    model_file("onnx").parent.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("xgboost", "xgboost-2")):
        _xgboost(known, wanted, seed).save_model(model_file(name))
    _lightgbm(known, wanted).save_model(model_file("lightgbm"))
    model_file("onnx").write_bytes(_network(known, wanted))


def _xgboost(known: Any, wanted: Any, seed: int) -> Any:
    import xgboost as xgb

    settings = {"max_depth": DEPTH, "eta": 0.1, "subsample": 0.8, "seed": seed}
    data = xgb.DMatrix(known, wanted, feature_names=list(FEATURES))
    return xgb.train(settings, data, TREES)


def _lightgbm(known: Any, wanted: Any) -> Any:
    import lightgbm as lgb

    data = lgb.Dataset(known, wanted, feature_name=list(FEATURES))
    return lgb.train({"objective": "regression", "verbose": -1, "seed": SEED}, data, TREES)


def _network(known: Any, wanted: Any) -> bytes:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPRegressor

    network = MLPRegressor(hidden_layer_sizes=(64, 32), max_iter=10, tol=1, random_state=SEED)
    made: bytes = to_onnx(network.fit(known, wanted), known[:1]).SerializeToString()
    return made


@functools.cache
def load(name: str) -> Score:
    """Load a model, once a process, as its library's documentation has it."""
    path = str(model_file(name))
    if name.startswith("xgboost"):
        import xgboost as xgb

        booster = xgb.Booster(model_file=path)
        return functools.partial(booster.inplace_predict, validate_features=False)
    if name == "lightgbm":
        import lightgbm as lgb

        return lgb.Booster(model_file=path).predict
    import onnxruntime as ort

    session = ort.InferenceSession(path)
    given = session.get_inputs()[0].name
    return lambda matrix: session.run(None, {given: matrix})[0].ravel()


if __name__ == "__main__":
    train()
