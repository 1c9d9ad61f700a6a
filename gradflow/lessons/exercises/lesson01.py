"""Exercise of lesson 1: a network of three inputs that has one set of weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gradflow.lessons.exercise import Exercise, Verdict, right, wrong
from gradflow.zoo import triplet

__all__ = ["EXERCISES"]

_PATHS = ("anchor", "positive", "negative")


def _examine(answer: Any) -> Verdict:  # Any: a learner may hand in anything
    if isinstance(answer, type):
        return wrong(f"This is the class {answer.__name__}.", "Hand in a network: call the class.")
    network = copy.deepcopy(answer)  # so that the learner's own is not trained here
    batch = next(triplet.batches(seed=5, size=4))
    for look in (_same_answers, _own_inputs, _still_same_after_a_step, _three_paths):
        verdict = look(network, batch)
        if verdict is not None:
            return verdict
    numbers = sum(p.numel() for p in network.parameters())
    return right(f"Three inputs, three gradients, one set of {numbers:,} weights.")


def _outputs(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    outputs = network(*batch)
    if not (isinstance(outputs, tuple | list) and len(outputs) == 3):
        raise ValueError(f"forward gave {type(outputs).__name__}, not three embeddings")
    return tuple(outputs)


def _same_answers(network: nn.Module, batch: tuple[Tensor, ...]) -> Verdict | None:
    """One image through all three inputs."""
    with torch.no_grad():
        a, p, n = _outputs(network.eval(), (batch[0],) * 3)
    network.train()
    apart = max((a - p).norm().item(), (a - n).norm().item())
    if apart == 0:
        return None
    return wrong(
        f"The same image through the three inputs gives three answers, up to {apart:.3g} apart.",
        "Building an encoder three times gives three sets of weights, however alike the lines look. "
        "How many encoders does __init__ build?",
    )


def _own_inputs(network: nn.Module, batch: tuple[Tensor, ...]) -> Verdict | None:
    with torch.no_grad():
        a, p, n = _outputs(network.eval(), batch)
    network.train()
    if not torch.equal(a, p) and not torch.equal(a, n):
        return None
    return wrong(
        "Three different images give the same embedding.",
        "Sharing is about weights: the encoder is one, but each call gets an image of its own.",
    )


def _still_same_after_a_step(network: nn.Module, batch: tuple[Tensor, ...]) -> Verdict | None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    triplet.triplet_loss(*_outputs(network, batch))[0].backward()
    optimizer.step()
    verdict = _same_answers(network, batch)
    if verdict is None:
        return None
    return wrong(
        f"Before the first step the three agreed; after it they do not. {verdict.seen}",
        "Equal is not the same. Copies start with equal weights, and then each follows its own gradient. "
        "Call one encoder three times.",
    )


def _three_paths(network: nn.Module, batch: tuple[Tensor, ...]) -> Verdict | None:
    weights = [p for p in network.parameters() if p.requires_grad]
    silent = []
    for name, output in zip(_PATHS, _outputs(network, batch), strict=True):
        if not output.requires_grad:
            silent.append(name)
            continue
        grads = torch.autograd.grad(output.square().sum() + output.sum(), weights, allow_unused=True)
        if not any(g is not None and bool(g.any()) for g in grads):
            silent.append(name)
    if not silent:
        return None
    return wrong(
        f"No gradient comes back from: {', '.join(silent)}.",
        "no_grad and detach cut a path. Three gradients into one weight are no problem: they are added up.",
    )


EXERCISES = (
    Exercise(
        "01.shared",
        "Hand in a network that takes three batches of images, gives three embeddings, and has one encoder.",
        _examine,
        (
            "Count: how many encoders does your __init__ build? How many sets of weights does that make?",
            "A module may be called as often as you like. Each call is a path; the weights stay the same.",
            "Keep self.one, drop the other two, and call self.one for each of the three images.",
        ),
    ),
)
