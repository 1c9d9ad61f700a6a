"""How a prediction looks: as text, as HTML that stays in a saved notebook, and as a live card.

The live card is a small widget with a skin of its own, because a plain ipywidgets control loses
keystrokes to the notebook's shortcuts. All that it says to the kernel is the guess.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from gradflow.errors import GradflowError

if TYPE_CHECKING:
    from gradflow.lessons.prediction import Prediction, Reveal

__all__ = ["answer_text", "bundle", "question_text"]

_VIEW = "application/vnd.jupyter.widget-view+json"


def question_text(asked: Prediction) -> str:
    """Tell the question, and the guess or how to make one."""
    lines = [f"Predict: {asked.question}"]
    if asked.choices is not None:
        lines += [f"  - {choice}" for choice in asked.choices]
    if asked.guessed is None:
        example = "0.5" if asked.choices is None else repr(asked.choices[0])
        lines.append(f"  commit to a guess: .guess({example})")
    else:
        lines.append(f"  your guess: {asked.shown(asked.guessed)}")
    return "\n".join(lines)


def answer_text(reveal: Reveal) -> str:
    """Tell the answer, if there is a guess."""
    asked = reveal.prediction
    if asked.guessed is None:
        return f"{question_text(asked)}\nThe answer is computed. Guess first, then it is shown."
    said, _ = asked.said()
    told = " ".join(part for part in (said, reveal.because) if part)
    return f"{_headline(asked)} You guessed {asked.shown(asked.guessed)}.\n{told}"


def bundle(asked: Prediction, reveal: Reveal | None) -> dict[str, object]:
    """Give every form that a notebook may show: live, HTML, text."""
    text = question_text(asked) if reveal is None else answer_text(reveal)
    forms: dict[str, object] = {"text/plain": text, "text/html": _html(asked, reveal)}
    if _in_notebook():
        model = _live(asked, reveal).model_id
        forms[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": model}
    return forms


def _headline(asked: Prediction) -> str:
    return f"Computed: {asked.shown(asked.answer)}."


def _html(asked: Prediction, reveal: Reveal | None) -> str:
    choices = "".join(f"<li>{escape(choice)}</li>" for choice in asked.choices or ())
    parts = [f"<p><strong>Predict.</strong> {escape(asked.question)}</p>"]
    parts += [f"<ul>{choices}</ul>"] if choices else []
    if asked.guessed is not None:
        parts.append(f"<p>Your guess: {escape(asked.shown(asked.guessed))}.</p>")
    if reveal is None:
        return f"<div>{''.join(parts)}</div>"
    said = asked.said()[0] or asked.why()
    told = [part for part in (_headline(asked), said, reveal.because) if part]
    answer = f"<p>{escape(' '.join(told))}</p>"
    if asked.guessed is None:
        parts = [f"<details><summary>Guessed? Then open the answer.</summary>{answer}</details>"]
        return f"<div>{''.join(parts)}</div>"
    return f"<div>{''.join(parts)}{answer}</div>"


def _in_notebook() -> bool:
    """Whether a kernel runs us; a terminal has nowhere to show a widget."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def _live(asked: Prediction, reveal: Reveal | None) -> Any:  # Any: a widget, whose package is imported here
    """Give a card that hears the guess, and is told of it wherever it was made."""
    from gradflow.lessons.live_card import LiveCard

    live = LiveCard(shown=_card_state(asked, reveal))

    def heard(change: Any) -> None:  # Any: traitlets' own record of a change
        trouble = ""
        try:
            asked.guess(change["new"]["guess"])
        except GradflowError as error:
            trouble = error.what
        live.shown = _card_state(asked, reveal) | {"trouble": trouble}

    live.observe(heard, names="state")
    asked.on_guess(lambda: setattr(live, "shown", _card_state(asked, reveal)))
    return live


def _card_state(asked: Prediction, reveal: Reveal | None) -> dict[str, object]:
    open_ = reveal is not None and asked.guessed is not None
    return {
        "question": asked.question,
        "choices": list(asked.choices) if asked.choices is not None else None,
        "unit": asked.unit,
        "guess": "" if asked.guessed is None else asked.shown(asked.guessed),
        "reveals": reveal is not None,
        "final": asked.answer is not None and asked.guessed is not None,
        "headline": _headline(asked) if open_ else "",
        "said": asked.said()[0] if open_ else "",
        "right": asked.said()[1] if open_ else None,
        "because": reveal.because if open_ and reveal is not None else "",
        "trouble": "",
    }
