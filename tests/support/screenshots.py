"""`python scripts/private_broker.py run -- python -m tests.support.screenshots docs/images`: the docs' screenshots.

A real service, a few photographs a second, crashes, a dropped image; about three minutes. Check the images by eye.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from demo import write_photographs  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from tests.support.browser import chromium  # noqa: E402
from tests.support.monitoring import http_url  # noqa: E402
from tests.support.service import Dms, RunningService, running_service  # noqa: E402

TOKEN = "a-token-for-the-page"
DESKTOP = {"width": 1120, "height": 800}
PHONE = {"width": 360, "height": 760}


def main() -> None:
    """Take all of them: idle, under load in three styles, and with the model disabled."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    url = os.environ["AUTOTAG_AMQP__URL"]
    prefix = f"screenshots-{os.getpid()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = write_photographs(folder)
        settings = {
            "HTTP__TOKEN": TOKEN,
            "SOURCES__PATH_ROOTS": json.dumps([str(folder)]),
            "DEFAULTS__LABELS__RENAME": json.dumps({"tabby": "cat", "tiger cat": "cat"}),
            "HTTP__EDITOR": "true",
            "INSTANCES__ACME__MAXIMUM_NUMBER_OF_TAGS_PER_ASSET": "3",
        }
        with running_service(url, prefix, folder / "service", **settings) as service:
            service.ready()
            dms = Dms(url, prefix)
            page_url = http_url(service)
            for change in (("set", "instances.acme.tensorflow.confidence_threshold", "0.3"), ("set", *_WAITING)):
                service.autotag("config", *change).check_returncode()
            with chromium() as browser:
                settings_tab(browser, page_url, out)
                take(browser, page_url, out / "status-page-idle.png", DESKTOP)
            load(dms, photographs, seconds=70, a_second=6)
            service.crash_model(2)
            load(dms, photographs, seconds=50, a_second=10)
            with chromium() as browser:
                image = folder / "chelsea.jpg"
                take(browser, page_url, out / "status-page-light.png", DESKTOP, image=image)
                take(browser, page_url, out / "status-page-dark.png", DESKTOP, scheme="dark", image=image)
                take(browser, page_url, out / "status-page-phone.png", PHONE)
                take_tabs(browser, page_url, out)
                service.crash_model(6)
                load(dms, photographs, seconds=12, a_second=6)
                take(browser, page_url, out / "status-page-disabled.png", DESKTOP, unfolded=True, height=1180)
                take_gone(browser, page_url, out / "status-page-gone.png", service)
            dms.close()


def take_tabs(browser: Browser, url: str, out: Path) -> None:
    """Results, dead letters and tenants."""
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    page = signed_in(context.new_page(), url)
    for tab in ("results", "dead-letters", "tenants"):
        page.goto(f"{url}/{tab}")
        if tab == "results":
            page.get_by_text("What each provider said").first.click()
        page.screenshot(path=out / f"status-page-{tab}.png")
        in_few_colours(out / f"status-page-{tab}.png")
    context.close()


def take_gone(browser: Browser, url: str, file: Path, service: RunningService) -> None:
    """An open page whose service has been killed."""
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    page = signed_in(context.new_page(), url)
    service.process.kill()
    expect(page).to_have_title("No answer · Autotag")
    page.screenshot(path=file)
    in_few_colours(file)
    context.close()


def signed_in(page: Page, url: str) -> Page:
    """The page after signing in."""
    page.goto(url)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#headline")
    return page


_WAITING = ("--no-reload", "defaults.tensorflow.maximum_parents", "1")


def settings_tab(browser: Browser, url: str, out: Path) -> None:
    """The Settings tab, and the editor for one instance on a phone."""
    take(browser, url, out / "status-page-settings.png", DESKTOP, tab="settings", height=1300)
    take(browser, url, out / "status-page-editor-phone.png", PHONE, tab="settings-edit?instance=acme", height=760)


def load(dms: Dms, photographs: list[Path], *, seconds: float, a_second: float) -> None:
    """Publish photographs at a constant rate, and occasionally a truncated file."""
    truncated = photographs[0].with_name("truncated.jpg")
    truncated.write_bytes(photographs[0].read_bytes()[:9000])
    for number in range(round(seconds * a_second)):
        file = truncated if number % 41 == 40 else photographs[number % len(photographs)]
        asset = f"photos/2026/{file.stem}-{number:04d}.jpg"
        dms.publish({"path": str(file)}, asset_id=asset, instance="default" if number % 3 else "acme")
        time.sleep(1 / a_second)
    while dms.take("results"):
        pass


def take(
    browser: Browser,
    url: str,
    file: Path,
    viewport: dict[str, int],
    *,
    scheme: str = "light",
    image: Path | None = None,
    unfolded: bool = False,
    height: int | None = None,
    tab: str | None = None,
) -> None:
    """Sign in, let the page settle, and save a screenshot, in few colours so that the file is small."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
    page: Page = context.new_page()
    page.goto(url)
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#headline")
    if tab is not None:
        page.goto(page.url + tab)
    if unfolded:
        page.get_by_text("What happened").click()
    if image is not None:
        page.wait_for_selector("#file:enabled", state="attached")  # once the script listens
        page.set_input_files("#file", image)
        page.wait_for_selector("article.tried")
    page.mouse.move(0, 0)
    page.wait_for_timeout(2500)
    clip = {"x": 0, "y": 0, "width": viewport["width"], "height": height} if height else None
    page.screenshot(path=file, full_page=True, clip=clip)  # type: ignore[arg-type]
    context.close()
    in_few_colours(file)


def in_few_colours(file: Path) -> None:
    """Make a screenshot's file small."""
    with Image.open(file) as picture:
        _in_few_colours(picture.convert("RGB")).save(file, optimize=True)


def _in_few_colours(picture: Image.Image) -> Image.Image:
    """256 colours, of which the page's background is exact: photographs would tint it."""
    few = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
    corner = (1, 1)
    palette, index = few.getpalette(), few.getpixel(corner)
    assert palette is not None
    assert isinstance(index, int)
    palette[3 * index : 3 * index + 3] = picture.getpixel(corner)
    few.putpalette(palette)
    return few


if __name__ == "__main__":
    if shutil.which("chromium") is None:
        sys.exit("Chromium is not installed: run scripts/install_tools.sh as root.")
    main()
