"""What an installed wheel must do without the repository: ``python installed.py PHOTOGRAPH``, in any folder.

Prints what it did; any failure ends it with a traceback. ``make release-check`` runs it in a fresh environment.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path


def check(photograph: Path, out: Path) -> None:
    """Reconstruct, generate and chat with the bundled models; files go to ``out``."""
    import numpy as np
    from PIL import Image

    import semhitok
    from semhitok.cli import main

    def run(*arguments: str) -> str:
        said = io.StringIO()
        with redirect_stdout(said):
            code = main(list(arguments))
        assert code == 0, f"semhitok {' '.join(arguments)} ended with {code}"
        return said.getvalue()

    package = Path(str(files("semhitok")))
    assert (package / "py.typed").is_file()
    assert version("semhitok") == semhitok.__version__
    run("reconstruct", str(photograph), "--out", str(out / "back"))
    tokens = semhitok.load_tokenizer().num_tokens
    assert np.load(out / "back" / "ids.npy").size == tokens
    with Image.open(out / "back" / "reconstruction.png") as picture:
        assert picture.getextrema() != ((0, 0),) * 3
    run("generate", "a rabbit", "--out", str(out / "drawn"))
    drawn = sorted((out / "drawn").rglob("*.png"))
    assert drawn, "generate wrote no image"
    answer = run("chat", str(photograph), "Is there a dog in the picture?").strip()
    assert answer in ("yes", "no"), answer
    print(f"semhitok {semhitok.__version__} at {package}: reconstructed, drew {drawn[0].name}, answered {answer!r}")


if __name__ == "__main__":
    check(Path(sys.argv[1]).resolve(), Path("checked").resolve())
