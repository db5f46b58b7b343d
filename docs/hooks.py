"""What makes one site of pages that stand in several folders; called by MkDocs.

The README is its first page. Pages beside ``docs/`` keep their path, and a link from one page to
another is turned into what it is on the site. Pages are written for a reader of the repository; the
links in them are those of files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "data/README.md",
    "engines/README.md",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "examples/*/README.md",
)
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
_FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def place_of(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/")


def file_of(place: str) -> str:
    """The file of the repository that a page of the site is made of."""
    if place == "index.md":
        return "README.md"
    return place if (ROOT / place).is_file() else f"docs/{place}"


def links_turned(text: str, place: str) -> str:
    """A page with the links that it has on the site."""
    folder = os.path.dirname(file_of(place))

    def turned(link: re.Match[str]) -> str:
        if "://" in link[1]:
            return link[1]
        target = place_of(os.path.normpath(os.path.join(folder, link[1])))
        return os.path.relpath(target, os.path.dirname(place) or ".")

    parts, done = [], 0
    for fence in _FENCED.finditer(text):
        parts += [_LINK.sub(turned, text[done : fence.start()]), fence[0]]
        done = fence.end()
    return "".join([*parts, _LINK.sub(turned, text[done:])])


def source_page(path: str) -> str:
    """A page that shows a file of code."""
    return f"# {path}\n\n```python\n{(ROOT / path).read_text(encoding='utf-8')}```\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages beside ``docs/``, and the files of code to which pages link."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]
    for page in pages:
        place = place_of(str(page.relative_to(ROOT)))
        files.append(File.generated(config, place, abs_src_path=str(page)))
    linked: set[str] = set()
    for page in [*pages, *ROOT.glob("docs/*.md")]:
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            target = os.path.relpath(os.path.join(page.parent, link), ROOT)
            if link.endswith(".py") and (ROOT / target).is_file():
                linked.add(target)
    for target in sorted(linked):
        place = f"{target}.md"
        content = source_page(target)
        made = File.generated(config, place, content=content)
        made.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page."""
    place = page.file.src_uri
    if place.endswith(".py.md"):
        return markdown
    turned = links_turned(markdown, place)
    return re.sub(r"(\]\([^)\s#]+\.py)(?=[)#])", r"\1.md", turned)
