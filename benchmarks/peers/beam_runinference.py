"""Beam's own RunInference with its scikit-learn handler."""

from __future__ import annotations

import json
import sys

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.ml.inference.sklearn_inference import ModelFileType, SklearnModelHandlerNumpy
from iris_lr import COLUMNS, model_file


def to_row(line: str) -> np.ndarray:
    """The measurements in one line of JSON."""
    flower = json.loads(line)
    return np.array([flower[name] for name in COLUMNS])


def to_line(result: PredictionResult) -> str:
    """One line of JSON with the species."""
    return json.dumps({"species": str(result.inference)})


def main(source: str, target: str) -> None:
    """Predict the flowers in ``source`` and write their species into the directory ``target``."""
    handler = SklearnModelHandlerNumpy(str(model_file()), model_file_type=ModelFileType.JOBLIB)
    with beam.Pipeline() as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(source)
            | beam.Map(to_row)
            | RunInference(handler)
            | beam.Map(to_line)
            | beam.io.WriteToText(f"{target}/part", file_name_suffix=".jsonl")
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
