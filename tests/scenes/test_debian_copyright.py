"""Licence and author of single files, from a hand-written copyright file."""

from __future__ import annotations

from pathlib import Path

from semhitok.scenes.debian_copyright import Terms, read_copyright, terms_of

TEXT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: pictures

Files: *
Copyright: 2001 First Author <first@example.org>
           2002-2004, Second Author
License: GPL-2+

Files: nature/*.jpg
       art/one.png
Copyright: Third Author, 2018
License: CC-BY-SA-4.0

Files: nature/special.jpg
Copyright: (c) 2020 Fourth
License: CC0-1.0
Comment: https://example.org/special

License: GPL-2+
 Long text.
"""


def test_the_last_fitting_paragraph_counts(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text(TEXT)
    paragraphs = read_copyright(path)
    assert terms_of(paragraphs, "other.txt") == Terms("GPL-2+", "First Author, Second Author")
    assert terms_of(paragraphs, "nature/tree.jpg") == Terms("CC-BY-SA-4.0", "Third Author")
    assert terms_of(paragraphs, "nature/tree.webp") == Terms("CC-BY-SA-4.0", "Third Author")  # re-encoded
    assert terms_of(paragraphs, "nature/special.webp") == Terms("CC0-1.0", "Fourth")


def test_free_text_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text("This package was made by hand.\n\nDo what you like.\n")
    assert terms_of(read_copyright(path), "a.jpg") == Terms()
