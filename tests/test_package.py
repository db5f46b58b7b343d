"""What travels to the workers: found in real environments, built, and installed as workers do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import environment

from modelbeam.errors import ModelNotFoundError, PackageError, RequestError
from modelbeam.models import Target
from modelbeam.package.build import Built, build, pip_command, worker_versions
from modelbeam.package.clean import clean_import
from modelbeam.package.flags import beam_flags, download
from modelbeam.package.image import check_directory, dockerfile, install_command, write_dockerfile
from modelbeam.package.items import LocalPackage, LooseModule, PackageList, Requirement
from modelbeam.package.listing import package_list
from modelbeam.package.modules import files_of, imports_of, opened_beside
from modelbeam.package.versions import compare, here

MODEL = """\
from schema import Schema

class Model:
    qualified_name, display_name, description = "m", "M", "d"
    major_version, minor_version = 1, 0
    input_schema = Schema({"x": float})
    output_schema = Schema({"y": float})

    def predict(self, data):
        return {"y": data["x"]}
"""

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "churn-model"
version = "1.2"
dependencies = ["schema>=0.7"]
"""

HATCH = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "churn"
version = "1.2"
dependencies = ["schema>=0.7"]
"""

SETUP = """\
from setuptools import setup
setup(name="churn_model", version="1.2", packages=["churn"], install_requires=["schema"])
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(directory: Path, files: dict[str, str]) -> Path:
    """Write files below a directory."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def project(directory: Path, **files: str) -> Path:
    """A project with the package ``churn`` in it."""
    package = {"churn/__init__.py": "", "churn/model.py": MODEL, "churn/weights.txt": "1 2 3\n"}
    return make(directory, {**package, **files})


def run(*command: object, **settings: Any) -> str:
    """Run a command; returns its output."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=240, **settings
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Venv:
    """A virtual environment that also has what this one has, and what other directories have."""

    def __init__(self, directory: Path, *more: Path, bare: bool = False) -> None:
        venv.create(directory, with_pip=False, symlinks=True)
        self.directory = directory
        self.python = directory / "bin" / "python"
        self.site = next(directory.glob("lib/python*/site-packages"))
        if not bare:
            parents = [*more, *(p for p in sys.path if p.endswith("site-packages"))]
            lines = [f"import site; site.addsitedir({str(parent)!r})\n" for parent in parents]
            (self.site / "parent.pth").write_text("".join(lines))

    def pip(self, *arguments: object, **settings: Any) -> None:
        """Install something into it."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        run(*pip, "install", "--quiet", *arguments, **settings)

    def ask(self, code: str, cwd: Path, **variables: str) -> Any:
        """Run code in it that prints JSON last."""
        out = run(self.python, "-c", code, cwd=cwd, env={**os.environ, **variables})
        return json.loads(out.splitlines()[-1])

    def build(self, target: str, output: Path, cwd: Path) -> dict[str, Any]:
        """``modelbeam package`` in it, with the wheels; a second build finds them in the cache."""
        code = (
            "import json, modelbeam.package.build as builder\n"
            "from modelbeam.package.listing import package_list\n"
            "build = builder.build\n"
            f"packages = package_list({target!r})\n"
            f"built = build(packages, {str(output)!r})\n"
            "builder._run_backend = None\n"
            f"build(package_list({target!r}), {str(output)!r})\n"
            "print(json.dumps({**packages.to_dict(),"
            " 'wheels': [w.name for w in built.wheels]}))"
        )
        found: dict[str, Any] = self.ask(code, cwd)
        return found


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build backends, installed once: an isolated build downloads them each time."""
    directory = tmp_path_factory.mktemp("backends")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", directory)
    run(*pip, "setuptools>=77", "hatchling", "editables")
    return directory


@pytest.fixture
def here_too(tmp_path: Path, backends: Path) -> Venv:
    """A new environment with all that this one has, and build backends."""
    return Venv(tmp_path / "venv", backends)


def item(found: dict[str, Any], name: str) -> dict[str, Any]:
    """One item of a list as ``--json`` has it."""
    return next(each for each in found["items"] if each["name"] == name)


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel, its metadata aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def small(*items: Any, target: str = "churn.model:Model") -> PackageList:
    """A list without modelbeam, whose libraries would take long to install."""
    return PackageList(
        (Target.parse(target),), items, f"3.{sys.version_info[1]}", "2.77.0", False, ()
    )


# Installed distributions


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("setuptools", {"pyproject.toml": PYPROJECT + "[tool.setuptools]\npackages = ['churn']\n"}),
        ("hatchling", {"pyproject.toml": HATCH}),
        ("setup.py", {"setup.py": SETUP, "MANIFEST.in": "include churn/weights.txt\n"}),
    ],
)
def test_an_editable_project_is_built_and_left_as_it_was(
    tmp_path, here_too, backends, layout, files
):
    place = project(tmp_path / "project", **files)
    here_too.pip("--no-deps", "--no-build-isolation", "--editable", place)
    before = tree(place)
    if layout == "setup.py":  # without a backend here pip has to fetch one
        (here_too.site / "parent.pth").write_text(
            (here_too.site / "parent.pth").read_text().replace(str(backends), "/nowhere")
        )
    found = here_too.build("churn.model:Model", tmp_path / "out", tmp_path)
    name = "churn" if layout == "hatchling" else "churn-model"
    shown = next(i for i in found["items"] if i["name"].replace("_", "-") == name)
    assert (shown["travels"], shown["editable"], shown["path"]) == ("wheel", True, str(place))
    assert item(found, "schema")["travels"] == "requirement"
    wheel = tmp_path / "out" / "wheels" / found["wheels"][0]
    assert {"churn/__init__.py", "churn/model.py"} <= names_in(wheel)
    assert tree(place) == before
    # a change is noticed, and the file that was built before is not
    (place / "churn" / "model.py").write_text(MODEL + "# changed\n")
    here_too.build("churn.model:Model", tmp_path / "out", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("churn/model.py").endswith(b"# changed\n")


def test_a_module_beside_an_editable_projects_packages_is_loose(tmp_path, here_too):
    named = HATCH.replace('"churn"', '"customers"') + (
        "[tool.hatch.build.targets.wheel]\npackages = ['churn']\n"
    )
    code = MODEL + "import churn.model\n"
    place = project(tmp_path / "project", **{"pyproject.toml": named, "score.py": code})
    here_too.pip("--no-deps", "--no-build-isolation", "--editable", place)
    found = here_too.ask(
        "import json; from modelbeam.package.listing import package_list\n"
        "print(json.dumps(package_list('score:Model').to_dict()))",
        tmp_path,
    )
    assert item(found, "customers")["editable"]
    assert item(found, "score")["path"] == str(place / "score.py")


@pytest.mark.parametrize("kind", ["directory", "wheel"])
def test_what_was_installed_from_elsewhere_is_packed_from_its_files(tmp_path, here_too, kind):
    extra = "[project.scripts]\nchurn = 'churn.model:Model'\n[tool.setuptools.package-data]\n"
    place = project(
        tmp_path / "project", **{"pyproject.toml": PYPROJECT + extra + "churn = ['*.txt']\n"}
    )
    source = place
    if kind == "wheel":
        pip = (here_too.python, "-m", "pip", "wheel", "--quiet", "--no-build-isolation")
        run(*pip, "--no-deps", "--wheel-dir", tmp_path / "dist", place)
        source = next((tmp_path / "dist").glob("*.whl"))
        original = names_in(source)
    here_too.pip("--no-deps", "--no-build-isolation", source)
    shutil.rmtree(place)
    shutil.rmtree(tmp_path / "dist", ignore_errors=True)
    found = here_too.build("churn.model:Model", tmp_path / "out", tmp_path)
    assert item(found, "churn-model")["editable"] is False
    assert "installed from" in item(found, "churn-model")["why"]
    wheel = tmp_path / "out" / "wheels" / "churn_model-1.2-py3-none-any.whl"
    assert names_in(wheel) == {"churn/__init__.py", "churn/model.py", "churn/weights.txt"}
    if kind == "wheel":
        assert names_in(wheel) == original
    fresh = Venv(tmp_path / "fresh", bare=True)
    fresh.pip("--no-deps", "--no-index", wheel)
    assert (fresh.directory / "bin" / "churn").exists()
    assert (fresh.site / "churn" / "weights.txt").read_text() == "1 2 3\n"


def test_a_repository_travels_as_a_wheel_and_its_password_is_not_shown(tmp_path, here_too):
    place = project(tmp_path / "project", **{"pyproject.toml": PYPROJECT})
    here_too.pip("--no-deps", "--no-build-isolation", place)
    direct = next(here_too.site.glob("churn_model-*/direct_url.json"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    direct.write_text(
        json.dumps(
            {
                "url": "https://me:secret@git.example.org/churn.git",
                "vcs_info": {"vcs": "git", "commit_id": commit},
            }
        )
    )
    found = here_too.build("churn.model:Model", tmp_path / "out", tmp_path)
    why = item(found, "churn-model")["why"]
    assert "https://git.example.org/churn.git@0123456789ab" in why
    assert "secret" not in json.dumps(found)
    assert found["wheels"][0].startswith("churn_model-1.2-")


def test_compiled_modules_are_told_of(tmp_path, here_too):
    place = project(
        tmp_path / "project",
        **{
            "pyproject.toml": PYPROJECT + "[tool.setuptools]\npackages = ['churn']\n",
            "setup.py": "from setuptools import Extension, setup\n"
            "setup(ext_modules=[Extension('churn._fast', ['fast.c'])])\n",
            "fast.c": "int PyInit__fast(void) { return 0; }\n",
        },
    )
    here_too.pip("--no-deps", "--no-build-isolation", place)
    found = here_too.build("churn.model:Model", tmp_path / "out", tmp_path)
    assert any("compiled modules (churn/_fast" in warning for warning in found["warnings"])
    assert "none-any" not in found["wheels"][0]


def test_all_that_the_model_requires_is_pinned_and_modelbeam_comes_along():
    packages = package_list("iris_model.iris_predict:IrisModel")
    pinned = {r.name: r for r in packages.requirements}
    assert pinned["scikit-learn"].for_model
    assert pinned["numpy"].version
    assert not pinned["orjson"].for_model
    assert "apache-beam" not in pinned
    assert "grpcio" not in pinned  # Beam's own
    names = [getattr(i, "name", "") for i in packages.items]
    assert names.index("schema") < names.index("iris_model")
    assert "modelbeam" in names
    assert packages.beam


def test_two_models_share_a_list():
    packages = package_list(["iris_model.iris_predict:IrisModel", "iris_ml_base.model:IrisModel"])
    local = [i.name for i in packages.items if isinstance(i, LocalPackage)]
    assert {"iris_model", "iris_ml_base"} <= set(local)


def test_modelbeams_own_wheel_is_for_any_platform(tmp_path):
    built = build(package_list("iris_model.iris_predict:IrisModel"), tmp_path)
    wheel = next(w for w in built.wheels if w.name.startswith("modelbeam-"))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "modelbeam/formats/jsonl/columns.c" in names_in(wheel)
    assert "modelbeam/report/page/page.css" in names_in(wheel)
    assert "modelbeam/beam/predict.py" in names_in(wheel)


# Loose modules


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def loose(packages: PackageList) -> dict[str, LooseModule]:
    """The loose modules of a list."""
    return {i.module: i for i in packages.items if isinstance(i, LooseModule)}


def test_a_file_travels_with_the_files_that_it_imports_and_their_libraries(work):
    make(
        work,
        {
            "score.py": "import helpers\nfrom features import build\n" + MODEL,
            "helpers.py": "import json, numpy as np\n",
            "features/__init__.py": "",
            "features/build.py": "from . import names\nfrom yaml import safe_load\n",
            "features/names.py": "def f():\n    import joblib\n",
            "features/data.bin": "x",
            "unrelated.py": "import polars\n",
        },
    )
    packages = package_list("score:Model")
    found = loose(packages)
    assert set(found) == {"score", "helpers", "features"}
    assert found["score"].requires == ("schema",)
    assert found["helpers"].requires == ("numpy",)
    assert set(found["features"].requires) == {"PyYAML", "joblib"}
    needed = {r.name for r in packages.requirements if r.for_model}
    assert {"numpy", "PyYAML", "joblib", "schema"} <= needed
    assert packages.warnings == ()


def test_a_package_directory_travels_whole_and_without_what_is_not_its_own(work):
    project(
        work,
        **{
            "churn/data/weights.bin": "w",
            "churn/.env": "PASSWORD=1",
            "churn/.env.production": "PASSWORD=1",
            "churn/.git/config": "",
            "churn/.hidden": "",
            "churn/server.pem": "key",
            "churn/id_rsa": "key",
            "churn/.venv/pyvenv.cfg": "",
            "churn/env/pyvenv.cfg": "",
            "churn/env/lib/x.py": "",
            "churn/__pycache__/model.cpython-311.pyc": "",
            "big/data.jsonl": "{}",
            ".env": "PASSWORD=1",
            "other.py": "",
        },
    )
    (work / "churn" / "linked").symlink_to(work / "big")
    (work / "churn" / "link.txt").symlink_to(work / "big" / "data.jsonl")
    packages = package_list("churn.model:Model")
    wheel = build(packages, work / "out").wheels[-1]
    assert names_in(wheel) == {
        "churn/__init__.py",
        "churn/model.py",
        "churn/weights.txt",
        "churn/data/weights.bin",
        "churn/link.txt",
    }
    said = " ".join(packages.warnings)
    for name in (".env (secrets)", ".env.production", "server.pem", "id_rsa", "linked (a link"):
        assert name in said
    assert not re.search(r"PASSWORD|\.git|\.hidden", said)


def test_a_directory_without_init_is_a_package_too(work):
    make(work, {"models/churn.py": MODEL, "models/weights.txt": "1"})
    packages = package_list("models.churn:Model")
    assert names_in(build(packages, work / "out").wheels[-1]) == {
        "models/churn.py",
        "models/weights.txt",
    }


def test_a_file_that_a_module_opens_beside_itself_travels(work):
    code = MODEL + "from pathlib import Path\nW = Path(__file__).with_name('weights.json')\n"
    make(work, {"score.py": code, "weights.json": "{}", "other.json": "{}", ".env": ""})
    assert loose(package_list("score:Model"))["score"].files == (work / "weights.json",)
    make(work, {"score2.py": MODEL + "open('weights.json')\n"})
    packages = package_list("score2:Model")
    assert loose(packages)["score2"].files == ()
    assert "names the file weights.json, which does not travel" in packages.warnings[0]


def test_what_the_model_had_loaded_counts_for_a_loose_module(work):
    make(work, {"score.py": MODEL})
    packages = package_list(
        "score:Model", loaded=["score", "sklearn.tree._tree", "json", "nothing"]
    )
    assert "scikit-learn" in loose(packages)["score"].requires
    assert "scipy" in {r.name for r in packages.requirements if r.for_model}


def test_what_is_imported_and_not_there_is_told(work):
    code = "try:\n    import notthere\nexcept ImportError:\n    pass\nimport missing_module\n"
    make(work, {"score.py": code + MODEL})
    packages = package_list("score:Model")
    assert packages.warnings == ("there is no module 'missing_module' here, and score imports it.",)


def test_a_module_that_hides_an_installed_one_is_told_of(work, monkeypatch):
    make(work, {"schema.py": "Schema = dict\n", "score.py": MODEL})
    monkeypatch.setattr(sys, "path", [str(work), *sys.path])
    packages = package_list("score:Model")
    assert re.search(
        r"schema\.py hides the one of the same name in the installed schema", *packages.warnings
    )
    assert set(loose(packages)) == {"score", "schema"}


def test_several_relative_imports_and_calls_are_understood():
    code = (
        "from .. import a\nfrom ..b.c import d\nfrom . import e\nimport importlib\n"
        "importlib.import_module('f.g')\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import pandas\n"
    )
    names = {each.name: each.inside for each in imports_of(code, "top.sub.mod", False)}
    assert names["top"] == ("a",)
    assert names["top.b.c"] == ("d",)
    assert names["top.sub"] == ("e",)
    assert "f.g" in names
    assert "pandas" not in names
    assert imports_of("from . import x", "top.sub", True)[0].name == "top.sub"


# What cannot travel


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("__main__:Model", PackageError, "defined in a notebook or in the script"),
        ("nothing.here:Model", ModelNotFoundError, "there is no module 'nothing.here'"),
        ("models:Model", PackageError, "a directory without __init__.py and not a module"),
        ("zipped:Model", PackageError, "is inside the archive"),
        ("zipped.inner:Model", PackageError, "is inside the archive"),
        ("space.model:Model", PackageError, "namespace 'space', which is spread over"),
        ("broken:Model", PackageError, "cannot be read as Python"),
    ],
)
def test_what_cannot_travel_is_one_clear_error(work, monkeypatch, target, error, message):
    make(
        work,
        {
            "models/m.py": "",
            "a/space/model.py": "import space.o",
            "b/space/o.py": "",
            "broken.py": "(",
        },
    )
    with zipfile.ZipFile(work / "z.zip", "w") as archive:
        archive.writestr("zipped/__init__.py", MODEL)
        archive.writestr("zipped/inner.py", MODEL)
    extra = [str(work / name) for name in ("z.zip", "a", "b")]
    monkeypatch.setattr(sys, "path", [*sys.path, *extra])
    with pytest.raises(error, match=re.escape(message)):
        package_list(target)


def test_an_installed_package_that_lost_files_is_refused(tmp_path, here_too):
    place = project(tmp_path / "project", **{"pyproject.toml": PYPROJECT})
    here_too.pip("--no-deps", "--no-build-isolation", place)
    (here_too.site / "churn" / "model.py").unlink()
    with pytest.raises(AssertionError, match="is not complete in"):
        here_too.build("churn:Model", tmp_path / "out", tmp_path)


def test_a_project_that_cannot_be_built_says_what_its_backend_said(tmp_path, here_too):
    place = project(tmp_path / "project", **{"setup.py": SETUP})
    here_too.pip("--no-deps", "--no-build-isolation", "--editable", place)
    (place / "setup.py").write_text("raise RuntimeError('no compiler, error 7')\n")
    with pytest.raises(AssertionError, match=r"churn.model could not be built.*error 7"):
        here_too.build("churn.model:Model", tmp_path / "out", tmp_path)


# The same input gives the same bytes


def digests(built: Built) -> dict[str, str]:
    """The wheels' names and contents."""
    return {w.name: hashlib.sha256(w.read_bytes()).hexdigest() for w in built.wheels}


def test_the_same_contents_give_the_same_bytes(work):
    project(work)
    first = build(package_list("churn.model:Model"), work / "one")
    for path in (work / "churn").iterdir():
        os.utime(path, (1, 1))
    second = build(package_list("churn.model:Model"), work / "two")
    assert digests(first) == digests(second)
    assert first.requirements.read_bytes() == second.requirements.read_bytes()
    (work / "churn" / "weights.txt").write_text("4\n")
    third = build(package_list("churn.model:Model"), work / "two")
    changed = set(digests(third)) - set(digests(first))
    assert len(changed) == 1  # its version is made of its contents
    assert {p.name for p in (work / "two" / "wheels").iterdir()} == set(digests(third))


# What Beam is told


@pytest.fixture
def few(work: Path) -> Built:
    """A loose module, and one small requirement."""
    project(work)
    version = {r.name: r.version for r in package_list("churn.model:Model").requirements}["schema"]
    module = loose(package_list("churn.model:Model"))["churn"]
    return build(small(Requirement("schema", version, ""), module), work / "out")


def test_the_workers_install_it_without_an_index(few, tmp_path):
    """What Beam stages of the flags, installed as ``boot`` does (piputil.go)."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.stager import Stager

    flags = beam_flags(few)
    assert "--requirements_cache=skip" in flags
    staged = tmp_path / "staged"
    scratch = tmp_path / "scratch"
    for directory in (staged, scratch):
        directory.mkdir()
    resources = Stager.create_job_resources(
        PipelineOptions(flags), str(scratch), log_submission_env_dependencies=False
    )
    for source, name, _ in Stager.extract_staging_tuple_iter(resources):
        shutil.copy(source, staged / name)
    assert {"requirements.txt", "extra_packages.txt", few.wheels[0].name} <= set(os.listdir(staged))
    worker = Venv(tmp_path / "worker", bare=True)
    no_index = {"env": {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}}
    wanted = ("-r", staged / "requirements.txt", "--no-cache-dir")
    worker.pip(*wanted, "--no-index", "--no-deps", "--find-links", staged, **no_index)
    worker.pip(*wanted, "--find-links", staged, **no_index)
    for name in (staged / "extra_packages.txt").read_text().split():
        forced = ("--upgrade", "--force-reinstall", "--no-deps")
        worker.pip("--no-cache-dir", *forced, staged / name, **no_index)
        worker.pip("--no-cache-dir", staged / name, **no_index)
    check = "import churn.model; print(churn.model.Model().predict({'x': 1.0})['y'])"
    assert run(worker.python, "-I", "-c", check, cwd=tmp_path) == "1.0\n"


def test_downloads_are_kept(few):
    first = download(few)
    assert [wheel.name.split("-")[0] for wheel in first] == ["schema"]
    times = [wheel.stat().st_mtime_ns for wheel in first]
    assert [wheel.stat().st_mtime_ns for wheel in download(few)] == times


def test_what_the_index_does_not_have_is_packed_or_refused(work, monkeypatch):
    def failing(pinned: list[str], *_: object) -> str:
        return f"No matching distribution found for {pinned[0]}"

    monkeypatch.setattr("modelbeam.package.flags._pip_download", failing)
    schema = next(r for r in package_list("ml_base:MLModel").requirements if r.name == "pydantic")
    built = build(small(schema), work / "out")
    assert download(built)[0].name.startswith("pydantic-")
    built = build(small(Requirement("no-such-thing", "1.0", "")), work / "out")
    with pytest.raises(PackageError, match=r"no wheel of no-such-thing==1\.0 for the workers"):
        download(built)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--sdk_container_image=eu.gcr.io/me/image:1"], []),
        (["--environment_type=LOOPBACK"], []),
        (["--requirements_cache=skip"], ["extra_package", "requirements_file"]),
        (["--requirements_cache=/cache"], ["extra_package", "requirements_file"]),
        (["--requirements_file=mine.txt"], ["extra_package"]),
        (
            ["--extra_package=/dist/modelbeam_loose_churn-9-py3-none-any.whl",
             "--requirements_cache=skip"],
            ["requirements_file"],
        ),
    ],
)  # fmt: skip
def test_what_is_given_by_hand_is_respected(few, given, expected):
    flags = beam_flags(few, given)
    assert [flag.partition("=")[0].removeprefix("--") for flag in flags] == expected


def test_pip_is_found_where_the_environment_has_none(few, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "pip" else find(n))
    command = pip_command()
    assert "_bundled" in command[1] or "uv" in command[0]
    assert [wheel.name.split("-")[0] for wheel in download(few)] == ["schema"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PackageError, match="neither pip in"):
        pip_command()


# The worker image


def test_the_dockerfile_installs_what_was_built(few, tmp_path):
    write_dockerfile(few)
    text = dockerfile(few)
    logical = re.sub(r"\\\n", " ", text)
    steps = [line.split(None, 1) for line in logical.splitlines() if line and line[0] != "#"]
    minor = sys.version_info[1]
    assert steps[0] == ["FROM", f"apache/beam_python3.{minor}_sdk:2.77.0"]
    assert steps[-1] == ["ENTRYPOINT", '["/opt/apache/beam/boot"]']
    assert [step[0] for step in steps] == ["FROM", "COPY", "RUN", "ENV", "ENTRYPOINT"]
    # COPY and RUN, where the base image is an environment that has apache-beam
    image = Venv(tmp_path / "image", bare=True)
    beam = make(
        image.site,
        {"apache_beam-2.77.0.dist-info/METADATA": "Name: apache-beam\nVersion: 2.77.0\n"},
    )
    make(
        beam,
        {
            "apache_beam-2.77.0.dist-info/RECORD": "",
            "apache_beam-2.77.0.dist-info/INSTALLER": "pip",
        },
    )
    *sources, target = shlex.split(steps[1][1])
    copied = tmp_path / target.lstrip("/")
    copied.mkdir(parents=True)
    for source in sources:
        path = few.directory / source
        for file in path.iterdir() if path.is_dir() else [path]:
            shutil.copy(file, copied)
    install, check = (part.strip() for part in steps[2][1].split("&&"))
    assert install == install_command(few.packages)
    words = install.removeprefix("python -m pip install").replace("/opt/modelbeam", str(copied))
    wheels = [str(path) for path in copied.glob("*.whl")]
    arguments = [a for word in words.split() for a in (wheels if "*" in word else [word])]
    image.pip(*arguments)
    assert "import churn.model, modelbeam.beam.on_worker" in check
    run(image.python, "-I", "-c", "import churn.model")


def test_a_dockerfile_of_somebodys_own_is_not_written_over(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(RequestError, match="a Dockerfile that modelbeam did not write"):
        check_directory(tmp_path)


# The doctor's question


def test_a_model_loads_with_its_list_alone(work, tmp_path):
    clean_import(build(package_list("iris_ml_base.model:IrisModel"), tmp_path / "out"))
    project(work)
    clean_import(build(package_list("churn.model:Model"), tmp_path / "out2"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def predict(): pass\n__import__('yam' + 'l')\n", "would not have the module 'yaml'"),
        ("raise ValueError('no file')\n", "raises ValueError .*score.py:1.*: no file"),
        ("import os\nos._exit(3)\n", "its process died"),
        ("class Model:\n    def __init__(self):\n        import joblib_x\n", "'joblib_x'"),
    ],
)
def test_what_the_list_lacks_is_named(work, code, message):
    make(work, {"score.py": code})
    with pytest.raises(PackageError, match=message):
        clean_import(build(package_list("score:Model"), work / "out"))


# The workers' versions


def test_the_submission_agrees_with_itself_and_not_with_an_older_copy(work, monkeypatch):
    project(work)
    monkeypatch.setattr(sys, "path", [*sys.path, str(work)])
    expected = worker_versions(build(package_list("churn.model:Model"), work / "out"))
    assert expected["file:churn/model.py"]
    assert {"python", "apache-beam", "modelbeam", "schema"} <= expected.keys()
    assert "rich" not in expected  # modelbeam's own libraries may differ
    compare(expected, here(expected))


# The command


@pytest.fixture
def command(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``modelbeam package`` in the working directory."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelbeam", "package", *arguments],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=work,
        )

    return call


def test_a_mac_pins_what_linux_workers_need_too(work, monkeypatch):
    info = {"METADATA": "Name: torchy\nVersion: 1\nRequires-Dist: schema; sys_platform=='linux'\n"
            "Requires-Dist: nvidia-x; platform_machine=='x86_64' and sys_platform=='linux'\n",
            "RECORD": "torchy.py,,\n", "INSTALLER": "conda\n"}  # fmt: skip
    make(work, {"torchy.py": "", **{f"torchy-1.dist-info/{k}": v for k, v in info.items()}})
    monkeypatch.setattr(sys, "path", [*sys.path, str(work)])
    monkeypatch.setattr(sys, "platform", "darwin")
    packages = package_list("torchy:Model")
    assert {"torchy", "schema"} <= {r.name for r in packages.requirements if r.for_model}
    assert packages.warnings[0].startswith("nvidia-x is not installed here, and torchy requires it")
    assert packages.warnings[1].startswith("torchy came with conda")


def test_the_command_shows_the_list(work, command):
    project(work)
    done = command("--model", "churn.model:Model")
    assert done.returncode == 0
    header, beam, first, *_ = done.stdout.splitlines()
    assert header.split() == ["name", "version", "travels", "as", "why"]
    assert beam.split()[0] == "apache-beam"
    assert re.match(r"churn +wheel +the model's module; no distribution has it", first)


def test_the_command_builds_it(work, command):
    project(work)
    done = command("-m", "churn.model:Model", "-o", "worker", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)["written"]
    assert [Path(w).name for w in written[-2:]] == ["requirements.txt", "Dockerfile"]
    assert all(Path(w).is_file() for w in written)
    text = (work / "worker" / "requirements.txt").read_text()
    assert re.search(r"^schema==[\d.]+$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "nothing:Model"], "there is no module 'nothing'"),
        (["-m", "churn"], "as 'module:Class'"),
        (["-m", "churn.model:Model", "--outputs", "x"], "unknown flag --outputs; did you mean"),
        (["-m", "churn.model:Model", "-o", "churn/model.py"], "is a file"),
    ],
)
def test_a_wrong_request_is_one_sentence(work, command, arguments, message):
    project(work)
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_left_out_files_have_a_reason(work):
    make(work, {"a.py": "", ".env": "", "k.key": "", "b.pyc": ""})
    files, noted = files_of(work)
    assert [f.name for f in files] == ["a.py"]
    assert noted == [".env (secrets)", "k.key (a secret key)"]
    assert opened_beside("open('a.py'); open('/etc/passwd')", work) == ([], [])
