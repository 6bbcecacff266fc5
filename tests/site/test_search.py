"""A reader's test in Chromium: thirty questions, typed into the search box of the built site, lead to the pages that answer them.

``SEMHITOK_SCREENSHOTS=FOLDER`` keeps a picture of the site on a desktop and on a phone.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.site.questions import QUESTIONS

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]
SITE = Path(__file__).parents[2] / "site"
WAIT = 60_000  # ms; the machine may be busy
AMONG = 3  # results that a reader looks at
SHOTS = os.environ.get("SEMHITOK_SCREENSHOTS")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    assert (SITE / "index.html").is_file(), "build the site first: make docs"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield opened
        opened.close()


def test_the_search_box_leads_to_the_answer(address: str, browser: Any):
    assert len(QUESTIONS) == 30
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.keyboard.press("/")
    box = page.get_by_role("combobox", name="Search")
    box.wait_for(state="visible")
    missed = []
    for question in QUESTIONS:
        results = _results(page, box, question.typed, address)[:AMONG]
        answering, _, heading = question.page.partition("#")  # results lead to pages
        assert f'id="{heading}' in (SITE / answering / "index.html").read_text(encoding="utf-8"), question.page
        if answering not in results:
            missed.append(f"{question.question} [{question.typed}] -> {results}, not {question.page}")
    assert missed == []
    assert {urlsplit(request).hostname for request in requests if request.startswith("http")} == {"127.0.0.1"}


def _results(page: Any, box: Any, typed: str, address: str) -> list[str]:
    """Addresses below the site's root of the results, best first."""
    options = page.locator("[role=option]")
    box.fill("")
    while options.count():
        page.wait_for_timeout(50)
    box.fill(typed)
    options.first.wait_for()
    found: list[str] = []
    while (now := options.evaluate_all("links => links.map(link => link.href)")) != found:  # until nothing changes
        found = now
        page.wait_for_timeout(300)
    return [link.removeprefix(address).split("?")[0] for link in found]


@pytest.mark.parametrize(("name", "size"), [("site-desktop", (1280, 800)), ("site-phone", (390, 844))])
def test_pages_fit_a_desktop_and_a_phone(name: str, size: tuple[int, int], address: str, browser: Any):
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(WAIT)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for place in ("", "faq/", "notebooks/reconstruct/", "api/inference/"):
        page.goto(address + place)
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{place} is {wide} px wider than the window"
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"{name}{'-' + place.split('/')[0] if place else ''}.png")
    assert complaints == []
