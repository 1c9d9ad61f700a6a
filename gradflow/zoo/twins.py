"""Twins: two copies of one encoder, against one encoder that is shared.

Copies start with the same weights and look like sharing. But each gets only the gradient of its own
image, and after one update they differ. ``Twins(shared=True)`` is the same network with one encoder:
its gradient is the sum of what the two copies get, and there is nothing that could drift apart.

Shapes: ``B`` pairs in a batch.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.zoo.contrastive import batches, contrastive_loss

__all__ = ["Twins", "batches", "drift", "encoder", "loss", "modules", "train"]


def encoder() -> nn.Sequential:
    """Give one convolution and one dense layer, as in :class:`gradflow.zoo.contrastive.SiameseNetwork`."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, kernel_size=3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(32 * 13 * 13, 128),
            relu2=nn.ReLU(),
        )
    )


class Twins(nn.Module):
    """An encoder for the left image and one for the right.

    Args:
        shared: False: the right one is a copy of the left one. True: it *is* the left one.

    Example:
        >>> count = lambda network: sum(p.numel() for p in network.parameters())
        >>> count(Twins()) == 2 * count(Twins(shared=True))
        True
    """

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.left = encoder()
        self.right = self.left if shared else copy.deepcopy(self.left)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Map two batches of images ``[B, 1, 28, 28]`` to their embeddings ``[B, 128]``."""
        return self.left(left), self.right(right)


def drift(network: Twins) -> Tensor:
    """Give how far apart the encoders are: the norm of the difference of their weights over the left's."""
    with torch.no_grad():
        left = torch.cat([p.flatten() for p in network.left.parameters()])
        right = torch.cat([p.flatten() for p in network.right.parameters()])
        apart: Tensor = (left - right).norm() / left.norm()
    return apart


def modules(network: Twins) -> dict[str, nn.Module]:
    """Name the copies: each is a path."""
    return {"left": network.left, "right": network.right}


def loss(network: Twins, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrastive loss with margin 1 of a batch of pairs; see :mod:`gradflow.zoo.contrastive`.

    Args:
        network: Called once, with both images.
        batch: Left and right images ``[B, 1, 28, 28]``, and ``dissimilar`` ``[B]`` (1 or 0).

    Returns:
        The loss, and detached: ``drift``, how far the encoders are apart before the step.
    """
    left, right, dissimilar = batch
    distance = F.pairwise_distance(*network(left, right))
    return contrastive_loss(distance, dissimilar), {"drift": drift(network)}


def train(steps: int = 30, seed: int = 0, *, shared: bool = False) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = Twins(shared=shared)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # copies: one path into each; shared: two paths into one
        optimizer.step()
        losses.append(value.item())
    return losses
