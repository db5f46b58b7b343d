"""Modules as they are found on the path, without importing them, and what their code imports."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
import zipimport
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from modelbeam.errors import ModelNotFoundError, PackageError
from modelbeam.models import Target, kind_of

LEFT_OUT_NAMES = frozenset({"__pycache__", "node_modules"})
SECRET_SUFFIXES = (".pem", ".key", ".p12", ".pfx", ".keystore", ".jks", ".kdbx")
SECRET_NAMES = ("id_rsa", "id_ed25519", "id_ecdsa", "id_dsa")


@dataclass(frozen=True, slots=True)
class Found:
    """A module on the path.

    Attributes:
        name: full, with dots.
        file: its code, a compiled module, or ``None`` for a directory without ``__init__.py``.
        directories: where its submodules are, if it is a package.
        top: the file or the directory of its top-level module; of a namespace that several
            directories are part of, the one that holds this module.
    """

    name: str
    file: str | None
    directories: tuple[str, ...]
    top: str | None

    @property
    def code(self) -> Path | None:
        """Its Python code, if there is any."""
        return Path(self.file) if self.file and self.file.endswith(".py") else None


@contextlib.contextmanager
def searching(path: list[str]) -> Iterator[None]:
    """Look for modules on that path instead of this process's."""
    before = sys.path[:]
    sys.path[:] = path
    try:
        yield
    finally:
        sys.path[:] = before


def locate(name: str) -> Found | None:
    """Find a module on ``sys.path`` without importing it or its parents.

    Raises:
        PackageError: it is in a zip archive, or a namespace of several directories.
    """
    parts = name.split(".")
    first = spec = _top_spec(parts[0])
    for count in range(2, len(parts) + 1):
        spec = spec and _sub_spec(".".join(parts[:count]), spec)
    if first is None or spec is None:
        return None
    if isinstance(spec.loader, zipimport.zipimporter):
        raise PackageError(
            f"the module '{name}' is inside the archive {spec.loader.archive}. Workers cannot be "
            f"given a part of it: install it with pip, or unpack it."
        )
    file = spec.origin if spec.has_location else None
    directories = tuple(spec.submodule_search_locations or ())
    top = _place(first)
    if not first.has_location and len(parts) > 1 and (file or directories):
        # a namespace: up from T/a/b.py, T/a/b/__init__.py or the directory T/a/b to T/a
        steps = len(parts) - (1 if file and directories else 2)
        top = str(Path(file or directories[0]).parents[steps])
    return Found(name, file, directories, top)


def _top_spec(name: str) -> ModuleSpec | None:
    # find_spec would answer with what is loaded, which need not be what the path has
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec: ModuleSpec | None = find(name, None) if find else None
        except (ImportError, ValueError):
            spec = None
        if spec is not None:
            return spec
    return None


def _sub_spec(name: str, parent: ModuleSpec) -> ModuleSpec | None:
    places = parent.submodule_search_locations
    if places is None:
        return None
    if isinstance(parent.loader, zipimport.zipimporter):
        return importlib.util.spec_from_loader(name, parent.loader)
    return PathFinder.find_spec(name, list(places))


def _place(spec: ModuleSpec) -> str | None:
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return spec.origin if spec.has_location else None


def module_of(target: Target) -> str:
    """The module that has the model's class, or that loads its file."""
    return target.module or kind_of(target).module


def find_model(target: Target) -> Found:
    """The module of :func:`module_of`.

    Raises:
        ModelNotFoundError: there is no such module.
        PackageError: it is one that cannot travel.
    """
    name = module_of(target)
    if name == "__main__":
        raise PackageError(
            f"--model {target}: a class that was defined in a notebook or in the script that runs "
            f"cannot be brought to workers. Put it into a file of its own, churn.py, and give it "
            f"as churn:{target.attribute}."
        )
    found = locate(name)
    if found is None:
        raise ModelNotFoundError(
            f"--model {target}: there is no module '{name}' in this environment ({sys.prefix}). "
            f"Install the model's package into it with pip, or run in the directory that holds it."
        )
    if found.file is None:
        raise PackageError(
            f"--model {target}: '{name}' is a directory without __init__.py and not a module. "
            f"Name the module in it that has the class."
        )
    return found


@dataclass(frozen=True, slots=True)
class Import:
    """A module that code imports.

    Attributes:
        name: full, relative ones resolved.
        required: whether the code cannot do without it: not inside ``try``, nor for types alone.
        inside: names taken from it, which may be modules of their own.
    """

    name: str
    required: bool
    inside: tuple[str, ...] = ()


def imports_of(code: str, module: str, package: bool) -> list[Import]:
    """The modules that a module's code imports, in functions too.

    Args:
        code: of the module.
        module: its full name.
        package: whether it is an ``__init__.py``.

    Raises:
        SyntaxError: it is not Python.
    """
    found: list[Import] = []
    base = module.split(".") if package else module.split(".")[:-1]
    _collect(ast.parse(code), base, True, found)
    return found


def _collect(node: ast.AST, base: list[str], required: bool, found: list[Import]) -> None:
    if isinstance(node, ast.Import):
        found += [Import(alias.name, required) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        parents = base[: len(base) - node.level + 1] if node.level else []
        name = ".".join([*parents, *([node.module] if node.module else [])])
        names = tuple(alias.name for alias in node.names if alias.name != "*")
        if name:
            found.append(Import(name, required, names))
    elif isinstance(node, ast.Call):
        called = _imported_by_call(node)
        if called:
            found.append(Import(called, required))
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        inner = required
        if isinstance(node, ast.Try) and (child in node.body or child in node.handlers):
            inner = False
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = False  # it may never be called
        _collect(child, base, inner, found)


def _imported_by_call(node: ast.Call) -> str | None:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    called = node.func.id if isinstance(node.func, ast.Name) else called
    first = node.args[0] if node.args else None
    if called not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return None
    named = isinstance(first.value, str) and not first.value.startswith(".")
    return str(first.value) if named else None


def opened_beside(code: str, directory: Path) -> tuple[list[Path], list[Path]]:
    """Files of a module's directory that its code names, such as ``"model.joblib"``.

    Returns:
        those that a module finds by its own ``__file__``, and those that it does not.
    """
    tree = ast.parse(code)
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    named = sorted(
        directory / text
        for text in texts
        if isinstance(text, str)
        and 0 < len(text) < 200
        and "\0" not in text
        and "." in os.path.basename(text)
        and not os.path.isabs(text)
        and ".." not in text.split("/")
        and not text.endswith(".py")
        and (directory / text).is_file()
    )
    travelling = [path for path in named if is_left_out(path.name) is None]
    by_file = any(isinstance(n, ast.Name) and n.id == "__file__" for n in ast.walk(tree))
    return (travelling, []) if by_file else ([], travelling)


def files_of(directory: Path) -> tuple[list[Path], list[str]]:
    """All files of a package directory that travel with it, sorted; and what is left out of note.

    Left out are hidden files (``.git``, ``.env``), virtual environments, caches, and what looks
    like a secret key. A link to a file is followed, one to a directory is not.
    """
    files: list[Path] = []
    noted: list[str] = []
    for place, directories, names in os.walk(directory):
        for name in list(directories):
            path = os.path.join(place, name)
            if os.path.islink(path):
                noted.append(f"{os.path.relpath(path, directory)} (a link to a directory)")
            elif is_left_out(name) is None and not os.path.exists(f"{path}/pyvenv.cfg"):
                continue
            directories.remove(name)
        for name in names:
            path = os.path.join(place, name)
            reason = is_left_out(name)
            if reason:
                noted.append(f"{os.path.relpath(path, directory)} ({reason})")
            elif reason is None and os.path.isfile(path):
                files.append(Path(path))
    return sorted(files), sorted(noted)


def is_left_out(name: str) -> str | None:
    """Why a file or directory of that name does not travel; empty if there is nothing to note."""
    if name in LEFT_OUT_NAMES or name.endswith((".pyc", ".pyo", ".egg-info", ".dist-info")):
        return ""
    if name.startswith(".env"):
        return "secrets"
    if name.startswith("."):
        return ""
    if name.lower().endswith(SECRET_SUFFIXES) or name in SECRET_NAMES:
        return "a secret key"
    return None
