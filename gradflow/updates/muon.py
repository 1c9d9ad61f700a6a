r"""The rule of Muon: a matrix that multiplies from the left takes the place of a denominator.

Newton-Schulz turns the momentum :math:`U` into :math:`P_k \cdots P_1 U / \lVert U \rVert`, where each
:math:`P_i` is a polynomial of the iterate before. Frozen, the product of the :math:`P_i` is one matrix,
linear in :math:`U`. The optimizer iterates in bfloat16; what that rounds away is ``rounding``.

Sources: the page ``torch.optim.Muon`` of the PyTorch documentation; Jordan et al. 2024, "Muon: An optimizer
for hidden layers in neural networks"; Liu et al. 2025, arXiv:2502.16982 (the adjustment of lr).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradflow.updates.frozen import Ema, Frozen, Scalar, Stepped
from gradflow.updates.rules import register

__all__ = ["muon"]

_NOTE = "Muon iterates in bfloat16: what that rounds away is shown as rounding"


@register(torch.optim.Muon, momentum="momentum_buffer", by_element=False)
def muon(step: Stepped) -> Frozen | str:
    """Write down ``theta = (1 - lr decay) theta - adjusted lr * orthogonalized momentum``."""
    mu, buffer, nesterov = step.option("momentum"), step.state["momentum_buffer"], step.group["nesterov"]
    if step.raw.dtype == torch.bfloat16 and not nesterov:
        return "Muon without Nesterov overwrites a bfloat16 momentum buffer with its normalized self"
    update = torch.lerp(step.gradient(), buffer, mu) if nesterov else buffer
    matrix = _left_matrix(update, step) * -_adjusted(step)
    wide = update.shape[0] <= update.shape[1]

    def orthogonalize(tensor: Tensor) -> Tensor:
        return matrix @ tensor if wide else tensor @ matrix.T

    def look_ahead(tensor: Tensor) -> Tensor:
        return orthogonalize(tensor * (1 - mu))

    def look_back(tensor: Tensor) -> Tensor:
        return orthogonalize(tensor * mu)

    return Frozen(
        gradient=look_ahead if nesterov else 0.0,
        momentum=look_back if nesterov else orthogonalize,
        memory=Ema(1 - mu),
        theta=step.decoupled(),
        rounds=True,
        note=_NOTE,
    )


def _left_matrix(update: Tensor, step: Stepped) -> Tensor:
    """Multiply up the polynomials of Newton-Schulz, iterated in bfloat16 as the optimizer does."""
    linear, cubic, quintic = step.group["ns_coefficients"]
    iterate = update.bfloat16()
    iterate = iterate.T if update.shape[0] > update.shape[1] else iterate
    norm = iterate.norm().clamp(min=step.group["eps"])
    iterate = iterate / norm
    product = torch.eye(iterate.shape[0], dtype=update.dtype, device=update.device) / norm
    for _ in range(step.group["ns_steps"]):
        gram = iterate @ iterate.T
        polynomial = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        product = torch.addmm(product, polynomial.to(product.dtype), product, beta=linear)
        iterate = torch.addmm(iterate, polynomial, iterate, beta=linear)
    left: Tensor = product
    return left


def _adjusted(step: Stepped) -> Scalar:
    """Give the learning rate of the orthogonalized part, which depends on the shape."""
    rows, columns = step.theta.shape[:2]
    ratio = math.sqrt(max(1.0, rows / columns))
    if step.group["adjust_lr_fn"] == "match_rms_adamw":
        ratio = 0.2 * math.sqrt(max(rows, columns))
    return step.option("lr") * ratio
