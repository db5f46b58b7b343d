"""The public names are one list; the package is typed; its version is the changelog's."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
from pathlib import Path

import pytest

import modelbeam

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "JobError",
    "MLModelPredictOperation",
    "ModelError",
    "ModelbeamError",
    "NothingPredictedError",
    "Predict",
    "RequestError",
    "Run",
    "Submitted",
    "__version__",
    "predict",
]


def test_the_public_names_are_these():
    assert modelbeam.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_resolves(name):
    assert getattr(modelbeam, name) is not None


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__"}))
def test_a_public_name_is_documented(name):
    assert getattr(modelbeam, name).__doc__


def test_dir_lists_the_public_names():
    assert dir(modelbeam) == sorted(PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        modelbeam.nothing  # noqa: B018


def test_a_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from modelbeam import *", names)
    assert set(PUBLIC) <= names.keys()


@pytest.mark.parametrize("name", ["JobError", "ModelError", "RequestError"])
def test_every_error_is_a_modelbeam_error(name):
    assert issubclass(getattr(modelbeam, name), modelbeam.ModelbeamError)


def test_the_package_is_typed():
    assert importlib.resources.files("modelbeam").joinpath("py.typed").is_file()


def test_the_version_is_the_changelogs_newest():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == modelbeam.__version__


def test_the_installed_distribution_has_that_version():
    assert importlib.metadata.version("modelbeam") == modelbeam.__version__
