"""Write the generated pages of the documentation: `python docs/generate.py`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelbeam
from modelbeam import errors, formats
from modelbeam.cli.parser import HelpFormatter, Parser, build_parser
from modelbeam.explain import ALL
from modelbeam.models.kinds import KINDS
from modelbeam.models.options import FLAGS
from modelbeam.report.schema import run_schema

HERE = Path(__file__).parent
COLUMNS = 100
HELP_COLUMN = 24

_CLI_HEAD = """\
<!-- Generated from the parser by docs/generate.py ("make docs"); do not edit. -->

# Command line

The help of every command: what `modelbeam COMMAND --help` prints, and for those with many flags
`--help-all`. What the exit codes mean and
what is written where is in [output.md](output.md).
"""


class _Formatter(HelpFormatter):
    """Formats alike whatever the terminal and the version of Python."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN, width=COLUMNS - 2)

    def add_argument(self, action: argparse.Action) -> None:
        """Put every help text in the same column."""
        super().add_argument(action)
        self._action_max_length = HELP_COLUMN - 2

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Name the value once, as Python 3.13 does: ``-m, --model TARGET``."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, action.dest.upper())
        return f"{', '.join(action.option_strings)} {value}"


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a parser by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def cli_page() -> str:
    """The whole of ``cli.md``."""
    parser = build_parser()
    parts = [_CLI_HEAD]
    for each in (parser, *commands(parser).values()):
        assert isinstance(each, Parser)
        each.formatter_class = _Formatter
        if hasattr(each, "color"):  # Python 3.14
            each.color = False
        parts.append(f"## {each.prog}\n\n```text\n{each.format_help_all().rstrip()}\n```\n")
    return "\n".join(parts)


def kinds_table() -> str:
    """The kinds of models that modelbeam brings, from their registry."""
    lines = [
        "| kind | `--model` takes | what it is | brought by | flags | tested with |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        forms = ", ".join(f"`{form}`" for form in kind.forms.split(", "))
        flags = ", ".join(f"`{FLAGS[name]}`" for name in kind.options)
        brought = f"`{kind.install}`" if kind.install else "modelbeam"
        lines.append(
            f"| {kind.name} | {forms} | {kind.takes_what} | {brought} | {flags} | {kind.tested} |"
        )
    return "\n".join(lines)


def with_table(page: str, table: str) -> str:
    """A page with what stands between its two marks replaced."""
    before, rest = page.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    return f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}"


_BEGIN = "<!-- Generated from the registry by docs/generate.py; do not edit. -->"
_END = "<!-- End of what is generated. -->"


FORMATS = re.compile(r"(?<=<!-- formats, by docs/generate.py -->\n).*?(?=<!-- end -->)", re.DOTALL)

_TESTS = HERE.parent / "tests"
_EACH = """\
Every format passes the contract of formats, and one test over all of them: exact counts, places and
originals of failures, a single file of many splits, each compression, a run that is killed and
resumed to the same bytes, `--limit`, partitions, each format into each other, and nothing imported
after a model's first call.
"""


def _dict_of(source: ast.Module, name: str) -> ast.Dict:
    """A dict that a module gives a name to."""
    for node in source.body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        value = node.value if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.Dict):
            return value
    raise LookupError(name)


def _keys(found: ast.Dict) -> list[str]:
    return [str(ast.literal_eval(key)) for key in found.keys if key is not None]


def format_table() -> str:
    """What is tested of each format: of the registry, and of the tests' own tables."""
    source = ast.parse((_TESTS / "test_interop.py").read_text(encoding="utf-8"))
    written = _dict_of(source, "WRITERS")
    by: dict[str, list[str]] = {}
    for key, value in zip(_keys(written), written.values, strict=True):
        if isinstance(value, ast.Tuple):
            suffix = str(ast.literal_eval(value.elts[0])).split(".")[1]
            by.setdefault(formats.SUFFIXES.get(suffix, suffix), []).append(key.split(" to ")[0])
            if suffix == "json":
                by.setdefault("json", []).append(by["jsonl"].pop())
    for path in sorted((_TESTS / "files").glob("pandas.*")):
        suffix = path.suffix[1:]
        by.setdefault("json" if suffix == "json" else formats.SUFFIXES[suffix], []).append("pandas")
    readers = _dict_of(source, "READERS")
    back = {
        name: _keys(value)
        for name, value in zip(_keys(readers), readers.values, strict=True)
        if isinstance(value, ast.Dict)
    }
    contract = (_TESTS / "test_formats.py").read_text(encoding="utf-8")
    lines = [
        "| format | suffixes | what it is | read from | read back by |",
        "|---|---|---|---|---|",
    ]
    for name in formats.NAMES:
        if f'return "{name}"' not in contract:
            raise LookupError(f"{name} has no contract test")
        suffixes = [f"`.{suffix}`" for suffix, of in formats.SUFFIXES.items() if of == name]
        said = (inspect.getdoc(type(formats.find(name))) or "").split("\n\n")[0]
        said = " ".join(said.split()).rstrip(".").replace("|", "\\|")
        programs = ", ".join(dict.fromkeys(by.get(name, ["pyarrow"])))
        row = (f"`{name}`", ", ".join(suffixes) or "told by `[`", said, programs)
        lines.append(f"| {' | '.join(row)} | {', '.join(back[name])} |")
    return "\n".join([*lines, "", _EACH])


_API_HEAD = """\
<!-- Generated from the docstrings by docs/generate.py ("make docs"); do not edit. -->

# Python

All public names of `import modelbeam`. How they are used: [in a notebook](notebook.md), [in a
pipeline of your own](pipeline.md). What a kind, a format or an engine of your own implements:
[extending](extending.md).
"""
_API_ORDER = ("predict", "Run", "Submitted", "Predict", "MLModelPredictOperation")
_API_ERRORS = """\
## Errors

Each has one message: what happened, where, and what to do. All are in `modelbeam.errors`; those
that `import modelbeam` has by itself are {ours}.

```text
{tree}
```
"""
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):\n((?:    .*\n|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w[\w, ]*): (.*(?:\n        .*)*)", re.MULTILINE)
_TITLES = {"Args": "Argument", "Attributes": "Attribute", "Raises": "Raises"}


def _told(text: str) -> str:
    """A docstring's words as Markdown."""
    text = re.sub(r":(?:func|class|mod):`~?([\w.]+)`", r"`\1`", text)
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return _told(" ".join(text.split())).replace("|", "\\|")


def _section(found: re.Match[str]) -> str:
    """A section of a docstring as a table; what is returned is a sentence."""
    if found[1] == "Returns":
        return f"**Returns** {_told(' '.join(found[2].split()))}\n\n"
    lines = [f"| {_TITLES[found[1]]} | |", "|---|---|"]
    for names, text in _ENTRY.findall(found[2] + "\n"):
        named = ", ".join(f"`{name}`" for name in names.split(", "))
        lines.append(f"| {named} | {_cell(text)} |")
    return "\n".join([*lines, "\n"])


def _described(thing: object) -> str:
    """A docstring as Markdown."""
    doc = (inspect.getdoc(thing) or "") + "\n"
    parts, done = [], 0
    for found in _SECTION.finditer(doc):
        parts += [_told(doc[done : found.start()]), _section(found)]
        done = found.end()
    return "".join([*parts, _told(doc[done:])]).rstrip()


def _argument(each: inspect.Parameter) -> str:
    """An argument with its type as it stands in the source."""
    stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
    default = "" if each.default is each.empty else f" = {each.default!r}"
    return f"{stars}{each.name}: {each.annotation}{default}"


def _methods(thing: Any) -> Iterator[str]:
    """What can be asked of a result."""
    for name, method in vars(thing).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            shown = _called(f"{thing.__name__}.{name}", method)
            yield f"```text\n{shown}\n```\n\n{_described(method)}\n"


def _called(name: str, thing: Any) -> str:
    """How a thing is called, an argument a line where there are many."""
    signature = inspect.signature(thing)
    arguments = [_argument(each) for each in signature.parameters.values() if each.name != "self"]
    kinds = [each.kind for each in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        arguments.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    returned = signature.return_annotation
    end = f" -> {returned}" if isinstance(returned, str) and not inspect.isclass(thing) else ""
    line = f"{name}({', '.join(arguments)}){end}"
    if len(line) <= COLUMNS:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in arguments), f"){end}"])


def api_page() -> str:
    """The whole of ``api.md``."""
    parts = [_API_HEAD]
    ours = [name for name in modelbeam.__all__ if name.endswith("Error")]
    others = {*modelbeam.__all__} - {*ours, *_API_ORDER, "__version__"}
    for name in [*_API_ORDER, *sorted(others)]:
        thing = getattr(modelbeam, name)
        is_result = dataclasses.is_dataclass(thing)
        fence = "" if is_result else f"```text\n{_called(name, thing)}\n```\n\n"
        parts.append(f"## modelbeam.{name}\n\n{fence}{_described(thing)}\n")
        parts.extend(_methods(thing) if is_result else ())
    tree = re.search(r"^ +ModelbeamError.*?(?=\n\n)", inspect.getdoc(errors) or "", re.M | re.S)
    if tree is None:
        raise LookupError("the tree of errors")
    named = ", ".join(f"`{name}`" for name in ours)
    text = "\n".join(line.removeprefix("    ") for line in tree[0].splitlines())
    parts.append(_API_ERRORS.format(ours=named, tree=text))
    return "\n".join(parts)


_ERRORS_HEAD = """\
<!-- Generated from explain.py by docs/generate.py ("make docs"); do not edit. -->

# Error codes

Every error ends with a code, such as `[MB101]`, and so does every kind of failed records in the
summary. `modelbeam explain CODE` prints what stands here. In Python it is `error.code`, with
`--json` it is `error.code` in what is printed. A code never changes its meaning.
"""


def errors_page() -> str:
    """The whole of ``errors.md``."""
    parts = [_ERRORS_HEAD]
    kinds = {one.kind: [other for other in ALL if other.kind == one.kind] for one in ALL}
    for kind, listed in kinds.items():
        parts.append(f"## {kind[0].upper()}{kind[1:]}\n")
        for one in listed:
            stages = f" ({', '.join(one.stages)})" if one.stages else ""
            name = one.name if " " in one.name else f"`{one.name}`"
            parts.append(f"### {one.code}: {name}{stages}\n\n{one.meaning}\n\n{one.remedy}\n")
    return "\n".join(parts)


def run_schema_file() -> str:
    """The whole of ``run.schema.json``."""
    return json.dumps(run_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the pages."""
    (HERE / "errors.md").write_text(errors_page(), encoding="utf-8")
    (HERE / "run.schema.json").write_text(run_schema_file(), encoding="utf-8")
    (HERE / "cli.md").write_text(cli_page(), encoding="utf-8")
    (HERE / "api.md").write_text(api_page(), encoding="utf-8")
    models = HERE / "models.md"
    page = models.read_text(encoding="utf-8")
    models.write_text(with_table(page, kinds_table()), encoding="utf-8")
    page = (HERE / "formats.md").read_text(encoding="utf-8")
    made = FORMATS.sub(lambda _: format_table(), page)
    (HERE / "formats.md").write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
