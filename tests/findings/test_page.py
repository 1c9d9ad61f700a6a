"""docs/findings.md says what the catalogue says, and names tests that exist."""

import importlib.util
from pathlib import Path

import pytest

from gradflow.findings.catalogue import CATALOGUE
from tests.findings.broken import CASES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("findings_page", ROOT / "docs" / "findings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_catalogue_gives(docs):
    text = docs.PAGE.read_text(encoding="utf-8")
    assert docs.page(text) == text


def test_the_page_has_a_row_for_every_finding(docs):
    text = docs.PAGE.read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")] == [
        entry.code
        for seen in ("check", "capture", "step", "run")
        for entry in CATALOGUE
        if entry.seen == seen
    ]


def test_the_tests_that_the_page_names_speak_of_the_finding(docs):
    for entry in CATALOGUE:
        if entry.code in docs.ELSEWHERE:
            assert f'"{entry.code}"' in (ROOT / docs.ELSEWHERE[entry.code]).read_text(encoding="utf-8")
        else:
            assert entry.code in CASES
