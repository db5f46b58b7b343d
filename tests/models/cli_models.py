"""Models for the tests of the command line, of loading and of pipelines: one trait each."""

from __future__ import annotations

import enum
import os
import threading
import time
from typing import Any

import pyarrow as pa
from ml_base.decorator import MLModelDecorator
from ml_base.ml_model import MLModel, MLModelSchemaValidationException
from pydantic import BaseModel, Field
from schema import Schema
from small_models import Doubler

print("cli_models is imported")


class Talker(Doubler):
    """Prints wherever it can, in Python and to the descriptor itself."""

    qualified_name = "talker"

    def __init__(self) -> None:
        """Print."""
        print("talker is built")

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Print and double."""
        print("talker predicts")
        os.write(1, b"talker writes\n")
        return super().predict(data)


class Slow(Doubler):
    """Takes 20 ms a record."""

    qualified_name = "slow"

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Wait and double."""
        time.sleep(0.02)
        return super().predict(data)


class LoadsSlowly(Doubler):
    """Takes four seconds to load."""

    qualified_name = "loads_slowly"

    def __init__(self) -> None:
        time.sleep(4)


class Times(Doubler):
    """Multiplies by an argument of its constructor."""

    qualified_name = "times"

    def __init__(self, factor: float, offset: float = 0.0) -> None:
        """Keep the arguments."""
        self._factor, self._offset = factor, offset

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Multiply and shift."""
        return {"y": self._factor * data["x"] + self._offset}


class Unpicklable(Doubler):
    """Holds what cannot cross a process boundary."""

    qualified_name = "unpicklable"

    def __init__(self) -> None:
        """Hold a lock and a local function."""
        self._lock = threading.Lock()
        self._double = lambda x: 2 * x

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Double under the lock."""
        with self._lock:
            return {"y": self._double(data["x"])}


class Counted(Doubler):
    """Says which object predicted, and how many were built in this process."""

    qualified_name = "counted"
    built = 0

    def __init__(self) -> None:
        """Take long enough that a second thread would come in between."""
        time.sleep(0.1)
        type(self).built += 1

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Say so."""
        time.sleep(0.001)
        return {"object": id(self), "built": type(self).built, "thread": threading.get_ident()}


class ByKeyword(Doubler):
    """Takes its record by keyword only."""

    def predict(self, *, data: dict[str, Any]) -> dict[str, Any]:
        """Double."""
        return super().predict(data)


class Nested(Doubler):
    """Its schema has a list and an object."""

    qualified_name = "nested"
    input_schema = Schema({"values": [float], "unit": {"name": str}})

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Sum the values."""
        return {"y": sum(data["values"])}


class FailsWhenBuilt(Doubler):
    """Its constructor raises."""

    def __init__(self) -> None:
        """Raise."""
        raise FileNotFoundError("weights.bin is not there")


class FailsWhenAsked(Doubler):
    """A property of it raises."""

    @property
    def version(self) -> str:
        """Raise."""
        raise RuntimeError("no version file")


class OnlyAName:
    """Has one of the four things that make a model."""

    qualified_name = "only_a_name"


class Species(enum.Enum):
    """What a flower may be."""

    SETOSA = "setosa"
    VIRGINICA = "virginica"


class Flower(BaseModel):
    """Input of the newer generation, with an optional field and an alias."""

    size: float = Field(gt=0, alias="Size")
    garden: str | None = None


class Guess(BaseModel):
    """Output of the newer generation."""

    species: Species
    garden: str | None


class Newer(MLModel):
    """The newer generation: properties, pydantic in and out, and a strict look at its input."""

    display_name = "Newer"
    qualified_name = "newer"
    description = "Guesses the species of a flower."
    version = "2.0.1"
    input_schema = Flower
    output_schema = Guess

    def __init__(self) -> None:
        """Nothing to load."""

    def predict(self, data: Flower) -> Guess:
        """Guess by the size."""
        if type(data) is not Flower:
            raise MLModelSchemaValidationException(f"not a Flower: {type(data).__name__}")
        species = Species.VIRGINICA if data.size > 1 else Species.SETOSA
        return Guess(species=species, garden=data.garden)


class Loud(MLModelDecorator):
    """A decorator of the newer generation around a model that it builds itself."""

    def __init__(self) -> None:
        """Wrap."""
        super().__init__(Newer())

    @property
    def qualified_name(self) -> str:
        """The wrapped model's name, louder."""
        return super().qualified_name.upper()


class ListDoubler(Doubler):
    """Doubles lists."""

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Double a list."""
        return [self.predict(record) for record in data]


class BatchSizes(Doubler):
    """Predicts how many records it was given at once."""

    def predict_batch(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count."""
        return [{"size": len(data)}] * len(data)


class Negated:
    """Hands everything to the model that it wraps, and turns the sign of its predictions."""

    def __init__(self, model: Any) -> None:
        """Wrap a model."""
        self._model = model

    def __getattr__(self, name: str) -> Any:
        """Ask the wrapped model."""
        return getattr(self._model, name)

    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Turn the sign."""
        return {"y": -self._model.predict(data)["y"]}


ready = Doubler()
negated = Negated(Doubler())
negated_lists = Negated(ListDoubler())


class TableOfFour(Doubler):
    """Takes tables of a float, an int, a string and a boolean; says which types it was given."""

    qualified_name = "table_of_four"
    input_schema = Schema({"f": float, "i": int, "s": str, "b": bool})

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Name the types."""
        types = ",".join(f"{field.name}:{field.type}" for field in batch.schema)
        return pa.RecordBatch.from_pylist([{"types": types}] * batch.num_rows)


class Says(Doubler):
    """Predicts what its constructor was given."""

    input_schema = Schema(dict)
    output_schema = Schema(dict)

    def __init__(self, what: str, also: str) -> None:
        self.said = {"what": what, "also": also}

    def predict(self, data):  # noqa: ARG002
        return self.said


class Suffixed(MLModelDecorator):
    """Appends a text to the garden that the model says."""

    def __init__(self, suffix: str = "") -> None:
        """Without a model yet."""
        super().__init__(None, suffix=suffix)

    def predict(self, data: Flower) -> Guess:
        """Predict, and append."""
        made: Guess = self._model.predict(data)
        return made.model_copy(update={"garden": f"{made.garden}{self._configuration['suffix']}"})
