"""Rules of the Adam family: an average of the gradient over an average of its square.

Sources: the pages ``torch.optim.Adam``, ``AdamW``, ``Adamax``, ``NAdam``, ``RAdam`` and ``SparseAdam`` of the
PyTorch documentation; Kingma and Ba 2014, arXiv:1412.6980 (Adam, Adamax); Reddi et al. 2018, "On the
Convergence of Adam and Beyond" (AMSGrad); Loshchilov and Hutter 2017, arXiv:1711.05101 (decoupled decay);
Dozat 2016, "Incorporating Nesterov Momentum into Adam"; Liu et al. 2019, arXiv:1908.03265 (RAdam).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradflow.updates.frozen import Ema, Frozen, OverRoot, Scalar, Stepped
from gradflow.updates.rules import register
from gradflow.updates.working import precise

__all__ = ["adam", "adamax", "nadam", "radam", "sparse_adam"]


@register(torch.optim.Adam, momentum="exp_avg")
@register(torch.optim.AdamW, momentum="exp_avg")
def adam(step: Stepped) -> Frozen:
    """Write down ``theta -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``."""
    beta1, beta2 = _betas(step)
    in_tensors = bool(step.group["capturable"] or step.group["differentiable"])
    second = step.state["max_exp_avg_sq" if step.group["amsgrad"] else "exp_avg_sq"]
    correction1 = 1 - _power(beta1, step, in_tensors)
    correction2 = 1 - _power(beta2, step, in_tensors)
    number = -step.option("lr") / correction1
    penalty, theta = _decay(step, decoupled=step.group["decoupled_weight_decay"])
    return Frozen(
        momentum=OverRoot(second, number, correction2**0.5, step.group["eps"]),
        memory=Ema(1 - beta1),
        penalty=penalty,
        theta=theta,
    )


@register(torch.optim.Adamax, momentum="exp_avg")
def adamax(step: Stepped) -> Frozen:
    """Write down ``theta -= lr / (1 - beta1^t) * m / u``, u the decaying maximum of ``|g| + eps``."""
    beta1, _ = _betas(step)
    correction = 1 - _power(beta1, step, step.group["capturable"])
    return Frozen(
        momentum=-step.option("lr") / correction / step.state["exp_inf"],
        memory=Ema(1 - beta1),
        penalty=step.option("weight_decay"),
    )


@register(torch.optim.NAdam, momentum="exp_avg")
def nadam(step: Stepped) -> Frozen:
    """Write down Adam's step with a look ahead: it takes of this gradient and of the next momentum."""
    lr, psi, (beta1, beta2) = step.option("lr"), step.option("momentum_decay"), _betas(step)
    on_device = step.group["capturable"]
    count = step.state["step"] if on_device else step.count()
    product = step.state["mu_product"] if on_device else precise(step.state["mu_product"])
    mu, following = (beta1 * (1 - 0.5 * 0.96 ** (t * psi)) for t in (count, count + 1))
    denominator = (step.state["exp_avg_sq"] / (1 - beta2**count)).sqrt() + step.group["eps"]
    penalty, theta = _decay(step, decoupled=step.group["decoupled_weight_decay"])
    return Frozen(
        gradient=-lr * (1 - mu) / (1 - product) / denominator,
        momentum=-lr * following / (1 - product * following) / denominator,
        memory=Ema(1 - beta1),
        penalty=penalty,
        theta=theta,
    )


@register(torch.optim.RAdam, momentum="exp_avg")
def radam(step: Stepped) -> Frozen:
    """Write down Adam's step, rectified; the first steps, of too few squares, go without denominator."""
    beta1, beta2 = _betas(step)
    count = step.state["step"] if step.group["capturable"] else step.count()
    correction1, correction2 = 1 - beta1**count, 1 - beta2**count
    most = 2 / (1 - beta2) - 1
    length = most - 2 * count * beta2**count / correction2
    enough = length > 5
    rectifier = ((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)) ** 0.5
    adaptive = correction2**0.5 / (step.state["exp_avg_sq"].sqrt() + step.group["eps"])
    adaptive = adaptive * torch.where(enough, rectifier, 0.0) + torch.where(enough, 0.0, 1.0)
    penalty, theta = _decay(step, decoupled=step.group["decoupled_weight_decay"])
    return Frozen(
        momentum=adaptive * (-step.option("lr") / correction1),
        memory=Ema(1 - beta1),
        penalty=penalty,
        theta=theta,
    )


@register(torch.optim.SparseAdam, momentum="exp_avg")
def sparse_adam(step: Stepped) -> Frozen:
    """Write down Adam's step on the entries that the gradient names; the others rest, momentum too."""
    beta1, beta2 = _betas(step)
    count, touched = step.count(), step.touched()
    size = step.option("lr") * (1 - beta2**count) ** 0.5 / (1 - beta1**count)
    factor = -size / (step.state["exp_avg_sq"].sqrt() + step.group["eps"])
    assert touched is not None, "SparseAdam refuses dense gradients itself"
    return Frozen(
        momentum=torch.where(touched, factor, torch.zeros_like(factor)),
        memory=Ema(touched.to(factor.dtype) * (1 - beta1)),
    )


def _betas(step: Stepped) -> tuple[Scalar, Scalar]:
    first, second = (b.reshape(()) if isinstance(b, Tensor) else b for b in step.group["betas"])
    return first, second


def _power(beta: Scalar, step: Stepped, in_tensors: bool) -> Scalar:
    """Give ``beta^t`` in the precision the optimizer has it: near t = 1 its digits decide.

    The counter is a float32 tensor; fused kernels and Python code read it into double precision, code
    that stays on the device (capturable, differentiable) does not, nor does a tensor ``beta``.
    """
    count: Scalar = step.count()
    if step.group.get("fused"):
        beta = precise(beta) if isinstance(beta, Tensor) else beta
    elif in_tensors:
        count = step.state["step"]
    elif isinstance(beta, Tensor) and isinstance(count, Tensor):
        return _power_by_number(beta, count.to(device=beta.device, dtype=beta.dtype))
    power: Scalar = beta**count
    return power


def _power_by_number(beta: Tensor, count: Tensor) -> Tensor:
    """Give ``beta**count`` as torch does for a Python number: it multiplies out the powers 2 and 3."""
    square = beta * beta
    power = torch.where(count == 3, square * beta, beta**count)
    return torch.where(count == 2, square, power)


def _decay(step: Stepped, *, decoupled: bool) -> tuple[Scalar, Scalar]:
    """Give weight decay as (penalty in the gradient, factor of the parameter): one of them is zero."""
    return (0.0, step.decoupled()) if decoupled else (step.option("weight_decay"), 0.0)
