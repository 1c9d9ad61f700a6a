"""The optimizers one can choose, and what one of them remembers, as numbers that a state can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

__all__ = ["OPTIMIZERS", "make", "recall", "remembered"]

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], Optimizer]] = {
    "SGD": lambda params, rate: SGD(params, lr=rate),
    "momentum": lambda params, rate: SGD(params, lr=rate, momentum=0.9),
    "Adam": lambda params, rate: Adam(params, lr=rate),
}
"""Makes an optimizer of parameters and a learning rate, by the word that a state has for it."""


def make(word: str, params: Iterable[nn.Parameter], rate: float) -> Optimizer:
    """Make an optimizer that remembers nothing yet."""
    return OPTIMIZERS[word](params, rate)


def remembered(optimizer: Optimizer) -> dict[str, Any]:
    """Write down what an optimizer remembers of its only parameter, as numbers and lists.

    Example:
        >>> theta = nn.Parameter(torch.zeros(2))
        >>> theta.grad = torch.ones(2)
        >>> optimizer = make("momentum", [theta], 0.1)
        >>> optimizer.step()
        >>> remembered(optimizer)
        {'momentum_buffer': [1.0, 1.0]}
    """
    entries = optimizer.state_dict()["state"].get(0, {})
    return {name: v.tolist() for name, v in entries.items() if isinstance(v, Tensor)}


def recall(optimizer: Optimizer, memory: Mapping[str, Any]) -> None:
    """Give an optimizer of one parameter back what ``remembered`` wrote down."""
    if not memory:
        return
    (param,) = optimizer.param_groups[0]["params"]
    known = {
        n: torch.tensor(v, dtype=torch.float32 if n == "step" else param.dtype) for n, v in memory.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: known}})
