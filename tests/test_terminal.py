"""A terminal of 60, 80 and 200 columns: everything that is shown fits, and no word is broken."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, write_lines

from modelbeam import cli, streams
from modelbeam.cli.parser import FEW, build_parser, flags_of
from modelbeam.text import fold

WIDTHS = (60, 80, 200)

RECORDS = 600

COMMANDS = {
    "help": ["--help"],
    "predict --help": ["predict", "--help"],
    "package --help": ["package", "--help"],
    "describe": ["describe", "-m", "iris_ml_base.model:IrisModel"],
    "check": ["check", "-m", "small_models:Doubler", "-i", "tree", "-o", "new"],
    "predict": [
        *("predict", "-m", "nasty_models:Sleepy", "-i", "tree", "-o", "out", "--overwrite"),
        *("--workers", "2", "--worker-mode", "threads", "--split-size", "4KB"),
    ],
    "error": ["predict", "-m", "a:B", "-i", "tree", "-o", "new", "--runner", "flnk"],
    "runs": ["runs", "."],
    "explain": ["explain", "MB101"],
}

ONCE = {"dumb": {"TERM": "dumb"}, "no colour": {"NO_COLOR": "1"}}
"""Settings of the terminal with which a run is shown once more, at the first width."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

IN_A_TERMINAL = """
import fcntl, os, struct, termios
from modelbeam import streams
from modelbeam.cli import run
from modelbeam.report import check

streams.prepare()
info = check.describe_model(check.ModelSpec.parse("iris_ml_base.model:IrisModel"))
check.describe_model = lambda spec: info  # the same at each width
for width in {widths}:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    for name, arguments in {commands}.items():
        print(f"<<{{width}} {{name}}>>", flush=True)
        print(f"<<{{run(arguments)}}>>", flush=True)
fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, {widths}[0], 0, 0))
before = dict(os.environ)
for name, settings in {once}.items():
    os.environ.update(settings)
    print(f"<<0 {{name}}>>", flush=True)
    print(f"<<{{run({commands}['predict'])}}>>", flush=True)
    os.environ.clear()
    os.environ.update(before)
os._exit(0)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], tuple[int, str]]:
    """For each width and command, its exit code and what the terminal was sent."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "tree").mkdir()
    write_lines(folder / "tree" / "a.jsonl", [{"x": float(x)} for x in range(RECORDS)])
    with (folder / "tree" / "a.jsonl").open("a") as lines:
        lines.write('{"x": "text"}\n{bad\n')
    for name in ("notes-of-last-week.txt", "read-me-first.pdf", "what-else-there-is.dat"):
        (folder / "tree" / name).write_text("no data")
    code = IN_A_TERMINAL.format(widths=WIDTHS, commands=COMMANDS, once=ONCE)
    settings = environment(TERM="xterm")
    settings.pop("COLUMNS", None)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=settings,
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        sent = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            sent += part
        process.wait()
    os.close(ours)
    text = sent.decode().replace("\r\n", "\n")
    found = re.findall(r"<<(\d+) ([^>]*)>>\n(.*?)<<(\d+)>>\n", text, re.DOTALL)
    return {
        (int(width), name): (int(code), shown if width == "0" else ESCAPES.sub("", shown))
        for width, name, shown, code in found
    }


def lines_of(shown: str) -> list[str]:
    """What stood on one line of the screen at some time."""
    return re.split(r"[\r\n]+", shown)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_fits(
    shown: dict[tuple[int, str], tuple[int, str]], name: str, width: int
) -> None:
    code, text = shown[width, name]
    assert code == (2 if name == "error" else 0), text
    assert text.strip()
    assert [line for line in lines_of(text) if len(line.rstrip()) > width] == []


LONG = ("predict", "check", "compare", "config")
"""The commands with many flags."""


@pytest.mark.parametrize("name", LONG)
def test_help_fits_a_screen_and_all_of_it_is_asked_for(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run([name, "--help"]) == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= 40
    assert max(map(len, short.splitlines())) <= 80
    assert f"modelbeam {name} --help-all" in " ".join(short.split())
    assert cli.run([name, "--help-all"]) == 0
    whole = capsys.readouterr().out

    def of(text: str) -> set[str]:
        return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.split("examples?:\n", text)[0]))

    assert of(whole) >= set(flags_of(name)) - {"-h"}
    assert of(short) < of(whole)
    assert {"-m", "--model", "--input", "--output", "--resume", "--help-all"} <= of(short)


def test_what_help_shows_are_flags_that_there_are() -> None:
    parsers = next(
        action.choices for action in build_parser()._actions if isinstance(action.choices, dict)
    )
    known = {action.dest for name in LONG for action in parsers[name]._actions}
    assert FEW.keys() <= known
    assert "help_all" not in vars(parsers["predict"].parse_args([])), "it is no setting of a job"


@pytest.mark.parametrize("width", WIDTHS[:-1])
@pytest.mark.parametrize("name", ["help", "predict --help", "package --help", "check", "error"])
def test_a_narrow_terminal_shows_the_same_words(
    shown: dict[tuple[int, str], tuple[int, str]], name: str, width: int
) -> None:
    def words(width: int) -> list[str]:
        return [word for word in shown[width, name][1].split() if word != "\\"]

    assert words(width) == words(200)


def test_examples_of_the_help_are_commands_at_every_width(
    shown: dict[tuple[int, str], tuple[int, str]],
) -> None:
    for width in WIDTHS:
        examples = shown[width, "predict --help"][1].partition("examples:\n")[2]
        commands = examples.partition("\n\n")[0].replace("\\\n", " ")
        begun = [" ".join(line.split()[:2]) for line in commands.splitlines()]
        assert begun == ["modelbeam predict"] * 3
        assert "-i data/input.json -o predictions.jsonl" in " ".join(commands.split())


def test_fields_are_a_table_where_there_is_room(
    shown: dict[tuple[int, str], tuple[int, str]],
) -> None:
    line = "  sepal_length  number          required  exclusiveMinimum 0, maximum 20\n"
    assert line in shown[80, "describe"][1]
    assert line in shown[200, "describe"][1]
    narrow = "  sepal_length  number, required\n      exclusiveMinimum 0, maximum 20\n"
    assert narrow in shown[60, "describe"][1]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bar_keeps_its_width_and_drops_what_matters_least(
    shown: dict[tuple[int, str], tuple[int, str]], width: int
) -> None:
    drawn = [line for line in lines_of(shown[width, "predict"][1]) if "━" in line]
    assert drawn
    assert {len(re.findall(r"[━╸╺]", line)) for line in drawn} == {12}
    told = [line for line in drawn if "starting" not in line]
    assert told
    assert all(re.search(r" records?, \d+ failed", line) for line in told)
    assert any(" KB of " in line for line in told) or width == 60


def test_a_dumb_terminal_gets_lines_and_nothing_else(
    shown: dict[tuple[int, str], tuple[int, str]],
) -> None:
    code, text = shown[0, "dumb"]
    assert code == 0
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.startswith("modelbeam: 1 file, ")
    assert "600 predicted, 2 failed" in text


def test_without_colour_there_is_a_bar_and_none(
    shown: dict[tuple[int, str], tuple[int, str]],
) -> None:
    code, text = shown[0, "no colour"]
    assert code == 0
    assert "━" in text
    styles = {part for found in re.findall(r"\x1b\[([0-9;]*)m", text) for part in found.split(";")}
    assert styles <= {"", "0", "1", "2", "22"}, "bold and faint at most"


@pytest.mark.parametrize(
    ("terminal", "term", "drawn"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False), (None, "xterm", False)],
)
def test_a_bar_is_for_terminals_that_can_draw_over_a_line(
    monkeypatch: pytest.MonkeyPatch, terminal: bool | None, term: str, drawn: bool
) -> None:
    class Stream:
        def isatty(self) -> bool:
            if terminal is None:
                raise ValueError("it is closed")
            return terminal

    monkeypatch.setenv("TERM", term)
    assert streams.draws(Stream()) == drawn


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_uses_one_word_for_workers(
    shown: dict[tuple[int, str], tuple[int, str]], width: int
) -> None:
    summary = " ".join(shown[width, "predict"][1].rpartition("records read")[2].split())
    assert re.match(r", 600 predicted, 2 failed in .* \(.*/s, 2 workers: threads[,)]", summary)
    assert json.dumps("failed records in out/errors-")[1:-1] in summary


def test_what_is_no_terminal_is_not_folded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelbeam", "predict", "-m", "a:B", "-i", "none", "-o", "x" * 200],
        env=environment(COLUMNS="60"), capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "hang", "folded"),
    [
        ("short", 0, "short"),
        ("one two three four five six seven", 0, "one two three four five six\nseven"),
        ("label  one two three four five six", 7, "label  one two three four\n       five six"),
        ("label  one two three four five six", 20, "label  one two three four\n  five six"),
        (f"see {'x' * 40} now", 0, f"see\n{'x' * 40}\nnow"),
        ("one-two-three-four words-are-no-words", 0, "one-two-three-four\nwords-are-no-words"),
    ],
)
def test_lines_are_folded_between_words(line: str, hang: int, folded: str) -> None:
    assert fold(line, 28, hang) == folded
    assert fold(line, None, hang) == line
