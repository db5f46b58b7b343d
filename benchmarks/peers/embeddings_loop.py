"""ONNX Runtime in a plain loop: texts sorted by length, 32 a call, padded to the longest of them.

This is what sentence-transformers does, without its PyTorch: embeddings_loop.py INPUT OUTPUT MODEL.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
from tokenizers import Tokenizer

TEXTS_A_CALL = 32


def embed(texts: list[str], model: Path, texts_a_call: int = TEXTS_A_CALL) -> np.ndarray:
    """A vector for each text."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    session = ort.InferenceSession(str(model / "model.onnx"))
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.empty((len(texts), 384), np.float32)
    for start in range(0, len(order), texts_a_call):
        rows = order[start : start + texts_a_call]
        encoded = tokenizer.encode_batch([texts[row] for row in rows])
        ids = np.array([one.ids for one in encoded])
        mask = np.array([one.attention_mask for one in encoded])
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [states] = session.run(["last_hidden_state"], given)
        weights = mask[:, :, None].astype(np.float32)
        mean = (states * weights).sum(axis=1) / weights.sum(axis=1)
        vectors[rows] = mean / np.sqrt((mean * mean).sum(axis=1, keepdims=True))
    return vectors


def main(source: str, output: str, model: str) -> None:
    """Read all, embed all, write all."""
    with open(source, "rb") as handle:
        records = [orjson.loads(line) for line in handle]
    vectors = embed([record["text"] for record in records], Path(model))
    with open(output, "wb") as handle:
        for record, vector in zip(records, vectors, strict=True):
            line = orjson.dumps(
                {"id": record["id"], "prediction": vector}, option=orjson.OPT_SERIALIZE_NUMPY
            )
            handle.write(line + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
