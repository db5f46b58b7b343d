"""A model of texts as a class of one's own: copy it where the directory alone will not do."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from pydantic import BaseModel
from tokenizers import Tokenizer

TOKENS = 2048
"""Tokens of a call, about: what a text's states need stays in the processor's cache."""


class Text(BaseModel):
    """What is read of a record."""

    text: str


class Embedding(BaseModel):
    """What is written for it."""

    embedding: list[float]


class MiniLM:
    """all-MiniLM-L6-v2: the mean of the tokens' states, as long as 1.

    Args:
        directory: with ``model.onnx`` and ``tokenizer.json``.
    """

    display_name = "MiniLM"
    qualified_name = "minilm"
    description = "Embeddings of texts, of 384 numbers."
    version = "1.0.0"
    input_schema = Text
    output_schema = Embedding
    thread_safe = True

    def __init__(self, directory: str = "minilm") -> None:
        self._tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        self._session = ort.InferenceSession(os.path.join(directory, "model.onnx"), options)

    def predict(self, data: Text) -> Embedding:
        """One text."""
        return Embedding(embedding=self._embed([data.text])[0].tolist())

    def predict_table(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Some thousand texts at once."""
        vectors = self._embed(batch.column("text").to_pylist())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
        lists = pa.ListArray.from_arrays(offsets, vectors.reshape(-1))
        return pa.RecordBatch.from_arrays([lists], names=["embedding"])

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Texts of equal length together, so that nothing is padded; then back in their order."""
        encoded = [one.ids for one in self._tokenizer.encode_batch(texts)]
        lengths = np.array([len(ids) for ids in encoded])
        order = np.argsort(lengths, kind="stable")
        sizes, starts = np.unique(lengths[order], return_index=True)
        vectors = np.empty((len(texts), 384), np.float32)
        for length, rows in zip(sizes.tolist(), np.split(order, starts[1:]), strict=True):
            step = max(TOKENS // length, 1)
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                vectors[some] = self._call(np.array([encoded[row] for row in some]))
        return vectors

    def _call(self, ids: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        given["token_type_ids"] = np.zeros_like(ids)
        [states] = self._session.run(["last_hidden_state"], given)
        mean = states.sum(axis=1) / np.float32(ids.shape[1])
        return mean / np.sqrt((mean * mean).sum(axis=1, keepdims=True))
