"""Print a constraints file of the lowest versions that pyproject.toml allows for the core: ``make test-lowest``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path


def lowest(requirements: list[str]) -> list[str]:
    """``name==version`` for each ``name>=version``; an upper bound is left out, the lowest version meets it."""
    found = [re.fullmatch(r"([\w.-]+)>=([\w.]+)(,<[\w.]+)?", requirement) for requirement in requirements]
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(lowest(project["dependencies"])))
