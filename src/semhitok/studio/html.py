"""Pieces of the page as HTML. Text from outside is escaped, pictures are part of the page (data URLs)."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterable, Sequence
from html import escape

from PIL import Image

SMALL = 256  # side in pixels up to which pictures are stored without loss


def data_url(image: Image.Image) -> str:
    """A picture as a data URL: PNG if it is small, else WebP."""
    kind = "png" if max(image.size) <= SMALL else "webp"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({} if kind == "png" else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(image: Image.Image, alt: str, kind: str = "") -> str:
    """An ``<img>``; ``alt`` is what screen readers say."""
    return f'<img class="{kind}" src="{data_url(image)}" alt="{escape(alt)}" width="{image.width}" height="{image.height}">'


def figure(content: str, title: str, facts: Sequence[tuple[str, str]] = (), kind: str = "") -> str:
    """A card: content, a title, and facts as name and value."""
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    facts_list = f"<dl>{listed}</dl>" if facts else ""
    return (
        f'<figure class="card {kind}">{content}<figcaption><h4>{escape(title)}</h4>{facts_list}</figcaption></figure>'
    )


def row(cards: Iterable[str], kind: str = "") -> str:
    """Cards beside each other, as many as fit."""
    return f'<div class="cards {kind}">{"".join(cards)}</div>'


def section(heading: str, note: str, content: str) -> str:
    """A part of the page under a heading, with a note on what it shows."""
    told = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h3>{escape(heading)}</h3>{told}{content}</section>"


def slider(original: Image.Image, copy: Image.Image, name: str) -> str:
    """Original and reconstruction above each other; a slider moves the border between them."""
    label = f"Border between the original on the left and the reconstruction by {name} on the right"
    return (
        f'<div class="slide" style="aspect-ratio:{copy.width}/{copy.height}">'
        f"{picture(original, 'original')}{picture(copy, f'reconstruction by {name}', 'over')}"
        '<span class="side left" aria-hidden="true">original</span>'
        '<span class="side right" aria-hidden="true">reconstruction</span>'
        f'<span class="border" aria-hidden="true"></span>'
        f'<input type="range" min="0" max="100" value="50" aria-label="{escape(label)}"></div>'
    )


def choices(options: Sequence[tuple[str, str, Image.Image | None]], chosen: str | None, label: str) -> str:
    """Buttons that pick one of several: value, what is written or said, and a picture that replaces the text."""
    buttons = []
    for value, text, image in options:
        pressed = "true" if value == chosen else "false"
        shown = escape(text) if image is None else picture(image, "")
        said = f' aria-label="{escape(text)}" title="{escape(text)}"' if image is not None else ""
        buttons.append(
            f'<button type="button" data-pick="{escape(value)}" aria-pressed="{pressed}"{said}>{shown}</button>'
        )
    kind = "thumbs" if any(image is not None for _, _, image in options) else "chips"
    return f'<div class="{kind}" role="group" aria-label="{escape(label)}">{"".join(buttons)}</div>'


def patch_grid(
    image: Image.Image,
    grid: tuple[int, int],
    chosen: int,
    alike: Collection[int],
    changed: Collection[int],
    names: Sequence[str],
) -> str:
    """A picture with a button on every patch; arrow keys move between them.

    Args:
        image: the whole picture.
        grid: rows and columns.
        chosen: position of the chosen patch.
        alike: positions with the same semantic code, which are marked.
        changed: positions whose token was changed, which are marked as well.
        names: what screen readers say about each patch.
    """
    buttons = []
    for position, name in enumerate(names):
        marks = " ".join(
            mark
            for mark, places in (("alike", alike), ("changed", changed))
            if position in places and position != chosen
        )
        pressed, stop = ("true", "0") if position == chosen else ("false", "-1")
        buttons.append(
            f'<button type="button" class="{marks}" data-pick="{position}" aria-pressed="{pressed}" tabindex="{stop}" '
            f'aria-label="{escape(name)}"></button>'
        )
    return (
        f'<div class="patches" data-columns="{grid[1]}" style="--columns:{grid[1]};--rows:{grid[0]};'
        f'aspect-ratio:{image.width}/{image.height}">{picture(image, "")}'
        f'<div class="buttons" role="group" aria-label="Patches of the image: arrow keys move, Enter chooses">'
        f"{''.join(buttons)}</div></div>"
    )


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table that scrolls sideways where it does not fit; the first column names the rows."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heading)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def empty(sentence: str) -> str:
    """What stands where nothing can be shown yet."""
    return f'<p class="empty">{escape(sentence)}</p>'
