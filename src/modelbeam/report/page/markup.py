"""HTML that cannot be broken by what is put into it.

Only :class:`Html` is taken as it is, and only :func:`tag` and its likes make it; any other text is
escaped. What comes from data goes through :func:`shown`, which isolates its direction of writing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

from modelbeam.text import printable

NOTHING = "-"
"""What stands where nothing is known."""

_UNSEEN = re.compile("[\u2028\u2029\u200b\ufeff\ufff9-\uffff]|[\U000e0000-\U000e007f]")
"""Separators, tags and marks of no width, which :func:`.text.printable` lets through."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
"""What stands in an element: text is escaped, ``Html`` is not, ``None`` is nothing."""


def joined(*children: Child) -> Html:
    """Several things one after the other."""
    out: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            out.append(child)
        elif isinstance(child, str):
            out.append(html.escape(visible(child)))
        else:
            out.append(joined(*child))
    return Html("".join(out))


def tag(name: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element.

    Args:
        name: of the element.
        children: what is in it.
        attributes: by name, with ``_`` for ``-`` and none at the end (``class_``); one that is
            ``None`` or ``False`` is left out.
    """
    return Html(f"{_opened(name, attributes)}{joined(*children)}</{name}>")


def void(name: str, **attributes: str | int | bool | None) -> Html:
    """An element that holds nothing and is not closed, such as ``meta``."""
    return _opened(name, attributes)


def _opened(name: str, attributes: dict[str, str | int | bool | None]) -> Html:
    said = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        text = "" if value is True else html.escape(visible(str(value)).replace("\n", " "))
        said.append(f'{written}="{text}"')
    return Html(f"<{' '.join(said)}>")


def visible(text: str) -> str:
    """The text with everything escaped that steers a screen or cannot be seen; newlines stay."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", printable(text))


def cut(text: str, longest: int) -> str:
    """The beginning of a text that is too long, and how much more there is."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest:,} characters more)"


def shown(text: object, longest: int = 120) -> Html:
    """A short text from data, in its own direction of writing; what is too long is cut."""
    said = str(text)
    if len(said) > longest:
        said = said[:longest] + "…"
    return tag("bdi", said)


def block(text: str, longest: int = 2000) -> Html:
    """A long text from data with its lines as they are."""
    return tag("pre", cut(text, longest), dir="auto", tabindex=0)


def unfolding(
    summary: Child, *children: Child, class_: str | None = None, opened: bool = False
) -> Html:
    """Something that is shown when it is asked for, or at once if it is ``opened``."""
    return tag("details", tag("summary", summary), *children, class_=class_, open=opened)


def table(
    heads: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    caption: str,
    class_: str | None = None,
    names: Iterable[str] = (),
) -> Html:
    """A table whose first cell in a row is the row's heading.

    On a narrow screen each row becomes a block, so a cell carries the name of its column.

    Args:
        heads: of the columns.
        rows: of cells.
        caption: for those who do not see it.
        class_: of the table.
        names: a class for each column; ``n`` are numbers.
    """
    heads = list(heads)
    kinds = [*names, *[""] * len(heads)][: len(heads)]
    head = tag(
        "tr",
        (
            tag("th", one, scope="col", role="columnheader", class_=kind or None)
            for one, kind in zip(heads, kinds, strict=True)
        ),
        role="row",
    )
    plain = [one if isinstance(one, str) and not isinstance(one, Html) else "" for one in heads]

    def row(cells: Iterable[Child]) -> Html:
        made = []
        for at, (cell, kind, name) in enumerate(zip(cells, kinds, plain, strict=True)):
            if at == 0:
                made.append(tag("th", cell, scope="row", role="rowheader", class_=kind or None))
            else:
                kind = kind if cell != NOTHING else f"{kind} nil".strip()
                made.append(tag("td", cell, role="cell", class_=kind or None, data_h=name or None))
        return tag("tr", made, role="row")

    return tag(
        "table",
        tag("caption", caption, class_="hide"),
        tag("thead", head, role="rowgroup"),
        tag("tbody", map(row, rows), role="rowgroup"),
        role="table",
        class_=class_,
    )


def copied(command: str, what: str) -> Html:
    """A command to be copied, or what it would do where it cannot be written in plain text."""
    if visible(command) != command or "\n" in command:
        return tag("p", f"{what}: the paths have characters that cannot be copied from here.")
    return tag(
        "div",
        tag("span", what, class_="soft"),
        tag("code", command, class_="command", dir="ltr", tabindex=0),
        class_="copy",
    )
