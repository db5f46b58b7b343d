"""A browser without a window, started once; ``python -m engines chromium`` installs it."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))  # the examples

SCREENSHOTS = TESTS.parent / "build" / "screenshots"
HIGHEST = 8000
"""Pixels of a page that a screenshot shows."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Browser:
    """Chromium, and what the tests ask of it."""

    def __init__(self, profile: Path, pages: Path) -> None:
        options = webdriver.ChromeOptions()
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        missing = [name for name, path in programs.items() if path is None]
        if missing:
            pytest.fail(f"{', '.join(missing)} not found; run: python -m engines chromium")
        options.binary_location = str(programs["chromium"])
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(str(programs["chromedriver"]))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.get("about:blank")  # its own first page asks for what a new tab shows
        self._pages = pages
        self.url = ""

    def command(self, name: str, **arguments: Any) -> Any:
        """Ask the browser's own protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def look(self, width: int, scheme: str = "light", media: str = "") -> None:
        """Set the width of the window, and whether it is light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        self.command("Emulation.setDeviceMetricsOverride",
                     width=width, height=900, deviceScaleFactor=1, mobile=False)  # fmt: skip

    def open(self, content: str) -> None:
        """Open a page from a file."""
        path = self._pages / "report.html"
        path.write_text(content, encoding="utf-8")
        self.url = path.as_uri()
        self.logs()
        self.driver.get(self.url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function's body returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key))

    def logs(self) -> tuple[list[str], list[str]]:
        """What stands in the console, and what was requested, since it was asked last."""
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        asked = [
            event["message"]["params"]["request"]["url"]
            for event in events
            if event["message"]["method"] == "Network.requestWillBeSent"
        ]
        return console, asked

    def keep(self, name: str, width: int) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        high = min(HIGHEST, self.run("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": high, "scale": 1}
        taken = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, with a profile of its own that is new."""
    made = Browser(tmp_path_factory.mktemp("profile"), tmp_path_factory.mktemp("pages"))
    try:
        yield made
    finally:
        made.driver.quit()
