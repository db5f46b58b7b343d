"""The Dockerfile of a worker image that has exactly what a list has."""

from __future__ import annotations

from pathlib import Path

from modelbeam._version import __version__
from modelbeam.errors import RequestError
from modelbeam.package.build import WHEELS, Built
from modelbeam.package.items import PackageList
from modelbeam.package.modules import module_of

DOCKERFILE = "Dockerfile"

_HEAD = "# A worker image for "

_TEMPLATE = """\
{head}{targets}; written by modelbeam {modelbeam}.
#
#   docker build --platform linux/amd64 -t REGISTRY/IMAGE:TAG {directory}
#   docker push REGISTRY/IMAGE:TAG
#   modelbeam predict ... --sdk_container_image=REGISTRY/IMAGE:TAG
#
# With --sdk_container_image nothing is staged; the workers check on start that the versions in the
# image are those of the submission.
FROM apache/beam_python{python}_sdk:{beam}

COPY requirements.txt {wheels}/ /opt/modelbeam/

# One installation, so that pip refuses versions that exclude each other; that of Beam stays.
RUN {install} \\
 && {check}

# Without this every worker would first make an environment of its own.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1

# The installation is readable for every user; to run as another one than root, add for example
#   RUN useradd --create-home worker
#   USER worker

ENTRYPOINT ["/opt/apache/beam/boot"]
"""


def install_command(packages: PackageList, directory: str = "/opt/modelbeam") -> str:
    """The line that installs a list, with its files in ``directory``."""
    return (
        f"python -m pip install --no-cache-dir --disable-pip-version-check "
        f"-r {directory}/requirements.txt {directory}/*.whl apache-beam=={packages.beam}"
    )


def check_command(packages: PackageList) -> str:
    """The line that has the image's build fail if the model's modules cannot be imported."""
    modules = [module_of(target) for target in packages.targets]
    return f'python -c "import {", ".join(dict.fromkeys(modules))}, modelbeam.beam.on_worker"'


def dockerfile(built: Built) -> str:
    """The text of the Dockerfile that belongs into the list's directory."""
    packages = built.packages
    return _TEMPLATE.format(
        head=_HEAD,
        targets=", ".join(map(str, packages.targets)),
        modelbeam=__version__,
        directory=built.directory.name,
        python=packages.python,
        beam=packages.beam,
        wheels=WHEELS,
        install=install_command(packages),
        check=check_command(packages),
    )


def check_directory(directory: Path | str) -> None:
    """Refuse to write over somebody's own Dockerfile.

    Raises:
        RequestError: there is one, or the path is not a directory.
    """
    path = Path(directory)
    if path.exists() and not path.is_dir():
        raise RequestError(f"--output {directory} is a file; give a directory.")
    for name, ours in ((DOCKERFILE, _HEAD), ("requirements.txt", None)):
        own = path / name
        if not own.exists() or (path / "packages.json").exists():
            continue
        if ours is None or not own.read_text("utf-8", errors="replace").startswith(ours):
            raise RequestError(
                f"--output {directory}: there is a {name} that modelbeam did not write. Give a "
                f"directory of its own."
            )


def write_dockerfile(built: Built) -> Path:
    """Write the Dockerfile into the list's directory."""
    path = built.directory / DOCKERFILE
    path.write_text(dockerfile(built), encoding="utf-8")
    return path
