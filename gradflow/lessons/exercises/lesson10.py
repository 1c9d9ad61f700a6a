"""Exercise of lesson 10: a training step with three faults, mended."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.capture.recorder import watch
from gradflow.lessons.exercise import Exercise, Verdict, right, wrong
from gradflow.recording import Recording
from gradflow.zoo import triplet

__all__ = ["EXERCISES"]

_STEPS = 3


def _encoder() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(10)
        return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 16), nn.ReLU(), nn.Linear(16, 8))


def _images() -> list[tuple[Tensor, Tensor, Tensor]]:
    return list(islice(triplet.batches(seed=10, size=8), _STEPS))


def _reference(encoder: nn.Module) -> list[Tensor]:
    """Train as one should; the gradient of the first layer in every step."""
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    gradients = []
    for images in _images():
        optimizer.zero_grad()
        F.triplet_margin_loss(*(encoder(x) for x in images)).backward()
        optimizer.step()
        gradients.append(encoder.get_parameter("1.weight").grad.clone())  # type: ignore[union-attr]
    return gradients


def _watched(step: Any, encoder: nn.Module) -> tuple[Recording, list[Tensor], int]:
    """Train as the learner does, watched; the gradients that the optimizer read, and how often a call ran."""
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.05)
    weight, read, calls = encoder.get_parameter("1.weight"), [], 0

    def count(module: nn.Module, *_: object) -> None:
        nonlocal calls
        calls += module is encoder  # a deep copy has this hook, too

    counting = encoder.register_forward_hook(count)
    reading = optimizer.register_step_pre_hook(
        lambda *_: read.append(torch.zeros_like(weight) if weight.grad is None else weight.grad.clone())
    )
    with watch(encoder, optimizer) as flow:
        for images in _images():
            step(encoder, optimizer, images)
    counting.remove()
    reading.remove()
    return flow.recording, read, calls


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if not callable(answer):
        return wrong(f"This is {type(answer).__name__}, not a function.", "Hand in training_step itself.")
    ours, theirs = _encoder(), _encoder()
    wanted = _reference(ours)
    recording, read, calls = _watched(answer, theirs)
    if len(read) != _STEPS:
        return wrong(
            f"In {_STEPS} calls the optimizer made {len(read)} steps.", "One call of training_step, one step."
        )
    far = _apart(ours, theirs)
    if far < 1e-6:
        return right(f"{_STEPS} steps, and the weights are where one encoder with three paths takes them.")
    return _of_first_step(recording, read, wanted, calls) or _of_later(read, far)


def _apart(ours: nn.Module, theirs: nn.Module) -> float:
    one, other = (torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (ours, theirs))
    return float((one - other).norm() / one.norm())


def _of_first_step(
    recording: Recording, read: list[Tensor], wanted: list[Tensor], calls: int
) -> Verdict | None:
    """What is wrong already in the first step, where nothing is left over from before."""
    first = recording[0] if len(recording) else None
    used = len(first["1.weight"].uses) if first is not None and "1.weight" in first.params else 0
    if _same(read[0], wanted[0]):
        return None
    each = calls // _STEPS
    seen = f"Of three paths, {used} brought the encoder a gradient."
    if used == 0:
        return wrong(seen, "No path came back: is there a backward before the step, of a loss with a graph?")
    if used < each:
        return wrong(
            seen,
            "The encoder ran more often than that: a call under no_grad, or a detached output, "
            "brings nothing. "
            "The findings call it absent.",
        )
    if used < 3:
        return wrong(
            seen,
            "The rest went into a copy, which no optimizer holds. Call the encoder itself for "
            "all three images.",
        )
    return wrong(seen, "All came, but their sum is another one: which image is anchor, positive, negative?")


def _of_later(read: list[Tensor], far: float) -> Verdict:
    seen = f"The first step is right; after {_STEPS} the weights are {far:.1%} off."
    return wrong(
        seen,
        "What the backward of step 1 brought is still in .grad in step 2: the findings say that "
        "the optimizer read "
        "another gradient. Call optimizer.zero_grad() before each backward.",
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-7)


EXERCISES = (
    Exercise(
        "10.mended",
        "Hand in training_step(encoder, optimizer, images): a step in which one encoder learns "
        "from three paths.",
        _examine,
        (
            "Three faults: a copy, a path without gradient, a gradient that is never cleared. "
            "Which line is which?",
            "Call encoder for all three images, outside no_grad, and clear the gradients before backward.",
            "loss = F.triplet_margin_loss(*map(encoder, images)); optimizer.zero_grad(); loss.backward(); "
            "optimizer.step()",
        ),
    ),
)
