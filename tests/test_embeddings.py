"""The example with a real embedding model, against ONNX Runtime in a plain loop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import read_lines, write_lines

import modelbeam
from modelbeam import models
from modelbeam.models import Options
from modelbeam.testing import predict, written

ROOT = Path(__file__).resolve().parent.parent
TEXTS = 200


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for place in ("examples/embeddings", "benchmarks/peers", "benchmarks"):
            patch.syspath_prepend(str(ROOT / place))
        import embeddings
        import embeddings_loop
        import make_model

        model = make_model.make(tmp_path_factory.mktemp("embeddings") / "minilm")
        texts = [*embeddings.texts(TEXTS - 3, model), "", "Ünïcode, 日本 and 🤗", "long " * 400]
        yield model, texts, embeddings_loop.embed(texts, model, texts_a_call=1)
        sys.modules.pop("embed", None)


def vectors(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([line[name] for line in lines], np.float32)


def test_the_directory_predicts_what_a_loop_over_single_texts_does(example, tmp_path):
    """To the last bit: neither pads a text. What pads it (32 a call) may differ in the last one."""
    model, texts, alone = example
    data = write_lines(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    out = tmp_path / "vectors.jsonl"
    modelbeam.predict(
        model=str(model), input=str(data), output=str(out), features=["text"], split_size="20KB"
    )
    assert (vectors(read_lines(out), "prediction") == alone).all()
    shortest = str(np.float32(alone[0, 0]))
    assert out.read_text().startswith(f'{{"prediction":[{shortest},')


def test_the_class_predicts_the_same(example, monkeypatch):
    model, texts, alone = example
    monkeypatch.syspath_prepend(str(ROOT / "examples/embeddings"))
    loaded = models.load("embed:MiniLM", arguments={"directory": str(model)})
    some = [{"text": text} for text in texts[-60:]]
    made = vectors(written(predict(loaded, some, 25)), "embedding")
    assert (made == alone[-60:]).all()
    one = loaded.predict(loaded.validate(some[0]))
    assert np.allclose(one.embedding, alone[-60], atol=1e-6)


def test_padding_to_the_longest_of_a_call_changes_no_more_than_last_bits(example):
    import embeddings_loop

    model, texts, alone = example
    some = texts[:64]
    assert np.abs(embeddings_loop.embed(some, model) - alone[:64]).max() < 1e-6
    loaded = models.load(str(model), options=Options(features=("text",)))
    assert loaded.info.interface == "Hugging Face (ONNX)"
