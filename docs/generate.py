"""Write the generated pages of the documentation: `python docs/generate.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from modelbeam.cli.parser import HelpFormatter, build_parser
from modelbeam.models.kinds import KINDS
from modelbeam.models.options import FLAGS

HERE = Path(__file__).parent
COLUMNS = 100
HELP_COLUMN = 24

_CLI_HEAD = """\
<!-- Generated from the parser by docs/generate.py ("make docs"); do not edit. -->

# Command line

The help of every command: what `modelbeam COMMAND --help` prints. What the exit codes mean and
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
        each.formatter_class = _Formatter
        if hasattr(each, "color"):  # Python 3.14
            each.color = False
        parts.append(f"## {each.prog}\n\n```\n{each.format_help().rstrip()}\n```\n")
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


def main() -> None:
    """Write the pages."""
    (HERE / "cli.md").write_text(cli_page(), encoding="utf-8")
    models = HERE / "models.md"
    page = models.read_text(encoding="utf-8")
    models.write_text(with_table(page, kinds_table()), encoding="utf-8")


if __name__ == "__main__":
    main()
