"""Exercise of lesson 6: whose loss rises in a step down the sum of all losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong

__all__ = ["EXERCISES"]

Gram = NDArray[np.float64]
Rule = Callable[[Gram], list[int]]

_STEP = 1e-3


def _cases() -> list[tuple[NDArray[np.float64], str]]:
    """Contributions, one in a row, and what is special about them."""
    rng = np.random.default_rng(6)
    quiet = np.array([[1.0, 0.0], [0.02, 0.01]])  # the quietest agrees with the sum
    against = np.array([[1.0, 0.0], [-0.5, 1.0]])  # a conflict in which nobody loses
    loud = np.array([[3.0, 0.0], [-0.5, 0.5]])  # the same angle, another length: one loses
    told = [
        (quiet, "a path 45 times quieter than the other, and no conflict"),
        (against, "two paths in conflict, almost equally loud"),
        (loud, "two paths in conflict, one 4 times as loud"),
    ]
    for number in range(8):
        rows = rng.normal(size=(3 + number % 2, 4)) * rng.uniform(0.1, 3.0, size=(3 + number % 2, 1))
        told.append((rows, f"{len(rows)} paths at random"))
    return told


def _measured(rows: NDArray[np.float64]) -> list[int]:
    """Take losses whose gradients are the rows, make a small step down their sum, and see which rise."""
    weight = np.zeros(rows.shape[1])
    before = rows @ weight
    after = rows @ (weight - _STEP * rows.sum(axis=0))
    return [int(b) for b in np.flatnonzero(after > before)]


def _anyone_in_conflict(gram: Gram) -> list[int]:
    return [b for b in range(len(gram)) if gram[b].min() < 0]


def _the_quietest(gram: Gram) -> list[int]:
    return [int(np.diag(gram).argmin())]


def _by_angles(gram: Gram) -> list[int]:
    norms = np.sqrt(np.diag(gram))
    return [b for b, row in enumerate(gram / np.outer(norms, norms)) if row.sum() < 0]


def _without_oneself(gram: Gram) -> list[int]:
    return [b for b in range(len(gram)) if gram[b].sum() - gram[b, b] < 0]


def _the_winners(gram: Gram) -> list[int]:
    return [b for b in range(len(gram)) if gram[b].sum() > 0]


_IDEAS: tuple[tuple[Rule, str], ...] = (
    (
        _anyone_in_conflict,
        "A conflict with one other path is not yet a loss: a path also pulls for itself. "
        "What counts is its product with the sum of all, its own pull included.",
    ),
    (_the_quietest, "A quiet path may go along with the others and win. Ask which way, not only how loud."),
    (
        _by_angles,
        "Cosines forget the lengths, but the step is made of the lengths too: "
        "a loud enemy costs more than a quiet one. Use the products themselves.",
    ),
    (
        _without_oneself,
        "You left out the path's own pull, the entry on the diagonal. It is part of the sum that "
        "is stepped down.",
    ),
    (
        _the_winners,
        "The sign is the other way. The step goes *down* the sum: whoever agrees with it gets a "
        "smaller loss.",
    ),
)


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if not callable(answer):
        return wrong(
            f"This is {type(answer).__name__}, not a function.", "Hand in the function itself: losers."
        )
    cases = _cases()
    given = [_listed(answer(rows @ rows.T)) for rows, _ in cases]
    measured = [_measured(rows) for rows, _ in cases]
    missed = [i for i, (one, other) in enumerate(zip(given, measured, strict=True)) if one != other]
    if not missed:
        return right(f"{len(cases)} of {len(cases)} steps: exactly the losses that you named rose.")
    first = missed[0]
    return wrong(
        f"{cases[first][1]}: you named rows {given[first]}, and after a small step the losses of rows "
        f"{measured[first]} had risen. Right in {len(cases) - len(missed)} of {len(cases)} cases.",
        _likely(given, [rows @ rows.T for rows, _ in cases]),
    )


def _listed(named: Any) -> list[int]:  # Any: rows in any kind of list
    return sorted(int(row) for row in np.atleast_1d(np.asarray(named, dtype=float)).ravel())


def _likely(given: Sequence[list[int]], grams: Sequence[Gram]) -> str:
    """The idea that explains all answers, or else a general word."""
    for idea, told in _IDEAS:
        if all(sorted(idea(gram)) == one for gram, one in zip(grams, given, strict=True)):
            return told
    return "The change of a loss is minus the rate times the product of its gradient with the sum of all."


EXERCISES = (
    Exercise(
        "06.losers",
        "Hand in losers(gram): the list of the rows whose loss rises in a small step down the sum.",
        _examine,
        (
            "The step moves the weights by −η (g_1 + g_2 + …). By how much does that change the "
            "loss of path b?",
            "By −η times the product of g_b with the sum. A product with a sum is a sum of products.",
            "Those products are row b of the Gram matrix: add the row up, and look at the sign.",
        ),
    ),
)
