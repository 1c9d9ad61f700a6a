"""What the answers are computed with: the register of rows, watched runs of the zoo, and a small encoder."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

import gradflow
from gradflow import zoo
from gradflow.zoo import contrastive

PATHS = ("anchor", "positive", "negative")
Function = Callable[[], str]
NUMBERS: dict[str, Function] = {}
"""What computes the number of each row, by the row's name."""


def number(row: str) -> Callable[[Function], Function]:
    """Enter a function as the one that computes the number of a row."""

    def enter(function: Function) -> Function:
        assert row not in NUMBERS, row
        NUMBERS[row] = function
        return function

    return enter


@functools.cache
def run(name: str, steps: int = 3) -> gradflow.Recording:
    """Train a scene of the zoo for some steps, watched, tensors kept."""
    scene = zoo.scene(name)
    torch.manual_seed(0)
    model = scene.build()
    optimizers = scene.optimizers(model)
    branches = scene.watch_branches(model)
    with gradflow.watch(model, optimizers, branches=branches, keep="tensors", stems=scene.stems) as flow:
        for batch in islice(scene.batches(seed=0), steps):
            loss, scalars = scene.loss(model, batch)
            flow.log(loss=loss, **scalars)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    return flow.recording


def dense(seed: int = 0) -> nn.Sequential:
    """Give a small encoder of 32×32 images without normalisation at its end."""
    torch.manual_seed(seed)
    layers = {"fc1": nn.Linear(32 * 32, 64), "relu": nn.ReLU(), "fc2": nn.Linear(64, 16)}
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), **layers))


def descend(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    """Make one step down a loss."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    """Give all weights in one row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def count(model: nn.Module) -> int:
    """Count a model's weights."""
    return sum(p.numel() for p in model.parameters())


def pairs(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give endless batches of pairs of digits."""
    return contrastive.batches(seed, size)


def percent(fraction: float) -> str:
    """Write a fraction as a whole percentage."""
    return f"{100 * fraction:.0f} %"
