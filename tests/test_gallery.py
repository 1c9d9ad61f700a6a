"""The gallery shows ten pictures that are there, small, told in words, and made by calls that exist."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gradflow import plot
from gradflow.render.story import ACCOUNTING

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", PAGE)
CALLS = re.findall(r"gradflow\.plot\.(\w+)\(", PAGE)


def test_there_are_ten_pictures_each_with_its_call():
    assert len(PICTURES) == len({target for _, target in PICTURES}) == 10
    drawn = [name for name in CALLS if name != "describe"]
    assert [Path(target).stem for _, target in PICTURES] == drawn
    assert set(drawn) < set(plot.__all__)


@pytest.mark.parametrize(("words", "target"), PICTURES, ids=[Path(t).stem for _, t in PICTURES])
def test_a_picture_is_there_small_and_told_in_words(words, target):
    file = DOCS / target
    assert ET.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert file.stat().st_size < 150_000
    assert len(words) > 60


def test_the_code_of_the_gallery_draws_what_the_page_shows():
    source = (DOCS / "gallery.py").read_text(encoding="utf-8")
    drawn = {Path(target).stem for _, target in PICTURES} - {"equation", "flow"}
    assert set(re.findall(r'yield "(\w+)"', source)) == drawn


def test_shares_are_shown_with_what_they_are():
    assert ACCOUNTING.removesuffix(".") in PAGE.replace("\n", " ")
