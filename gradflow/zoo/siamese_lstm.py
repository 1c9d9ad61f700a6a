"""Siamese LSTM: two sequences, one set of LSTM weights, joined only by a distance at the end.

The rows of a digit are read from top to bottom, 28 numbers at a time; what the LSTM remembers after
the last row is the embedding. "Two LSTMs sharing weights" are one LSTM that is called twice.

It comes in two forms that compute the same: :class:`LastState` gives the whole sequence to
``nn.LSTM``, which may run it as one fused kernel: then there is *one* use of each weight for each
image, and no such thing as the gradient of a time step. :class:`LastStateCellByCell` calls an
``nn.LSTMCell`` once for each row: 28 uses of each weight for each image.

Shapes: ``B`` pairs, ``T`` rows (time steps), ``D`` pixels in a row, ``H`` hidden units.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow.zoo.contrastive import batches, contrastive_loss

__all__ = ["LastState", "LastStateCellByCell", "SiameseLSTM", "batches", "cell_by_cell", "loss", "train"]


class LastState(nn.Module):
    """What an LSTM remembers after the last row; the whole sequence in one call."""

    def __init__(self, pixels: int = 28, hidden: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(pixels, hidden, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        """Map sequences ``[B, T, D]`` to the last hidden state ``[B, H]``."""
        _, (h, _) = self.lstm(rows)
        last: Tensor = h[-1]
        return last


class LastStateCellByCell(nn.Module):
    """What an LSTM cell remembers after the last row; one call for each row."""

    def __init__(self, pixels: int = 28, hidden: int = 64) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(pixels, hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Map sequences ``[B, T, D]`` to the last hidden state ``[B, H]``."""
        h = c = rows.new_zeros(len(rows), self.cell.hidden_size)
        for row in rows.unbind(dim=1):
            h, c = self.cell(row, (h, c))
        return h


class SiameseLSTM(nn.Module):
    """One encoder, called for the left and for the right image; gives the distance of what it remembers.

    Example:
        >>> SiameseLSTM()(torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28)).shape
        torch.Size([2])
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = LastState() if encoder is None else encoder

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Map two batches of images ``[B, 1, T, D]`` to L2 distances ``[B]``."""
        return F.pairwise_distance(self.encoder(left.squeeze(1)), self.encoder(right.squeeze(1)))


def cell_by_cell() -> SiameseLSTM:
    """Give the network in the form that calls a cell once for each row."""
    return SiameseLSTM(LastStateCellByCell())


def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Contrastive loss with margin 1 of a batch of pairs; see :mod:`gradflow.zoo.contrastive`.

    Args:
        network: Called once, with both images; gives their distances ``[B]``.
        batch: Left and right images ``[B, 1, T, D]``, and ``dissimilar`` ``[B]`` (1 or 0).

    Returns:
        The loss, and detached: ``d_same`` and ``d_other``, the mean distances within pairs of one
        class and of two (``nan`` if the batch has none).
    """
    left, right, dissimilar = batch
    distance = network(left, right)
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
    network = SiameseLSTM()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for batch in islice(batches(seed), steps):
        value, _ = loss(network, batch)
        optimizer.zero_grad()
        value.backward()  # through both sequences, back in time, into one set of weights
        optimizer.step()
        losses.append(value.item())
    return losses
