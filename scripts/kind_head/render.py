"""Renders pages in one Chromium, driven by Playwright."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image
from playwright.sync_api import sync_playwright

from kind_head.draft import Page

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--hide-scrollbars", "--force-color-profile=srgb", "--disable-lcd-text",
]  # fmt: skip

Renderer = Callable[[Page], Image.Image]


@contextmanager
def renderer() -> Iterator[Renderer]:
    """A function from a page to its picture."""
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("Chromium is missing: run scripts/install_tools.sh chromium as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        tab = browser.new_page(java_script_enabled=False, offline=True)

        def render(page: Page) -> Image.Image:
            tab.set_viewport_size({"width": page.width, "height": page.height})
            tab.set_content(page.html)
            return Image.open(io.BytesIO(tab.screenshot(animations="disabled"))).convert("RGB")

        yield render
        browser.close()
