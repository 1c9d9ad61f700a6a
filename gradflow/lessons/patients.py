"""The four patients of lesson 10: triplet trainings whose losses all fall, of which one is healthy.

    network, optimizer, recording = train("A")

What is wrong with the others is for the learner to find, so it is not told here. Each is built like
many a training script: a network of three inputs, an optimizer, a step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from gradflow.capture.branches import branch
from gradflow.capture.recorder import watch
from gradflow.recording import Recording
from gradflow.render.picture import axes_of, tell
from gradflow.render.theme import applied
from gradflow.zoo import triplet

__all__ = ["NAMES", "Patient", "curves", "train"]

_RATE, _STEPS = 1e-3, 40
_STYLES = ("-", "--", "-.", ":")


def _encoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 64), nn.ReLU(), nn.Linear(64, 16))


class A(nn.Module):
    """Three embeddings of three images; what is special about it is for the learner to find."""

    def __init__(self) -> None:
        super().__init__()
        self.left = _encoder()
        self.right = copy.deepcopy(self.left)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give three embeddings."""
        with branch("anchor"):
            a = self.left(anchor)
        with branch("positive"):
            p = self.right(positive)
        with branch("negative"):
            n = self.left(negative)
        return a, p, n


class B(nn.Module):
    """Three embeddings of three images; what is special about it is for the learner to find."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give three embeddings."""
        with branch("anchor"):
            a = self.encoder(anchor)
        with branch("positive"):
            p = self.encoder(positive)
        with branch("negative"):
            n = self.encoder(negative)
        return a, p, n


class C(B):
    """Three embeddings of three images; what is special about it is for the learner to find."""

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give three embeddings."""
        with branch("anchor"):
            a = self.encoder(anchor)
        with branch("positive"), torch.no_grad():  # the target needs no memory
            p = self.encoder(positive)
        with branch("negative"):
            n = self.encoder(negative)
        return a, p, n


def _step(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _hasty_step(optimizer: Optimizer, loss: Tensor) -> None:
    loss.backward()
    optimizer.step()


@dataclass(frozen=True, slots=True)
class Patient:
    """One training.

    Attributes:
        build: Makes the network of three inputs.
        trained: Gives the part of the network that the optimizer holds.
        step: Makes a step, given the optimizer and the loss.
    """

    build: Callable[[], nn.Module]
    trained: Callable[[nn.Module], nn.Module]
    step: Callable[[Optimizer, Tensor], None]


def _whole(network: nn.Module) -> nn.Module:
    return network


def _left(network: nn.Module) -> nn.Module:
    return network.get_submodule("left")


_PATIENTS = {
    "A": Patient(A, _left, _step),
    "B": Patient(B, _whole, _step),
    "C": Patient(C, _whole, _step),
    "D": Patient(B, _whole, _hasty_step),
}

NAMES = tuple(_PATIENTS)
"""Names of the patients."""


def train(name: str, steps: int = _STEPS) -> tuple[nn.Module, Optimizer, Recording]:
    """Train a patient on real digits, watched.

    Args:
        name: One of :data:`NAMES`.
        steps: Steps of Adam, each with 16 triplets.

    Returns:
        The network of three inputs, its optimizer, and the recording, with the loss of every step.

    Example:
        >>> network, optimizer, recording = train("B", steps=2)
        >>> recording.branches, len(recording)
        (('anchor', 'positive', 'negative'), 2)
    """
    patient = _PATIENTS[name]
    network = patient.build()
    optimizer = torch.optim.Adam(patient.trained(network).parameters(), lr=_RATE)
    with watch(network, optimizer) as flow:
        for images in islice(triplet.batches(0), steps):
            loss = F.triplet_margin_loss(*network(*images))
            flow.log(loss=loss)
            patient.step(optimizer, loss)
    return network, optimizer, flow.recording


def curves(recordings: Mapping[str, Recording], *, theme: str = "light") -> Axes:
    """Draw the losses of several recordings over the steps."""
    told = []
    with applied(theme) as look:
        ax = axes_of(None, 7.4, 3.4)
        for style, (name, recording) in zip(_STYLES, recordings.items(), strict=False):
            losses = [step.scalars["loss"] for step in recording]
            ax.plot(losses, ls=style, color=look.ink, lw=1.4, label=name)
            told.append(f"{name} from {losses[0]:.1f} to {losses[-1]:.1f}")
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        ax.set_title("Four trainings")
        ax.legend(ncols=4)
    tell(ax, f"The loss of {len(told)} trainings over the steps, all falling: {', '.join(told)}.")
    return ax
