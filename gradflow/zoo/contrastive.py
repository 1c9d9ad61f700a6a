"""Siamese network with contrastive loss: one ``forward`` that runs the same layers twice.

The two-input network of many a tutorial: ``forward`` calls ``forward_once`` for the left and for the
right image. There is one ``conv1`` and one ``fc1``; their gradients are the sums over both calls.

The label says *dissimilar*: 1 for a pair of two classes, 0 for a pair of one class. That is what
the formula below needs. The tutorial this network is taken from comments it the other way round
("0 for dissimilar"), and whoever follows the comment trains the network to tear equals apart.

Shapes: ``B`` pairs in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["SiameseNetwork", "batches", "contrastive_loss", "loss", "train"]


class SiameseNetwork(nn.Module):
    """One convolution and one dense layer, used once for each image of a pair.

    Example:
        >>> left, right = SiameseNetwork()(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28))
        >>> left.shape, right.shape
        (torch.Size([2, 128]), torch.Size([2, 128]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.pool1 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(32 * 13 * 13, 128)

    def forward_once(self, x: Tensor) -> Tensor:
        """Map images ``[B, 1, 28, 28]`` to embeddings ``[B, 128]``."""
        x = self.pool1(F.relu(self.conv1(x)))
        return F.relu(self.fc1(x.flatten(1)))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Give the embeddings ``[B, 128]`` of both images."""
        return self.forward_once(left), self.forward_once(right)


def contrastive_loss(distance: Tensor, dissimilar: Tensor, *, margin: float = 1.0) -> Tensor:
    r"""Mean over the pairs of :math:`(1-y)\,d^2 + y \max(0, m-d)^2`.

    Pairs of one class (``y = 0``) are pulled together; pairs of two classes (``y = 1``) are
    pushed apart until they are ``margin`` away, and then left alone.

    Args:
        distance: Distance of the two embeddings of each pair, ``d``. Shape ``[B]``.
        dissimilar: 1 for a pair of two classes, 0 for one class, ``y``. Shape ``[B]``.
        margin: Distance from which a dissimilar pair is satisfied, ``m``.

    Note:
        Hadsell, Chopra, LeCun 2006, whose formula has a factor of one half.

    Example:
        >>> contrastive_loss(torch.tensor([0.0, 3.0]), torch.tensor([0, 1])).item()
        0.0
    """
    pull = (1 - dissimilar) * distance.square()
    push = dissimilar * F.relu(margin - distance).square()
    return (pull + push).mean()


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give endless batches of pairs of real digits, half of one class, half of two.

    Args:
        seed: The same seed gives the same pairs.
        size: Pairs in a batch, ``B``.

    Yields:
        Left and right images, ``[B, 1, 28, 28]`` float32, and ``dissimilar`` ``[B]`` float32 (1 or 0).
    """
    images, labels = data.digits()
    rng = np.random.default_rng(seed)
    while True:
        left, right, dissimilar = data.pairs(labels, size, rng=rng)
        yield torch.tensor(images[left]), torch.tensor(images[right]), torch.tensor(dissimilar).float()


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrastive loss with margin 1 of a batch of pairs.

    Args:
        network: Called once, with both images.
        batch: Left and right images ``[B, 1, 28, 28]``, and ``dissimilar`` ``[B]``.

    Returns:
        The loss, and detached: ``d_same`` and ``d_other``, the mean distances within pairs of one
        class and of two (``nan`` if the batch has none).
    """
    left, right, dissimilar = batch
    distance = F.pairwise_distance(*network(left, right))
    apart = dissimilar == 1
    return contrastive_loss(distance, dissimilar), {
        "d_same": distance.detach()[~apart].mean(),
        "d_other": distance.detach()[apart].mean(),
    }


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = SiameseNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # gradients of both calls arrive at conv1 and fc1, and are added
        optimizer.step()
        losses.append(value.item())
    return losses
