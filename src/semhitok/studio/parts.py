"""Gradio components that all tabs use, and how their functions report errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from semhitok.data.images import load_image
from semhitok.data.transforms import fit_image
from semhitok.studio.html import choices

THUMBNAIL = 96  # pixels
MOST_THUMBNAILS = 12
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
"""Options of every event: the page is for people, programs have `semhitok serve` and the Python API."""

# Buttons report what was picked, sliders move their border, arrow keys move between patches; a chosen patch keeps the focus
# when the picture is drawn anew. Listeners are on the component, so they outlive its content.
SCRIPT = """
let picked = false;
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick]');
  if (button) { picked = true; trigger('click', {pick: button.dataset.pick}); }
});
element.addEventListener('input', (event) => {
  const frame = event.target.closest('.slide');
  if (frame) frame.style.setProperty('--at', event.target.value + '%');
});
element.addEventListener('keydown', (event) => {
  const grid = event.target.closest('.patches');
  if (!grid) return;
  const columns = Number(grid.dataset.columns);
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...grid.querySelectorAll('button')];
  const next = buttons[buttons.indexOf(event.target) + step];
  if (next) { buttons.forEach((each) => each.tabIndex = -1); next.tabIndex = 0; next.focus(); }
});
watch('value', () => {
  if (!picked) return;
  picked = false;
  const chosen = element.querySelector('[aria-pressed="true"]');
  if (chosen) chosen.focus({preventScroll: true});
});
"""


def photograph(label: str, height: int = 260) -> gr.Image:
    """A place to drop an image; its value is the path of the file."""
    image = gr.Image(
        label=label, height=height, sources=["upload", "clipboard"], type="filepath", format="png", buttons=[]
    )
    # The studio reads the file itself, so that there is a sentence about one that cannot be read. (A class of its own would be
    # taken for a component with a front end of its own.)
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def piece(value: str = "", kind: str = "") -> gr.HTML:
    """A piece of the page, see ``studio.html``; its ``click`` event carries what was picked."""
    return gr.HTML(value, js_on_load=SCRIPT, elem_classes=["piece", *([kind] if kind else [])], apply_default_css=False)


@functools.lru_cache(256)
def _thumbnail(file: Path) -> Image.Image | None:
    """The middle of an image; None if it cannot be read."""
    try:
        image = load_image(file)
    except ValueError:
        return None
    return fit_image(image, THUMBNAIL, THUMBNAIL)


def examples(files: Sequence[Path]) -> list[Path]:
    """The readable ones among the first files."""
    return [file for file in files[:MOST_THUMBNAILS] if _thumbnail(file) is not None]


def thumbnails(files: Sequence[Path], label: str) -> str:
    """Buttons with some readable images, each of which picks its path."""
    return choices([(str(file), file.stem, _thumbnail(file)) for file in files], None, label) if files else ""


def chips(texts: Sequence[str], label: str) -> str:
    """Buttons with texts, of which each picks itself."""
    return choices([(text, text, None) for text in texts], None, label)


def picked(event: gr.EventData) -> str:
    """What was picked in a ``piece``; empty for a click beside the buttons."""
    return str((event._data or {}).get("pick", ""))


def picked_text(event: gr.EventData) -> Any:
    """The handler that takes over a picked text."""
    return picked(event) or gr.skip()


def picked_image(files: Sequence[Path]) -> Callable[[gr.EventData], Any]:
    """The handler that loads a picked thumbnail; only the given files can be picked."""
    known = {str(file): file for file in files}

    def load(event: gr.EventData) -> Any:
        file = known.get(picked(event))
        return gr.skip() if file is None else load_image(file)

    return load


def in_a_sentence(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors are shown in the page as one sentence."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*arguments: Any) -> Iterator[Any]:
            try:
                yield from function(*arguments)
            except Exception as error:
                raise _shown(error) from error

        return stream

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise _shown(error) from error

    return call


def sentence_of(error: Exception) -> tuple[str, bool]:
    """A sentence for the user, and whether only a bug can cause the error, which the terminal then shows."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text):
        return "The machine has not enough memory for this.", False
    if isinstance(error, ValueError | OSError | ImportError) and text:
        return f"{text[0].upper()}{text[1:].rstrip('.')}.", False
    return "Something went wrong here; the terminal says what.", True


def _shown(error: Exception) -> gr.Error:
    sentence, is_bug = sentence_of(error)
    return gr.Error(escape(sentence), duration=None, title="That did not work", print_exception=is_bug)
