"""Every command and every Python block of every page is run, or the page says why it is not."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from pages import (
    PAGES,
    ROOT,
    RUN,
    SHOWN,
    Block,
    Shell,
    blocks_in,
    blocks_of,
    commands_of,
    missing_from,
    unrun,
)
from readers import stock

from modelbeam.cli.job import job_of
from modelbeam.cli.parser import build_parser

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
REASONS = (
    "needs Kafka",
    "needs a Flink cluster",
    "needs a Spark cluster",
    "needs a cluster",
    "needs a Google Cloud project",
    "needs a store",
    "needs a registry of images",
    "needs a package of your own",
    "needs a package index",
    "needs Java, Maven and Go",
    "needs the benchmarks' own environment",
    "needs root",
    "takes hours",
    "goes on until it is stopped",
    "a piece of examples/",
    "the code that is replaced",
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    made = Shell(tmp_path_factory.mktemp("shell"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def problems(
    request: pytest.FixtureRequest, shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[str | None]]]:
    """What is wrong with each page that is asked for; two of them are run side by side."""

    def problem_of(page: Path) -> str | None:
        place = tmp_path_factory.mktemp("page")
        stock(page, place)
        for block in blocks_of(page):
            problem = shell.problem(block, place) if block.runs else None
            if problem is not None:
                return f"{block}\n{problem}"
        return None

    asked = [
        item.callspec.params["page"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test_what_a_page_shows_can_be_run.__name__
    ]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(problem_of, page) for page in asked}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.runs for block in blocks_of(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_what_a_page_shows_can_be_run(page: Path, problems: dict[Path, Future[str | None]]) -> None:
    problem = problems[page].result()
    assert problem is None, problem


def test_every_block_says_what_it_is() -> None:
    """A block without a language would be looked at by nobody."""
    assert [str(block) for block in BLOCKS if block.language not in (*RUN, *SHOWN)] == []


def test_what_is_shown_as_text_holds_no_command() -> None:
    command = re.compile(r"^(?:\$ |modelbeam [a-z]+ |pip install|python )", re.MULTILINE)
    shown = [block for block in BLOCKS if block.language == "text" and block.page.name != "cli.md"]
    assert [str(block) for block in shown if command.search(block.text)] == []


def test_a_block_that_is_not_run_says_for_which_reason() -> None:
    others = [block for block in BLOCKS if not (block.reason or REASONS[0]).startswith(REASONS)]
    assert [f"{block}: {block.reason}" for block in others] == []
    comment = re.compile(r"^ *<!--\s*not run", re.MULTILINE)
    comments = sum(len(comment.findall(page.read_text("utf-8"))) for page in PAGES)
    assert comments == len(unrun())  # each stands above a block


def test_most_blocks_are_run() -> None:
    assert len(unrun()) < sum(block.runs for block in BLOCKS)


ONLY_SHOWN = [
    block
    for block in unrun()
    if block.language in ("sh", "console") and "tests/engines/" not in (block.reason or "")
]
"""Commands that no test runs."""


@pytest.mark.parametrize("block", ONLY_SHOWN, ids=str)
def test_a_command_that_is_not_run_is_a_right_one(block: Block) -> None:
    """Its flags and their values make a job; what it needs is all that is missing."""
    for line in commands_of(block):
        words = shlex.split(re.sub(r"\$\w+", "name", line), comments=True)
        if words[:1] != ["modelbeam"]:
            continue
        flags, rest = build_parser().parse_known_args(words[1:])
        if flags.command in ("predict", "check", "compare", "config"):
            job_of(flags, rest, flags.command)


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in ("json", "yaml", "toml")], ids=str
)
def test_what_is_shown_as_a_format_is_one(block: Block) -> None:
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    elif block.language == "json":
        assert json.loads(block.text)
    elif sys.version_info >= (3, 11):
        import tomllib

        assert tomllib.loads(block.text)


# The reading of pages


def test_blocks_are_found_where_they_stand() -> None:
    page = (
        "# A page\n\n"
        "<!-- not run: needs Kafka -->\n```sh\nmodelbeam predict \\\n    -i x\n```\n\n"
        '- in a list\n\n    ```python title="a/b.py"\n    if x:\n        y()\n    ```\n'
        "```\nnothing\n```\n"
        "```console\n$ one \\\n    more\nprinted\n$ two\n```\n"
    )
    first, second, third, fourth = blocks_in(page, ROOT / "docs" / "x.md")
    assert (first.language, first.reason, first.runs) == ("sh", "needs Kafka", False)
    assert list(commands_of(first)) == ["modelbeam predict      -i x"]
    assert (second.title, second.text, second.runs) == ("a/b.py", "if x:\n    y()\n", True)
    assert (third.language, third.runs) == ("", False)
    assert list(commands_of(fourth)) == ["one      more", "two"]
    assert (str(first), str(second)) == ("docs/x.md:4", "docs/x.md:11")


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        (["15 records, 1,204/s"], "x\n12 records, 7/s\n", None),
        (["a   b"], "a b", None),
        (["model … of …"], "model x y of z", None),
        (["…", "last"], "first\nmore\nlast\n", None),
        (["two", "one"], "one\ntwo\n", "one"),
        (["a.b"], "axb", "a.b"),
        (["ten records"], "9 records", "ten records"),
    ],
)
def test_what_a_page_shows_is_compared_but_for_numbers(
    shown: list[str], printed: str, missing: str | None
) -> None:
    assert missing_from(printed, shown) == missing


def test_a_block_that_fails_is_told(shell: Shell, tmp_path: Path) -> None:
    def problem(language: str, text: str, title: str | None = None) -> str | None:
        return shell.problem(Block(ROOT / "x.md", 1, language, title, text, None), tmp_path)

    assert "exit code 1" in (problem("sh", "false | cat\ntouch after\n") or "")
    assert not (tmp_path / "after").exists()
    assert "exit code 2" in (problem("sh", "modelbeam predict -m nothing:Here\n") or "")
    assert "ZeroDivisionError" in (problem("python", "1 / 0") or "")
    assert "SyntaxError" in (problem("python", "x = (", "m.py") or "")
    assert problem("python", "x = 1", "m.py") is None
    assert problem("console", "$ python -c 'import m; print(m.x + 41)'\n7\n") is None
    assert "printed no line" in (problem("console", "$ echo one\ntwo\n") or "")
    assert "exit code 3" in (problem("console", "$ exit 3\n") or "")
    assert "no extra moon" in (problem("sh", "pip install 'modelbeam[moon]'") or "")
    assert problem("sh", "pip install 'modelbeam[aws,gcp]' scikit-learn") is None
