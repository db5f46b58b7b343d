"""Wheels written by our own code: the same input gives the same bytes.

A wheel is a zip archive of the files to install and a ``.dist-info`` directory with ``METADATA``,
``WHEEL`` and ``RECORD`` (https://packaging.python.org/specifications/binary-distribution-format).
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelbeam.errors import PackageError
from modelbeam.package.installed import Installed
from modelbeam.package.items import LooseModule, ModelFile
from modelbeam.package.modules import files_of, is_left_out

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file in an archive: the first that zip knows."""

_WHEEL = "Wheel-Version: 1.0\nGenerator: modelbeam\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_INSTALLERS_OWN = frozenset(
    {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json",
     "uv_cache.json", "uv_build.json"}
)  # fmt: skip
"""Files of a ``.dist-info`` that whoever installs a wheel writes."""


def write_wheel(
    directory: Path,
    name: str,
    version: str,
    contents: Mapping[str, bytes | Path],
    dist_info: Mapping[str, bytes],
) -> Path:
    """Write a wheel of the given files.

    Args:
        directory: where to write it.
        name: of the distribution.
        version: the same.
        contents: path in the archive to bytes, or to the file that has them.
        dist_info: name to bytes; ``METADATA`` and ``WHEEL`` must be there. ``RECORD`` is made.
    """
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version.replace('-', '_')}"
    tags = re.findall(r"^Tag: *(\S+)", dist_info["WHEEL"].decode(), re.MULTILINE)
    info = f"{stem}.dist-info"
    members: dict[str, bytes | Path] = dict(sorted(contents.items()))
    members.update({f"{info}/{key}": value for key, value in sorted(dist_info.items())})
    target = directory / f"{stem}-{_compressed(tags)}.whl"
    directory.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    record = []
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, value in members.items():
            data = value.read_bytes() if isinstance(value, Path) else value
            executable = isinstance(value, Path) and os.access(value, os.X_OK)
            _add(archive, path, data, executable)
            record.append(f"{_quoted(path)},sha256={_hash(data)},{len(data)}")
        record.append(f"{info}/RECORD,,")
        _add(archive, f"{info}/RECORD", ("\n".join(record) + "\n").encode(), False)
    return settle(partial, target)


def settle(partial: Path, target: Path) -> Path:
    """Move a finished file into place, unless the same bytes are there already."""
    if target.is_file() and target.read_bytes() == partial.read_bytes():
        partial.unlink()
    else:
        os.replace(partial, target)
    return target


def _add(archive: zipfile.ZipFile, path: str, data: bytes, executable: bool) -> None:
    entry = zipfile.ZipInfo(path, EPOCH)
    entry.create_system = 3  # permissions are Unix's
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if "," in path or '"' in path else path


def _compressed(tags: Iterable[str]) -> str:
    """Several tags as one, as file names have it: ``py2.py3-none-any``."""
    parts = [tag.split("-") for tag in tags]
    if not parts or any(len(part) != 3 for part in parts):
        return "py3-none-any"
    return "-".join(".".join(dict.fromkeys(p[n] for p in parts)) for n in range(3))


def model_wheel(model: ModelFile, directory: Path) -> Path:
    """Write the wheel of a model that is a file or a directory; its version is of its content."""
    files = files_of(model.path)[0] if model.path.is_dir() else [model.path, *model.beside]
    below = model.path.parent
    contents = {f"{model.package}/{f.relative_to(below).as_posix()}": f for f in files}
    name = model.package.replace("_", "-")
    summary = f"The model {model.path.name}, packed by modelbeam for its workers"
    return _write_own(directory, name, contents, summary, [], None)


def loose_wheel(module: LooseModule, versions: Mapping[str, str], directory: Path) -> Path:
    """Write the wheel of a file or directory that no distribution owns.

    Its version is made of its contents, so that an older one is never taken for it.

    Args:
        module: what to pack.
        versions: of the distributions that it imports, which its metadata requires.
        directory: where to write it.
    """
    if module.path.is_dir():
        files, _ = files_of(module.path)
        below = module.path.parent
    else:
        files, below = [module.path, *module.files], module.path.parent
    contents = {file.relative_to(below).as_posix(): file for file in files}
    name = f"modelbeam-loose-{module.module.replace('_', '-').strip('-')}"
    requires = sorted(f"{each}=={versions[each]}" for each in module.requires if each in versions)
    summary = f"The module {module.module}, packed by modelbeam for its workers"
    return _write_own(directory, name, contents, summary, requires, module.module)


def _write_own(
    directory: Path,
    name: str,
    contents: Mapping[str, Path],
    summary: str,
    requires: list[str],
    top_level: str | None,
) -> Path:
    """Write a wheel of files that no distribution owns; its version is made of its contents."""
    digest = hashlib.sha256()
    for path, file in contents.items():
        digest.update(f"{path}\0{_hash(file.read_bytes())}\0".encode())
    digest.update("\0".join(requires).encode())
    version = f"0.{int.from_bytes(digest.digest()[:6], 'big')}"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata.append(f"Summary: {summary}")
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    info = {"METADATA": ("\n".join(metadata) + "\n").encode(), "WHEEL": _WHEEL.encode()}
    if top_level is not None:
        info["top_level.txt"] = f"{top_level}\n".encode()
    return write_wheel(directory, name, version, contents, info)


def installed_wheel(one: Installed, directory: Path) -> Path:
    """Write the wheel of a distribution again from its installed files, by its ``RECORD``.

    What it was installed from may be gone, or have changed since.

    Raises:
        PackageError: files of it are missing.
    """
    contents: dict[str, bytes | Path] = {}
    info: dict[str, bytes] = {}
    scripts = _generated_scripts(one)
    missing = []
    for path in one.record:
        file = one.root / path
        head, _, rest = path.partition("/")
        if path.endswith(".pyc") or (head.endswith(".dist-info") and rest in _INSTALLERS_OWN):
            continue
        place: str | None = path
        if path.startswith("../") or os.path.isabs(path):
            place = _data_place(one, file, scripts)
        if place is None:
            continue
        if not file.is_file():
            missing.append(path)
        elif head.endswith(".dist-info"):
            info[rest] = file.read_bytes()
        else:
            contents[place] = _portable_script(file) if ".data/scripts/" in place else file
    if missing or "METADATA" not in info:
        raise PackageError(
            f"{one.name} {one.version} is not complete in {one.root}"
            + (f": {', '.join(missing[:3])} missing" if missing else "")
            + f". Install it again: pip install --force-reinstall --no-deps {one.origin}"
        )
    if one.name == "modelbeam":
        info["WHEEL"] = _WHEEL.encode()
    return write_wheel(directory, one.name, one.version, contents, info)


def own_wheel(one: Installed, package: Path, directory: Path) -> Path:
    """Write modelbeam's own wheel of the files that run here.

    It says that it is for any platform: its decoder in C is optional, and is looked for under a
    name that has the platform and the version of Python in it.

    Args:
        one: modelbeam, as it is installed.
        package: the directory of its package.
        directory: where to write it.
    """
    files, _ = files_of(package)
    contents = {f"modelbeam/{file.relative_to(package).as_posix()}": file for file in files}
    texts = {n: one.metadata.read_text(n) for n in ("METADATA", "PKG-INFO", "entry_points.txt")}
    info = {"METADATA": (texts["METADATA"] or texts["PKG-INFO"] or "").encode()}
    if texts["entry_points.txt"]:
        info["entry_points.txt"] = texts["entry_points.txt"].encode()
    info["WHEEL"] = _WHEEL.encode()
    return write_wheel(directory, one.name, one.version, contents, info)


def normalized(wheel: Path, directory: Path) -> Path:
    """Write a wheel that a build backend made again, in our order and without its dates."""
    contents: dict[str, bytes | Path] = {}
    info: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            head, _, rest = entry.filename.partition("/")
            if entry.is_dir():
                continue
            if not head.endswith(".dist-info"):
                if is_left_out(os.path.basename(entry.filename)) is None:
                    contents[entry.filename] = archive.read(entry)
            elif rest not in _INSTALLERS_OWN:
                info[rest] = archive.read(entry)
    name, version = wheel.name.split("-")[:2]
    return write_wheel(directory, name, version, contents, info)


def contents_of(wheel: Path) -> dict[str, bytes]:
    """The Python files and data of a wheel; what is compiled may differ from worker to worker."""
    compiled = (".so", ".pyd", ".dylib")
    with zipfile.ZipFile(wheel) as archive:
        return {
            entry.filename: archive.read(entry)
            for entry in archive.infolist()
            if not re.match(r"[^/]+\.(dist-info|data)/", entry.filename)
            and not entry.filename.endswith(compiled)
        }


def _generated_scripts(one: Installed) -> set[str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(one.metadata.read_text("entry_points.txt") or "")
    sections = ("console_scripts", "gui_scripts")
    return {key for section in sections if parser.has_section(section) for key in parser[section]}


def _data_place(one: Installed, file: Path, scripts: set[str]) -> str | None:
    """Where a file outside of the modules' directory goes in a wheel; ``None`` for nowhere."""
    path = os.path.relpath(os.path.normpath(file), sys.prefix)
    head, _, rest = path.partition(os.sep)
    if head == ".." or not rest:
        return None
    data = f"{re.sub(r'[-_.]+', '_', one.name)}-{one.version.replace('-', '_')}.data"
    if head == "bin":
        return None if rest in scripts else f"{data}/scripts/{rest}"
    return f"{data}/data/{path.replace(os.sep, '/')}"


def _portable_script(file: Path) -> bytes:
    data = file.read_bytes()
    first, newline, rest = data.partition(b"\n")
    return b"#!python" + newline + rest if re.match(rb"#!.*python", first) else data
