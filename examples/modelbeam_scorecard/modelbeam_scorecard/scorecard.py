"""A scorecard: points for each column, summed; imported when one is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modelbeam.models import LoadedModel, ModelInfo, Target
from modelbeam.models.signature import Column, Signature


def load(target: Target, arguments: dict[str, Any]) -> LoadedModel:
    """Read the file that a target names; ``accept_from`` may be given as an argument."""
    return Scorecard(target, {**json.loads(Path(target.local()).read_text("utf-8")), **arguments})


class Scorecard(LoadedModel):
    """Takes a table, since that is fastest."""

    def __init__(self, target: Target, card: dict[str, Any]) -> None:
        self._base = float(card["base"])
        self._points = {str(name): float(points) for name, points in card["points"].items()}
        self._accept_from = float(card["accept_from"])
        self.turns.thread_safe = True  # predict_table changes nothing
        self.info = ModelInfo(
            target=str(target),
            name=str(card["name"]),
            version=str(card["version"]),
            style="table",
            signature=Signature(tuple(Column(name, "float") for name in self._points), exact=True),
            output_schema={
                "type": "object",
                "properties": {"score": {"type": "number"}, "accepted": {"type": "boolean"}},
                "required": ["score", "accepted"],
            },
        )

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Sum the points of each row."""
        score = np.full(batch.num_rows, self._base)
        for name, points in self._points.items():
            score += points * batch.column(name).to_numpy()
        columns = [pa.array(score), pa.array(score >= self._accept_from)]
        return pa.RecordBatch.from_arrays(columns, names=["score", "accepted"])
