"""A plain Python function over a record, a list of records or a table.

The annotation of its first parameter says which: ``dict``, or none, is a record; ``list`` some
records; ``pyarrow.RecordBatch``, ``pyarrow.Table``, ``pandas.DataFrame`` and ``polars.DataFrame``
are tables. A pydantic model is a record that is validated first.
"""

from __future__ import annotations

import collections.abc
import functools
import importlib.metadata
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models import signature as signatures
from modelbeam.models import tabular
from modelbeam.models.base import LoadedModel, ModelInfo, Style
from modelbeam.models.libraries import distributions_of
from modelbeam.models.options import Options
from modelbeam.models.signature import Column, Signature
from modelbeam.models.target import Target
from modelbeam.models.turns import turns_of

_TABLES = {
    ("pyarrow", "RecordBatch"): "arrow batch",
    ("pyarrow", "Table"): "arrow table",
    ("pandas", "DataFrame"): "pandas",
    ("polars", "DataFrame"): "polars",
}
"""What a table is, by the first part of its class's module and its name."""

_SHORT = {"pa": "pyarrow", "pd": "pandas", "pl": "polars"}


class EmptyPredictionError(Exception):
    """A function returned nothing for a record."""


class Function(LoadedModel):
    """A function behind the one protocol.

    Args:
        target: what was asked for.
        function: what is called.
        arguments: for parameters beside the first one.
        options: ``features`` are the columns of the table that it gets.

    Raises:
        ModelError: its first parameter is annotated with something that is no record, or others
            have no value.
    """

    def __init__(
        self,
        target: Target,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        options: Options,
    ) -> None:
        _check_parameters(target, function, arguments)
        self.turns = turns_of(function)
        self.turns.thread_safe = getattr(function, "thread_safe", False) is True
        self._function = functools.partial(function, **arguments) if arguments else function
        annotation = _annotation(function)
        self._table = _table(annotation)
        self._input = annotation if _is_pydantic(annotation) else None
        style: Style = (
            "table" if self._table else "batch" if _is_list(target, annotation) else "record"
        )
        signature = _signature(target, style, self._input, options)
        named = getattr(function, "__name__", target.attribute)
        code = inspect.getdoc(function) or ""
        self.info = ModelInfo(
            target=str(target),
            name=named,
            qualified_name=f"{target.module}.{named}",
            style=style,
            description=code.partition("\n\n")[0].replace("\n", " "),
            interface=f"function ({self._table or ('list' if style == 'batch' else 'record')})",
            input_schema=self._input.model_json_schema() if self._input else None,
            signature=signature,
            distribution=_distribution(target.module),
            requires=distributions_of(["pandas"]) if self._table == "pandas" else (),
        )

    def predict(self, record: dict[str, Any]) -> Any:
        """Call it with one record."""
        given = record if self._input is None else self._input.model_validate(record)
        made = self._function(given)
        return made if type(made) is dict else row(made)

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        """Call it with some records."""
        made = self._function(records)
        return [one if type(one) is dict else row(one) for one in _listed(made)]

    def predict_table(self, batch: Any) -> Any:
        """Call it with a table."""
        return as_table(self._function(_MAKERS[str(self._table)](batch)))

    def validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Validate a record as the pydantic model or ``--features`` say."""
        if self._input is not None:
            self._input.model_validate(record)
            return record
        return super().validate(record)


def _distribution(module: str) -> str | None:
    try:
        found = importlib.metadata.distribution(module.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None
    return f"{found.name} {found.version}"


# What it takes


def _check_parameters(
    target: Target, function: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    first = next((p for p in parameters if p.name not in arguments), None)
    missing = [
        p.name
        for p in parameters
        if p is not first
        and p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in arguments
    ]
    if missing:
        raise ModelLoadError(
            f"--model {target} needs {', '.join(missing)} beside the records. Give them in the "
            f"--config file, under 'models: [{{target: …, arguments: {{…}}}}]', or give them "
            f"defaults."
        )
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = arguments.keys() - {p.name for p in parameters}
    if unknown and not takes_any:
        raise ModelLoadError(
            f"--model {target} has no parameter {', '.join(sorted(unknown))}, which 'arguments' of "
            f"the --config file names."
        )


def _annotation(function: Callable[..., Any]) -> Any:
    """What the first parameter is annotated with; a text where that cannot be evaluated."""
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        [first, *_] = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if first.annotation is first.empty:
        return None
    try:
        return typing.get_type_hints(called).get(first.name)
    except Exception:
        return str(first.annotation)


def _table(annotation: Any) -> str | None:
    """Which table an annotation names."""
    if isinstance(annotation, str):
        module, _, name = annotation.rpartition(".")
        module = _SHORT.get(module, module.partition(".")[0])
        found = [
            what for (m, n), what in _TABLES.items() if n == name and (not module or m == module)
        ]
        return found[0] if found else None
    module = getattr(annotation, "__module__", "").partition(".")[0]
    return _TABLES.get((module, getattr(annotation, "__name__", "")))


_RECORDS = (dict, Mapping, collections.abc.MutableMapping, object, Any, None)
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def _is_list(target: Target, annotation: Any) -> bool:
    """Whether an annotation is a list of records; an error if it is neither that nor a record."""
    if isinstance(annotation, str):
        head = annotation.partition("[")[0].rpartition(".")[2].lower()
        if head in ("list", "sequence", "iterable"):
            return True
        if head in ("dict", "mapping", "mutablemapping", "any", "object"):
            return False
        annotation_name = annotation
    else:
        origin = typing.get_origin(annotation) or annotation
        if any(origin is one for one in _LISTS):
            inner = typing.get_args(annotation)[:1]
            if not inner or _is_record(inner[0]):
                return True
        elif _is_record(annotation):
            return False
        annotation_name = getattr(annotation, "__name__", str(annotation))
    raise NotAModelError(
        f"--model {target} takes a {annotation_name}, which is not what there is to predict. "
        f"Annotate its first parameter with dict (a record), list (some records), "
        f"pyarrow.RecordBatch, pyarrow.Table, pandas.DataFrame or polars.DataFrame (a table)."
    )


def _is_record(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return (
        any(origin is one for one in _RECORDS)
        or _is_pydantic(annotation)
        or typing.is_typeddict(annotation)
        or isinstance(annotation, typing.TypeVar)
    )


def _is_pydantic(annotation: Any) -> bool:
    return isinstance(annotation, type) and hasattr(annotation, "model_validate")


def _signature(target: Target, style: Style, pydantic: Any, options: Options) -> Signature | None:
    if pydantic is not None:
        return signatures.from_pydantic(pydantic)
    if options.features is None:
        return None
    if style != "table":
        raise NotAModelError(
            f"--features {','.join(options.features)}: --model {target} takes whole records. The "
            f"columns of a table are named so, if the function takes one."
        )
    return Signature(
        tuple(Column(name, "any", nullable=True) for name in options.features),
        exact=True,
        ignores=True,
    )


def _to_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _to_polars(batch: Any) -> Any:
    import polars as pl

    return pl.from_arrow(batch)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "arrow batch": lambda batch: batch,
    "arrow table": _to_table,
    "pandas": tabular.frame,
    "polars": _to_polars,
}


# What it returns


def row(made: Any) -> Any:
    """One prediction: a bare value stands in the column ``prediction``."""
    if made is None:
        raise EmptyPredictionError("the function returned None; it has to return a prediction")
    if isinstance(made, Mapping) or hasattr(made, "model_dump") or hasattr(made, "__fields__"):
        return made
    if is_dataclass(made) and not isinstance(made, type):
        return made
    if isinstance(made, tuple) and hasattr(made, "_asdict"):
        return made._asdict()
    return {tabular.PREDICTION: made}


def _listed(made: Any) -> Any:
    """The predictions of a list of records, one after another."""
    if hasattr(made, "to_pylist"):  # Arrow
        return made.to_pylist()
    if hasattr(made, "to_dicts"):  # a frame of Polars
        return made.to_dicts()
    if hasattr(made, "columns") and hasattr(made, "to_dict"):  # a frame of pandas
        return made.to_dict("records")
    if isinstance(made, (str, bytes, Mapping)) or not hasattr(made, "__iter__"):
        raise EmptyPredictionError(
            f"the function returned a {type(made).__name__} for a list of records; it has to "
            f"return a list with a prediction for each"
        )
    return made


def as_table(made: Any) -> Any:
    """The predictions of a table as Arrow columns, by position."""
    import pyarrow as pa

    if made is None:
        raise EmptyPredictionError("the function returned None; it has to return a table")
    if isinstance(made, (pa.RecordBatch, pa.Table)):
        return made
    if hasattr(made, "to_arrow") and hasattr(made, "get_columns"):  # a frame of Polars
        return made.to_arrow()
    if isinstance(made, list) and made and all(isinstance(one, Mapping) for one in made):
        return pa.Table.from_pylist([dict(one) for one in made])
    if hasattr(made, "columns") and hasattr(made, "iloc"):  # a frame of pandas
        columns = [(str(name), made.iloc[:, at]) for at, name in enumerate(made.columns)]
    elif isinstance(made, Mapping):
        columns = [(str(name), values) for name, values in made.items()]
    else:
        columns = [(tabular.PREDICTION, made)]
    arrays = [_array(values, name) for name, values in columns]
    return pa.Table.from_arrays(arrays, names=[name for name, _ in columns])


def _array(values: Any, name: str) -> Any:
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if hasattr(values, "to_arrow"):
        return values.to_arrow()
    if isinstance(values, (list, tuple)):
        return pa.array(list(values))
    dtype = getattr(values, "dtype", None)
    if hasattr(values, "iloc") and getattr(dtype, "kind", "O") == "O":
        return pa.array(values, from_pandas=True)  # texts, categories, what may be missing
    return tabular.array_of(values, name)
