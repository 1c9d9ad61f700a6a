"""Predict, then see: a question that keeps its answer back until there is a guess.

The answer is given to :meth:`Prediction.reveal` when it has been computed; no lesson stores it. What a
reader sees of it is worked out here, as data; :mod:`gradflow.lessons.card` draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradflow.errors import InvalidArgumentError, did_you_mean
from gradflow.lessons import card
from gradflow.lessons.distance import of_choice, of_number, written

__all__ = ["SIGNS", "Prediction", "Reveal", "predict"]

SIGNS = ("negative", "zero", "positive")
"""Choices for a question about a sign; a number that is revealed is taken for its sign."""


def predict(
    question: str, *, choices: Sequence[object] | Mapping[str, str] | None = None, unit: str = ""
) -> Prediction:
    """Ask for a guess.

    Args:
        question: One sentence.
        choices: None: the guess is a number. Else what to choose from, two or more. :data:`SIGNS` asks for
            the sign of a number. A mapping also says for each choice why it is right or wrong; but whoever
            reads the cell reads that too, so rather say it in ``reveal(because={...})``.
        unit: What a number counts, shown behind it.

    Returns:
        A prediction, to be shown as the last line of a cell.

    Raises:
        InvalidArgumentError: fewer than two choices, or one of them twice.

    Example:
        >>> ask = predict("How long is the sum of two vectors of length 1 at a right angle?")
        >>> ask.guess(1.5)
        Predict: How long is the sum of two vectors of length 1 at a right angle?
          your guess: 1.5
        >>> ask.reveal((1**2 + 1**2) ** 0.5, because="Pythagoras: no angle, no difference in sign.")
        Computed: 1.414. You guessed 1.5.
        Close: 6.1 % too large. Pythagoras: no angle, no difference in sign.
    """
    names = None if choices is None else tuple(str(choice) for choice in choices)
    if names is not None and len(set(names)) != max(len(names), 2):
        raise InvalidArgumentError(
            f"choices={list(names)} leaves nothing to choose, or offers one thing twice",
            where="gradflow.lessons.predict",
            do="give two different choices or more, or none for a number",
        )
    why = dict(choices) if isinstance(choices, Mapping) else {}
    return Prediction(question, names, why, unit)


class Prediction:
    """A question, and the guess at its answer.

    Attributes:
        question: What is asked.
        choices: What to choose from; None where the guess is a number.
        guessed: The guess, a number or the name of a choice; None as long as there is none.
        answer: What was computed; None before :meth:`reveal`.
    """

    def __init__(
        self, question: str, choices: tuple[str, ...] | None, why: Mapping[str, str], unit: str
    ) -> None:
        self.question, self.choices, self.unit = question, choices, unit
        self.guessed: float | str | None = None
        self.answer: float | str | None = None
        self._why = dict(why)
        self._heard: list[Callable[[], None]] = []

    def guess(self, value: object) -> Prediction:
        """Commit to a guess; a later one replaces it, until the answer has been shown for one.

        Args:
            value: A number, or one of the choices.

        Raises:
            InvalidArgumentError: it is neither.
        """
        guess = self._taken(value, where="guess")
        if self.answer is None or self.guessed is None:
            self.guessed = guess
        for hear in self._heard:
            hear()
        return self

    def reveal(self, value: Any, *, because: str | Mapping[str, str] = "") -> Reveal:  # Any: has one number
        """Give the computed value; it is shown as soon as there is a guess.

        Args:
            value: A number (also a tensor or an array of one), or the choice that is right.
            because: Why it is so, a sentence or two; or for each choice why it is right or wrong.

        Raises:
            InvalidArgumentError: it is not a number, or none of the choices.
        """
        self.answer = self._taken(value, where="reveal")
        if isinstance(because, str):
            return Reveal(self, because)
        self._why.update(
            {self._choice(name, where="reveal(because=...)"): why for name, why in because.items()}
        )
        return Reveal(self, "")

    def said(self) -> tuple[str, bool | None]:
        """Give the feedback on the guess, and whether it is right (None before guess and answer)."""
        if self.guessed is None or self.answer is None:
            return "", None
        if isinstance(self.guessed, str) or isinstance(self.answer, str):
            words, fits = of_choice(str(self.guessed), str(self.answer))
            reasons = [
                self._why.get(name, "") for name in dict.fromkeys((str(self.guessed), str(self.answer)))
            ]
            return " ".join(part for part in (words, *reasons) if part), fits
        return of_number(self.guessed, self.answer)

    def why(self) -> str:
        """Give the reason for the answer, where reasons were given choice by choice; else nothing."""
        return self._why.get(str(self.answer), "")

    def shown(self, value: float | str | None) -> str:
        """Write a guess or an answer, with its unit."""
        text = written(value) if isinstance(value, float) else str(value)
        return f"{text} {self.unit}".rstrip()

    def state(self) -> dict[str, object]:
        """Give everything as plain data: question, choices, guess, answer (None while kept back)."""
        said, fits = self.said()
        return {
            "question": self.question,
            "choices": None if self.choices is None else list(self.choices),
            "unit": self.unit,
            "guess": self.guessed,
            "answer": self.answer if self.guessed is not None else None,
            "said": said,
            "right": fits,
        }

    def on_guess(self, hear: Callable[[], None]) -> None:
        """Call ``hear`` after every guess."""
        self._heard.append(hear)

    def _taken(self, value: Any, *, where: str) -> float | str:
        value = value.item() if hasattr(value, "item") else value
        if self.choices is None:
            return _number(value, where=f"{where}({value!r})")
        if self.choices == SIGNS and isinstance(value, int | float):
            return SIGNS[(value > 0) - (value < 0) + 1]
        return self._choice(value, where=f"{where}({value!r})")

    def _choice(self, value: object, *, where: str) -> str:
        choices = self.choices or ()
        if str(value) not in choices:
            raise InvalidArgumentError(
                f"{value!r} is none of the choices",
                where=f"{where} of “{self.question}”",
                do=did_you_mean(str(value), choices),
            )
        return str(value)

    def __repr__(self) -> str:
        return card.question_text(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        return card.bundle(self, None)


class Reveal:
    """The answer to a prediction, kept back until there is a guess.

    Attributes:
        prediction: What was asked and guessed.
        because: Why the answer is what it is.
    """

    def __init__(self, prediction: Prediction, because: str) -> None:
        self.prediction, self.because = prediction, because

    def __repr__(self) -> str:
        return card.answer_text(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        return card.bundle(self.prediction, self)


def _number(value: object, *, where: str) -> float:
    try:
        return float(str(value).strip().replace("−", "-").replace(",", "."))
    except ValueError as error:
        raise InvalidArgumentError(
            f"{value!r} is not a number", where=where, do="give a number, such as 0.5"
        ) from error
