"""Golden files: what a text looked like when someone last looked at it.

Set ``GRADFLOW_UPDATE_GOLDEN=1`` to write them anew, then read the diff.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("golden")


def assert_golden(name, text):
    path = FOLDER / name
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden file {name}: run once with GRADFLOW_UPDATE_GOLDEN=1"
    assert text == path.read_text(encoding="utf-8")
