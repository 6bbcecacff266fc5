"""The built site (`make docs`): every page is in the navigation, links and anchors lead somewhere, nothing comes from another machine."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

pytestmark = pytest.mark.site
ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("video", "src")}
METADATA = {"canonical", "next", "prev"}


class Page(HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {named[key] or "" for key in ("id", "name") if key in named}
        if tag == "a" and named.get("href"):
            self.links.append(named["href"] or "")
        for element, attribute in LOADED:
            if tag == element and named.get(attribute) and named.get("rel") not in METADATA:
                self.loaded.append(named[attribute] or "")


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Pages by their address below the root: "", "faq/", "try/" ..."""
    assert (SITE / "index.html").is_file(), "build the site first: make docs"
    found = {}
    for path in SITE.rglob("*.html"):
        if path.name != "404.html":
            found[path.relative_to(SITE).as_posix().removesuffix("index.html")] = Page(path.read_text(encoding="utf-8"))
    return found


def test_every_page_is_in_the_navigation():
    def files(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [file for each in (entry.values() if isinstance(entry, dict) else entry) for file in files(each)]

    named = files(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"])
    written = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    pages = [path for path in written if not path.startswith(("ablations/", "comparison/"))]
    assert sorted(pages) == sorted(name for name in named if name.endswith(".md"))


def test_links_and_anchors_lead_somewhere(pages: dict[str, Page]):
    broken = []
    for address, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(urljoin(f"http://site/{address}", link))
            if parts.netloc != "site" or parts.scheme != "http":
                continue
            target, anchor = unquote(parts.path).lstrip("/"), unquote(parts.fragment)
            if not (SITE / target).exists() or (target in pages and anchor and anchor not in pages[target].anchors):
                broken.append(f"{address or '/'}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_another_machine(pages: dict[str, Page]):
    elsewhere = [
        f"{address}: {link}" for address, page in pages.items() for link in page.loaded if urlsplit(link).netloc
    ]
    styles = [
        f"{path.name}: {found}"
        for path in SITE.rglob("*.css")
        for found in re.findall(r"(?:@import|url\()\s*['\"]?(https?:[^'\")\s]+)", path.read_text(encoding="utf-8"))
    ]
    assert elsewhere + styles == []
