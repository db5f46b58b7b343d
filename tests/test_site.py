"""The site of the documentation: complete, built without a warning, and read without a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from pages import PAGES, ROOT


def _load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = _load_hooks()


class Links(HTMLParser):
    """What a page fetches, where its links lead, and what can be linked to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        named = {name: value for name, value in attrs if value is not None}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        elif tag in ("script", "img", "iframe", "source"):
            self.fetched += [named[name] for name in ("src", "srcset") if name in named]
        elif tag == "link" and named.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(named["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it; a warning is an error."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """Whoever adds a page names it in mkdocs.yml, or nobody finds it."""
    shown = {link for link in Links(site / "index.html").links if "://" not in link}
    places = [hooks.place_of(str(page.relative_to(ROOT))) for page in PAGES]
    wanted = {str(Path(place).with_suffix(".html")) for place in places}
    wanted = {re.sub(r"README\.html$", "index.html", place) for place in wanted}
    assert (
        wanted - {urlsplit(link).path.removeprefix("./") or "index.html" for link in shown} == set()
    )


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    fetched = {(page.name, what) for page in pages for what in Links(page).fetched}
    assert fetched
    assert [each for each in fetched if re.match(r"(?:https?:)?//", each[1])] == []
    sheets = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", sheets) == []


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    lost = []
    for page, found in pages.items():
        for link in found.links:
            parts = urlsplit(link)
            if parts.scheme or page.name == "404.html":
                assert re.fullmatch(r"https?://[^\s/]+\.[^\s]+|/.*|\..*|#.*", link), link
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in known):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert lost == []


@pytest.mark.parametrize(
    ("place", "text", "turned"),
    [
        ("index.md", "[a](docs/models.md#kinds)", "[a](models.md#kinds)"),
        ("index.md", "![a](docs/terminal.svg)", "![a](terminal.svg)"),
        ("models.md", "[a](../data/README.md)", "[a](data/README.md)"),
        ("engines.md", "[a](../README.md#figures)", "[a](index.md#figures)"),
        ("engines/README.md", "[a](../docs/engines.md)", "[a](../engines.md)"),
        ("models.md", "[a](#kinds) [b](https://x.org/y)", "[a](#kinds) [b](https://x.org/y)"),
        ("models.md", "[a](../x)\n```\n[b](../x)\n```", "[a](x)\n```\n[b](../x)\n```"),
    ],
)
def test_links_of_files_become_links_of_the_site(place: str, text: str, turned: str) -> None:
    assert hooks.links_turned(text, place) == turned
