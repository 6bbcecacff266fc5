"""The page docs/try/ in a real browser, on this machine's CPU: ids equal to Python's, no outside request.

With a tiny tokenizer; ``SEMHITOK_SCREENSHOTS=docs/images`` takes the bundled one instead and keeps the picture of docs/export.md.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from tests.browser import BROWSER, HERE, NAMELESS, NO_BROWSER

from semhitok import SemHiTokModel, TokenizerImageProcessor
from semhitok.data.transforms import fit_image, to_uint8

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="the extra `onnx` is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)

SHOTS = os.environ.get("SEMHITOK_SCREENSHOTS")
DOCS = Path(__file__).parents[2] / "docs"
WAIT = 120_000  # ms; the machine may be busy
SECONDS = 60  # that a picture may take on a busy machine; alone it takes far less than 3, see docs/experiments.md
SIZES = ((16, 16), (50, 33), (9, 20), (203, 150), (8, 9), (16, 300))
LABEL = re.compile(r"row (\d+), column (\d+): semantic code (\d+), pixel code (\d+)")
CENTRE = """async (pictures) => {
  const { centreSquare } = await import('/resample.js');
  return pictures.map(([width, height, data]) => Array.from(centreSquare({ width, height, data }, 16).data));
}"""
DRAWN = """(id) => {
  const canvas = document.getElementById(id);
  return Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data);
}"""


def _builder() -> Any:
    specification = importlib.util.spec_from_file_location("try_page", DOCS / "try_page.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Page:
    """The open page beside the model in Python."""

    def __init__(self, page: Any, model: SemHiTokModel) -> None:
        self.page, self.model = page, model
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))

    def choose(self, file: Path) -> None:
        """Choose a file, and wait until its tokens are shown."""
        self.page.set_input_files("#file", file)
        self.until(f"document.querySelector('#status').textContent.startsWith('{file.name}')")

    def until(self, condition: str) -> None:
        """Wait until an expression is true; asked from here, as the page's own policy forbids ``eval``."""
        end = time.monotonic() + WAIT / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(50)

    @property
    def codes(self) -> tuple[Any, Any]:
        """The fields of the chosen token's codes."""
        return tuple(self.page.get_by_role("spinbutton", name=name) for name in ("Semantic code", "Pixel code"))

    def ids(self) -> torch.Tensor:
        """The ids that the labels of the tokens say."""
        labels = [button.get_attribute("aria-label") for button in self.page.locator("#tokens button").all()]
        codes = [found.groups() for found in map(LABEL.fullmatch, labels) if found]
        assert len(codes) == len(labels), labels
        semantic, pixel = (torch.tensor([[int(code[place]) for code in codes]]) for place in (2, 3))
        return self.model.pixel_quantizer.flatten_ids(semantic, pixel)

    def drawn(self, canvas: str) -> np.ndarray:
        size = self.model.config.image_size
        return np.array(self.page.evaluate(DRAWN, canvas), dtype=np.int64).reshape(size, size, 4)[..., :3]

    def decoded(self, ids: torch.Tensor) -> np.ndarray:
        """What Python decodes, (S,S,3) in [0,255], not rounded."""
        return ((self.model.decode(ids)[0] + 1) * 127.5).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def model() -> SemHiTokModel:
    if SHOTS:
        return SemHiTokModel.from_pretrained("mini").eval()
    from tests.export.exported import tiny_onnx

    return tiny_onnx().model


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built page behind a plain file server."""
    folder, builder = tmp_path_factory.mktemp("try"), _builder()
    try:
        builder.put_runtime(DOCS / "try" / "runtime")  # kept for the next time
    except ValueError as error:
        pytest.skip(str(error))
    if SHOTS:
        if not (builder.PAGE / "models" / "metadata.json").is_file():
            builder.build(builder.PAGE)  # as `make try`
        folder = builder.PAGE
    else:
        from tests.export.exported import tiny_onnx

        for name in builder.OWN:
            shutil.copy(builder.PAGE / name, folder)
        shutil.copytree(DOCS / "try" / "runtime", folder / "runtime")
        shutil.copytree(tiny_onnx().written.folder, folder / "models")
        builder.put_examples(folder / "examples")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page(browser: Any, address: str, model: SemHiTokModel) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1180, "height": 900}, color_scheme="light")
    opened = Page(context.new_page(), model)
    opened.page.goto(address)
    opened.page.wait_for_selector("#editor:visible", timeout=WAIT)
    yield opened
    outside = {url for url in opened.requests if urlsplit(url).scheme not in ("data", "blob")}
    assert {urlsplit(url).hostname for url in outside} <= HERE, "the page asks no other machine for anything"
    assert opened.complaints == []


def pictures(folder: Path) -> Iterator[Path]:
    """Noise at the exact size, odd shapes, a turned photograph and one with a transparent part."""
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(((32, 32), (217, 90))):
        path = folder / f"noise-{number}.png"
        Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        yield path
    photograph = Image.open(DOCS.parent / "examples" / "photographs" / "chelsea.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    photograph.crop((40, 20, 400, 290)).save(folder / "turned.jpg", exif=turned, quality=90)
    yield folder / "turned.jpg"


def test_ids_and_pixels_are_those_of_python(page: Page, model: SemHiTokModel, tmp_path: Path):
    processor = TokenizerImageProcessor(size=model.config.image_size)
    for file in pictures(tmp_path):
        began = time.monotonic()
        page.choose(file)
        assert time.monotonic() - began < SECONDS
        values = processor(file)["pixel_values"]
        seen = ((values[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
        assert np.array_equal(page.drawn("original"), seen), file.name
        ids = model.encode(values).ids
        assert torch.equal(page.ids(), ids), file.name
        assert np.abs(page.drawn("reconstruction") - page.decoded(ids)).max() < 0.51, file.name


def test_pictures_are_resampled_as_pillow_does(page: Page):
    generator = np.random.default_rng(1)
    arrays = [generator.integers(0, 255, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    found = page.page.evaluate(CENTRE, [[a.shape[1], a.shape[0], a.flatten().tolist()] for a in arrays])
    for array, square in zip(arrays, found, strict=True):
        wanted = to_uint8(fit_image(Image.fromarray(array), 16, 16)).permute(1, 2, 0).flatten().tolist()
        assert square == wanted, array.shape


def test_a_token_is_changed_by_keyboard_and_the_picture_follows(page: Page, model: SemHiTokModel):
    page.page.locator("#examples button").first.click()
    page.until("document.querySelector('#status').textContent.startsWith('astronaut')")
    before, picture = page.ids(), page.drawn("reconstruction")
    _, columns = model.config.grid(model.config.image_size, model.config.image_size)
    page.page.locator("#tokens button").first.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.page.keyboard.press(key)
    place = columns + 1
    assert (
        page.page.locator("#tokens button[aria-pressed=true]")
        .get_attribute("aria-label")
        .startswith("row 2, column 2:")
    )
    # 4 pixel codes in both models' semantic codes 11 and 15, of which one is another than before
    semantic = 11 if int(model.pixel_quantizer.split_ids(before)[0][0, place]) == 15 else 15
    wanted = before.clone()
    wanted[0, place] = model.pixel_quantizer.flatten_ids(torch.tensor(semantic), torch.tensor(0))
    page.codes[0].fill(str(semantic))
    page.page.keyboard.press("Enter")
    page.until("document.querySelector('#changed').textContent === '1 token changed'")
    page.codes[1].fill("0")
    page.page.keyboard.press("Enter")
    swatches = page.page.locator("#swatches button")
    swatches.nth(1).click()
    page.until("document.querySelectorAll('#swatches button')[1].getAttribute('aria-pressed') === 'true'")
    wanted[0, place] += 1
    assert torch.equal(page.ids(), wanted)
    assert np.abs(page.drawn("reconstruction") - page.decoded(wanted)).max() < 0.51
    assert not np.array_equal(page.drawn("reconstruction"), picture)
    page.page.get_by_role("button", name="Undo all changes").click()
    page.until("document.querySelector('#changed').textContent === ''")
    assert torch.equal(page.ids(), before)
    assert np.array_equal(page.drawn("reconstruction"), picture)


def test_what_cannot_be_used_is_a_sentence(page: Page, browser: Any, address: str, tmp_path: Path):
    (tmp_path / "odd.png").write_bytes(b"no image")
    page.page.set_input_files("#file", tmp_path / "odd.png")
    problem = page.page.wait_for_selector("#problem:visible")
    assert "odd.png is not a picture that this browser can read" in problem.inner_text()
    page.codes[1].fill("999999")
    page.page.keyboard.press("Enter")
    page.until("document.querySelector('#problem').textContent.startsWith('Pixel code must be a whole')")
    old = browser.new_context()
    old.add_init_script("WebAssembly.validate = () => false")
    shown = old.new_page()
    shown.goto(address)
    sentence = shown.wait_for_selector("#problem:visible", timeout=WAIT).inner_text()
    assert "does not have WebAssembly with SIMD" in sentence
    old.close()


def test_controls_have_names_and_the_page_fits_a_phone(page: Page):
    page.page.locator("#examples button").nth(2 if SHOTS else 0).click()
    page.until("document.querySelector('#problem').hidden")
    page.until("document.querySelector('#changed').textContent === ''")
    assert page.page.evaluate(NAMELESS) == []
    if SHOTS:
        page.page.locator("#tokens button").nth(100).click()  # an eye
        page.until(
            "[...document.querySelectorAll('#swatches canvas')].every((canvas) => canvas.width < 300)"
        )  # all drawn
        shot = Image.open(io.BytesIO(page.page.screenshot(full_page=True)))
        shot.convert("RGB").save(Path(SHOTS) / "try.webp", quality=80, method=6)
    page.page.set_viewport_size({"width": 390, "height": 844})
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_list_of_examples_names_files_that_are_there(tmp_path: Path):
    _builder().put_examples(tmp_path)
    listed = json.loads((tmp_path / "examples.json").read_text())
    assert len(listed) >= 4
    assert {entry["file"] for entry in listed} == {file.name for file in tmp_path.glob("*.jpg")}
