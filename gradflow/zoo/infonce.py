"""SimCLR with InfoNCE: two distorted views of each digit, and everyone else is a negative.

The encoder is called for the first views and for the second views of a batch. The loss asks of
each view: which of all the others is your twin? The twin pulls, all the others push.

Shapes: ``B`` digits in a batch, so ``2B`` views; ``E`` dimensions of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["Encoder", "batches", "info_nce", "loss", "train"]


class Encoder(nn.Module):
    """Two convolutions that halve the image and a dense layer; no batch normalisation.

    Example:
        >>> Encoder()(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 64])
    """

    def __init__(self, embedding: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1)
        self.fc = nn.Linear(32 * 7 * 7, embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[B, 1, 28, 28]`` to embeddings ``[B, E]``, not normalised."""
        x = F.relu(self.conv2(F.relu(self.conv1(images))))
        embeddings: Tensor = self.fc(x.flatten(1))
        return embeddings


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Give endless batches of two views of real digits: moved by up to 3 pixels, and noisy.

    Args:
        seed: The same seed gives the same views.
        size: Digits in a batch, ``B``.

    Yields:
        First and second views, each ``[B, 1, 28, 28]`` float32; row ``i`` of both is the same digit.
    """
    images, _ = data.digits()
    rng = np.random.default_rng(seed)
    while True:
        chosen = images[rng.choice(len(images), size=size, replace=False)]
        yield torch.tensor(data.distorted(chosen, rng=rng)), torch.tensor(data.distorted(chosen, rng=rng))


def info_nce(first: Tensor, second: Tensor, *, temperature: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""InfoNCE over both views, the mean of :math:`-\log(e^{s_{ij}/\tau} / \sum_{k \neq i} e^{s_{ik}/\tau})`.

    Here :math:`s` are the cosines among all ``2B`` embeddings and :math:`j` is the twin of :math:`i`.

    Args:
        first: Embeddings of the first views, ``[B, E]``.
        second: Embeddings of the second views, ``[B, E]``.
        temperature: Divides the cosines, :math:`\tau`; a small one makes the nearest negatives count most.

    Returns:
        The loss in nats, and the fraction of views whose nearest other view is their twin.

    Note:
        NT-Xent of Chen et al. 2020, arXiv:2002.05709.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    twin = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(logits, twin), (logits.argmax(dim=1) == twin).float().mean()


def loss(encoder: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the encoder for both views and compare with :func:`info_nce`.

    Args:
        encoder: Called twice, with images ``[B, 1, 28, 28]``.
        batch: First and second views.

    Returns:
        The loss, and detached: ``found``, the fraction of views whose nearest other view is their twin.
    """
    first, second = batch
    value, found = info_nce(encoder(first), encoder(second))
    return value, {"found": found}


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch; give the loss of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    encoder = Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(encoder, batch)
        optimizer.zero_grad()
        value.backward()  # both views, one encoder, one sum
        optimizer.step()
        losses.append(value.item())
    return losses
