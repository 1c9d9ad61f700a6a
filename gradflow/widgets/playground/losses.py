"""The losses of the embedding plane: their values, where their hinges die, and their formulas in numbers.

Written out in plain torch for one anchor ``a``, one positive ``p`` and one negative ``n``, embeddings of
shape ``[2]``; ``d`` is the plain distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LOSSES", "PlaneLoss"]


@dataclass(frozen=True, slots=True)
class PlaneLoss:
    """A loss of one triplet; its functions take ``(a, p, n, knob)``, three ``[2]`` and a number.

    Attributes:
        title: Its name as a reader knows it.
        knob: Which number of the state it reads: ``"margin"`` or ``"temperature"``.
        value: Gives the loss, a scalar.
        radius: Gives how far from the anchor the hinge of the negative dies; None where there is no hinge.
        written: Gives the formula with its numbers.
    """

    title: str
    knob: str
    value: Callable[..., Tensor]
    radius: Callable[..., float] | None
    written: Callable[..., str]


def _distance(a: Tensor, b: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(a - b)
    return distance


def _triplet(a: Tensor, p: Tensor, n: Tensor, margin: float) -> Tensor:
    return F.relu(_distance(a, p) - _distance(a, n) + margin)


def _triplet_written(a: Tensor, p: Tensor, n: Tensor, margin: float) -> str:
    near, far, loss = _numbers(_distance(a, p), _distance(a, n), _triplet(a, p, n, margin))
    return f"max(0, d(a,p) − d(a,n) + m) = max(0, {near} − {far} + {margin:.2f}) = {loss}"


def _contrastive(a: Tensor, p: Tensor, n: Tensor, margin: float) -> Tensor:
    return _distance(a, p).square() + F.relu(margin - _distance(a, n)).square()


def _contrastive_written(a: Tensor, p: Tensor, n: Tensor, margin: float) -> str:
    near, far, loss = _numbers(_distance(a, p), _distance(a, n), _contrastive(a, p, n, margin))
    return f"d(a,p)² + max(0, m − d(a,n))² = {near}² + max(0, {margin:.2f} − {far})² = {loss}"


def _cosines(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return torch.stack([F.cosine_similarity(a, other, dim=0) for other in (p, n)])


def _info_nce(a: Tensor, p: Tensor, n: Tensor, temperature: float) -> Tensor:
    return -F.log_softmax(_cosines(a, p, n) / temperature, dim=0)[0]


def _info_nce_written(a: Tensor, p: Tensor, n: Tensor, temperature: float) -> str:
    near, far = _numbers(*_cosines(a, p, n))
    (loss,) = _numbers(_info_nce(a, p, n, temperature))
    chance = torch.softmax(_cosines(a, p, n) / temperature, dim=0)[0].item()
    return (
        f"−log softmax(cos / τ) of p, with cos(a,p) = {near}, cos(a,n) = {far}, τ = {temperature:.2f}: "
        f"−log {chance:.3f} = {loss}"
    )


def _numbers(*values: Tensor) -> tuple[str, ...]:
    return tuple(f"{value.item():.2f}".replace("-", "−") for value in values)


LOSSES = {
    "triplet": PlaneLoss(
        title="triplet",
        knob="margin",
        value=_triplet,
        radius=lambda a, p, n, margin: (_distance(a, p) + margin).item(),
        written=_triplet_written,
    ),
    "contrastive": PlaneLoss(
        title="contrastive",
        knob="margin",
        value=_contrastive,
        radius=lambda a, p, n, margin: margin,
        written=_contrastive_written,
    ),
    "infonce": PlaneLoss(
        title="InfoNCE",
        knob="temperature",
        value=_info_nce,
        radius=None,
        written=_info_nce_written,
    ),
}
"""The losses by the word that a state has for them."""
