"""Build the site: execute the notebooks, then run zensical; any warning is an error. ``python docs/build.py [--without-notebooks]``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).parents[1]
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> int:
    """0 if the site in site/ was built without a warning."""
    if "--without-notebooks" not in sys.argv[1:]:
        import notebooks

        notebooks.main([])
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, capture_output=True, text=True
    )
    said = COLOURS.sub("", done.stdout + done.stderr)
    print(said)
    # Warnings of the docstring parser do not count for zensical's --strict.
    warned = [line for line in said.splitlines() if re.match(r"(?i)\s*(griffe|warning|mkdocstrings|error)\b", line)]
    if done.returncode == 0 and warned:
        print(f"{len(warned)} warnings, which count as errors", file=sys.stderr)
    return done.returncode or bool(warned)


if __name__ == "__main__":
    raise SystemExit(main())
