import pytest

from gradflow.errors import InvalidArgumentError
from gradflow.lessons import check, hint
from gradflow.lessons.exercise import Exercise, find, names


def test_every_exercise_has_a_task_and_hints_that_go_further_and_further():
    assert names()
    for name in names():
        exercise = find(name)
        assert exercise.name == name
        assert name[:2].isdigit()
        assert exercise.task.endswith((".", "?"))
        assert 2 <= len(exercise.hints) <= 4
        assert len(set(exercise.hints)) == len(exercise.hints)


def test_names_are_unique_and_in_order():
    assert list(names()) == sorted(set(names()), key=names().index)
    assert [name[:2] for name in names()] == sorted(name[:2] for name in names())


def test_an_unknown_exercise_lists_the_near_ones():
    with pytest.raises(InvalidArgumentError, match=r"did you mean '01\.shared'"):
        check("01.sharde", 1)


@pytest.mark.parametrize("answer", [None, ...])
@pytest.mark.parametrize("name", names())
def test_nothing_is_no_answer(name, answer):
    verdict = check(name, answer)
    assert not verdict.passed
    assert repr(verdict).startswith("✗ Not yet. There is no answer yet.")


@pytest.mark.parametrize("answer", [1, "text", object(), [], {}, lambda: None, lambda *a: 1 / 0])
@pytest.mark.parametrize("name", names())
def test_whatever_is_handed_in_gets_a_verdict(name, answer):
    verdict = check(name, answer)
    assert not verdict.passed
    assert verdict.hint
    assert f"lessons.hint('{name}')" in repr(verdict)
    assert "<" not in verdict._repr_html_().replace("<p>", "").replace("</p>", "").replace(
        "<strong>", ""
    ).replace("</strong>", "").replace("<code>", "").replace("</code>", "").replace(
        '<div role="status">', ""
    ).replace("</div>", "")


def test_ctrl_c_is_not_a_verdict(monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    from gradflow.lessons import exercise

    monkeypatch.setattr(exercise, "find", lambda _: Exercise("x", "y", stopped, ("a",)))
    with pytest.raises(KeyboardInterrupt):
        exercise.check("x", 1)


def test_hints_are_given_one_by_one():
    first = hint("01.shared")
    assert repr(first).startswith("Hint 1 of 3: ")
    assert "lessons.hint('01.shared', 2)" in repr(first)
    assert "Hint 3" not in repr(hint("01.shared", 2))
    assert "next" not in repr(hint("01.shared", 3))
    assert hint("01.shared")._repr_html_().count("<details>") == 3
