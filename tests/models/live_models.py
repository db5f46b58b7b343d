"""A model that is another one when it is loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schema import Schema


class Factor:
    """Multiplies x by what a file says; the file may also say what its answer is called."""

    display_name = "Factor"
    qualified_name = "factor"
    description = "Multiplies x."
    major_version = 1
    minor_version = 0
    input_schema = Schema({"x": float}, ignore_extra_keys=True)
    output_schema = Schema(dict)

    def __init__(self, path: str) -> None:
        self._said = json.loads(Path(path).read_text())

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Multiply one."""
        if data["x"] > self._said.get("most", 100):
            raise ValueError(f"x is too large: {data['x']}")
        return {self._said.get("name", "y"): self._said["factor"] * data["x"]}
