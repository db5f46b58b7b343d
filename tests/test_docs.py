"""The documentation is complete, up to date and names no flag that there is not."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from pages import blocks_of

import modelbeam
from modelbeam import models
from modelbeam.cli.parser import build_parser
from modelbeam.job.description import Job, build_job
from modelbeam.predicting.columns import to_batch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("README.md"), *DOCS.glob("*.md"), *ROOT.glob("examples/*/README.md")])


def _load_generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _load_generate()
COMMANDS = generate.commands(build_parser())
ALL_PARSERS = {"modelbeam": build_parser(), **COMMANDS}


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag of a parser."""
    return {flag for action in parser._actions for flag in action.option_strings}


ALL_FLAGS = set().union(*map(flags, ALL_PARSERS.values()))


@cache
def beam_flags() -> set[str]:
    """Every flag of Beam's pipeline options."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for options in (PipelineOptions, *PipelineOptions.__subclasses__()):
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(parser)
    return flags(parser)


# The help


def test_the_page_of_the_command_line_is_up_to_date():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == generate.cli_page(), "run: make docs"


def test_the_page_of_the_python_interface_is_up_to_date():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert page == generate.api_page(), "run: make docs"
    assert [name for name in modelbeam.__all__ if name not in (page + "__version__")] == []


def test_the_table_of_kinds_is_generated_from_the_registry():
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    assert page == generate.with_table(page, generate.kinds_table()), "run: make docs"


def test_the_table_of_formats_is_up_to_date():
    page = (DOCS / "formats.md").read_text(encoding="utf-8")
    assert generate.FORMATS.findall(page) == [generate.format_table()], "run: make docs"


def test_the_page_of_errors_is_up_to_date():
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert page == generate.errors_page(), "run: make docs"


def test_the_schema_of_runs_is_up_to_date():
    page = (DOCS / "run.schema.json").read_text(encoding="utf-8")
    assert page == generate.run_schema_file(), "run: make docs"


@pytest.mark.parametrize("name", ALL_PARSERS)
def test_a_command_has_a_sentence_of_help_and_an_example(name):
    parser = ALL_PARSERS[name]
    assert re.fullmatch(r"[A-Z].*\.", parser.description or "", re.DOTALL)
    usage = f"modelbeam {name}" if name in COMMANDS else "modelbeam predict"
    assert re.search(rf"^examples?:\n(?:.*\n)*?.*{usage}", parser.epilog or "", re.MULTILINE)


@pytest.mark.parametrize("name", ALL_PARSERS)
def test_every_flag_has_help(name):
    without = [action.dest for action in ALL_PARSERS[name]._actions if not action.help]
    assert without in ([], ["command"])  # the commands have a help text each


def test_every_command_has_help_in_the_list_of_commands():
    listed = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert [choice.dest for choice in listed._choices_actions if choice.help] == list(COMMANDS)


@pytest.mark.parametrize("name", ALL_PARSERS)
def test_no_page_of_help_shows_a_doubled_percent_sign(name):
    assert "%%" not in ALL_PARSERS[name].format_help()


# What the pages mention


def fenced(text: str) -> Iterator[str]:
    """The contents of fenced code blocks, continued lines joined."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield block.replace("\\\n", " ")


def commands_in(text: str) -> Iterator[tuple[str, set[str]]]:
    """Each modelbeam command in the fenced code of a page, and its flags."""
    for block in fenced(text):
        for line in block.splitlines():
            found = re.search(r"(?:^|[\s(/])modelbeam ([a-z]+)\b([^|#]*)", line)
            if found and found[1] in COMMANDS and not line.lstrip().startswith(("usage:", "#")):
                yield found[1], set(re.findall(r"(?<!\S)--?[A-Za-z][\w-]*", found[2]))


def inline_flags(text: str) -> Iterator[str]:
    """The flags in inline code that begins with a flag or with modelbeam."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`]+)`", prose):
        if code.startswith(("-", "modelbeam ")):
            yield from re.findall(r"(?<![\w-])(?:--[A-Za-z][\w-]*|-[A-Za-z](?!\w))", code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_flags_that_exist(page):
    text = page.read_text(encoding="utf-8")
    unknown = set(inline_flags(text)) - ALL_FLAGS
    for command, used in commands_in(text):
        unknown |= used - flags(COMMANDS[command])
    assert unknown - beam_flags() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_pages_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_scan_finds_flags_where_they_stand():
    code = "$ modelbeam predict --a x \\\n  --b=1 -c --keep d-e | jq --no  # --no\n"
    text = f"`--keep all` and `jq --no`\n```\n{code}```\n"
    assert set(inline_flags(text)) == {"--keep"}
    assert list(commands_in(text)) == [("predict", {"--a", "--b", "-c", "--keep"})]


def test_the_model_of_the_page_about_models_predicts(tmp_path, monkeypatch):
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    class_, table = re.findall(r"^```python[^\n]*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[:2]
    (tmp_path / "churn.py").write_text(class_)
    (tmp_path / "fast_churn.py").write_text(table)
    (tmp_path / "limits.json").write_text('{"spend": 10}')
    monkeypatch.syspath_prepend(tmp_path)
    model = models.load("churn:Churn")
    record = {"age": 30, "spend": 5, "unknown": 1}
    assert model.predict(record) == {"leaves": True}
    fast = models.load("fast_churn:FastChurn")
    batch, _, _ = to_batch([record], fast.info.signature)
    assert fast.predict_table(batch).to_pylist() == [{"leaves": True}]
    for name in ("churn", "fast_churn"):  # other tests have modules of these names
        del sys.modules[name]


def test_the_examples_of_the_help_name_only_flags_that_exist():
    for parser in COMMANDS.values():
        for command, used in commands_in(f"```\n{parser.epilog}```\n"):
            assert used <= flags(COMMANDS[command])


def test_the_python_of_the_pages_is_strictly_typed(tmp_path: Path) -> None:
    """As a caller's own code would be checked, with the types that modelbeam ships."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [
        block.text
        for page in pages
        for block in blocks_of(page)
        if block.language == "python" and block.reason is None and "import" in block.text
    ]
    assert len(blocks) >= 3
    for number, code in enumerate(blocks):
        name = "churn" if "class Churn" in code else f"block_{number}"
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "calls.py").write_text(
        "import modelbeam\n"
        "from modelbeam import NothingPredictedError, Run, Submitted\n"
        "one: Run = modelbeam.predict(model='m:M', input='a', output='b')\n"
        "two: Submitted = modelbeam.predict(model='m:M', input='a', output='b', detach=True)\n"
        "def told(error: NothingPredictedError) -> str | None:\n"
        "    return error.details\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--no-incremental",
         "--untyped-calls-exclude=apache_beam", "--follow-imports=silent", "."],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_page_of_the_configuration_names_every_key_and_its_flag() -> None:
    page = (DOCS / "config.md").read_text(encoding="utf-8")
    keys, named = set(), set()
    for key_cell, flag_cell in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", page, re.MULTILINE):
        keys |= set(re.findall(r"`([a-z_]+)`", key_cell))
        named |= set(re.findall(r"`(--[a-z-]+)`", flag_cell))
    assert keys - {"model", "input"} == set(Job.model_fields)
    talk = {"--help", "--help-all", "--json", "--no-progress", "--quiet", "--verbose", "--config"}
    assert named == {f for f in flags(COMMANDS["predict"]) if f.startswith("--")} - talk


def test_the_example_of_the_configuration_is_one(tmp_path, monkeypatch) -> None:
    page = (DOCS / "config.md").read_text(encoding="utf-8")
    (tmp_path / "job.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    monkeypatch.setenv("OUT", "s3://bucket")
    job = build_job({}, str(tmp_path / "job.yaml"))
    assert job.output == "s3://bucket/predictions/"
    assert job.beam_options == ("--runner=flink", "--flink_master=host:8081", "--parallelism=4")
