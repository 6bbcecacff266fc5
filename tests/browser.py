"""What tests of pages share: the browser, and what every page must have."""

from __future__ import annotations

import shutil

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_BROWSER = "no Chromium is installed (Debian: apt-get install chromium)"
HERE = {"127.0.0.1", "localhost", "::1"}
NAMELESS = """() => [...document.querySelectorAll('button, input, textarea, select, img, [role=button], svg[role=img], canvas[role=img]')]
  .filter((e) => e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden' && !e.closest('[aria-hidden=true]'))
  .filter((e) => {
    if (e.tagName === 'IMG') return !e.hasAttribute('alt');
    const by = (e.getAttribute('aria-labelledby') || '').split(' ').map((id) => document.getElementById(id)?.textContent || '');
    const labels = [...(e.labels || [])].map((label) => label.textContent);
    return ![e.getAttribute('aria-label'), e.title, e.textContent, ...by, ...labels].some((text) => text && text.trim());
  }).map((e) => e.outerHTML.slice(0, 200))"""
"""Controls without a name for screen readers, and pictures without a description."""
