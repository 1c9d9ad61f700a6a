"""Rules of stochastic gradient descent: SGD with all its options, and averaged SGD.

Sources: the pages ``torch.optim.SGD`` and ``torch.optim.ASGD`` of the PyTorch documentation; Sutskever et
al. 2013, "On the importance of initialization and momentum in deep learning"; Polyak and Juditsky 1992,
"Acceleration of stochastic approximation by averaging".
"""

from __future__ import annotations

import torch

from gradflow.updates.frozen import Accumulate, Frozen, Stepped, is_zero
from gradflow.updates.rules import register
from gradflow.updates.working import precise

__all__ = ["asgd", "sgd"]


@register(torch.optim.SGD, momentum="momentum_buffer")
def sgd(step: Stepped) -> Frozen:
    """Write down ``b = mu b + (1 - tau) g; theta -= lr b`` (Nesterov: ``lr (g + mu b)``)."""
    lr, mu, penalty = step.option("lr"), step.option("momentum"), step.option("weight_decay")
    if is_zero(mu):
        return Frozen(gradient=-lr, penalty=penalty)
    memory = Accumulate(mu, 1.0 if step.fresh else 1 - step.option("dampening"))  # the first goes undamped
    if step.group["nesterov"]:
        return Frozen(gradient=-lr, momentum=-lr * mu, penalty=penalty, memory=memory)
    return Frozen(momentum=-lr, penalty=penalty, memory=memory)


@register(torch.optim.ASGD, before=("eta",))
def asgd(step: Stepped) -> Frozen:
    """Write down ``theta = (1 - lambd eta) theta - eta g``, with the ``eta`` left by the step before.

    The averages that ASGD keeps beside the parameter (``ax``) do not move it.
    """
    eta = step.before.get("eta")
    if eta is None:  # the first step takes lr, rounded as the optimizer keeps it
        double = torch.get_default_dtype() == torch.float64
        eta = torch.as_tensor(step.option("lr"), dtype=torch.float64 if double else torch.float32)
    eta, decay = precise(eta), step.group["lambd"]
    theta = 0.0 if is_zero(decay) else -eta * decay
    return Frozen(gradient=-eta, theta=theta, penalty=step.option("weight_decay"))
