"""Libraries that models come from: which distribution brings a module, and what files are that no
kind of ours loads."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from typing import Any

from modelbeam.errors import NotAModelError
from modelbeam.models.target import Target

_BROUGHT_BY = {
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "polars": "polars",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "xgboost": "xgboost",
}


def install_hint(module: str) -> str:
    """How a module is brought into this environment: ``pip install scikit-learn``."""
    top = module.partition(".")[0]
    return f"pip install {_BROUGHT_BY.get(top, top)}"


@functools.cache
def _owners() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def distributions_of(modules: Iterable[str]) -> tuple[str, ...]:
    """The installed distributions that bring some modules, by their names; each once."""
    found: dict[str, None] = {}
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "modelbeam", "builtins"):
            continue
        usual = _BROUGHT_BY.get(top)
        if usual is not None and version_of(usual) is not None:
            found[usual] = None
            continue
        for name in _owners().get(top, [])[:1]:  # xgboost-cpu, a package of one's own
            found[name] = None
    return tuple(found)


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def modules_in(model: Any) -> set[str]:
    """The modules of the classes that a fitted object is made of: its steps and parameters."""
    found: set[str] = set()
    seen: set[int] = set()
    todo = [model]
    while todo and len(seen) < 10_000:
        one = todo.pop()
        if id(one) in seen or isinstance(one, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(one))
        if isinstance(one, (list, tuple, set)):
            todo += list(one)[:1000]
        elif isinstance(one, dict):
            todo += list(one.values())[:1000]
        elif isinstance(one, type) or callable(getattr(one, "__code__", None)):
            found.add(str(one.__module__))
        else:
            found.update(c.__module__ for c in type(one).__mro__)
            inside = getattr(one, "__dict__", None)
            todo += list(inside.values())[:1000] if isinstance(inside, dict) else []
            name = getattr(one, "__module__", None)
            found.update([name] if isinstance(name, str) else [])
    return found


# Files that no kind of ours loads

_INSTEAD = "write a function around it and name that, 'module:function' (docs/models.md)"


def foreign(path: str) -> str | None:
    """What a file is, if it is certainly of a library that no kind of ours loads, and what to do.

    It goes by the first bytes; the suffix may be any.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(4096)
    except OSError:
        return None
    suffix = os.path.splitext(path)[1].lower()
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return f"a Keras model (HDF5); export it to ONNX, or {_INSTEAD}"
    if head.startswith(b"GGUF"):
        return f"a GGUF file of a language model, which llama.cpp runs; {_INSTEAD}"
    if head.startswith(b"PK\x03\x04"):
        return _of_archive(path)
    if b"<PMML" in head:
        return f"a PMML document; export the model to ONNX instead, or {_INSTEAD}"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {_INSTEAD}"
    if re.match(rb".{8}\{\"", head, re.DOTALL) and b"dtype" in head and suffix != ".json":
        return (
            f"safetensors, weights without a model; name the directory that also has its "
            f"config.json, or {_INSTEAD}"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS and not the file itself; fetch it with: git lfs pull"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html><he") or head[:5] == b"<html":
        return "a page of HTML, perhaps what a server said instead of the file; fetch it again"
    if head.startswith(b"\x80\x02\x8a\nl\xfcF\xf9"):
        return f"a PyTorch checkpoint (of before 1.6); {_INSTEAD}"
    return None


def own_file(target: Target) -> str:
    """The local path of a model's file.

    Raises:
        NotAModelError: it is certainly of a library that no kind of ours loads.
    """
    path = target.local()
    strange = foreign(path)
    if strange:
        raise NotAModelError(f"--model {target} is {strange}.")
    return path


def not_fitted(target: Target, name: str) -> NotAModelError:
    """The error for an estimator of a class of that name that has learnt nothing."""
    return NotAModelError(
        f"--model {target} holds a {name} that was not fitted. Call its fit() with the training "
        f"data and save it again."
    )


_BY_SUFFIX = {
    ".keras": f"a Keras model; export it to ONNX, or {_INSTEAD}",
    ".h5": f"a Keras model (HDF5); export it to ONNX, or {_INSTEAD}",
    ".pt": f"a PyTorch model or checkpoint; export it to ONNX, or {_INSTEAD}",
    ".pth": f"a PyTorch model or checkpoint; export it to ONNX, or {_INSTEAD}",
    ".ckpt": f"a checkpoint of a training; export the model to ONNX, or {_INSTEAD}",
    ".gguf": f"a language model for llama.cpp; {_INSTEAD}",
    ".pmml": f"a PMML document; export the model to ONNX instead, or {_INSTEAD}",
    ".pb": f"a TensorFlow graph; export the model to ONNX, or {_INSTEAD}",
    ".tflite": f"a TensorFlow Lite model; {_INSTEAD}",
    ".mlmodel": f"a Core ML model; export the model to ONNX instead, or {_INSTEAD}",
    ".safetensors": f"weights without a model; {_INSTEAD}",
}


def foreign_suffix(suffix: str) -> str | None:
    """What a file seems to be by its suffix alone."""
    return _BY_SUFFIX.get(suffix)


def _of_archive(path: str) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if "schema.json" in names:
        return "a skops file; give it the suffix .skops"
    if any(name.endswith(("/data.pkl", "data.pkl")) for name in names):
        return f"a PyTorch model or checkpoint; export it to ONNX, or {_INSTEAD}"
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return f"a Keras model; export it to ONNX, or {_INSTEAD}"
    if any(name.endswith(".npy") for name in names):
        return f"NumPy arrays (.npz), and no model; {_INSTEAD}"
    if any(os.path.basename(name) in ("MLmodel", "saved_model.pb") for name in names):
        return "an archive of a model's directory; unpack it and name the directory"
    return None
