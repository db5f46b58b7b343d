"""MLModel classes of both generations, unchanged, recognised by their shape.

The older generation has class attributes (``qualified_name``, ``major_version`` …) and schemas of
the ``schema`` library, and predicts a dict; the newer one (``ml_base.MLModel``) has properties and
pydantic models. Neither base class is imported here: a model may bring its own.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import inspect
import math
import os
import sys
from collections.abc import Callable
from os.path import isfile
from types import ModuleType
from typing import Any

from modelbeam.errors import ModelLoadError, ModelNotFoundError, NotAModelError, did_you_mean
from modelbeam.models import signature as signatures
from modelbeam.models.base import LoadedModel, ModelInfo, Style, raise_load_error
from modelbeam.models.target import Target
from modelbeam.models.turns import turns_of

_SHAPE = ("qualified_name", "input_schema", "output_schema")


def load(target: Target, arguments: dict[str, Any]) -> MLModel:
    """Import the class, build one object of it and wrap it.

    Raises:
        ModelNotFoundError: the module is not installed, or has no such class.
        NotAModelError: the class does not have a model's shape.
        ModelLoadError: it raised while it was imported or built.
    """
    return of_class(target, named(target), arguments)


def of_class(target: Target, found: Any, arguments: dict[str, Any]) -> MLModel:
    """Build one object of a class and wrap it; or wrap an object.

    Raises:
        NotAModelError: it does not have a model's shape.
        ModelLoadError: it raised while it was built.
    """
    check_shape(target, found, _remedy(target.module))
    if not inspect.isclass(found):
        return MLModel(target, found)
    try:
        model = found(**arguments)
    except (Exception, SystemExit) as error:
        required = _required_arguments(found)
        if isinstance(error, TypeError) and required - arguments.keys():
            raise ModelLoadError(
                f"--model {target}: its constructor needs {', '.join(sorted(required))}. Give them "
                f"in the --config file, under 'models: [{{target: …, arguments: {{…}}}}]'."
            ) from error
        raise_load_error(target, "while it was built", error)
    return MLModel(target, model)


def find(target: Target) -> Any:
    """Import the class that a target names and check its shape; nothing is built."""
    found = named(target)
    check_shape(target, found, _remedy(target.module))
    return found


def has_shape(found: Any) -> bool:
    """Whether an object has what a model has."""
    return callable(getattr(found, "predict", None)) and all(_has(found, one) for one in _SHAPE)


def named(target: Target) -> Any:
    """Import what a target names."""
    if target.module == "__main__":
        raise ModelNotFoundError(
            f"--model {target}: what a notebook or a script defines is not found by its name in "
            f"other processes. Put it into a module and name that, or hand the object itself to "
            f"modelbeam.predict()."
        )
    module = _import(target)
    hidden = _remedy(target.module)
    try:
        return getattr(module, target.attribute)
    except AttributeError:
        named = [n for n, v in vars(module).items() if _may_be_meant(v, module)]
        nearest = did_you_mean(target.attribute, named)
        has = "." if hidden else f"; it has {', '.join(named) or 'no class and no function'}."
        raise ModelNotFoundError(
            f"--model {target}: the module '{target.module}' has no '{target.attribute}'"
            f"{nearest or has}{hidden}"
        ) from None


def _may_be_meant(found: Any, module: ModuleType) -> bool:
    own = getattr(found, "__module__", None) == module.__name__
    return inspect.isclass(found) or (own and inspect.isfunction(found))


def hidden_by(module: str) -> str:
    """Which module of the working directory was not taken, as another one has its name.

    The working directory comes last on the path: a file in it may be called like a module that
    some library imports, and then the library must get its own.
    """
    parts = module.split(".")
    base = os.path.join(os.getcwd(), *parts)
    here = [path for path in (base + ".py", os.path.join(base, "__init__.py")) if isfile(path)]
    loaded = (sys.modules.get(".".join(parts[:n])) for n in range(len(parts), 0, -1))
    taken = next((module for module in loaded if module is not None), None)
    if not here or taken is None:
        return ""
    file = getattr(taken, "__file__", None)
    if file and any(os.path.realpath(path) == os.path.realpath(file) for path in here):
        return ""
    return (
        f"The module '{module}' was taken from {file or 'Python, where it is built in'}, which "
        f"hides {here[0]}"
    )


def _remedy(module: str) -> str:
    hidden = hidden_by(module)
    return f" {hidden}: give that file another name." if hidden else ""


def check_shape(target: Target, found: Any, hidden: str = "") -> None:
    """Raise :class:`NotAModelError` unless ``found`` (a class or an object) looks like a model."""
    missing = [attribute for attribute in _SHAPE if not _has(found, attribute)]
    if not callable(getattr(found, "predict", None)):
        missing.insert(0, "predict()")
    if missing:
        raise NotAModelError(
            f"--model {target} is not a model: it has no {', no '.join(missing)}. A model is a "
            f"class with predict(data), qualified_name, input_schema and output_schema.{hidden}"
        )


def _has(found: Any, attribute: str) -> bool:
    # a property of an object may raise; that it is there is enough
    return hasattr(type(found), attribute) or hasattr(found, attribute)


def _import(target: Target) -> ModuleType:
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        parts = target.module.split(".")
        if error.name in {".".join(parts[:n]) for n in range(1, len(parts) + 1)}:
            raise ModelNotFoundError(
                f"--model {target}: there is no module '{error.name}' in this environment "
                f"({sys.prefix}). Install the model's package into it with pip, or run in the "
                f"directory that holds it.{_remedy(target.module)}"
            ) from None
        raise_load_error(target, "while it was imported", error)
    except ImportError as error:
        raise_load_error(target, "while it was imported", error, _remedy(error.name or ""))
    except (Exception, SystemExit) as error:
        raise_load_error(target, "while it was imported", error)


def _required_arguments(cls: Any) -> set[str]:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return set()
    return {
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


class MLModel(LoadedModel):
    """An MLModel object of either generation behind the one protocol.

    Args:
        target: what was asked for.
        model: the object, which has a model's shape.
    """

    def __init__(self, target: Target, model: Any) -> None:
        self._model = model
        self.turns = turns_of(model)
        try:
            self._input = model.input_schema
            output = model.output_schema
            qualified_name = str(model.qualified_name)
            version = _version(model)
            texts = [str(getattr(model, a, "") or "") for a in ("display_name", "description")]
        except Exception as error:
            raise_load_error(target, "when it was asked for its name and schemas", error)
        self._pydantic = hasattr(self._input, "model_validate") or hasattr(self._input, "parse_obj")
        read = signatures.from_pydantic if self._pydantic else signatures.from_schema
        # asked of the class: a wrapper that passes unknown names on must not be passed by
        style: Style = (
            "table"
            if callable(getattr(type(model), "predict_table", None))
            else "batch"
            if callable(getattr(type(model), "predict_batch", None))
            else "record"
        )
        self._call = _predict_function(model)
        self.info = ModelInfo(
            target=str(target),
            name=qualified_name,
            qualified_name=qualified_name,
            display_name=texts[0],
            version=version,
            description=texts[1],
            interface=f"MLModel ({'pydantic' if self._pydantic else 'schema'})",
            style=style,
            input_schema=_json_schema(self._input, qualified_name + "-input", "validation"),
            output_schema=_json_schema(output, qualified_name + "-output", "serialization"),
            signature=read(self._input),
            distribution=_distribution(type(model).__module__),
            warnings=tuple(filter(None, [hidden_by(target.module)])),
        )
        self.validates_itself = self._pydantic  # in predict()
        if style == "record" and not self._pydantic:
            self.predict = self._call  # type: ignore[method-assign, assignment]  # one frame less

    def predict(self, record: dict[str, Any]) -> Any:
        """Predict one record; the newer generation's is validated into its input model first."""
        return self._call(self._validate(record) if self._pydantic else record)

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        """Predict a list of validated records."""
        return self._model.predict_batch(records)  # type: ignore[no-any-return]

    def predict_table(self, batch: Any) -> Any:
        """Predict a ``pyarrow.RecordBatch`` of the signature's columns."""
        return self._model.predict_table(batch)

    def _validate(self, record: dict[str, Any]) -> Any:
        if hasattr(self._input, "model_validate"):
            return self._input.model_validate(record)
        return self._input.parse_obj(record)

    def validate(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with the schema's conversions and defaults, or raise its exception."""
        if self._pydantic:
            return _fields_of(self._validate(record))
        if callable(getattr(self._input, "validate", None)):
            return self._input.validate(record)  # type: ignore[no-any-return]
        return record

    def validate_many(self, records: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Validate records at once where their types alone say that all are right."""
        if self._pydantic or self.info.signature is None:
            return None
        return super().validate_many(records)


def _predict_function(model: Any) -> Callable[[Any], Any]:
    """The model's ``predict``, taking its one argument by position, or by name if it must be."""
    predict = model.predict
    try:
        parameters = list(inspect.signature(predict).parameters.values())
    except (TypeError, ValueError):
        return predict  # type: ignore[no-any-return]
    if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) or any(
        p.kind is p.VAR_POSITIONAL for p in parameters
    ):
        return predict  # type: ignore[no-any-return]
    return lambda data: predict(data=data)


def _fields_of(valid: Any) -> dict[str, Any]:
    """The fields of a pydantic object by their own names, those too that it does not write."""
    version_2 = hasattr(valid, "model_dump")
    fields = dict(valid.model_dump(by_alias=False) if version_2 else valid.dict())
    if not getattr(valid, "__pydantic_root_model__", False):
        names = type(valid).model_fields if version_2 else type(valid).__fields__
        for name in names.keys() - fields.keys():
            fields[name] = getattr(valid, name)
    return fields


def _version(model: Any) -> str:
    version = getattr(model, "version", None)
    if version is not None and not callable(version):
        return str(version)
    numbers = [getattr(model, name, None) for name in ("major_version", "minor_version")]
    return ".".join(str(n) for n in numbers if n is not None) or "unknown"


def _json_schema(schema: Any, identity: str, mode: str) -> dict[str, Any] | None:
    """The JSON Schema of a record (``mode`` validation) or of a prediction (serialization).

    A prediction is written by pydantic in the mode that its schema is asked for.
    """
    methods: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
        ("model_json_schema", [], {"by_alias": True, "mode": mode}),
        ("json_schema", [identity], {}),
        ("schema", [], {}),
    )
    for method, arguments, options in methods:
        function = getattr(schema, method, None)
        if callable(function):
            try:
                made = plain(function(*arguments, **options))
            except Exception:
                continue
            return made if isinstance(made, dict) else None
    return None


def plain(value: Any) -> Any:
    """A description as plain JSON: it leaves the model's process, and is written into run.json."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, dict):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value if value is None else str(value)


def _distribution(module_name: str) -> str | None:
    # by the package's name; a reverse look-up of all that is installed would cost 100 ms
    try:
        found = importlib.metadata.distribution(module_name.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None
    return f"{found.name} {found.version}"
