"""Which way imports go, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from gradflow.storage import save
from tests import records

ROOT = Path(__file__).parent.parent
DRAWS = {"matplotlib", "graphviz", "pygraphviz", "rich", "IPython", "pandas", "ipywidgets", "anywidget"}


def loaded_by(code, *arguments):
    """Names of the top packages that a fresh interpreter has loaded after running ``code``."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_imports_go_one_way():
    """The contracts are in pyproject.toml; a module that no contract lists fails too."""
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_importing_gradflow_loads_nothing_heavy():
    assert not loaded_by("import gradflow") & {*DRAWS, "torch", "numpy"}


@pytest.mark.parametrize("name", ["Recording", "load", "GradflowError"])
def test_the_data_needs_no_torch(name):
    assert not loaded_by(f"import gradflow; gradflow.{name}") & {*DRAWS, "torch"}


@pytest.mark.parametrize("name", ["watch", "branch", "zoo"])
def test_training_needs_nothing_that_draws(name):
    assert not loaded_by(f"import gradflow; gradflow.{name}") & DRAWS


def test_a_recording_is_read_without_torch(tmp_path):
    path = save(records.recording(2), tmp_path / "run.gradflow")
    code = "import sys, gradflow; print(gradflow.load(sys.argv[1]).last.layer('').norms)"
    assert not loaded_by(code, path) & {*DRAWS, "torch"}
