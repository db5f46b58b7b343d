"""What an ``.onnx`` file says without the runtime: the files beside it that hold its weights."""

from __future__ import annotations

import mmap
import os
import re

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""The entry ``location`` of a tensor's external data, as protobuf has it, before its text."""


def external(path: str) -> list[str]:
    """The names of the files beside a model that hold its tensors; each once."""
    found: dict[str, None] = {}
    if not os.path.getsize(path):
        return []
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _LOCATION.finditer(data):
            name = data[match.end() : match.end() + match[1][0]]
            try:
                text = name.decode("utf-8")
            except UnicodeDecodeError:
                continue
            inside = not os.path.isabs(text) and ".." not in text.split("/")
            if inside and text.isprintable():
                found[text] = None
    return list(found)


def mentions(path: str, word: bytes) -> bool:
    """Whether a file has a word, such as the name of an operator."""
    if not os.path.getsize(path):
        return False
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(word) >= 0


def leans_on_its_batch(path: str) -> bool:
    """Whether a graph scales what it computes by the largest value of the whole call.

    Dynamic quantization does. The prediction for a record then depends on what is beside it.
    """
    return mentions(path, b"DynamicQuantize")
