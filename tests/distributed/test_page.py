"""The page on several processes shows what its example gives, and its code is what there is."""

import importlib.util
import re
from pathlib import Path

import pytest

from gradflow.integrations import distributed
from tests.distributed.torchrun import torchrun

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "distributed.md").read_text(encoding="utf-8")


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def test_the_table_is_what_the_example_gives(tmp_path):
    spec = importlib.util.spec_from_file_location("docs_distributed", DOCS / "distributed.py")
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    done = torchrun(docs.EXAMPLE, 2, tmp_path)
    assert done.returncode == 0, done.stderr
    told, shown = docs.table(tmp_path), docs.BLOCK.search(PAGE).group()
    assert re.sub(r"[-\d.e]+", "#", told).split() == re.sub(r"[-\d.e]+", "#", shown).split()[4:-4]
    assert numbers(told) == pytest.approx(numbers(shown), rel=0.02, abs=0.02)


def test_the_functions_of_the_page_exist():
    for name in re.findall(r"distributed\.(\w+)\(", PAGE):
        assert name in distributed.__all__


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (DOCS / target).is_file(), target
