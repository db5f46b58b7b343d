"""Hugging Face and sentence-transformers directories, by ONNX Runtime and the tokenizer in them.

Texts are put in order of their length, so that little is padded, and the order is restored. How
much one is padded follows from its own length, so its prediction does not depend on its neighbours.
No code of the directory is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.machine import call_threads
from modelbeam.models import tabular
from modelbeam.models.base import LoadedModel, ModelInfo
from modelbeam.models.libraries import distributions_of
from modelbeam.models.options import Options
from modelbeam.models.signature import Column
from modelbeam.models.target import Target
from modelbeam.text import describe

_GRAPHS = ("onnx/model.onnx", "model.onnx", "onnx/model_quantized.onnx", "model_quantized.onnx")
_STEP = 8
"""Tokens that a length is rounded up to a multiple of."""

_TOKENS = 16384
"""Tokens of a call, about."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")


def load(target: Target, arguments: dict[str, Any], options: Options) -> LoadedModel:
    """Read the tokenizer and start a session.

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
        has = any(name.endswith(_WEIGHTS) for name in os.listdir(path))
        what = "weights of PyTorch or another framework, and" if has else "no weights, and"
        raise NotAModelError(
            f"--model {target} is a Hugging Face directory with {what} no ONNX file. Export it "
            f"(optimum-cli export onnx --model DIR DIR/onnx), or write a function around it and "
            f"name that, 'module:function'."
        )
    tokenizer_file = os.path.join(path, "tokenizer.json")
    if not os.path.exists(tokenizer_file):
        raise NotAModelError(
            f"--model {target} has no tokenizer.json, which makes tokens of texts. Save the fast "
            f"tokenizer into it: AutoTokenizer.from_pretrained(…).save_pretrained(DIR)."
        )
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = call_threads()
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    try:
        tokenizer = Tokenizer.from_file(tokenizer_file)
        session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        return TextModel(target, path, session, tokenizer, options)
    except (NotAModelError, ModelLoadError):
        raise
    except Exception as error:
        raise ModelLoadError(
            f"--model {target} cannot be loaded: {describe(error)[:300]}. A file in it is damaged, "
            f"cut off, or of a newer version."
        ) from error


def _json(path: str, name: str) -> Any:
    try:
        with open(os.path.join(path, name), encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        return {}


class TextModel(tabular.TableModel):
    """A model of texts: classes, a number, or an embedding of each.

    Args:
        target: what was asked for.
        path: the directory.
        session: of ONNX Runtime.
        tokenizer: of the directory.
        options: the column of the text; whether probabilities are wanted.
    """

    rows = 4096

    def __init__(
        self, target: Target, path: str, session: Any, tokenizer: Any, options: Options
    ) -> None:
        self._session, self._tokenizer = session, tokenizer
        self.turns.thread_safe = True
        config = _json(path, "config.json")
        kinds = [str(one) for one in config.get("architectures") or []]
        self._labels = _labels(config) if _is_classifier(kinds) else None
        self._several = config.get("problem_type") == "multi_label_classification"
        heads = [kind for kind in kinds if "For" in kind and not _is_classifier(kinds)]
        if any(not kind.endswith("ForMaskedLM") for kind in heads):
            raise NotAModelError(
                f"--model {target} is a {heads[0]}. Text classification and embeddings are run; "
                f"for another task write a function around it and name that, 'module:function'."
            )
        if options.proba and not self._labels:
            raise NotAModelError(f"--proba: --model {target} has no classes. Leave --proba out.")
        self._proba = options.proba
        inputs = session.get_inputs()
        self._inputs = [one.name for one in inputs]
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise NotAModelError(
                f"--model {target} has inputs that no tokenizer gives: {', '.join(unknown)}."
            )
        sizes = [one.shape[1] for one in inputs if len(one.shape) == 2]
        self._length = next((size for size in sizes if isinstance(size, int)), None)
        self._output, self._pool = _pooling(path, session)
        self._normalize = any(
            str(one.get("type", "")).endswith("Normalize") for one in _json(path, "modules.json")
        )
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._length or _longest(path, config))
        self._pad = int(config.get("pad_token_id") or 0)
        [name] = tabular.feature_names(target, None, 1, options)
        signature = tabular.signature_of([Column(name, "str")])
        self.info = ModelInfo(
            target=str(target),
            name=os.path.basename(target.path.rstrip("/")),
            style="table",
            display_name=kinds[0] if kinds else "",
            version=str(config.get("transformers_version", "unknown")),
            interface="Hugging Face (ONNX)",
            input_schema=tabular.input_schema_of(signature),
            output_schema=self._schema(),
            signature=signature,
            requires=distributions_of(["onnxruntime", "tokenizers"]),
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
        encoded = self._tokenizer.encode_batch(batch.column(0).to_pylist())
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
        """Rows of one padded length, as many at a time as a call should have."""
        found = np.maximum(np.array(lengths), 1)
        padded = -(-found // _STEP) * _STEP if self._length is None else found * 0 + self._length
        order = np.argsort(padded, kind="stable")
        for length in np.unique(padded).tolist():
            rows = order[np.searchsorted(padded[order], length) :]
            rows = rows[: int((padded == length).sum())]
            size = max(_TOKENS // length // tabular.ALIGNED, 1) * tabular.ALIGNED
            for start in range(0, len(rows), size):
                yield rows[start : start + size], length

    def _run(self, encoded: list[Any], length: int) -> Any:
        """One call: a row for each text, and some more that fill it up."""
        encoded = encoded + encoded[:1] * (-len(encoded) % tabular.ALIGNED)
        shape = (len(encoded), length)
        ids = np.full(shape, self._pad, np.int64)
        mask = np.zeros(shape, np.int64)
        kinds = np.zeros(shape, np.int64)
        for row, one in enumerate(encoded):
            size = len(one.ids)
            ids[row, :size], mask[row, :size], kinds[row, :size] = one.ids, 1, one.type_ids
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        [made] = self._session.run([self._output], {name: given[name] for name in self._inputs})
        if made.ndim == 3:
            made = self._pooled(made, mask.astype(made.dtype)[:, :, None])
        if self._normalize:
            norm = np.sqrt((made * made).sum(axis=1, keepdims=True))
            made = made / np.maximum(norm, np.asarray(1e-12, made.dtype))
        return made

    def _pooled(self, states: Any, mask: Any) -> Any:
        if self._pool == "cls":
            return states[:, 0]
        if self._pool == "max":
            return np.where(mask > 0, states, -np.inf).max(axis=1)
        total = np.maximum(mask.sum(axis=1), np.asarray(1e-9, mask.dtype))
        return (states * mask).sum(axis=1) / total

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


def _longest(path: str, config: dict[str, Any]) -> int:
    """The most tokens that a text may have; more are cut off, as the library does."""
    said = [
        _json(path, "sentence_bert_config.json").get("max_seq_length"),
        _json(path, "tokenizer_config.json").get("model_max_length"),
        config.get("max_position_embeddings"),
    ]
    return min((int(one) for one in said if one and one < 1_000_000), default=512)


def _pooling(path: str, session: Any) -> tuple[str, str]:
    """Which output is used, and how the states of its tokens become one vector."""
    outputs = {one.name: one for one in session.get_outputs()}
    names = ("sentence_embedding", "logits", "last_hidden_state", "token_embeddings")
    name = next((one for one in names if one in outputs), next(iter(outputs)))
    pooling = _json(path, "1_Pooling/config.json")
    if pooling.get("pooling_mode_cls_token"):
        return name, "cls"
    return name, "max" if pooling.get("pooling_mode_max_tokens") else "mean"
