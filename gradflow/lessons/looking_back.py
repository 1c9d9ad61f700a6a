"""The look back at the end of a lesson: what was guessed, what came out, which exercises are solved."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from gradflow.lessons.exercise import Verdict
from gradflow.lessons.prediction import Prediction

__all__ = ["Progress", "progress"]

_COLUMNS = ("question", "guess", "computed", "")


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows of (question, guess, computed, mark), as text; a mark is ✓, ✗ or – (nothing yet).

    Attributes:
        rows: One for each prediction and exercise, in the order given.
    """

    rows: tuple[tuple[str, str, str, str], ...]

    @property
    def done(self) -> int:
        """How many have a guess or a solution, right or wrong."""
        return sum(mark != "–" for *_, mark in self.rows)

    def __repr__(self) -> str:
        lines = [f"{mark} {question}  {guess} → {value}" for question, guess, value, mark in self.rows]
        return "\n".join([self._head(), *lines])

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col" style="text-align:left">{name or "mark"}</th>' for name in _COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) + "</tr>"
            for row in self.rows
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<p>{self._head()}</p>{table}"

    def _head(self) -> str:
        right = sum(mark == "✓" for *_, mark in self.rows)
        return (
            f"{self.done} of {len(self.rows)} done, {right} right. The wrong guesses are the better teachers."
        )


def progress(*items: Prediction | Verdict) -> Progress:
    """Look back at predictions and exercises.

    Args:
        items: What :func:`~gradflow.lessons.predict` and :func:`~gradflow.lessons.check` gave.

    Example:
        >>> from gradflow.lessons import predict
        >>> ask = predict("Mean or sum?", choices=("mean", "sum"))
        >>> reveal = ask.guess("mean").reveal("sum")
        >>> progress(ask)
        1 of 1 done, 0 right. The wrong guesses are the better teachers.
        ✗ Mean or sum?  mean → sum
    """
    return Progress(tuple(_of_prediction(i) if isinstance(i, Prediction) else _of_verdict(i) for i in items))


def _of_prediction(asked: Prediction) -> tuple[str, str, str, str]:
    if asked.guessed is None or asked.answer is None:
        return asked.question, "–", "–", "–"
    mark = "✓" if asked.said()[1] else "✗"
    return asked.question, asked.shown(asked.guessed), asked.shown(asked.answer), mark


def _of_verdict(verdict: Verdict) -> tuple[str, str, str, str]:
    return f"exercise {verdict.name}", "", verdict.seen, "✓" if verdict.passed else "–"
