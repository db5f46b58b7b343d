"""Texts for the embedding model of ``examples/embeddings``: embeddings.py N FILE MODEL.

MODEL is the directory that the example makes; it is made when it is not there yet. Words are drawn
from the tokenizer's own, with a fixed seed; a text has 12 of them on average, some have 200.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

SEED = 384
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "embeddings"))


def texts(rows: int, model: Path) -> list[str]:
    """So many texts."""
    known = sorted(Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab())
    words = [word for word in known if word.isascii() and word.isalpha() and len(word) > 2]
    drawn = random.Random(SEED)
    sizes = (min(int(drawn.lognormvariate(2.3, 0.7)) + 1, 200) for _ in range(rows))
    return [" ".join(drawn.choices(words, k=size)) for size in sizes]


def generate(rows: int, path: Path, model: Path) -> None:
    """Write the model and the texts, as JSON Lines with an id."""
    from make_model import make

    if not model.exists():
        make(model)
    if path.exists():
        return
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w") as handle:
        for row, text in enumerate(texts(rows, model)):
            handle.write(json.dumps({"id": row, "text": text}) + "\n")
    unfinished.rename(path)


if __name__ == "__main__":
    generate(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
