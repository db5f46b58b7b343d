"""What the kinds of gradient boosting have in common: categories as the numbers that training gave
them, and the classes that probabilities mean.

Codes never come from the values that a batch happens to hold, and a category that was not there in
training is an error of its record: the libraries predict something for it without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelbeam.errors import NotAModelError
from modelbeam.models import tabular
from modelbeam.models.signature import Column
from modelbeam.models.target import Target


class UnknownCategoryError(ValueError):
    """A record has a category that the model was not trained with."""


def no_arguments(target: Target, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of the ``--config`` file, which a file of a model does not take."""
    if arguments:
        raise NotAModelError(
            f"--model {target}: a trained model takes no arguments, and was given "
            f"{', '.join(sorted(arguments))}."
        )


def column_of(name: str, categories: Any) -> Column:
    """The column of a feature; null is a missing value. Of a category it holds what they are."""
    if categories is None:
        return tabular.number(name, nullable=True, narrow=True)
    import pyarrow as pa

    if pa.types.is_string(categories.type) or pa.types.is_large_string(categories.type):
        return Column(name, "str", nullable=True)
    if pa.types.is_boolean(categories.type):
        return Column(name, "bool", nullable=True)
    return tabular.number(name, nullable=True)


def matrix(batch: Any, categories: Mapping[str, Any], dtype: Any) -> Any:
    """The features as a matrix of rows; categories as their numbers, null as NaN.

    Args:
        batch: a ``pyarrow.RecordBatch`` of the model's columns.
        categories: by column, the categories in the order of their numbers, as an Arrow array.
        dtype: of the matrix.

    Raises:
        UnknownCategoryError: a value is none of its column's categories.
    """
    import numpy as np

    columns = []
    for at, name in enumerate(batch.schema.names):
        column = batch.column(at)
        if name in categories:
            column = codes(name, column, categories[name])
        columns.append(tabular.floats(column))
    with np.errstate(over="ignore"):  # whoever cannot have infinity looks for it
        return tabular.by_rows(columns, batch.num_rows, dtype)


def codes(name: str, column: Any, categories: Any) -> Any:
    """The numbers of some categories, null for null."""
    import pyarrow.compute as pc

    found = pc.index_in(column, value_set=categories.cast(column.type))
    if found.null_count > column.null_count:
        unknown = column.filter(pc.and_(pc.is_null(found), pc.is_valid(column)))
        raise UnknownCategoryError(
            f"column '{name}' is {unknown[0].as_py()!r}, a category that the model was not trained "
            f"with"
        )
    return found
