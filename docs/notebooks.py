"""Execute the notebooks of examples/notebooks and write them as pages with their pictures: ``python docs/notebooks.py [NAME ...]``.

Pages go to docs/notebooks/, which git ignores. An error in a cell ends the script with the cell and its traceback.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
SOURCES, PAGES = ROOT / "examples" / "notebooks", ROOT / "docs" / "notebooks"
SECONDS = 600  # for a cell
TOGETHER = 2  # notebooks, of one thread each


def render(source: Path) -> str:
    """Run one notebook in its folder, write its page and pictures; says how long that took."""
    start = time.perf_counter()
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(source.parent)}}).execute()
    for cell in notebook.cells:
        cell["outputs"] = joined(cell.get("outputs", ()))
    page, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"output_files_dir": f"{source.stem}_files", "unique_key": source.stem}
    )
    PAGES.mkdir(exist_ok=True)
    (PAGES / f"{source.stem}_files").mkdir(exist_ok=True)
    for name, data in resources["outputs"].items():
        (PAGES / name).write_bytes(data)
    note = f"*This page is the executed notebook `examples/notebooks/{source.name}`.*\n"
    page = re.sub(r"\n{3,}", "\n\n", page.replace("![png](", "![what the cell above shows]("))
    title, rest = page.lstrip().split("\n", 1)
    (PAGES / f"{source.stem}.md").write_text(f"{title}\n\n{note}{rest}", encoding="utf-8")
    return f"{source.stem}: {time.perf_counter() - start:.0f} s"


def joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Outputs for a page: without progress bars (stderr), coloured text as plain text, pieces of text as one."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if set(output.get("data", ())) == {"text/html", "text/plain"}:  # rich
            output = nbformat.v4.new_output("stream", name="stdout", text=output["data"]["text/plain"] + "\n")
        output.get("data", {}).pop("image/jpeg", None)  # a second form of a picture
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main(names: list[str]) -> None:
    """Render the notebooks of these names, or all of them."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # threads that wait for each other take most of the time on a busy machine
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    sources = [source for source in sorted(SOURCES.glob("*.ipynb")) if not names or source.stem in names]
    with ProcessPoolExecutor(TOGETHER) as pool:
        for said in pool.map(render, sources):
            print(said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
