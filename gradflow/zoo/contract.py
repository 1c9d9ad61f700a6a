"""What every scene of the zoo promises: a model, endless batches, and a loss that runs the paths.

A scene is data, not behaviour: the plain-PyTorch files beside this one hold the functions, and
:mod:`gradflow.zoo.registry` puts them together. Nothing here knows how gradients are captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Batch", "BatchSource", "LossFunction", "Scalars", "Scene", "adam"]

Batch = tuple[Tensor, ...]
Scalars = dict[str, Tensor]
Model = Any  # a module, or a list of modules where several models share a layer


LossFunction = Callable[[Model, Batch], tuple[Tensor, Scalars]]


class BatchSource(Protocol):
    """Something that gives endless batches, the same ones for the same seed."""

    def __call__(self, seed: int = 0, size: int = 16) -> Iterator[Batch]:
        """Give batches of ``size`` items."""
        ...


def adam(model: nn.Module, *, lr: float = 1e-3) -> list[Optimizer]:
    """Give one Adam over all parameters."""
    return [torch.optim.Adam(model.parameters(), lr=lr)]


@dataclass(frozen=True, slots=True)
class Scene:
    """A model whose parameters several paths share, with data and loss to train it.

    Attributes:
        name: Its name in the zoo.
        title: What it shows, one sentence for a learner.
        branches: Names of the paths, for ``gradflow.watch``: by call, or the keys of ``modules``.
        build: Gives a fresh model, with weights from torch's current random state; a list of modules
            where several models share a layer.
        batches: ``batches(seed=0, size=16)`` gives endless batches (tuples of tensors) on the CPU; the
            same seed and size give the same ones, and no global random state is touched.
        loss: ``loss(model, batch)`` runs the forward passes; gives the scalar loss, which has a
            graph, and scalars worth logging, which are detached tensors of no dimension.
        optimizers: ``optimizers(model)`` gives the optimizers that train it, all stepped after one backward.
        modules: ``modules(model)`` gives the module of each branch, where a branch is a module and
            not a call; ``None`` where branches are named by call.
        stems: What to pass as ``stems`` to ``gradflow.watch``: ``"split"`` where paths meet before a
            parameter and should be told apart, else ``"report"``.
        heavy: True when a step takes a second or more on one core; ``names()`` leaves it out unless asked.

    Example:
        >>> from gradflow import zoo
        >>> scene = zoo.scene("triplet")
        >>> model = scene.build()
        >>> loss, scalars = scene.loss(model, next(scene.batches(seed=0, size=4)))
        >>> loss.shape, sorted(scalars)
        (torch.Size([]), ['d_an', 'd_ap', 'dead'])
    """

    name: str
    title: str
    branches: tuple[str, ...]
    build: Callable[[], Model]
    batches: BatchSource
    loss: LossFunction
    optimizers: Callable[[Model], list[Optimizer]] = adam
    modules: Callable[[Model], dict[str, nn.Module]] | None = None
    stems: str = "report"
    heavy: bool = False

    def watch_branches(self, model: Model) -> tuple[str, ...] | dict[str, nn.Module]:
        """Give what to pass as ``branches`` to ``gradflow.watch(model, branches=...)``."""
        return self.branches if self.modules is None else self.modules(model)
