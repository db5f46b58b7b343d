"""Models that differ in what they return: by their schema, or objects that they use again."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
from schema import Or, Schema


class Species(enum.Enum):
    """Its values are what is written."""

    SETOSA = "setosa"
    OTHER = "other"


class Base:
    """The older generation; ``x`` in."""

    qualified_name = "results"
    input_schema = Schema({"x": Or(int, float)}, ignore_extra_keys=True)
    output_schema = Schema(dict)

    def predict(self, data):
        return {"y": data["x"] * 2}


# Their own schemas


class Input(pydantic.BaseModel):
    """``x``, the same by its alias."""

    x: float


class Output(pydantic.BaseModel):
    """All that pydantic writes in another way than Python names it."""

    model_config = pydantic.ConfigDict(populate_by_name=True, extra="forbid")

    species: Species = pydantic.Field(alias="theSpecies")
    score: decimal.Decimal = pydantic.Field(serialization_alias="Score")
    day: datetime.date
    tags: set[str] = set()
    nested: Inner | None = None

    @pydantic.computed_field
    @property
    def sure(self) -> bool:
        """Only in what is written."""
        return self.score > 1


class Inner(pydantic.BaseModel):
    """Has an alias too."""

    inner_value: int = pydantic.Field(alias="innerValue")


Output.model_rebuild()


class Newer:
    """The newer generation."""

    qualified_name = "newer"
    version = "1"
    input_schema = Input
    output_schema = Output

    def predict(self, _):
        return Output(
            theSpecies=Species.SETOSA,
            score=decimal.Decimal("1.50"),
            day=datetime.date(2026, 1, 2),
            tags={"a"},
            nested=Inner(innerValue=1),
        )


class NewerDoubler:
    """The newer generation with a field less."""

    qualified_name = "newer_doubler"
    version = "1"
    input_schema = Input
    output_schema = property(lambda _: Y)

    def predict(self, data):
        return Y(y=data.x * 2)


class NewerBatch(Newer):
    """The same for lists."""

    def predict_batch(self, data):
        return [self.predict(None) for _ in data]


class NewerInDict(Base):
    """An object of pydantic inside a dict."""

    output_schema = Schema({"out": dict})

    def predict(self, data):
        return {"out": Newer().predict(data)}


class Enums(Base):
    """The older generation with an enum, of which the schema has the values."""

    output_schema = Schema({"species": Or(Species.SETOSA.value, Species.OTHER.value)})

    def predict(self, _):
        return {"species": Species.OTHER}


class EnumObjects(Enums):
    """A schema that names the objects."""

    output_schema = Schema({"species": Or(*Species)})


class Misfit(Base):
    """Does not return what its schema says: wrong names, wrong types."""

    output_schema = Schema({"species": str, "p": float})

    def predict(self, data):
        return {"Species": "setosa", "p": "0.5" if data["x"] > 1 else 0.5}


# One object for all records


class ReusedDict(Base):
    """Fills one dict again and again."""

    def __init__(self):
        self.result = {}

    def predict(self, data):
        self.result["y"] = data["x"] * 2
        return self.result


class ReusedArray(Base):
    """Fills one array; the dict around it is new."""

    def __init__(self):
        self.buffer = np.zeros(2)

    def predict(self, data):
        self.buffer[:] = data["x"] * 2, 0
        return {"y": self.buffer}


class ReusedViews(ReusedArray):
    """Each result is another view of the same memory."""

    def predict(self, data):
        super().predict(data)
        return {"y": self.buffer[:1]}


class ReusedDeepInside(Base):
    """The list that is used again is some levels down, in a tuple."""

    def __init__(self):
        self.inner = [0]

    def predict(self, data):
        self.inner[0] = data["x"] * 2
        return {"a": ({"b": [self.inner]},)}


class ReusedRing(Base):
    """Three dicts in turn."""

    def __init__(self):
        self.ring, self.at = [{}, {}, {}], 0

    def predict(self, data):
        self.at = (self.at + 1) % 3
        self.ring[self.at]["y"] = data["x"] * 2
        return self.ring[self.at]


class ReusedLater(Base):
    """Returns new dicts 5,000 times, and then one and the same."""

    def __init__(self):
        self.result, self.calls = {}, 0

    def predict(self, data):
        self.calls += 1
        if self.calls < 5_000:
            return {"y": data["x"] * 2}
        self.result["y"] = data["x"] * 2
        return self.result


class ReusedLaterAndPops(ReusedLater):
    """The same, and takes its field out of the record."""

    def predict(self, data):
        return super().predict({"x": data.pop("x")})


class ReusedObject(Base):
    """One pydantic object."""

    def __init__(self):
        self.result = Y(y=0)

    def predict(self, data):
        self.result.y = data["x"] * 2
        return self.result


class Y(pydantic.BaseModel):
    """One field."""

    y: float


@dataclasses.dataclass
class YOfDataclass:
    """One field."""

    y: float = 0


class ReusedDataclass(ReusedObject):
    """One dataclass object."""

    def __init__(self):
        self.result = YOfDataclass()


class ReusedInGenerator(ReusedDict):
    """A generator that yields one dict."""

    def predict_batch(self, data):
        for record in data:
            yield self.predict(record)


class ReusedList(Base):
    """One list of dicts for every call of lists."""

    def __init__(self):
        self.results = [{} for _ in range(10_000)]

    def predict_batch(self, data):
        for result, record in zip(self.results, data, strict=False):
            result["y"] = record["x"] * 2
        return self.results[: len(data)]


class ReusedRowsOfArray(Base):
    """Rows of one matrix for every call of lists."""

    def __init__(self):
        self.matrix = np.zeros((10_000, 1))

    def predict_batch(self, data):
        self.matrix[: len(data), 0] = [record["x"] * 2 for record in data]
        return [{"y": row} for row in self.matrix[: len(data)]]


class ReusedTable(Base):
    """Columns that are views of one buffer."""

    def __init__(self):
        self.buffer = np.zeros(10_000)

    def predict_table(self, batch):
        out = self.buffer[: batch.num_rows]
        out[:] = batch.column("x").to_numpy(zero_copy_only=False) * 2
        return pa.RecordBatch.from_arrays([pa.array(out)], names=["y"])


class ReturnsRecord(Base):
    """Puts its prediction into the record and returns that."""

    def predict(self, data):
        data["y"] = data.pop("x") * 2
        return data


class Cached(Base):
    """Returns the same dict for the same record, and never changes it."""

    @functools.lru_cache  # noqa: B019
    def _of(self, x: float) -> dict[str, Any]:
        return {"y": x * 2}

    def predict(self, data):
        return self._of(data["x"])


class ChangesItsInput(Base):
    """Empties its record, and fails for some."""

    def predict(self, data):
        x = data.pop("x")
        data.clear()
        if x % 3 == 0:
            raise ValueError("three")
        return {"y": x * 2}


class ChangesItsBatch(ChangesItsInput):
    """The same for lists; also drops records from the list."""

    def predict_batch(self, data):
        made = []
        while data:
            made.append(self.predict(data.pop(0)))
        return made


class WritesIntoItsTable(Base):
    """Tries to write into the memory of its columns, as arrays and as buffers."""

    input_schema = Schema({"x": float})

    def predict_table(self, batch):
        column = batch.column("x")
        made = column.to_numpy() * 2
        for memory in (column.to_numpy(), np.asarray(column.buffers()[1]).view(np.float64)):
            try:
                memory[:] = -1
            except ValueError:  # read-only
                continue
        if (made % 3 == 0).any():
            raise ValueError("three")
        return pa.RecordBatch.from_arrays([pa.array(made)], names=["y"])
