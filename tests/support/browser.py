"""A real Chromium, Debian's own, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

EXPECT_TIMEOUT_MS = 20_000
"""How long `expect` waits for its condition: a busy machine renders slowly."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a temporary profile."""
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("These tests need Debian's Chromium: run scripts/install_tools.sh as root.")
    expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class BrowserMessages:
    """The errors and warnings in a page's console, including CSP violations, and the hosts that it contacts."""

    def __init__(self, page: Page) -> None:
        self.texts: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.texts.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.texts.append(message.text)

    def _request(self, request: Request) -> None:
        if request.url.startswith("http"):
            self.hosts.add(request.url.split("/")[2])
