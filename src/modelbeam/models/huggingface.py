"""Hugging Face and sentence-transformers directories: ONNX Runtime or PyTorch, and the tokenizer.

Texts are put in order of their length, and those of one length are predicted together, so that
nothing is padded; then the order is restored. So a text's prediction does not depend on its
neighbours. No code of the directory is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models import sentences, tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of
from modelbeam.models.onnx_files import leans_on_its_batch
from modelbeam.models.options import Options
from modelbeam.models.sentences import read_json
from modelbeam.models.signature import Column
from modelbeam.models.target import Target
from modelbeam.text import describe

_GRAPHS = ("onnx/model.onnx", "model.onnx", "onnx/model_quantized.onnx", "model_quantized.onnx")

_TOKENS = 2048
"""Tokens of a call, about: their states stay in the processor's cache."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")

_TORCH_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Encoder(Protocol):
    """What makes states or logits of tokens.

    Attributes:
        inputs: the names of what it takes.
        length: tokens that every text has, if that is fixed.
        pools: whether it gives one vector for each text by itself.
        alone: whether it must get one text at a time, as its texts lean on each other.
        requires: distributions that a worker needs.
        interface: what it is, for people.
    """

    inputs: Sequence[str]
    length: int | None
    pools: bool
    alone: bool
    requires: Sequence[str]
    interface: str

    def run(self, given: dict[str, Any]) -> Any:
        """Arrays of shape (texts, tokens) in; states or logits out, the texts first."""


class _Graph:
    """A session of ONNX Runtime."""

    inputs: Sequence[str]
    length: int | None
    interface = "Hugging Face (ONNX)"
    requires: Sequence[str] = ("onnxruntime", "tokenizers")

    def __init__(self, target: Target, path: str) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = call_threads()
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        self._session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()
        self.inputs = [one.name for one in given]
        unknown = set(self.inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise NotAModelError(
                f"--model {target} has inputs that no tokenizer gives: {', '.join(unknown)}."
            )
        sizes = [one.shape[1] for one in given if len(one.shape) == 2]
        self.length = next((size for size in sizes if isinstance(size, int)), None)
        outputs = {one.name: one for one in self._session.get_outputs()}
        names = ("sentence_embedding", "logits", "last_hidden_state", "token_embeddings")
        self._output = next((one for one in names if one in outputs), next(iter(outputs)))
        self.pools = len(outputs[self._output].shape) == 2
        self.alone = leans_on_its_batch(path)

    def run(self, given: dict[str, Any]) -> Any:
        """Run the graph."""
        [made] = self._session.run([self._output], {name: given[name] for name in self.inputs})
        return made


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Read the tokenizer and start a session; without an ONNX file, let PyTorch load the weights.

    Raises:
        ModelError: a part is missing or damaged, or it is for a task that is none of ours.
    """
    if arguments:
        raise NotAModelError(
            f"--model {target} takes no arguments, and was given {', '.join(sorted(arguments))}."
        )
    path = target.local()
    graph = next((p for p in (os.path.join(path, g) for g in _GRAPHS) if os.path.exists(p)), None)
    if graph is None:
        _check_weights(target, path)
    tokenizer_file = os.path.join(path, "tokenizer.json")
    if not os.path.exists(tokenizer_file):
        raise NotAModelError(
            f"--model {target} has no tokenizer.json, which makes tokens of texts. Save the fast "
            f"tokenizer into it: AutoTokenizer.from_pretrained(…).save_pretrained(DIR)."
        )
    try:
        config = read_json(path, "config.json")
        kinds = [str(one) for one in config.get("architectures") or []]
        _check_task(target, kinds)
        tokenizer = Tokenizer.from_file(tokenizer_file)
        encoder = _Graph(target, graph) if graph else _weights(target, path, kinds)
        return TextModel(target, path, encoder, tokenizer, options)
    except (NotAModelError, ModelLoadError):
        raise
    except Exception as error:
        raise ModelLoadError(
            f"--model {target} cannot be loaded: {describe(error)[:300]}. A file in it is damaged, "
            f"cut off, or of a newer version."
        ) from error


def _check_weights(target: Target, path: str) -> None:
    """Refuse a directory that neither ONNX Runtime nor PyTorch can load."""
    names = os.listdir(path)
    what = ""
    if not any(name.endswith(_WEIGHTS) for name in names):
        what = "no weights, and"
    elif not any(name in names for name in _TORCH_WEIGHTS):
        what = "weights of another framework than PyTorch, and"
    if what:
        raise NotAModelError(
            f"--model {target} is a Hugging Face directory with {what} no ONNX file. Export it "
            f"(optimum-cli export onnx --model DIR DIR/onnx), or write a function around it and "
            f"name that, 'module:function'."
        )


def _check_task(target: Target, kinds: list[str]) -> None:
    heads = [kind for kind in kinds if "For" in kind and not _is_classifier(kinds)]
    if any(not kind.endswith("ForMaskedLM") for kind in heads):
        raise NotAModelError(
            f"--model {target} is a {heads[0]}. Text classification and embeddings are run; "
            f"for another task write a function around it and name that, 'module:function'."
        )


def _weights(target: Target, path: str, kinds: list[str]) -> Encoder:
    try:
        from modelbeam.models.huggingface_torch import Weights
    except ImportError as error:
        raise ModelLoadError(
            f"--model {target} has weights of PyTorch and no ONNX file, and {error.name} is not "
            f"installed. Install it with: pip install torch transformers; or export the model, "
            f"which then needs neither: optimum-cli export onnx --model DIR DIR/onnx."
        ) from error
    return Weights(target, path, _is_classifier(kinds))


class TextModel(tabular.TableModel):
    """A model of texts: classes, a number, or an embedding of each.

    Args:
        target: what was asked for.
        path: the directory.
        encoder: the model itself.
        tokenizer: of the directory.
        options: the column of the text; whether probabilities are wanted.
    """

    rows = 4096

    def __init__(
        self, target: Target, path: str, encoder: Encoder, tokenizer: Any, options: Options
    ) -> None:
        self._encoder, self._tokenizer = encoder, tokenizer
        self.turns.thread_safe = True
        config = read_json(path, "config.json")
        kinds = [str(one) for one in config.get("architectures") or []]
        self._labels = _labels(config) if _is_classifier(kinds) else None
        self._several = config.get("problem_type") == "multi_label_classification"
        if options.proba and not self._labels:
            raise NotAModelError(f"--proba: --model {target} has no classes. Leave --proba out.")
        self._proba = options.proba
        said = sentences.read(target, path, encoder.pools)
        self._pooling, self._prompt = said.pooling, said.prompt
        if said.lowercase:
            own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
            tokenizer.normalizer = Normalizers([Lowercase(), *own])
        tokenizer.no_padding()
        tokenizer.enable_truncation(encoder.length or _longest(path, config, said.longest))
        self._pad = int(config.get("pad_token_id") or 0)
        [name] = tabular.feature_names(target, None, 1, options)
        signature = tabular.signature_of([Column(name, "str")])
        self.info = ModelInfo(
            target=str(target),
            name=os.path.basename(target.path.rstrip("/")),
            style="table",
            display_name=kinds[0] if kinds else "",
            version=str(config.get("transformers_version", "unknown")),
            interface=encoder.interface,
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            requires=distributions_of(encoder.requires),
        )

    def _schema(self) -> dict[str, Any]:
        if self._labels is None:
            return tabular.object_schema({tabular.PREDICTION: tabular.NUMBERS})
        if len(self._labels) < 2:
            return tabular.object_schema({tabular.PREDICTION: "number"})
        columns = {tabular.PREDICTION: "string"}
        if self._proba:
            columns.update({f"probability_{label}": "number" for label in self._labels})
        return tabular.object_schema(columns)

    def predict_rows(self, batch: Any) -> list[tuple[str, Any]]:
        """Predict texts by their lengths, and put the results back in order."""
        texts = batch.column(0).to_pylist()
        if self._prompt:
            texts = [self._prompt + text for text in texts]
        encoded = self._tokenizer.encode_batch(texts)
        whole: Any = None
        for rows, length in self._groups([len(one.ids) for one in encoded]):
            made = self._run([encoded[row] for row in rows], length)
            if whole is None:
                whole = np.empty((len(encoded), *made.shape[1:]), made.dtype)
            whole[rows] = made[: len(rows)]
        if self._labels is None:
            return [(tabular.PREDICTION, tabular.array_of(whole, one_is_plain=False))]
        return self._classes(whole)

    def _groups(self, lengths: list[int]) -> Iterator[tuple[Any, int]]:
        """Rows of one length, as many at a time as a call should have."""
        found = np.maximum(np.array(lengths), 1)
        if self._encoder.length is not None:
            found[:] = self._encoder.length
        order = np.argsort(found, kind="stable")
        sizes, starts = np.unique(found[order], return_index=True)
        for length, rows in zip(sizes.tolist(), np.split(order, starts[1:]), strict=True):
            size = 1 if self._encoder.alone else max(_TOKENS // length, 2)
            for start in range(0, len(rows), size):
                yield rows[start : start + size], length

    def _run(self, encoded: list[Any], length: int) -> Any:
        """One call: a row for each text, and perhaps one more.

        Linear algebra takes another way for a single row. States have a row for each token; what
        the model makes of a text's one vector has a row for each text, so there are two at least.
        """
        if len(encoded) == 1 and not self._encoder.alone and (self._encoder.pools or length == 1):
            encoded = encoded * 2
        shape = (len(encoded), length)
        ids = np.full(shape, self._pad, np.int64)
        mask = np.zeros(shape, np.int64)
        kinds = np.zeros(shape, np.int64)
        for row, one in enumerate(encoded):
            size = len(one.ids)
            ids[row, :size], mask[row, :size], kinds[row, :size] = one.ids, 1, one.type_ids
        made = self._encoder.run(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        )
        if made.ndim == 3:
            made = self._pooling.pooled(made, mask)
        return made if self._labels is not None else self._pooling.finished(made)

    def _classes(self, logits: Any) -> list[tuple[str, Any]]:
        import pyarrow as pa

        labels = self._labels or []
        if len(labels) < 2:
            return [(tabular.PREDICTION, tabular.array_of(logits))]
        chosen = pa.array(labels).take(pa.array(logits.argmax(axis=1)))
        columns = [(tabular.PREDICTION, chosen)]
        if self._proba:
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            found = shifted / shifted.sum(axis=1, keepdims=True)
            if self._several:
                found = 1 / (1 + np.exp(-logits))
            columns += [
                (f"probability_{label}", tabular.array_of(found[:, at].copy()))
                for at, label in enumerate(labels)
            ]
        return columns


def _is_classifier(kinds: list[str]) -> bool:
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)


def _labels(config: dict[str, Any]) -> list[str]:
    """The labels in the order of their numbers."""
    found = config.get("id2label") or {}
    if found:
        return [str(found[key]) for key in sorted(found, key=int)]
    return [f"LABEL_{at}" for at in range(int(config.get("num_labels", 2)))]


def _longest(path: str, config: dict[str, Any], own: int | None) -> int:
    """The most tokens that a text may have; more are cut off, as the library does."""
    said = [
        own,
        read_json(path, "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    ]
    return min((int(one) for one in said if one and 0 < one < 1_000_000), default=512)
