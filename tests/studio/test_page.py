"""The page in a real browser, on this machine's CPU, with the bundled checkpoints.

``SEMHITOK_SCREENSHOTS=docs/images`` keeps the pictures of docs/studio.md (`make screenshots`).
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from tests.browser import BROWSER, HERE, NAMELESS, NO_BROWSER

from semhitok.studio.workspace import Workspace

pytest.importorskip("gradio", reason="the extra `studio` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER),
    pytest.mark.filterwarnings("ignore:::gradio"),  # its own use of pandas
]

WAIT = 60_000  # ms; the machine may be busy
SHOTS = os.environ.get("SEMHITOK_SCREENSHOTS")
PROMPTS = "a rabbit\ntwo bananas" if SHOTS else "two bananas"
SECONDS = 10  # that a reconstruction may take on a machine that does nothing else

_connections: list[Any] | None = None  # what this process connects to, while a studio is open


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _connections is not None and event == "socket.connect" and isinstance(arguments[1], tuple):
        _connections.append(arguments[1][0])
    elif _connections is not None and event == "socket.getaddrinfo":
        _connections.append(arguments[0])


COLLECT_SOURCES = """alt => {
  window.collected = new Set();
  const look = () => document.querySelectorAll(`img[alt="${alt}"]`).forEach(image => window.collected.add(image.src));
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
}"""
"""Notes every picture that an image with this description shows from now on, also those shown for a moment."""


class Studio:
    """An open page, and all that it asked for and said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))

    def open(self, tab: str, shown: str) -> None:
        """Open a tab and wait until it shows something."""
        self.page.get_by_role("tab", name=tab).click()
        self.wait(shown)

    def wait(self, selector: str) -> Any:
        return self.page.wait_for_selector(f"{selector} >> visible=true", timeout=WAIT)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true."""
        end = time.monotonic() + WAIT / 1000
        while not (found := condition()):
            assert time.monotonic() < end
            self.page.wait_for_timeout(50)
        return found

    def visible(self, selector: str) -> Any:
        return self.page.locator(f"{selector} >> visible=true")

    def sources(self, selector: str) -> list[str]:
        return [image.get_attribute("src") for image in self.visible(selector).all()]

    def settled(self, selector: str) -> bool:
        """Whether these images stay as they are for a while."""
        before = self.sources(selector)
        self.page.wait_for_timeout(8000)
        return self.sources(selector) == before

    def picture(self, name: str, *, height: int | None = None) -> None:
        """A screenshot of the page, kept where one is wanted."""
        if SHOTS:
            self.page.mouse.move(0, 0)
            self.page.wait_for_timeout(700)  # the end of animations
            size = self.page.viewport_size
            clip = None if height is None else {"x": 0, "y": 0, "width": size["width"], "height": height}
            shot = Image.open(io.BytesIO(self.page.screenshot(full_page=True, clip=clip)))
            shot.convert("RGB").save(Path(SHOTS) / f"studio-{name}.webp", quality=80, method=6)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A studio with what comes with the package."""
    global _connections
    from semhitok.studio.serving import serving

    sys.addaudithook(_watch)
    _connections = []
    with serving(Workspace()) as url:
        yield url
    reached, _connections = set(_connections), None
    assert reached <= HERE, "the server connects to nothing outside"


@pytest.fixture(scope="module")
def studio(address: str) -> Iterator[Studio]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
        opened = Studio(context.new_page())
        opened.page.goto(address)
        yield opened
        browser.close()
    outside = {url for url in opened.requests if urlsplit(url).scheme not in ("data", "blob")}
    assert {urlsplit(url).hostname for url in outside} <= HERE, "the page asks no other machine for anything"
    assert opened.complaints == []


def test_a_dropped_photograph_comes_back(studio: Studio, tmp_path: Path):
    studio.wait(".slide")  # that of the example
    before = studio.sources(".slide img")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)).save(tmp_path / "mine.png")
    began = time.monotonic()
    studio.page.set_input_files("input[type=file] >> nth=0", tmp_path / "mine.png")
    studio.until(lambda: studio.sources(".slide img") not in ([], before))
    others = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # that wait for each processor
    assert time.monotonic() - began < SECONDS * others
    studio.page.get_by_role("button", name="astronaut", exact=True).first.click()
    studio.until(lambda: studio.sources(".slide img") == before)
    slider = studio.page.get_by_label("Border between the original on the left")
    slider.focus()
    studio.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert "51%" in studio.page.locator(".slide").get_attribute("style")
    studio.picture("reconstruct")


def test_a_file_that_is_no_image_is_a_sentence(studio: Studio, tmp_path: Path):
    (tmp_path / "odd.png").write_bytes(b"no image")
    studio.page.get_by_label("Remove Image").first.click()
    studio.page.set_input_files("input[type=file] >> nth=0", tmp_path / "odd.png")
    sentence = studio.wait(".toast-body").inner_text()
    assert "The photograph: not an image, or truncated" in sentence
    studio.picture("error", height=430)
    studio.visible(".toast-close").click()
    studio.page.get_by_role("button", name="astronaut", exact=True).first.click()


def test_a_patch_is_chosen_and_its_token_changed(studio: Studio):
    studio.open("Codes", ".sub-codebook button")
    studio.wait(".card img[alt='codes of the second']")
    chosen = studio.visible(".patches button[aria-pressed=true]")
    place = int(chosen.get_attribute("data-pick"))
    chosen.focus()
    studio.page.keyboard.press("ArrowLeft")
    studio.page.keyboard.press("Enter")
    studio.until(lambda: chosen.get_attribute("data-pick") == str(place - 1))
    studio.until(
        lambda: studio.page.evaluate("document.activeElement.dataset.pick") == str(place - 1)
    )  # the focus stays
    studio.page.keyboard.press("ArrowRight")
    studio.page.keyboard.press("Enter")
    studio.until(lambda: chosen.get_attribute("data-pick") == str(place))
    decoded = "img[alt^='decoded from its tokens']"
    before = studio.sources(decoded)
    studio.visible(".sub-codebook button[aria-pressed=false]").first.click()
    studio.until(lambda: studio.visible("text=1 token changed").count())
    assert studio.sources(decoded) != before
    studio.picture("codes")
    studio.page.get_by_role("button", name="Undo all changes").click()
    studio.until(lambda: studio.sources(decoded) == before)


def test_images_are_drawn(studio: Studio):
    studio.open("Draw", "text=Images appear here")
    studio.page.get_by_label("Prompts, one in each line").fill(PROMPTS)
    studio.page.evaluate(COLLECT_SOURCES, "two bananas, seed 3")
    studio.page.get_by_role("button", name="Draw", exact=True).click()
    studio.until(lambda: studio.page.evaluate("window.collected.size") > 2)  # rows appear one by one
    studio.until(lambda: not studio.visible(".generating, .progress-text").count())
    if SHOTS:
        studio.until(lambda: studio.settled("img[alt*=', seed']"))
    studio.picture("draw")


def test_a_question_is_answered(studio: Studio):
    studio.open("Ask", "text=What kind of thing was put into the picture?")
    studio.until(lambda: studio.visible(".grid-wrap img, .preview img").count())
    studio.page.get_by_role("button", name="What kind of thing was put into the picture?").click()
    studio.wait(".bot.message")
    studio.page.get_by_label("Question", exact=True).fill("Is there a dog in the picture?")
    studio.page.keyboard.press("Enter")
    studio.until(lambda: studio.visible(".bot.message").count() == 2)
    studio.until(lambda: studio.visible(".bot.message").last.inner_text().strip() in ("yes", "no"))
    studio.picture("ask")


def test_results_are_compared_and_filtered(studio: Studio):
    studio.open("Compare", "svg.scatter")
    everything = studio.visible("svg.scatter circle").count()
    assert everything > 20
    studio.picture("compare")
    studio.page.get_by_label("Only experiments named").fill("unitok")
    studio.until(lambda: 0 < studio.visible("svg.scatter circle").count() < everything)
    assert all("unitok" in name for name in studio.visible(".table tbody th").all_inner_texts())


def test_controls_have_names_and_pages_fit_a_phone(studio: Studio):
    tabs = ("Reconstruct", "Codes", "Draw", "Ask", "Compare")
    for tab in tabs:
        studio.page.get_by_role("tab", name=tab).click()
        assert studio.page.evaluate(NAMELESS) == [], tab
    studio.page.set_viewport_size({"width": 390, "height": 844})
    studio.page.wait_for_timeout(300)
    for tab in tabs:
        studio.page.get_by_role("tab", name=tab).click()
        studio.page.wait_for_timeout(100)
        assert studio.page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    studio.page.get_by_role("tab", name="Reconstruct").click()
    studio.wait(".slide")
    studio.picture("phone", height=1500)
    studio.page.set_viewport_size({"width": 1280, "height": 860})
