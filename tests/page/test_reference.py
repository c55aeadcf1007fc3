"""The API's reference at /docs, in a real browser."""

from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright")

from playwright.sync_api import expect

from benchmarks.browser import CHROMIUM, chromium, opened
from benchmarks.servers import RunningServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


def test_it_shows_the_operations_and_asks_no_other_host(server: RunningServer) -> None:
    with chromium() as browser, opened(browser, f"{server.url}/docs") as page:
        expect(page.locator(".opblock-summary-path").first).to_be_visible()
        paths = page.locator(".opblock-summary-path").all_inner_texts()
        assert {"/v1/solve", "/v1/generate"} <= {path.replace("\u200b", "") for path in paths}
        loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert {urlsplit(url).netloc for url in loaded if not url.startswith("data:")} == {urlsplit(server.url).netloc}
