"""The live card without a browser: its state is the guess, what it shows comes from the prediction."""

import pytest

from gradflow.lessons import card, predict
from gradflow.lessons.live_card import LiveCard


@pytest.fixture
def live(monkeypatch):
    """Collect the cards that a notebook would show."""
    cards = []
    monkeypatch.setattr(card, "_in_notebook", lambda: True)
    made = card._live
    monkeypatch.setattr(card, "_live", lambda *a: cards.append(made(*a)) or cards[-1])
    return cards


def shown(cards, thing):
    forms = thing._repr_mimebundle_()
    assert set(forms) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert forms["application/vnd.jupyter.widget-view+json"]["model_id"] == cards[-1].model_id
    return cards[-1]


def test_a_guess_on_one_card_opens_the_other(live):
    ask = predict("How many?", unit="steps")
    question, answer = shown(live, ask), shown(live, ask.reveal(12, because="Count them."))
    assert answer.shown["headline"] == answer.shown["because"] == ""  # nothing of it reaches the page
    question.choose(guess="10")
    assert ask.guessed == 10.0
    assert answer.shown["headline"] == "Computed: 12 steps."
    assert (answer.shown["said"], answer.shown["right"]) == ("Near: 17 % too small.", False)
    assert answer.shown["because"] == "Count them."
    assert question.shown["final"]


def test_what_is_no_guess_is_told_on_the_card(live):
    ask = predict("How many?")
    question = shown(live, ask)
    question.choose(guess="many")
    assert question.shown["trouble"] == "'many' is not a number"
    assert ask.guessed is None
    question.choose(guess="3")
    assert (question.shown["trouble"], ask.guessed) == ("", 3.0)


def test_a_guess_made_in_code_reaches_the_card(live):
    ask = predict("Mean or sum?", choices=("mean", "sum"))
    question = shown(live, ask)
    ask.guess("sum")
    assert question.shown["guess"] == "sum"


def test_the_state_of_a_card_is_the_guess_alone():
    assert LiveCard().state == {"guess": ""}
