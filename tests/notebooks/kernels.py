"""A notebook run from a fresh kernel, which stays open so that more can be tried in it."""

import importlib.util
import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
COMMITTED = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def maker():
    """Give the program that makes the notebooks, as a module."""
    spec = importlib.util.spec_from_file_location("notebooks_make", NOTEBOOKS / "source" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Lesson:
    """A committed notebook, and what comes out when it is run."""

    def __init__(self, path):
        self.path = path
        self.committed = nbformat.read(path, as_version=4)
        self.fresh = nbformat.read(path, as_version=4)
        self.number = path.name[:2]
        for cell in self.code_cells():
            cell.outputs, cell.execution_count = [], None
        os.environ["OMP_NUM_THREADS"] = "1"
        self.client = NotebookClient(self.fresh, timeout=300, kernel_name="python3")
        self.client.store_widget_state = False

    def code_cells(self):
        return [cell for cell in self.fresh.cells if cell.cell_type == "code"]

    def tagged(self, tag):
        return [cell for cell in self.fresh.cells if tag in cell.metadata.get("tags", [])]

    def run(self):
        for index, cell in enumerate(self.fresh.cells):
            self.client.execute_cell(cell, index)

    def execute(self, cell):
        """Run one more cell in the kernel; the notebook stays as it is."""
        first = self.fresh.cells[0]
        self.client.execute_cell(cell, 0, store_history=False)
        self.fresh.cells[0] = first

    def evaluate(self, source):
        """Run more code in the kernel; give the value that its last line prints as JSON."""
        cell = nbformat.v4.new_code_cell(source)
        self.execute(cell)
        printed = "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
        return json.loads(printed.splitlines()[-1])
