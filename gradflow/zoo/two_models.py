"""Two models that share one layer: each has a head, a task and an optimizer of its own.

Model A tells the digits 0 to 4 apart, model B the digits 5 to 9. One layer *object* is built and put
into both, so that there is one weight, seen under two models. Building a layer twice from the same
recipe gives two weights, however alike they look. The layer may be dense, convolutional, or one
that you write yourself: sharing works the same way.

There are two ways to train them, and they are not the same:

- *Together* (``loss``): one backward of the sum of both losses; the shared weight gets A's gradient plus
  B's, and is moved once. It belongs to one optimizer, or else it moves twice by the same gradient.
- *In turn* (``train``): a step of A alone, then a step of B alone; each optimizer holds the shared
  weight and sees only its own model's gradient. This is what calling ``fit`` on two models does.

Shapes: ``B`` images of each model in a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import data

__all__ = [
    "SharedWeightLayer",
    "batches",
    "conv",
    "custom",
    "dense",
    "loss",
    "losses",
    "modules",
    "optimizers",
    "train",
]


class SharedWeightLayer(nn.Module):
    """A layer of our own: a weight and a matrix product, no bias.

    Example:
        >>> SharedWeightLayer(3, 2)(torch.rand(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(inputs, outputs).uniform_(-0.05, 0.05))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs]`` to ``[B, outputs]``."""
        return x @ self.kernel


def dense() -> list[nn.Module]:
    """Give models A and B that share a dense layer.

    Example:
        >>> a, b = dense()
        >>> a.shared is b.shared, a.head is b.head
        (True, False)
    """
    shared = nn.Linear(28 * 28, 64)
    return [_on_pixels(shared), _on_pixels(shared)]


def custom() -> list[nn.Module]:
    """Give models A and B that share a layer of our own."""
    shared = SharedWeightLayer(28 * 28, 64)
    return [_on_pixels(shared), _on_pixels(shared)]


def conv() -> list[nn.Module]:
    """Give models A and B that share a convolution."""
    shared = nn.Conv2d(1, 8, kernel_size=3)
    return [_on_images(shared), _on_images(shared)]


def _on_pixels(shared: nn.Module) -> nn.Module:
    """Flatten the image, apply the shared layer, and name one of five digits."""
    head = nn.Linear(64, 5)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), shared=shared, relu=nn.ReLU(), head=head))


def _on_images(shared: nn.Module) -> nn.Module:
    """Apply the shared layer to the image, pool, and name one of five digits."""
    layers = OrderedDict(shared=shared, relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=nn.Flatten())
    return nn.Sequential(layers | {"head": nn.Linear(8 * 13 * 13, 5)})


def batches(seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Give endless batches of real digits, 0 to 4 for model A and 5 to 9 for model B.

    Args:
        seed: The same seed gives the same digits.
        size: Images for each model, ``B``.

    Yields:
        A's images ``[B, 1, 28, 28]`` float32 and classes ``[B]`` int64 in ``0..4``; B's images and classes,
        counted from its first digit, so also ``0..4``.
    """
    images, labels = data.digits()
    of_a, of_b = np.flatnonzero(labels < 5), np.flatnonzero(labels >= 5)
    rng = np.random.default_rng(seed)
    while True:
        a, b = rng.choice(of_a, size), rng.choice(of_b, size)
        for_a = torch.tensor(images[a]), torch.tensor(labels[a])
        yield *for_a, torch.tensor(images[b]), torch.tensor(labels[b] - 5)


def losses(models: list[nn.Module], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Give the cross-entropy of each model on its own images, for a backward each.

    Args:
        models: A and B, each called once.
        batch: A's images and classes, B's images and classes.
    """
    a, b = models
    images_a, classes_a, images_b, classes_b = batch
    return F.cross_entropy(a(images_a), classes_a), F.cross_entropy(b(images_b), classes_b)


def loss(models: list[nn.Module], batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the sum of both losses, for one backward.

    Args:
        models: A and B, each called once.
        batch: A's images and classes, B's images and classes.

    Returns:
        The sum, and detached: ``loss_a`` and ``loss_b``.
    """
    loss_a, loss_b = losses(models, batch)
    return loss_a + loss_b, {"loss_a": loss_a.detach(), "loss_b": loss_b.detach()}


def modules(models: list[nn.Module]) -> dict[str, nn.Module]:
    """Name the models: each is a path."""
    a, b = models
    return {"A": a, "B": b}


def optimizers(models: list[nn.Module]) -> list[torch.optim.Optimizer]:
    """Give an Adam for A with the shared layer, and one for what B has of its own.

    For training together: after one backward, both step, and each parameter moves once.
    """
    a, b = models
    shared = {id(p) for p in a.parameters()}
    own = [p for p in b.parameters() if id(p) not in shared]
    return [torch.optim.Adam(a.parameters(), lr=1e-3), torch.optim.Adam(own, lr=1e-3)]


def train(steps: int = 30, seed: int = 0) -> list[float]:
    """Train from scratch in plain PyTorch, the models in turn; give the mean of both losses of every step.

    Example:
        >>> len(train(steps=2))
        2
    """
    torch.manual_seed(seed)
    models = dense()
    adams = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    values = []
    for batch in islice(batches(seed), steps):
        for model, adam, images, classes in zip(models, adams, batch[::2], batch[1::2], strict=True):
            value = F.cross_entropy(model(images), classes)
            adam.zero_grad()  # clears what the other model left in the shared weight
            value.backward()
            adam.step()
            values.append(value.item())
    return [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]
