"""The page as a browser shows it: narrow and wide, light and dark, by keyboard, on paper."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import cache

import example_runs as pages
import pytest
from axe_core_python.base import AXE_SCRIPT
from conftest import Browser
from selenium.webdriver.common.keys import Keys
from test_page import NASTY, SECTIONS, many, replaced

from modelbeam.report.page import draw

LOOKS = [(1600, "light"), (1600, "dark"), (400, "light"), (400, "dark")]

NARROW = "return document.documentElement.scrollWidth <= innerWidth"
CHECK = """
const done = arguments[arguments.length - 1];
axe.run().then(found => done(found.violations.map(
  one => `${one.id}: ${one.help}: ` + one.nodes.slice(0, 3).map(node => node.html.slice(0, 200)))));
"""
DRAWN = """
return [...document.querySelectorAll("main > section")].map(section => [
  section.id,
  [...section.querySelectorAll("svg, table, pre, h2, article")].filter(
    one => !one.closest("details:not([open])") && one.getBoundingClientRect().width < 1).length])
"""


@cache
def page(name: str) -> str:
    return draw(*pages.EXAMPLES[name]()).replace('http-equiv="refresh"', 'name="refresh"')


@pytest.fixture(autouse=True)
def nothing_is_requested_or_complained_of(browser: Browser) -> Iterator[None]:
    yield
    console, asked = browser.logs()
    assert console == []
    assert {one.partition("#")[0] for one in asked} == {browser.url}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_drawn_and_can_be_read(browser: Browser, name: str) -> None:
    browser.open(page(name))
    assert browser.run("return [...document.querySelectorAll('svg')].length") > 3
    for width, scheme in LOOKS:
        browser.look(width, scheme)
        drawn = browser.run(DRAWN)
        assert {one for one, _ in drawn} == SECTIONS[name]
        assert [one for one in drawn if one[1]] == []
        assert browser.run(NARROW), (width, scheme)
        browser.keep(f"{name}-{width}-{scheme}", width)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_checker_of_accessibility_finds_nothing(browser: Browser, name: str) -> None:
    browser.open(page(name))
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.run(AXE_SCRIPT)
    for width, scheme in LOOKS[:3]:
        browser.look(width, scheme)
        assert browser.driver.execute_async_script(CHECK) == [], (width, scheme)


def test_all_of_it_is_reached_by_keyboard(browser: Browser) -> None:
    browser.look(1600)
    browser.open(page("failing"))
    focus = "return document.activeElement"
    browser.press("TAB")
    assert browser.run(f"{focus}.className") == "skip"
    assert browser.run(f"{focus}.getBoundingClientRect().top") >= 0
    browser.press("ENTER")
    assert browser.run(f"{focus}.id") == "content"
    reached = set()
    for _ in range(120):
        browser.press("TAB")
        reached.add(browser.run("const a = document.activeElement; return a.tagName + a.className"))
        if browser.run(f"{focus}.className") == "copier":
            break
    assert {"SUMMARY", "PRE", "CODEcommand", "BUTTONcopier"} <= reached
    browser.press("ENTER")
    assert browser.run(f"{focus}.textContent") in ("Copied", "Selected")
    assert browser.run("return String(getSelection())").startswith("modelbeam")
    browser.run("document.querySelector('.kind:not([open]) > summary').focus()")
    browser.press("ENTER")
    assert browser.run(f"{focus}.parentNode.open")
    browser.press("ENTER")
    assert not browser.run(f"{focus}.parentNode.open")


@pytest.mark.parametrize("name", SECTIONS)
def test_it_is_printed_light_whole_and_without_what_is_for_the_screen(
    browser: Browser, name: str
) -> None:
    browser.open(page(name))
    browser.look(794, "dark", "print")
    shown = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert browser.run(shown, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run(shown, "nav", "display") == "none"
    assert browser.run(NARROW)
    closed = "[...document.querySelectorAll('.kind')].filter(one => !one.querySelector('pre'))"
    hidden = "[...document.querySelectorAll('[open] > pre')].filter(one => !one.offsetHeight)"
    assert browser.run(f"return {closed}.length + {hidden}.length") == 0
    browser.look(1600)
    printed = browser.command("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")


def test_it_works_without_scripts(browser: Browser) -> None:
    browser.look(1600)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page("failing"))
        assert {one for one, _ in browser.run(DRAWN)} == SECTIONS["failing"]
        assert browser.run("return document.querySelector('.copier').offsetHeight") == 0
        summary = browser.driver.find_element("css selector", ".kind:not([open]) > summary")
        summary.send_keys(Keys.ENTER)
        assert browser.run("return arguments[0].parentNode.open", summary)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


PLACES = """
return [...document.querySelectorAll("main > section > h2, header > h1")].map(
  one => [one.textContent, one.getBoundingClientRect().left])
"""


@pytest.mark.parametrize("text", NASTY)
def test_hostile_texts_neither_run_nor_move_anything(browser: Browser, text: str) -> None:
    run, profile = pages.EXAMPLES["drift"]()
    browser.look(1600)
    browser.open(draw(run, profile))
    before = browser.run(PLACES)
    status = run["status"]
    run, profile = replaced(run, lambda _: text), replaced(profile, lambda _: text)
    run["status"] = status
    browser.open(draw(run, profile))
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    after = browser.run(PLACES)
    assert [place for place in after if place[0] in dict(map(tuple, before))] == after
    assert {place for _, place in after} == {place for _, place in before}
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('img, iframe, [onerror]').length") == 0
    for width in (1600, 400):
        browser.look(width)
        assert browser.run(NARROW), width


def test_a_page_of_far_too_much_opens(browser: Browser) -> None:
    browser.look(400)
    browser.open(draw(*many(1500, '<b>"&\u202e' * 100)))
    assert browser.run(NARROW)
    assert 1000 < browser.run("return document.querySelectorAll('*').length") < 40_000
    browser.look(1600)
    assert browser.run(NARROW)
    browser.keep("hostile-1600-light", 1600)
