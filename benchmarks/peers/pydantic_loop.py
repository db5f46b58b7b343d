"""No framework: a loop with orjson, and pydantic for the model's own input and output."""

from __future__ import annotations

import sys

from orjson import dumps, loads
from shaped import Checked


def main(source: str, target: str) -> None:
    """Predict the records in ``source`` and write the results to ``target``, in order."""
    model = Checked()
    with open(source, "rb") as lines, open(target, "wb") as output:
        for line in lines:
            made = model.predict(Checked.Input.model_validate(loads(line)))
            output.write(dumps(made.model_dump()) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
