"""The fenced blocks of the pages, and a shell in which they run as a reader would run them.

A block is run unless the comment ``<!-- not run: REASON -->`` stands above it:

- ``sh``: by bash, which stops at the first command that fails;
- ``console``: lines that begin with ``$`` are run; the others are what they print, where ``…``
  stands for anything and any number for any other;
- ``python``: as a script;
- any language with ``title="FILE"``: written to that file. A Python file is imported too.

``modelbeam`` and ``python`` are ours in that shell: each is a fork of one process that has Beam
imported already, with the caller's arguments, directory, environment and streams. So a command
costs what the model costs, and not the three seconds of importing Beam. ``pip`` is a stand-in that
installs nothing: it fails if what it is asked for is neither a project, nor installed here, nor an
extra of modelbeam's.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "examples/*/README.md", "*/README.md")
    for page in ROOT.glob(pattern)
    if page.relative_to(ROOT).parts[0]
    in ("README.md", "CONTRIBUTING.md", "docs", "examples", "engines", "benchmarks", "data")
)

RUN = ("sh", "console", "python")
SHOWN = ("text", "json", "yaml", "toml", "ini", "csv")

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]+)\")?(?P<rest>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block: where it stands, what it is, and why it is not run, if it is not."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run, or written as a file that others need."""
        return self.reason is None and (self.language in RUN or self.title is not None)


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return list(blocks_in(page.read_text(encoding="utf-8"), page))


def blocks_in(content: str, page: Path) -> Iterator[Block]:
    """The fenced blocks of a text."""
    for found in _FENCE.finditer(content):
        start = found.start("language")
        yield Block(
            page,
            content.count("\n", 0, start) + 1,
            found["language"] + found["rest"],
            found["title"],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            found["reason"],
        )


def unrun() -> list[Block]:
    """The blocks that would be run, if what they need were here."""
    return [b for page in PAGES for b in blocks_of(page) if b.reason is not None]


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a block for a shell, each on one line."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        yield from re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    elif block.language == "sh":
        yield from text.splitlines()


# What a command prints


def steps_of(block: Block) -> list[tuple[str, list[str]]]:
    """The commands of a console and the lines that each prints."""
    steps: list[tuple[str, list[str]]] = []
    text = block.text.replace("\\\n", "\\\0")
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:].replace("\0", "\n"), []))
        elif steps:
            steps[-1][1].append(line)
    return steps


def pattern_of(line: str) -> str:
    """What a line of a page matches: any number for a number, anything for ``…``."""
    pieces = re.split(r"(…|\d[\d.,]*(?:e[+-]?\d+)?|\s+)", line.rstrip())
    return "".join(
        ".*" if piece == "…"
        else r"\d[\d.,]*(?:e[+-]?\d+)?" if piece[:1].isdigit()
        else r"\s+" if piece.isspace()
        else re.escape(piece)
        for piece in pieces
    )  # fmt: skip


def missing_from(printed: str, lines: list[str]) -> str | None:
    """The first of some lines that is not printed, in their order."""
    rest = iter(printed.splitlines())
    for line in lines:
        if not line.strip() or line.strip() == "…":
            continue
        wanted = re.compile(pattern_of(line))
        if not any(wanted.fullmatch(each.rstrip()) for each in rest):
            return line
    return None


# The shell


_SHIM = """\
#!{python} -ISE
import json, os, socket, sys
told = json.dumps([{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(told)
    code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


class Shell:
    """A shell whose ``modelbeam`` and ``python`` are forks of one warm process."""

    def __init__(self, place: Path) -> None:
        self._tools = place / "bin"
        self._tools.mkdir()
        address = str(place / "s")
        for name in ("modelbeam", "python", "pip"):
            shim = self._tools / name
            shim.write_text(_SHIM.format(python=sys.executable, name=name, address=address))
            shim.chmod(0o755)
        self._server = subprocess.Popen(
            [sys.executable, __file__, address], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"

    def run(self, command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
        """Run a command in a directory; both streams of it are ``stdout``."""
        path = os.pathsep.join([str(self._tools), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            command, cwd=place, env=environment, text=True, timeout=240, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def stop(self) -> None:
        """End the warm process."""
        self._server.kill()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def problem(self, block: Block, place: Path) -> str | None:
        """Run a block in a directory; returns what is wrong with it."""
        if block.title is not None:
            file = place / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            if block.language != "python":
                return None
            module = ".".join(Path(block.title).with_suffix("").parts)
            return _failed(self.run(["python", "-c", f"import {module}"], place))
        if block.language == "python":
            return _failed(self.run(["python", "-c", block.text], place))
        if block.language == "sh":
            return _failed(self.run(["bash", "-eo", "pipefail", "-c", block.text], place))
        for command, lines in steps_of(block):
            done = self.run(["bash", "-o", "pipefail", "-c", command], place)
            line = missing_from(done.stdout, lines)
            if line is not None:
                return f"$ {command}\nprinted no line such as\n{line}\nbut\n{done.stdout}"
            if not lines and done.returncode:
                return _failed(done)
        return None


def _failed(done: subprocess.CompletedProcess[str]) -> str | None:
    return f"exit code {done.returncode}:\n{done.stdout}" if done.returncode else None


# The warm process


def serve(address: str) -> None:
    """Run commands that are asked for through a socket, each in a fork of this process."""
    import apache_beam  # noqa: F401

    import modelbeam.beam.predict
    import modelbeam.run  # noqa: F401

    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(8)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        caller, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            _answer(caller)
        caller.close()


def _answer(caller: socket.socket) -> None:
    """Run one command, and tell its exit code."""
    head, streams, _, _ = socket.recv_fds(caller, 4, 3)
    told = b""
    while len(told) < int.from_bytes(head, "big"):
        told += caller.recv(1 << 16)
    name, arguments, directory, environment = json.loads(told)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        caller.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    code: Any = 0
    try:
        if name == "modelbeam":
            _command(arguments)
        elif name == "pip":
            _pip(arguments)
        else:
            _python(arguments)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _command(arguments: list[str]) -> None:
    from modelbeam.cli import main

    sys.argv = ["modelbeam", *arguments]
    sys.path[0] = str(Path(sys.executable).parent)
    main(arguments)


def _python(arguments: list[str]) -> None:
    first, rest = arguments[0], arguments[1:]
    sys.argv = [first, *(rest[1:] if first == "-c" else rest)]
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0] = ""
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<block>", "exec"), main.__dict__)
    else:
        sys.path[0] = str(Path(first).parent.absolute())
        runpy.run_path(first, run_name="__main__")


def _pip(arguments: list[str]) -> None:
    """Fail over what could not be installed; install nothing."""
    assert arguments[0] == "install", arguments
    for wanted in arguments[1:]:
        if wanted.startswith("-"):
            continue
        found = re.fullmatch(r"([^\[]+)(?:\[(.*)\])?", wanted.split("==")[0])
        assert found is not None, wanted
        name = "modelbeam" if found[1] == "." else found[1]
        project = (Path(name) / "pyproject.toml").exists()
        known = () if project else importlib.metadata.metadata(name).get_all("Provides-Extra") or ()
        for extra in filter(None, (found[2] or "").split(",")):
            if extra not in known:
                sys.exit(f"{name} has no extra {extra}")


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1])
    for each in unrun():
        print(f"{each}: {each.reason}")
    print(f"{len(unrun())} blocks are not run")
