import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradflow.errors import InvalidArgumentError
from gradflow.lessons import SIGNS, predict, progress
from gradflow.lessons.distance import of_number, written

WHY = {"mean": "It would depend on the number of paths.", "sum": "The chain rule adds."}


def test_the_answer_is_kept_back_until_there_is_a_guess():
    ask = predict("How many?")
    reveal = ask.reveal(42.0)
    page = reveal._repr_mimebundle_()["text/html"]
    assert "42" not in repr(reveal)
    assert ask.state()["answer"] is None
    assert page.startswith("<div><details>")  # folded, for those who only read
    ask.guess(40)
    assert "Computed: 42. You guessed 40." in repr(reveal)
    assert ask.state()["answer"] == 42.0


def test_a_guess_stands_once_the_answer_is_known():
    ask = predict("How many?").guess(1).guess(2)
    ask.reveal(3)
    ask.guess(3)
    assert ask.guessed == 2


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array([2]), torch.tensor(2.0), "2", "2,0"])
def test_a_number_may_come_in_any_form(value):
    assert predict("?").guess(value).guessed == 2.0


def test_a_minus_sign_may_be_typographic():
    assert predict("?").guess("−0,5").guessed == -0.5


def test_words_are_no_number():
    with pytest.raises(InvalidArgumentError, match="'many' is not a number"):
        predict("?").guess("many")


def test_choices_are_told_why_whatever_was_chosen():
    wrong = predict("Mean or sum?", choices=WHY).guess("mean").reveal("sum")
    assert repr(wrong).endswith("Not “mean”. It would depend on the number of paths. The chain rule adds.")
    good = predict("Mean or sum?", choices=WHY).guess("sum").reveal("sum")
    assert repr(good).endswith("Yes. The chain rule adds.")


def test_who_only_reads_finds_the_reason_behind_the_fold():
    page = (
        predict("Mean or sum?", choices=tuple(WHY))
        .reveal("sum", because=WHY)
        ._repr_mimebundle_()["text/html"]
    )
    assert page.endswith("<p>Computed: sum. The chain rule adds.</p></details></div>")


def test_reasons_may_come_with_the_answer():
    wrong = predict("Mean or sum?", choices=tuple(WHY)).guess("mean").reveal("sum", because=WHY)
    assert repr(wrong).endswith("Not “mean”. It would depend on the number of paths. The chain rule adds.")
    with pytest.raises(InvalidArgumentError, match="'summ' is none of the choices"):
        predict("Mean or sum?", choices=tuple(WHY)).reveal("sum", because={"summ": "x"})


def test_a_number_is_taken_for_its_sign():
    ask = predict("Which way?", choices=SIGNS).guess("negative")
    ask.reveal(torch.tensor(-0.3))
    assert (ask.answer, ask.said()) == ("negative", ("Yes.", True))
    assert predict("?", choices=SIGNS).guess(0.0).guessed == "zero"


@pytest.mark.parametrize("choices", [(), ("one",), ("one", "one"), ("1", 1)])
def test_nothing_to_choose_is_refused(choices):
    with pytest.raises(InvalidArgumentError, match="nothing to choose"):
        predict("?", choices=choices)


def test_an_answer_that_is_no_choice_is_refused():
    with pytest.raises(InvalidArgumentError, match="did you mean 'sum'") as error:
        predict("Mean or sum?", choices=WHY).reveal("summ")
    assert "Mean or sum?" in str(error.value)


def test_what_is_shown_is_escaped():
    ask = predict("<b>?", choices=("<i>", "&"))
    page = ask._repr_mimebundle_()["text/html"]
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;?" in page


def test_outside_a_notebook_there_is_no_widget():
    assert set(predict("?")._repr_mimebundle_()) == {"text/plain", "text/html"}


number = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(number)
def test_a_number_is_at_no_distance_from_itself(value):
    assert of_number(value, value) == ("Exactly.", True)


@given(number, number, st.sampled_from([1e-3, 2.0, -1.0, 512.0]))
def test_the_distance_is_relative(guess, value, factor):
    """Powers of two and signs leave the words as they are; 1e-3 may round across an edge."""
    if factor != 1e-3:
        assert of_number(guess * factor, value * factor) == of_number(guess, value)


@given(number, number)
def test_right_is_within_ten_percent(guess, value):
    _, right = of_number(guess, value)
    if value and not math.isclose(abs(guess - value), 0.1 * abs(value), rel_tol=1e-9):
        assert right == (abs(guess - value) < 0.1 * abs(value))


@pytest.mark.parametrize(
    ("guess", "value", "words"),
    [
        (30, 10, "3 times too large."),
        (-30, -10, "3 times too large."),
        (1, 250, "250 times too small."),
        (12, 10, "Near: 20 % too large."),
        (14, 10, "40 % too large."),
        (1, math.nan, "It is nan, which is no ordinary number."),
    ],
)
def test_how_far_off_is_said_in_words(guess, value, words):
    assert of_number(guess, value) == (words, False)


def test_numbers_are_written_short():
    assert [written(x) for x in (0.0, 22.0, 1.7724539, 1e-7)] == ["0", "22", "1.772", "1e-07"]


def test_a_look_back_counts_what_was_done():
    first, second, third = predict("a?"), predict("b?"), predict("c?")
    first.guess(1).reveal(1)
    second.guess(1).reveal(2)
    third.reveal(3)
    back = progress(first, second, third)
    assert back.rows == (("a?", "1", "1", "✓"), ("b?", "1", "2", "✗"), ("c?", "–", "–", "–"))
    assert back.done == 2
    assert "2 of 3 done, 1 right." in repr(back)
    assert back._repr_html_().count("<tr>") == 4
