"""Exercise of lesson 9: a loss with a stop-gradient in the right place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong
from gradflow.zoo.simsiam import similarity

__all__ = ["EXERCISES"]

_NAMES = ("p1", "p2", "z1", "z2")


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if not callable(answer):
        return wrong(
            f"This is {type(answer).__name__}, not a function.", "Hand in the function itself: loss."
        )
    given = _leaves()
    loss = answer(*given.values())
    if not isinstance(loss, Tensor) or loss.shape != torch.Size([]):
        return wrong(
            "loss did not give a tensor of one number.", "Give minus the mean of the two similarities."
        )
    if not loss.requires_grad:
        return wrong(
            "The loss has no way back at all: backward would raise.",
            "You stopped everything. Stop the gradient into what is guessed; let it into the guess.",
        )
    arrived = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
    norms = {name: 0.0 if g is None else g.norm().item() for name, g in zip(_NAMES, arrived, strict=True)}
    return _of_value(loss.item(), given) or _of_gradients(norms) or _praise(norms)


def _leaves() -> dict[str, Tensor]:
    """Guesses and embeddings that know nothing of one another."""
    generator = torch.Generator().manual_seed(9)
    return {name: torch.randn(8, 6, generator=generator).requires_grad_() for name in _NAMES}


def _of_value(loss: float, given: dict[str, Tensor]) -> Verdict | None:
    p1, p2, z1, z2 = (tensor.detach() for tensor in given.values())
    wanted = -(similarity(p1, z2) + similarity(p2, z1)).item() / 2
    if abs(loss - wanted) < 1e-5:
        return None
    seen = f"Your loss is {loss:.3f}; minus the mean of both similarities is {wanted:.3f}."
    ideas = (
        (-wanted, "The sign: what is minimised should get smaller when guess and target agree."),
        (2 * wanted, "That is the sum of both; take the mean."),
        (
            -(similarity(p1, z1) + similarity(p2, z2)).item() / 2,
            "Each view guesses itself: that is easy, and teaches nothing. Compare p1 with z2, p2 with z1.",
        ),
        (-similarity(p1, z2).item(), "Only view 1 guesses. Let each view guess once."),
        (-similarity(p2, z1).item(), "Only view 2 guesses. Let each view guess once."),
    )
    hints = [told for value, told in ideas if abs(loss - value) < 1e-5]
    return wrong(seen, hints[0] if hints else "Compare p1 with z2 and p2 with z1, by similarity.")


def _of_gradients(norms: dict[str, float]) -> Verdict | None:
    seen = "Gradient that arrives: " + ", ".join(f"{name} {norm:.2g}" for name, norm in norms.items()) + "."
    into_targets, into_guesses = norms["z1"] + norms["z2"], norms["p1"] + norms["p2"]
    if into_targets and not into_guesses:
        return wrong(
            seen,
            "You stopped the guess, and let the gradient into the target: the predictor never "
            "learns, and the target "
            "runs after it. Detach what is guessed.",
        )
    if into_targets:
        return wrong(
            seen,
            "The targets get gradient too: they come to meet their guesses, and soon all "
            "embeddings are the same. "
            "Detach z1 and z2 where they are targets.",
        )
    if not (norms["p1"] and norms["p2"]):
        return wrong(seen, "One of the guesses gets no gradient: detach targets only.")
    return None


def _praise(norms: dict[str, float]) -> Verdict:
    return right(f"Into the guesses {norms['p1']:.2g} and {norms['p2']:.2g}, into the targets nothing.")


EXERCISES = (
    Exercise(
        "09.stop",
        "Hand in loss(p1, p2, z1, z2): minus the mean similarity of each guess and the other's embedding.",
        _examine,
        (
            "Which of the four is a guess, and which is what is guessed? Into which should gradient go?",
            "tensor.detach() gives the same numbers without a way back.",
            "similarity(p1, z2.detach()) for one half; the other half has p2 and z1.",
        ),
    ),
)
