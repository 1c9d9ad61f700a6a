"""``docs/teaching.md``: its answers are computed, its lessons and rows exist, its commands can be given."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from gradflow import cli, diagrams, plot

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
QUESTIONS = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
EXAM = dict(re.findall(r"^\| (X\d+) \| .+ \| (.+) \|$", PAGE, flags=re.MULTILINE))
MET = re.findall(r"^\| (.+\.) \| (\d\d) \| (.+) \| ([A-Z0-9, ]+) \|$", PAGE, flags=re.MULTILINE)
COMMANDS = re.findall(r"`gradflow (diagram .+?)`", PAGE)
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def answers():
    """What computes the answers; its folder is importable only while these tests run."""
    folder = str(ROOT / "docs" / "answers")
    sys.path.insert(0, folder)
    module = importlib.import_module("exam")
    yield {row: f for row, f in sys.modules["workbench"].NUMBERS.items() if f.__module__ == module.__name__}
    sys.path.remove(folder)
    for name in ("exam", "workbench"):
        del sys.modules[name]


def test_every_answer_is_computed_and_every_computed_one_is_shown(answers):
    assert set(answers) == set(EXAM)
    assert len(EXAM) == 10


@pytest.mark.parametrize("row", EXAM)
def test_the_answer_is_what_the_code_computes(row, answers):
    assert answers[row]() == EXAM[row]


def test_every_misconception_names_a_lesson_and_rows_of_the_questions():
    assert len(MET) >= 15
    assert {lesson for _, lesson, _, _ in MET} == {f"{n:02d}" for n in range(1, 11)}
    for _, _, _, rows in MET:
        for row in rows.split(", "):
            assert f"| {row} |" in QUESTIONS, row


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_minutes_are_those_that_the_lesson_itself_names(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    table = [
        line.strip("|\n ").split("|")
        for line in PAGE.splitlines()
        if re.match(r"\| (lesson|minutes) \|", line)
    ]
    numbers, minutes = ([cell.strip() for cell in line][1:] for line in table[-2:])
    assert int(re.search(r"(\d+) minutes", first)[1]) == int(
        dict(zip(numbers, minutes, strict=True))[path.name[:2]]
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_slides_can_be_given(command):
    given = cli._parser().parse_args(shlex.split(command))
    assert given.name in diagrams.NAMES
    assert given.format == "pdf"


def test_every_diagram_has_its_line_and_every_figure_exists():
    assert {shlex.split(command)[1] for command in COMMANDS} >= set(diagrams.NAMES) - {"infonce"}
    assert set(re.findall(r"gradflow\.plot\.(\w+)", PAGE)) <= set(plot.__all__)
