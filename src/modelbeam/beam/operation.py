"""``MLModelPredictOperation``: the name known from older deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from modelbeam.models import mlmodel
from modelbeam.models.target import Target
from modelbeam.models.turns import alone, at_work, is_ctrl_c, turns_of


class MLModelPredictOperation(beam.DoFn):
    """One dict in, the model's ``predict(data=…)`` out: the name known from older deployments.

    A record that the model rejects raises, as it always did, after a second try with nothing else
    of modelbeam's running in the process; :class:`Predict` keeps such records apart instead.

    Args:
        module_name: module of the model's class.
        class_name: its name there.

    Raises:
        ModelError: the class is not there or is not a model; at construction, not on a worker.
    """

    def __init__(self, module_name: str, class_name: str) -> None:
        super().__init__()
        self._target = Target.parse(f"{module_name}:{class_name}")
        mlmodel.find(self._target)
        self._shared = Shared()

    def setup(self) -> None:
        """Build the model, once a process."""
        self._model = self._shared.acquire(
            lambda: mlmodel.find(self._target)(), tag=str(self._target)
        )
        self._turns = turns_of(self._model)

    def process(self, data: dict[str, Any]) -> Iterator[Any]:
        """Predict one record."""
        with at_work():
            made = self._predict(data)
        yield made

    def _predict(self, data: dict[str, Any]) -> Any:
        try:
            return self._turns.predict(self._model.predict, data=data)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
        with alone():
            return self._turns.predict(self._model.predict, data=data)
