"""Rules of optimizers that divide this step's gradient by a measure of past ones.

Sources: the pages ``torch.optim.RMSprop``, ``Adagrad``, ``Adadelta`` and ``Adafactor`` of the PyTorch
documentation; Hinton's lecture 6e, and Graves 2013, arXiv:1308.0850 (RMSprop, centered); Duchi et al. 2011
(Adagrad); Zeiler 2012, arXiv:1212.5701 (Adadelta); Shazeer and Stern 2018, arXiv:1804.04235 (Adafactor).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradflow.updates.frozen import Accumulate, Frozen, Scalar, Stepped, is_zero
from gradflow.updates.rules import register

__all__ = ["adadelta", "adafactor", "adagrad", "rmsprop"]


@register(torch.optim.RMSprop, momentum="momentum_buffer")
def rmsprop(step: Stepped) -> Frozen:
    """Write down ``theta -= lr g / (sqrt(v) + eps)``; momentum sums such quotients."""
    lr, mu, penalty = step.option("lr"), step.option("momentum"), step.option("weight_decay")
    square = step.state["square_avg"]
    if step.group["centered"]:
        mean = step.state["grad_avg"]
        square = square.addcmul(mean, mean, value=-1)
    denominator = square.sqrt() + step.group["eps"]
    if is_zero(mu):
        return Frozen(gradient=-lr / denominator, penalty=penalty)
    return Frozen(momentum=-lr, memory=Accumulate(mu, 1 / denominator), penalty=penalty)


@register(torch.optim.Adagrad)
def adagrad(step: Stepped) -> Frozen:
    """Write down ``theta -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(sum of squares) + eps)``."""
    rate = step.option("lr") / (1 + (step.count() - 1) * step.group["lr_decay"])
    factor = -rate / (step.state["sum"].sqrt() + step.group["eps"])
    touched = step.touched()
    if touched is not None:
        factor = torch.where(touched, factor, torch.zeros_like(factor))
    return Frozen(gradient=factor, penalty=step.option("weight_decay"))


@register(torch.optim.Adadelta, before=("acc_delta",))
def adadelta(step: Stepped) -> Frozen:
    """Write down ``theta -= lr sqrt(u + eps) / sqrt(v + eps) * g``, u the squares of the steps before."""
    eps, steps_before = step.group["eps"], step.before.get("acc_delta")
    scale: Scalar = eps**0.5 if steps_before is None else (steps_before + eps).sqrt()
    factor = scale / (step.state["square_avg"] + eps).sqrt()
    return Frozen(gradient=-step.option("lr") * factor, penalty=step.option("weight_decay"))


@register(torch.optim.Adafactor, by_element=False)
def adafactor(step: Stepped) -> Frozen:
    """Write down ``theta -= alpha g / sqrt(V) / max(1, RMS(g / sqrt(V)) / d)``: both scales are frozen."""
    lr, theta, gradient = step.option("lr"), step.theta, step.gradient()
    least, least_size = step.group["eps"]
    least = torch.finfo(step.raw.dtype).eps if least is None else least
    factor = _adafactor_variance(step, least).clamp(min=least * least).rsqrt()
    relative = torch.clamp(1 / torch.as_tensor(step.count()) ** 0.5, max=lr)
    size = torch.clamp(theta.norm(2) / theta.numel() ** 0.5, min=least_size) * relative
    clipped = torch.clamp((factor * gradient).norm(2) / (theta.numel() ** 0.5 * step.group["d"]), min=1.0)
    return Frozen(gradient=factor * (-size / clipped), theta=step.decoupled())


def _adafactor_variance(step: Stepped, least: float) -> Tensor:
    """Give the estimate of the squared gradient: a vector's own, or the product of rows and columns."""
    if "variance" in step.state:
        variance: Tensor = step.state["variance"]
        return variance
    rows: Tensor = step.state["row_var"]
    columns: Tensor = step.state["col_var"]
    mean = rows.mean(dim=-2, keepdim=True).clamp(min=least)
    return rows @ columns / mean
