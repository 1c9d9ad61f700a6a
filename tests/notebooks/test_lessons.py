"""Every lesson, run from a fresh kernel: it works, its exercises can be solved, wrong answers are found."""

import ast
import importlib
import importlib.util
import re
from itertools import pairwise

import nbformat
import pytest

import gradflow
from gradflow.lessons import copies
from gradflow.lessons.exercise import names
from tests.notebooks import kernels

MOST_CELLS, MOST_BYTES, MOST_LINES, MOST_PROSE = 25, 400_000, 12, 12
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")


@pytest.fixture(scope="module", params=kernels.COMMITTED, ids=lambda path: path.stem)
def lesson(request):
    made = kernels.Lesson(request.param)
    with made.client.setup_kernel():
        made.run()
        yield made


def outputs(notebook):
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def answers(lesson):
    try:
        module = importlib.import_module(f"tests.notebooks.wrong_answers.lesson{lesson.number}")
    except ModuleNotFoundError:
        return {}
    return module.ANSWERS


def test_it_was_committed_as_run_from_a_fresh_kernel(lesson):
    counts = [cell.execution_count for cell in code(lesson.committed)]
    assert counts == list(range(1, len(counts) + 1))
    assert counts == [cell.execution_count for cell in code(lesson.fresh)]


def test_it_is_what_its_source_says(lesson):
    maker = kernels.maker()
    source = maker.SOURCES / f"{lesson.path.stem}.md"
    assert maker.same(maker.converted(source), lesson.committed), "make notebooks"


@pytest.mark.parametrize("which", ["committed", "fresh"])
def test_nothing_is_written_to_stderr_and_nothing_fails(lesson, which):
    for out in outputs(getattr(lesson, which)):
        assert out.output_type != "error", out
        assert out.get("name") != "stderr", out


def test_it_prints_the_same_words_again(lesson):
    """Where a number differs in the last digit from machine to machine, the lesson must not print it."""
    for committed, fresh in zip(code(lesson.committed), code(lesson.fresh), strict=True):
        assert printed(committed) == printed(fresh), committed.source


def printed(cell):
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_it_is_short(lesson):
    assert lesson.path.stat().st_size <= MOST_BYTES
    assert len(lesson.committed.cells) <= MOST_CELLS
    for cell in lesson.committed.cells:
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", []):
            assert len(lines) <= MOST_LINES, cell.source
        if cell.cell_type == "markdown" and "<details>" not in cell.source:
            assert len(lines) <= MOST_PROSE, cell.source


def test_what_answers_for_the_learner_is_folded(lesson):
    folded = {"source_hidden": True}
    for cell in lesson.committed.cells:
        gives = ".reveal(" in cell.source or "solution" in cell.metadata.get("tags", [])
        assert (cell.metadata.get("jupyter") == folded) == (gives and cell.cell_type == "code"), cell.source


def test_a_picture_is_within_the_first_five_cells(lesson):
    first = [out for cell in lesson.committed.cells[:5] for out in cell.get("outputs", [])]
    assert any(is_picture(out.get("data", {})) for out in first)


def is_picture(data):
    page = "".join(data.get("text/html", ""))
    return any(kind in data for kind in PICTURES) or "<img" in page or "<svg" in page


def test_every_picture_has_words_and_every_widget_a_picture_or_words(lesson):
    for notebook in (lesson.committed, lesson.fresh):
        for out in outputs(notebook):
            data = out.get("data", {})
            page = "".join(data.get("text/html", ""))
            for image in re.findall(r"<img[^>]*>", page):
                assert re.search(r'alt="[^"]{20,}"', image), image[:200]
            if "image/png" in data or "image/jpeg" in data:
                assert "alt=" in page
            drawing = "".join(data.get("image/svg+xml", ""))
            if drawing:
                assert "<title" in drawing or "aria-label" in drawing or "alt=" in page, drawing[:300]
            if kernels.maker().LIVE in data:
                assert page or is_picture(data)


def test_headings_are_in_order(lesson):
    prose = "\n".join(cell.source for cell in lesson.committed.cells if cell.cell_type == "markdown")
    levels = [len(mark) for mark in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_only_public_names_are_used(lesson):
    tree = ast.parse("\n".join(cell.source for cell in code(lesson.committed)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.endswith("__"), node.attr
            if isinstance(node.value, ast.Name) and node.value.id == "gradflow":
                assert node.attr in gradflow.__all__
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradflow"):
            for alias in node.names:
                assert is_public(node.module, alias.name), ast.unparse(node)
        if isinstance(node, ast.Name):
            assert node.id != "sys"


def is_public(home, name):
    module = importlib.import_module(home)
    return not name.startswith("_") and (
        name in module.__all__ or importlib.util.find_spec(f"{home}.{name}") is not None
    )


def test_it_has_what_a_lesson_has(lesson):
    prose = "\n".join(cell.source for cell in lesson.committed.cells if cell.cell_type == "markdown")
    source = "\n".join(cell.source for cell in code(lesson.committed))
    assert "minutes" in lesson.committed.cells[0].source
    assert source.count("lessons.predict(") >= 3
    assert source.count(".reveal(") == source.count("lessons.predict(")
    assert lesson.tagged("exercise")
    assert lesson.tagged("solution")
    assert lesson.tagged("check")
    assert re.search(r"^## .*[Rr]ecap|^## .*[Ii]n three sentences", prose, flags=re.MULTILINE)
    if lesson.path != kernels.COMMITTED[-1]:
        assert re.search(r"\]\((?:\./)?\d\d_\w+\.ipynb\)", lesson.committed.cells[-1].source)


def test_the_hidden_solutions_solve_the_exercises(lesson):
    verdicts = [text(out) for cell in lesson.tagged("check") for out in cell.outputs]
    assert verdicts
    for verdict in verdicts:
        assert verdict.startswith("✓ Solved."), verdict


def text(out):
    return "".join(out.get("data", {}).get("text/plain", ""))


def test_every_exercise_has_three_wrong_answers_and_each_is_found(lesson):
    of_lesson = [name for name in names() if name.startswith(lesson.number)]
    assert sorted(answers(lesson)) == of_lesson
    for name, wrong in answers(lesson).items():
        assert len(wrong) >= 3, name
        for source, expected in wrong:
            verdict = lesson.evaluate(
                f"{source}\nimport json\nfrom gradflow import lessons\n"
                f"found = lessons.check({name!r}, answer)\nprint(json.dumps([found.passed, repr(found)]))"
            )
            assert not verdict[0], (name, source, verdict[1])
            assert expected in verdict[1], (name, source, verdict[1])


def test_the_learners_copy_gives_nothing_away_and_its_exercise_is_not_solved_yet(lesson):
    copy = nbformat.from_dict(copies.learners_copy(lesson.committed))
    nbformat.validate(copy)
    assert not [cell for cell in copy.cells if "solution" in cell.metadata.get("tags", [])]
    assert not outputs(copy)
    for cell in copy.cells:
        if {"exercise", "check"} & set(cell.metadata.get("tags", [])):
            lesson.execute(cell)
        if "check" in cell.metadata.get("tags", []):
            assert all(text(out).startswith("✗ Not yet.") for out in cell.outputs), cell.outputs
