"""The older MLModel interface: class attributes describe the model, dicts go in and out."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from schema import Schema, SchemaError


class MLModelException(Exception):
    """Any failure of a model."""


class MLModelSchemaValidationException(MLModelException):
    """The data does not fit the model's schema."""


class MLModel(ABC):
    """A model that predicts one record at a time."""

    display_name: ClassVar[str]
    qualified_name: ClassVar[str]
    description: ClassVar[str]
    major_version: ClassVar[int]
    minor_version: ClassVar[int]
    input_schema: ClassVar[Schema]
    output_schema: ClassVar[Schema]

    @abstractmethod
    def __init__(self) -> None:
        """Load whatever the predictions need."""

    @abstractmethod
    def predict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Predict one record.

        A subclass calls this method first: it returns the data, validated against `input_schema`.
        """
        try:
            return self.input_schema.validate(data)
        except SchemaError as error:
            raise MLModelSchemaValidationException(
                f"Failed to validate input data: {error}"
            ) from error
