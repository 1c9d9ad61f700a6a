"""Exercise of lesson 4: tell shared from copied from different."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong

__all__ = ["EXERCISES"]

_ANSWERS = ("shared", "copied", "different")


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
        self.write.weight = self.read.weight


def _cases() -> Iterator[tuple[nn.Module, nn.Module, str, str, str]]:
    """Two modules, what they are to each other, what they are called, and what to think of."""
    torch.manual_seed(4)
    layer, tied = nn.Linear(4, 3), _Tied()
    copied, moved = copy.deepcopy(layer), copy.deepcopy(layer)
    with torch.no_grad():
        moved.weight[0, 0] += 1e-3
    yield layer, layer, "shared", "one layer, twice", "One object is shared with itself."
    yield (
        nn.Sequential(layer, nn.Linear(3, 2)),
        nn.Sequential(layer, nn.Linear(3, 5)),
        "shared",
        "two models around one layer",
        "The models differ, the weights do not. Compare the parameters inside, not the modules.",
    )
    yield (
        tied.read,
        tied.write,
        "shared",
        "an embedding and a decoder tied to it",
        "Two kinds of layer, one parameter under two names. Compare parameters by identity: is, not ==.",
    )
    yield (
        layer,
        copied,
        "copied",
        "a layer and its deepcopy",
        "Equal numbers are not one weight: a step of the one leaves the other behind. Compare with is.",
    )
    yield (
        layer,
        moved,
        "different",
        "a layer and a copy of it after a small step",
        "A copy that has drifted is no longer equal. Compare every number, exactly.",
    )
    yield (
        layer,
        nn.Linear(4, 3),
        "different",
        "two layers made by the same recipe",
        "Same shapes and names, other numbers: the recipe draws anew each time.",
    )
    yield (
        layer,
        nn.Linear(5, 3),
        "different",
        "two layers of different shapes",
        "Shapes that differ cannot be compared number by number: look at them first.",
    )


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    cases = 0
    for one, other, expected, what, thought in _cases():
        try:
            found = answer(one, other)
        except Exception as error:  # the learner's code, told with the case it fails on
            return wrong(f"{what}: {type(error).__name__}: {error}", thought)
        if found not in _ANSWERS:
            return wrong(f"It gave {found!r}.", f"Give one of {', '.join(map(repr, _ANSWERS))}.")
        if found != expected:
            return wrong(f"{what.capitalize()}: you say {found}, they are {expected}.", thought)
        cases += 1
    return right(f"{cases} pairs told apart, tied embeddings among them.")


EXERCISES = (
    Exercise(
        "04.relation",
        "Write relation(one, other), which says of two modules: 'shared', 'copied' or 'different'.",
        _examine,
        (
            "Two modules share if they have a parameter in common. How does Python say 'the very same'?",
            "{id(p) for p in module.parameters()} is the set of parameters. Do the two sets meet?",
            "If they do not meet: copied if both have as many parameters, of equal shapes, and torch.equal "
            "says yes for each pair.",
        ),
    ),
)
