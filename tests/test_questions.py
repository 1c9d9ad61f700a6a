"""``docs/questions.md``: every row has two sentences, a lesson, and the number that its code computes."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
ANSWERS = ROOT / "docs" / "answers"
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
MODULES = ("one_or_three", "absent_updates", "two_lstms", "three_forwards", "shared_layer", "asked_elsewhere")
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+?) \| (.+?) \| (\d\d) \| (.+) \|$", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w.])")
ROWS = {row: cells for row, *cells in ROW.findall(PAGE)}


@pytest.fixture(scope="module")
def numbers():
    """What computes each row's number; its folder is importable only while these tests run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = set(sys.modules)
    sys.path.insert(0, str(ANSWERS))
    for module in MODULES:
        importlib.import_module(module)
    yield sys.modules["workbench"].NUMBERS
    sys.path.remove(str(ANSWERS))
    for module in set(sys.modules) - before:
        if module in {*MODULES, "workbench"}:
            del sys.modules[module]
    torch.set_num_threads(threads)


def test_no_line_of_the_tables_escapes_the_pattern():
    lines = [line for line in PAGE.splitlines() if re.match(r"\| [A-Z]\d+ ", line)]
    assert len(lines) == len(ROWS) == 59


def test_every_row_is_computed_and_every_number_is_shown(numbers):
    assert set(numbers) == set(ROWS)


def digits(text):
    """Part the words of a text from its numbers, each with the worth of its last digit."""
    found = NUMBER.findall(text)
    return NUMBER.sub("#", text), [(float(n), 10.0 ** -len(n.partition(".")[2])) for n in found]


@pytest.mark.parametrize("row", ROWS)
def test_the_number_is_what_the_code_computes(row, numbers):
    """Processors round their sums differently, which may turn the last digit that is shown."""
    (words, shown), (computed_words, computed) = digits(ROWS[row][3]), digits(numbers[row]())
    assert computed_words == words
    for (here, last), (there, _) in zip(shown, computed, strict=True):
        assert abs(here - there) <= 1.01 * last


def test_numbers_are_told_from_words_and_may_turn_in_their_last_digit():
    assert digits("B3: left 81 %, 0.64 of 1e-06") == ("B3: left # %, # of 1e-06", [(81.0, 1.0), (0.64, 0.01)])


@pytest.mark.parametrize("row", ROWS)
def test_an_answer_has_two_sentences(row):
    answer = ROWS[row][1]
    assert answer.endswith(".")
    assert len(re.split(r"(?<=[.?]) (?=[A-Z`])", answer)) == 2


def test_every_lesson_that_a_row_names_exists():
    lessons = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert {cells[2] for cells in ROWS.values()} <= lessons


def test_the_command_of_the_page_prints_all_of_them():
    lines = (ANSWERS / "__main__.py").read_text(encoding="utf-8").splitlines()
    assert {f"import {module}" for module in MODULES} <= {line.split("  #")[0] for line in lines}
    assert "python docs/answers" in PAGE
