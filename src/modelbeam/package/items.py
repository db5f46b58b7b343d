"""What travels to the workers: a list of items, each with the way that it goes and the reason."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from modelbeam.models.target import Target


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503): ``ml-base`` for ``ML_Base``."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution that an index has: the workers get exactly this version.

    Attributes:
        name: as its metadata has it.
        version: what is installed here.
        why: what needs it.
        for_model: whether the model needs it, and not modelbeam alone.
    """

    name: str
    version: str
    why: str
    for_model: bool = True


@dataclass(frozen=True, slots=True)
class LocalPackage:
    """A distribution that no index can be asked for; it goes as a wheel.

    Attributes:
        name: as its metadata has it.
        version: what is installed here.
        path: the project's directory if it is editable, else where it is installed.
        editable: whether the wheel is built of the project; if not, of the installed files.
        why: what needs it, and where it was installed from.
        for_model: whether the model needs it, and not modelbeam alone.
    """

    name: str
    version: str
    path: Path
    editable: bool
    why: str
    for_model: bool = True


@dataclass(frozen=True, slots=True)
class LooseModule:
    """A file or a package directory that no distribution owns; it goes as a wheel that we write.

    Attributes:
        module: its top-level name.
        path: the file, or the directory with all that is in it.
        requires: names of the distributions that it imports, in order.
        files: files beside a single-file module that it opens by ``__file__``.
        why: what needs it.
    """

    module: str
    path: Path
    requires: tuple[str, ...]
    files: tuple[Path, ...]
    why: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that is a file or a directory; it goes as a wheel that has nothing else.

    Attributes:
        package: the directory that it has among the worker's modules.
        path: the file, or the directory with all that is in it.
        why: what needs it.
        beside: files in the same directory that belong to it.
    """

    package: str
    path: Path
    why: str
    beside: tuple[Path, ...] = ()


Item: TypeAlias = Requirement | LocalPackage | LooseModule | ModelFile

_TRAVELS = {
    Requirement: "requirement",
    LocalPackage: "wheel",
    LooseModule: "wheel",
    ModelFile: "wheel",
}


@dataclass(frozen=True, slots=True)
class PackageList:
    """All that the workers need for some models.

    Attributes:
        targets: the models, as they were given.
        items: in the order of installation: what is required comes before what requires it.
        python: minor version of Python, ``3.11``.
        beam: version of apache-beam; the workers have it, and it is checked, not installed.
        beam_for_model: whether the model itself imports Beam.
        warnings: what the user should know; a sentence each.
    """

    targets: tuple[Target, ...]
    items: tuple[Item, ...]
    python: str
    beam: str
    beam_for_model: bool
    warnings: tuple[str, ...]

    @property
    def requirements(self) -> list[Requirement]:
        """The pinned ones, by name."""
        pinned = [item for item in self.items if isinstance(item, Requirement)]
        return sorted(pinned, key=lambda item: canonical(item.name))

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "models": [str(target) for target in self.targets],
            "python": self.python,
            "apache_beam": self.beam,
            "items": [_described(item) for item in self.items],
            "warnings": list(self.warnings),
        }

    def to_text(self) -> str:
        """For people: the table of ``modelbeam package``."""
        rows = [("name", "version", "travels as", "why")]
        rows.append(("apache-beam", self.beam, "image", "the workers have it; checked on start"))
        for item in sorted(self.items, key=_importance):
            shown = _described(item)
            rows.append((shown["name"], shown["version"] or "", shown["travels"], shown["why"]))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in rows
        ]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def travels(item: Item) -> Literal["requirement", "wheel"]:
    """How an item goes."""
    return _TRAVELS[type(item)]  # type: ignore[return-value]


def _importance(item: Item) -> tuple[bool, bool, str]:
    shown = _described(item)
    return not shown.get("for_model", True), travels(item) == "requirement", shown["name"].lower()


def _described(item: Item) -> dict[str, Any]:
    fields = asdict(item)
    name = fields.pop("name", None) or fields.pop("module", None) or Path(item.path).name  # type: ignore[union-attr]
    described = {"name": name, "version": fields.pop("version", None), "travels": travels(item)}
    for key, value in fields.items():
        described[key] = (
            str(value)
            if isinstance(value, Path)
            else [str(v) for v in value]
            if isinstance(value, tuple)
            else value
        )
    return described
