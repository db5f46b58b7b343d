"""What kinds that predict from columns have in common: which columns, how they are handed over, and
what becomes of the results.

A record's prediction must not depend on the records beside it. Libraries take other ways through
their linear algebra for other numbers of rows, which differ in the last bit. So a model that is not
known to be exact gets its rows in blocks whose size is a multiple of :data:`ALIGNED` (the first row
is repeated, and what is predicted for it left out), in one memory layout, whatever the data's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelbeam.errors import NotAModelError, did_you_mean
from modelbeam.models.base import LoadedModel, WrongNumberOfPredictionsError
from modelbeam.models.options import Options
from modelbeam.models.signature import Column, Kind, Signature
from modelbeam.models.target import Target

ALIGNED = 16
"""Rows that the inner loops of linear algebra take at once, at most."""

LARGEST = 16384
"""Rows of a call, at most."""

PREDICTION = "prediction"
"""The column of a model that has no name for what it predicts."""


class TableModel(LoadedModel):
    """A model of columns. A kind sets ``info`` and has :meth:`predict_rows`.

    Attributes:
        rows: how many rows a call has at most.
        aligned: what the number of rows is a multiple of.
    """

    rows: int = LARGEST
    aligned = 1

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """Predict a ``pyarrow.RecordBatch`` that has rows.

        Returns:
            Names and Arrow arrays, all as long as the batch.
        """
        raise NotImplementedError

    def predict_table(self, batch: Any) -> Any:
        """Predict in blocks of the size that the model needs."""
        import pyarrow as pa

        pieces = []
        for start in range(0, batch.num_rows, self.rows):
            piece = batch.slice(start, self.rows)
            padded = aligned(piece, self.aligned)
            made = self.predict_rows(padded)
            for _, array in made:
                if len(array) != padded.num_rows:
                    raise WrongNumberOfPredictionsError(
                        f"the model returned {len(array)} predictions for {padded.num_rows} records"
                    )
            whole = pa.RecordBatch.from_arrays([a for _, a in made], names=[n for n, _ in made])
            pieces.append(whole.slice(0, piece.num_rows))
        return pieces[0] if len(pieces) == 1 else pa.Table.from_batches(pieces)


def name_of(target: Target) -> str:
    """What error lines call a file: its name without the suffix."""
    return os.path.basename(target.path.rstrip("/")).rpartition(".")[0] or str(target)


def aligned(batch: Any, rows: int) -> Any:
    """The batch with its first row repeated at the end until the number of rows is a multiple."""
    import numpy as np
    import pyarrow as pa

    more = -batch.num_rows % rows
    if not more:
        return batch
    order = pa.array(np.concatenate((np.arange(batch.num_rows), np.zeros(more, np.int64))))
    return batch.take(order)


# Which columns


def feature_names(
    target: Target, own: Sequence[str] | None, count: int | None, options: Options
) -> tuple[str, ...]:
    """The names of a model's columns, in its order: its own, otherwise those of ``--features``.

    Args:
        target: for messages.
        own: what the model calls them, if it knows.
        count: how many there are, if it knows.
        options: with ``features``, if they were given.

    Raises:
        NotAModelError: neither has them, or they do not go together.
    """
    given = options.features
    if own is not None:
        if given is not None and tuple(given) != tuple(own):
            other = next(iter(set(given) - set(own)), None)
            hint = did_you_mean(other, own).rstrip("?") + "?" if other else ""
            raise NotAModelError(
                f"--features {','.join(given)}: --model {target} knows its columns, which are "
                f"{','.join(own)}{hint or '.'} Leave --features out; columns are matched by name."
            )
        return tuple(own)
    many = f"{count} columns" if count is not None and count != 1 else "one column"
    if count is None:
        many = "columns"
    if given is None:
        raise NotAModelError(
            f"--model {target} takes {many} and does not know their names. Name them with "
            f"--features, in the order that it was trained with: --features "
            f"{','.join('ABCDEFGH'[: min(count or 3, 8)])}{',…' if (count or 3) > 8 else ''}."
        )
    if count is not None and len(given) != count:
        raise NotAModelError(
            f"--features {','.join(given)} names {len(given)} columns; --model {target} takes "
            f"{count}. Name each, in the order that it was trained with."
        )
    return tuple(given)


def signature_of(columns: Iterable[Column]) -> Signature:
    """The signature of a model that looks at nothing but its columns."""
    return Signature(tuple(columns), exact=True, ignores=True, typed=True)


def number(name: str, nullable: bool = False, kind: Kind = "float", narrow: bool = False) -> Column:
    """A column of numbers: integers where they are exact, ``true`` and ``false`` as 1 and 0."""
    return Column(name, kind, nullable=nullable, truth=True, lossless=True, narrow=narrow)


def input_schema_of(signature: Signature) -> dict[str, Any]:
    """The JSON Schema of a record."""
    words = {"float": "number", "int": "integer", "str": "string", "bool": "boolean"}
    properties: dict[str, Any] = {}
    for column in signature.columns:
        word = words.get(column.kind)
        if word is None:
            properties[column.name] = {}
        else:
            properties[column.name] = {"type": [word, "null"] if column.nullable else word}
    return {"type": "object", "properties": properties, "required": signature.required}


# How they are handed over


def floats(column: Any, dtype: Any = None) -> Any:
    """The numbers of an Arrow array, null as NaN, as a NumPy array."""
    import numpy as np

    found = column.to_numpy(zero_copy_only=False)
    if found.dtype == object:  # booleans with nulls, or nulls alone
        found = np.array([np.nan if v is None else v for v in found], np.float64)
    return found.astype(dtype or np.float64, copy=False)


def matrix(batch: Any, dtype: Any = None, by_columns: bool = False) -> Any:
    """The numbers of a batch as a matrix of rows.

    Args:
        batch: a ``pyarrow.RecordBatch`` of columns of numbers.
        dtype: of the matrix; float64 by default.
        by_columns: whether the memory is column after column (as a DataFrame has it) or row after
            row.
    """
    import numpy as np

    columns = [floats(batch.column(at)) for at in range(batch.num_columns)]
    if not by_columns:
        return by_rows(columns, batch.num_rows, dtype)
    made = np.empty((batch.num_columns, batch.num_rows), dtype or np.float64)
    for at, column in enumerate(columns):
        made[at] = column
    return made.T


def by_rows(columns: Sequence[Any], count: int, dtype: Any = None) -> Any:
    """Arrays as the columns of a matrix whose memory is row after row.

    A thousand rows at a time stay in the processor's cache: less than half of the time.
    """
    import numpy as np

    made = np.empty((count, len(columns)), dtype or np.float64)
    for start in range(0, count, 1024):
        part = made[start : start + 1024]
        for at, column in enumerate(columns):
            part[:, at] = column[start : start + 1024]
    return made


def frame(batch: Any) -> Any:
    """A batch as the ``pandas.DataFrame`` that ``pandas`` would have made of its records."""
    import pandas as pd
    import pyarrow as pa

    names = batch.schema.names
    if all(pa.types.is_float64(kind) for kind in batch.schema.types):
        return pd.DataFrame(matrix(batch, by_columns=True), columns=names, copy=False)
    return pd.DataFrame(
        {name: series(batch.column(at)) for at, name in enumerate(names)}, columns=names
    )


def series(column: Any) -> Any:
    """A column as pandas has it; of text the type does not depend on the values."""
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_string(column.type):
        text = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
        return pd.Series(column.to_pylist(), dtype=text)
    if pa.types.is_null(column.type):
        return pd.Series([None] * len(column), dtype=object)
    return column.to_pandas()


# What becomes of the results


def array_of(values: Any, name: str = PREDICTION, one_is_plain: bool = True) -> Any:
    """What a library returned for some rows, as an Arrow array: one value or list a row.

    Rows count by their position, whatever an index says. A column of one is no list, if
    ``one_is_plain``.

    Raises:
        TypeError: it is nothing that columns hold.
    """
    import numpy as np
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if hasattr(values, "to_numpy") and not isinstance(values, np.ndarray):
        values = values.to_numpy()
    if hasattr(values, "toarray"):  # a sparse matrix
        values = values.toarray()
    values = np.asarray(values)
    if values.ndim == 0:
        raise TypeError(f"the model returned one {type(values.item()).__name__} for all records")
    if one_is_plain and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        return _flat(values, name)
    made = _flat(np.ascontiguousarray(values).reshape(-1), name)
    for depth in range(values.ndim - 1, 0, -1):
        lists = int(np.prod(values.shape[:depth], dtype=np.int64))
        ends = np.arange(lists + 1, dtype=np.int64) * values.shape[depth]
        made = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), made)
    return made


def _flat(values: Any, name: str) -> Any:
    import pyarrow as pa

    try:
        if values.dtype.kind == "U":
            return pa.array(values.astype(object), pa.string())
        if values.dtype.kind == "O":
            return pa.array([v.item() if hasattr(v, "item") else v for v in values])
        return pa.array(values)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise TypeError(f"'{name}': what the model returned is no column: {error}") from None


class Labels:
    """The classes of a classifier, in its order.

    Args:
        classes: an array of labels.
    """

    def __init__(self, classes: Any) -> None:
        import numpy as np

        self._classes = np.asarray(classes)
        self.values = array_of(self._classes)
        self.texts = [text_of(label) for label in self.values.to_pylist()]

    @property
    def json_type(self) -> str | None:
        """The type of a label in JSON Schema."""
        return json_type(self.values.type)

    def column(self, predicted: Any) -> Any:
        """Predicted labels as an Arrow array; texts by way of their numbers, which is fast."""
        import numpy as np

        predicted = np.asarray(predicted)
        if predicted.ndim == 2 and predicted.shape[1] == 1:
            predicted = predicted[:, 0]
        if predicted.ndim != 1 or predicted.dtype.kind not in "UO":
            return array_of(predicted)
        try:
            order = np.searchsorted(self._classes, predicted)
            order = np.minimum(order, len(self._classes) - 1)
            if (self._classes[order] == predicted).all():
                return self.at(order)
        except TypeError:  # labels of several types, which have no order
            pass
        return array_of(predicted)

    def at(self, numbers: Any) -> Any:
        """The labels of class numbers."""
        import pyarrow as pa

        return self.values.take(pa.array(numbers))

    def probabilities(self, found: Any, prefix: str = "probability_") -> list[tuple[str, Any]]:
        """A column for each class."""
        import numpy as np

        found = np.asarray(found)
        if found.ndim == 1:  # of the second of two classes
            found = np.column_stack((1 - found, found))
        names = [prefix + text for text in self.texts]
        return [(name, array_of(found[:, at].copy())) for at, name in enumerate(names)]


def text_of(label: Any) -> str:
    """A label as a part of a column's name: as JSON writes it."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def json_type(kind: Any) -> str | None:
    """The type of an Arrow type's values in JSON Schema."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "string" if pa.types.is_string(kind) else None


def object_schema(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a prediction with these columns; each a type or a schema."""
    return {
        "type": "object",
        "properties": {
            name: {"type": one} if isinstance(one, str) else one for name, one in columns.items()
        },
        "required": list(columns),
    }


NUMBERS = {"type": "array", "items": {"type": "number"}}
"""The schema of a vector."""
