"""The learner's copies of the lessons in a real JupyterLab: guessed, committed, revealed, and played with."""

import pytest

from gradflow.lessons import copies


@pytest.fixture
def lesson(lab, tmp_path):
    """Give a function that opens the learner's copy of a lesson by its number."""
    paths = {path.name[:2]: path for path in copies.copy_lessons(tmp_path / "mine")}
    return lambda number: lab.open_file(paths[number])


def cards(notebook, question):
    """The cards of a prediction: where it is asked, and where it is revealed."""
    return notebook.page.locator(".gfl-card", has_text=question)


def wait_for(notebook, question, words):
    last = cards(notebook, question).last
    last.get_by_text(words, exact=False).first.wait_for(timeout=20_000)
    return last


def played(notebook, kind, entry):
    """What a playground that a cell shows says in the kernel of an entry of its state."""
    widget = f"[w for w in Out.values() if type(w).__name__ == {kind!r}][-1]"
    return notebook.value(f"{widget}.state[{entry!r}]")


def test_one_network_or_three(lesson):
    notebook = lesson("01")
    page, count = notebook.page, notebook.count()

    asked = cards(notebook, "How many sets of weights").first
    asked.get_by_label("three", exact=True).check()
    asked.get_by_role("button", name="Commit").click()
    revealed = wait_for(notebook, "How many sets of weights", "Computed: one. You guessed three.")
    assert "Not “three”." in revealed.inner_text()
    assert "nothing makes them agree" in revealed.inner_text()
    assert notebook.value("[sets.guessed, sets.said()[1]]") == ["three", False]

    field = cards(notebook, "Three arrows arrive").first.get_by_role("textbox")
    field.click()
    page.keyboard.type("bad")  # letters that are shortcuts of the notebook
    page.keyboard.press("Enter")
    cards(notebook, "Three arrows arrive").first.get_by_text("'bad' is not a number").wait_for()
    field = cards(notebook, "Three arrows arrive").first.get_by_role("textbox")
    field.fill("17,5")
    page.keyboard.press("Enter")
    wait_for(notebook, "Three arrows arrive", "You guessed 17.5.")
    assert notebook.value("length.guessed") == 17.5
    assert notebook.count() == count

    before = played(notebook, "SharingPlayground", "steps")
    page.get_by_role("button", name="10 steps").click()
    notebook.settle()
    assert played(notebook, "SharingPlayground", "steps") == before + 10
    assert "✗ Not yet." in page.locator(".jp-Cell", has_text='lessons.check("01.shared"').last.inner_text()


def test_a_guess_is_made_by_keyboard_alone(lesson):
    notebook = lesson("05")
    page, count = notebook.page, notebook.count()
    first = cards(notebook, "Which of the three points").first
    first.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    revealed = wait_for(notebook, "Which of the three points", "Computed: anchor. You guessed negative.")
    live = revealed.locator("[aria-live=polite]")
    assert live.inner_text().startswith("Computed: anchor.")

    at = played(notebook, "PlanePlayground", "points")["negative"]
    page.get_by_role("slider", name="input of the negative").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    notebook.settle()
    x, y = played(notebook, "PlanePlayground", "points")["negative"]
    assert x < at[0]
    assert y == at[1]
    assert notebook.count() == count


def test_through_time(lesson):
    notebook = lesson("07")
    page, count = notebook.page, notebook.count()
    field = cards(notebook, "spectral radius 0.7").last.get_by_role("textbox")  # where it is revealed
    field.fill("0.5")
    page.keyboard.press("Enter")
    wait_for(notebook, "spectral radius 0.7", "You guessed 0.5.")
    assert notebook.value("ask_radius.guessed") == 0.5

    at = played(notebook, "TimePlayground", "focus")
    page.get_by_role("slider", name="time step:").focus()
    page.keyboard.press("ArrowRight")
    notebook.settle()
    assert played(notebook, "TimePlayground", "focus") == at + 1
    assert notebook.count() == count


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_a_card_is_legible_in_both_themes(lab, theme):
    notebook = lab.open(
        [
            "from gradflow import lessons\nask = lessons.predict('How many?', choices=('one', 'two'))\nask",
            "ask.guess('one')\nask.reveal('two', because='So it is.')",
        ]
    )
    notebook.use_theme(theme)
    colours = notebook.page.locator(".gfl-card").first.evaluate(
        "(card) => [getComputedStyle(card).color, getComputedStyle(card).backgroundColor]"
    )
    ink, paper = (brightness(colour) for colour in colours)
    dark, bright = (ink, paper) if theme == "Light" else (paper, ink)
    assert dark < 0.3
    assert bright > 0.7


def brightness(colour):
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].replace(",", " ").split()[:3]]
    return sum(numbers) / 3 / 255
