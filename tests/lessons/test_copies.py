import json

import pytest

from gradflow.errors import InvalidArgumentError
from gradflow.lessons import copies

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# A"},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {"tags": ["exercise"]},
            "source": "x = ...",
            "execution_count": 1,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "told"}],
        },
        {
            "cell_type": "code",
            "id": "c",
            "metadata": {"tags": ["solution"]},
            "source": "x = 42",
            "execution_count": 2,
            "outputs": [],
        },
    ],
}


@pytest.fixture
def two_lessons(tmp_path, monkeypatch):
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("01_a.ipynb", "02_b.ipynb"):
        (folder / name).write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    (folder / "README.md").write_text("no notebook", encoding="utf-8")
    monkeypatch.setattr(copies, "_INSTALLED", folder)


def test_a_copy_has_neither_solutions_nor_outputs(two_lessons, tmp_path):
    first, second = copies.copy_lessons(tmp_path / "mine")
    assert (first.name, second.name) == ("01_a.ipynb", "02_b.ipynb")
    text = first.read_text(encoding="utf-8")
    assert "42" not in text
    assert "told" not in text
    assert [cell["source"] for cell in json.loads(text)["cells"]] == ["# A", "x = ..."]


def test_the_notebook_that_is_copied_stays_whole():
    before = json.dumps(NOTEBOOK)
    copies.learners_copy(NOTEBOOK)
    assert json.dumps(NOTEBOOK) == before


def test_a_learners_work_is_not_overwritten(two_lessons, tmp_path):
    first, second = copies.copy_lessons(tmp_path / "mine")
    first.write_text("my work", encoding="utf-8")
    second.unlink()
    assert copies.copy_lessons(tmp_path / "mine") == [first, second]
    assert first.read_text(encoding="utf-8") == "my work"
    assert second.exists()


def test_a_folder_that_cannot_be_is_refused_in_words(two_lessons, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="cannot be copied"):
        copies.copy_lessons(tmp_path / "file" / "inside")


def test_an_installation_without_lessons_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_INSTALLED", tmp_path)
    with pytest.raises(InvalidArgumentError, match="has no lessons in it"):
        copies.shipped()
