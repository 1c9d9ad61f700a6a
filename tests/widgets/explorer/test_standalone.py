"""The explorer in a page: the numbers in it, what is thinned, and that the page says so."""

import base64
import json
import re

import numpy as np
import pytest

from gradflow.recording import Recording
from gradflow.widgets.explorer import standalone as pages
from gradflow.widgets.explorer.book import Book
from gradflow.widgets.explorer.standalone import standalone
from tests import records


def data_of(page):
    return json.loads(re.search(r'id="gf-explorer-data">(.*?)</script>', page.element, re.DOTALL)[1])


def singles(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_page_has_the_numbers_of_every_step():
    recording = records.recording(4)
    data, book = data_of(standalone(recording)), Book(recording)
    assert data["steps"] == [0, 1, 2, 3]
    tables = singles(data["tables"]).reshape(4, -1)
    for found, index in zip(tables, data["steps"], strict=True):
        np.testing.assert_allclose(found, book.step(index).numbers, rtol=1e-6)


def test_a_short_recording_is_whole_and_says_so():
    page = standalone(records.recording(3))
    assert data_of(page)["every"] == 1
    assert page.sentence.startswith("All steps are in this page, and ")


def test_a_long_recording_is_thinned_to_what_there_is_room_for_and_says_so(monkeypatch):
    whole = len(data_of(standalone(records.recording(1)))["tables"]) * 3 // 4
    monkeypatch.setattr(pages, "_TABLE_BYTES", 4 * whole)
    page = standalone(records.recording(13, keep=False))
    assert data_of(page)["steps"] == [0, 4, 8, 12]
    assert data_of(page)["every"] == 3
    assert page.sentence.startswith("4 of 13 steps are in this page, evenly spaced.")


def test_the_equations_of_the_newest_step_come_first_and_their_room_is_limited(monkeypatch):
    data = data_of(standalone(records.recording(3)))
    assert list(data["maps"]) == [
        "2 conv1.weight",
        "2 fc.weight",
        "2 conv1.bias",
        "1 conv1.weight",
        "0 conv1.weight",
    ]
    wanted = Book(records.recording(3)).maps(2, "fc.weight").numbers
    np.testing.assert_allclose(singles(data["maps"]["2 fc.weight"]["cells"]), wanted, rtol=1e-6)
    monkeypatch.setattr(pages, "_MAP_BYTES", 4 * 5 * 12)
    assert list(data_of(standalone(records.recording(3)))["maps"]) == ["2 conv1.weight"]


@pytest.mark.parametrize("value", [1e-60, -1e-60])
def test_what_float32_cannot_tell_from_zero_is_still_not_zero(value):
    [found] = singles(pages._packed(np.array([value])))
    assert found != 0
    assert np.sign(found) == np.sign(value)
    assert singles(pages._packed(np.array([0.0])))[0] == 0


def test_an_empty_recording_and_one_without_gradients_have_a_page():
    assert data_of(standalone(Recording()))["steps"] == []
    assert data_of(standalone(Recording([records.step(0, fqns=())])))["steps"] == [0]


def test_names_cannot_end_the_data():
    page = standalone(records.recording(1, fqns=("</script><script>alert(1)</script>.weight",)))
    assert page.element.count("<script") == 1
    assert "</script><script>alert(1)</script>.weight" in str(data_of(page))
