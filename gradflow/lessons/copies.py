"""The learner's copy of the lessons: the notebooks without solutions and without outputs.

The notebooks come with the package; what is taken out is what would answer for the learner.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gradflow.errors import InvalidArgumentError

__all__ = ["SOLUTION", "copy_lessons", "learners_copy", "shipped"]

SOLUTION = "solution"
"""Tag of the cells that hold a solution."""

_CHECKOUT = Path(__file__).parents[2] / "notebooks"
_INSTALLED = Path(__file__).parent / "notebooks"

Notebook = dict[str, Any]  # Any: JSON


def shipped() -> list[Path]:
    """Give the notebooks that came with the package, in order.

    Raises:
        InvalidArgumentError: none came with it; the installation is not whole.
    """
    folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InvalidArgumentError(
            "this installation of gradflow has no lessons in it",
            where=str(folder),
            do="install gradflow anew, from a checkout or a wheel",
        )
    return found


def learners_copy(notebook: Notebook) -> Notebook:
    """Give a notebook without its solutions and outputs; the given one stays as it is.

    Example:
        >>> cell = {"cell_type": "code", "source": "x = 1", "outputs": [1], "execution_count": 1}
        >>> solved = {"cell_type": "code", "source": "x = 2", "metadata": {"tags": ["solution"]}}
        >>> learners_copy({"cells": [cell, solved]})["cells"]
        [{'cell_type': 'code', 'source': 'x = 1', 'outputs': [], 'execution_count': None}]
    """
    kept = [cell for cell in notebook["cells"] if SOLUTION not in cell.get("metadata", {}).get("tags", ())]
    return notebook | {"cells": [_unrun(cell) for cell in kept]}


def _unrun(cell: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return cell | {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell


def copy_lessons(folder: Path) -> list[Path]:
    """Write the learner's copies into a folder, which is made if need be; what is there already stays.

    Args:
        folder: Where to. A notebook of the same name is the learner's work: it is not touched.

    Returns:
        The notebooks in the folder, copied now or before.

    Raises:
        InvalidArgumentError: the folder cannot be made or written.
    """
    copies = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in shipped():
            copies.append(folder / source.name)
            if not copies[-1].exists():
                notebook = learners_copy(json.loads(source.read_text(encoding="utf-8")))
                text = json.dumps(notebook, indent=1, ensure_ascii=False)
                copies[-1].write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise InvalidArgumentError(
            f"the lessons cannot be copied to {str(folder)!r} ({error.strerror})",
            where="gradflow lessons",
            do="give another folder",
        ) from error
    return copies
