"""Run any ML model over any data as an Apache Beam pipeline.

``import modelbeam`` is light: neither Beam nor a model library is imported until a name that needs
it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelbeam._version import __version__

if TYPE_CHECKING:
    from modelbeam.beam.operation import MLModelPredictOperation
    from modelbeam.beam.predict import Predict
    from modelbeam.engines.run import Submitted
    from modelbeam.errors import (
        JobError,
        ModelbeamError,
        ModelError,
        NothingPredictedError,
        RequestError,
    )
    from modelbeam.job.result import Run
    from modelbeam.run import predict

__all__ = [
    "JobError",
    "MLModelPredictOperation",
    "ModelError",
    "ModelbeamError",
    "NothingPredictedError",
    "Predict",
    "RequestError",
    "Run",
    "Submitted",
    "__version__",
    "predict",
]

_HOMES = {
    "JobError": "modelbeam.errors",
    "MLModelPredictOperation": "modelbeam.beam.operation",
    "ModelError": "modelbeam.errors",
    "ModelbeamError": "modelbeam.errors",
    "NothingPredictedError": "modelbeam.errors",
    "Predict": "modelbeam.beam.predict",
    "RequestError": "modelbeam.errors",
    "Run": "modelbeam.job.result",
    "Submitted": "modelbeam.engines.run",
    "predict": "modelbeam.run",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'modelbeam' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
