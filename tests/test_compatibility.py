"""The versions that pyproject.toml asks for are those that docs/compatibility.md says were tried."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d", line)
]


def version(text):
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", text)[0].split("."))


def test_the_lower_bound_of_torch_is_the_oldest_that_was_tried():
    (bound,) = [d.removeprefix("torch>=") for d in PROJECT["dependencies"] if re.match(r"torch\W", d)]
    assert version(bound) == min(version(row[0]) for row in ROWS)


def test_the_lower_bound_of_python_is_the_oldest_on_which_torch_was_tried():
    bound = version(PROJECT["requires-python"].removeprefix(">="))
    assert bound == min(version(row[1])[: len(bound)] for row in ROWS)


def test_the_version_that_is_installed_first_was_tried():
    pinned = re.search(
        r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )[1]
    assert version(pinned) in {version(row[0]) for row in ROWS}
