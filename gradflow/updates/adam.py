"""Rules of the Adam family: an average of the gradient over an average of its square.

Sources: the pages ``torch.optim.Adam`` and ``torch.optim.AdamW`` of the PyTorch documentation; Kingma
and Ba 2014, arXiv:1412.6980; Reddi et al. 2018 (AMSGrad); Loshchilov and Hutter 2017, arXiv:1711.05101.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradflow.updates.frozen import Ema, Frozen, Scalar, Stepped
from gradflow.updates.rules import register

__all__ = ["adam"]


@register(torch.optim.Adam, momentum="exp_avg")
@register(torch.optim.AdamW, momentum="exp_avg")
def adam(step: Stepped) -> Frozen:
    """Write down ``theta -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``."""
    beta1, beta2 = _betas(step)
    in_tensors = bool(step.group["capturable"] or step.group["differentiable"])
    second = step.state["max_exp_avg_sq" if step.group["amsgrad"] else "exp_avg_sq"]
    correction1 = 1 - _power(beta1, step, in_tensors)
    correction2 = 1 - _power(beta2, step, in_tensors)
    denominator = second.sqrt() / correction2**0.5 + step.group["eps"]
    penalty, theta = _decay(step, decoupled=step.group["decoupled_weight_decay"])
    return Frozen(
        momentum=-step.option("lr") / correction1 / denominator,
        memory=Ema(1 - beta1),
        penalty=penalty,
        theta=theta,
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
        beta = beta.double() if isinstance(beta, Tensor) else beta
    elif in_tensors:
        count = step.state["step"]
    elif isinstance(beta, Tensor) and isinstance(count, Tensor):
        count = count.to(device=beta.device, dtype=beta.dtype)
    power: Scalar = beta**count
    return power


def _decay(step: Stepped, *, decoupled: bool) -> tuple[Scalar, Scalar]:
    """Give weight decay as (penalty in the gradient, factor of the parameter): one of them is zero."""
    rate = step.option("weight_decay")
    return (0.0, -step.option("lr") * rate) if decoupled else (rate, 0.0)
