r"""A step of an optimizer with its preconditioner frozen: a linear map that a rule writes down.

Freeze everything that the contributors share (learning rate, denominators, bias corrections) at the
values the optimizer itself used in this step. What remains is linear in the gradients, and a linear
map can be applied to each contributor's gradient apart:

.. math::
    m_t = \text{recurrence}(m_{t-1}, g_t), \qquad
    \Delta\theta = A\,g_t + B\,m_t + D\,\theta_{t-1}

Nothing here knows a particular optimizer; the rules do (:mod:`gradflow.updates.rules` lists them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradflow.updates.working import as_read, named_entries, precise, working

__all__ = ["Accumulate", "Ema", "Factor", "Frozen", "OverRoot", "Recurrence", "Scalar", "Stepped", "is_zero"]

Scalar = float | Tensor
"""A number: a Python one, or a tensor of no dimensions (a schedule that lives on a device)."""

Factor = float | Tensor | Callable[[Tensor], Tensor]
"""A number, a tensor that multiplies elementwise, or any linear map of a tensor."""


@dataclass(frozen=True, slots=True)
class OverRoot:
    """A factor that is worked out where it is needed: ``number / (sqrt(second) / root + eps)``.

    Attributes:
        second: Average of squared gradients, of the parameter's shape; read, and never changed.
        number: A number.
        root: A number.
        eps: A number.
    """

    second: Tensor
    number: Scalar
    root: Scalar
    eps: Scalar

    def tensor(self) -> Tensor:
        """Work the factor out."""
        denominator = self.second.sqrt().div_(self.root).add_(self.eps)
        if isinstance(self.number, Tensor):
            return torch.div(self.number, denominator, out=denominator)
        return denominator.reciprocal_().mul_(self.number)  # as Python's division of a number does

    def __call__(self, tensor: Tensor) -> Tensor:
        """Multiply a tensor by the factor."""
        return tensor * self.tensor()


@dataclass(frozen=True, slots=True)
class Ema:
    """An exponential moving average, ``m + weight * (g - m)``, as ``Tensor.lerp_`` computes it.

    Attributes:
        weight: Weight of the new gradient, ``1 - beta``; a tensor weighs elementwise.
    """

    weight: Scalar

    @property
    def keep(self) -> Scalar:
        """What of the old average remains."""
        return 1.0 - self.weight

    def advance_(self, buffer: Tensor, gradient: Tensor) -> Tensor:
        """Advance a buffer by one step, in place; the gradient may be a zero without dimensions."""
        weight = self.weight
        if isinstance(weight, Tensor):
            weight = weight.to(device=buffer.device, dtype=buffer.dtype, non_blocking=True)
        return buffer.lerp_(gradient, weight)


@dataclass(frozen=True, slots=True)
class Accumulate:
    """A decaying sum, ``keep * m + take * g``.

    Attributes:
        keep: What of the old sum remains; a number.
        take: Weight of the new gradient; a tensor weighs elementwise.
    """

    keep: Scalar
    take: Scalar = 1.0

    def advance_(self, buffer: Tensor, gradient: Tensor) -> Tensor:
        """Advance a buffer by one step, in place; the gradient may be a zero without dimensions."""
        buffer.mul_(self.keep)
        if isinstance(self.take, Tensor):
            return buffer.addcmul_(gradient, self.take.to(buffer.dtype))
        return buffer.add_(gradient, alpha=self.take)


Recurrence = Ema | Accumulate


@dataclass(frozen=True, slots=True)
class Frozen:
    """The step of one parameter, as a linear map of gradients, momentum and the parameter itself.

    Attributes:
        gradient: What the step takes of this step's gradient; learning rate and sign included.
        momentum: What the step takes of the momentum after this step.
        theta: What the step takes of the parameter: decoupled weight decay.
        penalty: What of the parameter the optimizer adds to the gradient before anything else: an
            L2 penalty. It becomes the gradient of the contributor ``decay``.
        memory: How the momentum buffer takes in a gradient; None when this step uses no momentum.
        rounds: True when the optimizer works in a lower precision than the parameter has; what that
            loses becomes the contributor ``rounding``.
        note: What the reader should know of this split.
    """

    gradient: Factor = 0.0
    momentum: Factor = 0.0
    theta: Factor = 0.0
    penalty: Scalar = 0.0
    memory: Recurrence | None = None
    rounds: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a rule may read of one parameter after the optimizer moved it.

    Tensors of a complex parameter come as their real views, those of a half-precision one in float32.
    Never call ``.item()``, ``float()`` or ``bool()`` on any of them: that would wait for the device.

    Attributes:
        group: Options of the parameter's group. Values may be tensors (``lr``, ``betas``).
        state: The optimizer's own state of the parameter, after the step.
        before: Copies of the state entries that the rule asked for, from before the step; an entry that
            did not exist yet is missing.
        theta: The parameter before the step.
        fresh: True when the optimizer had no momentum for this parameter before the step.
        raw: ``param.grad`` itself; rules read :meth:`gradient` or :meth:`touched`.
        scale: The loss scale that ``raw`` still carries, or None.
    """

    group: Mapping[str, Any]  # the options of an optimizer are of any type
    state: Mapping[str, Any]
    before: Mapping[str, Tensor]
    theta: Tensor
    fresh: bool
    raw: Tensor
    scale: Tensor | None = None

    def option(self, name: str) -> Scalar:
        """Give an option that is a number; a tensor of one element comes without dimensions."""
        value: Scalar = self.group[name]
        return value.reshape(()) if isinstance(value, Tensor) else value

    def count(self) -> Scalar:
        """Give the number of this step, from 1, in double precision."""
        step = self.state["step"]
        return precise(step) if isinstance(step, Tensor) else float(step)

    def decoupled(self) -> Scalar:
        """Give what ``theta *= 1 - lr * weight_decay`` adds of theta; a tensor ``lr`` rounds it as it is."""
        lr, rate = self.option("lr"), self.option("weight_decay")
        if is_zero(rate):
            return 0.0
        if isinstance(lr, Tensor) and not self.group.get("fused"):
            return (1 - lr * rate) - 1
        return -lr * rate

    def gradient(self) -> Tensor:
        """Give the whole gradient that the optimizer read, dense, its sign turned if it maximizes."""
        return as_read(working(self.raw), maximize=self.group.get("maximize", False), scale=self.scale)

    def touched(self) -> Tensor | None:
        """Tell which entries a sparse gradient names: booleans that broadcast to it; None when dense."""
        return named_entries(self.raw) if self.raw.is_sparse else None


def is_zero(factor: Factor) -> bool:
    """Tell whether a factor is the Python number zero; never looks into a tensor."""
    return isinstance(factor, (int, float)) and factor == 0
