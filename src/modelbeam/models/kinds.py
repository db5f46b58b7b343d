"""Kinds of models: which targets are of which, and where each is loaded.

A kind is only a description until a target of it is met; then its module is imported. Packages of
third parties add theirs by the entry point group ``modelbeam.models`` (docs/extending.md). Those
are looked up when a target is none of ours, so they cost nothing otherwise.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelbeam.errors import ModelLoadError, NotAModelError
from modelbeam.models import libraries
from modelbeam.models.target import Target

GROUP = "modelbeam.models"


@dataclass(frozen=True, slots=True)
class ModelKind:
    """One kind of model.

    A subclass may override :meth:`takes` to look into a file.

    Attributes:
        name: what people call it: ``MLModel``, ``ONNX``.
        load: ``package.module:function``; called with ``(target, arguments)``, it returns a
            :class:`~modelbeam.models.base.LoadedModel`.
        install: what brings the libraries that it needs: ``pip install modelbeam-onnx``.
        classes: whether it takes ``module:Class``.
        suffixes: of the files (also behind URIs) that it takes, in lower case: ``(".onnx",)``.
        contents: it takes a directory that holds one of these files: ``("MLmodel",)``.
        schemes: of the URIs that it takes: ``("models",)``.
        options: those of :class:`~modelbeam.models.options.Options` that it takes; if there are
            any, ``load`` is called with the options as a third argument.
        beside: ``package.module:function``; given the path of a file, it returns the names of the
            files beside it that belong to the model.
        pinned: ``package.module:function``; given a URI, it returns the URI of the version that it
            names now, or ``None`` if it always names the same.
        takes_what: what such a model is, in a few words.
        tested: what its tests run.
    """

    name: str
    load: str
    install: str = ""
    classes: bool = False
    suffixes: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    beside: str = ""
    pinned: str = ""
    takes_what: str = ""
    tested: str = ""

    def takes(self, target: Target) -> bool:
        """Whether a target is of this kind."""
        if target.form == "class":
            return self.classes
        return (
            (target.form != "directory" and target.suffix in self.suffixes)
            or (target.form == "uri" and target.scheme in self.schemes)
            or any(target.contains(name) for name in self.contents)
        )

    @property
    def forms(self) -> str:
        """What its targets look like, in a few words."""
        words = ["module:name"] if self.classes else []
        words += [*self.suffixes, *(f"a directory with {name}" for name in self.contents)]
        return ", ".join([*words, *(f"{scheme}:/…" for scheme in self.schemes)])

    @property
    def module(self) -> str:
        """The module that loads it."""
        return self.load.partition(":")[0]

    def files_beside(self, path: str) -> list[str]:
        """The paths of the files that belong to a model beside its own."""
        if not self.beside or not os.path.isfile(path):
            return []
        module, _, name = self.beside.partition(":")
        names = getattr(importlib.import_module(module), name)(path)
        return [os.path.join(os.path.dirname(path), one) for one in names]

    def loader(self) -> Callable[..., Any]:
        """Import the function that loads it.

        Raises:
            ModelLoadError: a library that it needs is not installed.
        """
        module, _, name = self.load.partition(":")
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except ImportError as error:
            remedy = f" Install it with: {self.install}." if self.install else ""
            raise ModelLoadError(
                f"a model of the kind {self.name} needs what is not installed: {error}.{remedy}"
            ) from error
        return found


KINDS = (
    ModelKind(
        "MLModel",
        "modelbeam.models.named:load",
        classes=True,
        takes_what="a class of one's own, of either generation",
        tested="both generations; by record, list and table; on Flink, Spark and Prism",
    ),
    ModelKind(
        "function",
        "modelbeam.models.named:load",
        classes=True,
        options=("features",),
        takes_what="a plain function over a record, a list or a table; or one that makes a model",
        tested="records, lists, tables of Arrow, pandas and Polars; what they return",
    ),
    ModelKind(
        "Beam ModelHandler",
        "modelbeam.models.named:load",
        install="pip install apache-beam",
        classes=True,
        options=("features",),
        takes_what="a ModelHandler of Beam's: a function that makes one, an object, a class",
        tested="Beam's own for scikit-learn (NumPy and pandas) and ONNX; keyed, with "
        "preprocessing; one of one's own",
    ),
    ModelKind(
        "scikit-learn",
        "modelbeam.models.sklearn:load",
        install="pip install scikit-learn",
        suffixes=(".joblib", ".pkl", ".pickle", ".skops"),
        options=("features", "proba", "trusted_types", "allow_version_mismatch"),
        takes_what="a fitted object with predict: estimators, pipelines, searches",
        tested="linear models, forests, boosting, networks, support vectors, clusters; pipelines "
        "with encoders, imputers and vectorizers; several outputs; on Flink",
    ),
    ModelKind(
        "ONNX",
        "modelbeam.models.onnx:load",
        install="pip install onnxruntime",
        suffixes=(".onnx",),
        options=("features", "proba"),
        beside="modelbeam.models.onnx_files:external",
        takes_what="a graph for ONNX Runtime, on the processor",
        tested="scikit-learn's models by skl2onnx; several inputs and outputs, text, ZipMap, fixed "
        "batches, weights in another file; on Flink",
    ),
    ModelKind(
        "XGBoost",
        "modelbeam.models.xgboost:load",
        install="pip install xgboost",
        suffixes=(".json", ".ubj"),
        options=("features", "proba"),
        takes_what="what save_model writes",
        tested="classes, numbers, several targets, ranks; categories, early stopping, linear; "
        "on Flink",
    ),
    ModelKind(
        "LightGBM",
        "modelbeam.models.lightgbm:load",
        install="pip install lightgbm",
        suffixes=(".txt",),
        options=("features", "proba"),
        takes_what="what save_model writes",
        tested="numbers, two and several classes; categories of pandas; pickled classifiers",
    ),
    ModelKind(
        "CatBoost",
        "modelbeam.models.catboost:load",
        install="pip install catboost",
        suffixes=(".cbm",),
        options=("features", "proba"),
        takes_what="what save_model writes",
        tested="numbers, two and several classes, several targets; categories of text and integers",
    ),
    ModelKind(
        "MLflow",
        "modelbeam.models.mlflow:load",
        install="pip install mlflow-skinny pandas",
        contents=("MLmodel",),
        schemes=("models", "runs", "mlflow-artifacts"),
        options=("features", "proba", "allow_version_mismatch"),
        pinned="modelbeam.models.mlflow_versions:pinned",
        takes_what="a directory that MLflow has saved, or a URI of its tracking store",
        tested="scikit-learn, python_function; optional columns, tensors, params, dates; a local "
        "store; on Flink",
    ),
    ModelKind(
        "Hugging Face",
        "modelbeam.models.huggingface:load",
        install="pip install onnxruntime tokenizers",
        contents=("tokenizer.json", "config.json", "modules.json"),
        options=("features", "proba"),
        takes_what="a directory of transformers or sentence-transformers: an ONNX file, or weights "
        "of PyTorch if torch and transformers are installed",
        tested="embeddings and text classification with a small graph and tokenizer; all-MiniLM-L6 "
        "as ONNX; by hand its PyTorch weights",
    ),
)
"""The kinds that modelbeam brings."""


SEVERAL = ModelKind("several models", "modelbeam.predicting.several:load")
"""Several models that run as one; nobody names it, a job makes such a target of its models."""


DECORATED = ModelKind("MLModel", "modelbeam.models.decorated:load")
"""A class with decorators, as a configuration file names it."""


OBJECT = ModelKind("object", "modelbeam.models.handed:load", options=("features",))
"""A class, a function or an object that was handed over from Python, not named."""


def options_of(kind: ModelKind) -> tuple[str, ...]:
    """The options that a kind takes; of what ``module:name`` names it is told once it is there."""
    if not kind.classes:
        return kind.options
    return tuple(dict.fromkeys(name for one in KINDS if one.classes for name in one.options))


def kind_of(target: Target) -> ModelKind:
    """The kind that takes a target: one of ours, else one of an installed package.

    Raises:
        NotAModelError: none does, or several packages' do.
    """
    if target.of:
        return SEVERAL if target.form == "several" else DECORATED
    if target.form == "object":
        return OBJECT
    for kind in KINDS:
        if kind.takes(target):
            return kind
    others, broken = _third_parties()
    taking = {package: kind for package, kind in others.items() if kind.takes(target)}
    if len(taking) == 1:
        return next(iter(taking.values()))
    if taking:
        raise NotAModelError(
            f"--model {target}: {' and '.join(taking)} both load models like this one. Uninstall "
            f"all but one of them."
        )
    raise NotAModelError(" ".join([_unknown(target, others), *broken]))


def _unknown(target: Target, others: dict[str, ModelKind]) -> str:
    if target.suffix == ".py":
        module = target.path.rpartition("/")[2].removesuffix(".py")
        return (
            f"--model {target} is Python code; name the class or function in it: '{module}:Class'."
        )
    is_file = target.form == "file" and os.path.exists(target.path)
    strange = libraries.foreign(target.path) if is_file else None
    if is_file or target.form == "uri":
        strange = strange or libraries.foreign_suffix(target.suffix)
    if strange is not None:
        return f"--model {target} is {strange}."
    if target.form in ("file", "directory") and not os.path.exists(target.path):
        return f"--model {target}: there is no such {target.form}."
    ours = ", ".join(f"{kind.name} ({kind.forms})" for kind in KINDS)
    also = "".join(f", {kind.name} ({package})" for package, kind in others.items())
    return (
        f"--model {target}: nothing that is installed loads this "
        f"{'model' if target.form == 'uri' else target.form}. What is loaded: {ours}{also}. "
        f"A class or function of your own is named as 'module:Class' (docs/models.md); a kind of "
        f"model can be added (docs/extending.md)."
    )


def _third_parties() -> tuple[dict[str, ModelKind], list[str]]:
    """What installed packages add, by package and name; and of those that are broken a sentence."""
    found, broken = {}, []
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        package = entry.dist.name if entry.dist else entry.value
        try:
            kind = entry.load()
            if not isinstance(kind, ModelKind):
                raise TypeError(f"it is a {type(kind).__name__}, not a modelbeam.models.ModelKind")
            found[f"{package}'s {entry.name}"] = kind
        except Exception as error:
            broken.append(
                f"The kind of model '{entry.name}' of the installed package {package} is broken: "
                f"{type(error).__name__}: {error}."
            )
    return found, broken
