"""Debian's Chromium on the server's page, for the page's tests and benchmark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from benchmarks.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)

CHROMIUM = shutil.which("chromium")
_FLAGS = [
    "--no-sandbox",  # a container's user is often root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser. No asyncio loop can run in this thread while it is open."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS, timeout=PATIENCE * 1000)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser,
    url: str,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    scale: float = 1,
) -> Iterator[Page]:
    """Open a page at an address in a new profile. Raises AssertionError at the end if its console shows an error or a warning.

    The browser also logs each request that the API refuses. Those are no errors, since the page explains them.
    """
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale, has_touch=size == PHONE
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        refused = message.text.startswith("Failed to load resource") and "/page/" not in message.location["url"]
        if message.type in ("error", "warning") and not refused:
            errors.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(url)
        yield page
        assert not errors
    finally:
        context.close()


def wait_until_ended(page: Page) -> None:
    """Wait until the run on the page has ended and each card shows how it ended. Only a few cards are painted in each frame."""
    page.wait_for_selector("#run[aria-busy=false]")
    page.wait_for_selector(".card:is([data-state=running], :not([data-state]))", state="detached")
    page.evaluate("() => new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)))")
