"""Beam's model handlers that tests name as models; the files are named by the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy
from apache_beam.ml.inference.sklearn_inference import (
    ModelFileType,
    SklearnModelHandlerNumpy,
    SklearnModelHandlerPandas,
)


def numpy_handler(**more: Any) -> ModelHandler:
    return SklearnModelHandlerNumpy(os.environ["HANDLER_FILE"], ModelFileType.JOBLIB, **more)


def keyed_handler() -> ModelHandler:
    return KeyedModelHandler(numpy_handler())


def pandas_handler() -> ModelHandler:
    return SklearnModelHandlerPandas(os.environ["HANDLER_FILE"], ModelFileType.JOBLIB)


def onnx_handler() -> ModelHandler:
    return OnnxModelHandlerNumpy(os.environ["HANDLER_FILE"])


class Tripler(ModelHandler):
    """Three times the number, batches of two at most."""

    def __init__(self) -> None:
        super().__init__(max_batch_size=2, env_vars={"TRIPLER": "3"})

    def load_model(self) -> float:
        return float(os.environ["TRIPLER"])

    def run_inference(
        self,
        batch: Sequence[Any],
        model: float,
        inference_args: Any = None,  # noqa: ARG002
    ) -> Iterable[Any]:
        if len(batch) > 2:
            raise ValueError("a batch of more than two")
        return [PredictionResult(one, {"y": one["x"] * model}) for one in batch]


tripler = Tripler()


def wrapped() -> ModelHandler:
    return (
        Tripler()
        .with_preprocess_fn(lambda record: {"x": record["half"] * 2})
        .with_postprocess_fn(lambda result: {"z": result.inference["y"] + 1})
    )


def drops() -> ModelHandler:
    class Drops(Tripler):
        def run_inference(self, batch: Any, *_: Any) -> Any:
            return [1.0] * (len(batch) + 1)

    return Drops()
