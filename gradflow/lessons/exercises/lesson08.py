"""Exercise of lesson 8: one step of Adam, split by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong

__all__ = ["EXERCISES"]

Array = NDArray[np.float64]
Parts = dict[str, Array]
History = list[Parts]

_LR, _BETA1, _BETA2, _EPS = 0.1, 0.9, 0.999, 1e-8
_STEPS, _NAMES = 7, ("anchor", "positive", "negative")


def _history() -> History:
    """Gradients of three paths that pull partly against each other; the last is silent in the end."""
    rng = np.random.default_rng(8)
    steps = []
    for t in range(_STEPS):
        common = rng.normal(size=6)
        rows = {
            name: rng.normal(size=6) + sign * common for name, sign in zip(_NAMES, (1, 1, -1), strict=True)
        }
        steps.append(rows | ({"negative": np.zeros(6)} if t >= _STEPS - 2 else {}))
    return steps


def _move(history: History) -> Array:
    """The last move of PyTorch's own Adam under the sums."""
    weight = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=_LR, betas=(_BETA1, _BETA2), eps=_EPS)
    before = weight.detach().clone()
    for step in history:
        before = weight.detach().clone()
        weight.grad = torch.from_numpy(np.sum([*step.values()], axis=0))
        optimizer.step()
    moved: Array = (weight.detach() - before).numpy()
    return moved


def _memory(gradients: list[Array], beta: float) -> Array:
    kept = np.zeros_like(gradients[0])
    for g in gradients:
        kept = beta * kept + (1 - beta) * g
    return kept


def _denominator(gradients: list[Array]) -> Array:
    v = _memory([g**2 for g in gradients], _BETA2) / (1 - _BETA2 ** len(gradients))
    root: Array = np.sqrt(v) + _EPS
    return root


def _sums(history: History) -> list[Array]:
    return [np.sum([*step.values()], axis=0) for step in history]


def _right(history: History) -> Parts:
    scale = -_LR / (1 - _BETA1 ** len(history)) / _denominator(_sums(history))
    return {name: scale * _memory([step[name] for step in history], _BETA1) for name in _NAMES}


def _alone(history: History) -> Parts:
    given = {}
    for name in _NAMES:
        own = [step[name] for step in history]
        given[name] = -_LR * _memory(own, _BETA1) / (1 - _BETA1 ** len(own)) / _denominator(own)
    return given


def _only_now(history: History) -> Parts:
    return {name: -_LR * g / _denominator(_sums(history)) for name, g in history[-1].items()}


def _uncorrected(history: History) -> Parts:
    root = np.sqrt(_memory([g**2 for g in _sums(history)], _BETA2)) + _EPS
    return {name: -_LR * _memory([step[name] for step in history], _BETA1) / root for name in _NAMES}


def _upwards(history: History) -> Parts:
    return {name: -part for name, part in _right(history).items()}


def _equal(history: History) -> Parts:
    return {name: _move(history) / len(_NAMES) for name in _NAMES}


def _by_todays_gradients(history: History) -> Parts:
    lengths = {name: float(np.linalg.norm(g)) for name, g in history[-1].items()}
    return {name: _move(history) * length / sum(lengths.values()) for name, length in lengths.items()}


_IDEAS: tuple[tuple[Callable[[History], Parts], str], ...] = (
    (
        _alone,
        "This is an Adam for each path, with a denominator made of its own gradients. Adam has "
        "one denominator, "
        "made of the sum: each path going alone is another story, and its moves do not add up to this one.",
    ),
    (
        _only_now,
        "You took this step's gradients only. Adam moves along its average of all steps: "
        "keep one average for each path.",
    ),
    (
        _uncorrected,
        "The averages start at zero and are too small at first. Adam divides them by 1 − β^t, both of them.",
    ),
    (_upwards, "The sign: a step goes *down*, so a part is minus the rate times the average."),
    (
        _equal,
        "Equal parts do sum to the move, but nobody asked who brought what. One path was silent "
        "for two steps, "
        "another was not.",
    ),
    (
        _by_todays_gradients,
        "You shared the move out by today's gradients. Who is silent today may still be moving: "
        "what counts is each path's own average.",
    ),
)


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if not callable(answer):
        return wrong(
            f"This is {type(answer).__name__}, not a function.", "Hand in the function itself: parts."
        )
    history, move = _history(), _move(_history())
    given = answer([{name: g.copy() for name, g in step.items()} for step in history])
    if not isinstance(given, dict) or set(given) != set(_NAMES):
        return wrong(
            "parts did not give a dict with every path's name.", f"The paths are {', '.join(_NAMES)}."
        )
    found = {name: np.asarray(part, dtype=float) for name, part in given.items()}
    off = float(np.abs(sum(found.values()) - move).max() / np.abs(move).max())
    wanted = _right(history)
    apart = max(float(np.abs(found[name] - wanted[name]).max()) for name in _NAMES) / _LR
    if off < 1e-9 and apart < 1e-9:
        return right("The parts sum to the move of torch.optim.Adam, and the silent path has its share.")
    seen = (
        f"The sum of your parts misses the real move by {off:.0%} of its largest entry."
        if off >= 1e-9
        else f"Your parts sum to the real move, but whose they are is off by up to {apart:.2g} × lr."
    )
    return wrong(seen, _likely(found, history))


def _likely(found: Parts, history: History) -> str:
    for idea, told in _IDEAS:
        thought = idea(history)
        if all(np.allclose(found[name], thought[name], rtol=1e-6, atol=1e-12) for name in _NAMES):
            return told
    return "One average for each path, and one denominator for all: that of the summed gradients."


EXERCISES = (
    Exercise(
        "08.parts",
        "Hand in parts(history, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8): a dict of each path's part.",
        _examine,
        (
            "Adam is an average m over a denominator √v. Which of the two is linear in the "
            "gradients, and so can be split?",
            "m can: keep a m for each path. v cannot: a square of a sum belongs to nobody. "
            "Compute it from the sums.",
            "part = −lr · m_path / (1 − β1^t) / (√(v / (1 − β2^t)) + eps), with v from "
            "sum(step.values()) ** 2.",
        ),
    ),
)
