"""Hugging Face directories, against the graph run by itself on one text after another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from commands import read_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import modelbeam
from modelbeam import models
from modelbeam.errors import ModelError, ModelLoadError, NotAModelError
from modelbeam.job.description import spec_of
from modelbeam.models import Options
from modelbeam.package.build import build
from modelbeam.package.clean import clean_import
from modelbeam.package.listing import package_list
from modelbeam.testing import ModelKindContract, predict, written

WORDS = ["[PAD]", "[UNK]", *(f"w{n}" for n in range(30))]
WIDTH = 6
_random = np.random.default_rng(8)
TABLE = _random.normal(size=(len(WORDS), WIDTH)).astype(np.float32)
HEAD = _random.normal(size=(WIDTH, 3)).astype(np.float32)
TEXT = Options(features=("text",))


def graph(classify: bool) -> Any:
    """States of tokens by a table; or logits of their first one."""
    shape = ["N", "L"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape)
              for n in ("input_ids", "attention_mask")]  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["states", "wide"], ["last_hidden_state"]),
    ]
    weights = [
        numpy_helper.from_array(TABLE, "table"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["N", "L", WIDTH]
    )
    if classify:
        nodes += [
            helper.make_node("ReduceMean", ["last_hidden_state"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        ]
        weights.append(numpy_helper.from_array(HEAD, "head"))
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    made = helper.make_graph(nodes, "g", inputs, [output], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def directory(place: Path, classify: bool = False, **config: Any) -> str:
    place.mkdir(exist_ok=True)
    (place / "onnx").mkdir(exist_ok=True)
    onnx.save(graph(classify), place / "onnx" / "model.onnx")
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(place / "tokenizer.json"))
    kind = "BertForSequenceClassification" if classify else "BertModel"
    known = {"architectures": [kind], "max_position_embeddings": 40, **config}
    if classify:
        known.setdefault("id2label", {"0": "bad", "1": "fair", "2": "good"})
    (place / "config.json").write_text(json.dumps(known))
    return str(place)


def text(size: int) -> str:
    return " ".join(_random.choice(WORDS[2:], size))


TEXTS = [text(int(size)) for size in _random.integers(1, 50, 60)] + ["", "w1 nobody w2"]


def ids(one: str, most: int = 40) -> list[int]:
    return [WORDS.index(w) if w in WORDS else 1 for w in one.split()][:most]


def embedding(one: str) -> np.ndarray:
    found = TABLE[ids(one)] if one else np.zeros((1, WIDTH), np.float32)
    return found.mean(axis=0)


class TestEmbeddings(ModelKindContract):
    @pytest.fixture
    def target(self, tmp_path, monkeypatch):
        load = models.load

        def with_text(target: Any, name: Any = None) -> Any:
            return load(target, name, None, TEXT)

        monkeypatch.setattr(models, "load", with_text)
        return directory(tmp_path / "mini")

    @pytest.fixture
    def records(self):
        return [{"text": one} for one in TEXTS]

    @pytest.fixture
    def expected(self, target, records):
        return written(predict(models.load(target), records))

    @pytest.fixture
    def broken(self):
        return [{"text": None}, {"text": 3}, {}]


def test_an_embedding_is_the_mean_over_the_texts_tokens(tmp_path):
    model = models.load(directory(tmp_path / "mini"), options=TEXT)
    made = written(predict(model, [{"text": one} for one in TEXTS]))
    wanted = np.array([embedding(one) for one in TEXTS])
    assert np.allclose([line["prediction"] for line in made], wanted, atol=1e-6)
    (tmp_path / "mini" / "1_Pooling").mkdir()
    (tmp_path / "mini" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (tmp_path / "mini" / "modules.json").write_text('[{"type": "x.models.Normalize"}]')
    model = models.load(directory(tmp_path / "mini"), options=TEXT)
    made = written(predict(model, [{"text": one} for one in TEXTS[:9]]))
    first = np.array([TABLE[ids(one)[0]] for one in TEXTS[:9]])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    assert np.allclose([line["prediction"] for line in made], first, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 30), max_size=5), batch=st.integers(1, 40))
def test_a_text_has_one_embedding_whatever_is_beside_it(cuts, batch, tmp_path_factory):
    model = models.load(directory(tmp_path_factory.mktemp("m") / "mini"), options=TEXT)
    records = [{"text": one} for one in TEXTS]
    whole = written(predict(model, records))
    at = 0
    for size in cuts:
        part = written(predict(model, records[at : at + size], batch))
        assert part == whole[at : at + size]
        at += len(part)


def test_classes_have_their_labels_and_probabilities(tmp_path):
    path = directory(tmp_path / "classes", classify=True)
    some = TEXTS[:20]
    model = models.load(path, options=Options(features=("text",), proba=True))
    made = written(predict(model, [{"text": one} for one in some]))
    session = ort.InferenceSession(f"{path}/onnx/model.onnx")
    for one, line in zip(some, made, strict=True):
        padded = np.zeros((1, -(-len(ids(one)) // 8) * 8), np.int64)
        mask = padded.copy()
        padded[0, : len(ids(one))], mask[0, : len(ids(one))] = ids(one), 1
        [logits] = session.run(None, {"input_ids": padded, "attention_mask": mask})
        assert line["prediction"] == ["bad", "fair", "good"][int(logits.argmax())]
        chances = np.exp(logits[0]) / np.exp(logits[0]).sum()
        found = [line[f"probability_{label}"] for label in ("bad", "fair", "good")]
        assert np.allclose(found, chances, atol=1e-6)


def test_what_is_missing_or_for_another_task_is_told(tmp_path):
    path = Path(directory(tmp_path / "mini"))
    with pytest.raises(NotAModelError, match=r"takes one column .* --features A"):
        models.load(str(path))
    with pytest.raises(NotAModelError, match=r"--proba: .* no classes"):
        models.load(str(path), options=Options(features=("text",), proba=True))
    other = directory(tmp_path / "other", architectures=["BertForTokenClassification"])
    with pytest.raises(NotAModelError, match=r"is a BertForTokenClassification"):
        models.load(other, options=TEXT)
    (path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"mini cannot be loaded"):
        models.load(str(path), options=TEXT)
    (path / "tokenizer.json").unlink()
    with pytest.raises(NotAModelError, match=r"no tokenizer\.json"):
        models.load(str(path), options=TEXT)
    (path / "onnx" / "model.onnx").unlink()
    (path / "model.safetensors").touch()
    with pytest.raises(NotAModelError, match=r"weights of PyTorch .*optimum-cli export onnx"):
        models.load(str(path), options=TEXT)


def test_the_workers_get_the_libraries_and_the_directory(tmp_path):
    path = directory(tmp_path / "mini")
    requires = models.load(path, options=TEXT).info.requires
    assert set(requires) == {"onnxruntime", "tokenizers"}
    built = build(package_list(path, requires=requires), tmp_path / "built")
    clean_import(built, spec_of(path, {"features": "text"}))


def test_a_missing_library_is_told_with_the_command(tmp_path, monkeypatch):
    path = directory(tmp_path / "mini")
    monkeypatch.delitem(sys.modules, "modelbeam.models.huggingface", raising=False)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModelError, match=r"pip install onnxruntime tokenizers"):
        models.load(path, options=TEXT)


@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_it_runs_in_threads_and_processes(mode, tmp_path):
    data = write_lines(tmp_path / "in.jsonl", [{"text": one} for one in TEXTS * 5])
    out = tmp_path / "out.jsonl"
    path = directory(tmp_path / "mini")
    modelbeam.predict(
        model=path, input=str(data), output=str(out), features=["text"], workers=2,
        worker_mode=mode, split_size="8KB",
    )  # fmt: skip
    model = models.load(path, options=TEXT)
    assert read_lines(out) == written(predict(model, [{"text": one} for one in TEXTS])) * 5
