"""No framework at all: a Python loop with the fastest JSON library there is for it."""

from __future__ import annotations

import importlib
import sys

from orjson import dumps, loads


def main(source: str, target: str, model: str = "iris_lr:NearlyNothing") -> None:
    """Predict the records in ``source`` and write the results to ``target``, in order."""
    module_name, class_name = model.split(":")
    predict = getattr(importlib.import_module(module_name), class_name)().predict
    with open(source, "rb") as lines, open(target, "wb") as output:
        for line in lines:
            output.write(dumps(predict(loads(line))) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
