"""ONNX models, run by ONNX Runtime on the processor.

Inputs of one value a record are columns by their names. One input of several features does not say
what they are called: ``--features`` does. Several such inputs are columns of lists.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import onnxruntime as ort

from modelbeam import storage
from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models import fingerprint, tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of, own_file
from modelbeam.models.onnx_files import external, leans_on_its_batch, mentions
from modelbeam.models.options import Options
from modelbeam.models.signature import Kind
from modelbeam.models.target import Target
from modelbeam.models.tensors import Tensor
from modelbeam.text import describe

_TYPES: dict[str, tuple[Any, Kind]] = {
    "float": (np.float32, "float"),
    "double": (np.float64, "float"),
    "float16": (np.float16, "float"),
    "int64": (np.int64, "int"),
    "int32": (np.int32, "int"),
    "int16": (np.int16, "int"),
    "int8": (np.int8, "int"),
    "uint64": (np.uint64, "int"),
    "uint32": (np.uint32, "int"),
    "uint16": (np.uint16, "int"),
    "uint8": (np.uint8, "int"),
    "bool": (np.bool_, "bool"),
    "string": (np.object_, "str"),
}
_JSON = {"float": "number", "int": "integer", "bool": "boolean", "str": "string"}


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Start a session; ``providers`` may be given as an argument.

    Raises:
        ModelError: it cannot be read or run.
    """
    unknown = arguments.keys() - {"providers"}
    if unknown:
        raise NotAModelError(
            f"--model {target}: an ONNX model takes the argument 'providers' and not "
            f"{', '.join(sorted(unknown))}."
        )
    path = own_file(target)
    files = [path, *_beside(target, path)]
    trees = mentions(path, b"TreeEnsemble")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = max(call_threads(), 2 if trees else 1)
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    providers = arguments.get("providers") or ["CPUExecutionProvider"]
    try:
        session = ort.InferenceSession(path, settings, providers=list(providers))
    except Exception as error:
        _refuse(target, error)
    return OnnxModel(target, session, options, files, trees)


def _beside(target: Target, path: str) -> list[str]:
    """The files with a model's weights; those behind a URL are fetched to where it was fetched."""
    found = []
    for name in external(path):
        place = os.path.join(os.path.dirname(path), name)
        if not os.path.exists(place) and target.form == "uri":
            try:
                copy = storage.local_copy(f"{target.path.rpartition('/')[0]}/{name}")
            except OSError:
                continue  # the runtime names it
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.move(copy, place)
        if os.path.exists(place):
            found.append(place)
    return found


def _refuse(target: Target, error: Exception) -> NoReturn:
    text = describe(error)
    version = ort.__version__
    if re.search(r"IR version|[Oo]pset \d+ is under development|opset version", text):
        what = re.search(r"(Opset \d+|IR version:? ?\d+)", text, re.IGNORECASE)
        raise ModelLoadError(
            f"--model {target} was made for a newer ONNX Runtime than the {version} that is "
            f"installed ({what[1] if what else text}). Install it with: pip install --upgrade "
            f"onnxruntime; or export the model again with an older opset (target_opset)."
        ) from error
    if "xternal" in text:
        raise ModelLoadError(
            f"--model {target} has its weights in a file beside it that is not there: "
            f"{_short(text)}. Put it beside the model, under the name that it was exported with."
        ) from error
    raise ModelLoadError(
        f"--model {target} cannot be read as an ONNX model by ONNX Runtime {version}: "
        f"{_short(text)}. The file is damaged, cut off, something else, or uses an operator that "
        f"this runtime does not have."
    ) from error


def _short(text: str) -> str:
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    return re.sub(r"/onnxruntime_src/\S+ .*?\) ", "", text).rstrip(". ")[:300]


class OnnxModel(tabular.TableModel):
    """A session behind the one protocol.

    Args:
        target: what was asked for.
        session: of ONNX Runtime.
        options: the features of a matrix; whether probabilities are wanted.
        files: the model's, those beside it too.
        trees: whether it has an ensemble of trees, which is added up in another way for few rows.
    """

    def __init__(
        self, target: Target, session: Any, options: Options, files: Sequence[str], trees: bool
    ) -> None:
        self._session = session
        self.turns.thread_safe = True
        given = session.get_inputs()
        fixed = {one.shape[0] for one in given if one.shape and isinstance(one.shape[0], int)}
        if len(fixed) > 1:
            raise NotAModelError(
                f"--model {target} has inputs of several fixed batch sizes, "
                f"{', '.join(map(str, sorted(fixed)))}; export it with one, or with an open one."
            )
        if fixed:
            [self.aligned] = fixed
            self.rows = self.aligned
        elif leans_on_its_batch(files[0]):
            self.rows = 1  # two rows would be scaled together
        else:
            self.aligned = 64 if trees else tabular.ALIGNED
        self._inputs = _inputs(target, given, options)
        self._outputs = [(one.name, one.type, one.shape) for one in session.get_outputs()]
        self._proba = options.proba
        maps = [name for name, kind, _ in self._outputs if kind.startswith("seq(map(")]
        if options.proba and not maps and not any("prob" in n.lower() for n, _, _ in self._outputs):
            raise NotAModelError(
                f"--proba: --model {target} has no output of class probabilities; its outputs are "
                f"{', '.join(name for name, _, _ in self._outputs)}. Leave --proba out."
            )
        for name, kind, _ in self._outputs:
            if not kind.startswith(("tensor(", "seq(map(")):
                raise NotAModelError(
                    f"--model {target}: its output '{name}' is a {kind}, which is no column. "
                    f"Export it with outputs that are tensors."
                )
        self._wanted = [n for n, k, _ in self._outputs if k.startswith("tensor(") or options.proba]
        # an open size is a list, also where it happens to be one
        self._lists = {n for n, _, s in self._outputs if len(s) > 1 and list(s[1:]) != [1]}
        nulls = mentions(files[0], b"Imputer")
        columns = [column for one in self._inputs for column in one.make_columns(nulls)]
        signature = tabular.signature_of(columns)
        meta = session.get_modelmeta()
        version = str(meta.version) if meta.version else "unknown"
        self.info = ModelInfo(
            target=str(target),
            name=tabular.name_of(target),
            style="table",
            version=version,
            description=meta.description or "",
            interface="ONNX",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            fingerprint=(
                "-".join(fingerprint.of_path(file) for file in files) if len(files) > 1 else None
            ),
            requires=distributions_of(["onnxruntime"]),
        )

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """Run the session; an output of lists of dicts (ZipMap) is a column for each class."""
        feed = {one.name: one.fed(batch) for one in self._inputs}
        made: list[tuple[str, Any]] = []
        results = self._session.run(self._wanted, feed)
        for name, values in zip(self._wanted, results, strict=True):
            if isinstance(values, list):
                made += _of_maps(values)
            else:
                made.append((name, tabular.array_of(values, name, name not in self._lists)))
        return made

    def _schema(self) -> dict[str, Any] | None:
        columns: dict[str, Any] = {}
        for name, kind, shape in self._outputs:
            if not kind.startswith("tensor("):
                if self._proba:
                    return None  # the classes are known once a record was predicted
                continue
            word = _JSON[_TYPES[kind[7:-1]][1]] if kind[7:-1] in _TYPES else None
            if word is None or not shape:
                return None
            inner: dict[str, Any] = {"type": word}
            for _ in shape[1:] if list(shape[1:]) != [1] else ():
                inner = {"type": "array", "items": inner}
            columns[name] = inner
        return tabular.object_schema(columns)


def _inputs(target: Target, given: Sequence[Any], options: Options) -> list[Tensor]:
    """The inputs, and the columns that each is made of."""
    made = []
    for one in given:
        kind = one.type[7:-1] if one.type.startswith("tensor(") else ""
        if kind not in _TYPES:
            raise NotAModelError(
                f"--model {target}: its input '{one.name}' is a {one.type}, which no columns hold."
            )
        if not one.shape:
            raise NotAModelError(
                f"--model {target}: its input '{one.name}' has no batch axis, so it is no value of "
                f"a record. Export the model with this value as a constant."
            )
        rest = tuple(size if isinstance(size, int) else None for size in one.shape[1:])
        made.append(Tensor(one.name, *_TYPES[kind], rest, (one.name,)))
    alone = len(made) == 1 and len(made[0].rest) <= 1
    single = made[0].rest in ((), (1,)) if alone else False
    if alone and (not single or options.features is not None):
        count = 1 if single else made[0].rest[0]
        names = tabular.feature_names(target, None, count, options)
        [one] = made
        return [Tensor(one.name, one.dtype, one.kind, one.rest, names)]
    if options.features is not None:
        tabular.feature_names(target, [one.name for one in made], len(made), options)
    return made


def _of_maps(values: list[Any]) -> list[tuple[str, Any]]:
    """A column for each class of what ZipMap returns."""
    classes = list(dict.fromkeys(key for one in values for key in one))
    return [
        (
            f"probability_{tabular.text_of(key)}",
            tabular.array_of(np.array([one[key] for one in values], np.float32)),
        )
        for key in classes
    ]
