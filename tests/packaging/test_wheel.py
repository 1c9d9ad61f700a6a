"""The wheel, built for real: what is in it, and that the lessons can be copied from an installation."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling: pip install -e '.[dev]'"
)


def run(*command, **options):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=True, **options
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build a wheel and unpack it, as an installation does."""
    out = tmp_path_factory.mktemp("wheel")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(out / "site")
    return out / "site"


def test_it_carries_lessons_scripts_and_style_sheets_and_no_tests(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    for name in (path.name for path in ROOT.glob("notebooks/*.ipynb")):
        assert f"gradflow/lessons/notebooks/{name}" in files
    for path in ROOT.glob("gradflow/**/*"):
        if path.suffix in {".py", ".js", ".css", ".mplstyle"} or path.name == "py.typed":
            assert path.relative_to(ROOT).as_posix() in files
    assert not [name for name in files if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_it_turns_its_server_extension_on(installed):
    (config,) = installed.glob("*.data/data/etc/jupyter/jupyter_server_config.d/*.json")
    extensions = json.loads(config.read_text(encoding="utf-8"))["ServerApp"]["jpserver_extensions"]
    assert extensions == {"gradflow.widgets.server": True}


def test_the_lessons_are_copied_from_an_installation(installed, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import gradflow; print(gradflow.__file__)\n"
        "from gradflow.cli import main; main(['lessons', 'mine', '--no-open'])"
    )
    told = run("-I", "-c", code, cwd=tmp_path).stdout
    assert str(installed) in told
    copies = sorted((tmp_path / "mine").glob("*.ipynb"))
    assert [path.name for path in copies] == sorted(path.name for path in ROOT.glob("notebooks/*.ipynb"))
    for path in copies:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert all("solution" not in cell["metadata"].get("tags", []) for cell in cells)
        assert not any(cell.get("outputs") for cell in cells)
