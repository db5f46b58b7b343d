"""MLflow models: directories with an ``MLmodel``, and ``models:/`` and ``runs:/`` URIs.

The signature is enforced as MLflow does; columns are built in the types that it asks for, since it
refuses a whole batch for a type that one record's value has.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # modelbeam sends nothing anywhere

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models import (
    estimators,
    fingerprint,
    function,
    mlflow_versions,
    pickles,
    sklearn,
    tabular,
)
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of, install_hint, version_of
from modelbeam.models.options import Options
from modelbeam.models.signature import Column
from modelbeam.models.target import Target
from modelbeam.models.tensors import Tensor, kind_of_dtype
from modelbeam.storage import fetched
from modelbeam.text import describe


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Load a model by its directory or URI; arguments are the parameters of its signature.

    Raises:
        ModelError: it cannot be loaded.
    """
    uri = _pinned(target)
    path = _directory(target, uri)
    if not os.path.isfile(os.path.join(path, "MLmodel")):
        raise NotAModelError(f"--model {target} has no file MLmodel, so it is no MLflow model.")
    unmet = _unmet(path)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model = mlflow.pyfunc.load_model(path)
    except Exception as error:
        _refuse(target, error, unmet)
    versions, others = pickles.versions_of(told)
    notes = pickles.accept(target, versions, others, options) + unmet
    digest = fingerprint.of_path(path)
    raw = _raw(model)
    if "sklearn" in model.metadata.flavors and (options.proba or model.metadata.signature is None):
        made = sklearn.wrap(target, raw, options, notes)
        made.info = _described(made.info, model, digest)
        return _registered(made, uri)
    return _registered(MlflowModel(target, model, raw, arguments, options, notes, digest), uri)


def _registered(made: LoadedModel, uri: str) -> LoadedModel:
    """A model of the registry has the version that it has there."""
    version = mlflow_versions.version_of(uri)
    if version is not None:
        made.info = replace(made.info, version=version)
    return made


def _pinned(target: Target) -> str:
    """The URI of what is loaded, which goes on to mean the same."""
    if target.form != "uri" or target.scheme != "models":
        return target.path
    try:
        return mlflow_versions.pinned(target.path) or target.path
    except ModelLoadError as error:
        _not_fetched(target, error.__cause__ or error)


@functools.cache
def _downloaded(uri: str) -> str:
    place = fetched.new_folder()
    return str(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=place))


def _directory(target: Target, uri: str) -> str:
    """The model's directory on this machine."""
    if target.form != "uri" or target.scheme not in ("models", "runs", "mlflow-artifacts"):
        return target.local()
    try:
        return _downloaded(uri)
    except Exception as error:
        _not_fetched(target, error)


def _not_fetched(target: Target, error: BaseException) -> NoReturn:
    place = mlflow.get_tracking_uri()
    raise ModelLoadError(
        f"--model {target} cannot be fetched from the tracking store {place}: "
        f"{describe(error).rstrip('.')}. MLFLOW_TRACKING_URI says where it is."
    ) from error


def _refuse(target: Target, error: Exception, unmet: Sequence[str]) -> NoReturn:
    said = describe(error)
    lost = error
    while lost is not None and not isinstance(lost, ImportError):
        lost = lost.__cause__ or lost.__context__  # type: ignore[assignment]
    if isinstance(lost, ImportError) and lost.name:
        raise ModelLoadError(
            f"--model {target} needs the module '{lost.name}', which is not installed. Install it "
            f"with: {install_hint(lost.name)}."
        ) from error
    listed = f" It says of itself: {'; '.join(unmet)}." if unmet else ""
    raise ModelLoadError(
        f"--model {target} cannot be loaded by MLflow {mlflow.__version__} "
        f"({type(error).__name__}: {said[:400]}). Its directory is damaged or not whole, or wants "
        f"other versions.{listed}"
    ) from error


def _unmet(path: str) -> list[str]:
    """What of the model's requirements is not met here, a sentence each."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        with open(os.path.join(path, "requirements.txt"), encoding="utf-8") as handle:
            listed = handle.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in listed:
        try:
            wanted = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        same = [wanted.name] + (["mlflow-skinny"] if wanted.name == "mlflow" else [])
        here = next(filter(None, map(version_of, same)), None)
        if here is None or not wanted.specifier.contains(here, prereleases=True):
            found.append(f"the model requires {wanted}, and {here or 'none'} is installed")
    return found


def _raw(model: Any) -> Any:
    try:
        return model.get_raw_model()
    except Exception:  # not every flavor has one
        return None


def _described(info: ModelInfo, model: Any, digest: str) -> ModelInfo:
    return replace(info, interface=_interface(model), fingerprint=digest, requires=_needs(model))


def _interface(model: Any) -> str:
    flavors = [name for name in model.metadata.flavors if name != "python_function"]
    return f"MLflow ({', '.join(flavors) or 'python_function'})"


def _needs(model: Any) -> tuple[str, ...]:
    loader = str(model.metadata.flavors.get("python_function", {}).get("loader_module", ""))
    modules = {"mlflow", "pandas", loader.rpartition(".")[2]} | {
        name for name in model.metadata.flavors if name != "python_function"
    }
    if str(model.metadata.flavors.get("sklearn", {}).get("serialization_format")) == "skops":
        modules.add("skops")
    return distributions_of(sorted(modules))


_KINDS = {
    "double": "float",
    "float": "float",
    "long": "int",
    "integer": "int",
    "string": "str",
    "boolean": "bool",
}


class MlflowModel(tabular.TableModel):
    """A pyfunc behind the one protocol.

    Args:
        target: what was asked for.
        model: the pyfunc.
        raw: what it wraps, if it tells.
        params: of the signature.
        options: the features, where the model does not know them.
        notes: what the user should know.
        digest: of the directory.
    """

    aligned = tabular.ALIGNED

    def __init__(
        self,
        target: Target,
        model: Any,
        raw: Any,
        params: dict[str, Any],
        options: Options,
        notes: Sequence[str],
        digest: str,
    ) -> None:
        if options.proba:
            raise NotAModelError(
                f"--proba: --model {target} predicts by MLflow's predict(), which has no "
                f"probabilities beside classes, unless the model is scikit-learn's."
            )
        self._model, self._params = model, params or None
        signature = model.metadata.signature
        if params and (signature is None or signature.params is None):
            raise NotAModelError(
                f"--model {target} has a signature without params, and was given "
                f"{', '.join(sorted(params))} under 'arguments'."
            )
        if raw is not None and callable(getattr(raw, "predict", None)) and hasattr(raw, "fit"):
            self.rows, self.aligned = estimators.block_of(raw)
        inputs = signature.inputs if signature is not None else None
        self._specs: list[tuple[str, str, bool]] = []
        self._tensors: list[Tensor] = []
        self._alone = False
        columns = self._columns(target, inputs, options)
        made = tabular.signature_of(columns)
        self._name = _output_name(signature)
        meta = model.metadata
        self.info = ModelInfo(
            target=str(target),
            name=os.path.basename(target.path.rstrip("/")),
            style="table",
            display_name=str(getattr(raw, "__class__", type(model)).__name__),
            version=str(meta.model_id or meta.model_uuid or "unknown"),
            description=f"saved by MLflow {meta.mlflow_version}, {meta.utc_time_created}",
            interface=_interface(model),
            input_schema=tabular.input_schema_of(made),
            signature=made,
            fingerprint=digest,
            requires=_needs(model),
            warnings=tuple(notes),
        )

    def _columns(self, target: Target, inputs: Any, options: Options) -> list[Column]:
        if inputs is None:
            names = tabular.feature_names(target, None, None, options)
            self._specs = [(name, "any", True) for name in names]
            return [Column(name, "any", nullable=True) for name in names]
        named = inputs.has_input_names()
        if inputs.is_tensor_spec():
            return self._of_tensors(target, inputs, named, options)
        own = inputs.input_names() if named else None
        names = tabular.feature_names(target, own, len(inputs.inputs), options)
        self._unnamed = not named
        columns = []
        for name, spec in zip(names, inputs.inputs, strict=True):
            word = getattr(spec.type, "name", "any")
            self._specs.append((name, word, bool(spec.required)))
            columns.append(_column(name, word, bool(spec.required)))
        return columns

    def _of_tensors(
        self, target: Target, inputs: Any, named: bool, options: Options
    ) -> list[Column]:
        for spec in inputs.inputs:
            rest = tuple(size if size > 0 else None for size in spec.shape[1:])
            dtype, kind = kind_of_dtype(spec.type)
            columns = (spec.name,) if named else ()
            self._tensors.append(Tensor(spec.name or "input", dtype, kind, rest, columns))
        self._alone = not named
        if named:
            tabular.feature_names(target, inputs.input_names(), None, options)
        else:
            [one] = self._tensors
            count = one.rest[0] if len(one.rest) == 1 else 1
            names = tabular.feature_names(target, None, count, options)
            self._tensors = [Tensor(one.name, one.dtype, one.kind, one.rest, names)]
        return [column for one in self._tensors for column in one.make_columns(nulls=False)]

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """Have MLflow predict; records without an optional integer by themselves."""
        import pyarrow as pa

        groups = self._groups(batch)
        if len(groups) == 1:
            return self._predict(batch, groups[0][0])
        tables, places = [], []
        for left_out, rows in groups:
            part = tabular.aligned(batch.take(pa.array(rows)), self.aligned)
            made = self._predict(part, left_out)
            arrays = [array for _, array in made]
            table = pa.Table.from_arrays(arrays, names=[name for name, _ in made])
            if table.num_rows != part.num_rows:
                return made  # the caller tells the wrong number
            tables.append(table.slice(0, len(rows)))
            places.append(rows)
        whole = pa.concat_tables(tables, promote_options="permissive")
        order = pa.array(np.argsort(np.concatenate(places), kind="stable"))
        whole = whole.take(order).combine_chunks()
        return [(name, tabular.array_of(whole.column(name))) for name in whole.schema.names]

    def _groups(self, batch: Any) -> list[tuple[frozenset[str], Any]]:
        """Rows by which optional integers they lack: MLflow takes no null among integers."""
        lacking = [
            (name, np.asarray(batch.column(name).is_null()))
            for name, word, required in self._specs
            if not required and word in ("long", "integer") and batch.column(name).null_count
        ]
        if not lacking:
            return [(frozenset(), None)]
        key = sum(mask.astype(np.int64) << at for at, (_, mask) in enumerate(lacking))
        return [
            (
                frozenset(name for at, (name, _) in enumerate(lacking) if one >> at & 1),
                np.flatnonzero(key == one),
            )
            for one in np.unique(key).tolist()
        ]

    def _predict(self, batch: Any, left_out: frozenset[str]) -> list[tuple[str, Any]]:
        given: Any
        if self._tensors:
            given = {one.name: one.fed(batch) for one in self._tensors}
            given = given[self._tensors[0].name] if self._alone else given
        else:
            given = pd.DataFrame(
                {n: _series(batch.column(n), w) for n, w, _ in self._specs if n not in left_out}
            )
            if all(kind == np.float64 for kind in given.dtypes):
                given = tabular.frame(batch)
            if getattr(self, "_unnamed", False):
                given.columns = range(given.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = self._model.predict(given, params=self._params)
        table = function.as_table(made)
        columns = [
            (name, tabular.array_of(column))
            for name, column in zip(table.schema.names, table.columns, strict=True)
        ]
        if len(columns) == 1 and columns[0][0] in (tabular.PREDICTION, "0"):
            return [(self._name, columns[0][1])]
        return columns


def _output_name(signature: Any) -> str:
    """What the signature calls its one output, if it does."""
    outputs = getattr(signature, "outputs", None)
    names = outputs.input_names() if outputs is not None and outputs.has_input_names() else []
    return str(names[0]) if len(names) == 1 else tabular.PREDICTION


def _column(name: str, word: str, required: bool) -> Column:
    """A column as MLflow's type has it; what is optional may be null or not be there."""
    nullable = not required
    if word in ("double", "float"):
        return Column(name, "float", True, required, lossless=True)
    if word == "integer":
        low, high = float(-(2**31)), float(2**31 - 1)
        return Column(name, "int", nullable, required, at_least=low, at_most=high)
    kind: Any = _KINDS.get(word, "any")
    return Column(name, kind, nullable, required)


def _series(column: Any, word: str) -> Any:
    """A column in the type that MLflow asks for."""
    if word == "double":
        return tabular.floats(column)
    if word == "float":
        return tabular.floats(column, np.float32)
    if word in ("long", "integer"):
        dtype = np.int64 if word == "long" else np.int32
        return column.to_numpy(zero_copy_only=False).astype(dtype)
    if word == "boolean":
        values = column.to_pylist()
        return pd.Series(values, dtype=object if column.null_count else bool)
    if word == "datetime":
        values = [_time(value) for value in column.to_pylist()]
        return pd.Series(values, dtype="datetime64[ns]")
    if word in ("string", "any"):
        return tabular.series(column)
    return pd.Series(column.to_pylist(), dtype=object)


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


def _time(value: Any) -> Any:
    if isinstance(value, str) and not _DATE.fullmatch(value):
        raise ValueError(f"{value!r} is no date or time as ISO 8601 has it")
    return None if value is None else pd.Timestamp(value)
