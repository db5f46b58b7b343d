"""The plain Beam pipeline: a DoFn that is handed one record after another."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam


class PredictRecord(beam.DoFn):
    """Builds a model from its module and class name on the worker; predicts one record a call."""

    def __init__(self, module_name: str, class_name: str) -> None:
        self.module_name = module_name
        self.class_name = class_name

    def setup(self) -> None:
        """Build the model."""
        self.model = getattr(importlib.import_module(self.module_name), self.class_name)()

    def process(self, element: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Predict one record."""
        yield self.model.predict(element)


def main(source: str, target: str, model: str = "iris_lr:IrisRecord") -> None:
    """Predict the records in ``source`` and write the results into the directory ``target``."""
    with beam.Pipeline() as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(source)
            | beam.Map(json.loads)
            | beam.ParDo(PredictRecord(*model.split(":")))
            | beam.Map(json.dumps)
            | beam.io.WriteToText(f"{target}/part", file_name_suffix=".jsonl")
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
