"""Make the notebooks from their sources: convert, run anew, keep what GitHub can show.

    make notebooks                  # all of them
    make notebooks ARGS='03 07'     # some
    make notebooks ARGS=--check     # only say which are not what their source says

A source is Markdown with fenced Python (jupytext's own Markdown form): readable, easy
to review, and the only place where a lesson is written. `docs/lessons.md` says how.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

SOURCES = Path(__file__).parent
NOTEBOOKS = SOURCES.parent
LIVE = "application/vnd.jupyter.widget-view+json"
SEED = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}

Notebook = Any  # a NotebookNode, whose attributes are what the file has


def sources() -> list[Path]:
    """Give the sources in the order of the lessons."""
    return sorted(SOURCES.glob("[0-9][0-9]_*.md"))


def converted(source: Path) -> Notebook:
    """Give the notebook of a source, not yet run; the same for the same source."""
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="md")
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        if "solution" in tags or _answers(cell):
            cell.metadata["jupyter"] = {"source_hidden": True}  # folded, and still run
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _answers(cell: Notebook) -> bool:
    """Whether a cell gives the answer to a prediction: what is read is not guessed."""
    return cell.cell_type == "code" and ".reveal(" in cell.source


def executed(notebook: Notebook, folder: Path = NOTEBOOKS) -> Notebook:
    """Run a notebook from a fresh kernel, and keep what a saved notebook can show."""
    os.environ.update(SEED)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.store_widget_state = False  # each card would bring its script along
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            _slim(output.get("data", {}))
    return notebook


def _slim(data: dict[str, Any]) -> None:
    """Leave out what a saved notebook does not show or shows twice; shrink pictures."""
    data.pop(LIVE, None)
    if "alt=" in data.get("text/html", ""):
        for kind in ("image/png", "image/svg+xml"):
            data.pop(kind, None)  # the page has the same picture, with words
        data["text/html"] = re.sub(
            r"(?<=data:image/png;base64,)[\w+/=]+", _smaller, data["text/html"]
        )


def _smaller(found: re.Match[str]) -> str:
    """The same picture in 256 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(
        written, format="png", optimize=True
    )
    return base64.b64encode(written.getvalue()).decode("ascii")


def same(one: Notebook, other: Notebook) -> bool:
    """Whether two notebooks have the same cells, whatever came out of them."""

    def cells(notebook: Notebook) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (cell.cell_type, cell.source, dict(cell.metadata))
            for cell in notebook.cells
        ]

    return cells(one) == cells(other)


def main() -> int:
    """Make what was asked for; give 1 if a check finds something out of date."""
    parser = argparse.ArgumentParser(
        description="Make the notebooks from their sources."
    )
    parser.add_argument(
        "lessons", nargs="*", metavar="NN", help="numbers of lessons (all)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; say what is out of date"
    )
    given = parser.parse_args()
    stale = 0
    for source in sources():
        if given.lessons and source.name[:2] not in given.lessons:
            continue
        target = NOTEBOOKS / source.with_suffix(".ipynb").name
        notebook = converted(source)
        if given.check:
            if not (
                target.exists() and same(notebook, nbformat.read(target, as_version=4))
            ):
                print(f"{target.name} is not what {source.name} says: make notebooks")
                stale = 1
            continue
        started = time.perf_counter()
        nbformat.write(executed(notebook), target)
        spent, size = time.perf_counter() - started, target.stat().st_size / 1000
        print(f"{target.name}: {spent:.0f} s, {size:.0f} kB", flush=True)
    return stale


if __name__ == "__main__":
    sys.exit(main())
