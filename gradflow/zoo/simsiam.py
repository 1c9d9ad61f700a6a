"""SimSiam: two views, one encoder, no negatives, and a stop-gradient that keeps it from collapsing.

From each view, a small predictor guesses the *other* view's embedding. The guessed embedding is
detached: it is a target, not a path. There are three losses to compare:

- ``loss``: each view is once guesser and once target, so both contribute, as guessers.
- ``loss_one_sided``: the second view is only a target. Its path is *absent*, and yet its embedding
  changes with every step, because the weights are the same.
- ``loss_without_stop``: targets get gradients too. Within tens of steps all embeddings are the same, which is
  a perfect guess and of no use. ``spread`` tells.

The encoder is small and has no batch normalisation at its end: that alone would keep
embeddings apart, and hide what the stop-gradient does.

Shapes: ``B`` digits in a batch, ``E`` dimensions of an embedding.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.zoo.infonce import batches

__all__ = [
    "SimSiam",
    "batches",
    "loss",
    "loss_one_sided",
    "loss_without_stop",
    "similarity",
    "spread",
    "train",
]


class SimSiam(nn.Module):
    """An encoder, and a predictor with a bottleneck.

    Layers before a batch normalisation have no bias, which it would take away again.

    Example:
        >>> p1, p2, z1, z2 = SimSiam()(torch.rand(4, 1, 28, 28), torch.rand(4, 1, 28, 28))
        >>> p1.shape, z1.shape
        (torch.Size([4, 64]), torch.Size([4, 64]))
    """

    def __init__(self, embedding: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, embedding),
        )
        self.predictor = nn.Sequential(
            nn.Linear(embedding, embedding // 4, bias=False),
            nn.BatchNorm1d(embedding // 4),
            nn.ReLU(),
            nn.Linear(embedding // 4, embedding),
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map two views ``[B, 1, 28, 28]`` to both guesses, then both embeddings, each ``[B, E]``."""
        z1, z2 = self.encoder(first), self.encoder(second)
        return self.predictor(z1), self.predictor(z2), z1, z2


def similarity(guess: Tensor, target: Tensor) -> Tensor:
    """Give the mean cosine of guesses and targets, both ``[B, E]``."""
    return F.cosine_similarity(guess, target, dim=1).mean()


def spread(embeddings: Tensor) -> Tensor:
    """Tell how far embeddings ``[B, E]`` are from being all the same: 0 is collapse, about 1 is healthy.

    The standard deviation of each dimension of the unit vectors, averaged, times √E; 1 for vectors
    that point in all directions alike.

    Example:
        >>> spread(torch.ones(4, 2)).item()
        0.0
    """
    z = F.normalize(embeddings.detach(), dim=1)
    value: Tensor = z.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5
    return value


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the negative mean similarity of each view's guess and the other's detached embedding.

    Args:
        network: Called once, with both views.
        batch: First and second views, ``[B, 1, 28, 28]``.

    Returns:
        The loss in ``[-1, 1]``, and detached: ``spread`` of the first views' embeddings.

    Note:
        Chen and He 2021, arXiv:2011.10566.
    """
    p1, p2, z1, z2 = network(*batch)
    value = -(similarity(p1, z2.detach()) + similarity(p2, z1.detach())) / 2
    return value, {"spread": spread(z1)}


def loss_one_sided(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Like :func:`loss`, but only the first view guesses."""
    p1, _, z1, z2 = network(*batch)
    return -similarity(p1, z2.detach()), {"spread": spread(z1)}


def loss_without_stop(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Like :func:`loss`, but nothing is detached: targets move towards their guesses."""
    p1, p2, z1, z2 = network(*batch)
    return -(similarity(p1, z2) + similarity(p2, z1)) / 2, {"spread": spread(z1)}


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    network = SimSiam()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # into each view as guesser, never as target
        optimizer.step()
        losses.append(value.item())
    return losses
