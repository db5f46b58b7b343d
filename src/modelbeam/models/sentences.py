"""What a sentence-transformers directory says: which texts the model sees, how states are pooled.

``modules.json`` lists the parts of the model: the encoder, the pooling of its tokens' states into
one vector, whether that is normalized. A part that is not known here is refused, not passed over.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelbeam.errors import NotAModelError
from modelbeam.models.target import Target

_BY_KEY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Older names of the modes, in the order in which several are put beside each other."""


@dataclass(frozen=True)
class Pooling:
    """How the states of a text's tokens become one vector.

    Attributes:
        modes: as sentence-transformers calls them; several are put beside each other.
        normalized: whether the vector is made as long as 1.
    """

    modes: tuple[str, ...] = ("mean",)
    normalized: bool = False

    def pooled(self, states: Any, mask: Any) -> Any:
        """One vector for each text.

        Args:
            states: of tokens, of the shape (texts, tokens, width).
            mask: of the shape (texts, tokens), 1 for the tokens of the text, which come first.
        """
        there = mask.astype(states.dtype)[:, :, None]
        found = [self._by(mode, states, there) for mode in self.modes]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def finished(self, vectors: Any) -> Any:
        """The vectors as they are given out."""
        if not self.normalized:
            return vectors
        norm = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        return vectors / np.maximum(norm, np.asarray(1e-12, vectors.dtype))

    def _by(self, mode: str, states: Any, there: Any) -> Any:
        if mode == "cls":
            return states[:, 0]
        if mode == "max":
            return np.where(there > 0, states, -np.inf).max(axis=1)
        if mode == "lasttoken":
            last = np.maximum(there[:, :, 0].sum(axis=1).astype(np.int64) - 1, 0)
            return states[np.arange(len(states)), last]
        if mode == "weightedmean":
            there = there * np.arange(1, states.shape[1] + 1, dtype=states.dtype)[None, :, None]
        total = np.maximum(there.sum(axis=1), np.asarray(1e-9, there.dtype))
        if mode == "mean_sqrt_len_tokens":
            total = np.sqrt(total)
        return (states * there).sum(axis=1) / total


@dataclass(frozen=True)
class Sentences:
    """What a directory says beside the model itself.

    Attributes:
        pooling: of the states.
        prompt: what every text begins with.
        lowercase: whether texts are written small first.
        longest: tokens of a text, if it says.
    """

    pooling: Pooling
    prompt: str
    lowercase: bool
    longest: int | None


def read_json(path: str, name: str) -> Any:
    """A file of the directory; nothing if it is not there."""
    try:
        with open(os.path.join(path, name), encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        return {}


def read(target: Target, path: str, whole: bool) -> Sentences:
    """Read what the directory says.

    Args:
        target: for messages.
        path: the directory.
        whole: whether the graph pools by itself, with all the parts that there are.

    Raises:
        NotAModelError: a part is not known, so that its predictions would be wrong.
    """
    modes: tuple[str, ...] | None = None
    normalized, place = False, "1_Pooling"
    for part in read_json(path, "modules.json") or ():
        kind = str(part.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            place = part.get("path") or place
        elif kind == "Normalize":
            normalized = True
        elif kind != "Transformer" and not whole:
            raise NotAModelError(
                f"--model {target} has a module '{kind}' beside its encoder and its pooling, which "
                f"is not known here. Export it as one graph with an output 'sentence_embedding', "
                f"or write a function around it and name that, 'module:function'."
            )
    said = read_json(path, f"{place}/config.json")
    modes = _modes(said)
    unknown = [mode for mode in modes if mode not in _BY_KEY.values()]
    general = read_json(path, "config_sentence_transformers.json")
    prompt = (general.get("prompts") or {}).get(general.get("default_prompt_name") or "", "")
    if prompt and said.get("include_prompt") is False:
        unknown.append("include_prompt=false")
    if unknown and not whole:
        raise NotAModelError(
            f"--model {target} pools by {', '.join(unknown)}, which is not known here. Write a "
            f"function around it and name that, 'module:function'."
        )
    own = read_json(path, "sentence_bert_config.json")
    return Sentences(
        Pooling(modes, normalized),
        prompt,
        own.get("do_lower_case") is True,
        own.get("max_seq_length"),
    )


def _modes(said: dict[str, Any]) -> tuple[str, ...]:
    given = said.get("pooling_mode")
    if given:
        return (given,) if isinstance(given, str) else tuple(map(str, given))
    return tuple(mode for key, mode in _BY_KEY.items() if said.get(key)) or ("mean",)
