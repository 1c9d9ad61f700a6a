"""Rules of stochastic gradient descent: SGD with all its options.

Source: the pages ``torch.optim.SGD`` of the PyTorch documentation; Sutskever et al. 2013.
"""

from __future__ import annotations

import torch

from gradflow.updates.frozen import Accumulate, Frozen, Stepped, is_zero
from gradflow.updates.rules import register

__all__ = ["sgd"]


@register(torch.optim.SGD, momentum="momentum_buffer")
def sgd(step: Stepped) -> Frozen:
    """Write down ``b = mu b + (1 - tau) g; theta -= lr b`` (Nesterov: ``lr (g + mu b)``)."""
    lr, mu, penalty = step.option("lr"), step.option("momentum"), step.option("weight_decay")
    if is_zero(mu):
        return Frozen(gradient=-lr, penalty=penalty)
    memory = Accumulate(mu, 1 - step.option("dampening"))
    if step.fresh:  # the first buffer is the gradient itself, undamped
        memory = Accumulate(0.0, 1.0)
    if step.group["nesterov"]:
        return Frozen(gradient=-lr, momentum=-lr * mu, penalty=penalty, memory=memory)
    return Frozen(momentum=-lr, penalty=penalty, memory=memory)
