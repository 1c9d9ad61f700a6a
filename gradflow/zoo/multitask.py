"""Multi-task network: one trunk, three heads, three losses, one backward.

From what the trunk makes of a digit, one head names it, one tells odd from even, and one draws it again.
The trunk runs *once*: there is one use of each of its weights, and what the three tasks
want is added up where the heads meet the trunk, not at the weight. To tell the tasks apart, the
trunk's part of the backward has to be run once for each (``gradflow.watch(..., stems="split")``).

Shapes: ``B`` images in a batch, ``H`` features of the trunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["MultiTask", "batches", "loss", "modules", "train"]


class MultiTask(nn.Module):
    """A convolutional trunk and three dense heads.

    Example:
        >>> [y.shape for y in MultiTask()(torch.rand(2, 1, 28, 28))]
        [torch.Size([2, 10]), torch.Size([2]), torch.Size([2, 1, 28, 28])]
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, features),
            nn.ReLU(),
        )
        self.digit = nn.Linear(features, 10)
        self.parity = nn.Linear(features, 1)
        self.drawing = nn.Linear(features, 28 * 28)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images ``[B, 1, 28, 28]`` to logits ``[B, 10]``, logits of "odd" ``[B]``, and drawings."""
        features = self.trunk(images)
        drawing = torch.sigmoid(self.drawing(features)).view_as(images)
        return self.digit(features), self.parity(features).squeeze(1), drawing


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Give endless batches of real digits.

    Args:
        seed: The same seed gives the same digits.
        size: Images in a batch, ``B``.

    Yields:
        Images ``[B, 1, 28, 28]`` float32 and classes ``[B]`` int64.
    """
    images, labels = data.digits()
    rng = np.random.default_rng(seed)
    while True:
        chosen = rng.integers(len(labels), size=size)
        yield torch.tensor(images[chosen]), torch.tensor(labels[chosen])


def modules(network: MultiTask) -> dict[str, nn.Module]:
    """Name the heads: each is a path."""
    return {"digit": network.digit, "parity": network.parity, "drawing": network.drawing}


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the sum of the three tasks' losses.

    Args:
        network: Called once.
        batch: Images ``[B, 1, 28, 28]`` and classes ``[B]``.

    Returns:
        The sum, and detached: ``digit``, a cross-entropy over ten classes; ``parity``, a binary
        cross-entropy of "odd"; ``drawing``, the mean squared error of the pixels.
    """
    images, classes = batch
    digit, parity, drawing = network(images)
    tasks = {
        "digit": F.cross_entropy(digit, classes),
        "parity": F.binary_cross_entropy_with_logits(parity, (classes % 2).to(parity.dtype)),
        "drawing": F.mse_loss(drawing, images),
    }
    total = tasks["digit"] + tasks["parity"] + tasks["drawing"]
    return total, {name: value.detach() for name, value in tasks.items()}


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = MultiTask()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # three heads; their gradients meet at the trunk's output
        optimizer.step()
        losses.append(value.item())
    return losses
