"""Recurrent network, unrolled: one cell reads a digit row by row, so each row is a path.

Unrolled in time, a recurrent network is a Siamese network of many branches: the same
weights, used once for each row, and one gradient that is the sum over the rows. Early rows reach the
loss only through all the later ones, and it shows in the size of what they contribute.

The first row meets a hidden state of zeros: it contributes zeros to the recurrent weight, which is
not the same as being absent.

Shapes: ``B`` images, ``T`` rows (time steps), ``D`` pixels in a row, ``H`` hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["ROWS", "RowReader", "batches", "loss", "train"]

ROWS = 14
"""Rows of an image in ``batches``, ``T``."""


class RowReader(nn.Module):
    """A recurrent cell that reads an image row by row, and a dense layer that names the digit.

    Example:
        >>> RowReader()(torch.rand(2, 1, 14, 14)).shape
        torch.Size([2, 10])
    """

    def __init__(self, pixels: int = ROWS, hidden: int = 64) -> None:
        super().__init__()
        self.cell = nn.RNNCell(pixels, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, 1, T, D]`` to logits ``[B, 10]``."""
        h = images.new_zeros(len(images), self.cell.hidden_size)
        for row in images.squeeze(1).unbind(dim=1):
            h = self.cell(row, h)
        logits: Tensor = self.head(h)
        return logits


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Give endless batches of real digits, halved to 14×14 by averaging.

    Args:
        seed: The same seed gives the same digits.
        size: Images in a batch, ``B``.

    Yields:
        Images ``[B, 1, 14, 14]`` float32 and classes ``[B]`` int64.
    """
    images, labels = data.digits()
    rng = np.random.default_rng(seed)
    while True:
        chosen = rng.integers(len(labels), size=size)
        yield F.avg_pool2d(torch.tensor(images[chosen]), 2), torch.tensor(labels[chosen])


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the digit that the network names after the last row.

    Args:
        network: Called once.
        batch: Images ``[B, 1, T, D]`` and classes ``[B]``.

    Returns:
        The loss, and detached: ``accuracy``, the fraction of digits named rightly.
    """
    images, classes = batch
    logits = network(images)
    return F.cross_entropy(logits, classes), {"accuracy": (logits.argmax(dim=1) == classes).float().mean()}


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = RowReader()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # back through time: 14 uses of the cell's weights, one sum
        optimizer.step()
        losses.append(value.item())
    return losses
