"""Triplet network: one encoder sees an anchor, a positive and a negative; one loss, one backward.

Three forward passes through the *same* module build one graph in which each weight is used three
times. A single ``backward()`` walks all three paths and adds up what arrives at the weight.

The network is the one many a question on the web shows: five blocks of convolution, pooling,
batch normalisation and ReLU, global average pooling, a dense layer with tanh, and unit vectors.
Two things are done otherwise than there: vectors are normalised per sample, not over the whole
batch, and the hinge ends at exactly 0, so that a satisfied triplet is silent.

Shapes: ``B`` triplets in a batch, ``E`` dimensions of an embedding, ``S`` side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = ["Block", "Encoder", "batches", "loss", "train", "triplet_loss"]


class Block(nn.Module):
    """Convolution 3×3, pooling that halves the image, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding="same")
        self.pool = nn.MaxPool2d(2)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, channels_in, S, S]`` to ``[B, channels_out, S/2, S/2]``."""
        return F.relu(self.bn(self.pool(self.conv(x))))


class Encoder(nn.Module):
    """Maps images to unit vectors.

    Args:
        channels: Channels of the image, then of each block. Five blocks halve the image five times,
            so that its side must be 32 or more.
        embedding: Dimensions of the vectors, ``E``.

    Note:
        An image of side 32 leaves one pixel to the last batch normalisation: in training, a batch needs
        two images at least.

    Example:
        >>> vectors = Encoder()(torch.rand(2, 1, 32, 32))
        >>> vectors.shape, torch.allclose(vectors.norm(dim=1), torch.ones(2))
        (torch.Size([2, 128]), True)
    """

    def __init__(
        self, channels: tuple[int, ...] = (1, 16, 32, 64, 128, 256), *, embedding: int = 128
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in pairwise(channels)))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, C, S, S]`` to unit vectors ``[B, E]``."""
        x = self.gap(self.blocks(x)).flatten(1)
        x = torch.tanh(self.fc(x))
        return F.normalize(x, dim=1)  # each row by its own length


def batches(seed: int = 0, size: int = 16, *, side: int = 32) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give endless batches of triplets of real digits.

    Args:
        seed: The same seed gives the same triplets.
        size: Triplets in a batch, ``B``.
        side: Side ``S`` to which the 28×28 digits are enlarged, in pixels.

    Yields:
        Anchors, positives, negatives: each ``[B, 1, S, S]`` float32.
    """
    images, labels = data.digits()
    rng = np.random.default_rng(seed)
    while True:
        chosen = data.triplets(labels, size, rng=rng)
        anchor, positive, negative = (_enlarged(torch.tensor(images[i]), side) for i in chosen)
        yield anchor, positive, negative


def _enlarged(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 0.2
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Triplet margin loss, the mean over the batch of :math:`\max(0, d_{ap} - d_{an} + m)`.

    Args:
        anchor: Embeddings of the anchors, ``[B, E]``.
        positive: Embeddings of the positives, ``[B, E]``.
        negative: Embeddings of the negatives, ``[B, E]``.
        margin: How much farther than the positive the negative must be, ``m``.

    Returns:
        The loss, and detached: ``dead``, the fraction of triplets whose hinge is 0 (they give no
        gradient); ``d_ap`` and ``d_an``, the mean distances to the positive and to the negative.

    Note:
        Schroff et al. 2015, arXiv:1503.03832, with plain instead of squared distances.
    """
    d_ap = F.pairwise_distance(anchor, positive)
    d_an = F.pairwise_distance(anchor, negative)
    hinge = F.relu(d_ap - d_an + margin)
    return hinge.mean(), {
        "dead": (hinge == 0).float().mean(),
        "d_ap": d_ap.detach().mean(),
        "d_an": d_an.detach().mean(),
    }


def loss(encoder: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the encoder for anchors, positives and negatives, and compare with :func:`triplet_loss`.

    Args:
        encoder: Called three times, with images ``[B, C, S, S]``.
        batch: Anchors, positives, negatives.
    """
    anchor, positive, negative = batch
    return triplet_loss(encoder(anchor), encoder(positive), encoder(negative))


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
        value, _ = loss(encoder, batch)  # three forward passes ...
        optimizer.zero_grad()
        value.backward()  # ... one backward pass ...
        optimizer.step()  # ... one update of one set of weights
        losses.append(value.item())
    return losses
