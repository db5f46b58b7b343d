"""Beam's ``ModelHandler`` as a model: ``module:factory``, or an object or class of that name.

What the handler takes follows from its class: arrays or tensors of features for Beam's numeric
ones, a tensor for each column for the one of PyTorch with keyed tensors, tables of one row for the
one of pandas, and for any other, or one with a preprocessing function, the record as it is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelbeam.beam.private import innermost, of_several, unkeyed
from modelbeam.errors import NotAModelError
from modelbeam.models import fingerprint, tabular
from modelbeam.models.base import LoadedModel, ModelInfo, WrongNumberOfPredictionsError
from modelbeam.models.function import row
from modelbeam.models.options import Options
from modelbeam.models.target import Target

_ARRAYS = (
    "SklearnModelHandlerNumpy",
    "XGBoostModelHandlerNumpy",
    "OnnxModelHandlerNumpy",
    "TFModelHandlerNumpy",
)
_TENSORS = ("PytorchModelHandlerTensor", "TFModelHandlerTensor")
_BY_NAME = ("PytorchModelHandlerKeyedTensor",)
"""They give their model each column by its name."""

_FRAMES = ("SklearnModelHandlerPandas", "XGBoostModelHandlerPandas")


class Handler(LoadedModel):
    """A handler behind the one protocol.

    Args:
        target: what was asked for.
        handler: the object.
        options: the features that make an array.

    Raises:
        NotAModelError: it is a handler of several models, or its features are not known.
    """

    def __init__(self, target: Target, handler: Any, options: Options) -> None:
        self._handler = handler
        self._keyed = _is(handler, "KeyedModelHandler")
        if self._keyed and of_several(handler):
            raise NotAModelError(
                f"--model {target} is a KeyedModelHandler of several models. Give each model by "
                f"itself."
            )
        refused = options.refused(("features",))
        if refused:
            raise NotAModelError(f"{refused} is not for Beam's handlers, such as --model {target}.")
        inner = unkeyed(handler) if self._keyed else handler
        handler.set_environment_vars()
        self._before = list(handler.get_preprocess_fns())
        self._after = list(handler.get_postprocess_fns())
        self._model = handler.load_model()
        limits = dict(handler.batch_elements_kwargs())
        self._most = self.rows = int(limits.get("max_batch_size") or 0) or None
        base = innermost(inner)
        names: tuple[str, ...] = ()
        self._example: Callable[[dict[str, Any]], Any] = lambda record: record
        if not self._before and _is(base, *_ARRAYS, *_TENSORS, *_FRAMES):
            own = _names(self._model) if _is(base, *_FRAMES) else None
            names = tabular.feature_names(target, own, _count(self._model), options)
            self._example = _maker(base, self._model, names)
        elif not self._before and _is(base, *_BY_NAME):
            self._example = _tensors(options.features)
        elif options.features is not None:
            raise NotAModelError(
                f"--features {','.join(options.features)}: --model {target} is given whole "
                f"records, which its own code turns into what it takes."
            )
        self._aligned = tabular.ALIGNED if names else 1
        signature = tabular.signature_of(tabular.number(name) for name in names) if names else None
        kind = type(base).__name__
        keyed = "keyed, " if self._keyed else ""
        self.info = ModelInfo(
            target=str(target),
            name=target.attribute,
            qualified_name=f"{target.module}.{target.attribute}",
            display_name=kind,
            style="batch",
            interface=f"Beam ModelHandler ({keyed}{kind})",
            input_schema=tabular.input_schema_of(signature) if signature else None,
            signature=signature,
            fingerprint=_digest(target, inner),
        )

    def predict_batch(self, records: list[dict[str, Any]]) -> list[Any]:
        """Have the handler run, in batches as large as it allows."""
        examples = [self._prepared(record) for record in records]
        made: list[Any] = []
        for start in range(0, len(examples), self._most or len(examples)):
            made += self._run(examples[start : start + (self._most or len(examples))])
        return made

    def _prepared(self, record: dict[str, Any]) -> Any:
        example = self._example(record)
        for function in self._before:
            example = function(example)
        return example

    def _run(self, examples: list[Any]) -> list[Any]:
        wanted = len(examples)
        room = (self._most or wanted) - wanted
        more = -wanted % self._aligned
        given = examples + examples[:1] * (more if self._most is None else min(more, room))
        if self._keyed:
            given = list(enumerate(given))
        made = list(itertools.islice(self._handler.run_inference(given, self._model), 2**31))
        if len(made) != len(given):
            raise WrongNumberOfPredictionsError(
                f"the handler returned {len(made)} predictions for {len(given)} records"
            )
        return [self._result(one) for one in made[:wanted]]

    def _result(self, made: Any) -> Any:
        for function in self._after:
            made = function(made)
        if self._keyed and isinstance(made, tuple) and len(made) == 2:
            made = made[1]
        if hasattr(made, "inference") and hasattr(made, "example"):
            made = made.inference
        return row(_plain(made))


def _is(handler: Any, *names: str) -> bool:
    """Whether a handler is of one of Beam's classes."""
    return any(
        cls.__name__ in names and cls.__module__.startswith("apache_beam.")
        for cls in type(handler).__mro__
    )


def _names(model: Any) -> tuple[str, ...] | None:
    found = getattr(model, "feature_names_in_", None)
    return None if found is None else tuple(map(str, found))


def _count(model: Any) -> int | None:
    found = getattr(model, "n_features_in_", None)
    if isinstance(found, int):
        return found
    if hasattr(model, "get_inputs"):  # a session of ONNX Runtime
        shape = model.get_inputs()[0].shape
        return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
    return None


def _maker(handler: Any, model: Any, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Any]:
    """What makes an example of a record."""
    import numpy as np

    if _is(handler, *_FRAMES):
        import pandas as pd

        return lambda record: pd.DataFrame(
            [[record[name] for name in names]], columns=list(names), dtype=np.float64
        )
    if _is(handler, "TFModelHandlerTensor"):
        import tensorflow as tf

        return lambda record: tf.constant([float(record[name]) for name in names], tf.float32)
    if _is(handler, *_TENSORS):
        import torch

        return lambda record: torch.tensor(
            [float(record[name]) for name in names], dtype=torch.float32
        )
    single = _is(handler, "OnnxModelHandlerNumpy", "TFModelHandlerNumpy")
    double = hasattr(model, "get_inputs") and "double" in model.get_inputs()[0].type
    dtype = np.float32 if single and not double else np.float64
    return lambda record: np.array([record[name] for name in names], dtype)


def _tensors(names: tuple[str, ...] | None) -> Callable[[dict[str, Any]], Any]:
    """What makes a tensor of each column: floats of 32 bits, integers of 64, or lists of them."""
    import torch

    def made(record: dict[str, Any]) -> dict[str, Any]:
        return {name: torch.as_tensor(record[name]) for name in names or record}

    return made


def _plain(value: Any) -> Any:
    """A tensor as an array, an array of one value as that value."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    elif type(value).__name__ == "EagerTensor":
        value = value.numpy()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if hasattr(value, "shape") and hasattr(value, "item") and value.size == 1:
        return value.item() if value.dtype.kind != "f" else value.reshape(-1)[0]
    return value


def _digest(target: Target, handler: Any) -> str | None:
    """The digest of the handler's code, and of the files that it names."""
    digests: Iterable[str | None] = [fingerprint.of_code(target.module)]
    base = innermost(handler)
    paths = sorted(
        value for value in vars(base).values() if isinstance(value, str) and os.path.exists(value)
    )
    digests = [*digests, *(fingerprint.of_path(path) for path in paths if path)]
    return "-".join(filter(None, digests)) or None
