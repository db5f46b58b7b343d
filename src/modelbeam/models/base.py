"""The one protocol behind every kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Literal

from modelbeam.models.signature import Signature

Style = Literal["record", "batch", "table"]
"""What a model takes in one call: one dict, a list of dicts, or an Arrow ``RecordBatch``."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model says of itself; plain data that crosses process boundaries.

    Attributes:
        target: as it was given.
        name: what error lines and the summary call it.
        qualified_name: the model's own unambiguous name.
        display_name: a name for people.
        version: the model's version, such as ``0.1``.
        description: a sentence or more.
        interface: ``MLModel (schema)``, ``MLModel (pydantic)`` …
        style: what it takes in one call.
        input_schema: JSON Schema of a record, or ``None`` if the model's cannot be expressed.
        output_schema: JSON Schema of a prediction, or ``None``.
        signature: the columns that the model needs, or ``None`` if they cannot be told.
        distribution: ``name version`` of the installed package that holds the model, or ``None``.
    """

    target: str
    name: str
    qualified_name: str
    display_name: str
    version: str
    description: str
    interface: str
    style: Style
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    signature: Signature | None
    distribution: str | None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the signature, which the schemas say in full, for JSON."""
        described = asdict(self)
        del described["signature"]
        return described


class LoadedModel(ABC):
    """A model that is ready to predict; ``info.style`` says which of the three calls it takes.

    Attributes:
        info: what the model says of itself.
    """

    info: ModelInfo

    @abstractmethod
    def predict(self, record: dict[str, Any]) -> dict[str, Any]:
        """Predict one record (style ``record``)."""

    @abstractmethod
    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        """Predict a list of records, as many predictions in the same order (style ``batch``)."""

    @abstractmethod
    def predict_table(self, batch: Any) -> Any:
        """Predict a ``pyarrow.RecordBatch``, as many rows in the same order (style ``table``)."""

    @abstractmethod
    def validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record as the model's input schema has it, or raise what the schema raises."""

    @abstractmethod
    def validate_many(self, records: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Validate records at once; ``None`` if some are wrong, or only one at a time can tell."""
