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


def graph(classify: bool, quantized: bool = False, length: int | None = None) -> Any:
    """States of tokens by a table; or logits of their mean."""
    shape = ["N", length or "L"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape)
              for n in ("input_ids", "attention_mask")]  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node(
            "Mul", ["states", "wide"], ["exact" if quantized else "last_hidden_state"]
        ),
    ]
    if quantized:  # by the largest value of the call
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["exact"], ["small", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["last_hidden_state"]),
        ]
    weights = [
        numpy_helper.from_array(TABLE, "table"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, WIDTH])
    if classify:
        nodes += [
            helper.make_node("ReduceMean", ["last_hidden_state"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        ]
        weights.append(numpy_helper.from_array(HEAD, "head"))
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    made = helper.make_graph(nodes, "g", inputs, [output], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def directory(
    place: Path,
    classify: bool = False,
    quantized: bool = False,
    length: int | None = None,
    **config: Any,
) -> str:
    place.mkdir(exist_ok=True)
    (place / "onnx").mkdir(exist_ok=True)
    onnx.save(graph(classify, quantized, length), place / "onnx" / "model.onnx")
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


POOLED = {
    "cls": lambda states: states[0],
    "max": lambda states: states.max(axis=0),
    "mean": lambda states: states.mean(axis=0),
    "mean_sqrt_len_tokens": lambda states: states.sum(axis=0) / np.sqrt(len(states)),
    "weightedmean": lambda states: np.average(states, axis=0, weights=range(1, len(states) + 1)),
    "lasttoken": lambda states: states[-1],
}


OLDER = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "weightedmean": "weightedmean_tokens",
}
"""Modes whose key in older files is not just their name."""


@pytest.mark.parametrize("length", [None, 40])
@pytest.mark.parametrize("modes", [*([one] for one in POOLED), ["cls", "lasttoken", "mean"]])
def test_states_are_pooled_as_the_directory_says(modes, length, tmp_path):
    path = Path(directory(tmp_path / "mini", length=length))
    (path / "modules.json").write_text(
        '[{"type": "x.Transformer"}, {"type": "y.Pooling", "path": "p"}]'
    )
    (path / "p").mkdir()
    said = {"pooling_mode": modes}
    if len(modes) == 1:
        said = {f"pooling_mode_{OLDER.get(modes[0], modes[0])}": True}
    (path / "p" / "config.json").write_text(json.dumps(said))
    some = TEXTS[:30]
    model = models.load(str(path), options=TEXT)
    made = [line["prediction"] for line in written(predict(model, [{"text": t} for t in some]))]
    wanted = [np.concatenate([POOLED[mode](TABLE[ids(one)]) for mode in modes]) for one in some]
    assert np.allclose(made, wanted, atol=1e-5)


def test_a_text_begins_with_the_prompt_and_is_written_small_as_the_directory_says(tmp_path):
    path = Path(directory(tmp_path / "mini"))
    said = {"prompts": {"query": "w3 ", "other": "w4 "}, "default_prompt_name": "query"}
    (path / "config_sentence_transformers.json").write_text(json.dumps(said))
    (path / "sentence_bert_config.json").write_text('{"do_lower_case": true, "max_seq_length": 5}')
    model = models.load(str(path), options=TEXT)
    [made] = written(predict(model, [{"text": "W1 w2 W1 w5 w6 w7"}]))
    assert np.allclose(made["prediction"], embedding("w3 w1 w2 w1 w5"), atol=1e-6)


def test_a_part_that_is_not_known_is_refused_and_not_passed_over(tmp_path):
    path = Path(directory(tmp_path / "mini"))
    (path / "modules.json").write_text('[{"type": "x.Transformer"}, {"type": "x.models.Dense"}]')
    with pytest.raises(NotAModelError, match=r"has a module 'Dense'.*function"):
        models.load(str(path), options=TEXT)
    (path / "modules.json").unlink()
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "attention"}')
    with pytest.raises(NotAModelError, match=r"pools by attention"):
        models.load(str(path), options=TEXT)


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(1, 30), max_size=5), batch=st.integers(1, 40))
@pytest.mark.parametrize(
    "of", [{}, {"classify": True}, {"quantized": True}, {"length": 40}], ids=str
)
def test_a_text_has_one_prediction_whatever_is_beside_it(of, cuts, batch, tmp_path_factory):
    model = models.load(directory(tmp_path_factory.mktemp("m") / "mini", **of), options=TEXT)
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
        given = np.array([ids(one)], np.int64)
        [logits] = session.run(None, {"input_ids": given, "attention_mask": np.ones_like(given)})
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
    with pytest.raises(NotAModelError, match=r"no weights, .*optimum-cli export onnx"):
        models.load(str(path), options=TEXT)
    (path / "tf_model.h5").touch()
    with pytest.raises(NotAModelError, match=r"another framework .*optimum-cli export onnx"):
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
