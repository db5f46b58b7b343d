"""From ``--model`` to the list of all that its workers need."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from modelbeam.errors import PackageError, RequestError
from modelbeam.job.description import ModelSpec
from modelbeam.machine import module_path
from modelbeam.models import Target, kind_of
from modelbeam.models.handed import modules_in
from modelbeam.package.installed import Closure, Environment, Installed
from modelbeam.package.items import (
    Item,
    LocalPackage,
    LooseModule,
    ModelFile,
    PackageList,
    Requirement,
    canonical,
)
from modelbeam.package.modules import (
    Found,
    Import,
    files_of,
    find_model,
    imports_of,
    locate,
    opened_beside,
    searching,
)
from modelbeam.package.versions import python_version

BEAM = "apache-beam"
LARGE = 200 << 20
"""Bytes of a loose package above which the user is told; it is read at every submission."""

_SOURCES = {
    "editable": "editable, from",
    "directory": "installed from",
    "archive": "installed from",
    "vcs": "installed from",
}


def package_list(
    models: ModelSpec | str | Sequence[ModelSpec | str],
    loaded: Iterable[str] = (),
    requires: Iterable[str] = (),
) -> PackageList:
    """Work out what the workers need for these models.

    A distribution from an index becomes a pinned requirement; one from anywhere else (a directory,
    a file, a repository) a wheel; a module that no distribution owns a wheel that we write. All
    that they require comes along, in the versions that are installed here; and modelbeam itself.
    Beam and what it alone requires are the workers' own.

    Args:
        models: one or several, as ``--model`` has them.
        loaded: names of modules that were loaded with the model, if that is known: for a loose
            module it tells what its code does not, such as the library behind a pickle.
        requires: distributions that the loaded models named; see :class:`.models.ModelInfo`.

    Raises:
        ModelNotFoundError: there is no such module.
        PackageError: one cannot travel: it is a notebook's, inside an archive, or spread over
            several directories.
    """
    listed = [models] if isinstance(models, (ModelSpec, str)) else list(models)
    targets: list[Target] = []
    for model in listed:
        try:
            target = ModelSpec.parse(model).target
            targets += target.leaves
        except ValueError as error:
            raise RequestError(f"--model {model}: {error}.") from None
    path = module_path()
    with searching(path):
        return _Listing(path).of(targets, loaded, requires)


class _Listing:
    """Gathers the items of one list."""

    def __init__(self, path: list[str]) -> None:
        self._environment = Environment(path)
        self._closure = Closure(self._environment, stop=frozenset({BEAM}))
        self._loose: dict[str, Found] = {}
        self._loose_why: dict[str, str] = {}
        self._loose_requires: dict[str, dict[str, None]] = {}
        self._beside: dict[str, list[Path]] = {}
        self._read: set[str] = set()
        self._warnings: list[str] = []

    def of(
        self, targets: Sequence[Target], loaded: Iterable[str], requires: Iterable[str]
    ) -> PackageList:
        files = []
        for name in requires:
            self._closure.add(name, "the model requires it")
        for target in targets:
            kind = kind_of(target)  # refuses what nothing here can load
            if target.handed is not None:
                self._closure.add("cloudpickle", "unpacks the model")
                for name in modules_in(target.handed.content):
                    module = locate(name)
                    if module is not None:
                        self._visit(module, "the model uses it", None)
                continue
            why = "the model's module" if target.form == "class" else f"loads {kind.name} models"
            self._visit(find_model(target), why, None)
            if target.form in ("file", "directory"):
                path = target.local()
                beside = tuple(map(Path, kind.files_beside(path)))
                files.append(ModelFile(target.package, Path(path), "the model", beside))
        if self._loose:
            for name in sorted(set(loaded)):
                self._follow(Import(name, False), "the model loads it", next(iter(self._loose)))
        for_model = set(self._closure.found)
        beam_for_model = BEAM in self._closure.met
        if self._environment.find("modelbeam") is None:
            raise PackageError(
                "modelbeam runs here without being installed, so there is nothing to bring to the "
                "workers. Install it with pip; pip install -e will do."
            )
        self._closure.add("modelbeam", "runs the model")
        items: list[Item] = []
        for key, (installed, why) in self._closure.found.items():
            items.append(self._item(installed, why, key in for_model))
        for missing, why in self._closure.missing:
            self._warnings.append(
                f"{missing} is not installed here, and {why}; the workers get it from their index, "
                f"in the newest version that fits."
            )
        conda = [
            installed.name
            for installed, _ in self._closure.found.values()
            if (installed.metadata.read_text("INSTALLER") or "").strip() == "conda"
        ]
        if conda:
            self._warnings.append(
                f"{', '.join(conda[:3])}{' …' if len(conda) > 3 else ''} came with conda; the "
                f"workers get the same versions from the index that pip uses."
            )
        beam = self._environment.find(BEAM)
        # a loose module may import another one; both come after all that is installed
        items += [self._loose_item(module) for module in reversed(self._loose)]
        items += files
        return PackageList(
            targets=tuple(targets),
            items=tuple(items),
            python=python_version(),
            beam=beam.version if beam else "",
            beam_for_model=beam_for_model,
            warnings=tuple(dict.fromkeys(self._warnings)),
        )

    def _visit(self, found: Found, why: str, importer: str | None) -> None:
        """Take in a module: its distribution, or, if it has none, itself with what it imports."""
        owner = self._environment.owner(found.file, found.name) if found.file else None
        if owner is not None:
            if importer is not None:
                self._loose_requires[importer][owner.name] = None
            self._closure.add(owner.name, why if importer is None else f"{importer} imports it")
            return
        if found.file is None:
            return  # a bare namespace: what is taken from it is found by its own name
        top = found.name.partition(".")[0]
        if top not in self._loose:
            self._add_loose(found, why)
        elif not _is_below(found.file, self._loose[top]):
            raise PackageError(
                f"the module '{found.name}' is in the namespace '{top}', which is spread over "
                f"{self._loose[top].top} and {found.top}. It can be brought to workers only as a "
                f"distribution: write a pyproject.toml and install it with pip."
            )
        self._read_code(found)
        parts = found.name.split(".")
        for count in range(1, len(parts)):
            parent = locate(".".join(parts[:count]))
            if parent is not None:
                self._read_code(parent)

    def _add_loose(self, found: Found, why: str) -> None:
        top = found.name.partition(".")[0]
        package = found if found.name == top else locate(top)
        if package is None or package.top is None:
            raise PackageError(f"the module '{found.name}' is not a file that could be sent along.")
        if package.file is None:  # of a namespace only the part that has the module
            package = replace(package, top=found.top)
        self._loose[top] = package
        self._loose_why[top] = why
        self._loose_requires[top] = {}
        hidden = self._environment.named_like(top)
        if hidden is not None:
            self._warnings.append(
                f"the module {package.top} hides the one of the same name in the installed "
                f"{hidden.name} {hidden.version}; the workers get the former."
            )

    def _read_code(self, found: Found) -> None:
        top = found.name.partition(".")[0]
        if found.name in self._read or found.file is None:
            return
        self._read.add(found.name)
        if found.code is None:
            self._warnings.append(
                f"{found.file} is a compiled module: workers of another platform or Python cannot "
                f"load it, and what it imports is not known."
            )
            return
        try:
            code = found.code.read_text(encoding="utf-8")
            imports = imports_of(code, found.name, bool(found.directories))
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise PackageError(f"{found.code} cannot be read as Python: {error}") from None
        for each in imports:
            self._follow(each, f"{found.name} imports it", top)
        if not self._loose[top].directories:
            self._look_beside(top, code, found.code)

    def _follow(self, each: Import, why: str, importer: str) -> None:
        top = each.name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return
        try:
            found = _deepest(each.name)
            if found is None:
                if each.required:
                    self._warnings.append(f"there is no module '{each.name}' here, and {why}.")
                return
            self._visit(found, why, importer)
            if found.file is None or top in self._loose:
                for name in each.inside:
                    inner = locate(f"{each.name}.{name}")
                    if inner is not None:
                        self._visit(inner, why, importer)
        except PackageError:
            if each.required:
                raise

    def _look_beside(self, top: str, code: str, file: Path) -> None:
        try:
            found, lost = opened_beside(code, file.parent)
        except SyntaxError:
            return
        self._beside[top] = found
        for path in lost:
            self._warnings.append(
                f"{file.name} names the file {path.name}, which does not travel with it. If the "
                f"model needs it, open it by Path(__file__).with_name({path.name!r}), or make a "
                f"package directory of both."
            )

    def _item(self, installed: Installed, why: str, for_model: bool) -> Item:
        if installed.source == "index":
            return Requirement(installed.name, installed.version, why, for_model)
        editable = installed.source == "editable"
        place = installed.project if editable and installed.project else installed.root
        compiled = [name for name in installed.record if name.endswith((".so", ".dylib"))]
        if compiled and canonical(installed.name) != "modelbeam":
            self._warnings.append(
                f"{installed.name} has compiled modules ({compiled[0]}), and its wheel is of this "
                f"machine: {sys.platform}, Python {python_version()}. Workers of another platform "
                f"need a worker image that it is built in."
            )
        why += f"; {_SOURCES[installed.source]} {installed.origin}"
        return LocalPackage(installed.name, installed.version, place, editable, why, for_model)

    def _loose_item(self, module: str) -> LooseModule:
        found = self._loose[module]
        assert found.top is not None
        path = Path(os.path.abspath(found.top))
        if path.is_dir():
            files, noted = files_of(path)
            size = sum(file.stat().st_size for file in files)
            if noted:
                self._warnings.append(f"not sent along with {module}: {', '.join(noted)}.")
            if size > LARGE:
                self._warnings.append(
                    f"{path} has {size >> 20} MB in {len(files)} files; all go to every worker."
                )
        return LooseModule(
            module=module,
            path=path,
            requires=tuple(self._loose_requires[module]),
            files=tuple(self._beside.get(module, ())),
            why=f"{self._loose_why[module]}; no distribution has it",
        )


def _is_below(file: str | None, package: Found) -> bool:
    places = package.directories if package.file else (package.top or "",)
    return file == package.file or any((file or "").startswith(p + os.sep) for p in places)


def _deepest(name: str) -> Found | None:
    """The module of that name, or its nearest parent that is one: ``a.b`` may be a variable."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        found = locate(".".join(parts[:count]))
        if found is not None:
            return found
    return None
